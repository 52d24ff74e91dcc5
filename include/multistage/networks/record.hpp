// A network recorded at run time, checked setting by setting.
//
//   const described_network n = record(song_unet{.resolution = 32}, decoders{192, 128, 16});
//
// Settings out of range, and layers that do not fit, are value_errors that name them.
#pragma once
#include "../core/error.hpp"
#include "../graph/check.hpp"
#include "arrangement.hpp"

namespace multistage {

/// A recorded network with the names of its parameters.
struct described_network {
  graph structure;                 ///< what is computed
  std::vector<std::string> names;  ///< of its parameters, in their order
};

namespace detail {
/// Finishes a recording. @throws value_error saying where features do not fit.
MULTISTAGE_COLD inline described_network finish(recorder<name_list>& build) {
  described_network d{build.finish(), std::move(build.names.parameters)};
  const graph_check c = check(d.structure);
  if (c.problem != graph_problem::none) {
    const int weight = c.node >= 0 ? d.structure.nodes[c.node].weight : -1;
    fail<value_error>(
        explain(d.structure, c, weight >= 0 ? d.names[weight] : "a node without parameters"));
  }
  return d;
}
}  // namespace detail

/// Refuses settings out of the ranges that a network's `fields` names, and at odds with each
/// other (its `check_rules`). Networks have both, one or none. @throws value_error naming the
/// setting
template <class Net>
void check_settings(const char* owner, const Net& net) {
  if constexpr (requires { Net::fields(net, [](const option&, const auto&) {}); })
    check_options(owner, net);
  if constexpr (requires { check_rules(net); })
    check_rules(net);
}

/// Refuses decoders that no network can have. @throws value_error naming the setting
MULTISTAGE_COLD inline void check_settings(const decoders& stages) {
  require<value_error>(
      stages.stage_count() >= 1,
      "network: no decoder widths given; give one width for each stage, each above 0");
  check_options("network", stages);
  for (const int blocks : stages.blocks)  // a list whose entries may be 0
    require<value_error>(blocks >= 0 && blocks <= 255, "network: decoder_blocks = ", blocks,
                         "; it must be at least 0 and at most 255 (0: one more than the "
                         "encoder has)");
}

/// Records a network at run time. @throws value_error saying which setting does not fit.
template <class Net>
described_network record(const Net& net, const decoders& stages) {
  check_settings(stages);
  check_settings("network", net);
  recorder<name_list> build;
  describe(build, net, stages);
  return detail::finish(build);
}

}  // namespace multistage
