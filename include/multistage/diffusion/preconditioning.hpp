// Preconditioning: how a network F becomes a denoiser of x = y + sigma n,
//   D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)                                 (Karras
//   et al., arXiv 2206.00364, eq. 7 and table 1)
// A network of another convention sees x_t = alpha (y + sigma n), so c_in is its alpha; what it
// predicts gives c_skip and c_out:
//   epsilon   n                      c_skip = 1                c_out = -sigma
//   sample    y                      c_skip = 0                c_out = 1
//   velocity  alpha n - alpha sigma y  c_skip = 1/(1 + sigma^2)  c_out = -sigma / (alpha (1 +
//   sigma^2))     (arXiv 2202.00512) score     -n / (alpha sigma)     c_skip = 1 c_out = alpha
//   sigma^2                      (arXiv 2011.13456) flow      n - y                  c_skip =
//   1/(1 + sigma)    c_out = -sigma / (1 + sigma)               (arXiv 2210.02747)
#pragma once
#include <cmath>
#include <string>

#include "../core/finite.hpp"
#include "../schedule/discrete.hpp"

namespace multistage {

/// Which alpha and c_noise: EDM's own; VP (continuous, label 999 t); VE as EDM trains it (label
/// ln(sigma / 2)); iDDPM (label: index of the cosine schedule); ddpm (index of a discrete
/// schedule, as latent diffusion has it); subvp (label 999 t) and score_ve (label sigma) as
/// score_sde trains them; flow (label 1000 t, t = sigma / (1 + sigma)).
enum class precondition { edm, vp, ve, iddpm, ddpm, subvp, score_ve, flow };

/// What the network's result stands for. `native` is what the preconditioning's own paper
/// trains.
enum class prediction { native, epsilon, sample, velocity, score, flow };

/// The four factors at one noise level.
struct preconditioning_factors {
  double skip;
  double out;
  double in;
  double noise;
};

/// c_skip and c_out of a kind of prediction (the table at the file's head).
struct prediction_mix {
  double skip;
  double out;
};
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

/// A preconditioning and its constants. `sigma_data`: standard deviation of the images (EDM);
/// beta_min and beta_max: the schedule's (VP, sub-VP); beta_start, beta_end, num_timesteps and
/// betas: the discrete schedule's (ddpm).
struct preconditioning {
  precondition kind = precondition::edm;
  double sigma_data = 0.5;
  double beta_min = 0.1;
  double beta_max = 20;
  prediction predicts = prediction::native;
  beta_schedule betas = beta_schedule::scaled_linear;
  double beta_start = 0.0015;
  double beta_end = 0.0195;
  int num_timesteps = 1000;

  /// @param sigma above 0.
  preconditioning_factors at(double sigma) const {
    const double vp_signal = 1 / std::sqrt(sigma * sigma + 1);
    switch (kind) {
      case precondition::vp:
        return predicted(sigma, vp_signal, 999 * vp_time(std::log1p(sigma * sigma)),
                         prediction::epsilon);
      case precondition::subvp: {  // alpha sigma = 1 - alpha^2
        const double alpha = 2 / (sigma + std::sqrt(sigma * sigma + 4));
        return predicted(sigma, alpha, 999 * vp_time(-2 * std::log(alpha)),
                         prediction::epsilon);
      }
      case precondition::ve:
        return {1, sigma, 1, std::log(sigma / 2)};
      case precondition::score_ve:
        return predicted(sigma, 1, sigma, prediction::score);
      case precondition::iddpm:
        return predicted(sigma, vp_signal,
                         double(iddpm_levels().size()) - 2 - nearest_iddpm(sigma),
                         prediction::epsilon);
      case precondition::ddpm:
        return predicted(sigma, vp_signal,
                         discrete_schedule::cached(betas, beta_start, beta_end, num_timesteps)
                             .nearest(sigma),
                         prediction::epsilon);
      case precondition::flow:
        return predicted(sigma, 1 / (1 + sigma), 1000 * sigma / (1 + sigma), prediction::flow);
      default: {
        const double total = sigma * sigma + sigma_data * sigma_data;
        return {sigma_data * sigma_data / total, sigma * sigma_data / std::sqrt(total),
                1 / std::sqrt(total), std::log(sigma) / 4};
      }
    }
  }
  /// EDM's weight of the squared error of D (eq. 8): (sigma^2 + sigma_data^2) / (sigma
  /// sigma_data)^2.
  double loss_weight(double sigma) const {
    const double product = sigma * sigma_data;
    return (sigma * sigma + sigma_data * sigma_data) / (product * product);
  }

