// UniPC (Zhao, Bai, Rao, Zhou, Lu, arXiv 2302.04867, algorithms 1 and 2) on the predicted image: a predictor of order p and, from the second step on,
// a corrector that uses the evaluation of the next step, so that it costs none. bh1: B(h) = -h; bh2: B(h) = exp(-h) - 1.
#pragma once
#include <array>

#include "walk.hpp"

namespace multistage {

enum class unipc_variant { bh1, bh2 };

struct unipc {
  std::vector<double> levels;  // descending, to 0 or above
  int order = 2;               // 1 to 3
  unipc_variant variant = unipc_variant::bh2;
  stage_crossing crossing{};

  std::vector<double> sigmas() const {
    require<value_error>(order >= 1 && order <= 3, "unipc: order = ", order, " is outside 1..3");
    return crossing.aligned(sampling::check_levels("unipc", levels));
  }
  double start_scale() const { return std::sqrt(1 + levels.front() * levels.front()); }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&&, Observe&& observe) const {
    const std::vector<double> s = sigmas();
    const int n = int(s.size()) - 1;
    sampling::work<Backend> w{b, x};
    auto d = w.make(), last = w.make();
    typename sampling::work<Backend>::memory data{{}, {}, 3};
    int used = 0;  // order of the last prediction
    for (int i = 0; i < n; ++i) {
      denoise(view<const double>(x), s[i], d.view());
      if (!observe(i, s[i], view<const double>(x), std::as_const(d).view())) return;
      if (used > 0 && !crossing.keeps_history(s[i - 1], s[i]))
        data.forget();  // the new stage's value corrects nothing that the old one predicted
      else if (used > 0) {
        const step c(data.levels, s[i], used, variant, used);
        const double r = s[i] / s[i - 1];
        // x = r last - phi m0 - B (sum rho_q (m_q - m_0) / r_q + rho_p (D - m_0))
        double to_first = -c.phi;
        std::array<double, 2> to_older{};
        for (int q = 0; q + 1 < used; ++q) {
          to_older[std::size_t(q)] = -c.b * c.rho[std::size_t(q)] / c.r[std::size_t(q)];
          to_first -= to_older[std::size_t(q)];
        }
        const double to_new = -c.b * c.rho[std::size_t(used - 1)];
        to_first -= to_new;
        if (used == 1)
          w.combine(x.data, {{r, last.data()}, {to_first, data[0]}, {to_new, d.data()}});
        else if (used == 2)
          w.combine(x.data, {{r, last.data()}, {to_first, data[0]}, {to_new, d.data()}, {to_older[0], data[1]}});
        else
          w.combine(x.data, {{r, last.data()}, {to_first, data[0]}, {to_new, d.data()}, {to_older[0], data[1]}, {to_older[1], data[2]}});
      }
      b.copy(d.data(), data.push(w, s[i]).data(), w.n);
      used = std::min({order, n - i, data.size()});
      b.copy(x.data, last.data(), w.n);
      if (s[i + 1] == 0) {
        b.copy(d.data(), x.data, w.n);
        continue;
      }
      const step c(data.levels, s[i + 1], used, variant, used - 1);
      const double r = s[i + 1] / s[i];
      double to_first = -c.phi;
      std::array<double, 2> to_older{};
      for (int q = 0; q + 1 < used; ++q) {
        to_older[std::size_t(q)] = -c.b * c.rho[std::size_t(q)] / c.r[std::size_t(q)];
        to_first -= to_older[std::size_t(q)];
      }
      if (used == 1)
        w.combine(x.data, {{r, x.data}, {to_first, data[0]}});
      else if (used == 2)
        w.combine(x.data, {{r, x.data}, {to_first, data[0]}, {to_older[0], data[1]}});
      else
        w.combine(x.data, {{r, x.data}, {to_first, data[0]}, {to_older[0], data[1]}, {to_older[1], data[2]}});
    }
  }

 private:
  /// Coefficients of a step from at[0] to `to`, with the system R rho = b of the paper's theorem 3.1 cut to `unknowns`.
  struct step {
    double phi, b;
    std::array<double, 2> r{};
    std::array<double, 3> rho{};
    step(const std::vector<double>& at, double to, int k, unipc_variant variant, int unknowns) {
      const double h = std::log(at[0] / to);
      for (int q = 0; q + 1 < k; ++q) r[std::size_t(q)] = std::log(at[0] / at[std::size_t(q) + 1]) / h;
      phi = std::expm1(-h);
      b = variant == unipc_variant::bh1 ? -h : phi;
      if (unknowns == 0) return;
      if (unknowns == 1) {
        rho[0] = 0.5;
        return;
      }
      std::array<double, 3> right{}, nodes{r[0], r[1], 1};
      nodes[std::size_t(k - 1)] = 1;
      double p = phi / -h - 1, factorial = 1;
      for (int q = 1; q <= unknowns; ++q) {
        right[std::size_t(q - 1)] = p * factorial / b;
        factorial *= q + 1;
        p = p / -h - 1 / factorial;
      }
      solve_vandermonde(nodes, right, unknowns);
    }
    /// sum_j nodes[j]^i rho[j] = right[i] by Gaussian elimination with pivots.
    void solve_vandermonde(const std::array<double, 3>& nodes, std::array<double, 3> right, int m) {
      double a[3][3];
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < m; ++j) a[i][j] = std::pow(nodes[std::size_t(j)], i);
      for (int c = 0; c < m; ++c) {
        int pivot = c;
        for (int i = c + 1; i < m; ++i)
          if (std::fabs(a[i][c]) > std::fabs(a[pivot][c])) pivot = i;
        std::swap(a[c], a[pivot]);
        std::swap(right[std::size_t(c)], right[std::size_t(pivot)]);
        for (int i = c + 1; i < m; ++i) {
          const double f = a[i][c] / a[c][c];
          for (int j = c; j < m; ++j) a[i][j] -= f * a[c][j];
          right[std::size_t(i)] -= f * right[std::size_t(c)];
        }
      }
      for (int i = m - 1; i >= 0; --i) {
        double v = right[std::size_t(i)];
        for (int j = i + 1; j < m; ++j) v -= a[i][j] * rho[std::size_t(j)];
        rho[std::size_t(i)] = v / a[i][i];
      }
    }
  };
};

}  // namespace multistage
