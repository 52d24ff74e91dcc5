// Softmax attention by Eigen. A task is 32 queries (or, for dk and dv, 32 keys) of one row and
// head. Backward makes the weights again from the log-sum-exp that forward kept:
//   S = scale q k^T,  P = exp(S - lse),  dP = dy v^T,  dS = P (dP - rowsum(dy y)),
//   dq = scale dS k,  dk = scale dS^T q,  dv = P^T dy.
#pragma once
#include "gemm.hpp"

namespace multistage {
namespace eigen_kernel {

/// The matrices of one row and head, [tokens, head_dim] each, in memory laid out like that of
/// q, k, v or y.
template <class T>
struct attention_head {
  const attention_problem<T>& p;
  index_t row;
  index_t head;

  /// [queries, head_dim] in memory laid out like q.
  template <class U>
  auto like_q(U* data) const {
    return as_matrix(data + row * p.q_row + head * p.head_dim, p.queries, p.head_dim,
                     p.q_token);
  }
  /// [keys, head_dim] in memory laid out like k.
  template <class U>
  auto like_k(U* data) const {
    return as_matrix(data + row * p.k_row + head * p.head_dim, p.keys, p.head_dim, p.k_token);
  }
  /// [keys, head_dim] in memory laid out like v.
  template <class U>
  auto like_v(U* data) const {
    return as_matrix(data + row * p.v_row + head * p.head_dim, p.keys, p.head_dim, p.v_token);
  }
  /// [queries, head_dim] in memory laid out like y.
  template <class U>
  auto like_y(U* data) const {
    const index_t token = p.heads * p.head_dim;
    return as_matrix(data + row * p.queries * token + head * p.head_dim, p.queries, p.head_dim,
                     token);
  }
  /// [queries]
  auto log_sum_exp() const {
    return as_row(p.log_sum_exp + (row * p.heads + head) * p.queries, p.queries);
  }
};

/// f(head, first, count) for tiles of 32 tokens of every row and head.
template <class T, class F>
void for_each_tile(const eigen& b, const attention_problem<T>& p, index_t tokens, F&& f) {
  const index_t tiles = divide_up(tokens, index_t(tile_rows));
  b.for_each_piece(p.rows * p.heads * tiles, 1, [&](index_t task, index_t) {
    const index_t first = task % tiles * tile_rows;
    const attention_head<T> head{p, task / tiles / p.heads, task / tiles % p.heads};
    f(head, first, std::min<index_t>(tile_rows, tokens - first));
  });
}

}  // namespace eigen_kernel

/// @see attention_problem.
template <class T>
void attention_forward(const eigen& b, const attention_problem<T>& p) {
  using namespace eigen_kernel;
  for_each_tile(
      b, p, p.queries, [&](const attention_head<T>& head, index_t first, index_t count) {
        const auto k = head.like_k(p.k);
        const auto v = head.like_v(p.v);
        const tile<T> q = padded<T>(head.like_q(p.q).middleRows(first, count));  // [32, d]
        // Scores first, then weights in their place.
        tile<T> weights = product(q, k.transpose()) * p.scale;  // [32, keys]
        for (index_t i = 0; i < count; ++i) {
          const T most = weights.row(i).maxCoeff();
          const row_array<T> w = (weights.row(i).array() - most).exp();  // [keys]
          const T sum = w.sum();
          weights.row(i) = (w / sum).matrix();
          using std::log;
          if (p.log_sum_exp)
            head.log_sum_exp()[first + i] = most + log(sum);
        }
        head.like_y(p.y).middleRows(first, count) = product(weights, v).topRows(count);
      });
}

/// @see attention_gradients.
template <class T>
void attention_backward(const eigen& b,
                        const attention_problem<T>& p,
                        const attention_gradients<T>& g) {
  using namespace eigen_kernel;
  const auto dot = [&](const attention_head<T>& head, index_t first,
                       index_t count) -> row_array<T> {  // dy y of some queries
    const matrix<T> dy = head.like_y(g.dy).middleRows(first, count);
    const matrix<T> y = head.like_y(p.y).middleRows(first, count);
    return (dy.array() * y.array()).rowwise().sum().transpose();
  };
  for_each_tile(
      b, p, p.queries, [&](const attention_head<T>& head, index_t first, index_t count) {
        const auto k = head.like_k(p.k);
        const auto v = head.like_v(p.v);
        const tile<T> q = padded<T>(head.like_q(p.q).middleRows(first, count));    // [32, d]
        const tile<T> dy = padded<T>(head.like_y(g.dy).middleRows(first, count));  // [32, d]
        const row_array<T> dy_y = dot(head, first, count);                         // [count]
        const tile<T> scores = product(q, k.transpose()) * p.scale;                // [32, keys]
        tile<T> ds = product(dy, v.transpose());                                   // [32, keys]
        for (index_t i = 0; i < count; ++i) {
          const row_array<T> w = (scores.row(i).array() - head.log_sum_exp()[first + i]).exp();
          ds.row(i) = (w * (ds.row(i).array() - dy_y[i])).matrix();
        }
        head.like_q(g.dq).middleRows(first, count) = product(ds, k).topRows(count) * p.scale;
      });
  for_each_tile(b, p, p.keys, [&](const attention_head<T>& head, index_t first, index_t count) {
    const auto q = head.like_q(p.q);
    const auto dy = head.like_y(g.dy);
    const tile<T> k = padded<T>(head.like_k(p.k).middleRows(first, count));  // [32, d]
    const tile<T> v = padded<T>(head.like_v(p.v).middleRows(first, count));  // [32, d]
    const row_array<T> dy_y = dot(head, 0, p.queries);                       // [queries]
    const row_array<T> log_sum_exp = head.log_sum_exp();                     // [queries]
    tile<T> weights = product(k, q.transpose()) * p.scale;  // [32, queries], transposed
    tile<T> ds = product(v, dy.transpose());                // [32, queries], transposed
    for (index_t j = 0; j < count; ++j) {
      const row_array<T> w = (weights.row(j).array() - log_sum_exp).exp();
      weights.row(j) = w.matrix();
      ds.row(j) = (w * (ds.row(j).array() - dy_y)).matrix();
    }
    // Rows of the tile that are no keys must not add to anything.
    weights.bottomRows(tile_rows - count).setZero();
    head.like_k(g.dk).middleRows(first, count) = product(ds, q).topRows(count) * p.scale;
    head.like_v(g.dv).middleRows(first, count) = product(weights, dy).topRows(count);
  });
}

}  // namespace multistage
