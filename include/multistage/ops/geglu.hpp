// Gated linear unit with GELU (Shazeer, arXiv 2002.05202): for x = [a, g] along the channels, y
// = a gelu(g). The transformer blocks of latent diffusion use it.
#pragma once
#include "../backend/functions.hpp"
#include "shape_rules.hpp"

namespace multistage::ops {

namespace functor {
/// By output element; x [pixels, 2 c], y [pixels, c].
template <class T>
struct geglu {
  const T* x;
  index_t channels;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    const T* row = x + i / channels * 2 * channels + i % channels;
    y[i] = row[0] * gelu_function::value(row[channels]);
  }
};
template <class T>
struct geglu_backward {
  const T* x;
  const T* dy;
  index_t channels;
  T* dx;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t at = i / channels * 2 * channels + i % channels;
    const T a = x[at];
    const T g = x[at + channels];
    const T da = dy[i] * gelu_function::value(g);
    const T dg = dy[i] * a * gelu_function::derivative(g);
    dx[at] = accumulate ? dx[at] + da : da;
    dx[at + channels] = accumulate ? dx[at + channels] + dg : dg;
  }
};
}  // namespace functor

/// y [rows, h, w, c] from x [rows, h, w, 2 c]. @throws shape_error
template <class Backend, class T>
void geglu(Backend& b, input<T> x, view<T> y) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  const shape s = y.extents;
  expect("geglu", "x", x, shape{s.rows, s.height, s.width, 2 * s.channels});
  expect("geglu", "y", y, s);
  b.for_each_index(s.size(), functor::geglu<T>{x.data, s.channels, y.data});
}
/// dx (+)= the gradient of geglu, from dy like y.
template <class Backend, class T>
void geglu_backward(Backend& b, input<T> x, input<T> dy, view<T> dx, bool accumulate = false) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  const shape s = dy.extents;
  expect_packed("geglu_backward", "dy", dy);
  expect("geglu_backward", "x", x, shape{s.rows, s.height, s.width, 2 * s.channels});
  expect("geglu_backward", "dx", dx, x.extents);
  b.for_each_index(
      s.size(), functor::geglu_backward<T>{x.data, dy.data, s.channels, dx.data, accumulate});
}

}  // namespace multistage::ops
