// What a network predicts. At x = y + sigma n a network of a convention sees x_t = alpha x;
// what it is trained to predict is a linear function of the denoised image D:
//   D = skip x + out F,
//   epsilon   n                        skip = 1                  out = -sigma
//   sample    y                        skip = 0                  out = 1
//   velocity  alpha n - alpha sigma y  skip = 1 / (1 + sigma^2)  out = -sigma skip / alpha
//                                                                       (arXiv 2202.00512)
//   score     -n / (alpha sigma)       skip = 1                  out = alpha sigma^2
//                                                                       (arXiv 2011.13456)
//   flow      n - y                    skip = 1 / (1 + sigma)    out = -sigma / (1 + sigma)
//                                                                       (arXiv 2210.02747)
#pragma once
#include <array>

#include "../core/options.hpp"

namespace multistage {

/// What the network's result stands for. `native` is what the preconditioning's own paper
/// trains.
enum class prediction { native, epsilon, sample, velocity, score, flow };
/// Their names.
constexpr std::array<const char*, 6> option_names(prediction) {
  return {"native", "epsilon", "sample", "velocity", "score", "flow"};
}

/// The factors of x and of the prediction in D.
struct prediction_mix {
  double skip;  ///< of x
  double out;   ///< of what is predicted
};
/// The factors of a kind of prediction (the table at the file's head; `native` counts as
/// epsilon). @param alpha the signal's scale
inline prediction_mix mix_of(prediction p, double sigma, double alpha) {
  switch (p) {
    case prediction::sample:
      return {0, 1};
    case prediction::velocity:
      return {1 / (1 + sigma * sigma), -sigma / (alpha * (1 + sigma * sigma))};
    case prediction::score:
      return {1, alpha * sigma * sigma};
    case prediction::flow:
      return {1 / (1 + sigma), -sigma / (1 + sigma)};
    default:
      return {1, -sigma};
  }
}

/// What a network of another kind would have predicted: `value`, of kind `from`, at a value x =
/// y + sigma n, as kind `to`. alpha: the signal's scale, 1 / sqrt(1 + sigma^2) where variance
/// is preserved. All kinds are linear in D, so the way leads over it. @throws value_error for
/// `native`
inline double convert_prediction(prediction from,
                                 prediction to,
                                 double value,
                                 double x,
                                 double sigma,
                                 double alpha) {
  const auto factors = [&](prediction p) {
    require<value_error>(p != prediction::native,
                         "convert_prediction: 'native' is no kind; name one");
    return mix_of(p, sigma, alpha);
  };
  const auto [skip, out] = factors(from);
  const auto [skip_to, out_to] = factors(to);
  return (skip * x + out * value - skip_to * x) / out_to;
}

/// What networks are trained towards, from an image value y and noise n: x_t = alpha (y + sigma
/// n) and the predictions above.
struct training_target {
  double alpha;  ///< the signal's scale
  double sigma;  ///< noise over signal
  /// What the network sees.
  double x_t(double y, double n) const {
    return alpha * (y + sigma * n);
  }
  /// Of a network that predicts velocity.
  double velocity(double y, double n) const {
    return alpha * (n - sigma * y);
  }
  /// Of a network that predicts the score.
  double score(double n) const {
    return -n / (alpha * sigma);
  }
  /// Of a network that predicts a flow.
  double flow(double y, double n) const {
    return n - y;
  }
};

}  // namespace multistage
