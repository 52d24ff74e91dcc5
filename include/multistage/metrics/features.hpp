// Measures of two sets of features beside the Frechet distance, and of class probabilities.
//   KID               unbiased squared MMD with the kernel (x.y / d + 1)^3 (Binkowski et al.,
//                     arXiv 1801.01401)
//   Inception score   exp E KL(p(y|x) | p(y)) (Salimans et al., arXiv 1606.03498)
// Precision, recall, density and coverage are in neighbourhoods.hpp.
//
// KID is unbiased: its expectation is 0 for sets of the same distribution whatever their size,
// and single figures may be below 0. The Inception score needs no reference set and says
// nothing about how near generated pictures are to one.
#pragma once
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "../core/random.hpp"
#include "feature_rows.hpp"
#include "neighbourhoods.hpp"

namespace multistage {

/// Unbiased KID of features [n, d] and [m, d], over all rows. @throws value_error for fewer
/// than two rows or values that are not finite
inline double kid(std::span<const double> a, std::span<const double> b, index_t dimension) {
  using namespace metrics_detail;
  const rows x = as_rows("kid", a, dimension, 2);
  const rows y = as_rows("kid", b, dimension, 2);
  const auto kernel_sum = [&](const auto& p, const auto& q, bool skip_diagonal) {
    double sum = 0;
    for (index_t i = 0; i < p.rows(); i += block) {
      const index_t some = std::min(block, p.rows() - i);
      const matrix products = p.middleRows(i, some) * q.transpose();  // [some, rows of q]
      const matrix k = (products.array() / double(dimension) + 1).cube().matrix();
      sum += k.sum();
      // A row and itself are no pair of the unbiased estimate.
      if (skip_diagonal)
        sum -= k.middleCols(i, k.rows()).trace();
    }
    return sum;
  };
  const double n = double(x.rows());
  const double m = double(y.rows());
  const double within_x = kernel_sum(x, x, true) / (n * (n - 1));
  const double within_y = kernel_sum(y, y, true) / (m * (m - 1));
  return within_x + within_y - 2 * kernel_sum(x, y, false) / (n * m);
}

/// KID over random subsets: mean and standard error. @throws value_error unless subsets fit
/// both sets
struct kid_estimate {
  double mean;            ///< over the subsets
  double standard_error;  ///< of that mean, from the spread of the subsets
};
/// KID as papers report it: the mean over `subsets` pairs of subsets of `subset_size` rows,
/// drawn without replacement within each. @param seed which rows are drawn; the same seed gives
/// the same figure
inline kid_estimate kid_in_blocks(std::span<const double> a,
                                  std::span<const double> b,
                                  index_t dimension,
                                  int subsets,
                                  index_t subset_size,
                                  std::uint64_t seed) {
  using namespace metrics_detail;
  const rows x = as_rows("kid", a, dimension, 2);
  const rows y = as_rows("kid", b, dimension, 2);
  const bool fit = subset_size >= 2 && subset_size <= std::min(x.rows(), y.rows());
  require<value_error>(subsets >= 2 && fit, "kid: ", subsets, " subsets of ", subset_size,
                       " rows of ", x.rows(), " and ", y.rows(),
                       "; give at least two subsets that fit");
  std::vector<double> values;
  const auto draw = [&](const rows& from, std::uint64_t stream) {
    const random_stream numbers(seed, stream);
    std::vector<index_t> order(std::size_t(from.rows()), 0);
    for (index_t i = 0; i < from.rows(); ++i)
      order[std::size_t(i)] = i;
    std::vector<double> out;
    for (index_t i = 0; i < subset_size; ++i) {
      // The beginning of a shuffle by Fisher and Yates: row i changes places with one not yet
      // drawn.
      const auto left = std::uint32_t(from.rows() - i);
      const index_t other = i + index_t(numbers.below(std::uint64_t(i), left));
      index_t& here = order[std::size_t(i)];
      std::swap(here, order[std::size_t(other)]);
      const double* row = from.data() + here * dimension;
      out.insert(out.end(), row, row + dimension);
    }
    return out;
  };
  for (int s = 0; s < subsets; ++s) {
    const std::vector<double> of_a = draw(x, std::uint64_t(2 * s));
    const std::vector<double> of_b = draw(y, std::uint64_t(2 * s + 1));
    values.push_back(kid(of_a, of_b, dimension));
  }
  double mean = 0;
  for (const double v : values)
    mean += v / subsets;
  double largest = 0;
  for (const double v : values)
    largest = std::max(largest, std::fabs(v - mean));
  const double scale = scale_to_one(largest);
  double square = 0;
  for (const double v : values) {
    const double deviation = (v - mean) * scale;
    square += deviation * deviation;
  }
  return {mean, std::sqrt(square / (subsets - 1) / subsets) / scale};
}

/// Inception score of class probabilities [n, classes], each row summing to 1. @throws
/// value_error for others
inline double inception_score(std::span<const double> probabilities, index_t classes) {
  using namespace metrics_detail;
  const rows p = as_rows("inception_score", probabilities, classes, 1);
  const bool not_negative = (p.array() >= 0).all();
  const bool sums_to_one = ((p.rowwise().sum().array() - 1).abs() < 1e-3).all();
  require<value_error>(not_negative && sums_to_one,
                       "inception_score: a row is no distribution over ", classes, " classes");
  const Eigen::RowVectorXd marginal = p.colwise().mean();  // p(y)
  double divergence = 0;                                   // KL(p(y|x) | p(y)), of all rows
  for (index_t i = 0; i < p.rows(); ++i)
    for (index_t c = 0; c < classes; ++c) {
      const double probability = p(i, c);
      if (probability > 0)
        divergence += probability * std::log(probability / marginal(c));
    }
  return std::exp(divergence / double(p.rows()));
}

}  // namespace multistage
