// Knowing that one is in a child of fork(), where no thread but the caller of fork() exists.
//
// A pool of threads does not exist in the child, and a mutex that another thread held at the
// fork stays locked for good. So what has threads notes the depth of forks at which it made
// them, and makes new ones where the number has changed.
#pragma once
#include <pthread.h>

#include <atomic>

namespace multistage {

namespace fork_detail {
/// How many forks lie between the first process and this one.
inline std::atomic<unsigned> count{0};
}  // namespace fork_detail

/// How many calls of fork() lie between the first process of this program and this one: what
/// has threads notes it, and finds another number when it is asked in a child.
inline unsigned fork_depth() {
  static const int watching =
      ::pthread_atfork(nullptr, nullptr, [] { fork_detail::count.fetch_add(1); });
  static_cast<void>(watching);
  return fork_detail::count.load(std::memory_order_relaxed);
}

}  // namespace multistage
