// The variance-exploding schedule (Song and Ermon, arXiv 1907.05600; Song et al., arXiv
// 2011.13456, eq. 30):
//   x_t = x_0 + sigma eps,  sigma = sigma_min (sigma_max / sigma_min)^t,  t in [0, 1].
#pragma once
#include <cmath>

namespace multistage {

struct ve_schedule {
  double sigma_min = 0.01;
  double sigma_max = 50;

  static constexpr const char* name() {
    return "ve";
  }
  double signal(double) const {
    return 1;
  }
  double sigma(double t) const {
    return sigma_min * std::pow(sigma_max / sigma_min, t);
  }
  double t(double sigma) const {
    return std::log(sigma / sigma_min) / std::log(sigma_max / sigma_min);
  }
  double drift(double) const {
    return 0;
  }
  double diffusion(double t) const {
    return sigma(t) * std::sqrt(2 * std::log(sigma_max / sigma_min));
  }
  double t_min() const {
    return 0;
  }
  double t_max() const {
    return 1;
  }
};

}  // namespace multistage
