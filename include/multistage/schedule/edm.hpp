// EDM's schedule (Karras et al., arXiv 2206.00364): time is sigma itself, the signal is never
// scaled.
#pragma once

namespace multistage {

/// x_t = x_0 + sigma eps with t = sigma in [sigma_min, sigma_max].
struct edm_schedule {
  double sigma_min = 0.002;
  double sigma_max = 80;

  static constexpr const char* name() {
    return "edm";
  }
  constexpr double signal(double) const {
    return 1;
  }  // scale of the image at t
  constexpr double sigma(double t) const {
    return t;
  }  // noise over signal
  constexpr double t(double sigma) const {
    return sigma;
  }
  constexpr double t_min() const {
    return sigma_min;
  }
  constexpr double t_max() const {
    return sigma_max;
  }
};

}  // namespace multistage
