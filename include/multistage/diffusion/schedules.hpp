// Which preconditioning goes with a schedule: how a network is trained where the schedule is a
// model's template argument. A schedule of the user's own has a function of this name beside
// it, found by its argument, which returns a `preconditioning` or any preconditioner
// (preconditioner.hpp):
//   namespace mine {
//   struct schedule { ... };
//   ms::flow_preconditioning preconditioning_for(const schedule&, double sigma_data);
//   }
#pragma once
#include "../schedule/cosine.hpp"
#include "../schedule/discrete.hpp"
#include "../schedule/edm.hpp"
#include "../schedule/flow.hpp"
#include "../schedule/sub_vp.hpp"
#include "../schedule/ve.hpp"
#include "../schedule/vp.hpp"
#include "preconditioning.hpp"

namespace multistage {

/// The preconditioning of a schedule. @param sigma_data standard deviation of the images, of
/// which only EDM's makes use.
constexpr preconditioning preconditioning_for(const edm_schedule&, double sigma_data) {
  return {precondition::edm, sigma_data};
}
/// Predicts the noise, with label 999 t.
constexpr preconditioning preconditioning_for(const vp_schedule& s, double sigma_data) {
  return {precondition::vp, sigma_data, s.beta_min, s.beta_max};
}
/// Predicts the noise, with label 999 t.
constexpr preconditioning preconditioning_for(const sub_vp_schedule& s, double sigma_data) {
  return {precondition::subvp, sigma_data, s.beta_min, s.beta_max};
}
/// EDM's form of VE: predicts the noise, with label ln(sigma / 2).
constexpr preconditioning preconditioning_for(const ve_schedule&, double sigma_data) {
  return {precondition::ve, sigma_data};
}
/// iDDPM's, whose label is the index of the same cosine in a thousand steps: predicts the
/// noise.
constexpr preconditioning preconditioning_for(const cosine_schedule&, double sigma_data) {
  return {precondition::iddpm, sigma_data};
}
/// Predicts n - y, with label 1000 t.
constexpr preconditioning preconditioning_for(const flow_schedule&, double sigma_data) {
  return {precondition::flow, sigma_data};
}
/// Latent diffusion's: predicts the noise, with the index of the step as label.
constexpr preconditioning preconditioning_for(const ddpm_schedule& s, double sigma_data) {
  preconditioning p{precondition::ddpm, sigma_data};
  p.betas = s.betas;
  p.beta_start = s.beta_start;
  p.beta_end = s.beta_end;
  p.num_timesteps = s.num_timesteps;
  return p;
}

}  // namespace multistage
