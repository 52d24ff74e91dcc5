// JSON lines: one object a line, each written at once, so that a log is whole up to its last
// line whatever happens; the rest of a line that a crash tore is taken off when the log is gone
// on with.
//
//   json_lines log("run.jsonl");
//   log.write({{"step", 10}, {"loss", 0.25}});
#pragma once
#include <nlohmann/json.hpp>

#include "file.hpp"

namespace multistage::io {

/// A log of objects.
class json_lines {
 public:
  /// @param append keeps the whole lines that are there. @throws file_error when it cannot be
  /// written
  explicit json_lines(std::string path, bool append = false)
      : path_(std::move(path)),
        file_(detail::open_at(AT_FDCWD,
                              detail::checked(path_),
                              O_RDWR | O_CREAT | O_APPEND | O_NOCTTY | (append ? 0 : O_TRUNC),
                              0666)) {
    if (!file_)
      fail<file_error>(path_, ": cannot be written: ", std::strerror(errno));
    if (append)
      mend();
  }
  json_lines(const json_lines&) = delete;
  json_lines& operator=(const json_lines&) = delete;

  /// Text that is not UTF-8 is written with replacement characters. @throws file_error; the
  /// lines before stay whole then.
  void write(const nlohmann::json& object) {
    using handler = nlohmann::json::error_handler_t;
    const std::string line = object.dump(-1, ' ', false, handler::replace) + "\n";
    const off_t before = size();
    if (detail::write_all(file_.get(), line.data(), line.size()))
      return;
    const int why = errno;
    if (before >= 0)
      (void)!::ftruncate(file_.get(), before);
    fail<file_error>(path_, ": writing failed: ", std::strerror(why), "; is the disk full?");
  }

 private:
  /// Bytes of a regular file; -1 for others.
  off_t size() const {
    struct stat s {};
    return ::fstat(file_.get(), &s) == 0 && S_ISREG(s.st_mode) ? s.st_size : -1;
  }
  /// A last line without its end: kept where it is an object, else removed.
  void mend() {
    const off_t whole = size();
    if (whole <= 0)
      return;
    constexpr off_t longest = off_t{1} << 20;
    std::string tail;  // what follows the last end of a line
    off_t at = whole;
    for (bool found = false; !found && at > 0;) {
      char block[4096];
      const off_t first = at > off_t(sizeof block) ? at - off_t(sizeof block) : 0;
      const ssize_t n = detail::retried(
          [&] { return ::pread(file_.get(), block, std::size_t(at - first), first); });
      if (n != at - first)
        fail<file_error>(path_, ": its last line cannot be read: ",
                         n < 0 ? std::strerror(errno) : "it was cut");
      const std::string_view text(block, std::size_t(n));
      const std::size_t end = text.rfind('\n');
      found = end != std::string_view::npos;
      const std::size_t from = found ? end + 1 : 0;
      at = first + off_t(from);
      if (whole - at <= longest)
        tail.insert(0, text.substr(from));
    }
    if (at == whole)
      return;
    const bool object = whole - at <= longest && nlohmann::json::accept(tail);
    if (object ? !detail::write_all(file_.get(), "\n", 1) : ::ftruncate(file_.get(), at) != 0)
      fail<file_error>(path_, ": its torn last line cannot be mended: ", std::strerror(errno));
  }

  std::string path_;
  detail::descriptor file_;
};

}  // namespace multistage::io
