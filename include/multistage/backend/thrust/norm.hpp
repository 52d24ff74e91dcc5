// Group normalisation on Thrust systems; the mathematics stands at the head of ops/norm.hpp,
// that of its gradients in cpu/norm.hpp.
//
// Each step is a loop over indices without any dependence between them: statistics of a group,
// the value of a pixel, sums over pixels of a channel, means of a group, the gradient of an
// element. Nothing is shared between indices, which costs readings of the same memory and
// makes the steps as plain as the formulas.
#pragma once
#include <cmath>

#include "../functions.hpp"
#include "reduce.hpp"

namespace multistage {
namespace thrust_kernel {

/// Reads of a norm's operands by (row, pixel, channel over both inputs).
template <class T>
struct norm_reader {
  norm_problem<T> p;
  /// x or x2, by the channel counted over both.
  MULTISTAGE_HD T x(index_t row, index_t pixel, index_t c) const {
    const index_t place = row * p.pixels + pixel;
    if (c < p.channels)
      return p.x[place * p.channels + c];
    return p.x2[place * p.channels2 + c - p.channels];
  }
  /// Channels of both inputs.
  MULTISTAGE_HD index_t all() const {
    return p.channels + p.channels2;
  }
  /// Channels of a group.
  MULTISTAGE_HD index_t per() const {
    return all() / p.groups;
  }
  /// The channel's group, counted over all rows.
  MULTISTAGE_HD index_t group(index_t row, index_t c) const {
    return row * p.groups + c / per();
  }
  /// The mean of the channel's group.
  MULTISTAGE_HD T mean(index_t row, index_t c) const {
    return p.statistics[2 * group(row, c)];
  }
  /// The reciprocal standard deviation of the channel's group.
  MULTISTAGE_HD T rstd(index_t row, index_t c) const {
    return p.statistics[2 * group(row, c) + 1];
  }
  /// (x - mean) rstd.
  MULTISTAGE_HD T xhat(index_t row, index_t pixel, index_t c) const {
    return (x(row, pixel, c) - mean(row, c)) * rstd(row, c);
  }
  /// 1 + s, by which the modulation scales.
  MULTISTAGE_HD T scale(index_t row, index_t c) const {
    return p.modulation ? T(1) + p.modulation[row * 2 * all() + c] : T(1);
  }
  /// w' = w (1 + s).
  MULTISTAGE_HD T weight(index_t row, index_t c) const {
    return p.weight[c] * scale(row, c);
  }
  /// b' = b (1 + s) + t.
  MULTISTAGE_HD T bias(index_t row, index_t c) const {
    const T shift = p.modulation ? p.modulation[(row * 2 + 1) * all() + c] : T(0);
    return p.bias[c] * scale(row, c) + shift;
  }
};

/// Statistics of group i % groups of row i / groups: the mean first, then the squares about it,
/// so that nothing cancels.
template <class T>
struct norm_statistics_of_group {
  norm_reader<T> r;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t row = i / r.p.groups;
    const index_t g = i % r.p.groups;
    const index_t per = r.per();
    const T m = T(per * r.p.pixels);
    T mean = 0;
    T square = 0;
    for (index_t pixel = 0; pixel < r.p.pixels; ++pixel)
      for (index_t c = g * per; c < (g + 1) * per; ++c)
        mean += r.x(row, pixel, c);
    mean /= m;
    for (index_t pixel = 0; pixel < r.p.pixels; ++pixel)
      for (index_t c = g * per; c < (g + 1) * per; ++c) {
        const T d = r.x(row, pixel, c) - mean;
        square += d * d;
      }
    r.p.statistics[2 * i] = mean;
    r.p.statistics[2 * i + 1] = T(1 / ::sqrt(double(square / m + r.p.epsilon)));
  }
};

/// y of `span` neighbouring channels of a pixel: act(xhat w' + b').
template <class T>
struct norm_value {
  norm_reader<T> r;
  index_t span;
  MULTISTAGE_HD void operator()(index_t k) const {
    const index_t all = r.all();
    const index_t first = k * span;
    const index_t c0 = first % all;
    const index_t pixel = first / all % r.p.pixels;
    const index_t row = first / (all * r.p.pixels);
    for (index_t i = 0; i < span; ++i) {
      const index_t c = c0 + i;
      const T z = r.xhat(row, pixel, c) * r.weight(row, c) + r.bias(row, c);
      r.p.y[first + i] = r.p.silu ? silu_function::value(z) : z;
    }
  }
};

/// dz at one place, and xhat.
template <class T>
struct norm_gradient_reader {
  norm_reader<T> r;
  const T* dy;
  /// @param xhat is filled with the normalised value at the same place
  MULTISTAGE_HD T dz(index_t row, index_t pixel, index_t c, T& xhat) const {
    xhat = r.xhat(row, pixel, c);
    const T g = dy[(row * r.p.pixels + pixel) * r.all() + c];
    if (!r.p.silu)
      return g;
    const T z = xhat * r.weight(row, c) + r.bias(row, c);
    return g * silu_function::derivative(z);
  }
};
/// partials[row] = [sum_p dz xhat, sum_p dz] of one channel.
template <class T>
struct norm_partials {
  norm_gradient_reader<T> g;
  T* partials;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t all = g.r.all();
    const index_t row = i / all;
    const index_t c = i % all;
    T with_xhat = 0;
    T plain = 0;
    T xhat = 0;
    for (index_t pixel = 0; pixel < g.r.p.pixels; ++pixel) {
      const T d = g.dz(row, pixel, c, xhat);
      with_xhat += d * xhat;
      plain += d;
    }
    partials[row * 2 * all + c] = with_xhat;
    partials[row * 2 * all + all + c] = plain;
  }
};
/// means[row, group] = [mean(dz w'), mean(dz w' xhat)].
template <class T>
struct norm_means {
  norm_reader<T> r;
  const T* partials;
  T* means;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t row = i / r.p.groups;
    const index_t g = i % r.p.groups;
    const index_t per = r.per();
    const index_t all = r.all();
    const T* const with_xhat = partials + row * 2 * all;  // [channels]
    const T* const plain = with_xhat + all;               // [channels]
    const T m = T(per * r.p.pixels);
    T dxhat = 0;
    T dxhat_xhat = 0;
    for (index_t c = g * per; c < (g + 1) * per; ++c) {
      dxhat += plain[c] * r.weight(row, c);
      dxhat_xhat += with_xhat[c] * r.weight(row, c);
    }
    means[2 * i] = dxhat / m;
    means[2 * i + 1] = dxhat_xhat / m;
  }
};
/// dx (or dx2) at one element: rstd (dz w' - mean(dz w') - xhat mean(dz w' xhat)). dz is made
/// again here rather than stored: it costs an exponential and saves a tensor.
template <class T>
struct norm_input_gradient {
  norm_gradient_reader<T> g;
  const T* means;
  index_t first;     // channel of the input that this is for
  index_t channels;  // of that input
  T* dx;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t c = first + i % channels;
    const index_t pixel = i / channels % g.r.p.pixels;
    const index_t row = i / (channels * g.r.p.pixels);
    const T* m = means + 2 * g.r.group(row, c);
    T xhat = 0;
    const T d = g.dz(row, pixel, c, xhat);
    const T v = g.r.rstd(row, c) * (d * g.r.weight(row, c) - m[0] - xhat * m[1]);
    dx[i] = accumulate ? dx[i] + v : v;
  }
};
/// Gradients of the modulation; scales the partials into the parameters' share of this row.
template <class T>
struct norm_modulation_gradient {
  norm_reader<T> r;
  T* partials;
  T* dmodulation;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t all = r.all();
    const index_t row = i / all;
    const index_t c = i % all;
    const index_t scale_at = row * 2 * all + c;  // and with it dz xhat; shift and dz behind
    const index_t shift_at = scale_at + all;
    T& with_xhat = partials[scale_at];
    T& plain = partials[shift_at];
    if (dmodulation) {
      T& ds = dmodulation[scale_at];
      T& dt = dmodulation[shift_at];
      ds = (accumulate ? ds : T(0)) + r.p.weight[c] * with_xhat + r.p.bias[c] * plain;
      dt = (accumulate ? dt : T(0)) + plain;
    }
    with_xhat *= r.scale(row, c);
    plain *= r.scale(row, c);
  }
};
/// Adds the first half of [sums of dw, sums of db] to the one gradient and the second to the
/// other; either may be null.
template <class T>
struct add_halves {
  const T* sums;
  index_t channels;
  T* a;
  T* b;
  MULTISTAGE_HD void operator()(index_t c) const {
    if (a)
      a[c] += sums[c];
    if (b)
      b[c] += sums[channels + c];
  }
};

}  // namespace thrust_kernel

