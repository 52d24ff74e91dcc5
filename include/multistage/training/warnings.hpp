// What a training run is warned of: data and stages that can be trained, but hardly are what
// was meant.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "../core/warning.hpp"
#include "../data/survey.hpp"
#include "../stages/partition.hpp"
#include "options.hpp"

namespace multistage::detail {

/// Images that do not look like pictures in [-1, 1] nor like latent images of about unit size.
MULTISTAGE_COLD inline void warn_of_images(const image_survey& images) {
  if (std::max(-images.least, images.most) > 10)
    warn("trainer: the images' values go from ", images.least, " to ", images.most,
         "; pictures are expected in [-1, 1] (bytes: v / 127.5 - 1), latent images scaled to a "
         "standard deviation near 1 (scale_factor)");
  else if (images.whole && images.least >= 0 && images.most <= 1)
    warn("trainer: no image has a value below 0, they go from ", images.least, " to ",
         images.most, "; pictures are expected in [-1, 1]: give 2 v - 1");
  else if (images.whole && images.most <= 0)
    warn("trainer: no image has a value above 0, they go from ", images.least, " to ",
         images.most,
         "; pictures are expected in all of [-1, 1]: where integers were read whose white is "
         "not 255, name it (image_rule::largest, --largest)");
}

/// Stages that hardly get rows. @param probabilities of a row, by stage
MULTISTAGE_COLD inline void warn_of_stages(const std::vector<double>& probabilities,
                                           const partition& stages,
                                           const trainer_options& o) {
  for (int s = 0; s < stages.stage_count(); ++s) {
    const double share = probabilities[std::size_t(s)];
    if (share >= 1e-3 || (share == 0 && !o.stage_probabilities.empty()))
      continue;  // 0 said aloud is meant
    warn("trainer: stage ", s, ", sigma from ", stages.lower(s), " to ", stages.upper(s),
         ", gets a share of ", share,
         " of the rows and will hardly be trained; give least_stage_share = 0.05, "
         "stage_probabilities, other levels (p_mean, p_std) or another boundary");
  }
}

}  // namespace multistage::detail
