// How training draws noise levels: a distribution of sigma, as a choice of stage by its
// probability and an exact draw inside the stage by the inverse of the truncated distribution
// (arXiv 2312.09181, section 4). Each distribution is a monotone map u(sigma) of its own and
// the distribution function of u; that is all that stages need.
//   log_normal    ln sigma ~ N(p_mean, p_std^2)                             Karras et al.,
//   arXiv 2206.00364, table 1 log_uniform   ln sigma uniform between sigma_min and sigma_max:
//   uniform in log-SNR time_uniform  t of the linear VP schedule uniform between t_min and 1
//   Song et al., arXiv 2011.13456 logit_normal  t = sigma / (1 + sigma) with logit t ~
//   N(p_mean, p_std^2)  Esser et al., arXiv 2403.03206: ln sigma is normal again time_kneed t
//   uniform below a knee and `suppression` times rarer above it, where denoising hardly depends
//   on t: the asymmetric draws of SpeeD
//                 (Wang et al., arXiv 2405.17403)
#pragma once
#include <algorithm>
#include <vector>

#include "../core/normal.hpp"
#include "../schedule/vp.hpp"
#include "../stages/partition.hpp"

namespace multistage {

enum class level_distribution {
  log_normal,
  log_uniform,
  time_uniform,
  logit_normal,
  time_kneed
};

struct noise_level_draws {
  double p_mean = -1.2;
  double p_std = 1.2;
  level_distribution distribution = level_distribution::log_normal;
  /// ends of log_uniform
  double sigma_min = 0.002;
  double sigma_max = 80;
  vp_schedule schedule{};  ///< of time_uniform and time_kneed
  /// of time_kneed: the knee as a share of the times
  double knee = 0.7;
  double suppression = 5;

  /// The probability of each stage.
  std::vector<double> stage_probabilities(const partition& p) const {
    std::vector<double> probability;
    for (int s = 0; s < p.stage_count(); ++s) {
      if (!bounded()) {
        const double a = standard(p.lower(s));
        const double b = standard(p.upper(s));
        probability.push_back(a > 0 ? normal_cdf(-a) - normal_cdf(-b)
                                    : normal_cdf(b) -
                                          normal_cdf(a));  // in the tail that keeps digits
      } else
        probability.push_back(share(p.upper(s)) - share(p.lower(s)));
    }
    return probability;
  }
  /// A noise level inside (lower, upper] from a uniform number in (0, 1).
  double draw(const partition& p, int stage, double uniform) const {
    const double lower = p.lower(stage);
    const double upper = p.upper(stage);
    double sigma;
    if (bounded()) {
      const double a = share(lower);
      const double b = share(upper);
      const double v = a + uniform * (b - a);
      sigma = distribution == level_distribution::log_uniform
                  ? sigma_min * std::pow(sigma_max / sigma_min, v)
                  : schedule.sigma(schedule.t_min() +
                                   unbent(v) * (schedule.t_max() - schedule.t_min()));
    } else {
      const double a = standard(lower);
      const double b = standard(upper);
      const double z =
          a > 0 ? -normal_quantile(normal_cdf(-a) + uniform * (normal_cdf(-b) - normal_cdf(-a)))
                : normal_quantile(normal_cdf(a) + uniform * (normal_cdf(b) - normal_cdf(a)));
      sigma = std::exp(p_mean + p_std * z);
    }
    return std::min(std::max(sigma, std::nextafter(lower, HUGE_VAL)),
                    upper);  // rounding must not leave the stage
  }

 private:
  bool bounded() const {
    return distribution != level_distribution::log_normal &&
           distribution != level_distribution::logit_normal;
  }
  /// The distribution function of the share of the times that has passed, and its inverse.
  double bent(double t) const {
    if (distribution != level_distribution::time_kneed)
      return t;
    return (std::min(t, knee) + std::max(t - knee, 0.0) / suppression) /
           (knee + (1 - knee) / suppression);
  }
  double unbent(double v) const {
    if (distribution != level_distribution::time_kneed)
      return v;
    const double t = v * (knee + (1 - knee) / suppression);
    return t <= knee ? t : knee + (t - knee) * suppression;
  }
  double standard(double sigma) const {
    return sigma <= 0          ? -HUGE_VAL
           : std::isinf(sigma) ? HUGE_VAL
                               : (std::log(sigma) - p_mean) / p_std;
  }
  /// The distribution function of the bounded ones.
  double share(double sigma) const {
    if (sigma <= 0)
      return 0;
    if (std::isinf(sigma))
      return 1;
    const double v =
        distribution == level_distribution::log_uniform
            ? std::log(sigma / sigma_min) / std::log(sigma_max / sigma_min)
            : (schedule.t(sigma) - schedule.t_min()) / (schedule.t_max() - schedule.t_min());
    return bent(std::clamp(v, 0.0, 1.0));
  }
};

}  // namespace multistage
