// A folder that appears whole or not at all: it is filled under a hidden name beside its own,
// and takes that name when all is there. What runs that died left is removed by the next one.
//
//   atomic_folder set("icons-32", false);
//   write(set.inside() + "/images.bin");
//   set.commit();                         // without it nothing has happened
#pragma once
#include <stdio.h>  // renameat2

#include "file.hpp"

namespace multistage::io {

/// A folder that appears under its name when `commit` succeeds, and not before.
class atomic_folder {
 public:
  /// @param replaces whether a folder of that name is replaced; the caller knows that it may
  /// be. @throws file_error where there is one and it is not, or its place cannot be written
  MULTISTAGE_COLD atomic_folder(std::string path, bool replaces)
      : path_(without_slash(std::move(path))),
        replaces_(replaces) {
    namespace fs = std::filesystem;
    std::error_code problem;
    require<file_error>(replaces || !fs::exists(fs::symlink_status(path_, problem)), path_,
                        ": is there already; name another, or say that it is replaced "
                        "(overwrite, --overwrite)");
    const fs::path at(path_);
    const std::string name = at.filename().string();
    require<file_error>(!name.empty() && name != "." && name != "..", path_,
                        ": is not the name of a folder that can be made");
    const fs::path parent = at.has_parent_path() ? at.parent_path() : fs::path(".");
    make_directory(parent.string());
    const std::string hidden = detail::beside(name, detail::random_suffix());
    remove_remains(parent, hidden.substr(0, hidden.size() - detail::random_digits));
    inside_ = (parent / hidden).string();
    require<file_error>(::mkdir(inside_.c_str(), 0777) == 0, path_,
                        ": cannot be made: ", std::strerror(errno));
    lock_ = detail::open_at(AT_FDCWD, inside_, O_RDONLY | O_DIRECTORY);
    if (lock_)
      detail::retried([&] { return ::flock(lock_.get(), LOCK_EX); });
  }
  ~atomic_folder() {
    std::error_code problem;
    std::filesystem::remove_all(inside_, problem);
  }
  atomic_folder(const atomic_folder&) = delete;
  atomic_folder& operator=(const atomic_folder&) = delete;

  /// Where files are written until then.
  const std::string& inside() const {
    return inside_;
  }
  /// Gives the folder its name; one that it replaces is removed. @throws file_error; unless it
  /// says otherwise, what was there before is still there
  MULTISTAGE_COLD void commit() {
    if (lock_ && !detail::reached_disk(lock_.get()))
      fail<file_error>(path_, ": writing failed: ", std::strerror(errno));
    // Where a folder with files is there, the two change names, and the old one goes with the
    // hidden name.
    const char* const from = inside_.c_str();
    const char* const to = path_.c_str();
    const bool placed =
        ::rename(from, to) == 0 ||
        (replaces_ && ::renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0);
    require<file_error>(placed, path_, ": cannot be put in its place: ", std::strerror(errno),
                        "; what was there is unchanged");
  }

 private:
  static std::string without_slash(std::string path) {
    while (path.size() > 1 && path.back() == '/')
      path.pop_back();
    return path;
  }
  /// Removes what runs left that are gone: who lives holds a lock.
  static void remove_remains(const std::filesystem::path& parent, const std::string& prefix) {
    std::error_code problem;
    for (std::filesystem::directory_iterator entry(parent, problem), end;
         !problem && entry != end; entry.increment(problem)) {
      const std::string name = entry->path().filename().string();
      if (name.compare(0, prefix.size(), prefix) != 0 || !detail::is_partial(name) ||
          name.size() != prefix.size() + detail::random_digits)
        continue;
      const detail::descriptor folder = detail::open_at(AT_FDCWD, entry->path().string(),
                                                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      std::error_code ignored;
      if (folder && ::flock(folder.get(), LOCK_EX | LOCK_NB) == 0)
        std::filesystem::remove_all(entry->path(), ignored);
    }
  }

  std::string path_;
  bool replaces_;
  std::string inside_;
  detail::descriptor lock_;
};

}  // namespace multistage::io
