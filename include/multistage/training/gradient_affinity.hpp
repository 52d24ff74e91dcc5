// How alike the gradients of different noise levels are: the cosine of their angles, averaged
// over training (task affinity; Go et al., arXiv 2306.00354, section 3; the gradient clustering
// of table 4 of arXiv 2312.09181). stages/interval_clustering.hpp cuts such a matrix into
// stages.
//
//   gradient_affinity affinity(sigmas);
//   affinity.collect(trainer);            // now and then between steps
//   cluster_by_gradient(affinity.matrix(), 3);
#pragma once
#include "trainer.hpp"

namespace multistage {

/// Collects the affinity of a trainer's gradients: call `collect` now and then between steps.
/// Meant for a unified network, before there are stages; of a multi-stage model only what all
/// stages share is compared.
class gradient_affinity {
 public:
  /// @param sigmas noise levels in ascending order. @param rows images whose gradients are
  /// averaged at each level.
  explicit gradient_affinity(std::vector<double> sigmas, index_t rows = 64)
      : sigmas_(std::move(sigmas)),
        rows_(rows),
        sum_(sigmas_.size() * sigmas_.size(), 0.0) {
    require<value_error>(sigmas_.size() >= 2 && rows >= 1,
                         "gradient_affinity: ", sigmas_.size(), " noise levels, ", rows,
                         " rows; give at least two and one");
    for (std::size_t i = 0; i < sigmas_.size(); ++i)
      require<value_error>(sigmas_[i] > 0 && std::isfinite(sigmas_[i]) &&
                               (i == 0 || sigmas_[i - 1] < sigmas_[i]),
                           "gradient_affinity: noise level ", i, " is ", sigmas_[i],
                           "; levels ascend and are above 0");
  }

  /// Takes memory for a gradient a noise level while it runs; the trainer's own gradient()
  /// changes, nothing else does.
  template <class Scalar, class Backend>
  void collect(trainer<Scalar, Backend>& t) {
    auto& model = t.model();
    Backend& b = model.backend();
    const index_t levels = index_t(sigmas_.size());
    const auto [begin, end] = model.network().parameter_range(0);
    const index_t first = begin;
    const index_t last = model.stage_count() == 1 ? model.network().parameter_elements : end;
    const index_t size = last - first;
    require<value_error>(
        size > 0,
        "gradient_affinity: this model's stages share nothing; collect on a unified network");
    tensor<Scalar, Backend> gradients(b, {levels, 1, 1, size}),
        products(b, {levels, 1, 1, levels});
    for (index_t k = 0; k < levels; ++k) {
      t.differentiate(std::vector<double>(std::size_t(rows_), sigmas_[std::size_t(k)]));
      b.copy(t.gradient().data() + first, gradients.data() + k * size, size);
    }
    const multistage::matrix_view<const Scalar> by_level{gradients.data(), levels, size};
    multiply(b, by_level, by_level.transposed(),
             multistage::matrix_view<Scalar>{products.data(), levels, levels});
    const std::vector<Scalar> p = products.to_host();
    for (index_t i = 0; i < levels; ++i)
      for (index_t j = 0; j < levels; ++j) {
        const double norms = std::sqrt(double(p[i * levels + i]) * double(p[j * levels + j]));
        sum_[std::size_t(i * levels + j)] += norms > 0 ? double(p[i * levels + j]) / norms : 0;
      }
    ++collected_;
  }

  /// The noise levels, ascending.
  const std::vector<double>& sigmas() const {
    return sigmas_;
  }
  /// [levels, levels], the mean of what was collected. @throws value_error when nothing was
  std::vector<double> matrix() const {
    require<value_error>(collected_ > 0, "gradient_affinity: nothing was collected");
    std::vector<double> m = sum_;
    for (double& v : m)
      v /= collected_;
    return m;
  }

 private:
  std::vector<double> sigmas_;
  index_t rows_;
  std::vector<double> sum_;
  int collected_ = 0;
};

}  // namespace multistage
