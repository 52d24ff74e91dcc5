// A model's preconditioning as run-time values: one of the library's (preconditioner.hpp) by
// its name and constants, as files hold it, or one of the user's own.
#pragma once
#include <functional>

#include "../core/finite.hpp"
#include "../core/options.hpp"
#include "preconditioner.hpp"

namespace multistage {

/// Which preconditioning; `custom` is one of a type of the user's own.
enum class precondition { edm, vp, ve, iddpm, ddpm, subvp, score_ve, flow, custom };
/// Names as upstream's classes have them; what upstream has no class for is named alike.
constexpr std::array<const char*, 9> option_names(precondition) {
  return {"EDMPrecond",   "VPPrecond",      "VEPrecond",   "iDDPMPrecond", "DDPMPrecond",
          "subVPPrecond", "scoreVEPrecond", "FlowPrecond", "custom"};
}
/// The preconditioning of a name. @throws value_error that lists the names there are
inline precondition precondition_from(const std::string& name) {
  return choice_from<precondition>("preconditioning", name);
}

/// One of the library's preconditionings and its constants, of which each uses its own.
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

  /// The four factors. @param sigma above 0
  preconditioning_factors at(double sigma) const {
    const auto towards = [&](prediction native) {
      return predicts == prediction::native ? native : predicts;
    };
    const prediction noise = towards(prediction::epsilon);
    switch (kind) {
      case precondition::vp:
        return vp_preconditioning{beta_min, beta_max, noise}.at(sigma);
      case precondition::subvp:
        return sub_vp_preconditioning{beta_min, beta_max, noise}.at(sigma);
      case precondition::ve:
        return ve_preconditioning{}.at(sigma);
      case precondition::score_ve:
        return score_ve_preconditioning{towards(prediction::score)}.at(sigma);
      case precondition::iddpm:
        return iddpm_preconditioning{noise}.at(sigma);
      case precondition::ddpm:
        return ddpm_preconditioning{betas, beta_start, beta_end, num_timesteps, noise}.at(
            sigma);
      case precondition::flow:
        return flow_preconditioning{towards(prediction::flow)}.at(sigma);
      default:
        return edm_preconditioning{sigma_data}.at(sigma);
    }
  }
  /// Names every constant (core/options.hpp).
  template <class Self, class Visit>
  static constexpr void fields(Self& self, Visit&& visit) {
    constexpr number_range beta = inside(0, 1);
    visit(option{"preconditioning", "how the network becomes a denoiser"}, self.kind);
    visit(option{"sigma_data", "standard deviation of the images", between(1e-6, 1e6)},
          self.sigma_data);
    visit(option{"beta_min", "of the linear schedule (VP, subVP)", between(0, 1e6)},
          self.beta_min);
    visit(option{"beta_max", "of the linear schedule (VP, subVP)", between(0, 1e6)},
          self.beta_max);
    visit(option{"prediction_type", "what the network is trained towards"}, self.predicts);
    visit(option{"beta_schedule",
                 "how betas lie between their ends (DDPM)",
                 {},
                 {"linear", "scaled_linear", "cosine"}},
          self.betas);
    visit(option{"beta_start", "the first beta (DDPM)", beta}, self.beta_start);
    visit(option{"beta_end", "the last beta (DDPM)", beta}, self.beta_end);
    visit(option{"num_timesteps", "of the discrete schedule (DDPM)", between(2, 1e6)},
          self.num_timesteps);
  }
};

/// Refuses constants with which no factor is a number. @throws value_error naming the one
MULTISTAGE_COLD inline void check(const preconditioning& p) {
  check_options("preconditioning", p);
  require<value_error>(
      (p.kind != precondition::vp && p.kind != precondition::subvp) || p.beta_min < p.beta_max,
      "preconditioning: beta_min = ", p.beta_min, " is not below beta_max = ", p.beta_max);
  if (p.kind == precondition::ddpm)
    discrete_schedule::cached(p.betas, p.beta_start, p.beta_end, p.num_timesteps);
}

/// The library's types as values that files can hold.
inline preconditioning described(const edm_preconditioning& p) {
  return {precondition::edm, p.sigma_data};
}
/// As above.
inline preconditioning described(const vp_preconditioning& p) {
  return {precondition::vp, 0.5, p.beta_min, p.beta_max, p.predicts};
}
/// As above.
inline preconditioning described(const sub_vp_preconditioning& p) {
  return {precondition::subvp, 0.5, p.beta_min, p.beta_max, p.predicts};
}
/// As above.
inline preconditioning described(const ve_preconditioning&) {
  return {precondition::ve};
}
/// As above.
inline preconditioning described(const score_ve_preconditioning& p) {
  return {.kind = precondition::score_ve, .predicts = p.predicts};
}
/// As above.
inline preconditioning described(const iddpm_preconditioning& p) {
  return {.kind = precondition::iddpm, .predicts = p.predicts};
}
/// As above.
inline preconditioning described(const ddpm_preconditioning& p) {
  return {.kind = precondition::ddpm,
          .predicts = p.predicts,
          .betas = p.betas,
          .beta_start = p.beta_start,
          .beta_end = p.beta_end,
          .num_timesteps = p.num_timesteps};
}
/// As above.
inline preconditioning described(const flow_preconditioning& p) {
  return {.kind = precondition::flow, .predicts = p.predicts};
}

/// A preconditioning of any kind, as a model holds it; a preconditioning itself. One of the
/// user's own is in files by its name `custom` alone.
class any_preconditioning : public preconditioning {
 public:
  /// EDM's.
  any_preconditioning() = default;
  /// One of the library's, by name and constants.
  any_preconditioning(const preconditioning& named)
      : preconditioning(named) {}
  /// The same with usual constants.
  any_preconditioning(precondition name, double of_images = 0.5)
      : preconditioning{name, of_images} {}
  /// One of the library's types, or of the user's own. @param of_images their standard
  /// deviation, sigma_data, which the usual weight of the loss knows
  template <preconditioner P>
  requires(!std::derived_from<P, preconditioning>)
      any_preconditioning(P given, double of_images = 0.5)
      : preconditioning{precondition::custom, of_images} {
    if constexpr (requires { described(given); }) {
      static_cast<preconditioning&>(*this) = described(given);
      if constexpr (!std::same_as<P, edm_preconditioning>)
        sigma_data = of_images;
    } else {
      own_ = [p = std::move(given)](double sigma) -> preconditioning_factors {
        return p.at(sigma);
      };
    }
  }

  /// The four factors. @param sigma above 0. @throws state_error for `custom` without one
  preconditioning_factors at(double sigma) const {
    if (kind != precondition::custom)
      return preconditioning::at(sigma);
    require<state_error>(own_ != nullptr,
                         "preconditioning: 'custom' is the name of one of a user's own type; "
                         "give the model a value of that type");
    return own_(sigma);
  }

 private:
  std::function<preconditioning_factors(double)> own_;
};

}  // namespace multistage
