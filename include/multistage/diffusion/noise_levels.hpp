// How training draws noise levels: ln sigma ~ N(p_mean, p_std^2) (Karras et al., arXiv 2206.00364, table 1), as a choice of stage and an
// exact draw inside it (inverse of the truncated distribution; arXiv 2312.09181, section 4).
#pragma once
#include <algorithm>
#include <vector>

#include "../core/normal.hpp"
#include "../stages/partition.hpp"

namespace multistage {

struct log_normal_levels {
  double p_mean = -1.2, p_std = 1.2;

  /// The probability of each stage.
  std::vector<double> stage_probabilities(const partition& p) const {
    std::vector<double> probability;
    for (int s = 0; s < p.stage_count(); ++s) {
      const double a = standard(p.lower(s)), b = standard(p.upper(s));
      probability.push_back(a > 0 ? normal_cdf(-a) - normal_cdf(-b) : normal_cdf(b) - normal_cdf(a));  // in the tail that keeps digits
    }
    return probability;
  }
  /// A noise level inside (lower, upper] from a uniform number in (0, 1).
  double draw(const partition& p, int stage, double uniform) const {
    const double lower = p.lower(stage), upper = p.upper(stage), a = standard(lower), b = standard(upper);
    double z;
    if (a > 0)
      z = -normal_quantile(normal_cdf(-a) + uniform * (normal_cdf(-b) - normal_cdf(-a)));
    else
      z = normal_quantile(normal_cdf(a) + uniform * (normal_cdf(b) - normal_cdf(a)));
    const double sigma = std::exp(p_mean + p_std * z);
    return std::min(std::max(sigma, std::nextafter(lower, HUGE_VAL)), upper);  // rounding must not leave the stage
  }

 private:
  double standard(double sigma) const { return sigma <= 0 ? -HUGE_VAL : std::isinf(sigma) ? HUGE_VAL : (std::log(sigma) - p_mean) / p_std; }
};

}  // namespace multistage
