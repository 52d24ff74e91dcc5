// A model as run-time values: which network, which decoders, which preconditioning. What a
// checkpoint stores, and what a static model turns its template arguments into.
#pragma once
#include <functional>
#include <type_traits>
#include <variant>

#include "../core/as_it_is.hpp"
#include "../core/tensor.hpp"
#include "../networks/adm_unet.hpp"
#include "../networks/ldm_unet.hpp"
#include "../networks/ncsnpp.hpp"
#include "../networks/record.hpp"
#include "../networks/song_unet.hpp"
#include "preconditioning.hpp"

namespace multistage {

/// A network of the user's own, whose type this library does not know: what the rest needs of
/// it. Made by multi_decoder from any type that describe() accepts. Files hold its weights, not
/// its structure: they are opened into a model of its type.
struct custom_network {
  std::string name = "custom";  ///< in messages; files say "custom"
  int resolution = 0;
  int columns = 0;
  int channels = 0;
  int encoder_channels = 0;
  int num_blocks = 0;  ///< as the network's own settings have it
  std::function<described_network(const decoders&)> recorded;  ///< records it
  /// Columns of the images.
  int width() const {
    return columns;
  }
  /// Names what files hold of it (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"resolution", "rows of the images, in pixels"}, self.resolution);
    visit(option{"columns", "of the images"}, self.columns);
    visit(option{"channels", "of the images"}, self.channels);
    visit(option{"encoder_channels", "as the network's own settings have it"},
          self.encoder_channels);
  }
};
/// Records it with such decoders. @throws value_error saying what does not fit
inline described_network record(const custom_network& n, const decoders& d) {
  return n.recorded(d);
}

/// A model as run-time values.
struct configuration {
  /// With its settings.
  std::variant<song_unet, adm_unet, ncsnpp, ldm_unet, custom_network> network;
  decoders stages;              ///< what each stage has for itself
  any_preconditioning precond;  ///< how the network becomes a denoiser

  /// Whether a file can describe it: no part is of a type of the user's own.
  bool described() const {
    return !std::holds_alternative<custom_network>(network) &&
           precond.kind != precondition::custom;
  }
};

/// Whether a network's structure can be stored in a file.
template <class Net>
inline constexpr bool is_known_network =
    std::is_same_v<Net, song_unet> || std::is_same_v<Net, adm_unet> ||
    std::is_same_v<Net, ncsnpp> || std::is_same_v<Net, ldm_unet>;

/// The configuration of a network of any type.
template <class Net>
configuration configure(const Net& net,
                        const decoders& stages,
                        const any_preconditioning& precond) {
  if constexpr (is_known_network<Net>)
    return {net, stages, precond};
  else
    return {custom_network{"custom", net.resolution, net.width(), net.channels,
                           net.encoder_channels, net.num_blocks,
                           [net](const decoders& d) {
                             return record(net, d);
                           }},
            stages, precond};
}

/// Records a configuration's network. A template, so that a unit whose networks are types does
/// not compile every family's description.
template <std::same_as<configuration> Configuration>
described_network record(const Configuration& c) {
  return as_it_is(c.network, [&](const auto& net) { return record(net, c.stages); });
}

/// Extents of the images a configuration takes.
inline shape image_shape(const configuration& c, index_t rows) {
  return as_it_is(c.network, [&](const auto& n) {
    return shape{rows, n.resolution, n.width(), n.channels};
  });
}

}  // namespace multistage
