// What the descriptions of several networks are made of: how layers' weights begin, the way
// through the levels, and the settings that networks have in common, named once for checks,
// error texts, files and command lines (core/options.hpp).
#pragma once
#include "../core/options.hpp"
#include "../graph/recorder.hpp"

namespace multistage {

/// How a block resamples what goes through it: not at all, to the next level, or back.
enum class resampling { none, down, up };

/// Where an auxiliary path carries the image through the levels, beside the blocks.
enum class auxiliary_path { standard, skip, residual };
/// Their names in files.
constexpr std::array<const char*, 3> option_names(auxiliary_path) {
  return {"standard", "skip", "residual"};
}

/// The largest number of pixels or channels a setting may ask for: far beyond any use, and it
/// keeps arithmetic on sizes safe.
inline constexpr double most_of_a_size = 1 << 16;

/// How layers' weights begin: EDM's and score_sde's networks (xavier, nearly_zero), and ADM's
/// and latent diffusion's (kaiming, zero). Layers whose result is added to a skip begin at or
/// near zero.
namespace initial {
inline constexpr layer_init xavier{initialization::xavier_uniform, 1};  ///< plain layers
inline constexpr layer_init nearly_zero{initialization::xavier_uniform, 1e-5};  ///< last ones
/// PyTorch's own, of weights and biases: uniform within 1 / sqrt(inputs).
inline constexpr layer_init kaiming{initialization::kaiming_uniform, 0.57735026918962576,
                                    0.57735026918962576};
inline constexpr layer_init zero{initialization::constant, 0};  ///< last layers
}  // namespace initial

/// Sums of two paths are multiplied by this, so that variance stays what it was.
inline constexpr double sqrt_half = 0.70710678118654752440;

/// Resampling by 2x2 means and by nearest neighbours, of which no cost is counted.
inline constexpr ops::resample_filter mean_and_nearest{{1, 1}, -1, 2, ops::filter_cost::none};

/// Groups of a normalisation that keeps at least four channels in each. @param most of them
constexpr int groups_for(int channels, int most) {
  return channels / 4 < 1 ? 1 : channels / 4 < most ? channels / 4 : most;
}

/// Names the settings that every network has: those of its images and its levels.
/// @param self the settings, as in option lists elsewhere
template <class Self, class Visit>
constexpr void image_settings(Self& self, Visit&& visit) {
  constexpr number_range size = between(1, most_of_a_size);
  visit(option{"resolution", "rows of the images, in pixels", size}, self.resolution);
  visit(option{"columns", "of images that are not square; 0: as many as rows",
               between(0, most_of_a_size)},
        self.columns);
  visit(option{"channels", "of the images", size}, self.channels);
  visit(option{"encoder_channels", "channels that channel_mult multiplies", size},
        self.encoder_channels);
  visit(option{"channel_mult", "width of each level", between(1, 256)}, self.channel_mult);
  visit(option{"num_blocks", "residual blocks a level", between(0, 255)}, self.num_blocks);
  visit(option{"norm_groups", "of group norms", size}, self.norm_groups);
  visit(option{"dropout", "share of values left out in training", {0, 1, true, false}},
        self.dropout);
}

/// Names the settings that every network with decoders has.
template <class Self, class Visit>
constexpr void denoiser_settings(Self& self, Visit&& visit) {
  image_settings(self, visit);
  visit(option{"label_dim", "classes; 0: none", between(0, 1 << 20)}, self.label_dim);
  visit(option{"shared_middle", "whether the middle blocks belong to all stages"},
        self.shared_middle);
}

/// Refuses levels that do not fit the images. @throws value_error
MULTISTAGE_COLD inline void check_levels(const char* owner, int rows, int columns, int depth) {
  require<value_error>(depth >= 1, owner,
                       ": channel_mult is empty; give one multiplier a level");
  const int parts = 1 << (depth - 1);
  const auto divisible = [&](const char* name, int extent) {
    require<value_error>(extent % parts == 0, owner, ": ", name, " ", extent,
                         " is not divisible by ", parts, ", as its ", depth,
                         " levels (channel_mult) need; pad the images or use fewer levels");
  };
  divisible("resolution", rows);
  divisible("columns", columns);
}

/// The rules of every network with decoders: levels fit the images, and the noise level's
/// embedding has channels for sine and cosine. @throws value_error
template <class Net>
void check_denoiser_rules(const Net& net) {
  check_levels("network", net.resolution, net.width(), net.depth());
  require<value_error>(net.encoder_channels >= 4 && net.encoder_channels % 2 == 0,
                       "network: encoder_channels = ", net.encoder_channels,
                       "; an even number from 4 is needed");
}

}  // namespace multistage
