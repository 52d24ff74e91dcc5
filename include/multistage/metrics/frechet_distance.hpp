// Frechet distance between two sets of features, taken as Gaussians (Dowson and Landau 1982; Heusel et al., arXiv 1706.08500):
//   |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^1/2 C_2 C_1^1/2)^1/2),
// by symmetric eigendecompositions in double, so covariances of any rank do.
#pragma once
#include <Eigen/Eigenvalues>
#include <span>

#include "../core/config.hpp"
#include "../core/error.hpp"

namespace multistage {

/// @param a, b features [n, dimension], row-major. Features may be pixels. @throws value_error for fewer than two rows or non-finite values.
inline double frechet_distance(std::span<const double> a, std::span<const double> b, index_t dimension) {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  require<value_error>(dimension >= 1 && index_t(a.size()) % dimension == 0 && index_t(b.size()) % dimension == 0, "frechet_distance: ", a.size(), " and ",
                       b.size(), " values are no rows of ", dimension);
  const auto moments = [&](std::span<const double> v, Eigen::VectorXd& mean) -> matrix {
    const Eigen::Map<const matrix> x(v.data(), index_t(v.size()) / dimension, dimension);
    require<value_error>(x.rows() >= 2, "frechet_distance: ", x.rows(), " rows; a covariance needs two");
    require<value_error>(x.allFinite(), "frechet_distance: a feature is not finite");
    mean = x.colwise().mean();
    const matrix centred = x.rowwise() - mean.transpose();
    return centred.transpose() * centred / double(x.rows() - 1);
  };
  Eigen::VectorXd mean_a, mean_b;
  const matrix ca = moments(a, mean_a), cb = moments(b, mean_b);
  const Eigen::SelfAdjointEigenSolver<matrix> root(ca);
  const matrix half = root.eigenvectors() * root.eigenvalues().cwiseMax(0).cwiseSqrt().asDiagonal() * root.eigenvectors().transpose();
  const matrix product = half * cb * half;
  const Eigen::SelfAdjointEigenSolver<matrix> inner((product + product.transpose()) * 0.5, Eigen::EigenvaluesOnly);
  return (mean_a - mean_b).squaredNorm() + ca.trace() + cb.trace() - 2 * inner.eigenvalues().cwiseMax(0).cwiseSqrt().sum();
}

}  // namespace multistage
