// Sets of features as matrices, a row a picture, as all measures take them.
//
//   const rows x = as_rows("kid", features, 2048, 2);     // [n, 2048], at least two of them
#pragma once
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <span>

#include "../core/config.hpp"
#include "../core/error.hpp"

namespace multistage::metrics_detail {

/// Row-major, as features lie; in double throughout.
using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
/// Features of the caller's, seen as a matrix.
using rows = Eigen::Map<const matrix>;

/// The largest feature: measures take its sixth power (KID) and sums of that.
inline constexpr double largest_feature = 1e40;

/// A power of two by which numbers of at most `largest` come near 1: multiplied by it they keep
/// all their digits, and their squares neither overflow nor vanish.
inline double scale_to_one(double largest) {
  const int exponent = largest > 0 ? std::max(std::ilogb(largest), -1000) : 0;
  return std::ldexp(1.0, -exponent);
}

/// @param what the measure, for errors. @throws value_error unless the values are rows of
/// `dimension`, `least` of them or more, all finite and none so large that its powers overflow
inline rows as_rows(const char* what,
                    std::span<const double> v,
                    index_t dimension,
                    index_t least) {
  require<value_error>(dimension >= 1 && index_t(v.size()) % dimension == 0, what, ": ",
                       v.size(), " values are no rows of ", dimension);
  rows x(v.data(), index_t(v.size()) / dimension, dimension);
  require<value_error>(x.rows() >= least, what, ": ", x.rows(), " rows; at least ", least,
                       " are needed");
  for (std::size_t i = 0; i < v.size(); ++i)
    require<value_error>(v[i] >= -largest_feature && v[i] <= largest_feature, what,
                         ": feature ", index_t(i) % dimension, " of row ",
                         index_t(i) / dimension, " is ", v[i],
                         "; features are finite and at most ", largest_feature);
  return x;
}

}  // namespace multistage::metrics_detail
