// The CPU backend's handle: aligned memory, the thread pool, the loop over indices. Copies of a
// handle share one pool.
#pragma once
#include <algorithm>
#include <memory>
#include <string_view>

#include "../../core/tensor.hpp"
#include "../../core/thread_pool.hpp"
#include "../concept.hpp"
#include "aligned_storage.hpp"
#include "scratch.hpp"

namespace multistage::inline MULTISTAGE_ISA {

/// Eigen-friendly host memory, threads of our own. @see backend/concept.hpp
class cpu {
 public:
  static constexpr std::string_view name = "cpu";
  static constexpr bool on_host = true;
  template <class T>
  using storage = aligned_storage<T>;

  /// One thread per processor that the process may use, in a pool that all default handles
  /// share.
  cpu() : pool_(shared_pool()) {}
  /// @param threads that work together; 0 takes usable_processors(). @throws as thread_pool
  /// does
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

  thread_pool& pool() const {
    return *pool_;
  }
  int threads() const {
    return pool_->size();
  }

  /// f(row) for every row, in tasks of as many rows as make `work` elements.
  template <class F>
  void for_each_row(index_t rows, index_t row_size, F&& f, index_t work = 4096) const {
    const index_t few = std::max<index_t>(1, work / std::max<index_t>(row_size, 1));
    pool_->parallel_for(divide_up(rows, few), [&](index_t task) {
      for (index_t row = task * few; row < std::min(rows, (task + 1) * few); ++row)
        f(row);
    });
  }

  /// @param grain how many consecutive i make a task: less for functors that do much.
  template <class F>
  void for_each_index(index_t n, F f, index_t grain = 4096) const {
    pool_->parallel_for(divide_up(n, grain), [&](index_t block) {
      const index_t end = std::min(n, (block + 1) * grain);
      for (index_t i = block * grain; i < end; ++i)
        f(i);
    });
  }

 private:
  static std::shared_ptr<thread_pool> shared_pool() {
    static const auto pool = std::make_shared<thread_pool>();
    return pool;
  }
  std::shared_ptr<thread_pool> pool_;
};

}  // namespace multistage::inline MULTISTAGE_ISA

namespace multistage {

/// Tensors that name no backend lie here. @see core/tensor.hpp
template <class T>
struct default_backend {
  using type = cpu;
};

template <operation Op>
inline constexpr bool supports<cpu, Op, float> = true;
template <operation Op>
inline constexpr bool supports<cpu, Op, double> = true;

}  // namespace multistage
