// The variance-exploding schedule (Song and Ermon, arXiv 1907.05600; Song et al., arXiv
// 2011.13456, eq. 30):
//   x_t = x_0 + sigma eps,  sigma = sigma_min (sigma_max / sigma_min)^t,  t in [0, 1].
#pragma once
#include <cmath>

namespace multistage {

/// The VE schedule: the image keeps its scale while noise grows geometrically, as for annealed
/// Langevin dynamics.
struct ve_schedule {
  double sigma_min = 0.01;  ///< sigma at t = 0
  double sigma_max = 50;    ///< sigma at t = 1; about the largest distance between two images

  /// The name that files use.
  static constexpr const char* name() {
    return "ve";
  }
  /// Always 1.
  double signal(double) const {
    return 1;
  }
  /// sigma_min (sigma_max / sigma_min)^t.
  double sigma(double t) const {
    return sigma_min * std::pow(sigma_max / sigma_min, t);
  }
  /// ln(sigma / sigma_min) / ln(sigma_max / sigma_min), the inverse of sigma(t).
  double t(double sigma) const {
    return std::log(sigma / sigma_min) / std::log(sigma_max / sigma_min);
  }
  /// f(t) = 0: nothing pulls the image towards 0.
  double drift(double) const {
    return 0;
  }
  /// g(t) = sigma sqrt(2 ln(sigma_max / sigma_min)), from d sigma^2 / dt = g^2.
  double diffusion(double t) const {
    return sigma(t) * std::sqrt(2 * std::log(sigma_max / sigma_min));
  }
  /// Sigma is sigma_min.
  double t_min() const {
    return 0;
  }
  /// Sigma is sigma_max.
  double t_max() const {
    return 1;
  }
};

}  // namespace multistage
