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
  x.leftCols(p.channels) = as_array(p.x_of(row), p.pixels, p.channels);
  if (p.channels2)
    x.rightCols(p.channels2) = as_array(p.x2_of(row), p.pixels, p.channels2);
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
    const T* scale = p.modulation_of(row);  // [channels]
    const T* shift = scale + c;             // [channels]
    r.one_plus += as_row(scale, c);
    r.weight *= r.one_plus;
    r.bias = r.bias * r.one_plus + as_row(shift, c);
  }
  const auto statistics = as_array(p.statistics_of(row), p.groups, 2);
  r.mean = spread<T>(statistics.col(0), c);
  r.rstd = spread<T>(statistics.col(1), c);
  return r;
}

/// The mean over each group of what is summed over pixels, at every channel: [channels] to
/// [channels].
template <class T>
row_array<T> group_mean(const norm_problem<T>& p, const row_array<T>& sums) {
  const index_t per = p.group_channels();
  const T values = T(per * p.pixels);
  row_array<T> means(p.groups);
  for (index_t g = 0; g < p.groups; ++g)
    means[g] = sums.segment(g * per, per).sum() / values;
  return spread<T>(means, sums.size());
}

/// to = from, or to += from.
template <class To, class From>
void write(To to, const From& from, bool accumulate) {
  if (accumulate)
    to += from;
  else
    to = from;
}

/// What is made of one row's gradient dy before anything is known of others.
template <class T>
struct norm_row_gradient {
  array<T> xhat;           // [pixels, channels]
  array<T> dz;             // [pixels, channels]
  row_array<T> with_xhat;  // [channels]: sums over pixels of dz xhat
  row_array<T> plain;      // [channels]: sums over pixels of dz
};
/// @param dy [pixels, channels] of that row
template <class T>
norm_row_gradient<T> read_gradient(const norm_problem<T>& p,
                                   const norm_row<T>& r,
                                   const T* dy) {
  norm_row_gradient<T> g;
  g.xhat = (r.x.rowwise() - r.mean).rowwise() * r.rstd;
  g.dz = as_array(dy, p.pixels, p.all_channels());
  if (p.silu) {
    const array<T> z = (g.xhat.rowwise() * r.weight).rowwise() + r.bias;
    const array<T> s = T(1) / (T(1) + (-z).exp());  // the logistic function of z
    g.dz *= s * (T(1) + z * (T(1) - s));
  }
  g.with_xhat = (g.dz * g.xhat).colwise().sum();
  g.plain = g.dz.colwise().sum();
  return g;
}

/// dx of one row, [pixels, channels + channels2].
template <class T>
array<T> input_gradient(const norm_problem<T>& p,
                        const norm_row<T>& r,
                        const norm_row_gradient<T>& g) {
  const row_array<T> mean = group_mean<T>(p, g.plain * r.weight);           // [channels]
  const row_array<T> mean_xhat = group_mean<T>(p, g.with_xhat * r.weight);  // [channels]
  const array<T> centred = (g.dz.rowwise() * r.weight).rowwise() - mean;
  return (centred - g.xhat.rowwise() * mean_xhat).rowwise() * r.rstd;
}

}  // namespace eigen_kernel

/// Fills p.statistics, [rows, groups, 2], mean first: no cancellation.
template <class T>
void norm_statistics(const eigen& b, const norm_problem<T>& p) {
  using namespace eigen_kernel;
  const index_t per = p.group_channels();
  b.for_each_piece(p.rows, 1, [&](index_t row, index_t) {
    const array<T> x = norm_input(p, row);  // [pixels, channels]
    auto statistics = as_array(p.statistics_of(row), p.groups, 2);
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
    as_array(p.y_of(row), z.rows(), z.cols()) = z;
  });
}

/// @see norm_gradients.
template <class T>
void norm_backward(const eigen& b, const norm_problem<T>& p, const norm_gradients<T>& g) {
  using namespace eigen_kernel;
  const index_t c = p.all_channels();
  b.for_each_piece(p.rows, 1, [&](index_t row, index_t) {
    const norm_row<T> r = read_row(p, row);
    const norm_row_gradient<T> of_row = read_gradient(p, r, g.dy + row * p.row_size());
    const row_array<T>& with_xhat = of_row.with_xhat;
    const row_array<T>& plain = of_row.plain;
    const array<T> dx = input_gradient(p, r, of_row);  // [pixels, channels + channels2]
    if (g.dx) {
      T* const to = g.dx + row * p.pixels * p.channels;
      write(as_array(to, p.pixels, p.channels), dx.leftCols(p.channels), g.accumulate);
    }
    if (g.dx2) {
      T* const to = g.dx2 + row * p.pixels * p.channels2;
      write(as_array(to, p.pixels, p.channels2), dx.rightCols(p.channels2), g.accumulate2);
    }
    if (p.modulation && g.dmodulation) {
      T* const dscale = g.dmodulation + row * 2 * c;
      T* const dshift = dscale + c;
      const row_array<T> ds = as_row(p.weight, c) * with_xhat + as_row(p.bias, c) * plain;
      write(as_row(dscale, c), ds, g.accumulate_modulation);
      write(as_row(dshift, c), plain, g.accumulate_modulation);
    }
    // The row's shares of dw and db, which are sums over rows.
    T* const dw = g.partials + row * 2 * c;
    T* const db = dw + c;
    as_row(dw, c) = r.one_plus * with_xhat;
    as_row(db, c) = r.one_plus * plain;
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
