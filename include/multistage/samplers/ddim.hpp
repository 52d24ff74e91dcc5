// DDIM (Song, Meng, Ermon, arXiv 2010.02502, eq. 12 and 16) and, with eta = 1, DDPM's ancestral
// sampling (Ho et al., arXiv 2006.11239). Over noise over signal the step from sigma to sigma'
// is
//   x' = D + sqrt(sigma'^2 - v^2) eps + v z,  eps = (x - D) / sigma,  v = eta sigma' sqrt(1 -
//   sigma'^2 / sigma^2).
// With eta = 0 it is Euler's method for the probability-flow ODE.
#pragma once
#include "../diffusion/denoiser.hpp"
#include "level_options.hpp"
#include "walk.hpp"

namespace multistage {

/// DDIM; where steps lie is said as by all samplers (samplers/walk.hpp).
struct ddim {
  int num_steps = 18;                ///< steps down the noise levels
  double sigma_min = 0.002;          ///< lowest noise level above 0; 0: the schedule's own
  double sigma_max = 80;             ///< highest noise level; 0: the schedule's own
  spacing steps = spacing::log_snr;  ///< how the levels lie between them
  any_schedule schedule{};           ///< in whose time spacings divide
  std::vector<double> levels{};      ///< the ends of the steps, in the place of all these
  double eta = 0;  ///< how much of the noise is drawn anew: 0 none, 1 as DDPM does

  /// What programs call it.
  static constexpr const char* name() {
    return "ddim";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"eta", "how much of the noise is drawn anew: 0 none, 1 as DDPM does",
                 between(0, 1)},
          s.eta);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return sampling::levels_of(*this, true);
  }
  /// Latents of unit variance in x_t.
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
    sampling::walk w(b, start, denoise, noise, observe);
    auto denoised = w.make();
    auto z = w.make();
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      const double sigma = s[i];
      const double to = s[i + 1];
      if (!w.begin_step(int(i), sigma, denoised))
        return;
      const double v = eta * to * std::sqrt(1 - to * to / (sigma * sigma));
      const double e = std::sqrt(to * to - v * v) / sigma;
      if (eta > 0)
        w.noise(int(i), z);
      w.x = e * w.x + (1 - e) * denoised + v * z;
    }
  }
};

}  // namespace multistage
