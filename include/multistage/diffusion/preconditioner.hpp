// Preconditionings: how a network F becomes a denoiser of x = y + sigma n,
//   D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)      (Karras et al., arXiv 2206.00364,
//                                                           eq. 7 and table 1).
// Each is a type with its constants. A network of another convention than EDM's sees x_t =
// alpha (y + sigma n), so c_in is its alpha; what it predicts gives c_skip and c_out
// (prediction.hpp). One of a user's own is as good: a struct with `at`.
#pragma once
#include <cmath>
#include <concepts>

#include "../schedule/discrete.hpp"
#include "prediction.hpp"

namespace multistage {

/// The four factors at one noise level.
struct preconditioning_factors {
  double skip;   ///< c_skip
  double out;    ///< c_out
  double in;     ///< c_in
  double noise;  ///< c_noise: the network's label
};

/// What a preconditioning is: a function of the noise level.
template <class P>
concept preconditioner = requires(const P& p, double sigma) {
  { p.at(sigma) } -> std::convertible_to<preconditioning_factors>;
};

namespace detail {
/// c_in of networks whose x_t keeps its variance.
inline double preserving_signal(double sigma) {
  return 1 / std::sqrt(sigma * sigma + 1);
}
inline preconditioning_factors predicted(prediction p,
                                         double sigma,
                                         double alpha,
                                         double noise) {
  const auto [skip, out] = mix_of(p, sigma, alpha);
  return {skip, out, alpha, noise};
}
/// x^2, rounded by itself whatever the compiler would fuse it with: pictures depend on its last
/// bit, and should not on what stands around a formula.
inline double square(double x) {
  return std::fma(x, x, 0.0);
}
/// t of the schedule with linear beta from -2 ln alpha.
inline double linear_beta_time(double beta_min, double beta_max, double minus_two_log_alpha) {
  const double d = beta_max - beta_min;
  return (std::sqrt(beta_min * beta_min + 2 * d * minus_two_log_alpha) - beta_min) / d;
}
/// The index of the nearest level of iDDPM's, which descend.
inline double nearest_iddpm(double sigma) {
  const auto& levels = iddpm_levels();
  const auto below = std::lower_bound(levels.begin(), levels.end(), sigma,
                                      [](double level, double s) { return level > s; });
  if (below == levels.begin())
    return 0;
  if (below == levels.end())
    return double(levels.size() - 1);
  return double(below - levels.begin()) - (*(below - 1) - sigma <= sigma - *below ? 1 : 0);
}
}  // namespace detail

/// EDM's own: inputs and targets of variance 1, label ln(sigma) / 4.
struct edm_preconditioning {
  double sigma_data = 0.5;  ///< standard deviation of the images
  /// @param sigma above 0
  preconditioning_factors at(double sigma) const {
    const double total = detail::square(sigma) + detail::square(sigma_data);
    return {detail::square(sigma_data) / total, sigma * sigma_data / std::sqrt(total),
            1 / std::sqrt(total), std::log(sigma) / 4};
  }
};

/// The variance-preserving schedule with linear beta, label 999 t (arXiv 2011.13456).
struct vp_preconditioning {
  double beta_min = 0.1;                      ///< of the schedule
  double beta_max = 20;                       ///< of the schedule
  prediction predicts = prediction::epsilon;  ///< what the network is trained towards
  /// @param sigma above 0
  preconditioning_factors at(double sigma) const {
    const double alpha = detail::preserving_signal(sigma);
    const double t = detail::linear_beta_time(beta_min, beta_max, std::log1p(sigma * sigma));
    return detail::predicted(predicts, sigma, alpha, 999 * t);
  }
};

/// The sub-VP schedule, where alpha sigma = 1 - alpha^2, label 999 t (arXiv 2011.13456).
struct sub_vp_preconditioning {
  double beta_min = 0.1;                      ///< of the schedule
  double beta_max = 20;                       ///< of the schedule
  prediction predicts = prediction::epsilon;  ///< what the network is trained towards
  /// @param sigma above 0
  preconditioning_factors at(double sigma) const {
    const double alpha = 2 / (sigma + std::sqrt(sigma * sigma + 4));
    const double t = detail::linear_beta_time(beta_min, beta_max, -2 * std::log(alpha));
    return detail::predicted(predicts, sigma, alpha, 999 * t);
  }
};

/// VE as EDM trains it: predicts the noise, label ln(sigma / 2).
struct ve_preconditioning {
  /// @param sigma above 0
  preconditioning_factors at(double sigma) const {
    return {1, sigma, 1, std::log(sigma / 2)};
  }
};

/// VE as score_sde trains it: label sigma (arXiv 2011.13456).
struct score_ve_preconditioning {
  prediction predicts = prediction::score;  ///< what the network is trained towards
  /// @param sigma above 0
  preconditioning_factors at(double sigma) const {
    return detail::predicted(predicts, sigma, 1, sigma);
  }
};

/// iDDPM's: label is the index of the cosine schedule's step (arXiv 2102.09672).
struct iddpm_preconditioning {
  prediction predicts = prediction::epsilon;  ///< what the network is trained towards
  /// @param sigma above 0
  preconditioning_factors at(double sigma) const {
    const double index = double(iddpm_levels().size()) - 2 - detail::nearest_iddpm(sigma);
    return detail::predicted(predicts, sigma, detail::preserving_signal(sigma), index);
  }
};

/// A discrete schedule's, as latent diffusion has it: label is the index of the nearest step
/// (arXiv 2006.11239, 2112.10752).
struct ddpm_preconditioning {
  beta_schedule betas = beta_schedule::scaled_linear;  ///< how betas lie between their ends
  double beta_start = 0.0015;                          ///< the first beta
  double beta_end = 0.0195;                            ///< the last one
  int num_timesteps = 1000;                            ///< steps
  prediction predicts = prediction::epsilon;           ///< what the network is trained towards
  /// @param sigma above 0
  preconditioning_factors at(double sigma) const {
    const double index =
        discrete_schedule::cached(betas, beta_start, beta_end, num_timesteps).nearest(sigma);
    return detail::predicted(predicts, sigma, detail::preserving_signal(sigma), index);
  }
};

/// Straight paths from image to noise: alpha = 1 / (1 + sigma), label 1000 t, t = sigma / (1 +
/// sigma) (arXiv 2210.02747).
struct flow_preconditioning {
  prediction predicts = prediction::flow;  ///< what the network is trained towards
  /// @param sigma above 0
  preconditioning_factors at(double sigma) const {
    return detail::predicted(predicts, sigma, 1 / (1 + sigma), 1000 * sigma / (1 + sigma));
  }
};

}  // namespace multistage
