// Matrix products by Eigen, 32 rows at a time. Zeros fill the last tile up, so that Eigen treats every row alike wherever it lies, and
// k is cut where no processor's cache is too small for the piece, so that Eigen does not cut it by what the machine has: each element is
// one chain of additions whatever the batch, the threads and the caches. A result of at most 32 rows is also what Eigen never gives to
// threads of its own.
#pragma once
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

/// left [32, k] right [k, n]
template <class T, class Right>
tile<T> product(const tile<T>& left, const Right& right) {
  tile<T> sum = tile<T>::Zero(tile_rows, right.cols());
  add_product(sum, left, right);
  return sum;
}

}  // namespace eigen_kernel

/// @see gemm_problem. A task is a tile of C.
template <class T>
void gemm(const eigen& backend, const gemm_problem<T>& p) {
  using namespace eigen_kernel;
  const auto a = as_matrix(p.a, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda);
  const auto b = as_matrix(p.b, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb);
  auto c = as_matrix(p.c, p.m, p.n, p.ldc);
  backend.for_each_piece(p.m, tile_rows, [&](index_t i, index_t count) {
    const tile<T> left = p.transpose_a ? padded<T>(a.middleCols(i, count).transpose())  // [32, k]
                                       : padded<T>(a.middleRows(i, count));
    const tile<T> sum = p.transpose_b ? product(left, b.transpose()) : product(left, b);  // [32, n]
    for (index_t r = 0; r < count; ++r) {
      row_array<T> value = p.alpha * sum.row(r).array();
      if (p.beta != T(0)) value += p.beta * c.row(i + r).array();
      c.row(i + r) = value.matrix();
    }
  });
}

}  // namespace multistage
