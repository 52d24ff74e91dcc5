// Group normalisation on the CPU; a task is one row. With w' = w (1 + s_n), b' = b (1 + s_n) + t_n, z = xhat w' + b', y = act(z) and
// dz = dy act'(z), over a group of m values:
//   dx = rstd (dz w' - mean(dz w') - xhat mean(dz w' xhat)),
//   dw = sum_n (1 + s_n) sum_p dz xhat,  db = sum_n (1 + s_n) sum_p dz,  ds_n = w sum_p dz xhat + b sum_p dz,  dt_n = sum_p dz.
#pragma once
#include <cmath>

#include "../primitives.hpp"
#include "math.hpp"
#include "reduce.hpp"

namespace multistage {
namespace norm_kernel {

/// The effective scale and shift of each channel of one row, and the statistics spread over channels.
template <class T>
struct row_coefficients {
  T *weight, *bias, *mean, *rstd;
};
template <class T>
row_coefficients<T> coefficients(const norm_problem<T>& p, index_t row) {
  const index_t c = p.all_channels(), per = c / p.groups;
  T* s = thread_scratch<T>(3, 4 * c);
  row_coefficients<T> k{s, s + c, s + 2 * c, s + 3 * c};
  const T* m = p.modulation ? p.modulation + row * 2 * c : nullptr;
  const T* stat = p.statistics + row * p.groups * 2;
  for (index_t i = 0; i < c; ++i) {
    const T up = m ? T(1) + m[i] : T(1);
    k.weight[i] = p.weight[i] * up;
    k.bias[i] = p.bias[i] * up + (m ? m[c + i] : T(0));
    k.mean[i] = stat[i / per * 2];
    k.rstd[i] = stat[i / per * 2 + 1];
  }
  return k;
}

/// y = act((x - mean) rstd w + b) over one source of channels [first, first + n).
template <bool Silu, class T>
void apply(const norm_problem<T>& p, const row_coefficients<T>& k, const T* x, index_t n, index_t first, T* y) {
  const index_t all = p.all_channels();
  T* scale = thread_scratch<T>(4, 2 * all);
  T* shift = scale + all;
  for (index_t i = 0; i < n; ++i) {
    scale[i] = k.rstd[first + i] * k.weight[first + i];
    shift[i] = k.bias[first + i] - k.mean[first + i] * scale[i];
  }
  for (index_t pixel = 0; pixel < p.pixels; ++pixel) {
    const T* MULTISTAGE_RESTRICT from = x + pixel * n;
    T* MULTISTAGE_RESTRICT to = y + pixel * all + first;
    for (index_t i = 0; i < n; ++i) {
      const T z = from[i] * scale[i] + shift[i];
      to[i] = Silu ? z / (T(1) + vector_math::exp(-z)) : z;
    }
  }
}

/// Fills dz = dy act'(z) into `dz`, and adds sum_p dz xhat and sum_p dz into `with_xhat` and `plain`, both [n] of this source.
template <bool Silu, class T>
void gradient_sums(const norm_problem<T>& p, const row_coefficients<T>& k, const T* x, index_t n, index_t first, const T* dy, T* dz, T* with_xhat, T* plain) {
  const index_t all = p.all_channels();
  const T *w = k.weight + first, *b = k.bias + first, *mean = k.mean + first, *rstd = k.rstd + first;
  for (index_t pixel = 0; pixel < p.pixels; ++pixel) {
    const T* MULTISTAGE_RESTRICT from = x + pixel * n;
    const T* MULTISTAGE_RESTRICT g = dy + pixel * all + first;
    T* MULTISTAGE_RESTRICT to = dz + pixel * n;
    for (index_t i = 0; i < n; ++i) {
      const T xhat = (from[i] - mean[i]) * rstd[i];
      T d = g[i];
      if (Silu) {
        const T z = xhat * w[i] + b[i], s = T(1) / (T(1) + vector_math::exp(-z));
        d *= s * (T(1) + z * (T(1) - s));
      }
      to[i] = d;
      with_xhat[i] += d * xhat;
      plain[i] += d;
    }
  }
}

}  // namespace norm_kernel

/// Fills p.statistics, [rows, groups, 2], in two passes over each row (mean first: no cancellation).
template <class T>
void norm_statistics(const cpu& b, const norm_problem<T>& p) {
  const index_t c = p.all_channels(), per = c / p.groups;
  const T m = T(per * p.pixels);
  b.pool().parallel_for(p.rows, [&](index_t row) {
    T* sums = thread_scratch<T>(3, 3 * c);
    T* mean = sums + c;
    T* stat = p.statistics + row * p.groups * 2;
    const auto each_source = [&](auto&& f) {
      f(p.x + row * p.pixels * p.channels, p.channels, index_t(0));
      if (p.channels2) f(p.x2 + row * p.pixels * p.channels2, p.channels2, p.channels);
    };
    each_source([&](const T* x, index_t n, index_t first) { reduce_kernel::add_rows(p.pixels, n, x, sums + first, false); });
    for (index_t g = 0; g < p.groups; ++g) {
      T s = 0;
      for (index_t i = 0; i < per; ++i) s += sums[g * per + i];
      stat[2 * g] = s / m;
      for (index_t i = 0; i < per; ++i) mean[g * per + i] = s / m;
    }
    std::fill_n(sums, c, T(0));
    each_source([&](const T* x, index_t n, index_t first) {
      T* MULTISTAGE_RESTRICT s = sums + first;
      const T* MULTISTAGE_RESTRICT mu = mean + first;
      for (index_t pixel = 0; pixel < p.pixels; ++pixel)
        for (index_t i = 0; i < n; ++i) {
          const T d = x[pixel * n + i] - mu[i];
          s[i] += d * d;
        }
    });
    for (index_t g = 0; g < p.groups; ++g) {
      T s = 0;
      for (index_t i = 0; i < per; ++i) s += sums[g * per + i];
      stat[2 * g + 1] = T(1) / std::sqrt(s / m + p.epsilon);
    }
  });
}

/// y from x and p.statistics.
template <class T>
void norm_apply(const cpu& b, const norm_problem<T>& p) {
  b.pool().parallel_for(p.rows, [&](index_t row) {
    const auto k = norm_kernel::coefficients(p, row);
    T* y = p.y + row * p.pixels * p.all_channels();
    const auto run = [&](const T* x, index_t n, index_t first) {
      p.silu ? norm_kernel::apply<true>(p, k, x, n, first, y) : norm_kernel::apply<false>(p, k, x, n, first, y);
    };
    run(p.x + row * p.pixels * p.channels, p.channels, 0);
    if (p.channels2) run(p.x2 + row * p.pixels * p.channels2, p.channels2, p.channels);
  });
}

/// @see norm_gradients.
template <class T>
void norm_backward(const cpu& b, const norm_problem<T>& p, const norm_gradients<T>& g) {
  const index_t c = p.all_channels(), per = c / p.groups;
  const T m = T(per * p.pixels);
  b.pool().parallel_for(p.rows, [&](index_t row) {
    const auto k = norm_kernel::coefficients(p, row);
    T* with_xhat = g.partials + row * 2 * c;
    T* plain = with_xhat + c;
    std::fill_n(with_xhat, 2 * c, T(0));
    const T* dy = g.dy + row * p.pixels * c;
    T* dz = thread_scratch<T>(1, p.pixels * c);
    const T *x = p.x + row * p.pixels * p.channels, *x2 = p.channels2 ? p.x2 + row * p.pixels * p.channels2 : nullptr;
    T* dz2 = dz + p.pixels * p.channels;
    const auto sums = [&](const T* from, index_t n, index_t first, T* to) {
      p.silu ? norm_kernel::gradient_sums<true>(p, k, from, n, first, dy, to, with_xhat + first, plain + first)
             : norm_kernel::gradient_sums<false>(p, k, from, n, first, dy, to, with_xhat + first, plain + first);
    };
    sums(x, p.channels, 0, dz);
    if (x2) sums(x2, p.channels2, p.channels, dz2);
    T* mean_dxhat = thread_scratch<T>(4, 2 * c);
    T* mean_dxhat_xhat = mean_dxhat + c;
    for (index_t q = 0; q < p.groups; ++q) {
      T s = 0, t = 0;
      for (index_t i = q * per; i < (q + 1) * per; ++i) {
        s += plain[i] * k.weight[i];
        t += with_xhat[i] * k.weight[i];
      }
      for (index_t i = q * per; i < (q + 1) * per; ++i) {
        mean_dxhat[i] = s / m;
        mean_dxhat_xhat[i] = t / m;
      }
    }
    const auto write = [&](const T* from, index_t n, index_t first, const T* d, T* to, bool accumulate) {
      if (!to) return;
      to += row * p.pixels * n;
      const T *w = k.weight + first, *mean = k.mean + first, *rstd = k.rstd + first, *a = mean_dxhat + first, *e = mean_dxhat_xhat + first;
      for (index_t pixel = 0; pixel < p.pixels; ++pixel) {
        const T* MULTISTAGE_RESTRICT xi = from + pixel * n;
        const T* MULTISTAGE_RESTRICT di = d + pixel * n;
        T* MULTISTAGE_RESTRICT out = to + pixel * n;
        for (index_t i = 0; i < n; ++i) {
          const T xhat = (xi[i] - mean[i]) * rstd[i], v = rstd[i] * (di[i] * w[i] - a[i] - xhat * e[i]);
          out[i] = accumulate ? out[i] + v : v;
        }
      }
    };
    write(x, p.channels, 0, dz, g.dx, g.accumulate);
    if (x2) write(x2, p.channels2, p.channels, dz2, g.dx2, g.accumulate2);
    if (p.modulation) {
      const T* mod = p.modulation + row * 2 * c;
      for (index_t i = 0; i < c; ++i) {
        if (g.dmodulation) {
          T* d = g.dmodulation + row * 2 * c;
          const T ds = p.weight[i] * with_xhat[i] + p.bias[i] * plain[i], dt = plain[i];
          d[i] = g.accumulate_modulation ? d[i] + ds : ds;
          d[c + i] = g.accumulate_modulation ? d[c + i] + dt : dt;
        }
        with_xhat[i] *= T(1) + mod[i];
        plain[i] *= T(1) + mod[i];
      }
    }
  });
  // partials are [rows, (dw, db)]: their column sums are the parameters' gradients.
  if (g.dweight || g.dbias) {
    T* sums = thread_scratch<T>(4, 2 * c);
    column_sums(b, p.rows, 2 * c, g.partials, sums, false);
    for (index_t i = 0; i < c; ++i) {
      if (g.dweight) g.dweight[i] += sums[i];
      if (g.dbias) g.dbias[i] += sums[c + i];
    }
  }
}

}  // namespace multistage
