// A pool of threads for one verb, `parallel_for`. Tasks are numbered and claimed one by one, so how work is cut never depends on
// the number of threads: results that are summed per task and then in task order are the same bits for 1 thread and for 64.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "config.hpp"
#include "error.hpp"

namespace multistage {

class thread_pool {
 public:
  /// @param threads how many work together, the caller among them; 0 takes one per core.
  explicit thread_pool(int threads = 0) : size_(threads > 0 ? threads : std::max(1, int(std::thread::hardware_concurrency()))) {
    require<value_error>(threads >= 0 && threads <= 1024, "thread_pool: threads = ", threads, " is outside 0..1024; 0 takes one per core");
    for (int i = 1; i < size_; ++i) workers_.emplace_back([this] { work(); });
  }
  ~thread_pool() {
    stop_.store(true);
    ticket_.store(next_generation(), std::memory_order_release);
    ticket_.notify_all();
    for (auto& worker : workers_) worker.join();
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  int size() const { return size_; }

  /// Calls body(i) for every i in [0, count), each exactly once, and returns when all are done. The first exception a task throws is
  /// rethrown here. Called from inside a task it runs in that thread alone. One caller at a time; others wait.
  template <class Body>
  void parallel_for(index_t count, Body&& body) {
    using body_type = std::remove_reference_t<Body>;
    dispatch(
        count, [](void* f, index_t i) { (*static_cast<body_type*>(f))(i); }, const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }

 private:
  /// Apart from the body's type, so that it is compiled once.
  void dispatch(index_t count, void (*run)(void*, index_t), void* body) {
    if (count <= 0) return;
    if (count == 1 || size_ == 1 || inside()) {
      for (index_t i = 0; i < count; ++i) run(body, i);
      return;
    }
    require<value_error>(count < index_t{1} << 32, "thread_pool: ", count, " tasks are more than 2^32 - 1; make tasks larger");
    std::lock_guard<std::mutex> one_caller(callers_);
    ticket_.store(next_generation() | 0xffffffffu, std::memory_order_seq_cst);  // closed while the job's fields change
    run_.store(run, std::memory_order_relaxed);
    body_.store(body, std::memory_order_relaxed);
    count_.store(count, std::memory_order_relaxed);
    pending_.store(count, std::memory_order_relaxed);
    ticket_.store(next_generation(), std::memory_order_release);
    ticket_.notify_all();
    inside() = true;
    while (claim()) {
    }
    inside() = false;
    for (int spins = 0; pending_.load(std::memory_order_acquire) != 0; ++spins)
      if (spins >= patience_) std::this_thread::yield();
    if (failed_) {
      std::exception_ptr failure = std::exchange(failed_, nullptr);
      std::rethrow_exception(failure);
    }
  }

  // A ticket is (generation << 32 | next task). A task is claimed by compare-and-swap of the whole ticket, so that a thread that wakes
  // late cannot take a task of a job whose body it did not read.
  std::uint64_t next_generation() { return (((ticket_.load(std::memory_order_relaxed) >> 32) + 1) & 0xffffffffu) << 32; }

  bool claim() {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
      const auto run = run_.load(std::memory_order_relaxed);
      void* const body = body_.load(std::memory_order_relaxed);
      const index_t task = index_t(ticket & 0xffffffffu);
      if (run == nullptr || task >= count_.load(std::memory_order_relaxed)) return false;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      try {
        run(body, task);
      } catch (...) {
        std::lock_guard<std::mutex> lock(failure_);
        if (!failed_) failed_ = std::current_exception();
      }
      pending_.fetch_sub(1, std::memory_order_acq_rel);
      return true;
    }
  }

  void work() {
    inside() = true;
    while (!stop_.load(std::memory_order_relaxed)) {
      const std::uint64_t seen = ticket_.load(std::memory_order_acquire);
      while (claim()) {
      }
      // Steps of a network follow each other within microseconds: look for a while before sleeping.
      for (int spins = 0; spins < patience_ && idle(); ++spins) pause();
      const std::uint64_t now = ticket_.load(std::memory_order_acquire);
      if (idle() && !stop_.load(std::memory_order_relaxed) && (now >> 32) == (seen >> 32)) ticket_.wait(now, std::memory_order_acquire);
    }
  }
  bool idle() const { return index_t(ticket_.load(std::memory_order_acquire) & 0xffffffffu) >= count_.load(std::memory_order_relaxed); }
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  static bool& inside() {
    thread_local bool value = false;
    return value;
  }

  const int size_;
  // How often to look before giving way; not at all where threads share cores, since who waits then keeps off who works.
  const int patience_ = size_ <= int(std::thread::hardware_concurrency()) ? 4000 : 0;
  std::vector<std::thread> workers_;
  std::atomic<std::uint64_t> ticket_{0};
  std::atomic<void (*)(void*, index_t)> run_{nullptr};
  std::atomic<void*> body_{nullptr};
  std::atomic<index_t> count_{0}, pending_{0};
  std::atomic<bool> stop_{false};
  std::mutex callers_, failure_;
  std::exception_ptr failed_;
};

}  // namespace multistage
