// A network recorded at run time, checked setting by setting.
#pragma once
#include "../core/error.hpp"
#include "../graph/check.hpp"
#include "arrangement.hpp"

namespace multistage {

/// A recorded network with the names of its parameters.
struct described_network {
  graph structure;
  std::vector<std::string> names;
};

/// Records a network at run time. @throws value_error saying which setting does not fit.
template <class Net>
described_network record(const Net& net, const decoders& stages) {
  require<value_error>(stages.stage_count() >= 1, "network: no decoder widths given; give one width for each stage, each above 0");
  require<value_error>(net.depth() >= 1, "network: channel_mult is empty; give one multiplier a level");
  constexpr int most = 1 << 16;  // far beyond any use, and keeps arithmetic on sizes safe
  const auto in_range = [&](const char* name, int value, int limit) {
    require<value_error>(value >= 1 && value <= limit, "network: ", name, " = ", value, " is outside 1..", limit);
  };
  for (int i = 0; i < stages.stage_count(); ++i) in_range("a decoder width", stages.widths[i], most);
  for (int i = 0; i < net.depth(); ++i) in_range("channel_mult", net.channel_mult[i], 256);
  in_range("resolution", net.resolution, most);
  in_range("channels", net.channels, most);
  in_range("channel_mult_emb", net.channel_mult_emb, 256);
  in_range("num_blocks", net.num_blocks + 1, 256);
  in_range("norm_groups", net.norm_groups, most);
  in_range("encoder_channels", net.encoder_channels, most);
  require<value_error>(net.label_dim >= 0 && net.label_dim <= (1 << 20) && net.augment_dim >= 0 && net.augment_dim <= (1 << 20), "network: label_dim ",
                       net.label_dim, ", augment_dim ", net.augment_dim, "; both are at least 0 and at most 2^20");
  require<value_error>(net.encoder_channels >= 4 && net.encoder_channels % 2 == 0, "network: encoder_channels = ", net.encoder_channels,
                       "; an even number from 4 is needed");
  require<value_error>(net.resolution % (1 << (net.depth() - 1)) == 0, "network: resolution ", net.resolution, " is not divisible by ", 1 << (net.depth() - 1),
                       ", as its ", net.depth(), " levels (channel_mult) need; pad the images or use fewer levels");
  recorder<name_list> b;
  describe(b, net, stages);
  described_network d{b.finish(), std::move(b.names.parameters)};
  const graph_check c = check(d.structure);
  if (c.problem != graph_problem::none) {
    const int w = c.node >= 0 ? d.structure.nodes[c.node].weight : -1;
    fail<value_error>("network: ", to_string(c.problem), " (at ", w >= 0 ? d.names[w] : std::string("a node without parameters"), ")");
  }
  return d;
}

}  // namespace multistage