 private:
  /// t of the linear VP schedule from -2 ln alpha.
  double vp_time(double minus_two_log_alpha) const {
    const double d = beta_max - beta_min;
    return (std::sqrt(beta_min * beta_min + 2 * d * minus_two_log_alpha) - beta_min) / d;
  }
  static double nearest_iddpm(double sigma) {
    const auto& u = iddpm_levels();  // descending
    const auto below = std::lower_bound(u.begin(), u.end(), sigma,
                                        [](double level, double s) { return level > s; });
    if (below == u.begin())
      return 0;
    if (below == u.end())
      return double(u.size() - 1);
    return double(below - u.begin()) - (*(below - 1) - sigma <= sigma - *below ? 1 : 0);
  }
  preconditioning_factors predicted(double sigma,
                                    double alpha,
                                    double noise,
                                    prediction native) const {
    const auto [skip, out] =
        mix_of(predicts == prediction::native ? native : predicts, sigma, alpha);
    return {skip, out, alpha, noise};
  }
};

/// Refuses constants with which no factor is a number. @throws value_error naming the one
MULTISTAGE_COLD inline void check(const preconditioning& p) {
  const auto inside = [](const char* name, double value, double least, double most) {
    require<value_error>(is_finite(value) && value >= least && value <= most,
                         "preconditioning: ", name, " = ", value, " is outside ", least, "..",
                         most);
  };
  inside("sigma_data", p.sigma_data, 1e-6, 1e6);
  if (p.kind == precondition::vp || p.kind == precondition::subvp) {
    inside("beta_min", p.beta_min, 0, 1e6);
    inside("beta_max", p.beta_max, 0, 1e6);
    require<value_error>(p.beta_min < p.beta_max, "preconditioning: beta_min = ", p.beta_min,
                         " is not below beta_max = ", p.beta_max);
  }
  inside("num_timesteps", p.num_timesteps, 2, 1e6);
  inside("beta_start", p.beta_start, 1e-12, 1 - 1e-12);
  inside("beta_end", p.beta_end, 1e-12, 1 - 1e-12);
  if (p.kind == precondition::ddpm)
    discrete_schedule::cached(p.betas, p.beta_start, p.beta_end, p.num_timesteps);
}

/// What a network of another kind would have predicted: `value`, of kind `from`, at a value x =
/// y + sigma n, as kind `to`. alpha: the signal's scale, 1 / sqrt(1 + sigma^2) where variance
/// is preserved. All kinds are linear in D, so the way leads over it.
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

/// Names as upstream's classes have them; what upstream has no class for is named alike.
constexpr const char* to_string(precondition p) {
  constexpr const char* names[] = {"EDMPrecond",     "VPPrecond",   "VEPrecond",
                                   "iDDPMPrecond",   "DDPMPrecond", "subVPPrecond",
                                   "scoreVEPrecond", "FlowPrecond"};
  return names[int(p)];
}
constexpr const char* to_string(prediction p) {
  constexpr const char* names[] = {"native", "epsilon", "sample", "velocity", "score", "flow"};
  return names[int(p)];
}
inline precondition precondition_from(const std::string& name) {
  std::string known;
  for (int p = 0; p <= int(precondition::flow); ++p) {
    if (name == to_string(precondition(p)))
      return precondition(p);
    known += std::string(p ? ", " : "") + to_string(precondition(p));
  }
  fail<value_error>("preconditioning '", name, "' is unknown; known: ", known);
}

}  // namespace multistage
