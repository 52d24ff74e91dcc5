// What the backends that compute on the host have in common, cpu and eigen: memory that is the
// host's own, so that copies to and from it are plain ones; a pool of the library's threads,
// which copies of a handle share; the loop over indices; normal numbers.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

#include "../core/thread_pool.hpp"
#include "normals.hpp"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace multistage::inline MULTISTAGE_ISA {

/// The base of such a backend's handle, which adds its name and its memory. @see
/// backend/concept.hpp
class host_backend {
 public:
  /// Pointers into its memory are the host's.
  static constexpr bool on_host = true;

  /// Copies n elements into the backend's memory.
  template <class T>
  void upload(const T* host, T* device, index_t n) const {
    std::copy_n(host, n, device);
  }
  /// Copies n elements out of the backend's memory.
  template <class T>
  void download(const T* device, T* host, index_t n) const {
    std::copy_n(device, n, host);
  }
  /// Copies n elements within the backend's memory; they must not overlap.
  template <class T>
  void copy(const T* from, T* to, index_t n) const {
    std::copy_n(from, n, to);
  }
  /// Gives the system the pages of n elements that are of no use any more; they read as they
  /// please until they are written.
  template <class T>
  void give_back([[maybe_unused]] T* at, [[maybe_unused]] index_t n) const {
#ifdef __linux__
    const auto page = std::uintptr_t(::sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<std::uintptr_t>(at) + page - 1) / page * page;
    const auto end = reinterpret_cast<std::uintptr_t>(at + n) / page * page;
    if (begin < end)
      ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
#endif
  }
  /// Nothing: every call returns when its work is done.
  void synchronize() const {}

  /// The threads that compute, for kernels that cut their work themselves.
  thread_pool& pool() const {
    return *pool_;
  }
  /// How many they are, the caller among them.
  int threads() const {
    return pool_->size();
  }

  /// f(first, count) for [0, n) cut into pieces of `grain`, the last one shorter; each piece a
  /// task.
  template <class F>
  void for_each_piece(index_t n, index_t grain, F&& f) const {
    pool_->parallel_for(divide_up(n, grain), [&](index_t piece) {
      const index_t first = piece * grain;
      f(first, std::min(grain, n - first));
    });
  }
  /// f(i) for every i in [0, n). @param grain how many consecutive i make a task: less for
  /// functors that do much
  template <class F>
  void for_each_index(index_t n, F f, index_t grain = 4096) const {
    for_each_piece(n, grain, [&](index_t first, index_t count) {
      for (index_t i = first; i < first + count; ++i)
        f(i);
    });
  }

 protected:
  /// One thread per processor that the process may use, in a pool that all default handles
  /// share.
  host_backend()
      : pool_(shared_pool()) {}
  /// @param threads that work together; 0 takes usable_processors(). @throws as thread_pool
  /// does
  explicit host_backend(int threads)
      : pool_(std::make_shared<thread_pool>(threads)) {}

 private:
  /// The pool of all handles that name no number of threads.
  static std::shared_ptr<thread_pool> shared_pool() {
    static const auto pool = std::make_shared<thread_pool>();
    return pool;
  }
  std::shared_ptr<thread_pool> pool_;
};

/// to[i] = element i of the stream's standard normal numbers, a Philox block (four of them) at
/// an index.
template <class T>
void fill_normal(const host_backend& b, const random_stream& stream, index_t n, T* to) {
  b.for_each_index(divide_up(n, 4), normals<philox_words, T>{stream, n, to}, 256);
}

}  // namespace multistage::inline MULTISTAGE_ISA
