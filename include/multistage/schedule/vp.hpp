// The variance-preserving schedule with linear beta (Ho et al., arXiv 2006.11239; Song et al.,
// arXiv 2011.13456, eq. 32 f.):
//   x_t = s x_0 + s sigma eps,  s^2 (1 + sigma^2) = 1,  t in (0, 1],
//   ln s = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2.
#pragma once
#include <cmath>

namespace multistage {

/// The VP schedule: DDPM's in continuous time.
struct vp_schedule {
  double beta_min = 0.1;  ///< beta at t = 0
  double beta_max = 20;   ///< beta at t = 1
  double t_end = 1e-3;    ///< t_min; at 0 there is no noise at all

  /// The name that files use.
  static constexpr const char* name() {
    return "vp";
  }
  /// ln s(t), minus half the integral of beta from 0 to t; kept as a logarithm, since s nears 1
  /// at small t and 0 at large t.
  double log_signal(double t) const {
    return -t * t * (beta_max - beta_min) / 4 - t * beta_min / 2;
  }
  /// s(t), the image's scale.
  double signal(double t) const {
    return std::exp(log_signal(t));
  }
  /// Noise over signal.
  double sigma(double t) const {
    return std::sqrt(std::expm1(-2 * log_signal(t)));
  }
  /// The t of a sigma; the inverse of sigma(t).
  double t(double sigma) const {
    const double tau = 2 * (beta_max - beta_min) * std::log1p(sigma * sigma);
    return tau / ((std::sqrt(beta_min * beta_min + tau) + beta_min) * (beta_max - beta_min));
  }
  /// The forward process dx = f(t) x dt + g(t) dw that has these marginals (arXiv 2011.13456,
  /// eq. 11).
  double beta(double t) const {
    return beta_min + t * (beta_max - beta_min);
  }
  /// f(t) = -beta(t) / 2 of that process.
  double drift(double t) const {
    return -0.5 * beta(t);
  }
  /// g(t) = sqrt(beta(t)) of that process.
  double diffusion(double t) const {
    return std::sqrt(beta(t));
  }
  /// The least time that is used.
  double t_min() const {
    return t_end;
  }
  /// The last; by then s is 0.0066.
  double t_max() const {
    return 1;
  }
};

}  // namespace multistage
