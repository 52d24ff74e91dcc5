// The sub-variance-preserving schedule (Song et al., arXiv 2011.13456, eq. 15 and 29): VP's
// signal s with the smaller noise 1 - s^2,
//   x_t = s x_0 + (1 - s^2) eps,  sigma = (1 - s^2) / s.
#pragma once
#include "vp.hpp"

namespace multistage {

/// The sub-VP schedule. Its likelihoods were the best of Song et al.'s three processes.
struct sub_vp_schedule {
  double beta_min = 0.1;  ///< beta at t = 0
  double beta_max = 20;   ///< beta at t = 1
  double t_end = 1e-3;    ///< t_min; the time counts down to it

  /// The name that files use.
  static constexpr const char* name() {
    return "sub_vp";
  }
  /// The VP schedule with the same signal.
  vp_schedule vp() const {
    return {beta_min, beta_max, t_end};
  }
  /// s(t), that of VP.
  double signal(double t) const {
    return vp().signal(t);
  }
  /// (1 - s^2) / s: VP's noise times its own standard deviation.
  double sigma(double t) const {
    return -std::expm1(2 * vp().log_signal(t)) / signal(t);
  }
  /// The inverse of sigma(t): s = 2 / (sigma + sqrt(sigma^2 + 4)), whose VP noise level is
  /// sqrt(1 / s^2 - 1).
  double t(double sigma) const {
    const double s = 2 / (sigma + std::sqrt(sigma * sigma + 4));
    return vp().t(std::sqrt(sigma / s));  // 1 / s^2 - 1 = (1 - s^2) / s^2 = sigma / s
  }
  /// f(t) = -beta(t) / 2, that of VP.
  double drift(double t) const {
    return vp().drift(t);
  }
  /// g(t) = sqrt(beta(t) (1 - s^4)) (arXiv 2011.13456, eq. 28).
  double diffusion(double t) const {
    const double log_signal = vp().log_signal(t);
    return std::sqrt(vp().beta(t) * -std::expm1(4 * log_signal));
  }
  /// The least time that is used.
  double t_min() const {
    return t_end;
  }
  /// The last; hardly any signal is left.
  double t_max() const {
    return 1;
  }
};

}  // namespace multistage
