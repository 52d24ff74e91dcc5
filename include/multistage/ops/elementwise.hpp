// Elementwise operations: one functor each, run by every backend's loop over indices. y may be
// x's own memory.
//   silu(x) = x / (1 + e^-x)  (Elfwing et al. 2017; Ramachandran et al. 2017),  gelu(x) = x
//   Phi(x)  (Hendrycks and Gimpel 2016, exact)
#pragma once
#include <initializer_list>
#include <span>

#include "../backend/functions.hpp"
#include "shape_rules.hpp"

namespace multistage {

namespace ops {
namespace functor {
template <class F, class T>
struct map {
  const T* x;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    y[i] = F::value(x[i]);
  }
};
template <class F, class T>
struct map_backward {
  const T* x;
  const T* dy;
  T* dx;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const T g = F::derivative(x[i]) * dy[i];
    dx[i] = accumulate ? dx[i] + g : g;
  }
};
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
template <class T>
struct set {
  T value;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    y[i] = value;
  }
};
}  // namespace functor

/// y = F(x), any extents. F has static value(x) and derivative(x).
template <class F, class Backend, class T>
void map(Backend& b, input<T> x, view<T> y) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  expect("map", "x", x, x.extents);
  expect("map", "y", y, x.extents);
  b.for_each_index(x.extents.size(), functor::map<F, T>{x.data, y.data});
}
/// dx (+)= F'(x) dy.
template <class F, class Backend, class T>
void map_backward(Backend& b, input<T> x, input<T> dy, view<T> dx, bool accumulate = false) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  expect_packed("map_backward", "x", x);
  expect("map_backward", "dy", dy, x.extents);
  expect("map_backward", "dx", dx, x.extents);
  b.for_each_index(x.extents.size(),
                   functor::map_backward<F, T>{x.data, dy.data, dx.data, accumulate});
}

template <class Backend, class T>
void silu(Backend& b, input<T> x, view<T> y) {
  map<silu_function>(b, x, y);
}
template <class Backend, class T>
void silu_backward(Backend& b, input<T> x, input<T> dy, view<T> dx, bool accumulate = false) {
  map_backward<silu_function>(b, x, dy, dx, accumulate);
}
template <class Backend, class T>
void gelu(Backend& b, input<T> x, view<T> y) {
  map<gelu_function>(b, x, y);
}
template <class Backend, class T>
void gelu_backward(Backend& b, input<T> x, input<T> dy, view<T> dx, bool accumulate = false) {
  map_backward<gelu_function>(b, x, dy, dx, accumulate);
}

/// One term of a linear combination.
template <class T>
struct term {
  T coefficient;
  const T* x;
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
/// y = value everywhere.
template <class Backend, class T>
void fill(Backend& b, view<T> y, scalar<T> value) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  expect_packed("fill", "y", y);
  b.for_each_index(y.extents.size(), functor::set<T>{value, y.data});
}

}  // namespace ops
}  // namespace multistage
