// DDIM (Song, Meng, Ermon, arXiv 2010.02502, eq. 12 and 16) and, with eta = 1, DDPM's ancestral sampling (Ho et al., arXiv 2006.11239). Over noise
// over signal the step from sigma to sigma' is
//   x' = D + sqrt(sigma'^2 - v^2) eps + v z,  eps = (x - D) / sigma,  v = eta sigma' sqrt(1 - sigma'^2 / sigma^2).
// With eta = 0 it is Euler's method for the probability-flow ODE.
#pragma once
#include "walk.hpp"

namespace multistage {

struct ddim {
  std::vector<double> levels;  // descending, to 0 or above (see schedule/noise_levels.hpp)
  double eta = 0;              // how much of the noise is drawn anew

  /// @throws value_error for levels that do not descend or eta outside [0, 1].
  std::vector<double> sigmas() const {
    require<value_error>(eta >= 0 && eta <= 1, "ddim: eta = ", eta, " is outside [0, 1]");
    return sampling::check_levels("ddim", levels);
  }
  /// Latents of unit variance in x_t.
  double start_scale() const { return std::sqrt(1 + levels.front() * levels.front()); }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&& noise, Observe&& observe) const {
    const std::vector<double> s = sigmas();
    sampling::work<Backend> w{b, x};
    auto d = w.make(), z = w.make();
    for (int i = 0; i + 1 < int(s.size()); ++i) {
      denoise(view<const double>(x), s[i], d.view());
      if (!observe(i, s[i], view<const double>(x), std::as_const(d).view())) return;
      const double v = eta * s[i + 1] * std::sqrt(1 - s[i + 1] * s[i + 1] / (s[i] * s[i])), e = std::sqrt(s[i + 1] * s[i + 1] - v * v) / s[i];
      if (eta > 0) noise(i, z.view());
      w.combine(x.data, {{e, x.data}, {1 - e, d.data()}, {v, z.data()}});
    }
  }
};

}  // namespace multistage
