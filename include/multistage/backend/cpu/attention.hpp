// Softmax attention on the CPU. A task is one row, head and block of queries; its scores live
// in a scratch of block x keys, so no matrix of all queries by all keys exists. Backward
// recomputes the weights from the stored log-sum-exp:
//   P = exp(S - lse),  dv = P^T dy,  dP = dy v^T,  dS = P (dP - rowsum(dy y)),
//   dq = scale dS k,  dk = scale dS^T q.
//
// A block of 64 queries is what a task works on: the product of the queries and all keys, [64,
// keys], the softmax along its rows, the product with the values. For 1,024 keys the scores
// take 256 KiB, so that they are still in cache when they are read again. Memory is thus
// bounded by the threads, not by the image, and products are large enough for the tiles of
// gemm.hpp.
#pragma once
#include <cmath>

#include "gemm.hpp"
#include "math.hpp"

namespace multistage::inline MULTISTAGE_ISA {
namespace attention_kernel {

/// Queries of a task: their scores against 1,024 keys take 256 KiB of floats, which a
/// second-level cache holds.
inline constexpr index_t query_block = 64;

/// The matrices of one row and head, [tokens, head_dim] each, in memory laid out like that of
/// q, k, v or y.
template <class T>
struct head_matrices {
  const attention_problem<T>& p;
  index_t row;
  index_t head;

  /// [queries, head_dim]
  template <class U>
  matrix_view<U> like_q(U* data) const {
    return {data + p.q_at(row, head), p.queries, p.head_dim, p.q_token};
  }
  /// [keys, head_dim]
  template <class U>
  matrix_view<U> like_k(U* data) const {
    return {data + p.k_at(row, head), p.keys, p.head_dim, p.k_token};
  }
  /// [keys, head_dim]
  template <class U>
  matrix_view<U> like_v(U* data) const {
    return {data + p.v_at(row, head), p.keys, p.head_dim, p.v_token};
  }
  /// [queries, head_dim]
  template <class U>
  matrix_view<U> like_y(U* data) const {
    return {data + p.y_at(row, head), p.queries, p.head_dim, p.y_token()};
  }
  /// [queries], or null.
  T* log_sum_exp() const {
    return p.log_sum_exp_of(row, head);
  }
};

/// w[j] = exp(w[j] - shift)
template <class T>
void exponentials(T* w, index_t n, T shift) {
  simd::for_each_vector<T>(n, [&](index_t j, index_t have) {
    const simd::vec<T> shifted = simd::load_up_to(w + j, have) - simd::broadcast(shift);
    simd::store_up_to(w + j, simd::exp<T>(shifted), have);
  });
}

/// Scores of a query become its weights, exp(s - most) over their sum; returns the log-sum-exp.
template <class T>
T softmax(T* w, index_t keys) {
  T most = w[0];
  for (index_t j = 1; j < keys; ++j)
    most = std::max(most, w[j]);
  exponentials(w, keys, most);
  T sum = 0;
  for (index_t j = 0; j < keys; ++j)
    sum += w[j];
  const T share = T(1) / sum;
  for (index_t j = 0; j < keys; ++j)
    w[j] *= share;
  return most + std::log(sum);
}

}  // namespace attention_kernel

/// @see attention_problem.
template <class T>
void attention_forward(const cpu& b, const attention_problem<T>& p) {
  using namespace attention_kernel;
  const index_t blocks = divide_up(p.queries, query_block);
  b.pool().parallel_for(p.rows * p.heads * blocks, [&](index_t task) {
    const index_t first = task % blocks * query_block;
    const index_t head = task / blocks % p.heads;
    const index_t row = task / (blocks * p.heads);
    const head_matrices<T> of{p, row, head};
    const index_t count = std::min(query_block, p.queries - first);
    const matrix_view<const T> q = of.like_q(p.q).middle_rows(first, count);  // [count, d]
    const matrix_view<const T> k = of.like_k(p.k);                            // [keys, d]
    const matrix_view<const T> v = of.like_v(p.v);                            // [keys, d]
    const matrix_view<T> y = of.like_y(p.y).middle_rows(first, count);        // [count, d]
    scratch_frame scratch;
    T* const scores = scratch.take<T>(query_block * p.keys);
    const matrix_view<T> weights{scores, count, p.keys};
    // Scores first, then weights in their place.
    gemm_kernel::multiply(q, k.transposed(), weights, p.scale);
    T* const log_sum_exp = of.log_sum_exp();
    for (index_t i = 0; i < count; ++i) {
      const T made = softmax(weights.data + i * p.keys, p.keys);
      if (log_sum_exp)
        log_sum_exp[first + i] = made;
    }
    gemm_kernel::multiply(weights, v, y);
  });
}

/// @see attention_gradients. A task is one row and head, so that dk and dv are summed in a
/// fixed order.
template <class T>
void attention_backward(const cpu& b,
                        const attention_problem<T>& p,
                        const attention_gradients<T>& g) {
  using namespace attention_kernel;
  b.pool().parallel_for(p.rows * p.heads, [&](index_t task) {
    const head_matrices<T> of{p, task / p.heads, task % p.heads};
    const matrix_view<const T> k = of.like_k(p.k);  // [keys, d]
    const matrix_view<const T> v = of.like_v(p.v);  // [keys, d]
    const matrix_view<T> dk = of.like_k(g.dk);      // [keys, d]
    const matrix_view<T> dv = of.like_v(g.dv);      // [keys, d]
    const T* const log_sum_exp = of.log_sum_exp();
    scratch_frame scratch;
    T* const of_weights = scratch.take<T>(query_block * p.keys);
    T* const of_scores = scratch.take<T>(query_block * p.keys);
    for (index_t first = 0; first < p.queries; first += query_block) {
      const index_t count = std::min(query_block, p.queries - first);
      const matrix_view<const T> q = of.like_q(p.q).middle_rows(first, count);    // [count, d]
      const matrix_view<const T> y = of.like_y(p.y).middle_rows(first, count);    // [count, d]
      const matrix_view<const T> dy = of.like_y(g.dy).middle_rows(first, count);  // [count, d]
      const matrix_view<T> dq = of.like_q(g.dq).middle_rows(first, count);        // [count, d]
      const matrix_view<T> weights{of_weights, count, p.keys};
      const matrix_view<T> dscores{of_scores, count, p.keys};
      gemm_kernel::multiply(q, k.transposed(), weights, p.scale);  // scores yet
      gemm_kernel::multiply(dy, v.transposed(), dscores);          // dP yet
      for (index_t i = 0; i < count; ++i) {
        // By dy . y the softmax's derivative takes off what all weights of a query share.
        const T* const dy_i = dy.data + i * dy.row_stride;
        const T* const y_i = y.data + i * y.row_stride;
        T dot = 0;
        for (index_t d = 0; d < p.head_dim; ++d)
          dot += dy_i[d] * y_i[d];
        T* const w = weights.data + i * p.keys;
        T* const ds = dscores.data + i * p.keys;
        exponentials(w, p.keys, log_sum_exp[first + i]);
        for (index_t j = 0; j < p.keys; ++j)
          ds[j] = w[j] * (ds[j] - dot);
      }
      // Blocks of queries follow each other, so dk and dv are sums in one order.
      const T beta = first == 0 ? T(0) : T(1);
      gemm_kernel::multiply(weights.transposed(), dy, dv, 1, beta);
      gemm_kernel::multiply(dscores.transposed(), q, dk, p.scale, beta);
      gemm_kernel::multiply(dscores, k, dq, p.scale);
    }
  });
}

}  // namespace multistage::inline MULTISTAGE_ISA
