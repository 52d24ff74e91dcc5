// Preconditioning (Karras et al., arXiv 2206.00364, table 1 and eq. 7): D(x; sigma) = c_skip x + c_out F(c_in x; c_noise).
#pragma once
#include <cmath>
#include <string>

#include "../core/error.hpp"

namespace multistage {

enum class precondition { edm, vp, ve };

/// The four factors at one noise level.
struct preconditioning_factors {
  double skip, out, in, noise;
};

/// A preconditioning and its constants. `sigma_data`: standard deviation of the images (EDM); beta_min and beta_max: the schedule's (VP).
struct preconditioning {
  precondition kind = precondition::edm;
  double sigma_data = 0.5, beta_min = 0.1, beta_max = 20;

  /// @param sigma above 0.
  preconditioning_factors at(double sigma) const {
    switch (kind) {
      case precondition::vp: {
        const double d = beta_max - beta_min, t = (std::sqrt(beta_min * beta_min + 2 * d * std::log1p(sigma * sigma)) - beta_min) / d;
        return {1, -sigma, 1 / std::sqrt(sigma * sigma + 1), 999 * t};
      }
      case precondition::ve:
        return {1, sigma, 1, std::log(sigma / 2)};
      default: {
        const double total = sigma * sigma + sigma_data * sigma_data;
        return {sigma_data * sigma_data / total, sigma * sigma_data / std::sqrt(total), 1 / std::sqrt(total), std::log(sigma) / 4};
      }
    }
  }
  /// EDM's weight of the squared error of D (eq. 8): (sigma^2 + sigma_data^2) / (sigma sigma_data)^2.
  double loss_weight(double sigma) const {
    const double product = sigma * sigma_data;
    return (sigma * sigma + sigma_data * sigma_data) / (product * product);
  }
};

/// Names as upstream's classes have them.
inline const char* to_string(precondition p) { return p == precondition::vp ? "VPPrecond" : p == precondition::ve ? "VEPrecond" : "EDMPrecond"; }
inline precondition precondition_from(const std::string& name) {
  for (const precondition p : {precondition::edm, precondition::vp, precondition::ve})
    if (name == to_string(p)) return p;
  fail<value_error>("preconditioning '", name, "' is unknown; EDMPrecond, VPPrecond and VEPrecond are known");
}

}  // namespace multistage
