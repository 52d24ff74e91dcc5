// Two-dimensional convolution (cross-correlation, as in the field) with bias, and its fused
// surroundings:
//   y[n, i, j, o] = scale (sum_{u, v, c} x[n, s i + u - p, s j + v - p, c] w[u, v, c, o] +
//   bias[o] + row_bias[n, o] + residual[n, i, j, o])
// Zeros lie outside the image. A linear layer is the 1x1 case on 1x1 images.
//
// Its gradients, with the same meaning of s and p:
//
//   dx[n, i', j', c] = sum over (u, v, o) of dy[n, i, j, o] w[u, v, c, o],  i' = s i + u - p
//   dw[u, v, c, o]   = sum over (n, i, j) of x[n, s i + u - p, s j + v - p, c] dy[n, i, j, o]
//
// bias and row_bias get sums of dy over pixels, residual dy itself, all times the scale.
#pragma once
#include "operation.hpp"

namespace multistage {

/// Elements of the form in which a backend would rather have a convolution's weights, kept
/// between calls; 0: as they are. A backend that prepares weights overloads this and
/// conv_prepare(b, p, to).
template <class Backend, class T>
constexpr index_t conv_prepared_size(const Backend&, const conv_problem<T>&) {
  return 0;
}
/// Fills what conv_prepared_size counts; nothing where that is 0.
template <class Backend, class T>
void conv_prepare(const Backend&, const conv_problem<T>&, T*) {}

}  // namespace multistage

namespace multistage::ops {

/// Kernel, stride and zero padding in pixels. `padding_end`, behind the last row and column,
/// follows `padding` when negative. Along the width all is as along the height unless said.
struct conv_window {
  int kernel = 3;          ///< rows of the filter
  int stride = 1;          ///< pixels from one output to the next
  int padding = 1;         ///< zeros before the first row and column
  int padding_end = -1;    ///< zeros behind the last row and column; below 0: as padding
  int kernel_width = 0;    ///< 0: as kernel
  int stride_width = 0;    ///< 0: as stride
  int padding_width = -1;  ///< below 0: as padding

  /// Of each number: far beyond any use, and keeps arithmetic on sizes safe.
  static constexpr int most = 4096;

  /// The same with every number said.
  constexpr conv_window resolved() const {
    conv_window w = *this;
    w.kernel_width = kernel_width == 0 ? kernel : kernel_width;
    w.stride_width = stride_width == 0 ? stride : stride_width;
    w.padding_width = padding_width < 0 ? padding : padding_width;
    return w;
  }
  /// Height of the result, 0 where the kernel does not fit.
  constexpr index_t out(index_t height) const {
    return places(height, kernel, stride, padding);
  }
  /// Width of the result.
  constexpr index_t out_width(index_t width) const {
    const conv_window w = resolved();
    return places(width, w.kernel_width, w.stride_width, w.padding_width);
  }
  /// How many pixels the kernel covers.
  constexpr index_t taps() const {
    return index_t{kernel} * resolved().kernel_width;
  }
  /// Whether each result is of one pixel, at its place.
  constexpr bool pointwise() const {
    const conv_window w = resolved();
    const bool each = stride == 1 && w.stride_width == 1;
    const bool unpadded = padding == 0 && w.padding_width == 0 && padding_end <= 0;
    return w.taps() == 1 && each && unpadded;
  }
  /// Whether the numbers are in range.
  constexpr bool sound() const {
    const conv_window w = resolved();
    for (const int size : {w.kernel, w.kernel_width, w.stride, w.stride_width})
      if (size < 1 || size > most)
        return false;
    for (const int zeros : {w.padding, w.padding_width, padding_end})
      if (zeros > most)
        return false;
    return w.padding >= 0;
  }

