// Softmax attention on a GPU by batched products: the scores of as many rows as fit a quarter of a
// gigabyte are made, turned into weights a warp a query, and multiplied; backward makes them again
// from the log of the softmax's denominator. With weights P = softmax(scale Q K^T), y = P V, and
// D[i] = sum over j of P[i, j] dP[i, j]:
//   dV = P^T dY,  dP = dY V^T,  dS = scale P (dP - D),  dQ = dS K,  dK = dS^T Q
#pragma once
#include "../functions.hpp"
#include "../thrust/attention.hpp"
#include "block.hpp"
#include "system.hpp"

namespace multistage {
namespace cuda_kernel {

/// Queries that a block takes, a warp each.
inline constexpr int queries_a_block = 8;

/// scores [queries, keys] become weights; log_sum_exp (or null) [queries].
template <class T>
__global__ void softmax(index_t queries, index_t keys, T* scores, T* log_sum_exp) {
  const index_t query = index_t(blockIdx.x) * queries_a_block + threadIdx.x / warp_size;
  if (query >= queries) return;
  const int lane = threadIdx.x % warp_size;
  T* const s = scores + query * keys;
  T most = s[0];
  for (index_t j = lane; j < keys; j += warp_size) most = s[j] > most ? s[j] : most;
  most = warp_maximum(most);
  T sum = 0;
  for (index_t j = lane; j < keys; j += warp_size) sum += silu_function::exp(s[j] - most);
  sum = warp_sum(sum);
  const T inverse = T(1) / sum;
  for (index_t j = lane; j < keys; j += warp_size) s[j] = silu_function::exp(s[j] - most) * inverse;
  if (log_sum_exp && lane == 0) log_sum_exp[query] = most + T(::log(double(sum)));
}

/// scores become weights P, dweights (dP) become dscores (dS); all [queries, keys].
template <class T>
__global__ void softmax_backward(index_t queries, index_t keys, T scale, const T* log_sum_exp,
                                 T* scores, T* dweights) {
  const index_t query = index_t(blockIdx.x) * queries_a_block + threadIdx.x / warp_size;
  if (query >= queries) return;
  const int lane = threadIdx.x % warp_size;
  T* const p = scores + query * keys;
  T* const d = dweights + query * keys;
  const T offset = log_sum_exp[query];
  T dot = 0;
  for (index_t j = lane; j < keys; j += warp_size) {
    p[j] = silu_function::exp(p[j] - offset);
    dot += p[j] * d[j];
  }
  dot = warp_sum(dot);
  for (index_t j = lane; j < keys; j += warp_size) d[j] = scale * p[j] * (d[j] - dot);
}

/// A matrix [tokens, head_dim] a row and head.
template <class T>
struct heads_matrix {
  T* data;
  index_t row;    // elements from one row of the batch to the next
  index_t head;   // from one head to the next
  index_t token;  // from one token to the next
};

/// Products over rows and heads of a part of an attention problem.
template <class T>
class attention_products {
 public:
  attention_products(const cuda& b, index_t rows, index_t heads)
      : backend_(b), rows_(rows), heads_(heads) {}

  /// c = alpha op(a) op(b) with op(a) [m, k] and op(b) [k, n], for each row and head.
  void multiply(index_t m, index_t n, index_t k, T alpha, heads_matrix<const T> a, bool transpose_a,
                heads_matrix<const T> b, bool transpose_b, heads_matrix<T> c) const {
    const bool over_rows = rows_ >= heads_;
    const index_t calls = over_rows ? heads_ : rows_;
    const product_batch batch = over_rows ? product_batch{rows_, a.row, b.row, c.row}
                                          : product_batch{heads_, a.head, b.head, c.head};
    for (index_t call = 0; call < calls; ++call) {
      const T* const from_a = a.data + call * (over_rows ? a.head : a.row);
      const T* const from_b = b.data + call * (over_rows ? b.head : b.row);
      T* const to = c.data + call * (over_rows ? c.head : c.row);
      backend_.products().multiply(gemm_problem<T>{.m = m,
                                                   .n = n,
                                                   .k = k,
                                                   .alpha = alpha,
                                                   .a = from_a,
                                                   .lda = a.token,
                                                   .transpose_a = transpose_a,
                                                   .b = from_b,
                                                   .ldb = b.token,
                                                   .transpose_b = transpose_b,
                                                   .beta = T(0),
                                                   .c = to,
                                                   .ldc = c.token},
                                   batch);
    }
  }

