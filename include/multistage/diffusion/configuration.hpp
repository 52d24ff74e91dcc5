// A model as run-time values: which network, which decoders, which preconditioning. What a
// checkpoint stores, and what a static model turns its template arguments into.
#pragma once
#include <functional>
#include <type_traits>
#include <variant>

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
  std::string name = "custom";
  int resolution = 0;
  int columns = 0;
  int channels = 0;
  int encoder_channels = 0;
  int num_blocks = 0;
  std::function<described_network(const decoders&)> recorded;
  int width() const {
    return columns;
  }
};
inline described_network record(const custom_network& n, const decoders& d) {
  return n.recorded(d);
}

struct configuration {
  std::variant<song_unet, adm_unet, ncsnpp, ldm_unet, custom_network> network;
  decoders stages;
  preconditioning precond;
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
                        const preconditioning& precond) {
  if constexpr (is_known_network<Net>)
    return {net, stages, precond};
  else
    return {custom_network{"custom", net.resolution, net.width(), net.channels,
                           net.encoder_channels, net.num_blocks,
                           [net](const decoders& d) {
                             recorder<name_list> b;
                             describe(b, net, d);
                             return detail::finish(b);
                           }},
            stages, precond};
}

/// A template, so that a unit whose networks are types does not compile every family's
/// description.
template <std::same_as<configuration> Configuration>
described_network record(const Configuration& c) {
  return std::visit([&](const auto& net) { return record(net, c.stages); }, c.network);
}

/// Extents of the images a configuration takes.
inline shape image_shape(const configuration& c, index_t rows) {
  return std::visit(
      [&](const auto& n) {
        return shape{rows, n.resolution, n.width(), n.channels};
      },
      c.network);
}

}  // namespace multistage