 private:
  /// How many places a window has along an axis.
  constexpr index_t places(index_t extent, int size, int step, int before) const {
    const index_t behind = padding_end < 0 ? before : padding_end;
    const index_t free = extent + before + behind - size;
    return free < 0 || step < 1 ? 0 : free / step + 1;
  }
};

/// @see the file's head. Operands: x [rows, h, w, c]; x2 [rows, h, w, c2], more input channels
/// behind x's (pointwise windows only, so that a concatenation needs no buffer); row_bias
/// [rows, 1, 1, out]; residual like y. Parameters: weight [kernel, kernel_width, c + c2, out]
/// and, if given, bias [1, 1, 1, out].
struct convolution {
  int out_channels = 0;  ///< channels of the result
  conv_window window{};  ///< how it moves
  double scale = 1;      ///< of the whole sum, bias and residual included

  static constexpr operation needs = operation::conv;  ///< a backend must support it
  static constexpr const char* name = "conv";          ///< for messages and profiles
  static constexpr operand_names operands{"x", "x2", "row_bias", "residual"};  ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    const feature& x = in[0];
    const int channels2 = in[1].there() ? in[1].channels : 0;
    if (!window.sound())
      return refused(graph_problem::attributes,
                     "kernel and stride are at least 1, padding at least 0, all at most 4096");
    if (channels2 > 0 && !window.pointwise())
      return refused(graph_problem::extents,
                     "two inputs need a 1x1 kernel of stride 1 without padding; copy them into "
                     "one tensor");
    description d;
    d.out = {out_channels, int(window.out(x.height)), int(window.out_width(x.width))};
    if (d.out.size() < 1)
      d.wrong = {graph_problem::empty, "the kernel does not fit"};
    d.in = {x.extents(), {channels2, x.height, x.width}, {out_channels, 1, 1}, d.out};
    d.weight = {window.kernel, window.resolved().kernel_width, x.channels + channels2,
                out_channels};
    d.bias = {1, 1, 1, out_channels};
    d.macs = d.out.pixels() * d.weight.size();
    d.scratch = out_channels;  // sums over pixels, for the bias
    d.by_row = 0b0100;
    d.backward_reads = 0b0011;
    d.in_place = 3;
    d.gradient_in_place = 3;
    d.kept = in[3].there() ? keeping::always : keeping::unless_checkpoints;
    return d;
  }

  /// The backend's problem. Without a residual, a bias and the like their pointers are null.
  template <class T>
  conv_problem<T> problem(const forward_pass<T>& p, const shape& y) const {
    const shape& x = p.in[0].extents;
    const conv_window w = window.resolved();
    return {.rows = x.rows,
            .height = x.height,
            .width = x.width,
            .channels = x.channels,
            .channels2 = p.in[1] ? p.in[1].extents.channels : 0,
            .out_height = y.height,
            .out_width = y.width,
            .out_channels = y.channels,
            .kernel = w.kernel,
            .stride = w.stride,
            .padding = w.padding,
            .kernel_width = w.kernel_width,
            .stride_width = w.stride_width,
            .padding_width = w.padding_width,
            .x = p.in[0].data,
            .x2 = p.in[1].data,
            .weight = p.weight.data,
            .bias = p.bias.data,
            .row_bias = p.in[2].data,
            .residual = p.in[3].data,
            .scale = T(scale),
            .y = p.y.data,
            .prepared = p.prepared};
  }

