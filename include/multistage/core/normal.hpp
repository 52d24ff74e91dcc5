// The standard normal distribution: its cumulative function and quantile, accurate in both
// tails.
//
// Both are for levels of noise that are normal in ln sigma: a stage's share is a difference of
// the cumulative function at its ends, and a draw inside the stage the quantile of a number
// between.
#pragma once
#include <cmath>

namespace multistage {

/// P(X <= x); erfc keeps relative accuracy for large negative x.
inline double normal_cdf(double x) {
  return 0.5 * std::erfc(-x * 0.70710678118654752440);
}

/// The x with P(X <= x) = p, for p in (0, 1): a rational start (relative error 1e-9, after P.
/// Acklam) and two steps of Halley's method.
inline double normal_quantile(double p) {
  if (p <= 0)
    return -HUGE_VAL;
  if (p >= 1)
    return HUGE_VAL;
  if (p > 0.5)
    return -normal_quantile(1 - p);
  double x;
  if (p < 0.02425) {
    const double q = std::sqrt(-2 * std::log(p));
    x = (((((-7.784894002430293e-03 * q - 3.223964580411365e-01) * q - 2.400758277161838e+00) *
               q -
           2.549732539343734e+00) *
              q +
          4.374664141464968e+00) *
             q +
         2.938163982698783e+00) /
        ((((7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996e+00) *
              q +
          3.754408661907416e+00) *
             q +
         1);
  } else {
    const double q = p - 0.5;
    const double r = q * q;
    x = (((((-3.969683028665376e+01 * r + 2.209460984245205e+02) * r - 2.759285104469687e+02) *
               r +
           1.383577518672690e+02) *
              r -
          3.066479806614716e+01) *
             r +
         2.506628277459239e+00) *
        q /
        (((((-5.447609879822406e+01 * r + 1.615858368580409e+02) * r - 1.556989798598866e+02) *
               r +
           6.680131188771972e+01) *
              r -
          1.328068155288572e+01) *
             r +
         1);
  }
  // Halley's step: e is the error of the probability over the density, that is in x.
  for (int i = 0; i < 2; ++i) {
    const double e = (normal_cdf(x) - p) * 2.50662827463100050242 * std::exp(0.5 * x * x);
    x -= e / (1 + 0.5 * x * e);
  }
  return x;
}

}  // namespace multistage
