// Frechet distance between two sets of features, taken as Gaussians (Dowson and Landau 1982;
// Heusel et al., arXiv 1706.08500):
//   |m_1 - m_2|^2 + tr(C_1) + tr(C_2) - 2 tr((C_1 C_2)^1/2).
// With any F_i such that F_i^T F_i = C_i, the eigenvalues of C_1 C_2 = F_1^T F_1 F_2^T F_2 that
// are not 0 are those of (F_1 F_2^T)(F_1 F_2^T)^T, so the last trace is the sum of the singular
// values of F_1 F_2^T. F_i are the centred rows over sqrt(n_i - 1) themselves where these are
// fewer than dimensions, else a root of the covariance: nothing is larger than the smaller of
// n_i and the dimension squared. All in double.
//
//   frechet_distance(features_of_a, features_of_b, 2048);      // rows of 2048 numbers each
#pragma once
#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <limits>

#include "feature_rows.hpp"

namespace multistage {

namespace metrics_detail {

/// What is left of a 0 beside a 1 after a decomposition, and is dropped.
inline constexpr double rounding = 10 * std::numeric_limits<double>::epsilon();

/// A set's mean, the trace of its covariance, and a factor F of the covariance F^T F. Like what
/// follows a template, so that only who calls it compiles Eigen's decompositions: a third of the
/// time of a unit with <multistage/runs.hpp>.
template <class Matrix>
struct gaussian {
  Eigen::RowVectorXd mean;
  double trace = 0;
  Matrix factor;

  /// Mean and factor of the features x [n, dimension].
  explicit gaussian(const rows& x)
      : mean(Eigen::RowVectorXd::Zero(x.cols())) {
    for (index_t i = 0; i < x.rows(); ++i)
      mean += x.row(i);
    mean /= double(x.rows());
    factor = (x.rowwise() - mean) / std::sqrt(double(x.rows() - 1));
    trace = factor.squaredNorm();
    if (x.rows() <= x.cols())
      return;
    Matrix covariance = Matrix::Zero(x.cols(), x.cols());
    covariance.template selfadjointView<Eigen::Lower>().rankUpdate(factor.transpose());
    // P^T L D L^T P: with pivots, since covariances are often singular. Pivots of rounding are
    // none.
    const Eigen::LDLT<Matrix> root(covariance);
    const Eigen::VectorXd pivots = root.vectorD();
    const double least = pivots.maxCoeff() * rounding;
    const Eigen::VectorXd scales = (pivots.array() > least).select(pivots, 0.0).cwiseSqrt();
    const Matrix lower = Matrix(root.matrixL()) * scales.asDiagonal();
    factor = (root.transpositionsP().transpose() * lower).transpose();
  }
};

/// The sum of a matrix's singular values.
template <class Matrix>
double nuclear_norm(const Matrix& m) {
  const index_t side = std::min(m.rows(), m.cols());
  Matrix gram = Matrix::Zero(side, side);
  if (m.rows() <= m.cols())
    gram.template selfadjointView<Eigen::Lower>().rankUpdate(m);
  else
    gram.template selfadjointView<Eigen::Lower>().rankUpdate(m.transpose());
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(gram, Eigen::EigenvaluesOnly);
  const Eigen::VectorXd& squares = solver.eigenvalues();
  // What rounding leaves of a 0 would count as a root of 1e-16.
  const double least = squares.maxCoeff() * rounding;
  return (squares.array() > least).select(squares, 0.0).cwiseSqrt().sum();
}

}  // namespace metrics_detail

/// @param a, b features [n, dimension], row-major. Features may be pixels. Never below 0, and 0
/// for equal sets.
/// @throws value_error for fewer than two rows, and for values that are not finite or above
/// 1e40
template <class Matrix = metrics_detail::matrix>
double frechet_distance(std::span<const double> a, std::span<const double> b, index_t dimension) {
  using namespace metrics_detail;
  const gaussian<Matrix> x(as_rows("frechet_distance", a, dimension, 2));
  const gaussian<Matrix> y(as_rows("frechet_distance", b, dimension, 2));
  const bool alike = x.factor.rows() == y.factor.rows() && x.factor == y.factor;
  const double spread =
      alike ? 0 : x.trace + y.trace - 2 * nuclear_norm<Matrix>(x.factor * y.factor.transpose());
  return (x.mean - y.mean).squaredNorm() + std::max(spread, 0.0);
}

}  // namespace multistage
