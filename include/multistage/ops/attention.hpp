// Scaled dot-product attention (Vaswani et al., arXiv 1706.03762): y = softmax(scale q k^T) v,
// for each row and head. Backends keep the log of the softmax's denominator instead of the
// matrix of weights.
//
// With P = softmax(scale q k^T), the gradients are
//
//   dv = P^T dy,  dP = dy v^T,  dS = P (dP - rowsum(P dP)),
//   dq = scale dS k,  dk = scale dS^T q,
//
// and rowsum(P dP) = rowsum(dy y), so backward needs y and the log of the denominator, from
// which P is made again. Queries, keys and values may lie in one tensor [.., 3 C]
// (self-attention, heads inside each third) or in three (cross-attention).
#pragma once
#include <cmath>

#include "operation.hpp"

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
  return {
      .rows = rows,
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
      .v_token = token,
  };
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

/// @see the file's head; scores are scaled by (channels / heads)^-1/2. Operands: q [rows, h, w,
/// c], k and v [rows, h', w', c]; or one [q, k, v] [rows, h, w, 3 c], for attention of a
/// feature's pixels to themselves. Gradients of the operands are written, not added to, so
/// nothing else may read them.
struct softmax_attention {
  int heads = 1;     ///< parts of the channels that attend by themselves
  double scale = 0;  ///< of the scores; 0: 1 / sqrt(channels / heads)

  static constexpr operation needs = operation::attention;  ///< a backend must support it
  static constexpr const char* name = "attention";          ///< for messages and profiles
  static constexpr operand_names operands{"q", "k", "v"};   ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    const feature& q = in[0];
    const bool self = !in[1].there() && !in[2].there();
    const int channels = self ? q.channels / 3 : q.channels;
    const bool thirds = !self || 3 * channels == q.channels;
    if (heads < 1 || channels % heads != 0 || !thirds)
      return refused(graph_problem::heads, "the heads do not divide the channels", channels,
                     heads);
    const bool same = self || (in[1].channels == channels && in[2].channels == channels);
    if (!same)
      return refused(graph_problem::heads, "q, k and v need the same channels", channels,
                     heads);
    const extent keys = self ? q.extents() : extent{channels, in[1].height, in[1].width};
    if (keys.pixels() < 1)
      return refused(graph_problem::attributes, "there are no keys to attend to");
    description d;
    d.in = {q.extents(), keys, keys};
    d.out = {channels, q.height, q.width};
    d.macs = attention_macs(d.out.pixels(), keys.pixels(), channels);
    d.statistics = heads * d.out.pixels();
    d.needed = self ? 0b0001 : 0b0111;
    d.backward_reads = 0b0111;
    d.backward_reads_result = true;
    d.writes_gradient = 0b0111;
    return d;
  }

  /// What backends are asked for, on these operands. @param y extents of the result
  template <class T>
  attention_problem<T> problem(const forward_pass<T>& p, const shape& y) const {
    const auto& [q, k, v, none] = p.in;
    const bool self = !k;
    const index_t c = y.channels;
    const T factor = scale != 0 ? T(scale) : T(1 / std::sqrt(double(c / heads)));
    attention_problem<T> asked;
    if (self)
      asked = make_self_attention<T>(y.rows, y.pixels(), c, heads, q.data, factor);
    else
      asked = make_cross_attention<T>(y.rows, y.pixels(), k.extents.pixels(), c, heads, q.data,
                                      k.data, v.data, factor);
    asked.y = p.y.data;
    asked.log_sum_exp = p.statistics;
    return asked;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    attention_forward(b, problem(p, p.y.extents));
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    const bool self = !p.in[1];
    const index_t c = p.dy.extents.channels;
    attention_gradients<T> gradients{
        .dy = p.dy.data,
        .dq = p.dx[0].data,
        .dk = p.dx[1].data,
        .dv = p.dx[2].data,
    };
    if (self) {
      gradients.dk = gradients.dq + c;
      gradients.dv = gradients.dq + 2 * c;
    }
    attention_backward(b, problem<T>(p, p.dy.extents), gradients);
  }
};

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
  expect_packed("attention", "k", k);
  expect_packed("attention", "v", v);
  expect_optional("attention", "log_sum_exp", log_sum_exp,
                  shape{q.extents.rows, heads, q.extents.pixels(), 1});
  run(b, softmax_attention{int(heads), double(scale)},
      forward_pass<T>{.in = {q, k, v}, .y = y, .statistics = log_sum_exp.data});
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
  const char* const where = "attention_backward";
  backward_pass<T> pass{
      forward_pass<T>{.in = {q, k, v}, .y = y, .statistics = log_sum_exp.data}};
  pass.dy = {const_cast<T*>(dy.data), dy.extents, dy.strides};  ///< not written
  pass.dx = {dq, dk, dv};
  // Beside what run_backward asks of every operation: what forward left, and all three
  // gradients, which are made together.
  const shape weights{q.extents.rows, heads, q.extents.pixels(), 1};
  expect(where, "y", y, q.extents);
  expect(where, "log_sum_exp", log_sum_exp, weights);
  expect(where, "dq", dq, q.extents);
  expect(where, "dk", dk, k.extents);
  expect(where, "dv", dv, v.extents);
  run_backward(b, softmax_attention{int(heads), double(scale)}, pass);
}

}  // namespace multistage::ops
