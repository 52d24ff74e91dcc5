// Group normalisation by Eigen; a task is one row of the batch, an array [pixels, channels].
// The mathematics stands at the head of ops/norm.hpp; with w' = w (1 + s_n), b' = b (1 + s_n) +
// t_n, z = xhat w' + b', y = act(z) and dz = dy act'(z), its gradients are
//   dx = rstd (dz w' - mean(dz w') - xhat mean(dz w' xhat)),  means over the group,
//   ds_n = w sum_p dz xhat + b sum_p dz,   dt_n = sum_p dz,
//   dw = sum_n (1 + s_n) sum_p dz xhat,    db = sum_n (1 + s_n) sum_p dz.
//
// Rows of the array are pixels and columns channels, so a formula over channels is one over
// rows of values: `x.rowwise() - mean` subtracts each channel's mean, `colwise().sum()` sums
// over pixels.
#pragma once
#include "reduce.hpp"

namespace multistage {
namespace eigen_kernel {

/// One row's operands, a value a channel each.
template <class T>
struct norm_row {
  array<T> x;             // [pixels, channels], those of both inputs
  row_array<T> one_plus;  // 1 + s
  row_array<T> weight;    // w'
  row_array<T> bias;      // b'
  row_array<T> mean;
  row_array<T> rstd;  // reciprocal standard deviation
};

/// x [pixels, channels + channels2] of one row.
template <class T>
array<T> norm_input(const norm_problem<T>& p, index_t row) {
  array<T> x(p.pixels, p.all_channels());
  x.leftCols(p.channels) = as_array(p.x + row * p.pixels * p.channels, p.pixels, p.channels);
  if (p.channels2)
    x.rightCols(p.channels2) =
        as_array(p.x2 + row * p.pixels * p.channels2, p.pixels, p.channels2);
  return x;
}

/// A value a group to a value a channel: [groups] to [channels].
template <class T, class Groups>
row_array<T> spread(const Groups& groups, index_t channels) {
  const index_t per = channels / groups.size();
  row_array<T> to(channels);
  for (index_t g = 0; g < groups.size(); ++g)
    to.segment(g * per, per).setConstant(groups[g]);
  return to;
}

/// All of them for one row, the modulation in weight and bias, the groups' statistics at every
/// channel.
template <class T>
norm_row<T> read_row(const norm_problem<T>& p, index_t row) {
  const index_t c = p.all_channels();
  norm_row<T> r;
  r.x = norm_input(p, row);
  r.one_plus = row_array<T>::Ones(c);
  r.weight = as_row(p.weight, c);
  r.bias = as_row(p.bias, c);
  if (p.modulation) {
    const T* scale = p.modulation + row * 2 * c;
    const T* shift = scale + c;
    r.one_plus += as_row(scale, c);
    r.weight *= r.one_plus;
    r.bias = r.bias * r.one_plus + as_row(shift, c);
  }
  const auto statistics = as_array(p.statistics + row * p.groups * 2, p.groups, 2);
  r.mean = spread<T>(statistics.col(0), c);
  r.rstd = spread<T>(statistics.col(1), c);
  return r;
}

/// The mean over each group of what is summed over pixels, at every channel: [channels] to
/// [channels].
template <class T>
row_array<T> group_mean(const norm_problem<T>& p, const row_array<T>& sums) {
  const index_t per = sums.size() / p.groups;
  row_array<T> means(p.groups);
  for (index_t g = 0; g < p.groups; ++g)
    means[g] = sums.segment(g * per, per).sum() / T(per * p.pixels);
  return spread<T>(means, sums.size());
}

/// dx (+)= columns [first, first + channels) of one row's gradient.
template <class T>
void write_gradient(const array<T>& gradient,
                    index_t first,
                    index_t channels,
                    T* dx,
                    bool accumulate) {
  auto to = as_array(dx, gradient.rows(), channels);
  const auto from = gradient.middleCols(first, channels);
  if (accumulate)
    to += from;
  else
    to = from;
}

}  // namespace eigen_kernel

/// Fills p.statistics, [rows, groups, 2], mean first: no cancellation.
template <class T>
void norm_statistics(const eigen& b, const norm_problem<T>& p) {
  using namespace eigen_kernel;
  const index_t per = p.all_channels() / p.groups;
  b.for_each_piece(p.rows, 1, [&](index_t row, index_t) {
    const array<T> x = norm_input(p, row);  // [pixels, channels]
    auto statistics = as_array(p.statistics + row * p.groups * 2, p.groups, 2);
    for (index_t g = 0; g < p.groups; ++g) {
      const auto group = x.middleCols(g * per, per);  // [pixels, per]
      const T mean = group.mean();
      const T variance = (group - mean).square().mean();
      using std::sqrt;
      statistics(g, 0) = mean;
      statistics(g, 1) = T(1) / sqrt(variance + p.epsilon);
    }
  });
}

/// y from x and p.statistics.
template <class T>
void norm_apply(const eigen& b, const norm_problem<T>& p) {
  using namespace eigen_kernel;
  b.for_each_piece(p.rows, 1, [&](index_t row, index_t) {
    const norm_row<T> r = read_row(p, row);
    const row_array<T> scale = r.rstd * r.weight;
    // [pixels, channels]
    array<T> z = ((r.x.rowwise() - r.mean).rowwise() * scale).rowwise() + r.bias;
    if (p.silu)
      z = z / (T(1) + (-z).exp());
    as_array(p.y + row * z.size(), z.rows(), z.cols()) = z;
  });
}

/// @see norm_gradients.
template <class T>
void norm_backward(const eigen& b, const norm_problem<T>& p, const norm_gradients<T>& g) {
  using namespace eigen_kernel;
  const index_t c = p.all_channels();
  b.for_each_piece(p.rows, 1, [&](index_t row, index_t) {
    const norm_row<T> r = read_row(p, row);
    const array<T> xhat = (r.x.rowwise() - r.mean).rowwise() * r.rstd;  // [pixels, channels]
    array<T> dz = as_array(g.dy + row * p.pixels * c, p.pixels, c);     // [pixels, channels]
    if (p.silu) {
      const array<T> z = (xhat.rowwise() * r.weight).rowwise() + r.bias;
      const array<T> s = T(1) / (T(1) + (-z).exp());
      dz *= s * (T(1) + z * (T(1) - s));
    }
    // Sums over pixels, from which every gradient is made.
    const row_array<T> with_xhat = (dz * xhat).colwise().sum();  // [channels]
    const row_array<T> plain = dz.colwise().sum();               // [channels]

    const row_array<T> mean = group_mean<T>(p, plain * r.weight);
    const row_array<T> mean_xhat = group_mean<T>(p, with_xhat * r.weight);
    const array<T> centred = (dz.rowwise() * r.weight).rowwise() - mean;
    // [pixels, channels]
    const array<T> dx = (centred - xhat.rowwise() * mean_xhat).rowwise() * r.rstd;
    if (g.dx)
      write_gradient(dx, 0, p.channels, g.dx + row * p.pixels * p.channels, g.accumulate);
    if (g.dx2)
      write_gradient(dx, p.channels, p.channels2, g.dx2 + row * p.pixels * p.channels2,
                     g.accumulate2);

    if (p.modulation && g.dmodulation) {
      auto dscale = as_row(g.dmodulation + row * 2 * c, c);
      auto dshift = as_row(g.dmodulation + row * 2 * c + c, c);
      const row_array<T> ds = as_row(p.weight, c) * with_xhat + as_row(p.bias, c) * plain;
      if (g.accumulate_modulation) {
        dscale += ds;
        dshift += plain;
      } else {
        dscale = ds;
        dshift = plain;
      }
    }
    as_row(g.partials + row * 2 * c, c) = r.one_plus * with_xhat;
    as_row(g.partials + row * 2 * c + c, c) = r.one_plus * plain;
  });
  if (g.dweight || g.dbias) {
    row_array<T> sums(2 * c);  // of the rows' shares, [dw, db]
    g.pieces.each(p.rows, [&](index_t first, index_t rows) {
      const T* shares = g.partials + first * 2 * c;
      column_sums(b, rows, 2 * c, shares, sums.data(), false);
      if (g.dweight)
        as_row(g.dweight, c) += sums.head(c);
      if (g.dbias)
        as_row(g.dbias, c) += sums.tail(c);
    });
  }
}

}  // namespace multistage
