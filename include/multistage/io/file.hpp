// Files, read and written so that nothing is lost or wrong in silence.
// Reading: in parts, at any offset; a file that is cut or changed meanwhile is an error that
// names it. (A mapped file that is cut would end the program by a signal instead.) Writing:
// under a hidden random name in the same directory, fsync of the file, rename, fsync of the
// directory, so that a crash, a full disk or an interrupt leaves the old file or the new one,
// never half of either. What runs that died left under hidden names is removed by the next
// save.
//
//   write_file("figure.png", bytes);            // whole or not at all
//   atomic_file f("model.safetensors");         // piece by piece
//   f.write(header);
//   f.write(values.data(), size);
//   f.commit();                                 // without it nothing has happened
#pragma once
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/config.hpp"
#include "../core/error.hpp"
#include "../core/fingerprint.hpp"

namespace multistage::io {

namespace detail {

/// Owns a file descriptor.
class descriptor {
 public:
  descriptor() = default;
  /// Takes an open file over; -1 for none.
  explicit descriptor(int number)
      : number_(number) {}
  descriptor(descriptor&& other) noexcept
      : number_(std::exchange(other.number_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~descriptor() {
    if (number_ >= 0)
      ::close(number_);
  }
  int get() const {
    return number_;
  }
  explicit operator bool() const {
    return number_ >= 0;
  }

 private:
  int number_ = -1;
};

/// Calls a function of the system again while signals interrupt it.
template <class Call>
auto retried(Call&& call) {
  auto result = call();
  while (result < 0 && errno == EINTR)
    result = call();
  return result;
}

/// open() from a directory on (AT_FDCWD: the current one), with errno where that fails. Never
/// descriptor 0, 1 or 2: in a program that was started without one of them, what is printed
/// there would land in the file.
inline descriptor open_at(int directory, const std::string& path, int flags, mode_t mode = 0) {
  const auto open = [&] {
    return ::openat(directory, path.c_str(), flags | O_CLOEXEC, mode);
  };
  descriptor file(retried(open));
  if (!file || file.get() > 2)
    return file;
  return descriptor(::fcntl(file.get(), F_DUPFD_CLOEXEC, 3));
}

/// Writes all of some bytes; false, with errno, where that fails.
inline bool write_all(int file, const void* data, std::size_t size) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = retried([&] { return ::write(file, from, size); });
    if (n <= 0)
      return false;
    from += n;
    size -= std::size_t(n);
  }
  return true;
}

/// Refuses a path that holds a NUL byte: the system's calls would take what stands before it,
/// another path. Returns it. @throws file_error
inline const std::string& checked(const std::string& path) {
  const std::size_t nul = path.find('\0');
  if (nul != std::string::npos)
    fail<file_error>(path.substr(0, nul), "\\0", path.substr(nul + 1).c_str(),
                     ": the path holds a NUL byte, which no file's name can; name another");
  return path;
}

/// fsync; true as well where a file system knows no such thing.
inline bool reached_disk(int file) {
  return retried([&] { return ::fsync(file); }) == 0 || errno == EINVAL || errno == ENOSYS ||
         errno == ENOTSUP || errno == EROFS || errno == EBADF;
}

/// A hidden name beside a file's own: ".NAME.SUFFIX", with a hash in NAME's place where it is
/// long.
inline std::string beside(const std::string& name, const std::string& suffix) {
  constexpr std::size_t longest = 128;  // well below any file system's limit
  if (name.size() + suffix.size() + 2 <= longest)
    return "." + name + "." + suffix;
  const std::span<const char> bytes(name);
  return "." + fingerprint_of(bytes) + "." + suffix;
}

/// Where a path leads once symbolic links are followed: an open directory and a name in it,
/// which need not exist.
struct place {
  descriptor directory;
  std::string name;
};

/// @throws file_error when the directory cannot be opened, or the path is something other than
/// a file.
inline place find_place(const std::string& path) {
  std::filesystem::path at(checked(path));
  std::error_code problem;
  for (int links = 0; std::filesystem::is_symlink(at, problem); ++links) {
    if (links == 40)
      fail<file_error>(path, ": cannot be written: too many symbolic links");
    const std::filesystem::path to = std::filesystem::read_symlink(at, problem);
    if (problem)
      fail<file_error>(path, ": cannot be written: ", problem.message());
    at = to.is_absolute() ? to : at.parent_path() / to;
  }
  place found;
  found.name = at.filename().string();
  require<file_error>(!found.name.empty() && found.name != "." && found.name != "..", path,
                      ": cannot be written: it is not the name of a file");
  const std::string directory = at.has_parent_path() ? at.parent_path().string() : ".";
  found.directory = open_at(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY);
  if (!found.directory)  // one that may be written, not listed
    found.directory = open_at(AT_FDCWD, directory, O_PATH | O_DIRECTORY);
  if (!found.directory)
    fail<file_error>(path, ": cannot be written: ", directory, ": ", std::strerror(errno));
  struct stat there {};
  if (::fstatat(found.directory.get(), found.name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0)
    require<file_error>(
        S_ISREG(there.st_mode), path,
        ": cannot be written: it is there and not a regular file; name another");
  else if (errno != ENOENT)
    fail<file_error>(path, ": cannot be written: ", std::strerror(errno));
  return found;
}

/// Refuses, before any work, a path that no save could be written to: a directory, a device, a
/// place that is not there or not to be changed. @throws file_error
inline void check_writable(const std::string& path) {
  const place where = find_place(path);
  if (::faccessat(where.directory.get(), ".", W_OK | X_OK, AT_EACCESS) != 0)
    fail<file_error>(path, ": cannot be written: its directory: ", std::strerror(errno));
}

/// In the names of files that are being written.
inline constexpr std::string_view partial = ".partial.";
/// Hexadecimal digits behind it, so that two writers never meet.
inline constexpr std::size_t random_digits = 16;

/// The ending of such a file's name, by the system's random numbers.
inline std::string random_suffix() {
  static constexpr char digits[] = "0123456789abcdef";
  std::random_device source;
  std::string text(partial.substr(1));
  for (std::size_t i = 0; i < random_digits; ++i)
    text += digits[source() & 15];
  return text;
}

/// Whether a name is one that atomic_file writes under.
inline bool is_partial(std::string_view name) {
  if (name.size() < partial.size() + random_digits || name[0] != '.')
    return false;
  const std::string_view digits = name.substr(name.size() - random_digits);
  const std::string_view before = name.substr(0, name.size() - random_digits);
  return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos &&
         before.substr(before.size() - partial.size()) == partial;
}

/// Removes partial files in a directory whose writers are gone: a writer holds a lock as long
/// as it lives, on whatever machine or in whatever container. Returns how many names the
/// directory has.
inline std::size_t remove_orphans(int directory) {
  const int listed = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const list = listed < 0 ? nullptr : ::fdopendir(listed);
  if (list == nullptr) {
    if (listed >= 0)
      ::close(listed);
    return 0;
  }
  std::size_t names = 0;
  while (const dirent* entry = ::readdir(list)) {
    ++names;
    if (!is_partial(entry->d_name))
      continue;
    const descriptor file = open_at(directory, entry->d_name, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    if (file && ::flock(file.get(), LOCK_EX | LOCK_NB) == 0)
      ::unlinkat(directory, entry->d_name, 0);
  }
  ::closedir(list);
  return names;
}

/// Looks for orphans at every save where names are few, and so seldom where they are many that
/// a folder of n files is written in time proportional to n.
inline void tidy(int directory) {
  static std::mutex one;
  static std::map<std::pair<dev_t, ino_t>, std::size_t> saves_to_come;
  struct stat which {};
  if (::fstat(directory, &which) != 0)
    return;
  const std::lock_guard lock(one);
  std::size_t& left = saves_to_come[{which.st_dev, which.st_ino}];
  if (left > 0)
    --left;
  else
    left = remove_orphans(directory) / 64;
}

/// A new file under a hidden random name, locked while it is open; false, with errno, where
/// that fails.
inline bool open_partial(const place& where, std::string& name, descriptor& file) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    name = beside(where.name, random_suffix());
    file = open_at(where.directory.get(), name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
    if (!file && errno == EEXIST)
      continue;
    if (!file)
      return false;
    // Where a file system has no locks, nobody takes the file for an orphan either.
    retried([&] { return ::flock(file.get(), LOCK_EX); });
    struct stat own {};
    if (::fstat(file.get(), &own) != 0 || own.st_nlink > 0)
      return true;
    file = {};  // taken for an orphan before it was locked
  }
  errno = EEXIST;
  return false;
}

}  // namespace detail

/// By what a file is known again: another one, or one that was written to, differs.
struct file_state {
  struct stat found {};  ///< what the system says of it

