// Softmax attention on a GPU by batched products: the scores of as many rows as fit a quarter
// of a gigabyte are made, turned into weights a warp a query, and multiplied; backward makes
// them again from the log of the softmax's denominator. With weights P = softmax(scale Q K^T),
// y = P V, and D[i] = sum over j of P[i, j] dP[i, j]:
//   dV = P^T dY,  dP = dY V^T,  dS = scale P (dP - D),  dQ = dS K,  dK = dS^T Q
//
// Scores are in memory here, unlike on the CPU: products by cuBLAS outweigh that for the sizes
// that images have (256 to 4,096 tokens), and the rows of a batch are taken in parts so that
// the scores stay within a quarter of a gigabyte. Heads are strided batches: no copy brings
// them together.
#pragma once
#include <type_traits>

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
  if (query >= queries)
    return;
  const int lane = threadIdx.x % warp_size;
  T* const s = scores + query * keys;
  // The largest score, so that no exponential overflows; the sum of exponentials; the weights.
  T most = s[0];
  for (index_t j = lane; j < keys; j += warp_size)
    most = s[j] > most ? s[j] : most;
  most = warp_maximum(most);
  T sum = 0;
  for (index_t j = lane; j < keys; j += warp_size)
    sum += silu_function::exp(s[j] - most);
  sum = warp_sum(sum);
  const T inverse = T(1) / sum;
  for (index_t j = lane; j < keys; j += warp_size)
    s[j] = silu_function::exp(s[j] - most) * inverse;
  if (log_sum_exp && lane == 0)
    log_sum_exp[query] = most + T(::log(double(sum)));
}

/// scores become weights P, dweights (dP) become dscores (dS); all [queries, keys].
template <class T>
__global__ void softmax_backward(index_t queries,
                                 index_t keys,
                                 T scale,
                                 const T* log_sum_exp,
                                 T* scores,
                                 T* dweights) {
  const index_t query = index_t(blockIdx.x) * queries_a_block + threadIdx.x / warp_size;
  if (query >= queries)
    return;
  const int lane = threadIdx.x % warp_size;
  T* const p = scores + query * keys;
  T* const d = dweights + query * keys;
  const T offset = log_sum_exp[query];
  // P again from the scores, and D, the weighted mean of dP; then dS.
  T dot = 0;
  for (index_t j = lane; j < keys; j += warp_size) {
    p[j] = silu_function::exp(p[j] - offset);
    dot += p[j] * d[j];
  }
  dot = warp_sum(dot);
  for (index_t j = lane; j < keys; j += warp_size)
    d[j] = scale * p[j] * (d[j] - dot);
}

/// A matrix for each row of the batch and head.
template <class T>
struct heads_matrix {
  matrix_view<T> first;  // of the first row's first head
  index_t row;           // elements from one row of the batch to the next
  index_t head;          // from one head to the next

  /// Every matrix with rows and columns exchanged.
  heads_matrix transposed() const {
    return {first.transposed(), row, head};
  }
  /// To be read only.
  template <class U>
  requires(std::is_same_v<U, const T> && !std::is_const_v<T>) operator heads_matrix<U>() const {
    return {first, row, head};
  }
};

/// c = alpha a b for each row and head.
template <class T>
void multiply_heads(const cuda& backend,
                    index_t rows,
                    index_t heads,
                    T alpha,
                    std::type_identity_t<heads_matrix<const T>> a,
                    std::type_identity_t<heads_matrix<const T>> b,
                    heads_matrix<T> c) {
  // cuBLAS repeats a product along one distance; the other of the two is a loop, the shorter
  // one.
  const bool over_rows = rows >= heads;
  const product_batch batch = over_rows ? product_batch{rows, a.row, b.row, c.row}
                                        : product_batch{heads, a.head, b.head, c.head};
  const index_t calls = over_rows ? heads : rows;
  for (index_t call = 0; call < calls; ++call) {
    backend.products().multiply(a.first, b.first, c.first, alpha, T(0), batch);
    a.first.data += over_rows ? a.head : a.row;
    b.first.data += over_rows ? b.head : b.row;
    c.first.data += over_rows ? c.head : c.row;
  }
}

/// The matrices of a part of an attention problem: rows [first, first + rows) of the batch.
template <class T>
struct attention_matrices {
  const attention_problem<T>& p;
  index_t first;

