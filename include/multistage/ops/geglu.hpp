// Gated linear unit with GELU (Shazeer, arXiv 2002.05202): for x = [a, g] along the channels, y
// = a gelu(g). The transformer blocks of latent diffusion use it.
//
// Its gradients: da = dy gelu(g), dg = dy a gelu'(g), side by side like a and g.
//
//   ops::geglu(backend, x, y);      // x [rows, h, w, 2 c], y [rows, h, w, c]
#pragma once
#include "../backend/functions.hpp"
#include "operation.hpp"

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
/// By element of dx = [da, dg].
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

/// @see the file's head. Operand x [rows, h, w, 2 c], result [rows, h, w, c].
struct gated_gelu {
  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "geglu";                ///< for messages and profiles
  static constexpr operand_names operands{"x"};               ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    const feature& x = in[0];
    if (x.channels % 2 != 0)
      return refused(graph_problem::extents, "x has an odd number of channels");
    description d;
    d.in[0] = x.extents();
    d.out = {x.channels / 2, x.height, x.width};
    d.backward_reads = 0b0001;
    d.kept = keeping::never;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    const functor::geglu<T> gated{p.in[0].data, p.y.extents.channels, p.y.data};
    b.for_each_index(p.y.extents.size(), gated);
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    const index_t channels = p.dy.extents.channels;
    T* const dx = p.dx[0].data;
    const functor::geglu_backward<T> gradient{p.in[0].data, p.dy.data, channels, dx,
                                              p.accumulate[0]};
    b.for_each_index(p.dy.extents.size(), gradient);
  }
};

/// y [rows, h, w, c] from x [rows, h, w, 2 c]. @throws shape_error
template <class Backend, class T>
void geglu(Backend& b, input<T> x, view<T> y) {
  run(b, gated_gelu{}, forward_pass<T>{.in = {x}, .y = y});
}
/// dx (+)= the gradient of geglu, from dy like y.
template <class Backend, class T>
void geglu_backward(Backend& b, input<T> x, input<T> dy, view<T> dx, bool accumulate = false) {
  run_backward(b, gated_gelu{}, gradient_pass<T>(x, dy, dx, accumulate));
}

}  // namespace multistage::ops
