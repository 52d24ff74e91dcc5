// UniPC (Zhao, Bai, Rao, Zhou, Lu, arXiv 2302.04867, algorithms 1 and 2) on the predicted
// image: a predictor of order p and, from the second step on, a corrector that uses the
// evaluation of the next step, so that it costs none. bh1: B(h) = -h; bh2: B(h) = exp(-h) - 1.
#pragma once
#include "walk.hpp"

namespace multistage {

/// The paper's two choices of B(h).
enum class unipc_variant { bh1, bh2 };
constexpr std::array<const char*, 2> option_names(unipc_variant) {
  return {"bh1", "bh2"};
}

/// UniPC on the predicted image.
struct unipc {
  int num_steps = 18;
  double sigma_min = 0.002;
  double sigma_max = 80;
  spacing steps = spacing::log_snr;
  any_schedule schedule{};
  std::vector<double> levels{};
  int order = 2;
  unipc_variant variant = unipc_variant::bh2;
  stage_crossing crossing{};

  static constexpr const char* name() {
    return "unipc";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"order", "values that a step remembers", between(1, 3)}, s.order);
    visit(option{"variant", "the paper's B(h)"}, s.variant);
    sampling::crossing_field(s, visit);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    return sampling::idle_schedule(*this, option);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return crossing.aligned(sampling::levels_of(name(), *this, true));
  }
  double start_scale() const {
    return sampling::unit_start(sigmas().front());
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&&, Observe&& observe)
      const {
    const std::vector<double> s = sigmas();
    const int n = int(s.size()) - 1;
    sampling::work<Backend> w{b, x};
    auto d = w.make();
    auto last = w.make();
    typename sampling::work<Backend>::memory data{{}, {}, 3};
    int used = 0;  // order of the last prediction
    for (int i = 0; i < n; ++i) {
      denoise(view<const double>(x), s[i], d.view());
      if (!observe(i, s[i], view<const double>(x), std::as_const(d).view()))
        return;
      if (used > 0 && !crossing.keeps_history(s[i - 1], s[i]))
        data.forget();  // the new stage's value corrects nothing that the old one predicted
      else if (used > 0) {
        // x = r last - phi m0 - B (sum rho_q (m_q - m_0) / r_q + rho_p (D - m_0))
        const step c(data.levels, s[i], used, variant, used);
        const double to_new = -c.b * c.rho[std::size_t(used - 1)];
        w.combine(x.data, c.weigh({{s[i] / s[i - 1], last.data()}}, data, to_new, d.data()));
      }
      b.copy(d.data(), data.push(w, s[i]).data(), w.n);
      used = crossing.order(std::min({order, n - i, data.size()}), data.levels, s[i + 1]);
      b.copy(x.data, last.data(), w.n);
      if (s[i + 1] == 0) {
        b.copy(d.data(), x.data, w.n);
        continue;
      }
      const step c(data.levels, s[i + 1], used, variant, used - 1);
      w.combine(x.data, c.weigh({{s[i + 1] / s[i], x.data}}, data));
    }
  }

 private:
  /// Coefficients of a step from at[0] to `to`, with the system R rho = b of the paper's
  /// theorem 3.1 cut to `unknowns`.
  struct step {
    double phi;
    double b;
    int older;  // values before the newest
    std::array<double, 2> r{};
    std::array<double, 3> rho{};
    step(const std::vector<double>& at, double to, int k, unipc_variant variant, int unknowns) {
      const double h = std::log(at[0] / to);
      older = k - 1;
      for (int q = 0; q + 1 < k; ++q)
        r[std::size_t(q)] = std::log(at[0] / at[std::size_t(q) + 1]) / h;
      phi = std::expm1(-h);
      b = variant == unipc_variant::bh1 ? -h : phi;
      if (unknowns == 0)
        return;
      if (unknowns == 1) {
        rho[0] = 0.5;
        return;
      }
      std::array<double, 3> right{};
      std::array<double, 3> nodes{r[0], r[1], 1};
      nodes[std::size_t(k - 1)] = 1;
      double p = phi / -h - 1;
      double factorial = 1;
      for (int q = 1; q <= unknowns; ++q) {
        right[std::size_t(q - 1)] = p * factorial / b;
        factorial *= q + 1;
        p = p / -h - 1 / factorial;
      }
      solve_vandermonde(nodes, right, unknowns);
    }
    /// start - phi m_0 - B sum rho_q (m_q - m_0) / r_q, and to_new (D - m_0) where there is a
    /// newer value D.
    template <class Memory>
    sampling::sum weigh(sampling::sum start,
                        const Memory& m,
                        double to_new = 0,
                        const double* d = nullptr) const {
      std::array<double, 2> to_older{};
      double to_first = -phi;
      for (std::size_t q = 0; q < std::size_t(older); ++q) {
        to_older[q] = -b * rho[q] / r[q];
        to_first -= to_older[q];
      }
      if (d)
        to_first -= to_new;
      start.add(to_first, m[0]);
      if (d)
        start.add(to_new, d);
      for (int q = 0; q < older; ++q)
        start.add(to_older[std::size_t(q)], m[q + 1]);
      return start;
    }
    /// sum_j nodes[j]^i rho[j] = right[i] by Gaussian elimination with pivots.
    void solve_vandermonde(const std::array<double, 3>& nodes,
                           std::array<double, 3> right,
                           int m) {
      double a[3][3];
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < m; ++j)
          a[i][j] = std::pow(nodes[std::size_t(j)], i);
      for (int c = 0; c < m; ++c) {
        int pivot = c;
        for (int i = c + 1; i < m; ++i)
          if (std::fabs(a[i][c]) > std::fabs(a[pivot][c]))
            pivot = i;
        std::swap(a[c], a[pivot]);
        std::swap(right[std::size_t(c)], right[std::size_t(pivot)]);
        for (int i = c + 1; i < m; ++i) {
          const double f = a[i][c] / a[c][c];
          for (int j = c; j < m; ++j)
            a[i][j] -= f * a[c][j];
          right[std::size_t(i)] -= f * right[std::size_t(c)];
        }
      }
      for (int i = m - 1; i >= 0; --i) {
        double v = right[std::size_t(i)];
        for (int j = i + 1; j < m; ++j)
          v -= a[i][j] * rho[std::size_t(j)];
        rho[std::size_t(i)] = v / a[i][i];
      }
    }
  };
};

}  // namespace multistage
