// Operations that bring two tensors together, and scaling: sums, a row vector added to all
// pixels, a division by one number a row.
//
// The gradient of a sum is the result's own: an operand may take its memory
// (gradient_in_place), so that a residual branch costs no copy. A row's gradient is summed
// over the pixels that it was added to.
//
//   ops::add_row(backend, x, row, y);      // y [rows, h, w, c] = x + row [rows, 1, 1, c]
#pragma once
#include "elementwise.hpp"
#include "operation.hpp"

namespace multistage::ops {

namespace functor {
/// y = x + row, with a row of channels for each image.
template <class T>
struct add_row {
  const T* x;
  const T* row;
  index_t channels;
  index_t pixels;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t image = i / (channels * pixels);
    const index_t channel = i % channels;
    y[i] = x[i] + row[image * channels + channel];
  }
};
/// y = x / row, with one number a row.
template <class T>
struct divide_row {
  const T* x;
  const T* row;
  index_t size;
  T* y;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const T v = x[i] / row[i / size];
    y[i] = accumulate ? y[i] + v : v;
  }
};
}  // namespace functor

/// x + y, of one shape.
struct addition {
  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "add";                  ///< for messages and profiles
  static constexpr operand_names operands{"x", "y"};          ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    description d = elementwise(in[0]);
    d.needed = 0b0011;
    d.in[1] = d.in[0];
    d.kept = keeping::always;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    const T* const x = p.in[0].data;
    const T* const y = p.in[1].data;
    linear_combination<Backend, T>(b, p.y.extents.size(), p.y.data, {{T(1), x}, {T(1), y}});
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    const index_t size = p.dy.extents.size();
    const T* const result = p.dy.data;  // whose gradient is that of both
    T* const dx = p.dx[0].data;
    T* const dy = p.dx[1].data;
    const bool doubles = p.in[0].data == p.in[1].data && dx == dy;
    if (doubles)  // x + x
      return add_to(b, dx, result, T(2), p.accumulate[0], size);
    // y's first: x's may have taken over the result's memory.
    add_to(b, dy, result, T(1), p.accumulate[1], size);
    add_to(b, dx, result, T(1), p.accumulate[0], size);
  }
};

/// x + row, with the channels of row [rows, 1, 1, c] spread over x's pixels.
struct row_addition {
  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "add_row";              ///< for messages and profiles
  static constexpr operand_names operands{"x", "row"};        ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    description d = elementwise(in[0]);
    d.needed = 0b0011;
    d.by_row = 0b0010;
    d.in[1] = {in[0].channels, 1, 1};
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    const shape& y = p.y.extents;
    const T* const x = p.in[0].data;
    const T* const row = p.in[1].data;
    const functor::add_row<T> sum{x, row, y.channels, y.pixels(), p.y.data};
    b.for_each_index(y.size(), sum);
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    const shape& y = p.dy.extents;
    const T* const dy = p.dy.data;
    T* const dx = p.dx[0].data;
    T* const drow = p.dx[1].data;
    if (drow)
      row_sums(b, y.rows, y.pixels(), y.channels, dy, drow, p.accumulate[1]);
    add_to(b, dx, dy, T(1), p.accumulate[0], y.size());
  }
};

/// x / row, with one number a row; no gradient flows into the divisor.
struct row_division {
  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "divide_row";           ///< for messages and profiles
  static constexpr operand_names operands{"x", "row"};        ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    description d = elementwise(in[0]);
    d.needed = 0b0011;
    d.by_row = 0b0010;
    d.in[1] = {1, 1, 1};
    d.backward_reads = 0b0010;
    d.stops_gradient = 0b0010;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    divide<Backend, T>(b, p, p.in[0].data, p.y.data, p.y.extents, false);
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    divide<Backend, T>(b, p, p.dy.data, p.dx[0].data, p.dy.extents, p.accumulate[0]);
  }

 private:
  /// Forward and backward alike: to (+)= from over the divisor.
  template <class Backend, class T>
  static void divide(Backend& b,
                     const forward_pass<T>& p,
                     const T* from,
                     T* to,
                     const shape& y,
                     bool accumulate) {
    const T* const row = p.in[1].data;
    const functor::divide_row<T> quotient{from, row, y.row_size(), to, accumulate};
    b.for_each_index(y.size(), quotient);
  }
};

/// factor x.
struct scaling {
  double factor = 1;  ///< of every element

  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "scale";                ///< for messages and profiles
  static constexpr operand_names operands{"x"};               ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    description d = elementwise(in[0]);
    d.kept = keeping::always;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    linear_combination<Backend, T>(b, p.y.extents.size(), p.y.data,
                                   {{T(factor), p.in[0].data}});
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    add_to(b, p.dx[0].data, p.dy.data, T(factor), p.accumulate[0], p.dy.extents.size());
  }
};

/// y [rows, h, w, c] = x + row, row [rows, 1, 1, c].
template <class Backend, class T>
void add_row(Backend& b, input<T> x, input<T> row, view<T> y) {
  run(b, row_addition{}, forward_pass<T>{.in = {x, row}, .y = y});
}

}  // namespace multistage::ops
