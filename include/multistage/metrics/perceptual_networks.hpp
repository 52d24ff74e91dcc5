// The convolutions of VGG-16 (Simonyan and Zisserman, arXiv 1409.1556) and of AlexNet
// (Krizhevsky, arXiv 1404.5997), cut where the perceptual distance looks (Zhang et al., arXiv
// 1801.03924, section 3.1): behind the last ReLU of each resolution of VGG-16, and behind each
// of AlexNet's five. Layers have torchvision's names.
#pragma once
#include <array>
#include <functional>
#include <string>
#include <vector>

#include "../core/options.hpp"
#include "feature_layers.hpp"

namespace multistage {

/// Networks that people have weights of.
enum class perceptual_kind { vgg16, alexnet };
/// Their names in files.
constexpr std::array<const char*, 2> option_names(perceptual_kind) {
  return {"vgg16", "alexnet"};
}

/// A network for perceptual_distance, with weights.
template <class Scalar>
struct perceptual_network {
  std::string name;                                    ///< for people
  std::vector<feature_part<Scalar>> parts;             ///< a layer of features each
  std::vector<std::vector<Scalar>> channel_weights{};  ///< w_k: by layer, by channel
  int channels = 3;                                    ///< of pictures
  std::array<double, 3> shift{0, 0, 0};  ///< pictures in [-1, 1] are shifted by this, ...
  std::array<double, 3> scale{1, 1, 1};  ///< ... then divided by this
};

namespace perceptual_detail {

/// A convolution with ReLU, or a pool (out 0), where a part begins.
struct layer {
  int out;      // channels; 0: the maximum of windows
  int kernel;   // of the window
  int stride;   // of the window
  int padding;  // of the window
  int number;   // among torchvision's "features"
  bool cut;     // whether features are looked at behind it
};

/// All of a network's.
inline std::vector<layer> layers_of(perceptual_kind kind) {
  if (kind == perceptual_kind::alexnet)
    return {
        {64, 11, 4, 2, 0, true},  // 11 x 11 windows, every fourth pixel
        {0, 3, 2, 0, 2, false},   // a pool
        {192, 5, 1, 2, 3, true},  // 5 x 5 windows
        {0, 3, 2, 0, 5, false},   // a pool
        {384, 3, 1, 1, 6, true},  // 3 x 3 windows from here on
        {256, 3, 1, 1, 8, true}, {256, 3, 1, 1, 10, true},
    };
  // Levels of VGG-16: channels, and 3 x 3 convolutions; a pool between them.
  static constexpr std::pair<int, int> levels[] = {
      {64, 2}, {128, 2}, {256, 3}, {512, 3}, {512, 3},
  };
  std::vector<layer> list;
  int number = 0;
  for (const auto& [out, count] : levels) {
    if (number > 0)
      list.push_back({0, 2, 2, 0, number++, false});
    for (int i = 0; i < count; ++i) {
      const bool last = i == count - 1;
      list.push_back({out, 3, 1, 1, number, last});
      number += 2;  // a ReLU stands behind each
    }
  }
  return list;
}

}  // namespace perceptual_detail

/// Gives a tensor by its name, with upstream's extents: features.N.weight [out, in, kernel,
/// kernel], features.N.bias [out], lin0.weight ... lin4.weight [channels].
using perceptual_source =
    std::function<std::vector<double>(const std::string& name,
                                      const std::vector<index_t>& extents)>;

/// A network for pictures of an extent. @throws value_error where they are too small for it,
/// and what `weights` throws
template <class Scalar>
MULTISTAGE_COLD perceptual_network<Scalar> make_perceptual_network(
    perceptual_kind kind,
    const shape& image,
    const perceptual_source& weights) {
  using perceptual_detail::layer;
  // torchvision's mean and standard deviation of pictures in [0, 1], for those in [-1, 1].
  perceptual_network<Scalar> net{
      .name = to_string(kind),
      .parts = {},
      .shift = {-0.030, -0.088, -0.188},
      .scale = {0.458, 0.448, 0.450},
  };
  recorder<name_list> b;
  const auto begin = [&](int channels, int height, int width) {
    b = recorder<name_list>();
    b.segment(0);
    const feature x = b.input(input_slot::image, channels, height, width);
    b.segment(1);
    return x;
  };
  const auto end = [&](feature x) {
    b.output(x);
    feature_part<Scalar> part{b.finish(), {}};
    const auto& parameters = part.structure.parameters;
    part.weights.resize(std::size_t(part.structure.parameter_elements));
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      const parameter& p = parameters[k];
      const std::vector<double> given = weights(b.names.parameters[k], upstream_extents(p));
      for_each_element(p, [&](index_t upstream, index_t own) {
        part.weights[std::size_t(p.offset + own)] = Scalar(given[std::size_t(upstream)]);
      });
    }
    const std::string lin = "lin" + std::to_string(net.parts.size()) + ".weight";
    const std::vector<double> by_channel = weights(lin, {index_t{x.channels}});
    net.channel_weights.emplace_back(by_channel.begin(), by_channel.end());
    net.parts.push_back(std::move(part));
  };
  feature x = begin(3, int(image.height), int(image.width));
  for (const layer& l : perceptual_detail::layers_of(kind)) {
    const ops::conv_window window{.kernel = l.kernel, .stride = l.stride, .padding = l.padding};
    const bool fits = window.out(x.height) > 0 && window.out_width(x.width) > 0;
    require<value_error>(fits, "perceptual_distance: pictures of ", image.height, " x ",
                         image.width, " are too small for ", net.name, "; 32 x 32 is enough");
    const std::string name = "features." + std::to_string(l.number);
    if (l.out > 0)
      x = b.relu(b.conv(x, l.out, name, window));
    else
      x = b.pool(x, ops::pool_kind::maximum, window);
    if (!l.cut)
      continue;
    end(x);
    x = begin(x.channels, x.height, x.width);
  }
  return net;
}

}  // namespace multistage
