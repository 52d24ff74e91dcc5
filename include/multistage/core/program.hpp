// What the main of a program needs: its exit status, one line for an error, and output that is
// not lost in silence.
//
//   int main() {
//     return exit_status([] { return train(); });     // 2 and a line on stderr for an error
//   }
#pragma once
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

#include "error.hpp"
#include "signals.hpp"

namespace multistage {

namespace detail {
/// Writes what is left of stdout. False, with errno, where it is lost; a pipe's reader that
/// went away
/// (`| head`) and a stdout that was closed from the start lose nothing that anybody waits for.
inline bool output_is_out() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0)
    return true;
  const int why = errno;
  struct stat output {};
  if (::fstat(1, &output) != 0 || S_ISFIFO(output.st_mode) || S_ISSOCK(output.st_mode))
    return true;
  errno = why;
  return false;
}
}  // namespace detail

/// What an exception has to say to people.
inline const char* in_words(const std::exception& e) {
  return dynamic_cast<const std::bad_alloc*>(&e) != nullptr
             ? "there is not enough memory; a smaller batch or model takes less"
             : e.what();
}

/// The body of a program's main: runs f and returns its exit status; for an exception of any
/// kind, or output that cannot be written, prints one line and returns 2; for an echoed_error
/// another process prints it.
template <class F>
int exit_status(F&& f) {
  const write_signals_ignored writing;
  int status = 2;
  try {
    status = f();
  } catch (const echoed_error&) {
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", in_words(e));
  } catch (...) {
    std::fprintf(stderr, "error: of a kind that is not known\n");
  }
  if (detail::output_is_out())
    return status;
  std::fprintf(stderr, "error: the output cannot be written: %s\n",
               errno != 0 ? std::strerror(errno) : "is the disk full?");
  return 2;
}

}  // namespace multistage
