// What few repetitions of an experiment say: means with intervals of confidence by Student's t,
// and differences of pairs, which are sharper where both sides of a pair met the same chance.
//
//   const estimate e = mean_of(distances);                 // e.mean +- e.half
//   const estimate d = mean_difference(ours, theirs);      // seed by seed
//   if (verdict_of(d) == verdict::lower) ...               // the interval excludes 0
#pragma once
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "../core/error.hpp"

namespace multistage {

/// Products of two lists, added up.
inline double weighted_sum(std::span<const double> a, std::span<const double> b) {
  require<value_error>(a.size() == b.size(), "weighted_sum: lists of ", a.size(), " and ",
                       b.size(), " numbers; give as many of each");
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// P(|T| <= t) for Student's t with a whole number of degrees of freedom, as a finite sum
/// (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4).
/// @throws value_error for degrees below 1
inline double student_t_within(double t, int degrees) {
  require<value_error>(degrees >= 1, "Student's t: ", degrees,
                       " degrees of freedom; there is 1 at least");
  constexpr double pi = 3.14159265358979323846;
  const double angle = std::atan(std::fabs(t) / std::sqrt(double(degrees)));
  const double sine = std::sin(angle);
  const double cosine = std::cos(angle);
  const bool odd = degrees % 2 == 1;
  double term = odd ? cosine : 1;
  double sum = degrees == 1 ? 0 : term;
  for (int k = odd ? 3 : 2; k < degrees; k += 2) {
    term *= cosine * cosine * (k - 1) / k;
    sum += term;
  }
  return odd ? 2 / pi * (angle + sine * sum) : sine * sum;
}

/// The t that |T| stays within with a probability, by bisection. @throws value_error unless the
/// probability is inside (0, 1)
inline double student_t_bound(double probability, int degrees) {
  require<value_error>(probability > 0 && probability < 1, "Student's t: a probability of ",
                       probability, "; it is inside (0, 1)");
  double low = 0;
  double high = 1;
  while (student_t_within(high, degrees) < probability)
    high *= 2;
  constexpr int halvings = 200;  // until nothing lies between the two
  for (int i = 0; i < halvings; ++i) {
    const double middle = low + (high - low) / 2;
    (student_t_within(middle, degrees) < probability ? low : high) = middle;
  }
  return high;
}

/// A mean and how far the true one may be from it.
struct estimate {
  double mean = 0;  ///< of the values; NaN of none
  double half = 0;  ///< of the interval's length; infinite for fewer than two values
  int n = 0;        ///< values
  /// The interval's lower end.
  double low() const {
    return mean - half;
  }
  /// The interval's upper end.
  double high() const {
    return mean + half;
  }
};

/// The mean of values that are taken for independent and normal, with an interval that holds
/// the true mean with a probability. No values have no mean.
inline estimate mean_of(std::span<const double> values, double confidence = 0.95) {
  estimate e{std::nan(""), HUGE_VAL, int(values.size())};
  if (e.n == 0)
    return e;
  e.mean = 0;
  for (const double v : values)
    e.mean += v / e.n;
  if (e.n == 1)
    return e;
  double squares = 0;
  for (const double v : values)
    squares += (v - e.mean) * (v - e.mean);
  e.half = student_t_bound(confidence, e.n - 1) * std::sqrt(squares / (e.n - 1) / e.n);
  return e;
}

/// The mean of a[i] - b[i]. @throws value_error unless both have as many values
inline estimate mean_difference(std::span<const double> a,
                                std::span<const double> b,
                                double confidence = 0.95) {
  require<value_error>(a.size() == b.size(), "mean_difference: ", a.size(), " and ", b.size(),
                       " values are no pairs");
  std::vector<double> differences;
  for (std::size_t i = 0; i < a.size(); ++i)
    differences.push_back(a[i] - b[i]);
  return mean_of(differences, confidence);
}

/// What a difference's interval says.
enum class verdict { lower, open, higher };

/// Lower or higher only where the interval excludes 0.
inline verdict verdict_of(const estimate& difference) {
  if (difference.high() < 0)
    return verdict::lower;
  return difference.low() > 0 ? verdict::higher : verdict::open;
}

/// Where a curve of quality (lower is better) over compute first comes down to a value, between
/// points along straight lines over the logarithm of compute. NaN where it never does; the
/// first point where that is there already. @throws value_error unless compute ascends above 0
inline double first_reach(std::span<const double> compute,
                          std::span<const double> quality,
                          double value) {
  require<value_error>(compute.size() == quality.size(), "first_reach: ", compute.size(),
                       " points of compute, ", quality.size(), " of quality");
  for (std::size_t i = 0; i < compute.size(); ++i)
    require<value_error>(compute[i] > (i > 0 ? compute[i - 1] : 0), "first_reach: point ", i,
                         " is at ", compute[i], "; compute ascends above 0");
  for (std::size_t i = 0; i < compute.size(); ++i) {
    if (!(quality[i] <= value))
      continue;
    if (i == 0)
      return compute[0];
    const double share = (quality[i - 1] - value) / (quality[i - 1] - quality[i]);
    return compute[i - 1] * std::pow(compute[i] / compute[i - 1], share);
  }
  return std::nan("");
}

}  // namespace multistage
