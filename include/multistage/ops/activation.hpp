// Functions applied to each element:
//   silu(x) = x / (1 + e^-x)   (Elfwing et al. 2017; Ramachandran et al. 2017)
//   gelu(x) = x Phi(x)         (Hendrycks and Gimpel 2016, exact)
//   relu(x) = max(x, 0)        (Nair and Hinton 2010)
// y may be x's own memory.
//
// The derivatives need x alone, not y: silu'(x) = s (1 + x (1 - s)) with s = sigmoid(x),
// gelu'(x) = Phi(x) + x phi(x). So networks drop y after the forward pass where x is kept, and
// make it again.
#pragma once
#include "../backend/functions.hpp"
#include "operation.hpp"

namespace multistage::ops {

namespace functor {
/// y = f(x), element by element.
template <class F, class T>
struct map {
  const T* x;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    y[i] = F::value(x[i]);
  }
};
/// dx (+)= dy f'(x)
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
}  // namespace functor

/// y = F(x). @tparam F has name, value(x) and derivative(x), all static
/// (backend/functions.hpp).
template <class F>
struct activation {
  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = F::name;                ///< for messages and profiles
  static constexpr operand_names operands{"x"};               ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    description d = elementwise(in[0]);
    d.backward_reads = 0b0001;
    d.kept = keeping::never;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    b.for_each_index(p.y.extents.size(), functor::map<F, T>{p.in[0].data, p.y.data});
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    T* const dx = p.dx[0].data;
    const functor::map_backward<F, T> gradient{p.in[0].data, p.dy.data, dx, p.accumulate[0]};
    b.for_each_index(p.dy.extents.size(), gradient);
  }
};

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
  const functor::map_backward<F, T> gradient{x.data, dy.data, dx.data, accumulate};
  b.for_each_index(x.extents.size(), gradient);
}

/// y = x sigmoid(x).
template <class Backend, class T>
void silu(Backend& b, input<T> x, view<T> y) {
  map<silu_function>(b, x, y);
}
/// dx (+)= dy times the derivative of silu at x.
template <class Backend, class T>
void silu_backward(Backend& b, input<T> x, input<T> dy, view<T> dx, bool accumulate = false) {
  map_backward<silu_function>(b, x, dy, dx, accumulate);
}
/// y = x P(X <= x) of a standard normal X.
template <class Backend, class T>
void gelu(Backend& b, input<T> x, view<T> y) {
  map<gelu_function>(b, x, y);
}
/// dx (+)= dy times the derivative of gelu at x.
template <class Backend, class T>
void gelu_backward(Backend& b, input<T> x, input<T> dy, view<T> dx, bool accumulate = false) {
  map_backward<gelu_function>(b, x, dy, dx, accumulate);
}

/// y = max(x, 0).
template <class Backend, class T>
void relu(Backend& b, input<T> x, view<T> y) {
  map<relu_function>(b, x, y);
}
/// dx (+)= dy where x is above 0.
template <class Backend, class T>
void relu_backward(Backend& b, input<T> x, input<T> dy, view<T> dx, bool accumulate = false) {
  map_backward<relu_function>(b, x, dy, dx, accumulate);
}

}  // namespace multistage::ops
