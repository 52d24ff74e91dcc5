// DDIM (Song, Meng, Ermon, arXiv 2010.02502, eq. 12 and 16) and, with eta = 1, DDPM's ancestral
// sampling (Ho et al., arXiv 2006.11239). Over noise over signal the step from sigma to sigma'
// is
//   x' = D + sqrt(sigma'^2 - v^2) eps + v z,  eps = (x - D) / sigma,  v = eta sigma' sqrt(1 -
//   sigma'^2 / sigma^2).
// With eta = 0 it is Euler's method for the probability-flow ODE.
#pragma once
#include "walk.hpp"

namespace multistage {

/// DDIM; where steps lie is said as by all samplers (samplers/walk.hpp).
struct ddim {
  int num_steps = 18;
  double sigma_min = 0.002;
  double sigma_max = 80;
  spacing steps = spacing::log_snr;
  any_schedule schedule{};
  std::vector<double> levels{};
  double eta = 0;  ///< how much of the noise is drawn anew: 0 none, 1 as DDPM does

  static constexpr const char* name() {
    return "ddim";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"eta", "how much of the noise is drawn anew: 0 none, 1 as DDPM does",
                 between(0, 1)},
          s.eta);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    return sampling::idle_schedule(*this, option);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return sampling::levels_of(name(), *this, true);
  }
  /// Latents of unit variance in x_t.
  double start_scale() const {
    return sampling::unit_start(sigmas().front());
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> x,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> s = sigmas();
    sampling::work<Backend> w{b, x};
    auto d = w.make();
    auto z = w.make();
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      denoise(view<const double>(x), s[i], d.view());
      if (!observe(int(i), s[i], view<const double>(x), std::as_const(d).view()))
        return;
      const double v = eta * s[i + 1] * std::sqrt(1 - s[i + 1] * s[i + 1] / (s[i] * s[i]));
      const double e = std::sqrt(s[i + 1] * s[i + 1] - v * v) / s[i];
      if (eta > 0)
        noise(int(i), z.view());
      w.combine(x.data, {{e, x.data}, {1 - e, d.data()}, {v, z.data()}});
    }
  }
};

}  // namespace multistage