  /// Elements of the form in which the backend would rather have the weights; 0: as they are.
  template <class Backend, class T>
  index_t prepared_size(Backend& b, const forward_pass<T>& p) const {
    return conv_prepared_size(b, problem(p, p.y.extents));
  }
  /// Fills that form. @param to prepared_size(b, p) elements
  template <class Backend, class T>
  void prepare(Backend& b, const forward_pass<T>& p, T* to) const {
    conv_prepare(b, problem(p, p.y.extents), to);
  }

  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    conv_forward(b, problem(p, p.y.extents));
  }

  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    backward_operands(b, p);
    backward_parameters(b, p);
  }
  /// Those of the operands, which take as long for all rows at once as for some.
  template <class Backend, class T>
  void backward_operands(Backend& b, const backward_pass<T>& p) const {
    const conv_problem<T> q = problem<T>(p, p.dy.extents);
    const index_t size = p.dy.extents.size();
    T* const dy = p.dy.data;
    if (scale != 1)
      add_to(b, dy, dy, T(scale), false, size);
    T* const dx = p.dx[0].data;
    T* const dx2 = p.dx[1].data;
    if (dx || dx2)
      conv_backward_input(b, q, dy, dx, p.accumulate[0], dx2, p.accumulate[1]);
    T* const drow = p.dx[2].data;
    const index_t sums = q.rows * q.out_channels;
    if (drow || (p.dbias && q.out_pixels() > 1))
      row_sums(b, q.rows, q.out_pixels(), q.out_channels, static_cast<const T*>(dy),
               pixel_sums(p), pixel_sums(p) == drow && p.accumulate[2]);
    if (drow && pixel_sums(p) != drow)
      add_to(b, drow, pixel_sums(p), T(1), true, sums);
    add_to(b, p.dx[3].data, dy, T(1), p.accumulate[3], size);
  }
  /// Those of the parameters, when the operands' are there; also of some rows at a time.
  template <class Backend, class T>
  void backward_parameters(Backend& b, const backward_pass<T>& p) const {
    if (p.dweight)
      p.pieces.each(p.rows(), [&](index_t first, index_t rows) {
        const backward_pass<T> piece = rows_of(p, {}, first, rows);
        const conv_problem<T> of_piece = problem<T>(piece, piece.dy.extents);
        conv_backward_weight(b, of_piece, piece.dy.data, p.dweight);
      });
    if (!p.dbias)
      return;
    const bool of_sums = p.dx[2] || p.dy.extents.pixels() > 1;
    bias_gradient(b, p, p.dy.extents.channels,
                  static_cast<const T*>(of_sums ? pixel_sums(p) : p.dy.data));
  }

 private:
  /// Where the sums over pixels of dy are, [rows, out], which the gradients of the row bias and
  /// of the bias are made of: in the former's place where that is not added to.
  template <class T>
  static T* pixel_sums(const backward_pass<T>& p) {
    T* const drow = p.dx[2].data;
    return drow && (!p.dbias || !p.accumulate[2]) ? drow : p.scratch;
  }
  /// @param sums over pixels of dy, [rows, out]
  template <class Backend, class T>
  static void bias_gradient(Backend& b,
                            const backward_pass<T>& p,
                            index_t channels,
                            const T* sums) {
    p.pieces.each(p.rows(), [&](index_t first, index_t rows) {
      column_sums(b, rows, channels, sums + first * channels, p.dbias, true);
    });
  }
};

/// Optional operands of a convolution; empty views are absent.
template <class T>
struct conv_extras {
  view<const T> x2{};        ///< [rows, height, width, channels2]: more input channels
  view<const T> bias{};      ///< [1, 1, 1, out]
  view<const T> row_bias{};  ///< [rows, 1, 1, out]
  view<const T> residual{};  ///< like y
  T scale = T(1);            ///< of the whole sum
};

/// y = conv(x) for weights [kernel, kernel_width, in, out]. @see the file's head. @throws
/// shape_error naming the operand that does not fit
template <class Backend, class T>
void conv(Backend& b,
          input<T> x,
          input<T> weight,
          view<T> y,
          conv_window window = {},
          const conv_extras<T>& extras = {}) {
  const convolution asked{int(y.extents.channels), window, double(extras.scale)};
  const forward_pass<T> pass{
      .in = {x, extras.x2, extras.row_bias, extras.residual},
      .weight = weight,
      .bias = extras.bias,
      .y = y,
  };
  run(b, asked, pass);
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
  const char* const where = "conv_backward";
  const index_t out = weight.extents.channels;
  expect_optional(where, "dweight", dweight, weight.extents);
  expect_optional(where, "dbias", dbias, shape{1, 1, 1, out});
  basic_tensor<T, shape, std::remove_const_t<Backend>> sums;
  if (dbias)
    sums = {b, {x.extents.rows, 1, 1, out}};
  backward_pass<T> pass{forward_pass<T>{.in = {x}, .weight = weight}};
  pass.dy = {const_cast<T*>(dy.data), dy.extents, dy.strides};  ///< not written: scale is 1
  pass.dx[0] = dx;
  pass.accumulate[0] = accumulate;
  pass.dweight = dweight.data;
  pass.dbias = dbias.data;
  pass.scratch = sums.data();
  run_backward(b, convolution{int(out), window}, pass);
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
