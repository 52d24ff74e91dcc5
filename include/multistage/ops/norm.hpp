// Group normalisation (Wu and He, arXiv 1803.08494) with optional modulation by row (FiLM,
// arXiv 1709.07871) and SiLU:
//   xhat = (x - mean_g) / sqrt(var_g + eps),  y = silu((xhat w + b) (1 + scale_n) + shift_n)
// over the pixels and channels of each group of each row. Layer normalisation is one group on
// one pixel.
//
// With w' = w (1 + scale_n), dz the gradient before SiLU and means over the group,
//
//   dx = (dz w' - mean(dz w') - xhat mean(dz w' xhat)) / sqrt(var_g + eps).
//
// Statistics are kept for backward (two numbers a group and row), xhat and z are made again.
#pragma once
#include "operation.hpp"

namespace multistage::ops {

/// @see the file's head. Operands: x [rows, h, w, c]; x2 [rows, h, w, c2], more channels behind
/// x's, groups may lie across; modulation [rows, 1, 1, 2 (c + c2)], scales first. Parameters:
/// weight and bias [1, 1, 1, c + c2].
struct group_normalisation {
  int groups = 1;  ///< of neighbouring channels; their number divides that of the channels
  double epsilon = 1e-5;  ///< added to the variance
  bool silu = false;      ///< whether SiLU follows

  static constexpr operation needs = operation::norm;  ///< a backend must support it
  static constexpr const char* name = "group_norm";    ///< for messages and profiles
  static constexpr operand_names operands{"x", "x2", "modulation"};  ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    const feature& x = in[0];
    const int channels = x.channels + (in[1].there() ? in[1].channels : 0);
    if (groups < 1 || channels % groups != 0)
      return refused(graph_problem::groups, "the groups do not divide the channels", channels,
                     groups);
    if (!(epsilon > 0))
      return refused(graph_problem::attributes, "epsilon must be above 0");
    description d;
    d.in = {x.extents(), {in[1].channels, x.height, x.width}, {2 * channels, 1, 1}};
    d.out = {channels, x.height, x.width};
    d.weight = d.bias = {1, 1, 1, channels};
    d.bias_needed = true;
    d.statistics = 2 * groups;
    d.scratch = 2 * channels;
    d.by_row = 0b0100;
    d.backward_reads = 0b0111;
    d.kept = keeping::never;
    return d;
  }

  /// What backends are asked for, on these operands.
  template <class T>
  norm_problem<T> problem(const forward_pass<T>& p) const {
    const shape& x = p.in[0].extents;
    return {.rows = x.rows,
            .pixels = x.pixels(),
            .channels = x.channels,
            .channels2 = p.in[1] ? p.in[1].extents.channels : 0,
            .groups = groups,
            .epsilon = T(epsilon),
            .silu = silu,
            .x = p.in[0].data,
            .x2 = p.in[1].data,
            .weight = p.weight.data,
            .bias = p.bias.data,
            .modulation = p.in[2].data,
            .statistics = p.statistics,
            .y = p.y.data};
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    const norm_problem<T> q = problem(p);
    if (!p.again)
      norm_statistics(b, q);
    norm_apply(b, q);
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    norm_backward(b, problem<T>(p),
                  norm_gradients<T>{.dy = p.dy.data,
                                    .dx = p.dx[0].data,
                                    .accumulate = p.accumulate[0],
                                    .dx2 = p.dx[1].data,
                                    .accumulate2 = p.accumulate[1],
                                    .dweight = p.dweight,
                                    .dbias = p.dbias,
                                    .dmodulation = p.dx[2].data,
                                    .accumulate_modulation = p.accumulate[2],
                                    .partials = p.scratch,
                                    .pieces = p.pieces});
  }
};

/// Layer normalisation over the channels of each pixel (Ba et al. 2016): group normalisation of
/// one group on one pixel. Operand x [rows, h, w, c], parameters as above.
struct layer_normalisation {
  double epsilon = 1e-5;  ///< added to the variance

  static constexpr operation needs = operation::norm;  ///< a backend must support it
  static constexpr const char* name = "layer_norm";    ///< for messages and profiles
  static constexpr operand_names operands{"x"};        ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    if (!(epsilon > 0))
      return refused(graph_problem::attributes, "epsilon must be above 0");
    const extent x = in[0].extents();
    description d;
    d.in[0] = x;
    d.out = x;
    d.weight = d.bias = {1, 1, 1, x.channels};
    d.bias_needed = true;
    d.statistics = 2 * x.pixels();
    d.scratch = 2 * x.size();
    d.backward_reads = 0b0001;
    d.kept = keeping::never;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    group_normalisation{1, epsilon}.forward(b, by_pixel(p));
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    backward_pass<T> q = p;
    static_cast<forward_pass<T>&>(q) = by_pixel<T>(p);
    q.pieces = p.pieces.times(p.in[0].extents.pixels());
    group_normalisation{1, epsilon}.backward(b, q);
  }

 private:
  /// The same with every pixel a row.
  template <class T>
  static forward_pass<T> by_pixel(forward_pass<T> p) {
    const shape& x = p.in[0].extents;
    p.in[0] = {p.in[0].data, shape{x.rows * x.pixels(), 1, 1, x.channels}};
    return p;
  }
};

/// Optional operands of group_norm; empty views are absent.
template <class T>
struct norm_options {
  index_t groups = 1;   ///< of neighbouring channels; their number divides that of the channels
  T epsilon = T(1e-5);  ///< added to the variance
  bool silu = false;    ///< whether SiLU follows
  view<const T> x2{};   ///< more channels, behind x's; groups may lie across
  view<const T> modulation{};  ///< [rows, 1, 1, 2 channels], scales first

  /// The operation with these settings.
  group_normalisation operation() const {
    constexpr index_t most = 1 << 30;
    return {int(groups < most ? groups : most), double(epsilon), silu};
  }
};

/// y = group_norm(x) for x [rows, h, w, c], weight and bias [1, 1, 1, c]; writes statistics
/// [rows, 1, groups, 2] for backward. @throws shape_error naming the operand that does not fit,
/// value_error when groups do not divide the channels
template <class Backend, class T>
void group_norm(Backend& b,
                input<T> x,
                input<T> weight,
                input<T> bias,
                view<T> statistics,
                view<T> y,
                const norm_options<T>& options) {
  const forward_pass<T> pass{.in = {x, options.x2, options.modulation},
                             .weight = weight,
                             .bias = bias,
                             .y = y,
                             .statistics = statistics.data};
  const description d = checked(options.operation(), pass);
  expect("group_norm", "bias", bias, weight.extents);
  expect("group_norm", "statistics", statistics, shape{x.extents.rows, 1, options.groups, 2});
  run(b, options.operation(), pass, d);
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
  const forward_pass<T> pass{.in = {x, options.x2, options.modulation},
                             .weight = weight,
                             .bias = bias,
                             .statistics = statistics.data};
  checked(options.operation(), pass);
  expect("group_norm_backward", "bias", bias, weight.extents);
  expect("group_norm_backward", "statistics", statistics,
         shape{x.extents.rows, 1, options.groups, 2});
  require<value_error>(
      g.dy && g.partials,
      "group_norm_backward: dy and the scratch partials [rows, 2 channels] must be given");
  norm_backward(b, options.operation().problem(pass), g);
}

/// y = layer_norm(x) over the channels of each pixel, for x [rows, h, w, c]; statistics [rows h
/// w, 1, 1, 2].
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