  /// Whether it is the same file, unchanged. A time of writing can be set back (cp -p, tar),
  /// the inode's cannot. That moves too when another file takes the name, by which this one
  /// loses a link and nothing else.
  bool operator==(const file_state& other) const {
    const auto alike = [](const struct timespec& a, const struct timespec& b) {
      return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
    };
    const struct stat& a = found;
    const struct stat& b = other.found;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
           alike(a.st_mtim, b.st_mtim) &&
           (alike(a.st_ctim, b.st_ctim) || a.st_nlink != b.st_nlink);
  }
};

/// A regular file to read from, at any offset and from any thread. Files are refused that are
/// cut or changed after they were opened: whoever reads them lazily would mix two of them.
class input_file {
 public:
  /// @throws file_error when there is no such file, or it is a directory, pipe or device.
  explicit input_file(std::string path)
      : path_(std::move(path)),
        file_(detail::open_at(AT_FDCWD, detail::checked(path_), O_RDONLY | O_NONBLOCK)) {
    if (!file_)
      fail<file_error>(path_, ": cannot be opened: ", std::strerror(errno));
    struct stat& found = opened_.found;
    require<file_error>(::fstat(file_.get(), &found) == 0 && S_ISREG(found.st_mode), path_,
                        ": is not a regular file");
  }
  /// As it was given.
  const std::string& path() const {
    return path_;
  }
  /// Bytes that the file had when it was opened.
  std::uint64_t size() const {
    return std::uint64_t(opened_.found.st_size);
  }
  /// What it was when it was opened.
  const file_state& state() const {
    return opened_;
  }

