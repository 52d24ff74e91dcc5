// Linear combinations and constants, element by element: what samplers and gradients are made
// of. y may be x's own memory.
//
// A sampler's step x' = a x + b d1 + c d2 is one combination, so one pass over memory, with up
// to six terms. Coefficients are numbers of the host.
//
//   ops::linear_combination<Backend, double>(b, n, y, {{1, x}, {h, d1}, {-h, d2}});
//   ops::fill<Backend, float>(b, y_view, 0);
#pragma once
#include <initializer_list>
#include <span>

#include "shape_rules.hpp"

namespace multistage {

namespace ops {
namespace functor {
/// y = sum_k coefficient[k] x[k], in the order of k.
template <class T>
struct linear_combination {
  static constexpr int most = 6;
  T coefficient[most];
  const T* x[most];
  int terms;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    T sum = coefficient[0] * x[0][i];
    for (int k = 1; k < terms; ++k)
      sum += coefficient[k] * x[k][i];
    y[i] = sum;
  }
};
/// y = value
template <class T>
struct set {
  T value;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    y[i] = value;
  }
};
}  // namespace functor

/// One term of a linear combination.
template <class T>
struct term {
  T coefficient;  ///< by which x is multiplied
  const T* x;     ///< n elements
};
/// y[i] = sum of coefficient x[i] over one to six terms, for i < n; y may be one of the x.
/// Samplers and graphs are made of it.
template <class Backend, class T>
void linear_combination(Backend& b, index_t n, T* y, std::span<const term<T>> terms) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  functor::linear_combination<T> f{};
  require<value_error>(terms.size() >= 1 && terms.size() <= f.most,
                       "linear_combination: ", terms.size(), " terms; give 1 to ", f.most);
  for (const auto& t : terms) {
    f.coefficient[f.terms] = t.coefficient;
    f.x[f.terms++] = t.x;
  }
  f.y = y;
  b.for_each_index(n, f);
}
/// The same for terms that are written out.
template <class Backend, class T>
void linear_combination(Backend& b, index_t n, T* y, std::initializer_list<term<T>> terms) {
  linear_combination<Backend, T>(b, n, y,
                                 std::span<const term<T>>(terms.begin(), terms.size()));
}
/// to (+)= factor from, over n elements; nothing where `to` is null or already is that.
template <class Backend, class T>
void add_to(Backend& b, T* to, const T* from, scalar<T> factor, bool accumulate, index_t n) {
  if (!to || (to == from && !accumulate && factor == T(1)))
    return;
  if (accumulate)
    linear_combination<Backend, T>(b, n, to, {{T(1), to}, {factor, from}});
  else
    linear_combination<Backend, T>(b, n, to, {{factor, from}});
}
/// y = value everywhere.
template <class Backend, class T>
void fill(Backend& b, view<T> y, scalar<T> value) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  expect_packed("fill", "y", y);
  b.for_each_index(y.extents.size(), functor::set<T>{value, y.data});
}

}  // namespace ops
}  // namespace multistage
