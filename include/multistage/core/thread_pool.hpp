// A pool of threads for one verb, `parallel_for`. Tasks are numbered and claimed one by one, so
// how work is cut never depends on the number of threads: results that are summed per task and
// then in task order are the same bits for 1 thread and for 64.
//
// One atomic ticket says which job is at hand and which of its tasks is next; who takes a task
// raises it by compare-and-swap. The caller works, too, and returns when the last task is
// done, so there is no queue and no lock on the way of a task. Threads that find nothing look
// again for some microseconds before they sleep, since a network's steps follow each other
// that fast; where threads are more than processors they sleep at once.
//
//   thread_pool pool(4);
//   pool.parallel_for(1000, [&](index_t task) { squares[task] = task * task; });
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "config.hpp"
#include "error.hpp"
#include "floating_point.hpp"
#include "fork.hpp"
#include "processors.hpp"

namespace multistage {

/// A number of threads that live as long as the pool and share the tasks of one call at a time.
/// The caller is one of them, so a pool of one thread starts none. Between calls they look for
/// work for some microseconds and then sleep.
class thread_pool {
 public:
  /// @param threads how many work together, the caller among them; 0 takes as many as there are
  /// usable_processors(). @throws value_error outside 0..1024, state_error when the system does
  /// not start so many threads
  explicit thread_pool(int threads = 0)
      : size_(threads > 0 ? threads : usable_processors()) {
    require<value_error>(threads >= 0 && threads <= 1024, "thread_pool: threads = ", threads,
                         " is outside 0..1024; 0 takes one per processor");
    // How often to look before giving way: not at all where threads are more than processors,
    // since who waits then keeps off who works, or spends the quota that who works would need.
    constexpr int often = 4000;
    if (size_ > 1)
      patience_ = threads == 0 || size_ <= usable_processors() ? often : 0;
    crew_.store(new crew(size_, patience_));
  }
  ~thread_pool() {
    crew* const c = crew_.load();
    if (c->process == fork_depth())
      delete c;  // else its threads are the parent's: neither joined nor freed here
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  /// How many threads work together, the caller among them.
  int size() const {
    return size_;
  }

  /// Calls body(i) for every i in [0, count), each exactly once, and returns when all are done.
  /// The first exception a task throws is rethrown here. Called from inside a task it runs in
  /// that thread alone. One caller at a time; others wait. Tasks compute in the caller's
  /// floating_point_mode(). In a child of fork() the first call starts threads anew.
  template <class Body>
  void parallel_for(index_t count, Body&& body) {
    using body_type = std::remove_reference_t<Body>;
    dispatch(
        count, [](void* f, index_t i) { (*static_cast<body_type*>(f))(i); },
        const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }

 private:
  /// The threads beside the caller, and the job that they share.
  struct crew {
    crew(int size, int patience)
        : patience_(patience) {
      threads_.reserve(std::size_t(size - 1));
      try {
        for (int i = 1; i < size; ++i)
          threads_.emplace_back([this] { work(); });
      } catch (const std::system_error& e) {
        const std::size_t have = threads_.size() + 1;
        dismiss();
        fail<state_error>(
            "thread_pool: of ", size, " threads the system gives only ", have, " (", e.what(),
            "); ask for fewer, or raise its limit (ulimit -u, a container's limit on pids)");
      } catch (...) {
        dismiss();
        throw;
      }
    }
    ~crew() {
      dismiss();
    }

    /// One job: its tasks, done by all.
    void work_off(index_t count, void (*run)(void*, index_t), void* body) {
      std::lock_guard<std::mutex> one_caller(callers_);
      ticket_.store(next_generation() | closed,
                    std::memory_order_seq_cst);  // closed while the job's fields change
      run_.store(run, std::memory_order_relaxed);
      body_.store(body, std::memory_order_relaxed);
      mode_.store(floating_point_mode(), std::memory_order_relaxed);
      count_.store(count, std::memory_order_relaxed);
      pending_.store(std::uint32_t(count), std::memory_order_relaxed);
      ticket_.store(next_generation(), std::memory_order_release);
      ticket_.notify_all();
      inside() = true;
      while (claim()) {
      }
      inside() = false;
      require<state_error>(process == fork_depth(),
                           "thread_pool: a task called fork; the tasks of the other threads "
                           "are lost to the child");
      for (int spins = 0;; ++spins) {
        const std::uint32_t left = pending_.load(std::memory_order_acquire);
        if (left == 0)
          break;
        if (spins < patience_)
          pause();
        else
          pending_.wait(left, std::memory_order_acquire);
      }
      if (failed_) {
        std::exception_ptr failure = std::exchange(failed_, nullptr);
        std::rethrow_exception(failure);
      }
    }

    const unsigned process = fork_depth();

   private:
    // A ticket is (generation << 32 | next task). A task is claimed by compare-and-swap of the
    // whole ticket, so that a thread that wakes late cannot take a task of a job whose body it
    // did not read.
    static constexpr std::uint64_t closed = 0xffffffff;  // more than any number of tasks
    std::uint64_t next_generation() {
      return (((ticket_.load(std::memory_order_relaxed) >> 32) + 1) & 0xffffffffu) << 32;
    }

    bool claim() {
      std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
      for (;;) {
        const auto run = run_.load(std::memory_order_relaxed);
        void* const body = body_.load(std::memory_order_relaxed);
        const std::uint64_t mode = mode_.load(std::memory_order_relaxed);
        const index_t task = index_t(ticket & 0xffffffffu);
        if (run == nullptr || task >= count_.load(std::memory_order_relaxed))
          return false;
        if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                           std::memory_order_acquire))
          continue;
        set_floating_point_mode(mode);
        try {
          run(body, task);
        } catch (...) {
          std::lock_guard<std::mutex> lock(failure_);
          if (!failed_)
            failed_ = std::current_exception();
        }
        if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1)
          pending_.notify_one();
        return true;
      }
    }

