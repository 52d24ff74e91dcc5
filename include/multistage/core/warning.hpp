// Warnings: what is allowed but hardly meant. Each is said once, with its remedy, on stderr or
// to a function of the user's.
//
//   warn("batch_size = ", n, " leaves threads idle; ", threads, " or more keeps all at work");
//
// Library code warns and goes on. A test or a strict program makes errors of warnings by a
// handler that throws (set_warning_handler).
#pragma once
#include <cstdio>
#include <functional>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "config.hpp"

namespace multistage {

/// What is told warnings. One that throws makes errors of them.
using warning_handler = std::function<void(const std::string&)>;

namespace detail {
/// What a process said, and to whom it says more.
struct warning_state {
  std::mutex guard;
  std::set<std::string> said;
  warning_handler handler;
};
/// One for the process.
inline warning_state& warnings() {
  static warning_state state;
  return state;
}

/// Says a text unless it was said before.
MULTISTAGE_COLD inline void say_once(const std::string& text) {
  warning_state& state = warnings();
  warning_handler handler;
  {
    const std::lock_guard lock(state.guard);
    if (!state.said.insert(text).second)
      return;
    handler = state.handler;
  }
  if (!handler) {
    std::fprintf(stderr, "warning: %s\n", text.c_str());
    return;
  }
  try {
    handler(text);
  } catch (...) {  // it is an error now, and the next time, too
    const std::lock_guard lock(state.guard);
    state.said.erase(text);
    throw;
  }
}
}  // namespace detail

/// Sends warnings to `handler` from now on, or with none to stderr, and returns the one before.
/// What was said to that one is said anew.
inline warning_handler set_warning_handler(warning_handler handler) {
  detail::warning_state& state = detail::warnings();
  const std::lock_guard lock(state.guard);
  state.said.clear();
  return std::exchange(state.handler, std::move(handler));
}

/// Warns with the parts streamed one after the other: what is odd, where, and the remedy. The
/// same text is said once.
template <class... Parts>
MULTISTAGE_COLD void warn(const Parts&... parts) {
  std::ostringstream text;
  text.precision(4);
  (text << ... << parts);
  detail::say_once(text.str());
}

}  // namespace multistage
