// Many files that are read as one set: of any number of them, a bounded number is open. Who
// asks for a file that is closed opens it, and the one that was used the longest ago is closed.
//
//   const file_series shards(paths, sizes);          // each must be there and have its size
//   shards.read(3, offset, to, n);
#pragma once
#include <sys/resource.h>

#include <optional>

#include "file.hpp"

namespace multistage::io {

namespace detail {

/// How many files of a series are open: half of what the process may open, and no more than
/// serves the order of a few batches.
inline std::size_t open_at_once() {
  constexpr rlim_t most = 256;
  constexpr rlim_t least = 4;
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return std::size_t(least);
  return std::size_t(std::clamp(limit.rlim_cur / 2, least, most));
}

}  // namespace detail

/// Files to read from, at any offset and from any thread. One that is another than it was when
/// the series was opened is an error, also where it was closed in between.
class file_series {
 public:
  /// Opens each once. @param sizes that they must have. @throws file_error naming the first
  /// that is not there, or has another size
  MULTISTAGE_COLD file_series(const std::vector<std::string>& paths,
                              const std::vector<std::uint64_t>& sizes)
      : most_(detail::open_at_once()), files_(paths.size()) {
    for (std::size_t k = 0; k < paths.size(); ++k) {
      files_[k].path = paths[k];
      const auto file = opened(k);
      require<file_error>(file->size() == sizes[k], paths[k], ": has ", file->size(),
                          " bytes, the index says ", sizes[k],
                          ": it was cut or belongs to another set; make the set anew");
    }
  }

  /// Bytes [offset, offset + n) of a file. @throws file_error as input_file does
  void read(std::size_t which, std::uint64_t offset, void* to, std::size_t n) const {
    opened(which)->read(offset, to, n);
  }
  /// How many are open now.
  std::size_t open() const {
    const std::lock_guard lock(one_);
    return open_.size();
  }

 private:
  struct entry {
    std::string path;
    std::shared_ptr<const input_file> file{};  // null while it is closed
    std::optional<file_state> state{};         // when it was opened first
    std::uint64_t used = 0;                    // by the count of uses
  };

  /// The file, open as long as the caller holds it.
  std::shared_ptr<const input_file> opened(std::size_t which) const {
    const std::lock_guard lock(one_);
    entry& e = files_[which];
    e.used = ++uses_;
    if (!e.file)
      open_again(which);
    return e.file;
  }
  MULTISTAGE_COLD void open_again(std::size_t which) const {
    if (open_.size() >= most_) {
      const auto oldest = std::min_element(
          open_.begin(), open_.end(),
          [&](std::size_t a, std::size_t b) { return files_[a].used < files_[b].used; });
      files_[*oldest].file.reset();
      open_.erase(oldest);
    }
    entry& e = files_[which];
    auto file = std::make_shared<const input_file>(e.path);
    require<file_error>(!e.state || *e.state == file->state(), e.path,
                        ": was changed after it was opened; open it again");
    e.state = file->state();
    e.file = std::move(file);
    open_.push_back(which);
  }

  std::size_t most_;
  mutable std::mutex one_;
  mutable std::vector<entry> files_;
  mutable std::vector<std::size_t> open_;  // which are
  mutable std::uint64_t uses_ = 0;
};

}  // namespace multistage::io
