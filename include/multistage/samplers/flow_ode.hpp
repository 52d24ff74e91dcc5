// The ODE of flow matching (Lipman et al., arXiv 2210.02747; Liu et al., arXiv 2209.03003),
// dx_t/dt = E[n - y | x_t] along x_t = (1 - t) y + t n, by Euler's or Heun's method in t. With
// noise over signal sigma = t / (1 - t) the velocity is (x - D) / sigma - D, whatever the
// network predicts. Euler's steps are those of DDIM on the same levels; Heun's differ from
// EDM's, since they average velocities in t.
//
//   sample(model, flow_ode{.num_steps = 25, .heun = true}, {.seeds = "0-15"});
#pragma once
#include "../diffusion/denoiser.hpp"
#include "level_options.hpp"
#include "walk.hpp"

namespace multistage {

/// Flow matching's ODE.
struct flow_ode {
  int num_steps = 18;                ///< steps down the noise levels
  double sigma_min = 0.002;          ///< lowest noise level above 0; 0: the schedule's own
  double sigma_max = 80;             ///< highest noise level; 0: the schedule's own
  spacing steps = spacing::log_snr;  ///< how the levels lie between them
  any_schedule schedule{};           ///< in whose time spacings divide
  std::vector<double> levels{};      ///< the ends of the steps, in the place of all these
  bool heun = false;  ///< second order, 2 evaluations a step; the step to 0 is Euler's

  /// What programs call it.
  static constexpr const char* name() {
    return "flow_ode";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(
        option{
            "heun",
            "Heun's method, of second order with two evaluations a step, in place of Euler's"},
        s.heun);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return sampling::levels_of(*this, true);
  }
  /// What latents of unit variance are multiplied by.
  double start_scale() const {
    return sigmas().front();
  }

  /// Moves x [rows, h, w, c] from the first level to the last. @see samplers/walk.hpp
  template <class Backend, denoiser Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> start,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> s = sigmas();
    sampling::walk w(b, start, denoise, noise, observe);
    auto denoised = w.make();
    auto velocity = w.make();  // dx_t/dt
    auto next = w.make();
    const auto time = [](double sigma) {
      return sigma / (1 + sigma);
    };
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      const double sigma = s[i];
      const double to = s[i + 1];
      if (!w.begin_step(int(i), sigma, denoised))
        return;
      // x = (1 + sigma) x_t, so a step x_t + h v is kept x + push v.
      const double h = time(to) - time(sigma);
      const double kept = (1 + to) / (1 + sigma);
      const double push = h * (1 + to);
      velocity = w.x / sigma - (1 / sigma + 1) * denoised;
      next = kept * w.x + push * velocity;
      if (heun && to > 0) {  // push times the mean of both velocities
        w.denoise(next, to, denoised);
        next = kept * w.x + push / 2 * velocity + push / 2 / to * next -
               push / 2 * (1 / to + 1) * denoised;
      }
      w.x = next;
    }
  }
};

}  // namespace multistage
