// Errors of the library: every message says what is wrong, where, why, and what to do about it.
//
//   require<shape_error>(a == b, "add: x has ", a, " elements, y ", b);
//
// All derive from multistage::error, so a program that only wants to end well catches that one
// (core/program.hpp does). What throws leaves its arguments, and files that were there before,
// as they were. Errors that the compiler can find are static_asserts whose text begins with
// "multistage:".
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

#include "config.hpp"

namespace multistage {

/// Base of every exception the library throws.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Sizes that do not fit together.
struct shape_error : error {
  using error::error;
};
/// A parameter outside its range.
struct value_error : error {
  using error::error;
};
/// A file that cannot be read or written, or whose content is broken.
struct file_error : error {
  using error::error;
};
/// NaN or infinity where a number was expected.
struct numeric_error : error {
  using error::error;
};
/// What was asked for cannot be had now: another thread is using it, or the system gives no
/// more.
struct state_error : error {
  using error::error;
};

/// Throws `Error` with the parts streamed one after the other.
template <class Error, class... Parts>
MULTISTAGE_COLD [[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  message.precision(9);
  (message << ... << parts);
  throw Error(message.str());
}

/// Throws `Error` with the parts as message unless `condition` holds.
template <class Error, class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition)
    fail<Error>(parts...);
}

}  // namespace multistage
