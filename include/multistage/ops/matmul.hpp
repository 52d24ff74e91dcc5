// Matrix product C = alpha op(A) op(B) + beta C, of views with any strides.
//
//   ops::matmul(backend, a, b, c, false, true);      // c [m, n] = a [m, k] b^T, b [n, k]
#pragma once
#include "shape_rules.hpp"

namespace multistage::ops {

/// @param a [rows, channels] as a matrix, op(A) of extents m x k. @param b op(B) of extents k x
/// n. @param c m x n.
/// @throws shape_error when the extents do not chain.
template <class Backend, class T>
void matmul(Backend& backend,
            input<T> a,
            input<T> b,
            view<T> c,
            bool transpose_a = false,
            bool transpose_b = false,
            scalar<T> alpha = T(1),
            scalar<T> beta = T(0)) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, gemm, T);
  const auto flat = [](const shape& s) {
    return s.pixels() == 1;
  };
  require<shape_error>(flat(a.extents) && flat(b.extents) && flat(c.extents),
                       "matmul: ", a.extents, " x ", b.extents, " -> ", c.extents,
                       "; matrices have height and width 1");
  const index_t m = transpose_a ? a.extents.channels : a.extents.rows;
  const index_t k = transpose_a ? a.extents.rows : a.extents.channels;
  const index_t n = transpose_b ? b.extents.rows : b.extents.channels;
  const index_t kb = transpose_b ? b.extents.channels : b.extents.rows;
  require<shape_error>(k == kb, "matmul: op(A) is ", m, " x ", k, " and op(B) is ", kb, " x ",
                       n, "; the inner extents must be equal");
  require<shape_error>(c.extents == shape{m, 1, 1, n}, "matmul: C has extents ", c.extents,
                       ", expected ", shape{m, 1, 1, n});
  const auto as_matrix = []<class U>(const view<U>& v) {
    return matrix_view<U>{v.data, v.extents.rows, v.extents.channels, v.strides[0],
                          v.strides[3]};
  };
  const matrix_view<const T> left = as_matrix(a);
  const matrix_view<const T> right = as_matrix(b);
  multiply(backend, transpose_a ? left.transposed() : left,
           transpose_b ? right.transposed() : right, as_matrix(c), alpha, beta);
}

}  // namespace multistage::ops
