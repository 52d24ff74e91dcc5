// Scaled dot-product attention (Vaswani et al., arXiv 1706.03762): y = softmax(scale q k^T) v,
// for each row and head. Backends keep the log of the softmax's denominator instead of the
// matrix of weights.
#pragma once
#include <cmath>

#include "shape_rules.hpp"

namespace multistage::ops {

/// Multiply-accumulates of one image: scores and weighted sums. To a single key the weight is 1
/// whatever the score, so that only the sum counts.
constexpr index_t attention_macs(index_t queries, index_t keys, index_t channels) {
  return (keys == 1 ? 1 : 2) * queries * keys * channels;
}

/// The problem of self-attention over qkv [rows, tokens, 3 channels] with channels in the order
/// [q of all heads, k, v].
template <class T>
constexpr attention_problem<T> make_self_attention(index_t rows,
                                                   index_t tokens,
                                                   index_t channels,
                                                   index_t heads,
                                                   const T* qkv,
                                                   T scale) {
  const index_t token = 3 * channels;
  const index_t row = tokens * token;
  return {.rows = rows,
          .heads = heads,
          .queries = tokens,
          .keys = tokens,
          .head_dim = channels / heads,
          .scale = scale,
          .q = qkv,
          .k = qkv + channels,
          .v = qkv + 2 * channels,
          .q_row = row,
          .q_token = token,
          .k_row = row,
          .k_token = token,
          .v_row = row,
          .v_token = token};
}

/// The problem of attention between q [rows, queries, c] and k, v [rows, keys, c], each
/// contiguous.
template <class T>
constexpr attention_problem<T> make_cross_attention(index_t rows,
                                                    index_t queries,
                                                    index_t keys,
                                                    index_t channels,
                                                    index_t heads,
                                                    const T* q,
                                                    const T* k,
                                                    const T* v,
                                                    T scale) {
  return {.rows = rows,
          .heads = heads,
          .queries = queries,
          .keys = keys,
          .head_dim = channels / heads,
          .scale = scale,
          .q = q,
          .k = k,
          .v = v,
          .q_row = queries * channels,
          .q_token = channels,
          .k_row = keys * channels,
          .k_token = channels,
          .v_row = keys * channels,
          .v_token = channels};
}

/// y [rows, queries, 1, c] from q like y, k and v [rows, keys, 1, c]; scale 0 takes 1 / sqrt(c
/// / heads). `log_sum_exp` [rows, heads, queries, 1] is what backward needs and may be empty.
template <class Backend, class T>
void attention(Backend& b,
               input<T> q,
               input<T> k,
               input<T> v,
               view<T> y,
               index_t heads,
               view<T> log_sum_exp = {},
               scalar<T> scale = T(0)) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, attention, T);
  const index_t c = q.extents.channels;
  const index_t rows = q.extents.rows;
  const index_t queries = q.extents.pixels();
  const index_t keys = k.extents.pixels();
  require<value_error>(heads >= 1 && c % heads == 0, "attention: ", heads,
                       " heads do not divide ", c, " channels");
  expect("attention", "q", q, q.extents);
  expect("attention", "k", k, shape{rows, k.extents.height, k.extents.width, c});
  expect("attention", "v", v, k.extents);
  expect("attention", "y", y, q.extents);
  expect_optional("attention", "log_sum_exp", log_sum_exp, shape{rows, heads, queries, 1});
  if (scale == T(0))
    scale = T(1 / std::sqrt(double(c / heads)));
  attention_problem<T> p =
      make_cross_attention(rows, queries, keys, c, heads, q.data, k.data, v.data, scale);
  p.y = y.data;
  p.log_sum_exp = log_sum_exp.data;
  attention_forward(b, p);
}

/// Gradients of `attention`, written to dq, dk, dv; y and log_sum_exp are the forward's.
template <class Backend, class T>
void attention_backward(Backend& b,
                        input<T> q,
                        input<T> k,
                        input<T> v,
                        view<T> y,
                        index_t heads,
                        view<T> log_sum_exp,
                        input<T> dy,
                        view<T> dq,
                        view<T> dk,
                        view<T> dv,
                        scalar<T> scale = T(0)) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, attention, T);
  const index_t c = q.extents.channels;
  const index_t rows = q.extents.rows;
  require<value_error>(heads >= 1 && c % heads == 0, "attention_backward: ", heads,
                       " heads do not divide ", c, " channels");
  expect_packed("attention_backward", "q", q);
  expect("attention_backward", "k", k, shape{rows, k.extents.height, k.extents.width, c});
  expect("attention_backward", "v", v, k.extents);
  expect("attention_backward", "y", y, q.extents);
  expect("attention_backward", "log_sum_exp", log_sum_exp,
         shape{rows, heads, q.extents.pixels(), 1});
  expect("attention_backward", "dy", dy, q.extents);
  expect("attention_backward", "dq", dq, q.extents);
  expect("attention_backward", "dk", dk, k.extents);
  expect("attention_backward", "dv", dv, v.extents);
  if (scale == T(0))
    scale = T(1 / std::sqrt(double(c / heads)));
  attention_problem<T> p = make_cross_attention(rows, q.extents.pixels(), k.extents.pixels(), c,
                                                heads, q.data, k.data, v.data, scale);
  p.y = y.data;
  p.log_sum_exp = log_sum_exp.data;
  attention_backward(b, p, attention_gradients<T>{dy.data, dq.data, dk.data, dv.data});
}

}  // namespace multistage::ops
