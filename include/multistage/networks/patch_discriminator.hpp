// PatchGAN's discriminator (Isola, Zhu, Zhou, Efros, arXiv 1611.07004, section 3.2.2): a few
// strided convolutions, each of whose results tells real from made by the patch of pixels that
// it sees, not by the whole picture.
//   conv4 (stride 2), leaky ReLU -> [conv4 (stride 2), norm, leaky ReLU] x (layers - 1)
//   -> conv4, norm, leaky ReLU -> conv4 to 1 channel
//
// The paper normalises by batches. Here groups of channels of each picture are normalised, so
// that what is said of a picture does not depend on those beside it: a step on a part of the
// batch finds what a step on the whole finds, and there are no running means to keep.
#pragma once
#include "parts.hpp"
#include "record.hpp"

namespace multistage {

/// Settings of a discriminator of patches. What each means and its range: `fields`.
struct patch_discriminator {
  int resolution = 256;  ///< rows of the pictures
  int columns = 0;       ///< of the pictures; 0: as many as rows
  int channels = 3;      ///< of the pictures
  int width = 64;        ///< channels of the first layer; each next one has twice, to 8 times
  int layers = 3;        ///< of stride 2: three see patches of 70 x 70 pixels, two of 34 x 34

  /// Names the settings (core/options.hpp).
  template <class Self, class Visit>
  static constexpr void fields(Self& self, Visit&& visit) {
    constexpr number_range size = between(1, most_of_a_size);
    visit(option{"resolution", "rows of the pictures", size}, self.resolution);
    visit(option{"columns", "of pictures that are not square; 0: as many as rows",
                 between(0, most_of_a_size)},
          self.columns);
    visit(option{"channels", "of the pictures", size}, self.channels);
    visit(option{"discriminator_width", "channels of the discriminator's first layer", size},
          self.width);
    visit(option{"discriminator_layers", "of stride 2: what patches it sees", between(1, 8)},
          self.layers);
  }
};

/// How settings must go together. @throws value_error
MULTISTAGE_COLD inline void check_rules(const patch_discriminator& net) {
  const int columns = net.columns > 0 ? net.columns : net.resolution;
  const int least = net.resolution < columns ? net.resolution : columns;
  require<value_error>(least >> net.layers >= 3, "discriminator: pictures of ", net.resolution,
                       " x ", columns, " are too small for discriminator_layers = ", net.layers,
                       "; each halves them, and 3 pixels must be left");
}

/// Pictures to how real each patch looks, [h, w, 1]; weights begin as normals of standard
/// deviation 0.02.
template <class Builder>
MULTISTAGE_COLD constexpr void describe(Builder& build, const patch_discriminator& net) {
  const layer_options drawn{.init = {initialization::normal, 0.02}};
  const int columns = net.columns > 0 ? net.columns : net.resolution;
  build.segment(1);
  feature x = build.input(input_slot::image, net.channels, net.resolution, columns);
  for (int layer = 0; layer <= net.layers; ++layer) {
    const auto scope = build.scope("layers.", layer);
    const int doubled = layer < 3 ? layer : 3;
    const int stride = layer < net.layers ? 2 : 1;
    x = build.conv(x, net.width << doubled, "conv",
                   {.kernel = 4, .stride = stride, .padding = 1}, drawn);
    if (layer > 0)
      x = build.group_norm(x, groups_for(x.channels, 32), 1e-5, "norm");
    x = build.leaky_relu(x);
  }
  build.output(build.conv(x, 1, "last", {.kernel = 4, .stride = 1, .padding = 1}, drawn));
}

/// Records a discriminator. @throws value_error saying which setting does not fit
MULTISTAGE_COLD inline described_network record(const patch_discriminator& net) {
  check_settings("discriminator", net);
  recorder<name_list> build;
  describe(build, net);
  return detail::finish(build);
}

}  // namespace multistage