/// Fills p.statistics; an index is a group of a row.
template <class System, class T>
void norm_statistics(const thrust_backend<System>& b, const norm_problem<T>& p) {
  b.for_each_index(p.rows * p.groups, thrust_kernel::norm_statistics_of_group<T>{{p}});
}

/// y from x and p.statistics; an index is a pixel, or on a device a value.
template <class System, class T>
void norm_apply(const thrust_backend<System>& b, const norm_problem<T>& p) {
  const index_t span = thrust_kernel::span<System>(p.all_channels());
  b.for_each_index(p.rows * p.pixels * p.all_channels() / span,
                   thrust_kernel::norm_value<T>{{p}, span});
}

/// The sums over pixels that norm_backward begins with; @see thrust_kernel::norm_partials.
template <class System, class T>
void norm_partial_sums(const thrust_backend<System>& b,
                       const thrust_kernel::norm_gradient_reader<T>& gradient,
                       T* partials) {
  const norm_problem<T>& p = gradient.r.p;
  b.for_each_index(p.rows * p.all_channels(),
                   thrust_kernel::norm_partials<T>{gradient, partials});
}

/// @see norm_gradients.
template <class System, class T>
void norm_backward(const thrust_backend<System>& b,
                   const norm_problem<T>& p,
                   const norm_gradients<T>& g) {
  using namespace thrust_kernel;
  const norm_reader<T> r{p};
  const norm_gradient_reader<T> gr{r, g.dy};
  const index_t all = p.all_channels();
  // Sums over pixels of each row and channel; from them the means that dx needs.
  norm_partial_sums(b, gr, g.partials);
  // [rows, groups, 2], in memory of the handle.
  T* means = b.template workspace<T>(2, p.rows * p.groups * 2);
  b.for_each_index(p.rows * p.groups, norm_means<T>{r, g.partials, means});
  const index_t n = p.channels;
  const index_t n2 = p.channels2;
  if (g.dx) {
    const norm_input_gradient<T> of_x{gr, means, 0, n, g.dx, g.accumulate};
    b.for_each_index(p.rows * p.pixels * n, of_x);
  }
  if (g.dx2) {
    const norm_input_gradient<T> of_x2{gr, means, n, n2, g.dx2, g.accumulate2};
    b.for_each_index(p.rows * p.pixels * n2, of_x2);
  }
  // The modulation's gradients need the sums as they are; then each row's are scaled by 1 + s
  // and summed over the rows, which gives those of weight and bias.
  if (p.modulation) {
    const norm_modulation_gradient<T> of_modulation{r, g.partials, g.dmodulation,
                                                    g.accumulate_modulation};
    b.for_each_index(p.rows * all, of_modulation);
  }
  if (g.dweight || g.dbias) {
    T* sums = b.template workspace<T>(2, 2 * all);
    g.pieces.each(p.rows, [&](index_t first, index_t rows) {
      const T* shares = g.partials + first * 2 * all;
      column_sums(b, rows, 2 * all, shares, sums, false);
      b.for_each_index(all, add_halves<T>{sums, all, g.dweight, g.dbias});
    });
  }
}

}  // namespace multistage
