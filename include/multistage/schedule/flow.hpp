// The linear path of flow matching and rectified flow (Lipman et al., arXiv 2210.02747; Liu et
// al., arXiv 2209.03003):
//   x_t = (1 - t) x_0 + t eps,  sigma = t / (1 - t),
// with the shift of times for larger pictures (Esser et al., arXiv 2403.03206, eq. 23).
#pragma once
#include <cmath>

namespace multistage {

/// The straight path from an image to noise: d x_t / dt = eps - x_0 is the same at all times,
/// and that velocity is what networks of flow matching predict.
struct flow_schedule {
  /// sigma is infinite at 1
  double t_begin = 1e-3;
  double t_end = 0.999;  ///< t_max, where sigma is 999; it is infinite at 1

  /// The name that files use.
  static constexpr const char* name() {
    return "flow";
  }
  /// 1 - t, what is left of the image.
  double signal(double t) const {
    return 1 - t;
  }
  /// t / (1 - t), noise over signal.
  double sigma(double t) const {
    return t / (1 - t);
  }
  /// sigma / (1 + sigma), the inverse of sigma(t).
  double t(double sigma) const {
    return sigma / (1 + sigma);
  }
  /// f(t) = -1 / (1 - t) of the process dx = f x dt + g dw with these marginals.
  double drift(double t) const {
    return -1 / (1 - t);
  }
  /// g(t) of that process: g^2 = 2 t / (1 - t), from d(t^2)/dt = 2 f t^2 + g^2.
  double diffusion(double t) const {
    return std::sqrt(2 * t / (1 - t));
  }
  /// The least time that is used.
  double t_min() const {
    return t_begin;
  }
  /// The largest time that is used.
  double t_max() const {
    return t_end;
  }
  /// t' = s t / (1 + (s - 1) t): noise levels times s, where s = sqrt(pixels / pixels of the
  /// reference size).
  static double shifted(double t, double s) {
    return s * t / (1 + (s - 1) * t);
  }
};

}  // namespace multistage
