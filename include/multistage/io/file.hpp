// Files read whole and written atomically: a temporary name in the same directory, fsync, then rename, so that a crash, a full disk or
// an interrupt leaves the old file or the new one, never half of either.
#pragma once
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "../core/config.hpp"
#include "../core/error.hpp"

namespace multistage::io {

/// Reads a regular file of at most `limit` bytes. @throws file_error
inline std::vector<unsigned char> read_file(const std::string& path, std::uint64_t limit = std::uint64_t{1} << 40) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail<file_error>(path, ": cannot be opened: ", std::strerror(errno));
  struct closer {
    int fd;
    ~closer() { ::close(fd); }
  } close{fd};
  struct stat s {};
  if (::fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) fail<file_error>(path, ": is not a regular file");
  if (std::uint64_t(s.st_size) > limit) fail<file_error>(path, ": has ", s.st_size, " bytes, more than the ", limit, " expected here");
  std::vector<unsigned char> data(static_cast<std::size_t>(s.st_size));
  std::size_t have = 0;
  while (have < data.size()) {
    const ssize_t n = ::read(fd, data.data() + have, data.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail<file_error>(path, ": reading stopped at byte ", have, " of ", data.size(), n < 0 ? std::string(": ") + std::strerror(errno) : ": the file was cut");
    have += std::size_t(n);
  }
  return data;
}

/// A regular file mapped into memory, read-only: pages are read when they are touched. @throws file_error
class mapped_file {
 public:
  explicit mapped_file(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail<file_error>(path, ": cannot be opened: ", std::strerror(errno));
    struct stat s {};
    const bool regular = ::fstat(fd, &s) == 0 && S_ISREG(s.st_mode);
    size_ = regular ? std::size_t(s.st_size) : 0;
    if (size_ > 0) data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int why = errno;
    ::close(fd);
    if (!regular) fail<file_error>(path, ": is not a regular file");
    if (data_ == MAP_FAILED) fail<file_error>(path, ": cannot be mapped into memory: ", std::strerror(why));
  }
  ~mapped_file() {
    if (size_ > 0) ::munmap(data_, size_);
  }
  mapped_file(const mapped_file&) = delete;
  mapped_file& operator=(const mapped_file&) = delete;
  std::span<const unsigned char> bytes() const { return {static_cast<const unsigned char*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A file that appears under its name when `commit` succeeds, and not before. Dropped without commit, it leaves nothing.
class atomic_file {
 public:
  /// @throws file_error when the directory cannot be written.
  explicit atomic_file(std::string path) : path_(std::move(path)), temporary_(path_ + ".partial." + std::to_string(::getpid())) {
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd_ < 0) fail<file_error>(path_, ": cannot be written: ", std::strerror(errno));
  }
  ~atomic_file() {
    if (fd_ >= 0) ::close(fd_);
    if (!committed_) ::unlink(temporary_.c_str());
  }
  atomic_file(const atomic_file&) = delete;
  atomic_file& operator=(const atomic_file&) = delete;

  void write(const void* data, std::size_t size) {
    const char* p = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t n = ::write(fd_, p, size);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail<file_error>(path_, ": writing failed: ", std::strerror(errno), "; the file that was there, if any, is unchanged");
      p += n;
      size -= std::size_t(n);
    }
  }
  void write(std::string_view text) { write(text.data(), text.size()); }

  void commit() {
    if (::fsync(fd_) != 0 || ::close(fd_) != 0) {
      fd_ = -1;
      fail<file_error>(path_, ": writing failed: ", std::strerror(errno), "; the file that was there, if any, is unchanged");
    }
    fd_ = -1;
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail<file_error>(path_, ": cannot be replaced: ", std::strerror(errno));
    committed_ = true;
    // The rename itself must reach the disk too.
    const std::string directory = std::filesystem::path(path_).parent_path().string();
    if (const int d = ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_CLOEXEC); d >= 0) {
      ::fsync(d);
      ::close(d);
    }
  }

 private:
  std::string path_, temporary_;
  int fd_ = -1;
  bool committed_ = false;
};

/// Writes `text` as the whole file.
inline void write_file(const std::string& path, std::string_view text) {
  atomic_file f(path);
  f.write(text);
  f.commit();
}

/// Makes a directory if needed and checks that files can be made in it. @throws file_error
inline void make_directory(const std::string& path) {
  std::error_code e;
  std::filesystem::create_directories(path, e);
  if (!std::filesystem::is_directory(path)) fail<file_error>(path, ": cannot be made a directory", e ? ": " + e.message() : std::string());
  const std::string probe = path + "/.write-test." + std::to_string(::getpid());
  const int fd = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) fail<file_error>(path, ": cannot be written: ", std::strerror(errno));
  ::close(fd);
  ::unlink(probe.c_str());
}

}  // namespace multistage::io
