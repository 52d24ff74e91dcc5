// Softmax attention on Thrust systems: an index is one query (or, for dk and dv, one key) of
// one row and head; the softmax runs online (Milakov and Gimelshein, arXiv 1805.02867), so no
// weights are stored.
//
// A query's result is a weighted mean of values whose weights are known only when all scores
// are. The online softmax goes through the keys once all the same: with m the largest score so
// far, it keeps s = sum exp(score - m) and y = sum exp(score - m) v, and where a score exceeds
// m both are multiplied by exp(old m - new m).
#pragma once
#include <cmath>

#include "thrust_backend.hpp"

namespace multistage {
namespace thrust_kernel {

/// Where the vectors of one row and head lie, head_dim numbers each.
template <class T>
struct attention_reader {
  attention_problem<T> p;
  index_t row;
  index_t head;
  /// Query i.
  MULTISTAGE_HD const T* q(index_t i) const {
    return p.q + p.q_at(row, head, i);
  }
  /// Key j.
  MULTISTAGE_HD const T* k(index_t j) const {
    return p.k + p.k_at(row, head, j);
  }
  /// Value j.
  MULTISTAGE_HD const T* v(index_t j) const {
    return p.v + p.v_at(row, head, j);
  }
  /// Offset of the result of query i, in y and in dy.
  MULTISTAGE_HD index_t at(index_t i) const {
    return p.y_at(row, head, i);
  }
  /// The log of the softmax's denominator, kept by forward: weights are exp(score - it).
  MULTISTAGE_HD T log_sum_exp(index_t i) const {
    return p.log_sum_exp_of(row, head)[i];
  }
  /// The score of key j for query i.
  MULTISTAGE_HD T score(index_t i, index_t j) const {
    return p.scale * dot(q(i), k(j));
  }
  /// The weight of key j for query i, made again from what forward kept.
  MULTISTAGE_HD T weight(index_t i, index_t j) const {
    return T(::exp(double(score(i, j) - log_sum_exp(i))));
  }
  /// The scalar product of two vectors of a head.
  MULTISTAGE_HD T dot(const T* a, const T* b) const {
    T s = 0;
    for (index_t d = 0; d < p.head_dim; ++d)
      s += a[d] * b[d];
    return s;
  }
};

/// One query. It goes through the keys once with the largest score so far, `most`, and sums of
/// exp(score - most): where a larger score comes, what was summed is scaled down to it. So no
/// exponential overflows and no score is kept.
template <class T>
struct attend {
  attention_problem<T> p;
  MULTISTAGE_HD void operator()(index_t index) const {
    const index_t i = index % p.queries;
    const index_t head = index / p.queries % p.heads;
    const index_t row = index / (p.queries * p.heads);
    const attention_reader<T> r{p, row, head};
    T* y = p.y + r.at(i);
    T most = 0;
    T sum = 0;
    for (index_t j = 0; j < p.keys; ++j) {
      const T s = r.score(i, j);
      const T* v = r.v(j);
      // A new largest score, whose own weight is 1.
      if (j == 0 || s > most) {
        const T shrink = j == 0 ? T(0) : T(::exp(double(most - s)));
        sum = sum * shrink + T(1);
        for (index_t d = 0; d < p.head_dim; ++d)
          y[d] = (j == 0 ? T(0) : y[d] * shrink) + v[d];
        most = s;
      } else {
        const T w = T(::exp(double(s - most)));
        sum += w;
        for (index_t d = 0; d < p.head_dim; ++d)
          y[d] += w * v[d];
      }
    }
    for (index_t d = 0; d < p.head_dim; ++d)
      y[d] /= sum;
    if (p.log_sum_exp)
      p.log_sum_exp_of(row, head)[i] = most + T(::log(double(sum)));
  }
};

/// dq of one query: the sum over keys of scale w (dy.v - dy.y) k, with w the weight of the key
/// and dy.y the sum of w dy.v over all keys, by which the softmax's derivative takes off what
/// all weights share.
template <class T>
struct attention_query_gradient {
  attention_problem<T> p;
  attention_gradients<T> g;
  MULTISTAGE_HD void operator()(index_t index) const {
    const index_t i = index % p.queries;
    const index_t head = index / p.queries % p.heads;
    const index_t row = index / (p.queries * p.heads);
    const attention_reader<T> r{p, row, head};
    const T* dy = g.dy + r.at(i);
    const T dot = r.dot(dy, p.y + r.at(i));
    T* dq = g.dq + p.q_at(row, head, i);
    for (index_t d = 0; d < p.head_dim; ++d)
      dq[d] = T(0);
    for (index_t j = 0; j < p.keys; ++j) {
      const T* k = r.k(j);
      const T w = r.weight(i, j);
      const T ds = p.scale * w * (r.dot(dy, r.v(j)) - dot);
      for (index_t d = 0; d < p.head_dim; ++d)
        dq[d] += ds * k[d];
    }
  }
};

/// dk and dv of one key: sums over the queries, in their order, so that no two indices write
/// the same place.
template <class T>
struct attention_key_gradient {
  attention_problem<T> p;
  attention_gradients<T> g;
  MULTISTAGE_HD void operator()(index_t index) const {
    const index_t j = index % p.keys;
    const index_t head = index / p.keys % p.heads;
    const index_t row = index / (p.keys * p.heads);
    const attention_reader<T> r{p, row, head};
    T* dk = g.dk + p.k_at(row, head, j);
    T* dv = g.dv + p.v_at(row, head, j);
    for (index_t d = 0; d < p.head_dim; ++d) {
      dk[d] = T(0);
      dv[d] = T(0);
    }
    for (index_t i = 0; i < p.queries; ++i) {
      const T* q = r.q(i);
      const T* dy = g.dy + r.at(i);
      const T* y = p.y + r.at(i);
      const T w = r.weight(i, j);
      const T ds = p.scale * w * (r.dot(dy, r.v(j)) - r.dot(dy, y));
      for (index_t d = 0; d < p.head_dim; ++d) {
        dv[d] += w * dy[d];
        dk[d] += ds * q[d];
      }
    }
  }
};

}  // namespace thrust_kernel

/// @see attention_problem. An index is a query, which goes through the keys with a running
/// maximum and sum, so that no scores are kept.
template <class System, class T>
void attention_forward(const thrust_backend<System>& b, const attention_problem<T>& p) {
  b.for_each_index(p.rows * p.heads * p.queries, thrust_kernel::attend<T>{p});
}

/// @see attention_gradients.
template <class System, class T>
void attention_backward(const thrust_backend<System>& b,
                        const attention_problem<T>& p,
                        const attention_gradients<T>& g) {
  b.for_each_index(p.rows * p.heads * p.queries,
                   thrust_kernel::attention_query_gradient<T>{p, g});
  b.for_each_index(p.rows * p.heads * p.keys, thrust_kernel::attention_key_gradient<T>{p, g});
}

}  // namespace multistage
