// Two-dimensional convolution (cross-correlation, as in the field) with bias, and its fused
// surroundings:
//   y[n, i, j, o] = scale (sum_{u, v, c} x[n, s i + u - p, s j + v - p, c] w[u, v, c, o] +
//   bias[o] + row_bias[n, o] + residual[n, i, j, o])
// Zeros lie outside the image. A linear layer is the 1x1 case on 1x1 images.
#pragma once
#include "shape_rules.hpp"

namespace multistage {

/// Elements of the form in which a backend would rather have a convolution's weights, kept
/// between calls; 0: as they are. A backend that prepares weights overloads this and
/// conv_prepare(b, p, to).
template <class Backend, class T>
constexpr index_t conv_prepared_size(const Backend&, const conv_problem<T>&) {
  return 0;
}
template <class Backend, class T>
void conv_prepare(const Backend&, const conv_problem<T>&, T*) {}

}  // namespace multistage

namespace multistage::ops {

/// Kernel size, stride and zero padding in pixels. `padding_end`, behind the last row and
/// column, follows `padding` when negative.
struct conv_window {
  int kernel = 3;
  int stride = 1;
  int padding = 1;
  int padding_end = -1;

  /// Extent of the result, 0 where the kernel does not fit.
  constexpr index_t out(index_t extent) const {
    const index_t places =
        extent + padding + (padding_end < 0 ? padding : padding_end) - kernel;
    return places < 0 || stride < 1 ? 0 : places / stride + 1;
  }
};

/// Multiply-accumulates of one image.
constexpr index_t conv_macs(index_t out_height,
                            index_t out_width,
                            int kernel,
                            index_t in_channels,
                            index_t out_channels) {
  return out_height * out_width * kernel * kernel * in_channels * out_channels;
}

/// Optional operands of a convolution; empty views are absent.
template <class T>
struct conv_extras {
  view<const T> x2{};  ///< [rows, height, width, channels2]: more input channels, behind x's
                       ///< (1x1 kernels of stride 1)
  view<const T> bias{};      ///< [1, 1, 1, out]
  view<const T> row_bias{};  ///< [rows, 1, 1, out]
  view<const T> residual{};  ///< like y
  T scale = T(1);
};

/// The checked problem; weights are a view [kernel, kernel, in, out]. @throws shape_error
/// naming the operand that does not fit.
template <class T>
conv_problem<T> make_conv_problem(view<const T> x,
                                  view<const T> weight,
                                  shape y,
                                  conv_window window,
                                  const conv_extras<T>& extras) {
  const char* const where = "conv";
  const index_t out = y.channels;
  const index_t in2 = extras.x2 ? extras.x2.extents.channels : 0;
  require<value_error>(window.kernel >= 1 && window.stride >= 1 && window.padding >= 0, where,
                       ": kernel ", window.kernel, ", stride ", window.stride, ", padding ",
                       window.padding,
                       "; kernel and stride are at least 1, padding at least 0");
  expect(where, "x", x, x.extents);
  const shape expected{x.extents.rows, window.out(x.extents.height),
                       window.out(x.extents.width), out};
  require<shape_error>(expected.height > 0 && expected.width > 0, where, ": a ", window.kernel,
                       "x", window.kernel, " kernel does not fit into ", x.extents);
  require<shape_error>(y == expected, where, ": y has extents ", y, ", expected ", expected);
  expect(where, "weight", weight,
         shape{window.kernel, window.kernel, x.extents.channels + in2, out});
  if (extras.x2) {
    expect(where, "x2", extras.x2,
           shape{x.extents.rows, x.extents.height, x.extents.width, in2});
    require<shape_error>(window.kernel == 1 && window.stride == 1 && window.padding == 0, where,
                         ": two inputs need a 1x1 kernel of stride 1 without padding; copy "
                         "them into one tensor");
  }
  expect_optional(where, "bias", extras.bias, shape{1, 1, 1, out});
  expect_optional(where, "row_bias", extras.row_bias, shape{x.extents.rows, 1, 1, out});
  expect_optional(where, "residual", extras.residual, y);
  return {.rows = x.extents.rows,
          .height = x.extents.height,
          .width = x.extents.width,
          .channels = x.extents.channels,
          .channels2 = in2,
          .out_height = y.height,
          .out_width = y.width,
          .out_channels = out,
          .kernel = window.kernel,
          .stride = window.stride,
          .padding = window.padding,
          .x = x.data,
          .x2 = extras.x2.data,
          .weight = weight.data,
          .bias = extras.bias.data,
          .row_bias = extras.row_bias.data,
          .residual = extras.residual.data,
          .scale = extras.scale};
}

/// y = conv(x). @see the file's head.
template <class Backend, class T>
void conv(Backend& b,
          input<T> x,
          input<T> weight,
          view<T> y,
          conv_window window = {},
          const conv_extras<T>& extras = {}) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, conv, T);
  conv_problem<T> p = make_conv_problem(x, weight, y.extents, window, extras);
  expect("conv", "y", y, y.extents);
  p.y = y.data;
  conv_forward(b, p);
}

/// Gradients of y = conv(x) without extras, from dy like y: dx (+)= the transposed convolution;
/// dweight and dbias are added to. Empty views are not wanted.
template <class Backend, class T>
void conv_backward(Backend& b,
                   input<T> x,
                   input<T> weight,
                   input<T> dy,
                   view<T> dx,
                   view<T> dweight,
                   view<T> dbias,
                   conv_window window = {},
                   bool accumulate = false) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, conv, T);
  const conv_problem<T> p = make_conv_problem(x, weight, dy.extents, window, conv_extras<T>{});
  expect_packed("conv_backward", "dy", dy);
  expect_optional("conv_backward", "dx", dx, x.extents);
  expect_optional("conv_backward", "dweight", dweight, weight.extents);
  expect_optional("conv_backward", "dbias", dbias, shape{1, 1, 1, dy.extents.channels});
  if (dx)
    conv_backward_input(b, p, dy.data, dx.data, accumulate, static_cast<T*>(nullptr), false);
  if (dweight)
    conv_backward_weight(b, p, dy.data, dweight.data);
  if (dbias)
    column_sums(b, p.rows * p.out_pixels(), p.out_channels, dy.data, dbias.data, true);
}

/// y = x W + bias for x [rows, 1, 1, in], W [1, 1, in, out].
template <class Backend, class T>
void linear(Backend& b, input<T> x, input<T> weight, view<T> y, input<T> bias = {}) {
  conv(b, x, weight, y, {.kernel = 1, .stride = 1, .padding = 0}, conv_extras<T>{.bias = bias});
}
/// Gradients of `linear`.
template <class Backend, class T>
void linear_backward(Backend& b,
                     input<T> x,
                     input<T> weight,
                     input<T> dy,
                     view<T> dx,
                     view<T> dweight,
                     view<T> dbias = {}) {
  conv_backward(b, x, weight, dy, dx, dweight, dbias, {.kernel = 1, .stride = 1, .padding = 0});
}

}  // namespace multistage::ops
