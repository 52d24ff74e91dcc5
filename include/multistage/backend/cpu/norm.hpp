// Group normalisation on the CPU; a task is one row. With w' = w (1 + s_n), b' = b (1 + s_n) +
// t_n, z = xhat w' + b', y = act(z) and dz = dy act'(z), over a group of m values:
//   dx = rstd (dz w' - mean(dz w') - xhat mean(dz w' xhat)),
//   ds_n = w sum_p dz xhat + b sum_p dz,  dt_n = sum_p dz,
//   dw = sum_n (1 + s_n) sum_p dz xhat,   db = sum_n (1 + s_n) sum_p dz.
// Backward goes over a row twice, once for the sums over pixels and once for dx.
//
// The channels of a row lie side by side for each pixel, so groups are runs of neighbouring
// channels. Every pass goes pixel by pixel with channels in the lanes of registers: what
// belongs to a group (mean, deviation) is first spread over its channels, padded to whole
// vectors, and the loop needs no group any more. Sums over a group are made from the sums over
// its channels.
#pragma once
#include <cmath>

#include "../primitives.hpp"
#include "math.hpp"
#include "reduce.hpp"

namespace multistage::inline MULTISTAGE_ISA {
namespace norm_kernel {

/// Per channel of one row, padded to whole vectors: the effective weight and bias, and the
/// statistics spread over channels.
template <class T>
struct row_coefficients {
  T* weight;
  T* bias;
  T* mean;
  T* rstd;
};
/// w' = w (1 + s) and b' = b (1 + s) + t of one row, and its groups' statistics at every
/// channel.
template <class T>
row_coefficients<T> coefficients(scratch_frame& scratch,
                                 const norm_problem<T>& p,
                                 index_t row) {
  const index_t c = p.all_channels();
  const index_t per = p.group_channels();
  const index_t pitch = c + simd::lanes<T>;
  T* const memory = scratch.take<T>(4 * pitch);
  row_coefficients<T> k{
      .weight = memory,
      .bias = memory + pitch,
      .mean = memory + 2 * pitch,
      .rstd = memory + 3 * pitch,
  };
  const T* scales = p.modulation_of(row);           // [channels], or null
  const T* shifts = scales ? scales + c : nullptr;  // [channels], or null
  const T* statistics = p.statistics_of(row);       // [groups, 2]
  for (index_t g = 0; g < p.groups; ++g) {
    const T mean = statistics[2 * g];
    const T rstd = statistics[2 * g + 1];
    for (index_t i = g * per; i < (g + 1) * per; ++i) {
      const T up = scales ? T(1) + scales[i] : T(1);
      const T shift = shifts ? shifts[i] : T(0);
      k.weight[i] = p.weight[i] * up;
      k.bias[i] = p.bias[i] * up + shift;
      k.mean[i] = mean;
      k.rstd[i] = rstd;
    }
  }
  return k;
}

/// y = act((x - mean) rstd w + b) over one source of channels [first, first + n).
template <bool Silu, class T>
void apply(const norm_problem<T>& p,
           const row_coefficients<T>& k,
           const T* x,
           index_t n,
           index_t first,
           T* y) {
  const index_t all = p.all_channels();
  const index_t pitch = all + simd::lanes<T>;
  scratch_frame scratch;
  T* scale = scratch.take<T>(2 * pitch);
  T* shift = scale + pitch;
  // (x - mean) rstd w' + b' as x scale + shift: one multiply-add a value.
  for (index_t i = 0; i < n; ++i) {
    scale[i] = k.rstd[first + i] * k.weight[first + i];
    shift[i] = k.bias[first + i] - k.mean[first + i] * scale[i];
  }
  for (index_t pixel = 0; pixel < p.pixels; ++pixel) {
    const T* from = x + pixel * n;    // [n]
    T* to = y + pixel * all + first;  // [n]
    simd::for_each_vector<T>(n, [&](index_t i, index_t have) {
      const simd::vec<T> z =
          simd::load_up_to(from + i, have) * simd::load(scale + i) + simd::load(shift + i);
      simd::store_up_to(to + i, Silu ? simd::silu<T>(z) : z, have);
    });
  }
}

/// Fills dz = dy act'(z) into `dz`, and sums dz xhat and dz over pixels into `with_xhat` and
/// `plain`, [n] of this source each.
template <bool Silu, class T>
void gradient_sums(const norm_problem<T>& p,
                   const row_coefficients<T>& k,
                   const T* x,
                   index_t n,
                   index_t first,
                   const T* dy,
                   T* dz,
                   T* with_xhat,
                   T* plain) {
  using vec = simd::vec<T>;
  const index_t all = p.all_channels();
  const index_t pitch = all + simd::lanes<T>;
  scratch_frame scratch;
  T* sums = scratch.take<T>(2 * pitch);
  T* sums_plain = sums + pitch;
  std::fill_n(sums, 2 * pitch, T(0));
  const T* w = k.weight + first;
  const T* b = k.bias + first;
  const T* mean = k.mean + first;
  const T* rstd = k.rstd + first;
  for (index_t pixel = 0; pixel < p.pixels; ++pixel) {
    const T* from = x + pixel * n;          // [n]
    const T* g = dy + pixel * all + first;  // [n]
    T* to = dz + pixel * n;                 // [n]
    simd::for_each_vector<T>(n, [&](index_t i, index_t have) {
      const vec xhat =
          (simd::load_up_to(from + i, have) - simd::load(mean + i)) * simd::load(rstd + i);
      vec d = simd::load_up_to(g + i, have);
      if constexpr (Silu)
        d *= simd::silu_derivative<T>(xhat * simd::load(w + i) + simd::load(b + i));
      // What lies behind the channels counts nothing.
      if (have < simd::lanes<T>)
        d = simd::load_partial(reinterpret_cast<const T*>(&d), have);
      simd::store_up_to(to + i, d, have);
      simd::store(sums + i, simd::load(sums + i) + d * xhat);
      simd::store(sums_plain + i, simd::load(sums_plain + i) + d);
    });
  }
  std::copy_n(sums, n, with_xhat);
  std::copy_n(sums_plain, n, plain);
}

/// What dx subtracts, per channel of one row: mean(dxhat) and mean(dxhat xhat) of the channel's
/// group, where dxhat = dz w'. Padded to whole vectors.
template <class T>
struct group_means {
  T* dxhat;
  T* dxhat_xhat;
};
/// @param with_xhat, plain sums over pixels of dz xhat and of dz, [channels] each
template <class T>
group_means<T> means_of_groups(scratch_frame& scratch,
                               const norm_problem<T>& p,
                               const row_coefficients<T>& k,
                               const T* with_xhat,
                               const T* plain) {
  const index_t c = p.all_channels();
  const index_t per = p.group_channels();
  const index_t pitch = c + simd::lanes<T>;
  const T m = T(per * p.pixels);  // values of a group
  T* const memory = scratch.take<T>(2 * pitch);
  const group_means<T> to{memory, memory + pitch};
  for (index_t first = 0; first < c; first += per) {
    T dxhat = 0;
    T dxhat_xhat = 0;
    for (index_t i = first; i < first + per; ++i) {
      dxhat += plain[i] * k.weight[i];
      dxhat_xhat += with_xhat[i] * k.weight[i];
    }
    std::fill_n(to.dxhat + first, per, dxhat / m);
    std::fill_n(to.dxhat_xhat + first, per, dxhat_xhat / m);
  }
  return to;
}

/// dx (+)= rstd (dz w' - mean(dz w') - xhat mean(dz w' xhat)) over one source of channels
/// [first, first + n).
template <class T>
void input_gradient(const norm_problem<T>& p,
                    const row_coefficients<T>& k,
                    const group_means<T>& means,
                    const T* x,
                    index_t n,
                    index_t first,
                    const T* dz,
                    T* dx,
                    bool accumulate) {
  using vec = simd::vec<T>;
  const T* w = k.weight + first;
  const T* mean = k.mean + first;
  const T* rstd = k.rstd + first;
  const T* mean_dxhat = means.dxhat + first;
  const T* mean_dxhat_xhat = means.dxhat_xhat + first;
  for (index_t pixel = 0; pixel < p.pixels; ++pixel) {
    const T* xi = x + pixel * n;   // [n]
    const T* di = dz + pixel * n;  // [n]
    T* out = dx + pixel * n;       // [n]
    simd::for_each_vector<T>(n, [&](index_t i, index_t have) {
      const vec r = simd::load(rstd + i);
      const vec xhat = (simd::load_up_to(xi + i, have) - simd::load(mean + i)) * r;
      vec v = r * (simd::load_up_to(di + i, have) * simd::load(w + i) -
                   simd::load(mean_dxhat + i) - xhat * simd::load(mean_dxhat_xhat + i));
      if (accumulate)
        v += simd::load_up_to(out + i, have);
      simd::store_up_to(out + i, v, have);
    });
  }
}

/// ds = w sum dz xhat + b sum dz and dt = sum dz of one row; then the row's sums times 1 + s,
/// as the gradients of w and b take them.
template <class T>
void modulation_gradient(const norm_problem<T>& p,
                         const norm_gradients<T>& g,
                         index_t row,
                         T* with_xhat,
                         T* plain) {
  const index_t c = p.all_channels();
  const T* const scales = p.modulation_of(row);  // [channels]
  T* const dscales = g.dmodulation ? g.dmodulation + row * 2 * c : nullptr;
  T* const dshifts = dscales ? dscales + c : nullptr;
  for (index_t i = 0; i < c; ++i) {
    if (dscales) {
      const T ds = p.weight[i] * with_xhat[i] + p.bias[i] * plain[i];
      const T dt = plain[i];
      dscales[i] = g.accumulate_modulation ? dscales[i] + ds : ds;
      dshifts[i] = g.accumulate_modulation ? dshifts[i] + dt : dt;
    }
    const T up = T(1) + scales[i];
    with_xhat[i] *= up;
    plain[i] *= up;
  }
}

/// All gradients of one row but those of w and b, whose parts go to g.partials.
template <bool Silu, class T>
void row_gradients(const norm_problem<T>& p, const norm_gradients<T>& g, index_t row) {
  const index_t c = p.all_channels();
  scratch_frame scratch;
  const row_coefficients<T> k = coefficients(scratch, p, row);
  const index_t n = p.channels;
  const index_t n2 = p.channels2;
  const T* x = p.x_of(row);                 // [pixels, n]
  const T* x2 = p.x2_of(row);               // [pixels, n2], or null
  const T* dy = g.dy + row * p.row_size();  // [pixels, n + n2]
  T* with_xhat = g.partials + row * 2 * c;  // [n + n2]
  T* plain = with_xhat + c;                 // [n + n2]
  T* dz = scratch.take<T>(p.row_size());    // [pixels, n]
  T* dz2 = dz + p.pixels * n;               // [pixels, n2]
  gradient_sums<Silu>(p, k, x, n, 0, dy, dz, with_xhat, plain);
  if (x2)
    gradient_sums<Silu>(p, k, x2, n2, n, dy, dz2, with_xhat + n, plain + n);
  const group_means<T> means = means_of_groups(scratch, p, k, with_xhat, plain);
  if (g.dx) {
    T* const dx = g.dx + row * p.pixels * n;
    input_gradient(p, k, means, x, n, 0, dz, dx, g.accumulate);
  }
  if (x2 && g.dx2) {
    T* const dx2 = g.dx2 + row * p.pixels * n2;
    input_gradient(p, k, means, x2, n2, n, dz2, dx2, g.accumulate2);
  }
  if (p.modulation)
    modulation_gradient(p, g, row, with_xhat, plain);
}

/// Sums over the pixels of one source [pixels, n] of (x - mean)^2, into sums [n]. They are
/// added up apart from `sums`: a partial vector must not spill into the next source's.
/// @param mean [n], padded to whole vectors
template <class T>
void squares_about(index_t pixels, index_t n, const T* x, const T* mean, T* sums) {
  scratch_frame scratch;
  T* squares = scratch.take<T>(n + simd::lanes<T>);
  std::fill_n(squares, n + simd::lanes<T>, T(0));
  for (index_t pixel = 0; pixel < pixels; ++pixel) {
    const T* from = x + pixel * n;
    simd::for_each_vector<T>(n, [&](index_t i, index_t have) {
      const simd::vec<T> d = simd::load_up_to(from + i, have) - simd::load(mean + i);
      simd::store(squares + i, simd::load(squares + i) + d * d);
    });
  }
  std::copy_n(squares, n, sums);
}

/// The sum of a group's values, in their order.
template <class T>
T sum_of(const T* values, index_t count) {
  T sum = 0;
  for (index_t i = 0; i < count; ++i)
    sum += values[i];
  return sum;
}

}  // namespace norm_kernel

/// Fills p.statistics, [rows, groups, 2], in two passes over each row (mean first: no
/// cancellation).
template <class T>
void norm_statistics(const cpu& b, const norm_problem<T>& p) {
  const index_t pitch = p.all_channels() + simd::lanes<T>;
  const index_t per = p.group_channels();
  const T m = T(per * p.pixels);  // values of a group
  b.for_each_row(p.rows, p.row_size(), [&](index_t row) {
    scratch_frame scratch;
    T* sums = scratch.take<T>(2 * pitch);  // over pixels, [channels + channels2]
    T* mean = sums + pitch;                // of its group at each channel
    T* statistics = p.statistics_of(row);  // [groups, 2]
    const auto each_source = [&](auto&& f) {
      f(p.x_of(row), p.channels, index_t(0));
      if (p.channels2)
        f(p.x2_of(row), p.channels2, p.channels);
    };
    each_source([&](const T* x, index_t n, index_t first) {
      reduce_kernel::add_rows(p.pixels, n, x, n, sums + first, false);
    });
    for (index_t g = 0; g < p.groups; ++g) {
      const T mean_of_group = norm_kernel::sum_of(sums + g * per, per) / m;
      statistics[2 * g] = mean_of_group;
      std::fill_n(mean + g * per, per, mean_of_group);
    }
    each_source([&](const T* x, index_t n, index_t first) {
      norm_kernel::squares_about(p.pixels, n, x, mean + first, sums + first);
    });
    for (index_t g = 0; g < p.groups; ++g) {
      const T variance = norm_kernel::sum_of(sums + g * per, per) / m;
      statistics[2 * g + 1] = T(1) / std::sqrt(variance + p.epsilon);
    }
  });
}

/// y from x and p.statistics.
template <class T>
void norm_apply(const cpu& b, const norm_problem<T>& p) {
  b.for_each_row(p.rows, p.row_size(), [&](index_t row) {
    scratch_frame scratch;
    const auto k = norm_kernel::coefficients(scratch, p, row);
    T* const y = p.y_of(row);  // [pixels, channels + channels2]
    const auto run = [&](const T* x, index_t n, index_t first) {
      if (p.silu)
        norm_kernel::apply<true>(p, k, x, n, first, y);
      else
        norm_kernel::apply<false>(p, k, x, n, first, y);
    };
    run(p.x_of(row), p.channels, 0);
    if (p.channels2)
      run(p.x2_of(row), p.channels2, p.channels);
  });
}

/// @see norm_gradients.
template <class T>
void norm_backward(const cpu& b, const norm_problem<T>& p, const norm_gradients<T>& g) {
  const index_t c = p.all_channels();
  b.for_each_row(p.rows, p.row_size(), [&](index_t row) {
    if (p.silu)
      norm_kernel::row_gradients<true>(p, g, row);
    else
      norm_kernel::row_gradients<false>(p, g, row);
  });
  // partials are [rows, (dw, db)]: their column sums are the parameters' gradients.
  if (g.dweight || g.dbias) {
    scratch_frame scratch;
    T* sums = scratch.take<T>(2 * c);
    g.pieces.each(p.rows, [&](index_t first, index_t rows) {
      const T* shares = g.partials + first * 2 * c;  // [rows, 2 c]
      column_sums(b, rows, 2 * c, shares, sums, false);
      for (index_t i = 0; i < c; ++i) {
        if (g.dweight)
          g.dweight[i] += sums[i];
        if (g.dbias)
          g.dbias[i] += sums[c + i];
      }
    });
  }
}

}  // namespace multistage::inline MULTISTAGE_ISA
