// The CPU backend's handle: aligned memory, the thread pool, the loop over indices. Copies of a handle share one pool.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <type_traits>

#include "../../core/thread_pool.hpp"
#include "../concept.hpp"

namespace multistage {

/// Zero-initialised memory aligned to cache lines. Large pieces are pages of their own, taken from the system when they are first touched
/// (by the thread that touches them, and not at all where nothing does), huge ones where it can.
template <class T>
class aligned_storage {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  aligned_storage() = default;
  explicit aligned_storage(index_t n) : memory_(n > 0 ? take(std::size_t(n) * sizeof(T)) : nullptr, release{n > 0 ? std::size_t(n) * sizeof(T) : 0}) {}
  T* data() const { return memory_.get(); }

 private:
  static constexpr std::size_t large = std::size_t{4} << 20;
  static T* take(std::size_t bytes) {
    if (bytes < large) {
      void* p = ::operator new (bytes, std::align_val_t{64});
      return static_cast<T*>(std::memset(p, 0, bytes));
    }
    void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    ::madvise(p, bytes, MADV_HUGEPAGE);
    return static_cast<T*>(p);
  }
  struct release {
    std::size_t bytes = 0;
    void operator()(T* p) const {
      if (bytes < large)
        ::operator delete (p, std::align_val_t{64});
      else
        ::munmap(p, bytes);
    }
  };
  std::unique_ptr<T, release> memory_;
};

/// Eigen-friendly host memory, threads of our own. @see backend/concept.hpp
class cpu {
 public:
  static constexpr std::string_view name = "cpu";
  static constexpr bool on_host = true;
  template <class T>
  using storage = aligned_storage<T>;

  /// One thread per core, in a pool that all default handles share.
  cpu() : pool_(shared_pool()) {}
  /// @param threads that work together; 0 takes one per core.
  explicit cpu(int threads) : pool_(std::make_shared<thread_pool>(threads)) {}

  template <class T>
  storage<T> allocate(index_t n) const {
    return storage<T>(n);
  }
  template <class T>
  static T* pointer(const storage<T>& s) {
    return s.data();
  }
  template <class T>
  void upload(const T* host, T* device, index_t n) const {
    std::copy_n(host, n, device);
  }
  template <class T>
  void download(const T* device, T* host, index_t n) const {
    std::copy_n(device, n, host);
  }
  template <class T>
  void copy(const T* from, T* to, index_t n) const {
    std::copy_n(from, n, to);
  }
  void synchronize() const {}

  thread_pool& pool() const { return *pool_; }
  int threads() const { return pool_->size(); }

  /// f(row) for every row, in tasks of as many rows as make `work` elements.
  template <class F>
  void for_each_row(index_t rows, index_t row_size, F&& f, index_t work = 4096) const {
    const index_t few = std::max<index_t>(1, work / std::max<index_t>(row_size, 1));
    pool_->parallel_for(divide_up(rows, few), [&](index_t task) {
      for (index_t row = task * few; row < std::min(rows, (task + 1) * few); ++row) f(row);
    });
  }

  /// @param grain how many consecutive i make a task: less for functors that do much.
  template <class F>
  void for_each_index(index_t n, F f, index_t grain = 4096) const {
    pool_->parallel_for(divide_up(n, grain), [&](index_t block) {
      const index_t end = std::min(n, (block + 1) * grain);
      for (index_t i = block * grain; i < end; ++i) f(i);
    });
  }

 private:
  static std::shared_ptr<thread_pool> shared_pool() {
    static const auto pool = std::make_shared<thread_pool>();
    return pool;
  }
  std::shared_ptr<thread_pool> pool_;
};

template <operation Op>
inline constexpr bool supports<cpu, Op, float> = true;
template <operation Op>
inline constexpr bool supports<cpu, Op, double> = true;

/// Scratch of the calling thread, grown as needed and kept: `slot` tells apart pieces in use at the same time. Kernels size their tiles
/// so that it stays within a second-level cache. Slots in use: 0 panels of products; 1 to 3 tiles of a task; 3, 4 coefficients of a row;
/// 5 to 7 what the caller shares with its tasks.
template <class T>
T* thread_scratch(int slot, index_t n) {
  struct piece {
    aligned_storage<T> memory;
    index_t size = 0;
  };
  thread_local piece pieces[8];
  piece& p = pieces[slot];
  if (p.size < n) {
    p.memory = aligned_storage<T>(n);
    p.size = n;
  }
  return p.memory.data();
}

}  // namespace multistage
