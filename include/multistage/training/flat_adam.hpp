// Adam and the average of weights that lie in one flat array and all move together: those of an
// autoencoder, of a discriminator. (A model of several stages has update.hpp.)
#pragma once
#include <algorithm>
#include <cmath>

#include "../core/tensor.hpp"
#include "../ops/elementwise.hpp"
#include "adam.hpp"

namespace multistage {

/// The moments of so many weights, and their average.
template <class Scalar, class Backend>
class flat_adam {
 public:
  /// @param weights from which the average starts
  MULTISTAGE_COLD flat_adam(const tensor<Scalar, Backend>& weights, const adam_options& options)
      : backend_(weights.backend()),
        options_(options),
        first_(backend_, weights.extents()),
        second_(backend_, weights.extents()),
        average_(backend_, weights.extents()) {
    backend_.copy(weights.data(), average_.data(), weights.size());
  }

  /// Moves the weights against a gradient, and the average after them. Nothing fails.
  /// @param gradient_scale a factor on it. @param keep what the average keeps of itself
  void apply(tensor<Scalar, Backend>& weights,
             const tensor<Scalar, Backend>& gradient,
             double rate,
             double gradient_scale,
             double keep) {
    const double k = double(++updates_);
    const auto correction = [&](double beta) {
      return Scalar(1 / (1 - std::pow(beta, k)));
    };
    backend_.for_each_index(
        weights.size(),
        functor::adam_and_average<Scalar>{
            gradient.data(), weights.data(), first_.data(), second_.data(), average_.data(),
            Scalar(options_.beta1), Scalar(options_.beta2), Scalar(options_.epsilon),
            Scalar(rate), correction(options_.beta1), correction(options_.beta2),
            Scalar(gradient_scale), Scalar(keep), true});
  }
  /// Weights [first, first + n) were set to something that no gradient led to: their moments
  /// and their average begin anew. @param weights as they are now
  void restart(const tensor<Scalar, Backend>& weights, index_t first, index_t n) {
    const auto zero = [&](tensor<Scalar, Backend>& t) {
      ops::fill<Backend, Scalar>(backend_, view<Scalar>(t.data() + first, shape{1, 1, 1, n}),
                                 Scalar(0));
    };
    zero(first_);
    zero(second_);
    backend_.copy(weights.data() + first, average_.data() + first, n);
  }

  /// How often the weights were moved; to be set when a run goes on.
  index_t& updates() {
    return updates_;
  }
  /// Mean of gradients.
  tensor<Scalar, Backend>& first_moment() {
    return first_;
  }
  /// Mean of their squares.
  tensor<Scalar, Backend>& second_moment() {
    return second_;
  }
  /// Average of the weights.
  tensor<Scalar, Backend>& average() {
    return average_;
  }

 private:
  Backend backend_;
  adam_options options_;
  tensor<Scalar, Backend> first_;
  tensor<Scalar, Backend> second_;
  tensor<Scalar, Backend> average_;
  index_t updates_ = 0;
};

}  // namespace multistage
