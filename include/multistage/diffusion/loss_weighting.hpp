// Weights of the denoising loss. Every training loss of the field is a weight w(sigma) on |D(x;
// sigma) - y|^2, since what a network predicts is a linear function of D; with SNR = 1 /
// sigma^2 (variance preserving or not, noise over signal is the same):
//   edm         (sigma^2 + sd^2) / (sigma sd)^2                        arXiv 2206.00364, eq. 8
//   epsilon     SNR: the plain loss of predicted noise                       2006.11239
//   sample      1                                                            2006.11239
//   velocity    SNR + 1                                                      2202.00512
//   flow        (1 + 1 / sigma)^2                                            2210.02747
//   min_snr     min(SNR, gamma)                                              2303.09556
//   truncated   max(SNR, 1)                                                  2202.00512
//   p2          SNR / (k + SNR)^gamma                                        2204.00227
//   likelihood  (g / s)^2 / sigma^4 of the linear VP schedule                2101.09258
// A weight is a function of sigma: one of these types, or a user's own function or type.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "../schedule/vp.hpp"
#include "prediction.hpp"

namespace multistage {

/// What a weight is: a function of sigma above 0.
template <class W>
concept loss_weighting = requires(const W& w, double sigma) {
  { w(sigma) } -> std::convertible_to<double>;
};

/// Signal to noise, as powers.
inline double signal_to_noise(double sigma) {
  return 1 / (sigma * sigma);
}

/// EDM's: the loss at each level has the same size when training begins.
struct edm_weight {
  double sigma_data = 0.5;  ///< standard deviation of the images
  /// Its name.
  static constexpr const char* name() {
    return "edm";
  }
  /// On |D - y|^2.
  double operator()(double sigma) const {
    const double product = sigma * sigma_data;
    return (sigma * sigma + sigma_data * sigma_data) / (product * product);
  }
};
/// Of predicted noise.
struct epsilon_weight {
  /// Its name.
  static constexpr const char* name() {
    return "epsilon";
  }
  /// On |D - y|^2.
  double operator()(double sigma) const {
    return signal_to_noise(sigma);
  }
};
/// Of predicted images.
struct sample_weight {
  /// Its name.
  static constexpr const char* name() {
    return "sample";
  }
  /// On |D - y|^2.
  double operator()(double) const {
    return 1;
  }
};
/// Of predicted velocity; SNR + 1.
struct velocity_weight {
  /// Its name.
  static constexpr const char* name() {
    return "velocity";
  }
  /// On |D - y|^2.
  double operator()(double sigma) const {
    return signal_to_noise(sigma) + 1;
  }
};
/// Of predicted flow.
struct flow_weight {
  /// Its name.
  static constexpr const char* name() {
    return "flow";
  }
  /// On |D - y|^2.
  double operator()(double sigma) const {
    return (1 + 1 / sigma) * (1 + 1 / sigma);
  }
};
/// SNR up to a bound.
struct min_snr_weight {
  double gamma = 5;  ///< the bound
  /// Its name.
  static constexpr const char* name() {
    return "min_snr";
  }
  /// On |D - y|^2.
  double operator()(double sigma) const {
    return std::min(signal_to_noise(sigma), gamma);
  }
};
/// SNR from 1 on.
struct truncated_weight {
  /// Its name.
  static constexpr const char* name() {
    return "truncated";
  }
  /// On |D - y|^2.
  double operator()(double sigma) const {
    return std::max(signal_to_noise(sigma), 1.0);
  }
};
/// Less weight where pictures are all but clean.
struct p2_weight {
  double gamma = 1;  ///< the power
  double k = 1;      ///< added to SNR
  /// Its name.
  static constexpr const char* name() {
    return "p2";
  }
  /// On |D - y|^2.
  double operator()(double sigma) const {
    const double snr = signal_to_noise(sigma);
    return snr / std::pow(k + snr, gamma);
  }
};
/// With which the loss bounds the likelihood.
struct likelihood_weight {
  vp_schedule schedule{};  ///< whose process it is
  /// Its name.
  static constexpr const char* name() {
    return "likelihood";
  }
  /// On |D - y|^2.
  double operator()(double sigma) const {
    const double t = schedule.t(sigma);
    const double g = schedule.diffusion(t) / schedule.signal(t);
    const double snr = signal_to_noise(sigma);
    return g * g * snr * snr;
  }
};

/// A weight as one on the squared error of what a (variance-preserving) network predicts.
/// @param what epsilon, sample, velocity or flow. @throws value_error for another
template <loss_weighting W>
double weight_on(const W& weight, prediction what, double sigma) {
  switch (what) {
    case prediction::epsilon:
      return weight(sigma) / epsilon_weight{}(sigma);
    case prediction::velocity:
      return weight(sigma) / velocity_weight{}(sigma);
    case prediction::flow:
      return weight(sigma) / flow_weight{}(sigma);
    case prediction::sample:
      return weight(sigma);
    default:
      fail<value_error>("weight_on: no weight on a prediction of kind ", to_string(what),
                        "; ask for epsilon, sample, velocity or flow");
  }
}

/// A weight of any type, the library's or the user's own.
class loss_weight {
 public:
  /// None: training takes EDM's with the model's own sigma_data.
  loss_weight() = default;
  /// Of a weight's value.
  template <loss_weighting W>
  requires(!std::same_as<W, loss_weight>) loss_weight(W weight)
      : weight_([w = std::move(weight)](double sigma) -> double { return w(sigma); }) {
    if constexpr (requires { W::name(); })
      name_ = W::name();
    else
      name_ = "custom";
  }
  /// One of the library's with its usual parameters. @throws value_error for a name that is
  /// none of those at the file's head. A template, so that units which do not ask by name
  /// compile no other weight
  template <std::same_as<std::string> Name>
  explicit loss_weight(const Name& name)
      : loss_weight(made_from_name<loss_weight,
                                   edm_weight,
                                   epsilon_weight,
                                   sample_weight,
                                   velocity_weight,
                                   flow_weight,
                                   min_snr_weight,
                                   truncated_weight,
                                   p2_weight,
                                   likelihood_weight>("loss weight", name)) {}

  /// Whether there is one.
  explicit operator bool() const {
    return weight_ != nullptr;
  }
  /// The weight's; `custom` of one without.
  std::string name() const {
    return name_;
  }
  /// On |D - y|^2. @param sigma above 0 @throws value_error where one of the user's own is
  /// negative, infinite or no number
  double operator()(double sigma) const {
    const double weight = weight_(sigma);
    // A negative weight trains away from the images without a word.
    require<value_error>(weight >= 0 && weight <= std::numeric_limits<double>::max(),
                         "loss weight ", name_, ": is ", weight, " at sigma ", sigma,
                         "; it must be a finite number of at least 0 at every sigma");
    return weight;
  }

 private:
  std::function<double(double)> weight_;
  const char* name_ = "edm";
};

}  // namespace multistage