  /// Packed matrices of queries by keys, in memory of our own.
  heads_matrix<T> scores(T* data) const {  // [queries, keys]
    const index_t size = p.queries * p.keys;
    return {{data, p.queries, p.keys}, p.heads * size, size};
  }
  /// Matrices of `count` tokens by head_dim, heads side by side within a token.
  template <class U>
  heads_matrix<U> tokens(U* data, index_t count, index_t row, index_t token) const {
    return {{data + first * row, count, p.head_dim, token}, row, p.head_dim};
  }
  /// Laid out like q: q itself or its gradient.
  template <class U>
  heads_matrix<U> like_q(U* data) const {
    return tokens(data, p.queries, p.q_row, p.q_token);
  }
  /// Laid out like k.
  template <class U>
  heads_matrix<U> like_k(U* data) const {
    return tokens(data, p.keys, p.k_row, p.k_token);
  }
  /// Laid out like v.
  template <class U>
  heads_matrix<U> like_v(U* data) const {
    return tokens(data, p.keys, p.v_row, p.v_token);
  }
  /// Laid out like y, [rows, queries, heads, head_dim].
  template <class U>
  heads_matrix<U> like_y(U* data) const {
    const index_t channels = p.y_token();
    return tokens(data, p.queries, p.queries * channels, channels);
  }
};

/// Calls f(first row, rows) for parts of the batch whose scores fit 2^26 elements.
template <class T, class F>
void for_each_part(const attention_problem<T>& p, F&& f) {
  const index_t fit = (index_t{1} << 26) / (p.heads * p.queries * p.keys);
  const index_t most = fit < 1 ? 1 : fit;
  for (index_t first = 0; first < p.rows; first += most) {
    const index_t left = p.rows - first;
    f(first, left < most ? left : most);
  }
}

}  // namespace cuda_kernel

/// @see attention_problem. Scores of as many rows as 2^26 of them make are in memory at a time:
/// a product, a softmax in place, a product.
template <class T>
void attention_forward(const cuda& b, const attention_problem<T>& p) {
  using namespace cuda_kernel;
  for_each_part(p, [&](index_t first, index_t rows) {
    const attention_matrices<T> of{p, first};
    const index_t queries = rows * p.heads * p.queries;
    const index_t blocks = divide_up(queries, queries_a_block);
    const int threads = queries_a_block * warp_size;
    const heads_matrix<const T> q = of.like_q(p.q);
    const heads_matrix<const T> k = of.like_k(p.k);
    const heads_matrix<const T> v = of.like_v(p.v);
    T* const memory = b.template workspace<T>(0, queries * p.keys);
    const heads_matrix<T> scores = of.scores(memory);  // [rows, heads, queries, keys]
    multiply_heads(b, rows, p.heads, p.scale, q, k.transposed(), scores);
    cuda_launch("softmax", softmax<T>, grid(blocks), threads, 0, queries, p.keys, memory,
                p.log_sum_exp_of(first, 0));
    multiply_heads(b, rows, p.heads, T(1), scores, v, of.like_y(p.y));
  });
}

/// @see attention_gradients.
template <class T>
void attention_backward(const cuda& b,
                        const attention_problem<T>& p,
                        const attention_gradients<T>& g) {
  using namespace cuda_kernel;
  for_each_part(p, [&](index_t first, index_t rows) {
    const attention_matrices<T> of{p, first};
    const index_t queries = rows * p.heads * p.queries;
    const index_t blocks = divide_up(queries, queries_a_block);
    const int threads = queries_a_block * warp_size;
    const heads_matrix<const T> q = of.like_q(p.q);
    const heads_matrix<const T> k = of.like_k(p.k);
    const heads_matrix<const T> v = of.like_v(p.v);
    const heads_matrix<const T> dy = of.like_y(g.dy);
    T* const scores = b.template workspace<T>(0, queries * p.keys);    // then weights P
    T* const dweights = b.template workspace<T>(1, queries * p.keys);  // then dscores dS
    const heads_matrix<T> weights = of.scores(scores);
    const heads_matrix<T> dscores = of.scores(dweights);
    multiply_heads(b, rows, p.heads, p.scale, q, k.transposed(), weights);
    multiply_heads(b, rows, p.heads, T(1), dy, v.transposed(), dscores);
    const T* const log_sum_exp = p.log_sum_exp_of(first, 0);
    cuda_launch("softmax_backward", softmax_backward<T>, grid(blocks), threads, 0, queries,
                p.keys, p.scale, log_sum_exp, scores, dweights);
    multiply_heads(b, rows, p.heads, T(1), weights.transposed(), dy, of.like_v(g.dv));
    multiply_heads(b, rows, p.heads, T(1), dscores, k, of.like_q(g.dq));
    multiply_heads(b, rows, p.heads, T(1), dscores.transposed(), q, of.like_k(g.dk));
  });
}

}  // namespace multistage
