// Errors of the library: every message says what is wrong, where, why, and what to do about it.
//
//   require<shape_error>(a == b, "add: x has ", a, " elements, y ", b);
//
// All derive from multistage::error, so a program that only wants to end well catches that one
// (core/program.hpp does). What throws leaves its arguments, and files that were there before,
// as they were. Errors that the compiler can find are static_asserts whose text begins with
// "multistage:".
#pragma once
#include <initializer_list>
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
/// What another process of the same run says aloud: this one ends for it without printing it
/// again.
struct echoed_error : error {
  using error::error;
};

/// A part of a message, for as long as the call that it is an argument of: text, or a value of
/// any type that can be streamed.
class message_part {
 public:
  /// Text, whatever its length: literals are not of a type each.
  message_part(const char* text)
      : part_(text),
        write_(write_text) {}
  /// What << puts there.
  template <class T>
  message_part(const T& value)
      : part_(&value),
        write_(write_value<T>) {}
  /// Puts the part into a stream.
  void write(std::ostream& to) const {
    write_(to, part_);
  }

 private:
  MULTISTAGE_COLD static void write_text(std::ostream& to, const void* text) {
    to << static_cast<const char*>(text);
  }
  template <class T>
  MULTISTAGE_COLD static void write_value(std::ostream& to, const void* value) {
    to << *static_cast<const T*>(value);
  }
  const void* part_;
  void (*write_)(std::ostream&, const void*);
};

/// The parts one after the other.
MULTISTAGE_COLD inline std::string message_of(std::initializer_list<message_part> parts) {
  std::ostringstream message;
  message.precision(9);
  for (const message_part& part : parts)
    part.write(message);
  return message.str();
}

/// Throws `Error` with the parts as message. Compiled once an error; `fail` is what to call.
template <class Error>
MULTISTAGE_COLD [[noreturn]] void throw_message(std::initializer_list<message_part> parts) {
  throw Error(message_of(parts));
}

/// Throws `Error` with the parts streamed one after the other. The call's own code is but a
/// list of pointers: a unit holds hundreds of messages.
template <class Error, class... Parts>
MULTISTAGE_COLD [[noreturn]] void fail(const Parts&... parts) {
  throw_message<Error>({message_part(parts)...});
}

/// Throws `Error` with the parts as message unless `condition` holds.
template <class Error, class... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition)
    fail<Error>(parts...);
}

}  // namespace multistage
