// EDM's schedule (Karras et al., arXiv 2206.00364): time is sigma itself, the signal is never
// scaled.
//
// The times that EDM's sampler takes are spaced by rho (samplers/edm_heun.hpp), and training
// draws ln sigma from a normal distribution (diffusion/noise_levels.hpp); the schedule itself
// only says where noise begins and ends.
//
//   edm_schedule{}.sigma(2.5);      // 2.5: the time is the noise level
#pragma once

namespace multistage {

/// x_t = x_0 + sigma eps with t = sigma in [sigma_min, sigma_max].
struct edm_schedule {
  double sigma_min = 0.002;  ///< where samplers end before their last step to 0
  double sigma_max = 80;     ///< where samplers begin

  /// The name that files use.
  static constexpr const char* name() {
    return "edm";
  }
  /// Always 1: the image is not scaled down as noise is added.
  constexpr double signal(double) const {
    return 1;
  }  // scale of the image at t
  /// The time itself.
  constexpr double sigma(double t) const {
    return t;
  }  // noise over signal
  /// The noise level itself.
  constexpr double t(double sigma) const {
    return sigma;
  }
  /// The least noise level.
  constexpr double t_min() const {
    return sigma_min;
  }
  /// The largest noise level.
  constexpr double t_max() const {
    return sigma_max;
  }
};

}  // namespace multistage
