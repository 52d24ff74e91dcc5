// Which weights decay (AdamW): all trained ones but vectors, which are biases and norms.
#pragma once
#include <algorithm>
#include <vector>

#include "../core/tensor.hpp"
#include "../graph/node.hpp"
#include "adam.hpp"

namespace multistage {

/// A byte for each weight of a network, 1 where it decays; empty where none does.
template <class Backend>
MULTISTAGE_COLD tensor<std::uint8_t, Backend> decaying_weights(const Backend& b,
                                                               const graph& network,
                                                               const adam_options& o) {
  if (o.weight_decay == 0)
    return {};
  std::vector<std::uint8_t> flags(std::size_t(network.parameter_elements), 0);
  for (const parameter& p : network.parameters)
    if (p.trainable && p.layout != parameter_layout::vector)
      std::fill_n(flags.begin() + p.offset, p.size(), std::uint8_t{1});
  return {b, {1, 1, 1, network.parameter_elements}, flags};
}

}  // namespace multistage
