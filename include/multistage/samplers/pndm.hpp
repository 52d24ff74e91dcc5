// PNDM's pseudo linear multistep method (Liu, Ren, Lin, Zhao, arXiv 2202.09778, eq. 12):
// Adams-Bashforth's weights on the predicted noise, DDIM's transfer between noise levels. It
// starts without Runge-Kutta steps: the first step is done twice, the second time with the mean
// of the noises at both its ends. n steps take n + 1 evaluations.
//
//   sample(model, pndm{.num_steps = 50}, {.seeds = "0-15"});
#pragma once
#include "../diffusion/denoiser.hpp"
#include "level_options.hpp"
#include "walk.hpp"

namespace multistage {

/// PNDM. Its weights are made for levels at equal distances in t.
struct pndm {
  int num_steps = 18;                ///< steps down the noise levels
  double sigma_min = 0.002;          ///< lowest noise level above 0; 0: the schedule's own
  double sigma_max = 80;             ///< highest noise level; 0: the schedule's own
  spacing steps = spacing::log_snr;  ///< how the levels lie between them
  any_schedule schedule{};           ///< in whose time spacings divide
  std::vector<double> levels{};      ///< the ends of the steps, in the place of all these
  stage_crossing crossing{};         ///< what is done where the stage changes

  /// What programs call it.
  static constexpr const char* name() {
    return "pndm";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    sampling::crossing_field(s, visit);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return crossing.aligned(sampling::levels_of(*this, false));
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
    // Adams and Bashforth's, by how many values are known.
    static constexpr std::array<double, 4> weights[] = {
        {1, 0, 0, 0},
        {1.5, -0.5, 0, 0},
        {23 / 12.0, -16 / 12.0, 5 / 12.0, 0},
        {55 / 24.0, -59 / 24.0, 37 / 24.0, -9 / 24.0}};
    const std::vector<double> s = sigmas();
    sampling::walk w(b, start, denoise, noise, observe);
    auto past = w.remember(4);  // predicted noises
    auto denoised = w.make();
    auto next = w.make();
    auto second = w.make();
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      const double sigma = s[i];
      const double to = s[i + 1];
      if (i > 0 && !crossing.keeps_history(s[i - 1], sigma))
        past.forget();
      auto newest = past.push(sigma);
      w.predict_noise(w.x, sigma, denoised, newest);
      if (!w.observe(int(i), sigma, w.x, denoised))
        return;
      const double h = to - sigma;
      if (past.size() == 1 && to > 0) {
        next = w.x + h * newest;
        w.predict_noise(next, to, denoised, second);
        w.x = w.x + h / 2 * (newest + second);
      } else {
        w.x = w.x + h * past.sum(weights[past.size() - 1], past.size());
      }
    }
  }
};

}  // namespace multistage
