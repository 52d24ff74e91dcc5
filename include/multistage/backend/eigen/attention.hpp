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
    return as_matrix(data + p.q_at(row, head), p.queries, p.head_dim, p.q_token);
  }
  /// [keys, head_dim] in memory laid out like k.
  template <class U>
  auto like_k(U* data) const {
    return as_matrix(data + p.k_at(row, head), p.keys, p.head_dim, p.k_token);
  }
  /// [keys, head_dim] in memory laid out like v.
  template <class U>
  auto like_v(U* data) const {
    return as_matrix(data + p.v_at(row, head), p.keys, p.head_dim, p.v_token);
  }
  /// [queries, head_dim] in memory laid out like y.
  template <class U>
  auto like_y(U* data) const {
    return as_matrix(data + p.y_at(row, head), p.queries, p.head_dim, p.y_token());
  }
  /// [queries]
  auto log_sum_exp() const {
    return as_row(p.log_sum_exp_of(row, head), p.queries);
  }
};

/// Some tokens of one row and head: what a task takes.
template <class T>
struct attention_tile {
  attention_head<T> head;
  index_t first;  // token
  index_t count;  // of tokens, at most tile_rows

  /// Its rows of a matrix [tokens, d], with rows of zeros behind them: [32, d]. Products of
  /// one size are the same bits whatever the count is.
  template <class Matrix>
  tile<T> rows_of(const Matrix& all) const {
    return padded<T>(all.middleRows(first, count));
  }
  /// Puts the rows that are tokens where they belong in a matrix [tokens, d].
  template <class Matrix>
  void write(const tile<T>& rows, Matrix to) const {
    to.middleRows(first, count) = rows.topRows(count);
  }
};

/// f(tile) for tiles of 32 of the `tokens` of every row and head.
template <class T, class F>
void for_each_tile(const eigen& b, const attention_problem<T>& p, index_t tokens, F&& f) {
  const index_t tiles = divide_up(tokens, index_t(tile_rows));
  b.for_each_piece(p.rows * p.heads * tiles, 1, [&](index_t task, index_t) {
    const index_t first = task % tiles * tile_rows;
    const index_t head = task / tiles % p.heads;
    const index_t row = task / tiles / p.heads;
    const index_t count = std::min<index_t>(tile_rows, tokens - first);
    f(attention_tile<T>{{p, row, head}, first, count});
  });
}

/// dy . y of each of some queries, [count]: what the softmax's derivative takes off.
template <class T>
row_array<T> dots_with_result(const attention_head<T>& head,
                              const T* dy,
                              index_t first,
                              index_t count) {
  const matrix<T> gradient = head.like_y(dy).middleRows(first, count);  // [count, d]
  const matrix<T> y = head.like_y(head.p.y).middleRows(first, count);   // [count, d]
  return (gradient.array() * y.array()).rowwise().sum().transpose();
}

/// dq of a tile of queries.
template <class T>
void query_gradient(const attention_problem<T>& p,
                    const attention_gradients<T>& g,
                    const attention_tile<T>& queries) {
  const attention_head<T>& head = queries.head;
  const index_t first = queries.first;
  const auto k = head.like_k(p.k);                             // [keys, d]
  const auto v = head.like_v(p.v);                             // [keys, d]
  const tile<T> q = queries.rows_of(head.like_q(p.q));         // [32, d]
  const tile<T> dy = queries.rows_of(head.like_y(g.dy));       // [32, d]
  const auto lse = head.log_sum_exp();                         // [queries]
  const tile<T> scores = product(q, k.transpose()) * p.scale;  // [32, keys]
  const row_array<T> dy_y = dots_with_result(head, g.dy, first, queries.count);
  tile<T> ds = product(dy, v.transpose());  // [32, keys], dP yet
  for (index_t i = 0; i < queries.count; ++i) {
    const row_array<T> w = (scores.row(i).array() - lse[first + i]).exp();  // [keys]
    ds.row(i) = (w * (ds.row(i).array() - dy_y[i])).matrix();
  }
  queries.write(product(ds, k) * p.scale, head.like_q(g.dq));
}

/// dk and dv of a tile of keys. All here is transposed: a row is a key, a column a query.
template <class T>
void key_gradient(const attention_problem<T>& p,
                  const attention_gradients<T>& g,
                  const attention_tile<T>& keys) {
  const attention_head<T>& head = keys.head;
  const auto q = head.like_q(p.q);                                       // [queries, d]
  const auto dy = head.like_y(g.dy);                                     // [queries, d]
  const tile<T> k = keys.rows_of(head.like_k(p.k));                      // [32, d]
  const tile<T> v = keys.rows_of(head.like_v(p.v));                      // [32, d]
  const row_array<T> lse = head.log_sum_exp();                           // [queries]
  const row_array<T> dy_y = dots_with_result(head, g.dy, 0, p.queries);  // [queries]
  tile<T> weights = product(k, q.transpose()) * p.scale;  // [32, queries], scores yet
  tile<T> ds = product(v, dy.transpose());                // [32, queries], dP yet
  for (index_t j = 0; j < keys.count; ++j) {
    const row_array<T> w = (weights.row(j).array() - lse).exp();  // [queries]
    weights.row(j) = w.matrix();
    ds.row(j) = (w * (ds.row(j).array() - dy_y)).matrix();
  }
  // Rows of the tile that are no keys must not add to anything.
  weights.bottomRows(tile_rows - keys.count).setZero();
  keys.write(product(ds, q) * p.scale, head.like_k(g.dk));
  keys.write(product(weights, dy), head.like_v(g.dv));
}

}  // namespace eigen_kernel

/// @see attention_problem.
template <class T>
void attention_forward(const eigen& b, const attention_problem<T>& p) {
  using namespace eigen_kernel;
  for_each_tile(b, p, p.queries, [&](const attention_tile<T>& queries) {
    const attention_head<T>& head = queries.head;
    const auto k = head.like_k(p.k);                      // [keys, d]
    const auto v = head.like_v(p.v);                      // [keys, d]
    const tile<T> q = queries.rows_of(head.like_q(p.q));  // [32, d]
    // Scores first, then weights in their place.
    tile<T> weights = product(q, k.transpose()) * p.scale;  // [32, keys]
    for (index_t i = 0; i < queries.count; ++i) {
      // No exponential overflows when the largest score is taken off.
      const T most = weights.row(i).maxCoeff();
      const row_array<T> w = (weights.row(i).array() - most).exp();  // [keys]
      const T sum = w.sum();
      weights.row(i) = (w / sum).matrix();
      using std::log;
      if (p.log_sum_exp)
        head.log_sum_exp()[queries.first + i] = most + log(sum);
    }
    queries.write(product(weights, v), head.like_y(p.y));
  });
}

/// @see attention_gradients.
template <class T>
void attention_backward(const eigen& b,
                        const attention_problem<T>& p,
                        const attention_gradients<T>& g) {
  using namespace eigen_kernel;
  for_each_tile(b, p, p.queries,
                [&](const attention_tile<T>& queries) { query_gradient(p, g, queries); });
  for_each_tile(b, p, p.keys, [&](const attention_tile<T>& keys) { key_gradient(p, g, keys); });
}

}  // namespace multistage
