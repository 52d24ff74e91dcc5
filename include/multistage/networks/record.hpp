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

namespace detail {
/// @throws value_error naming the setting that is out of range.
template <class Value>
void check_setting(const char* name, Value value, Value least, Value most) {
  require<value_error>(value >= least && value <= most, "network: ", name, " = ", value,
                       " is outside ", least, "..", most);
}
/// Finishes a recording. @throws value_error saying where features do not fit.
MULTISTAGE_COLD inline described_network finish(recorder<name_list>& b) {
  const graph_check links = check_links(b.recorded());
  if (links.problem != graph_problem::none)
    fail<value_error>("network: ", to_string(links.problem), " (at operation ", links.node,
                      " of the description, counted from 0)");
  described_network d{b.finish(), std::move(b.names.parameters)};
  const graph_check c = check(d.structure);
  if (c.problem != graph_problem::none) {
    const int weight = c.node >= 0 ? d.structure.nodes[c.node].weight : -1;
    fail<value_error>(explain(d.structure, c,
                              weight >= 0 ? d.names[weight] : "a node without parameters"));
  }
  return d;
}
}  // namespace detail

/// Records a network at run time. @throws value_error saying which setting does not fit.
template <class Net>
described_network record(const Net& net, const decoders& stages) {
  using detail::check_setting;
  require<value_error>(
      stages.stage_count() >= 1,
      "network: no decoder widths given; give one width for each stage, each above 0");
  require<value_error>(net.depth() >= 1,
                       "network: channel_mult is empty; give one multiplier a level");
  constexpr int most = 1 << 16;  // far beyond any use, and keeps arithmetic on sizes safe
  for (int i = 0; i < stages.stage_count(); ++i) {
    check_setting("a decoder width", stages.widths[i], 1, most);
    check_setting("a decoder's blocks", stages.blocks[i], 0, 255);
  }
  for (int i = 0; i < net.depth(); ++i)
    check_setting("channel_mult", net.channel_mult[i], 1, 256);
  check_setting("resolution", net.resolution, 1, most);
  check_setting("columns", net.columns, 0, most);
  check_setting("channels", net.channels, 1, most);
  check_setting("num_blocks", net.num_blocks, 0, 255);
  check_setting("encoder_channels", net.encoder_channels, 1, most);
  check_setting("label_dim", net.label_dim, 0, 1 << 20);
  require<value_error>(net.dropout >= 0 && net.dropout < 1, "network: dropout = ", net.dropout,
                       " is outside [0, 1)");
  net.for_each_setting([](const char* name, auto value, auto least, auto greatest) {
    if constexpr (std::is_floating_point_v<decltype(value)>)
      check_setting<double>(name, value, least, greatest);
    else
      check_setting<int>(name, value, least, greatest);
  });
  require<value_error>(net.encoder_channels >= 4 && net.encoder_channels % 2 == 0,
                       "network: encoder_channels = ", net.encoder_channels,
                       "; an even number from 4 is needed");
  const auto divisible = [&](const char* name, int extent) {
    require<value_error>(extent % (1 << (net.depth() - 1)) == 0, "network: ", name, " ", extent,
                         " is not divisible by ", 1 << (net.depth() - 1), ", as its ",
                         net.depth(),
                         " levels (channel_mult) need; pad the images or use fewer levels");
  };
  divisible("resolution", net.resolution);
  divisible("columns", net.width());
  recorder<name_list> b;
  describe(b, net, stages);
  return detail::finish(b);
}

}  // namespace multistage
