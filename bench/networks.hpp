// The networks that the benches know by name.
#pragma once
#include <multistage/diffusion/paper_models.hpp>
#include <multistage/multistage.hpp>
#include <string>
#include <vector>

namespace bench {

inline const std::vector<std::string> network_names{
    "edm_cifar10_multistage", "edm_cifar10_unified", "vp_cifar10_multistage",
    "ldm_celeba256_multistage", "quickstart"};

/// The configuration of one of network_names.
inline multistage::configuration network(const std::string& name) {
  using namespace multistage;
  if (name == "edm_cifar10_multistage")
    return paper::edm_cifar10_multistage<>::make_configuration();
  if (name == "edm_cifar10_unified")
    return paper::edm_cifar10<>::make_configuration();
  if (name == "vp_cifar10_multistage")
    return paper::vp_cifar10_multistage<>::make_configuration();
  if (name == "ldm_celeba256_multistage")
    return paper::ldm_celeba256_multistage<>::make_configuration();
  return {song_unet{.resolution = 8,
                    .channels = 1,
                    .encoder_channels = 32,
                    .channel_mult = {1, 2},
                    .num_blocks = 1,
                    .attn_resolutions = {4}},
          decoders{.widths = {48, 32, 16}},
          {}};
}

/// Boundaries for a configuration of three stages or one; where they lie does not matter to
/// speed.
inline multistage::partition stages_of(const multistage::configuration& c) {
  return multistage::partition(c.stages.stage_count() == 3 ? std::vector<double>{2.5, 7.7}
                                                           : std::vector<double>{});
}
/// A noise level in stage s of them.
inline double sigma_in(int s) {
  return s == 0 ? 1.0 : s == 1 ? 5.0 : 50.0;
}

}  // namespace bench
