// Weights of the denoising loss. Every training loss of the field is a weight w(sigma) on |D(x;
// sigma) - y|^2, since what a network predicts is a linear function of D; with SNR = 1 /
// sigma^2 (variance preserving or not, noise over signal is the same):
//   edm         (sigma^2 + sd^2) / (sigma sd)^2              arXiv 2206.00364, eq. 8
//   epsilon     SNR: the plain loss of predicted noise         2006.11239        velocity   SNR
//   + 1                          2202.00512 sample      1 2006.11239        flow       (1 +
//   1/sigma)^2                  2210.02747 min_snr     min(SNR, gamma) 2303.09556 truncated
//   max(SNR, 1)                      2202.00512 p2          SNR / (k + SNR)^gamma 2204.00227
//   snr_plus_1 SNR + 1                          2202.00512 likelihood  (g / s)^2 / sigma^4 of
//   the linear VP schedule  2101.09258
#pragma once
#include <algorithm>
#include <cmath>

#include "../schedule/vp.hpp"
#include "preconditioning.hpp"

namespace multistage {

enum class weighting {
  edm,
  epsilon,
  sample,
  velocity,
  flow,
  min_snr,
  p2,
  snr_plus_1,
  truncated,
  likelihood
};

struct loss_weight {
  weighting kind = weighting::edm;
  double gamma = 5;  ///< of min_snr; of p2, whose paper takes 1
  double k = 1;      ///< of p2
  double sigma_data = 0.5;
  vp_schedule schedule{};

  /// On |D - y|^2.
  double on_sample(double sigma) const {
    const double snr = 1 / (sigma * sigma);
    switch (kind) {
      case weighting::edm: {
        const double product = sigma * sigma_data;
        return (sigma * sigma + sigma_data * sigma_data) / (product * product);
      }
      case weighting::epsilon:
        return snr;
      case weighting::sample:
        return 1;
      case weighting::velocity:
      case weighting::snr_plus_1:
        return snr + 1;
      case weighting::flow:
        return (1 + 1 / sigma) * (1 + 1 / sigma);
      case weighting::min_snr:
        return std::min(snr, gamma);
      case weighting::p2:
        return snr / std::pow(k + snr, gamma);
      case weighting::truncated:
        return std::max(snr, 1.0);
      case weighting::likelihood: {
        const double t = schedule.t(sigma);
        const double g = schedule.diffusion(t) / schedule.signal(t);
        return g * g * snr * snr;
      }
    }
    return 1;
  }
  /// The same loss as a weight on the squared error of what a (variance-preserving) network
  /// predicts. @param what epsilon, sample, velocity or flow
  double on(prediction what, double sigma) const {
    const double snr = 1 / (sigma * sigma);
    switch (what) {
      case prediction::epsilon:
        return on_sample(sigma) / snr;
      case prediction::velocity:
        return on_sample(sigma) / (snr + 1);
      case prediction::flow:
        return on_sample(sigma) / ((1 + 1 / sigma) * (1 + 1 / sigma));
      case prediction::sample:
        return on_sample(sigma);
      default:
        fail<value_error>("loss_weight: no weight on a prediction of kind ", to_string(what),
                          "; ask for epsilon, sample, velocity or flow");
    }
  }
};

/// What networks are trained towards, from an image value y and noise n: x_t = alpha (y + sigma
/// n) and the predictions of preconditioning.hpp.
struct training_target {
  double alpha;
  double sigma;
  double x_t(double y, double n) const {
    return alpha * (y + sigma * n);
  }
  double velocity(double y, double n) const {
    return alpha * (n - sigma * y);
  }
  double score(double n) const {
    return -n / (alpha * sigma);
  }
  double flow(double y, double n) const {
    return n - y;
  }
};

}  // namespace multistage
