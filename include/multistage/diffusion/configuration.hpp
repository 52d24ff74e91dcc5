// A model as run-time values: which network, which decoders, which preconditioning. What a checkpoint stores, and what a static model
// turns its template arguments into.
#pragma once
#include <variant>

#include "../core/tensor.hpp"
#include "../networks/adm_unet.hpp"
#include "../networks/ldm_unet.hpp"
#include "../networks/ncsnpp.hpp"
#include "../networks/record.hpp"
#include "../networks/song_unet.hpp"
#include "preconditioning.hpp"

namespace multistage {

struct configuration {
  std::variant<song_unet, adm_unet, ncsnpp, ldm_unet> network;
  decoders stages;
  preconditioning precond;
};

inline described_network record(const configuration& c) {
  return std::visit([&](const auto& net) { return record(net, c.stages); }, c.network);
}

/// Extents of the images a configuration takes.
inline shape image_shape(const configuration& c, index_t rows) {
  return std::visit([&](const auto& n) { return shape{rows, n.resolution, n.width(), n.channels}; }, c.network);
}

}  // namespace multistage
