// DPM-Solver++ for the diffusion SDE (Lu et al., arXiv 2211.01095, section 5), first order and
// second order multistep (midpoint), data prediction:
//   x' = sigma'/sigma exp(-h) x + (1 - exp(-2h)) (D_0 + 1/2 (D_0 - D_1) h / h_before) + sigma'
//   sqrt(1 - exp(-2h)) z,  h = ln(sigma / sigma').
// First order at the first and the last step; one draw of noise a step.
#pragma once
#include "../diffusion/denoiser.hpp"
#include "level_options.hpp"
#include "walk.hpp"

namespace multistage {

/// DPM-Solver++ for the SDE.
struct dpm_solver_sde {
  int num_steps = 18;                ///< steps down the noise levels
  double sigma_min = 0.002;          ///< lowest noise level above 0; 0: the schedule's own
  double sigma_max = 80;             ///< highest noise level; 0: the schedule's own
  spacing steps = spacing::log_snr;  ///< how the levels lie between them
  any_schedule schedule{};           ///< in whose time spacings divide
  std::vector<double> levels{};      ///< the ends of the steps, in the place of all these
  int order = 2;                     ///< values that a step remembers
  stage_crossing crossing{};         ///< what is done where the stage changes

  /// What programs call it.
  static constexpr const char* name() {
    return "dpm_solver_sde";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"order", "values that a step remembers", between(1, 2)}, s.order);
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
    auto past = w.remember(2);  // D
    auto z = w.make();
    for (int i = 0; i < n; ++i) {
      const double sigma = s[std::size_t(i)];
      const double to = s[std::size_t(i) + 1];
      if (i > 0 && !crossing.keeps_history(s[std::size_t(i) - 1], sigma))
        past.forget();
      auto denoised = past.push(sigma);
      if (!w.begin_step(i, sigma, denoised))
        return;
      w.noise(i, z);
      const double r = to / sigma;  // exp(-h)
      const double q = 1 - r * r;
      const int k = i + 1 < n && to > 0
                        ? crossing.order(std::min(order, past.size()), past.levels(), to)
                        : 1;
      const double bend =
          k == 2 ? 0.5 * q * std::log(r) / std::log(sigma / past.levels()[1]) : 0;
      w.x = r * r * w.x + past.sum(std::array{q + bend, -bend}, k) + to * std::sqrt(q) * z;
    }
  }
};

}  // namespace multistage
