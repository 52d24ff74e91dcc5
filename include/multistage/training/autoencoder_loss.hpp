// What decoded pictures y of pictures x are held against (Esser et al., arXiv 2012.09841,
// section 3; Rombach et al., arXiv 2112.10752, appendix G):
//   L = L_rec + lambda L_G,   L_rec = mean |x - y| (or its square) + w_p mean d(x, y),
//   lambda = w_G |dL_rec/dW| / (|dL_G/dW| + 1e-4), at most 10^4 w_G,
// with d the perceptual distance, L_G the discriminator's opinion, and W the weights of the
// decoder's last layer. lambda is a number to the gradient, not a function.
#pragma once
#include <memory>
#include <optional>

#include "../metrics/perceptual_distance.hpp"
#include "autoencoder_options.hpp"
#include "discriminator.hpp"

namespace multistage {

namespace functor {
/// A value's |x - y| or (x - y)^2; writes the gradient by y.
template <class T>
struct pixel_loss {
  const T* x;
  const T* y;
  index_t size;
  bool square;
  double factor;  // on the gradient
  T* gradient;
  MULTISTAGE_HD double operator()(index_t row, index_t column) const {
    const index_t i = row * size + column;
    const double e = double(y[i]) - double(x[i]);
    const double sign = e > 0 ? 1 : e < 0 ? -1 : 0;
    gradient[i] = T(factor * (square ? 2 * e : sign));
    return square ? e * e : ::fabs(e);
  }
};
}  // namespace functor

/// The terms of a loss, for reports; NaN where one is not at work.
struct autoencoder_terms {
  /// Not at work.
  static constexpr double none = std::numeric_limits<double>::quiet_NaN();
  double reconstruction = none;   ///< of pixels, mean
  double perceptual = none;       ///< mean distance
  double adversarial = none;      ///< L_G
  double adaptive_weight = none;  ///< lambda
  double total = none;            ///< L
};

/// The loss with what it needs.
template <class Scalar, class Backend>
class autoencoder_loss {
 public:
  /// By autoencoder_options: reconstruction, perceptual_weight, discriminator_weight.
  /// @param distance null: no perceptual term. @param critic null: no adversarial one; both
  /// must outlive this
  autoencoder_loss(Backend backend,
                   const autoencoder_options& options,
                   perceptual_distance<Scalar, Backend>* distance,
                   discriminator<Scalar, Backend>* critic)
      : backend_(std::move(backend)),
        options_(options),
        distance_(distance),
        critic_(critic) {}

  /// The loss of y against x; writes its gradient by y. @param norm as
  /// autoencoder_model::differentiate gives it. @param adversarial whether the discriminator is
  /// asked
  template <class Norm>
  autoencoder_terms operator()(view<const Scalar> x,
                               view<const Scalar> y,
                               view<Scalar> gradient,
                               const Norm& norm,
                               bool adversarial) {
    const double rows = double(x.extents.rows);
    autoencoder_terms found;
    found.reconstruction = pixels(x, y, gradient);
    found.total = found.reconstruction;
    if (distance_) {
      const double weight = options_.perceptual_weight;
      double sum = 0;
      for (const double d : distance_->differentiate(y, x, weight / rows, gradient))
        sum += d;
      found.perceptual = sum / rows;
      found.total += weight * found.perceptual;
    }
    if (adversarial && critic_) {
      tensor<Scalar, Backend> opinion(backend_, y.extents);  // dL_G/dy
      found.adversarial = critic_->deceive(y, 1, opinion.view());
      const double ratio = norm(gradient.data) / (norm(opinion.data()) + 1e-4);
      found.adaptive_weight = options_.discriminator_weight * std::min(ratio, 1e4);
      ops::add_to<Backend, Scalar>(backend_, gradient.data, opinion.data(),
                                   Scalar(found.adaptive_weight), true, y.extents.size());
      found.total += found.adaptive_weight * found.adversarial;
    }
    return found;
  }

 private:
  /// The mean over values; writes its gradient.
  double pixels(view<const Scalar> x, view<const Scalar> y, view<Scalar> gradient) {
    const double n = double(x.extents.size());
    const index_t size = x.extents.row_size();
    tensor<double, Backend> sums(backend_, {x.extents.rows, 1, 1, 1});
    const functor::pixel_loss<Scalar> term{
        x.data, y.data,       size, options_.reconstruction == reconstruction_loss::l2,
        1 / n,  gradient.data};
    sum_by_row(backend_, x.extents.rows, size, term, sums.data());
    double sum = 0;
    for (const double s : sums.to_host())
      sum += s;
    return sum / n;
  }

  Backend backend_;
  autoencoder_options options_;
  perceptual_distance<Scalar, Backend>* distance_;
  discriminator<Scalar, Backend>* critic_;
};

}  // namespace multistage
