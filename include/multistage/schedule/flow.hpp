// The linear path of flow matching and rectified flow (Lipman et al., arXiv 2210.02747; Liu et
// al., arXiv 2209.03003):
//   x_t = (1 - t) x_0 + t eps,  sigma = t / (1 - t);  with the shift of times for larger
//   pictures (Esser et al., arXiv 2403.03206, eq. 23).
#pragma once
#include <cmath>

namespace multistage {

struct flow_schedule {
  /// sigma is infinite at 1
  double t_begin = 1e-3;
  double t_end = 0.999;

  static constexpr const char* name() {
    return "flow";
  }
  double signal(double t) const {
    return 1 - t;
  }
  double sigma(double t) const {
    return t / (1 - t);
  }
  double t(double sigma) const {
    return sigma / (1 + sigma);
  }
  double drift(double t) const {
    return -1 / (1 - t);
  }
  double diffusion(double t) const {
    return std::sqrt(2 * t / (1 - t));
  }
  double t_min() const {
    return t_begin;
  }
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