 private:
  const cuda& backend_;
  index_t rows_;
  index_t heads_;
};

/// Calls f(first row, rows) for parts of the batch whose scores fit 2^26 elements.
template <class T, class F>
void for_each_part(const attention_problem<T>& p, F&& f) {
  const index_t fit = (index_t{1} << 26) / (p.heads * p.queries * p.keys);
  const index_t most = fit < 1 ? 1 : fit;
  for (index_t first = 0; first < p.rows; first += most)
    f(first, p.rows - first < most ? p.rows - first : most);
}

}  // namespace cuda_kernel

template <class T>
void attention_forward(const cuda& b, const attention_problem<T>& p) {
  using namespace cuda_kernel;
  const index_t d = p.head_dim;
  const index_t scores_of_head = p.queries * p.keys;
  const index_t scores_of_row = p.heads * scores_of_head;
  for_each_part(p, [&](index_t first, index_t rows) {
    const attention_products<T> products(b, rows, p.heads);
    T* const scores =
        b.template workspace<T>(0, rows * scores_of_row);  // [rows, heads, queries, keys]
    const heads_matrix<T> s{scores, scores_of_row, scores_of_head, p.keys};
    const heads_matrix<const T> weights{scores, scores_of_row, scores_of_head, p.keys};
    const heads_matrix<const T> q{p.q + first * p.q_row, p.q_row, d, p.q_token};
    const heads_matrix<const T> k{p.k + first * p.k_row, p.k_row, d, p.k_token};
    const heads_matrix<const T> v{p.v + first * p.v_row, p.v_row, d, p.v_token};
    const index_t y_row = p.queries * p.heads * d;
    const heads_matrix<T> y{p.y + first * y_row, y_row, d, p.heads * d};
    products.multiply(p.queries, p.keys, d, p.scale, q, false, k, true, s);
    const index_t queries = rows * p.heads * p.queries;
    cuda_launch("softmax", softmax<T>, grid(divide_up(queries, queries_a_block)),
                queries_a_block * warp_size, 0, queries, p.keys, scores,
                p.log_sum_exp ? p.log_sum_exp + first * p.heads * p.queries : nullptr);
    products.multiply(p.queries, d, p.keys, T(1), weights, false, v, false, y);
  });
}

/// @see attention_gradients.
template <class T>
void attention_backward(const cuda& b, const attention_problem<T>& p,
                        const attention_gradients<T>& g) {
  using namespace cuda_kernel;
  const index_t d = p.head_dim;
  const index_t scores_of_head = p.queries * p.keys;
  const index_t scores_of_row = p.heads * scores_of_head;
  for_each_part(p, [&](index_t first, index_t rows) {
    const attention_products<T> products(b, rows, p.heads);
    T* const scores =
        b.template workspace<T>(0, rows * scores_of_row);  // [rows, heads, queries, keys]
    T* const dweights = b.template workspace<T>(1, rows * scores_of_row);  // likewise
    const heads_matrix<T> s{scores, scores_of_row, scores_of_head, p.keys};
    const heads_matrix<T> dp{dweights, scores_of_row, scores_of_head, p.keys};
    const heads_matrix<const T> weights{scores, scores_of_row, scores_of_head, p.keys};
    const heads_matrix<const T> ds{dweights, scores_of_row, scores_of_head, p.keys};
    const heads_matrix<const T> q{p.q + first * p.q_row, p.q_row, d, p.q_token};
    const heads_matrix<const T> k{p.k + first * p.k_row, p.k_row, d, p.k_token};
    const heads_matrix<const T> v{p.v + first * p.v_row, p.v_row, d, p.v_token};
    const index_t y_row = p.queries * p.heads * d;
    const heads_matrix<const T> dy{g.dy + first * y_row, y_row, d, p.heads * d};
    const heads_matrix<T> dq{g.dq + first * p.q_row, p.q_row, d, p.q_token};
    const heads_matrix<T> dk{g.dk + first * p.k_row, p.k_row, d, p.k_token};
    const heads_matrix<T> dv{g.dv + first * p.v_row, p.v_row, d, p.v_token};
    products.multiply(p.queries, p.keys, d, p.scale, q, false, k, true, s);
    products.multiply(p.queries, p.keys, d, T(1), dy, false, v, true, dp);
    const index_t queries = rows * p.heads * p.queries;
    cuda_launch("softmax_backward", softmax_backward<T>, grid(divide_up(queries, queries_a_block)),
                queries_a_block * warp_size, 0, queries, p.keys, p.scale,
                p.log_sum_exp + first * p.heads * p.queries, scores, dweights);
    products.multiply(p.keys, d, p.queries, T(1), weights, true, dy, false, dv);
    products.multiply(p.queries, d, p.keys, T(1), ds, false, k, false, dq);
    products.multiply(p.keys, d, p.queries, T(1), ds, true, q, false, dk);
  });
}

}  // namespace multistage
