// Steps that all processes of a group take or none: what one of them cannot do, all hear of.
//
//   together(group, [&] { write(part_of(group.rank())); });   // "rank 2 (host b): disk full"
//   if (any(group, stop.caught() != 0)) ...                   // the same answer everywhere
//
// Without it, the process that throws leaves, and the others find that out while they wait for
// it. One process says what happened; the others end with an echoed_error.
#pragma once
#include <exception>

#include "communicator.hpp"

namespace multistage {

/// Throws an error with the parts as message on rank 0, and its echo on the others.
template <class Error, communicator C, class... Parts>
MULTISTAGE_COLD [[noreturn]] void say_once(const C& group, const Parts&... parts) {
  if (group.rank() == 0)
    fail<Error>(parts...);
  fail<echoed_error>(parts...);
}

/// Whether it holds on any process; the same answer on all.
template <communicator C>
bool any(C& group, bool here) {
  const char mine = here ? 1 : 0;
  const auto all = all_gather(group, std::span(&mine, 1));
  return std::find(all.begin(), all.end(), 1) != all.end();
}

/// Runs f() on every process. @throws on rank 0, where f() threw there, the same; else
/// state_error with the first rank where it threw, its host and its message; on the others
/// echoed_error
template <communicator C, class F>
void together(C& group, F&& f) {
  if (group.size() == 1)
    return f();
  std::exception_ptr thrown;
  std::string message;
  try {
    f();
  } catch (const communication_error&) {
    throw;  // nobody is left to be told
  } catch (const std::exception& e) {
    thrown = std::current_exception();
    message = std::string(e.what()) + '\n';  // an error without words is one, too
  }
  if (!any(group, thrown != nullptr))
    return;
  const auto messages = all_gather(group, message);
  if (thrown && group.rank() == 0)
    std::rethrow_exception(thrown);
  const auto first = std::find_if(messages.begin(), messages.end(),
                                  [](const std::string& m) { return !m.empty(); });
  const int rank = int(first - messages.begin());
  say_once<state_error>(
      group, "rank ", rank, " (", group.host(rank),
      ") cannot go on, and so all stop: ", first->substr(0, first->size() - 1));
}

/// Refuses what is not the same on all processes. @param what names it in the message. @param
/// here as text, one fact a line. @throws value_error, its echo on ranks but 0, naming the
/// first rank that differs from rank 0 and the lines in which it does
template <communicator C>
void require_same(C& group, const std::string& what, const std::string& here) {
  const auto lines_of = [](const std::string& text) {
    std::vector<std::string> lines(1);
    for (const char c : text)
      if (c == '\n')
        lines.emplace_back();
      else
        lines.back() += c;
    return lines;
  };
  const auto texts = all_gather(group, here);
  for (int rank = 1; rank < group.size(); ++rank) {
    if (texts[std::size_t(rank)] == texts[0])
      continue;
    const auto first = lines_of(texts[0]);
    const auto other = lines_of(texts[std::size_t(rank)]);
    std::string differences;
    for (std::size_t i = 0; i < std::max(first.size(), other.size()); ++i) {
      const std::string a = i < first.size() ? first[i] : "(nothing)";
      const std::string b = i < other.size() ? other[i] : "(nothing)";
      if (a != b)
        differences += "\n  rank 0: " + a + "\n  rank " + std::to_string(rank) + ": " + b;
    }
    say_once<value_error>(group, what, ": rank ", rank, " (", group.host(rank),
                          ") has another than rank 0 (", group.host(0),
                          "); start all processes with the same:", differences);
  }
}

}  // namespace multistage
