// Pooling: of each window of pixels, channel by channel, the maximum or the mean. What lies
// outside the image is left out of a maximum, and of a mean unless it is counted as zeros
// (torch's count_include_pad).
//
// A maximum's gradient goes to the place that gave it, the first of equals; a mean's is shared
// out.
//
//   const ops::conv_window halves{.kernel = 2, .stride = 2, .padding = 0};
//   ops::pool(backend, x, y, ops::pool_kind::maximum, halves);
#pragma once
#include "conv.hpp"

namespace multistage::ops {

/// What a window becomes.
enum class pool_kind { maximum, mean, mean_with_border };

namespace functor {
/// The pixels of a window that lie inside: rows [top, bottom), columns [left, right).
struct pool_window {
  index_t top;
  index_t bottom;
  index_t left;
  index_t right;
  MULTISTAGE_HD pool_window(const conv_window& w,
                            const shape& in,
                            index_t row,
                            index_t column) {
    top = row * w.stride - w.padding;
    left = column * w.stride_width - w.padding_width;
    bottom = top + w.kernel < in.height ? top + w.kernel : in.height;
    right = left + w.kernel_width < in.width ? left + w.kernel_width : in.width;
    top = top > 0 ? top : 0;
    left = left > 0 ? left : 0;
  }
  /// By how much the sum over a window is divided.
  MULTISTAGE_HD double count(const conv_window& w, pool_kind kind) const {
    if (kind == pool_kind::mean_with_border)
      return double(w.kernel) * double(w.kernel_width);
    return double(bottom - top) * double(right - left);
  }
};

/// By output element.
template <class T>
struct pool {
  const T* x;
  shape in;
  shape out;
  conv_window window;
  pool_kind kind;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t c = i % out.channels;
    const index_t pixel = i / out.channels;
    const index_t row = pixel / (out.width * out.height);
    const index_t line = pixel / out.width % out.height;
    const index_t column = pixel % out.width;
    const pool_window w(window, in, line, column);
    const T* image = x + row * in.row_size() + c;
    const bool maximum = kind == pool_kind::maximum;
    T value = maximum ? image[(w.top * in.width + w.left) * in.channels] : T(0);
    for (index_t u = w.top; u < w.bottom; ++u)
      for (index_t v = w.left; v < w.right; ++v) {
        const T at = image[(u * in.width + v) * in.channels];
        if (!maximum)
          value += at;
        else if (at > value || at != at)
          value = at;
      }
    y[i] = maximum ? value : T(value / T(w.count(window, kind)));
  }
};

/// By input element: the sum over the windows that cover it, in the order of the windows. A
/// maximum's gradient goes to the first pixel that has it.
template <class T>
struct pool_backward {
  const T* x;
  const T* dy;
  shape in;
  shape out;
  conv_window window;
  pool_kind kind;
  T* dx;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t c = i % in.channels;
    const index_t pixel = i / in.channels;
    const index_t column = pixel % in.width;
    const index_t line = pixel / in.width % in.height;
    const index_t row = pixel / (in.width * in.height);
    const conv_window& a = window;
    const range lines = covering(line, a.padding, a.kernel, a.stride, out.height);
    const range columns =
        covering(column, a.padding_width, a.kernel_width, a.stride_width, out.width);
    T sum = T(0);
    for (index_t u = lines.begin; u < lines.end; ++u)
      for (index_t v = columns.begin; v < columns.end; ++v) {
        const pool_window w(window, in, u, v);
        const T g = dy[((row * out.height + u) * out.width + v) * out.channels + c];
        if (kind != pool_kind::maximum)
          sum += T(g / T(w.count(window, kind)));
        else if (winner(w, row, c) == line * in.width + column)
          sum += g;
      }
    dx[i] = accumulate ? dx[i] + sum : sum;
  }

 private:
  /// [begin, end)
  struct range {
    index_t begin;
    index_t end;
  };
  /// The windows, of `count` along an axis, that cover a place.
  MULTISTAGE_HD static range covering(index_t at,
                                      int padding,
                                      int kernel,
                                      int stride,
                                      index_t count) {
    const index_t low = at + padding - kernel + 1;
    const index_t begin = low <= 0 ? 0 : (low + stride - 1) / stride;
    const index_t end = (at + padding) / stride + 1;
    return {begin, end < count ? end : count};
  }
  /// NaN is above all others, as in the forward pass.
  MULTISTAGE_HD static bool above(T a, T b) {
    return a > b || (a != a && b == b);
  }
  /// The place of a window's maximum, the first of several.
  MULTISTAGE_HD index_t winner(const pool_window& w, index_t row, index_t c) const {
    const T* image = x + row * in.row_size() + c;
    index_t best = w.top * in.width + w.left;
    for (index_t u = w.top; u < w.bottom; ++u)
      for (index_t v = w.left; v < w.right; ++v) {
        const index_t place = u * in.width + v;
        if (above(image[place * in.channels], image[best * in.channels]))
          best = place;
      }
    return best;
  }
};
}  // namespace functor

/// @see the file's head. Operand x [rows, h, w, c], result [rows, window.out(h),
/// window.out_width(w), c].
struct pooling {
  pool_kind kind = pool_kind::maximum;                         ///< maximum or mean
  conv_window window{.kernel = 2, .stride = 2, .padding = 0};  ///< how it moves

  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "pool";                 ///< for messages and profiles
  static constexpr operand_names operands{"x"};               ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    const feature& x = in[0];
    // Else a window could lie in the border alone.
    const conv_window w = window.resolved();
    const bool less = w.padding < w.kernel && w.padding_width < w.kernel_width;
    const bool less_behind = w.padding_end < w.kernel && w.padding_end < w.kernel_width;
    if (!w.sound() || !less || !less_behind)
      return refused(
          graph_problem::attributes,
          "kernel and stride are 1 to 4096, padding is at least 0 and less than the kernel");
    description d;
    d.in[0] = x.extents();
    d.out = {x.channels, int(window.out(x.height)), int(window.out_width(x.width))};
    if (d.out.size() < 1)
      d.wrong = {graph_problem::empty, "the window does not fit"};
    if (kind == pool_kind::maximum)
      d.backward_reads = 0b0001;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    const functor::pool<T> pooled{
        .x = p.in[0].data,
        .in = p.in[0].extents,
        .out = p.y.extents,
        .window = window.resolved(),
        .kind = kind,
        .y = p.y.data,
    };
    b.for_each_index(p.y.extents.size(), pooled);
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    if (!p.dx[0])
      return;
    const functor::pool_backward<T> gradient{
        .x = p.in[0].data,
        .dy = p.dy.data,
        .in = p.dx[0].extents,
        .out = p.dy.extents,
        .window = window.resolved(),
        .kind = kind,
        .dx = p.dx[0].data,
        .accumulate = p.accumulate[0],
    };
    b.for_each_index(p.dx[0].extents.size(), gradient);
  }
};

/// y = x pooled. @throws shape_error, value_error for a window out of range
template <class Backend, class T>
void pool(Backend& b, input<T> x, view<T> y, pool_kind kind, conv_window window) {
  run(b, pooling{kind, window}, forward_pass<T>{.in = {x}, .y = y});
}
/// dx (+)= the gradient of pool, from dy like y.
template <class Backend, class T>
void pool_backward(Backend& b,
                   input<T> x,
                   input<T> dy,
                   view<T> dx,
                   pool_kind kind,
                   conv_window window,
                   bool accumulate = false) {
  run_backward(b, pooling{kind, window}, gradient_pass<T>(x, dy, dx, accumulate));
}

}  // namespace multistage::ops
