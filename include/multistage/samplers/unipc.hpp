// UniPC (Zhao, Bai, Rao, Zhou, Lu, arXiv 2302.04867, algorithms 1 and 2) on the predicted
// image: a predictor of order p and, from the second step on, a corrector that uses the
// evaluation of the next step, so that it costs none. bh1: B(h) = -h; bh2: B(h) = exp(-h) - 1.
//
//   sample(model, unipc{.num_steps = 10}, {.seeds = "0-15"});
#pragma once
#include "../diffusion/denoiser.hpp"
#include "level_options.hpp"
#include "walk.hpp"

namespace multistage {

/// The paper's two choices of B(h).
enum class unipc_variant { bh1, bh2 };
/// The names of `unipc_variant`, in order.
constexpr std::array<const char*, 2> option_names(unipc_variant) {
  return {"bh1", "bh2"};
}

/// UniPC on the predicted image.
struct unipc {
  int num_steps = 18;                ///< steps down the noise levels
  double sigma_min = 0.002;          ///< lowest noise level above 0; 0: the schedule's own
  double sigma_max = 80;             ///< highest noise level; 0: the schedule's own
  spacing steps = spacing::log_snr;  ///< how the levels lie between them
  any_schedule schedule{};           ///< in whose time spacings divide
  std::vector<double> levels{};      ///< the ends of the steps, in the place of all these
  int order = 2;                     ///< values that a step remembers
  unipc_variant variant = unipc_variant::bh2;  ///< the paper's B(h)
  stage_crossing crossing{};                   ///< what is done where the stage changes

  /// What programs call it.
  static constexpr const char* name() {
    return "unipc";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"order", "values that a step remembers", between(1, 3)}, s.order);
    visit(option{"variant", "the paper's B(h)"}, s.variant);
    sampling::crossing_field(s, visit);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return crossing.aligned(sampling::levels_of(*this, true));
  }
  /// What latents of unit variance are multiplied by: they have it in x_t.
  double start_scale() const {
    return sampling::unit_start(sigmas().front());
  }

  /// Moves x [rows, h, w, c] from the first level to the last. @see samplers/walk.hpp
  template <class Backend, denoiser Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> start,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> s = sigmas();
    const int n = int(s.size()) - 1;
    sampling::walk w(b, start, denoise, noise, observe);
    auto past = w.remember(3);  // D
    auto denoised = w.make();
    auto last = w.make();  // x before the last prediction
    int used = 0;          // order of the last prediction
    for (int i = 0; i < n; ++i) {
      const double sigma = s[std::size_t(i)];
      const double to = s[std::size_t(i) + 1];
      if (!w.begin_step(i, sigma, denoised))
        return;
      if (used > 0) {
        const double before = s[std::size_t(i) - 1];
        if (!crossing.keeps_history(before, sigma)) {
          past.forget();  // the new stage's value corrects nothing that the old one predicted
        } else {
          const step corrected(past.levels(), sigma, used, variant, used);
          w.x = corrected.add_to(sigma / before * last, past, denoised);
        }
      }
      past.push(sigma) = denoised;
      const int most = std::min({order, n - i, past.size()});
      used = crossing.order(most, past.levels(), to);
      last = w.x;
      if (to == 0) {
        w.x = denoised;
        continue;
      }
      const step predicted(past.levels(), to, used, variant, used - 1);
      w.x = predicted.add_to(to / sigma * w.x, past);
    }
  }

 private:
  /// A step from the newest level of `at` to `to`, with the system R rho = b of the paper's
  /// theorem 3.1 cut to `unknowns`:
  ///   x' = r x - phi m_0 - B (sum_q rho_q (m_q - m_0) / r_q + rho_p (D - m_0))
  /// for the values m_q of the levels and, in the corrector, D at the step's end.
  struct step {
    double phi;                   ///< exp(-h) - 1
    double b;                     ///< B(h)
    int older;                    ///< values before the newest
    std::array<double, 2> r{};    ///< their distances in lambda, as shares of the step's
    std::array<double, 3> rho{};  ///< the system's solution

    step(const std::vector<double>& at, double to, int k, unipc_variant variant, int unknowns) {
      const double h = std::log(at[0] / to);
      older = k - 1;
      for (std::size_t q = 0; q < std::size_t(older); ++q)
        r[q] = std::log(at[0] / at[q + 1]) / h;
      phi = std::expm1(-h);
      b = variant == unipc_variant::bh1 ? -h : phi;
      if (unknowns == 1)
        rho[0] = 0.5;  // to the order of the method, as the paper has it
      if (unknowns < 2)
        return;
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
    /// The predictor: the sum and the values' terms.
    template <class History>
    sampling::combination add_to(sampling::combination sum, const History& m) const {
      const std::array<double, 3> c = weights(0);
      return sum + m.sum(c, older + 1);
    }
    /// The corrector, with D at the step's end.
    template <class History>
    sampling::combination add_to(sampling::combination sum,
                                 const History& m,
                                 const sampling::combination& at_end) const {
      const double new_weight = -b * rho[std::size_t(older)];
      const std::array<double, 3> c = weights(new_weight);
      sum += c[0] * m[0];
      sum += new_weight * at_end;
      for (int q = 1; q <= older; ++q)
        sum += c[std::size_t(q)] * m[q];
      return sum;
    }
    /// What the values m_0, m_1, ... count. @param at_end what D at the step's end does
    std::array<double, 3> weights(double at_end) const {
      std::array<double, 3> c{-phi};
      for (std::size_t q = 0; q < std::size_t(older); ++q) {
        c[q + 1] = -b * rho[q] / r[q];
        c[0] -= c[q + 1];
      }
      c[0] -= at_end;
      return c;
    }
    /// sum_j nodes[j]^i rho[j] = right[i] by Gaussian elimination with pivots.
    void solve_vandermonde(const std::array<double, 3>& nodes,
                           std::array<double, 3> right,
                           int unknowns) {
      const std::size_t m = std::size_t(unknowns);
      double a[3][3];
      for (std::size_t i = 0; i < m; ++i)
        for (std::size_t j = 0; j < m; ++j)
          a[i][j] = std::pow(nodes[j], int(i));
      for (std::size_t c = 0; c < m; ++c) {
        // The row with the largest entry comes first.
        std::size_t pivot = c;
        for (std::size_t i = c + 1; i < m; ++i)
          if (std::fabs(a[i][c]) > std::fabs(a[pivot][c]))
            pivot = i;
        std::swap(a[c], a[pivot]);
        std::swap(right[c], right[pivot]);
        // The rows below lose their entry of this column.
        for (std::size_t i = c + 1; i < m; ++i) {
          const double f = a[i][c] / a[c][c];
          for (std::size_t j = c; j < m; ++j)
            a[i][j] -= f * a[c][j];
          right[i] -= f * right[c];
        }
      }
      // From the last unknown, which stands alone in its row, to the first.
      for (std::size_t i = m; i-- > 0;) {
        double v = right[i];
        for (std::size_t j = i + 1; j < m; ++j)
          v -= a[i][j] * rho[j];
        rho[i] = v / a[i][i];
      }
    }
  };
};

}  // namespace multistage
