// Group normalisation (Wu and He, arXiv 1803.08494) with optional modulation by row (FiLM,
// arXiv 1709.07871) and SiLU:
//   xhat = (x - mean_g) / sqrt(var_g + eps),  y = silu((xhat w + b) (1 + scale_n) + shift_n)
// over the pixels and channels of each group of each row. Layer normalisation is one group on
// one pixel.
#pragma once
#include "shape_rules.hpp"

namespace multistage::ops {

/// Optional operands of group_norm; empty views are absent.
template <class T>
struct norm_options {
  index_t groups = 1;
  T epsilon = T(1e-5);
  bool silu = false;
  view<const T> x2{};          ///< more channels, behind x's; groups may lie across
  view<const T> modulation{};  ///< [rows, 1, 1, 2 channels], scales first
};

/// The checked problem. @throws shape_error naming the operand that does not fit, value_error
/// when groups do not divide the channels.
template <class T>
norm_problem<T> make_norm_problem(view<const T> x,
                                  view<const T> weight,
                                  view<const T> bias,
                                  view<T> statistics,
                                  const norm_options<T>& o) {
  const char* const where = "group_norm";
  const index_t c2 = o.x2 ? o.x2.extents.channels : 0;
  const index_t c = x.extents.channels + c2;
  require<value_error>(o.groups >= 1 && c % o.groups == 0, where, ": ", o.groups,
                       " groups do not divide ", c, " channels");
  require<value_error>(o.epsilon > T(0), where, ": epsilon = ", o.epsilon, " must be above 0");
  expect_packed(where, "x", x);
  expect_optional(where, "x2", o.x2,
                  shape{x.extents.rows, x.extents.height, x.extents.width, c2});
  expect(where, "weight", weight, shape{1, 1, 1, c});
  expect(where, "bias", bias, shape{1, 1, 1, c});
  expect(where, "statistics", statistics, shape{x.extents.rows, 1, o.groups, 2});
  expect_optional(where, "modulation", o.modulation, shape{x.extents.rows, 1, 1, 2 * c});
  return {.rows = x.extents.rows,
          .pixels = x.extents.pixels(),
          .channels = x.extents.channels,
          .channels2 = c2,
          .groups = o.groups,
          .epsilon = o.epsilon,
          .silu = o.silu,
          .x = x.data,
          .x2 = o.x2.data,
          .weight = weight.data,
          .bias = bias.data,
          .modulation = o.modulation.data,
          .statistics = statistics.data};
}

/// y = group_norm(x) for x [rows, h, w, c], weight and bias [1, 1, 1, c]; writes statistics
/// [rows, 1, groups, 2] for backward.
template <class Backend, class T>
void group_norm(Backend& b,
                input<T> x,
                input<T> weight,
                input<T> bias,
                view<T> statistics,
                view<T> y,
                const norm_options<T>& options) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, norm, T);
  norm_problem<T> p = make_norm_problem(x, weight, bias, statistics, options);
  expect("group_norm", "y", y,
         shape{x.extents.rows, x.extents.height, x.extents.width, p.all_channels()});
  p.y = y.data;
  norm_statistics(b, p);
  norm_apply(b, p);
}

/// Gradients of group_norm; `g` holds the pointers, of the extents that backend/primitives.hpp
/// states.
template <class Backend, class T>
void group_norm_backward(Backend& b,
                         input<T> x,
                         input<T> weight,
                         input<T> bias,
                         view<T> statistics,
                         const norm_options<T>& options,
                         const norm_gradients<T>& g) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, norm, T);
  const norm_problem<T> p = make_norm_problem(x, weight, bias, statistics, options);
  require<value_error>(
      g.dy && g.partials,
      "group_norm_backward: dy and the scratch partials [rows, 2 channels] must be given");
  norm_backward(b, p, g);
}

/// y = layer_norm(x) over the channels of each pixel, for x [rows, h, w, c]; statistics [rows h
/// w, 1, 1, 2] (Ba et al. 2016).
template <class Backend, class T>
void layer_norm(Backend& b,
                input<T> x,
                input<T> weight,
                input<T> bias,
                view<T> statistics,
                view<T> y,
                scalar<T> epsilon = T(1e-5)) {
  const shape tokens{x.extents.rows * x.extents.pixels(), 1, 1, x.extents.channels};
  expect("layer_norm", "x", x, x.extents);
  expect("layer_norm", "y", y, x.extents);
  group_norm(b, view<const T>(x.data, tokens), weight, bias, statistics,
             view<T>(y.data, tokens), norm_options<T>{.epsilon = epsilon});
}
/// Gradients of layer_norm, as those of group_norm with one group; partials [rows h w, 2
/// channels].
template <class Backend, class T>
void layer_norm_backward(Backend& b,
                         input<T> x,
                         input<T> weight,
                         input<T> bias,
                         view<T> statistics,
                         const norm_gradients<T>& g,
                         scalar<T> epsilon = T(1e-5)) {
  const shape tokens{x.extents.rows * x.extents.pixels(), 1, 1, x.extents.channels};
  expect_packed("layer_norm_backward", "x", x);
  group_norm_backward(b, view<const T>(x.data, tokens), weight, bias, statistics,
                      norm_options<T>{.epsilon = epsilon}, g);
}

}  // namespace multistage::ops
