// What the training of an autoencoder is told, and what a step reports.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "../core/options.hpp"
#include "update_fields.hpp"

namespace multistage {

/// How a decoded picture is held against the picture: mean |difference|, or mean square.
enum class reconstruction_loss { l1, l2 };
/// Their names.
constexpr std::array<const char*, 2> option_names(reconstruction_loss) {
  return {"l1", "l2"};
}

/// What each means, its name and its range: `fields`. Defaults are those of arXiv 2112.10752's
/// first stages, the learning rate aside.
struct autoencoder_options {
  double learning_rate = 2e-4;                    ///< of Adam
  adam_options adam{.beta1 = 0.5, .beta2 = 0.9};  ///< of autoencoder and discriminator
  double lr_rampup_kimg = 1;                      ///< thousand images of its warm-up
  double ema_halflife_kimg = 10;                  ///< of the average, in thousand images
  double ema_rampup_ratio = 0.05;                 ///< half-life by images seen, at most
  double gradient_clip = 0;                       ///< largest norm; 0: none
  index_t batch_size = 16;
  bool mirror = false;
  reconstruction_loss reconstruction = reconstruction_loss::l1;
  double perceptual_weight = 1;
  double discriminator_weight = 0.75;
  double discriminator_kimg = 50;
  double discriminator_rate = 1;
  int discriminator_width = 64;
  int discriminator_layers = 3;
  double revive_kimg = 0;
  std::uint64_t seed = 0;  ///< of the order of pictures, noise, mirrors, and first weights of
                           ///< the discriminator

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    update_fields(self, visit);
    loss_fields(self, visit);
    visit(option{"batch_size", "pictures of a step", between(1, 1e7)}, self.batch_size);
    visit(option{"mirror", "whether half of the pictures are shown mirrored"}, self.mirror);
  }

 private:
  /// How weights move.
  template <class Self, class Visit>
  static void update_fields(Self& self, Visit& visit) {
    visit_update_options(self, visit);
    visit(option{"revive_kimg",
                 "thousand images after which a code that no pixel took moves to a pixel; 0: "
                 "never (vq)",
                 at_least(0)},
          self.revive_kimg);
  }
  /// What decoded pictures are held against.
  template <class Self, class Visit>
  static void loss_fields(Self& self, Visit& visit) {
    visit(option{"reconstruction", "how pixels are compared"}, self.reconstruction);
    visit(option{"perceptual_weight", "of the perceptual distance; 0: none", at_least(0)},
          self.perceptual_weight);
    visit(
        option{"discriminator_weight",
               "of the adversarial loss against the others; 0: no discriminator", at_least(0)},
        self.discriminator_weight);
    visit(option{"discriminator_kimg", "thousand images after which it begins", at_least(0)},
          self.discriminator_kimg);
    visit(option{"discriminator_rate", "factor on the discriminator's learning rate", above(0)},
          self.discriminator_rate);
    visit(option{"discriminator_width", "channels of the discriminator's first layer",
                 between(1, 65536)},
          self.discriminator_width);
    visit(option{"discriminator_layers", "of stride 2: what patches it sees", between(1, 8)},
          self.discriminator_layers);
  }
};

/// What one step of an autoencoder's training did.
struct autoencoder_step {
  /// What is listed in `loss`, in order.
  static constexpr std::array<const char*, 7> names{
      "reconstruction",   ///< of pixels, mean
      "perceptual",       ///< distance, mean over the batch
      "latent",           ///< codes' or divergences' loss, weighted
      "adversarial",      ///< what the discriminator says of decoded pictures, -mean D
      "adaptive_weight",  ///< its factor
      "discriminator",    ///< the discriminator's own loss
      "code_perplexity"   ///< e to the entropy of the codes that the batch took
  };
  index_t step = 0;           ///< counted from 1
  double images_seen = 0;     ///< with this step's
  std::vector<double> loss;   ///< by name; NaN where a term is not at work
  std::vector<index_t> rows;  ///< that each was measured on: the batch's, or 0
  double gradient_norm = 0;   ///< of the autoencoder's, before clipping
};

}  // namespace multistage
