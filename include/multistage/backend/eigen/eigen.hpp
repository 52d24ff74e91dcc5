// The Eigen backend's handle: the portable reference. Every primitive is an Eigen expression:
// no vector extensions, no flags, any processor, any real scalar that Eigen knows; threads are
// the library's pool, never Eigen's (OpenMP's).
//
// Eigen takes a whole register at a time from the first aligned element on and what is left one
// by one, and the two may round differently (e^x does). So expressions are evaluated in arrays
// of the task's own, which start aligned, a fixed piece of the work at a time (a tile of rows,
// an image): results then depend neither on where the operands lie, nor on the batch, nor on
// the threads.
//
//   eigen here(4);                                   // a pool of four threads
//   tensor<double, eigen> x(here, {1, 8, 8, 3});     // memory of Eigen's
#pragma once
#if defined(__CUDACC__) && !defined(EIGEN_NO_CUDA)
#error "multistage: Eigen backend: define EIGEN_NO_CUDA before nvcc includes Eigen (host code)"
#endif
#include <Eigen/Core>
#include <algorithm>
#include <limits>
#include <string_view>
#include <type_traits>

#include "../concept.hpp"
#include "../host.hpp"
#include "../primitives.hpp"

namespace multistage {

/// The portable backend: Eigen's memory and expressions, threads of the library's pool. @see
/// backend/concept.hpp
class eigen : public host_backend {
 public:
  static constexpr std::string_view name = "eigen";  ///< as command lines spell it
  /// Memory of one owner.
  template <class T>
  using storage = Eigen::Matrix<T, Eigen::Dynamic, 1>;

  /// One thread per processor that the process may use, in a pool that all default handles
  /// share.
  eigen() = default;
  /// @param threads that work together; 0 takes usable_processors(). @throws as thread_pool
  /// does
  explicit eigen(int threads)
      : host_backend(threads) {}

  /// n zeros. @throws std::bad_alloc
  template <class T>
  storage<T> allocate(index_t n) const {
    return storage<T>::Zero(n);
  }
  /// The first element, which may be written: who owns the storage decides that.
  template <class T>
  static T* pointer(const Eigen::Matrix<T, Eigen::Dynamic, 1>& s) {
    return const_cast<T*>(s.data());
  }
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

/// Memory seen as a matrix or array of type Plain, const where T is, with any distance from row
/// to row.
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
