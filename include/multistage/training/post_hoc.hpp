// Averages of any length, made after training (Karras et al., arXiv 2312.02696, section 3.2 and
// appendix C): the profile that is wanted is fitted, in least squares, by those of the averages
// that were kept. With A the integrals of products of the kept profiles and b those with the
// wanted one, the kept averages are summed with the weights A^-1 b over their sum.
//
//   post_hoc_weights(kept, {200'000, 6.94});      // how much of each average that was kept
#pragma once
#include <Eigen/LU>
#include <span>
#include <vector>

#include "moving_average.hpp"

namespace multistage {

/// An average by a power function that was kept at some time.
struct power_profile {
  double images = 0;    ///< T, the time
  double exponent = 0;  ///< g

  /// Its values at times 0, 1, ..., length - 1, over their sum.
  std::vector<double> response(index_t length) const {
    std::vector<double> at(std::size_t(length), 0.0);
    double sum = 0;
    for (index_t k = 0; k < length && double(k) <= images; ++k)
      sum += at[std::size_t(k)] = std::pow(double(k) / images, exponent);
    for (double& v : at)
      v /= sum;
    return at;
  }
};

/// The integral of the product of two profiles.
inline double product(const power_profile& a, const power_profile& b) {
  const power_profile& earlier = a.images < b.images ? a : b;
  const power_profile& later = a.images < b.images ? b : a;
  const double ratio = std::pow(earlier.images / later.images, later.exponent);
  return (a.exponent + 1) * (b.exponent + 1) * ratio /
         ((a.exponent + b.exponent + 1) * later.images);
}

/// What each kept average counts in one of the profile that is wanted; together 1. @throws
/// value_error for none, for times that are not above 0, and for two of one time and exponent
/// A template, so that only who calls it compiles Eigen's decomposition.
template <class Matrix = Eigen::MatrixXd>
MULTISTAGE_COLD std::vector<double> post_hoc_weights(std::span<const power_profile> kept,
                                                     const power_profile& wanted) {
  require<value_error>(!kept.empty() && wanted.images > 0, "post_hoc_weights: ", kept.size(),
                       " averages for one at ", wanted.images,
                       " images; give one average at least, and times above 0");
  for (std::size_t i = 0; i < kept.size(); ++i)
    for (std::size_t j = 0; j <= i; ++j)
      require<value_error>(kept[i].images > 0 && (i == j || kept[i].images != kept[j].images ||
                                                  kept[i].exponent != kept[j].exponent),
                           "post_hoc_weights: average ", i, " is of ", kept[i].images,
                           " images and exponent ", kept[i].exponent,
                           i == j ? "; times are above 0" : "; an earlier one is, too");
  const index_t n = index_t(kept.size());
  Matrix among(n, n);  // A
  Eigen::VectorXd with(n);      // b
  for (index_t i = 0; i < n; ++i) {
    with[i] = product(kept[std::size_t(i)], wanted);
    for (index_t j = 0; j < n; ++j)
      among(i, j) = product(kept[std::size_t(i)], kept[std::size_t(j)]);
  }
  Eigen::VectorXd weights = among.partialPivLu().solve(with);
  weights /= weights.sum();
  return {weights.begin(), weights.end()};
}

}  // namespace multistage