  /// Bytes [offset, offset + size). @throws file_error when the file ends before, is no longer
  /// what was opened, or the disk fails.
  void read(std::uint64_t offset, void* to, std::size_t size) const {
    unsigned char* const at = static_cast<unsigned char*>(to);
    std::size_t have = 0;
    while (have < size) {
      const ssize_t n = detail::retried(
          [&] { return ::pread(file_.get(), at + have, size - have, off_t(offset + have)); });
      if (n < 0)
        fail<file_error>(path_, ": reading failed at byte ", offset + have, ": ",
                         std::strerror(errno));
      if (n == 0)
        fail<file_error>(path_, ": reading stopped at byte ", offset + have, " of ",
                         this->size(), ": the file was cut; make it anew");
      have += std::size_t(n);
    }
    file_state now;
    require<file_error>(
        ::fstat(file_.get(), &now.found) == 0 && now.found.st_size >= opened_.found.st_size,
        path_, ": the file was cut while it was in use; make it anew");
    require<file_error>(now == opened_, path_,
                        ": was changed after it was opened; open it again");
  }

 private:
  std::string path_;
  detail::descriptor file_;
  file_state opened_;
};

/// Reads a regular file of at most `limit` bytes. @throws file_error
inline std::vector<unsigned char> read_file(const std::string& path,
                                            std::uint64_t limit = std::uint64_t{1} << 40) {
  const input_file file(path);
  if (file.size() > limit)
    fail<file_error>(path, ": has ", file.size(), " bytes, more than the ", limit,
                     " expected here");
  std::vector<unsigned char> data(static_cast<std::size_t>(file.size()));
  file.read(0, data.data(), data.size());
  return data;
}

/// Bytes of a file or of memory, read in parts and from any thread. Copies share them.
class byte_source {
 public:
  byte_source() = default;
  /// Of a file, which stays on the disk. @throws file_error
  explicit byte_source(const std::string& path)
      : file_(std::make_shared<const input_file>(path)) {
    size_ = file_->size();
  }
  /// Of memory that `owner` keeps.
  byte_source(std::shared_ptr<const void> owner, std::span<const unsigned char> bytes)
      : owner_(std::move(owner)),
        memory_(bytes),
        size_(bytes.size()) {}
  /// Of memory that it takes over.
  explicit byte_source(std::vector<unsigned char> bytes) {
    auto held = std::make_shared<const std::vector<unsigned char>>(std::move(bytes));
    *this = byte_source(held, *held);
  }
  /// Bytes in all.
  std::uint64_t size() const {
    return size_;
  }
  /// Bytes [offset, offset + n), which must lie inside. @throws file_error as input_file does
  void read(std::uint64_t offset, void* to, std::size_t n) const {
    if (file_)
      file_->read(offset, to, n);
    else if (n > 0)
      std::memcpy(to, memory_.data() + offset, n);
  }
  /// The same in memory; fewer where there are fewer.
  std::vector<unsigned char> bytes(std::uint64_t offset, std::uint64_t n) const {
    std::vector<unsigned char> to(std::size_t(std::min(n, size_ - offset)));
    read(offset, to.data(), to.size());
    return to;
  }

