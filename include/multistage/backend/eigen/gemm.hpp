// Matrix products by Eigen, 32 rows at a time. Zeros fill the last tile up, so that Eigen
// treats every row alike wherever it lies, and k is cut where no processor's cache is too small
// for the piece, so that Eigen does not cut it by what the machine has: each element is one
// chain of additions whatever the batch, the threads and the caches. A result of at most 32
// rows is also what Eigen never gives to threads of its own.
#pragma once
#include "eigen.hpp"

namespace multistage {
namespace eigen_kernel {

/// Rows of a product that are made together.
inline constexpr int tile_rows = 32;
/// How much of k Eigen sees at a time.
inline constexpr index_t depth = 64;

/// [32, columns]
template <class T>
using tile = Eigen::Matrix<T, tile_rows, Eigen::Dynamic, Eigen::RowMajor>;

/// The rows of an expression of at most 32, zeros below.
template <class T, class Rows>
tile<T> padded(const Rows& rows) {
  tile<T> t = tile<T>::Zero(tile_rows, rows.cols());
  t.topRows(rows.rows()) = rows;
  return t;
}

/// sum [32, n] += left [32, k] right [k, n]
template <class T, class Right>
void add_product(tile<T>& sum, const tile<T>& left, const Right& right) {
  for (index_t k = 0; k < left.cols(); k += depth) {
    const index_t some = std::min<index_t>(depth, left.cols() - k);
    sum.noalias() += left.middleCols(k, some) * right.middleRows(k, some);
  }
}

/// An element of a matrix with any strides; Eigen's maps know none below 0.
template <class T>
T& at(const matrix_view<T>& m, index_t i, index_t j) {
  return m.data[i * m.row_stride + j * m.column_stride];
}
/// Rows [first, first + count) as the first of a result's.
template <class T, class Result>
void gather_rows(const matrix_view<const T>& from, index_t first, index_t count, Result& to) {
  for (index_t i = 0; i < count; ++i)
    for (index_t j = 0; j < from.columns; ++j)
      to(i, j) = at(from, first + i, j);
}

/// left [32, k] right [k, n]
template <class T, class Right>
tile<T> product(const tile<T>& left, const Right& right) {
  tile<T> sum = tile<T>::Zero(tile_rows, right.cols());
  add_product(sum, left, right);
  return sum;
}

}  // namespace eigen_kernel

/// C = alpha A B + beta C, any strides. A task is a tile of C. @see matrix_view
template <class T>
void multiply(const eigen& backend,
              factor<T> a,
              factor<T> b,
              matrix_view<T> c,
              scalar<T> alpha = T(1),
              scalar<T> beta = T(0)) {
  using namespace eigen_kernel;
  const auto with = [&](const auto& right) {  // [k, n]
    backend.for_each_piece(c.rows, tile_rows, [&](index_t first, index_t count) {
      tile<T> left = tile<T>::Zero(tile_rows, a.columns);  // [32, k]
      gather_rows<T>(a, first, count, left);
      const tile<T> sum = product(left, right);  // [32, n]
      for (index_t i = 0; i < count; ++i) {
        const row_array<T> value = alpha * sum.row(i).array();  // [n]
        for (index_t j = 0; j < c.columns; ++j) {
          T& to = at(c, first + i, j);
          to = beta == T(0) ? value[j] : value[j] + beta * to;
        }
      }
    });
  };
  if (b.column_stride == 1 && b.row_stride >= 0)
    return with(as_matrix(b.data, b.rows, b.columns, b.row_stride));
  if (b.row_stride == 1 && b.column_stride >= 0)
    return with(as_matrix(b.data, b.columns, b.rows, b.column_stride).transpose());
  matrix<T> by_rows(b.rows, b.columns);
  gather_rows<T>(b, 0, b.rows, by_rows);
  with(by_rows);
}

}  // namespace multistage
