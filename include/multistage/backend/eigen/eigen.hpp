// The Eigen backend's handle: the portable reference. Every primitive is an Eigen expression:
// no vector extensions, no flags, any processor, any real scalar that Eigen knows; threads are
// the library's pool, never Eigen's (OpenMP's).
//
// Eigen takes a whole register at a time from the first aligned element on and what is left one
// by one, and the two may round differently (e^x does). So expressions are evaluated in arrays
// of the task's own, which start aligned, a fixed piece of the work at a time (a tile of rows,
// an image): results then depend neither on where the operands lie, nor on the batch, nor on
// the threads.
#pragma once
#if defined(__CUDACC__) && !defined(EIGEN_NO_CUDA)
#error "multistage: Eigen backend: define EIGEN_NO_CUDA before nvcc includes Eigen (host code)"
#endif
#include <Eigen/Core>
#include <algorithm>
#include <limits>
#include <memory>
#include <string_view>
#include <type_traits>

#include "../../core/thread_pool.hpp"
#include "../concept.hpp"
#include "../primitives.hpp"

namespace multistage {

/// Host memory of Eigen's, threads of the library's pool. Copies of a handle share one pool.
/// @see backend/concept.hpp
class eigen {
 public:
  static constexpr std::string_view name = "eigen";
  static constexpr bool on_host = true;
  template <class T>
  using storage = Eigen::Matrix<T, Eigen::Dynamic, 1>;

  /// One thread per core, in a pool that all default handles share.
  eigen() : pool_(shared_pool()) {}
  /// @param threads that work together; 0 takes one per core.
  explicit eigen(int threads) : pool_(std::make_shared<thread_pool>(threads)) {}

  /// n zeros.
  template <class T>
  storage<T> allocate(index_t n) const {
    return storage<T>::Zero(n);
  }
  template <class T>
  static T* pointer(const Eigen::Matrix<T, Eigen::Dynamic, 1>& s) {
    return const_cast<T*>(s.data());
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

  /// f(first, count) for [0, n) cut into pieces of `grain`, the last one shorter; each piece a
  /// task.
  template <class F>
  void for_each_piece(index_t n, index_t grain, F&& f) const {
    pool_->parallel_for(divide_up(n, grain), [&](index_t piece) {
      const index_t first = piece * grain;
      f(first, std::min(grain, n - first));
    });
  }

  /// f(i) for every i in [0, n). @param grain how many consecutive i make a task.
  template <class F>
  void for_each_index(index_t n, F f, index_t grain = 4096) const {
    for_each_piece(n, grain, [&](index_t first, index_t count) {
      for (index_t i = first; i < first + count; ++i)
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

/// Every operation, on every real scalar: float, double, long double, Eigen::half, numbers of
/// more digits.
template <operation Op, class T>
requires(std::numeric_limits<T>::is_specialized && !std::numeric_limits<T>::is_integer)  //
    inline constexpr bool supports<eigen, Op, T> = true;

namespace eigen_kernel {

/// By rows, as tensors lie: channels are columns, pixels are rows.
template <class T>
using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
/// The same, whose `*` and `/` go element by element.
template <class T>
using array = Eigen::Array<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
/// One value a channel.
template <class T>
using row_array = Eigen::Array<T, 1, Eigen::Dynamic>;

template <class T, class Plain>
using map_of = Eigen::Map<std::conditional_t<std::is_const_v<T>, const Plain, Plain>,
                          Eigen::Unaligned,
                          Eigen::OuterStride<>>;

/// A matrix [rows, columns] in memory, `stride` elements from row to row.
template <class T>
auto as_matrix(T* data, index_t rows, index_t columns, index_t stride) {
  using map = map_of<T, matrix<std::remove_const_t<T>>>;
  return map(data, rows, columns, Eigen::OuterStride<>(stride));
}
template <class T>
auto as_matrix(T* data, index_t rows, index_t columns) {
  return as_matrix(data, rows, columns, columns);
}
/// An array [rows, columns] in memory.
template <class T>
auto as_array(T* data, index_t rows, index_t columns) {
  using map = map_of<T, array<std::remove_const_t<T>>>;
  return map(data, rows, columns, Eigen::OuterStride<>(columns));
}
/// An array of `size` values in memory.
template <class T>
auto as_row(T* data, index_t size) {
  using plain = row_array<std::remove_const_t<T>>;
  using map = Eigen::Map<std::conditional_t<std::is_const_v<T>, const plain, plain>>;
  return map(data, size);
}

}  // namespace eigen_kernel
}  // namespace multistage
