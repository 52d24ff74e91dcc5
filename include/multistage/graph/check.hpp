// Whether a recorded network makes sense: sizes of neighbours match, groups divide channels, nothing vanishes.
#pragma once
#include "node.hpp"

namespace multistage {

enum class graph_problem { none, empty, groups, heads, extents, shared_qkv };

struct graph_check {
  graph_problem problem = graph_problem::none;
  int node = -1;
};

/// The first node that does not fit.
constexpr graph_check check(const graph& g) {
  if (g.outputs.empty()) return {graph_problem::empty, -1};
  std::vector<int> readers(g.nodes.size(), 0);
  for (const node& n : g.nodes) for_each_input(n, [&](int v, int) { ++readers[v]; });
  for (int i = 0; i < int(g.nodes.size()); ++i) {
    const node& n = g.nodes[i];
    if (n.kind == op::attention)
      for (int k = 0; k < 3; ++k)
        if (n.in[k] >= 0 && readers[n.in[k]] > 1) return {graph_problem::shared_qkv, i};
    if (n.out.channels < 1 || n.out.height < 1 || n.out.width < 1) return {graph_problem::empty, i};
    if (n.kind == op::group_norm && (n.groups < 1 || n.out.channels % n.groups != 0)) return {graph_problem::groups, i};
    const auto channels_of = [&](int k) { return g.nodes[n.in[k]].out.channels; };
    if (n.kind == op::attention &&
        (n.heads < 1 || n.out.channels % n.heads != 0 ||
         (n.in[1] < 0 ? channels_of(0) != 3 * n.out.channels : channels_of(1) != n.out.channels || channels_of(2) != n.out.channels)))
      return {graph_problem::heads, i};
    if (n.kind == op::geglu && channels_of(0) % 2 != 0) return {graph_problem::extents, i};
    const auto extent_of = [&](int k) { return g.nodes[n.in[k]].out; };
    if (n.in[1] >= 0 && (n.kind == op::concat || n.kind == op::group_norm || n.kind == op::conv) &&
        (extent_of(0).height != extent_of(1).height || extent_of(0).width != extent_of(1).width))
      return {graph_problem::extents, i};
    if (n.kind == op::add && extent_of(0) != extent_of(1)) return {graph_problem::extents, i};
    if (n.in[3] >= 0 && extent_of(3) != n.out) return {graph_problem::extents, i};
  }
  return {};
}

constexpr const char* to_string(graph_problem p) {
  switch (p) {
    case graph_problem::empty:
      return "a feature map vanishes: too many levels for the resolution, or a width of 0";
    case graph_problem::groups:
      return "the groups of a normalisation do not divide its channels: choose encoder_channels and decoder widths that are multiples of norm_groups, or another norm_groups";
    case graph_problem::heads:
      return "attention heads do not divide the channels: choose widths that are multiples of a head's channels (channels_per_head, num_head_channels) or of num_heads";
    case graph_problem::extents:
      return "two feature maps that meet have different sizes: the resolution must be divisible by 2 for every level below the first";
    case graph_problem::shared_qkv:
      return "something else reads the queries, keys and values of an attention: give it a convolution of its own";
    default:
      return "none";
  }
}

}  // namespace multistage
