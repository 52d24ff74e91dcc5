// Matrix product C = alpha op(A) op(B) + beta C, row-major.
#pragma once
#include "shape_rules.hpp"

namespace multistage::ops {

/// @param a [rows, channels] as a matrix, op(A) of extents m x k. @param b op(B) of extents k x n. @param c m x n.
/// @throws shape_error when the extents do not chain.
template <class Backend, class T>
void matmul(Backend& backend, view<const T> a, view<const T> b, view<T> c, bool transpose_a = false, bool transpose_b = false, T alpha = T(1), T beta = T(0)) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, gemm, T);
  const auto matrix = [](const shape& s) { return s.pixels() == 1; };
  require<shape_error>(matrix(a.extents) && matrix(b.extents) && matrix(c.extents), "matmul: ", a.extents, " x ", b.extents, " -> ", c.extents,
                       "; matrices have height and width 1");
  const index_t m = transpose_a ? a.extents.channels : a.extents.rows, k = transpose_a ? a.extents.rows : a.extents.channels;
  const index_t n = transpose_b ? b.extents.rows : b.extents.channels, kb = transpose_b ? b.extents.channels : b.extents.rows;
  require<shape_error>(k == kb, "matmul: op(A) is ", m, " x ", k, " and op(B) is ", kb, " x ", n, "; the inner extents must be equal");
  expect("matmul", "C", c, shape{m, 1, 1, n});
  gemm(backend, gemm_problem<T>{m, n, k, alpha, a.data, a.strides[0], transpose_a, b.data, b.strides[0], transpose_b, beta, c.data, c.strides[0]});
}

}  // namespace multistage::ops