    void work() {
      inside() = true;
      while (!stop_.load(std::memory_order_relaxed)) {
        const std::uint64_t seen = ticket_.load(std::memory_order_acquire);
        while (claim()) {
        }
        // Steps of a network follow each other within microseconds: look for a while before
        // sleeping.
        for (int spins = 0; spins < patience_ && idle(); ++spins)
          pause();
        const std::uint64_t now = ticket_.load(std::memory_order_acquire);
        if (idle() && !stop_.load(std::memory_order_relaxed) && (now >> 32) == (seen >> 32))
          ticket_.wait(now, std::memory_order_acquire);
      }
    }
    bool idle() const {
      return index_t(ticket_.load(std::memory_order_acquire) & 0xffffffffu) >=
             count_.load(std::memory_order_relaxed);
    }
    static void pause() {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    void dismiss() {
      stop_.store(true);
      // Closed: a thread that wakes only now must not take the last job up again, whose body is
      // gone.
      ticket_.store(next_generation() | closed, std::memory_order_release);
      ticket_.notify_all();
      for (auto& thread : threads_)
        thread.join();
      threads_.clear();
    }

    const int patience_;
    std::vector<std::thread> threads_;
    std::atomic<std::uint64_t> ticket_{0};
    std::atomic<std::uint64_t> mode_{0};
    std::atomic<void (*)(void*, index_t)> run_{nullptr};
    std::atomic<void*> body_{nullptr};
    std::atomic<index_t> count_{0};
    std::atomic<std::uint32_t> pending_{0};
    std::atomic<bool> stop_{false};
    std::mutex callers_;
    std::mutex failure_;
    std::exception_ptr failed_;
  };

  /// Apart from the body's type, so that it is compiled once.
  void dispatch(index_t count, void (*run)(void*, index_t), void* body) {
    if (count <= 0)
      return;
    if (count == 1 || size_ == 1 || inside()) {
      for (index_t i = 0; i < count; ++i)
        run(body, i);
      return;
    }
    require<value_error>(count < index_t{1} << 32, "thread_pool: ", count,
                         " tasks are more than 2^32 - 1; make tasks larger");
    present().work_off(count, run, body);
  }
  /// The crew of this process. That of a parent is left as it is: its threads are not here, and
  /// their mutexes may be locked for good.
  crew& present() {
    crew* c = crew_.load(std::memory_order_acquire);
    if (c->process != fork_depth()) {
      auto fresh = std::make_unique<crew>(size_, patience_);
      if (crew_.compare_exchange_strong(c, fresh.get()))
        c = fresh.release();
    }
    return *c;
  }
  /// Whether the calling thread works on a task: such a thread's own calls run in it.
  static bool& inside() {
    thread_local bool value = false;
    return value;
  }

  const int size_;
  int patience_ = 0;
  std::atomic<crew*> crew_{nullptr};
};

}  // namespace multistage
