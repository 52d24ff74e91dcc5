// The continuous cosine schedule (Nichol and Dhariwal, arXiv 2102.09672, as Lu et al., arXiv
// 2206.00927 use it): variance preserving with
//   alpha(t) = cos((t + s) / (1 + s) pi / 2) / cos(s / (1 + s) pi / 2),  s = 0.008,
// for t up to 0.9946, where sigma is still finite.
#pragma once
#include <cmath>

namespace multistage {

/// The cosine schedule. Compared with `vp` it spends more of its time at middling noise.
struct cosine_schedule {
  double offset = 0.008;  ///< s: keeps the noise of small times above 0
  double t_begin = 1e-3;  ///< t_min; below it the noise is lost in rounding
  double t_end = 0.9946;  ///< t_max, where sigma is about 119; it is infinite at 1

  /// The name that files use.
  static constexpr const char* name() {
    return "cosine";
  }
  /// alpha(t), falling from 1 to 0.
  double signal(double t) const {
    return std::cos(angle(t)) / std::cos(angle(0));
  }
  /// sqrt(1 / alpha^2 - 1), the noise over the signal.
  double sigma(double t) const {
    // sigma^2 = (cos^2 a_0 - cos^2 a) / cos^2 a, with the difference as a product so that small
    // t keep their digits.
    const double a = angle(t);
    const double a0 = angle(0);
    return std::sqrt(std::sin(a - a0) * std::sin(a + a0)) / std::cos(a);
  }
  /// The inverse of sigma(t): tan^2 a = (sigma^2 + sin^2 a_0) / cos^2 a_0.
  double t(double sigma) const {
    const double a0 = angle(0);
    return std::atan(std::sqrt(sigma * sigma + std::sin(a0) * std::sin(a0)) / std::cos(a0)) *
               (1 + offset) / half_pi -
           offset;
  }
  /// f(t) = d ln alpha / dt of the process dx = f x dt + g dw.
  double drift(double t) const {
    return -std::tan(angle(t)) * half_pi / (1 + offset);
  }  // d ln alpha / dt
  /// g(t) = sqrt(-2 f), since the variance is preserved.
  double diffusion(double t) const {
    return std::sqrt(-2 * drift(t));
  }  // variance preserving
  /// The least time that is used.
  double t_min() const {
    return t_begin;
  }
  /// The largest time that is used.
  double t_max() const {
    return t_end;
  }

 private:
  static constexpr double half_pi = 1.57079632679489661923;
  /// Of which the signal is the cosine.
  double angle(double t) const {
    return (t + offset) / (1 + offset) * half_pi;
  }
};

}  // namespace multistage
