// Softmax attention on the CPU. A task is one row, head and block of queries; its scores live
// in a scratch of block x keys, so no matrix of all queries by all keys exists. Backward
// recomputes the weights from the stored log-sum-exp:
//   P = exp(S - lse),  dv = P^T dy,  dP = dy v^T,  dS = P (dP - rowsum(dy y)),
//   dq = scale dS k,  dk = scale dS^T q.
#pragma once
#include <cmath>

#include "gemm.hpp"
#include "math.hpp"

namespace multistage::inline MULTISTAGE_ISA {
namespace attention_kernel {

/// Queries of a task: their scores against 1,024 keys take 256 KiB of floats, which a
/// second-level cache holds.
inline constexpr index_t query_block = 64;

/// scores [nq, keys] = scale q k^T for queries from i0.
template <class T>
void scores(const attention_problem<T>& p, const T* q, const T* k, index_t nq, T* s) {
  gemm_kernel::multiply(nq, p.keys, p.head_dim, q, p.q_token, index_t(1), k, index_t(1),
                        p.k_token, p.scale, T(0), s, p.keys);
}

/// w[j] = exp(w[j] - shift)
template <class T>
void exponentials(T* w, index_t n, T shift) {
  simd::for_each_vector<T>(n, [&](index_t j, index_t have) {
    simd::store_up_to(
        w + j, simd::exp<T>(simd::load_up_to(w + j, have) - simd::broadcast(shift)), have);
  });
}

}  // namespace attention_kernel

/// @see attention_problem.
template <class T>
void attention_forward(const cpu& b, const attention_problem<T>& p) {
  using namespace attention_kernel;
  const index_t blocks = divide_up(p.queries, query_block);
  const index_t y_token = p.heads * p.head_dim;
  b.pool().parallel_for(p.rows * p.heads * blocks, [&](index_t task) {
    const index_t block = task % blocks;
    const index_t head = task / blocks % p.heads;
    const index_t row = task / (blocks * p.heads);
    const index_t i0 = block * query_block;
    const index_t nq = std::min(query_block, p.queries - i0);
    const T* q = p.q + row * p.q_row + i0 * p.q_token + head * p.head_dim;
    const T* k = p.k + row * p.k_row + head * p.head_dim;
    const T* v = p.v + row * p.v_row + head * p.head_dim;
    scratch_frame scratch;
    T* s = scratch.take<T>(query_block * p.keys);
    scores(p, q, k, nq, s);
    for (index_t i = 0; i < nq; ++i) {
      T* w = s + i * p.keys;
      // Scores to weights: exp(s - most) over its sum, and the log-sum-exp for backward.
      T most = w[0];
      for (index_t j = 1; j < p.keys; ++j)
        most = std::max(most, w[j]);
      T sum = 0;
      exponentials(w, p.keys, most);
      for (index_t j = 0; j < p.keys; ++j)
        sum += w[j];
      const T share = T(1) / sum;
      for (index_t j = 0; j < p.keys; ++j)
        w[j] *= share;
      if (p.log_sum_exp)
        p.log_sum_exp[(row * p.heads + head) * p.queries + i0 + i] = most + std::log(sum);
    }
    gemm_kernel::multiply(nq, p.head_dim, p.keys, s, p.keys, index_t(1), v, p.v_token,
                          index_t(1), T(1), T(0),
                          p.y + (row * p.queries + i0) * y_token + head * p.head_dim, y_token);
  });
}

/// @see attention_gradients. A task is one row and head, so that dk and dv are summed in a
/// fixed order.
template <class T>
void attention_backward(const cpu& b,
                        const attention_problem<T>& p,
                        const attention_gradients<T>& g) {
  using namespace attention_kernel;
  const index_t y_token = p.heads * p.head_dim;
  b.pool().parallel_for(p.rows * p.heads, [&](index_t task) {
    const index_t head = task % p.heads;
    const index_t row = task / p.heads;
    const index_t at = head * p.head_dim;
    const T* k = p.k + row * p.k_row + at;
    const T* v = p.v + row * p.v_row + at;
    T* dk = g.dk + row * p.k_row + at;
    T* dv = g.dv + row * p.v_row + at;
    scratch_frame scratch;
    T* w = scratch.take<T>(query_block * p.keys);
    T* ds = scratch.take<T>(query_block * p.keys);
    for (index_t i0 = 0; i0 < p.queries; i0 += query_block) {
      const index_t nq = std::min(query_block, p.queries - i0);
      const T* q = p.q + row * p.q_row + i0 * p.q_token + at;
      const T* y = p.y + (row * p.queries + i0) * y_token + at;
      const T* dy = g.dy + (row * p.queries + i0) * y_token + at;
      scores(p, q, k, nq, w);
      const T* lse = p.log_sum_exp + (row * p.heads + head) * p.queries + i0;
      gemm_kernel::multiply(nq, p.keys, p.head_dim, dy, y_token, index_t(1), v, index_t(1),
                            p.v_token, T(1), T(0), ds, p.keys);
      for (index_t i = 0; i < nq; ++i) {
        T dot = 0;
        for (index_t d = 0; d < p.head_dim; ++d)
          dot += dy[i * y_token + d] * y[i * y_token + d];
        T* wi = w + i * p.keys;
        T* di = ds + i * p.keys;
        exponentials(wi, p.keys, lse[i]);
        for (index_t j = 0; j < p.keys; ++j)
          di[j] = wi[j] * (di[j] - dot);
      }
      // Blocks of queries follow each other, so dk and dv are sums in one order.
      const T beta = i0 == 0 ? T(0) : T(1);
      gemm_kernel::multiply(p.keys, p.head_dim, nq, w, index_t(1), p.keys, dy, y_token,
                            index_t(1), T(1), beta, dv, p.v_token);
      gemm_kernel::multiply(p.keys, p.head_dim, nq, ds, index_t(1), p.keys, q, p.q_token,
                            index_t(1), p.scale, beta, dk, p.k_token);
      gemm_kernel::multiply(nq, p.head_dim, p.keys, ds, p.keys, index_t(1), k, p.k_token,
                            index_t(1), p.scale, T(0),
                            g.dq + row * p.q_row + i0 * p.q_token + at, p.q_token);
    }
  });
}

}  // namespace multistage::inline MULTISTAGE_ISA
