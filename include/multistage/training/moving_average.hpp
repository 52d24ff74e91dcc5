// Averages of the weights over a training run, and how fast each forgets. After a step that saw
// `rows` images
//   average = beta average + (1 - beta) weight,
// where beta is either of
//   halflife_rule   0.5^(rows / half-life): an exponential average
//   power_rule      (1 - rows / t)^(g + 1), t images seen so far: the profile (g + 1) t^g /
//                   T^(g + 1), whose width stays a share of the run's length T (Karras et al.,
//                   arXiv 2312.02696, section 3)
//
// A power function is named by its relative standard deviation, std^2 = (g + 1) / ((g + 2)^2 (g
// + 3)), which is below 1/sqrt(12), the one of a plain mean (g = 0). An average of any such
// width can be made after training from few that were kept: post_hoc.hpp.
#pragma once
#include <algorithm>
#include <cmath>

#include "../core/error.hpp"

namespace multistage {

/// An exponential average, whose half-life may grow with the run.
struct halflife_rule {
  double halflife = 0;    ///< in images
  double ramp_ratio = 0;  ///< at most this share of the images counted; 0: no such limit

  /// beta of a step. @param counted images that the ramp looks at. @param rows of the step
  double keep(double counted, double rows) const {
    const double images = ramp_ratio > 0 ? std::min(halflife, counted * ramp_ratio) : halflife;
    return std::pow(0.5, rows / std::max(images, 1e-8));
  }
};

/// An average by a power function of the time.
struct power_rule {
  double exponent = 0;  ///< g

  /// beta of a step; 0 in the first one: what the average started from is gone then. @param
  /// after images seen with this step's. @param rows of the step
  double keep(double after, double rows) const {
    return std::pow(std::max(1 - rows / after, 0.0), exponent + 1);
  }
};

/// The standard deviation of a power function's profile, as a share of the time. @param
/// exponent at least 0
inline double power_function_std(double exponent) {
  return std::sqrt((exponent + 1) / ((exponent + 2) * (exponent + 2) * (exponent + 3)));
}

/// The exponent of the power function with this relative standard deviation: the largest root
/// of g^3 + 7 g^2 + (16 - std^-2) g + 12 - std^-2. @throws value_error for one outside (0,
/// 1/sqrt(12)), where no profile that grows with time has it
MULTISTAGE_COLD inline double power_function_exponent(double relative_std) {
  require<value_error>(relative_std > 0 && relative_std < 1 / std::sqrt(12.0),
                       "power_function_exponent: std = ", relative_std,
                       "; a power function's relative standard deviation is above 0 and "
                       "below 0.288675 (1/sqrt(12), a plain mean); 0.05 and 0.1 are usual");
  const double t = 1 / (relative_std * relative_std);
  // Newton's steps from the right of the largest root, where the cubic is convex, go down to
  // it; the first one that does not is rounding.
  double g = std::sqrt(t) + 1;
  while (true) {
    const double value = ((g + 7) * g + 16 - t) * g + 12 - t;
    const double next = g - value / ((3 * g + 14) * g + 16 - t);
    if (!(next < g))
      return std::max(g, 0.0);
    g = next;
  }
}

namespace functor {
/// One weight's place in an average.
template <class T>
struct follow {
  const T* weight;
  T* average;
  T keep;  ///< beta
  /// Moves the average of weight i.
  MULTISTAGE_HD void operator()(index_t i) const {
    average[i] += (T(1) - keep) * (weight[i] - average[i]);
  }
};
}  // namespace functor

}  // namespace multistage
