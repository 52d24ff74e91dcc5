// Matrix products by Eigen, 32 rows at a time. Zeros fill the last tile up, so that Eigen treats every row alike wherever it lies, and
// k is cut where no processor's cache is too small for the piece, so that Eigen does not cut it by what the machine has: each element is
// one chain of additions whatever the batch, the threads and the caches. A result of at most 32 rows is also what Eigen never gives to
// threads of its own.
#pragma once
#include <vector>

#include "eigen.hpp"

namespace multistage {
namespace eigen_kernel {

inline constexpr int tile_rows = 32;
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

/// Any strides.
template <class T>
auto strided_matrix(const matrix_view<T>& m) {
  using type = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  using map = Eigen::Map<std::conditional_t<std::is_const_v<T>, const type, type>, 0, stride>;
  return map(m.data, m.rows, m.columns, stride(m.row_stride, m.column_stride));
}

/// A copy by rows.
template <class T>
matrix_view<const T> gathered(matrix_view<const T> m, std::vector<T>& memory) {
  memory.resize(std::size_t(m.rows * m.columns));
  for (index_t i = 0; i < m.rows; ++i)
    for (index_t j = 0; j < m.columns; ++j)
      memory[std::size_t(i * m.columns + j)] = m.data[i * m.row_stride + j * m.column_stride];
  return {memory.data(), m.rows, m.columns};
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
void multiply(const eigen& backend, factor<T> a, factor<T> b, matrix_view<T> c, scalar<T> alpha = T(1), scalar<T> beta = T(0)) {
  using namespace eigen_kernel;
  if (c.row_stride < 0 || c.column_stride < 0) {
    std::vector<T> memory;
    const matrix_view<const T> before = gathered<T>(c, memory);
    const matrix_view<T> packed{memory.data(), before.rows, before.columns};
    multiply(backend, a, b, packed, alpha, beta);
    for (index_t i = 0; i < c.rows; ++i)
      for (index_t j = 0; j < c.columns; ++j) c.data[i * c.row_stride + j * c.column_stride] = packed.data[i * c.columns + j];
    return;
  }
  // Eigen knows no strides below 0, and multiplies fastest what it can tell to lie by rows or by columns.
  std::vector<T> of_a;
  std::vector<T> of_b;
  if (a.row_stride < 0 || a.column_stride < 0) a = gathered<T>(a, of_a);
  if (b.row_stride < 0 || b.column_stride < 0 || (b.row_stride != 1 && b.column_stride != 1)) b = gathered<T>(b, of_b);
  auto result = strided_matrix(c);
  const auto rows_of_a = strided_matrix(a);
  const auto each = [&](const auto& right) {
    backend.for_each_piece(c.rows, tile_rows, [&](index_t i, index_t count) {
      const tile<T> left = padded<T>(rows_of_a.middleRows(i, count));  // [32, k]
      const tile<T> sum = product(left, right);                        // [32, n]
      for (index_t r = 0; r < count; ++r) {
        row_array<T> value = alpha * sum.row(r).array();
        if (beta != T(0)) value += beta * result.row(i + r).array();
        result.row(i + r) = value.matrix();
      }
    });
  };
  if (b.column_stride == 1)
    each(as_matrix(b.data, b.rows, b.columns, b.row_stride));
  else
    each(as_matrix(b.data, b.columns, b.rows, b.column_stride).transpose());
}

}  // namespace multistage
