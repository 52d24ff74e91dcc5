// Adam and the average of weights that lie in one flat array and all move together: those of an
// autoencoder, of a discriminator. (A model of several stages has update.hpp.)
#pragma once
#include "../core/tensor.hpp"
#include "../ops/elementwise.hpp"
#include "decaying_weights.hpp"

namespace multistage {

/// The moments of so many weights, and their average.
template <class Scalar, class Backend>
class flat_adam {
 public:
  /// @param weights from which the average starts. @param of what they are, by which those are
  /// known that decay: all but vectors (biases and norms)
  MULTISTAGE_COLD flat_adam(const tensor<Scalar, Backend>& weights,
                            const adam_options& options,
                            const graph& of)
      : backend_(weights.backend()),
        options_(options),
        first_(backend_, weights.extents()),
        second_(backend_, weights.extents()),
        average_(backend_, weights.extents()),
        decays_(decaying_weights(backend_, of, options)) {
    backend_.copy(weights.data(), average_.data(), weights.size());
  }

  /// Moves the weights against a gradient, and the average after them. Nothing fails.
  /// @param gradient_scale a factor on it. @param kept what the average keeps of itself
  void apply(tensor<Scalar, Backend>& weights,
             const tensor<Scalar, Backend>& gradient,
             double rate,
             double gradient_scale,
             double kept) {
    adam_pass<Scalar>(
        backend_, options_,
        {weights.size(), gradient.data(), weights.data(), first_.data(), second_.data(),
         average_.data(), decays_.size() > 0 ? decays_.data() : nullptr},
        {++updates_, rate, gradient_scale, kept});
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
  tensor<std::uint8_t, Backend> decays_;  // which do; empty: none
  index_t updates_ = 0;
};

}  // namespace multistage
