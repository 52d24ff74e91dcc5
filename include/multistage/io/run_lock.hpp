// One run a place: a directory or checkpoint that a run works in is locked while the run lives.
// The lock is the kernel's (flock), so it is gone with its process however that ends, and it
// holds between containers and, where the file system passes locks on, between machines.
//
//   const run_lock lock("runs/digits");         // throws where another run works there
#pragma once
#include <ctime>

#include "file.hpp"

namespace multistage::io {

/// Another run works in a place.
struct place_in_use : file_error {
  using file_error::file_error;
};

/// Keeps others out of a place for as long as it lives. Whoever comes second is told who was
/// first. On file systems without locks it keeps nobody out; files are written atomically all
/// the same.
class run_lock {
 public:
  /// @param path a directory that is there, or a file that need not be.
  /// @throws place_in_use naming the process and machine that hold the place; file_error where
  /// it cannot be locked for another reason
  explicit run_lock(const std::string& path) {
    std::error_code problem;
    if (std::filesystem::is_directory(detail::checked(path), problem)) {
      directory_ = detail::open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY);
      name_ = ".run.lock";
    } else {
      detail::place place = detail::find_place(path);
      directory_ = std::move(place.directory);
      name_ = detail::beside(place.name, "lock");
    }
    while (!taken(path)) {
    }
  }
  ~run_lock() {
    if (held_)
      ::unlinkat(directory_.get(), name_.c_str(), 0);
  }
  run_lock(const run_lock&) = delete;
  run_lock& operator=(const run_lock&) = delete;

 private:
  /// One try; false when the lock's file was removed meanwhile by the run that held it.
  bool taken(const std::string& path) {
    file_ = detail::open_at(directory_.get(), name_, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK,
                            0666);
    // What a dead run of another user left may be locked, if not written.
    const bool own_words = bool(file_) || errno != EACCES;
    if (!own_words)
      file_ = detail::open_at(directory_.get(), name_, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (!file_)
      fail<file_error>(
          path, ": cannot be locked: ", name_, ": ", std::strerror(errno),
          "; if no run is at work there, remove that file, or give this run a place of its"
          " own");
    const auto lock = [&] {
      return ::flock(file_.get(), LOCK_EX | LOCK_NB);
    };
    if (detail::retried(lock) != 0) {
      if (errno == EWOULDBLOCK)
        fail<place_in_use>(
            path, ": another run is at work there: ", holder(),
            "; wait until it ends, stop it, or give this run a place of its own");
      return true;  // no locks on this file system
    }
    struct stat own {};
    struct stat named {};
    if (::fstat(file_.get(), &own) != 0 ||
        ::fstatat(directory_.get(), name_.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0 ||
        own.st_ino != named.st_ino || own.st_dev != named.st_dev)
      return false;
    held_ = true;
    if (!own_words)
      return true;
    const std::string text = introduction();
    // Who holds the lock is said for people; the lock holds without it.
    (void)!::ftruncate(file_.get(), 0);
    (void)detail::write_all(file_.get(), text.data(), text.size());
    return true;
  }
  /// What the lock's file says of who holds it.
  static std::string introduction() {
    char host[256] = "";
    ::gethostname(host, sizeof host - 1);
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    ::gmtime_r(&now, &utc);
    char since[32] = "";
    std::strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return "process " + std::to_string(::getpid()) + " on " + host + " since " + since;
  }
  /// The same, as others read it.
  std::string holder() const {
    char text[400];
    const ssize_t size = ::pread(file_.get(), text, sizeof text, 0);
    std::string said;
    for (ssize_t i = 0; i < size; ++i)
      said += text[i] >= ' ' && text[i] < 127 ? text[i] : '?';
    return said.empty() ? "it has not said yet which" : said;
  }

  detail::descriptor directory_;
  std::string name_;
  detail::descriptor file_;
  bool held_ = false;
};

}  // namespace multistage::io