 private:
  std::shared_ptr<const input_file> file_;
  std::shared_ptr<const void> owner_;
  std::span<const unsigned char> memory_;
  std::uint64_t size_ = 0;
};

/// A file that appears under its name when `commit` succeeds, and not before. Dropped without
/// commit, it leaves nothing. A symbolic link keeps leading where it led: what it leads to is
/// replaced. A file that is replaced hands on its permissions.
class atomic_file {
 public:
  /// @throws file_error when the directory cannot be written, or the path is no regular file.
  explicit atomic_file(std::string path)
      : path_(std::move(path)),
        place_(detail::find_place(path_)) {
    detail::tidy(place_.directory.get());
    if (!detail::open_partial(place_, partial_, file_))
      fail<file_error>(path_, ": cannot be written: ", std::strerror(errno));
  }
  ~atomic_file() {
    if (!committed_)
      ::unlinkat(place_.directory.get(), partial_.c_str(), 0);
  }
  atomic_file(const atomic_file&) = delete;
  atomic_file& operator=(const atomic_file&) = delete;

  /// @throws file_error, e.g. when the disk is full
  void write(const void* data, std::size_t size) {
    constexpr std::size_t enough = std::size_t{1} << 16;
    if (waiting_.size() + size > enough)
      write_waiting();
    if (size <= enough)
      waiting_.append(static_cast<const char*>(data), size);
    else if (!detail::write_all(file_.get(), data, size))
      writing_failed();
  }
  /// Text as it is, without an end of line. @throws file_error, e.g. when the disk is full
  void write(std::string_view text) {
    write(text.data(), text.size());
  }

  /// @throws file_error; unless it says otherwise, the file that was there before is still
  /// there.
  void commit() {
    const int directory = place_.directory.get();
    write_waiting();
    struct stat before {};
    if (::fstatat(directory, place_.name.c_str(), &before, 0) == 0)
      (void)!::fchmod(file_.get(),
                      before.st_mode & 0777);  // a courtesy; not all systems grant it
    if (!detail::reached_disk(file_.get()))
      writing_failed();
    if (::renameat(directory, partial_.c_str(), directory, place_.name.c_str()) != 0)
      fail<file_error>(path_, ": cannot be replaced: ", std::strerror(errno),
                       "; the file that was there, if any, is unchanged");
    committed_ = true;
    file_ = {};
    if (!detail::reached_disk(directory))
      fail<file_error>(path_, ": is replaced, but its directory did not reach the disk: ",
                       std::strerror(errno), "; a power failure may bring the old file back");
  }

 private:
  void write_waiting() {
    if (!detail::write_all(file_.get(), waiting_.data(), waiting_.size()))
      writing_failed();
    waiting_.clear();
  }
  /// @throws file_error with the system's reason
  [[noreturn]] void writing_failed() const {
    fail<file_error>(path_, ": writing failed: ", std::strerror(errno),
                     "; the file that was there, if any, is unchanged");
  }
  std::string path_;
  detail::place place_;
  std::string partial_;
  detail::descriptor file_;
  std::string waiting_;  // to be written: small parts together
  bool committed_ = false;
};

/// Writes `text` as the whole file, atomically. @throws file_error
inline void write_file(const std::string& path, std::string_view text) {
  atomic_file file(path);
  file.write(text);
  file.commit();
}

/// Makes a directory if needed and checks that files can be made in it. @throws file_error
inline void make_directory(const std::string& path) {
  std::error_code problem;
  std::filesystem::create_directories(detail::checked(path), problem);
  if (!std::filesystem::is_directory(path, problem))
    fail<file_error>(path, ": cannot be made a directory",
                     problem ? ": " + problem.message() : std::string());
  detail::place inside{detail::open_at(AT_FDCWD, path, O_PATH | O_DIRECTORY), "probe"};
  std::string name;
  detail::descriptor file;
  if (!inside.directory || !detail::open_partial(inside, name, file))
    fail<file_error>(path, ": cannot be written: ", std::strerror(errno));
  ::unlinkat(inside.directory.get(), name.c_str(), 0);
}

}  // namespace multistage::io
