// Whether a recorded network makes sense: sizes of neighbours match, groups divide channels,
// nothing vanishes.
#pragma once
#include "../core/error.hpp"
#include "node.hpp"

namespace multistage {

enum class graph_problem {
  none,
  empty,
  groups,
  heads,
  extents,
  shared_qkv,
  row_operand,
  attributes,
  foreign,
  input,
  output
};

struct graph_check {
  graph_problem problem = graph_problem::none;
  int node = -1;
};

/// Whether a node's numbers are in range; sizes apart.
constexpr bool attributes_fit(const node& n) {
  switch (n.kind) {
    case op::conv:
      return n.window.kernel >= 1 && n.window.stride >= 1 && n.window.padding >= 0;
    case op::dropout:
      return n.scale >= 0 && n.scale < 1;
    case op::embedding:
      return n.out.channels >= 4 && n.out.channels % 2 == 0;
    case op::group_norm:
    case op::layer_norm:
      return n.epsilon > 0;
    case op::resample:
      return n.filter.sound();
    default:
      return true;
  }
}
/// Whether what a node reads by row is as wide as its kind needs: one number a channel
/// (add_row, the fused row of a convolution), a scale and a shift a channel (modulation), one
/// number (divide_row, the level of an embedding).
constexpr bool row_operand_fits(const node& n, const extent& row) {
  const int wide = n.kind == op::group_norm                              ? 2 * n.out.channels
                   : n.kind == op::divide_row || n.kind == op::embedding ? 1
                                                                         : n.out.channels;
  return row.channels == wide && row.pixels() == 1;
}

/// How many of a node's operands, the first ones, must be there.
constexpr int operands_needed(op kind) {
  return kind == op::input ? 0 : kind == op::add || kind == op::concat ? 2 : 1;
}

/// The first node of a recording (before fusion) that reads what is not there for it: a stage's
/// decoder sees the shared part and itself.
constexpr graph_check check_links(const graph& recorded) {
  const int count = int(recorded.nodes.size());
  for (int i = 0; i < count; ++i) {
    const node& n = recorded.nodes[i];
    for (int k = 0; k < operands_needed(n.kind); ++k)
      if (n.in[k] < 0)
        return {graph_problem::foreign, i};
    if ((n.kind == op::add_row || n.kind == op::divide_row) && n.in[2] < 0)
      return {graph_problem::foreign, i};
    if (n.kind == op::attention && (n.in[1] < 0) != (n.in[2] < 0))
      return {graph_problem::foreign, i};
    for (int k = 0; k < 4; ++k) {
      if (n.in[k] < 0)
        continue;
      if (n.in[k] >= i)
        return {graph_problem::foreign, i};
      const int from = recorded.nodes[n.in[k]].segment;
      if (from != 0 && from != n.segment)
        return {graph_problem::foreign, i};
    }
  }
  for (int s = 0; s < recorded.stage_count(); ++s) {
    const int v = recorded.outputs[s];
    if (v < 0 || v >= count)
      return {graph_problem::foreign, -1};
    const int from = recorded.nodes[v].segment;
    if (from != 0 && from != s + 1)
      return {graph_problem::foreign, v};
    if (recorded.nodes[v].out != recorded.nodes[recorded.outputs[0]].out)
      return {graph_problem::extents, v};
  }
  return {};
}

/// The first node that does not fit.
constexpr graph_check check(const graph& g) {
  if (g.outputs.empty())
    return {graph_problem::empty, -1};
  for (int s = 0; s < g.stage_count(); ++s)
    if (g.segments <= s + 1 || g.nodes[g.outputs[s]].segment != s + 1)
      return {graph_problem::output, g.outputs[s]};
  constant_vector<int> readers(g.nodes.size(), 0);
  for (const node& n : g.nodes)
    for_each_input(n, [&](int v, int) { ++readers[v]; });
  for (int i = 0; i < int(g.nodes.size()); ++i) {
    const node& n = g.nodes[i];
    if (!attributes_fit(n))
      return {graph_problem::attributes, i};
    if (n.kind == op::attention)
      for (int k = 0; k < 3; ++k)
        if (n.in[k] >= 0 && readers[n.in[k]] > 1)
          return {graph_problem::shared_qkv, i};
    if (n.out.channels < 1 || n.out.height < 1 || n.out.width < 1)
      return {graph_problem::empty, i};
    if (n.kind == op::group_norm && (n.groups < 1 || n.out.channels % n.groups != 0))
      return {graph_problem::groups, i};
    const auto channels_of = [&](int k) {
      return g.nodes[n.in[k]].out.channels;
    };
    if (n.kind == op::attention &&
        (n.heads < 1 || n.out.channels % n.heads != 0 ||
         (n.in[1] < 0 ? channels_of(0) != 3 * n.out.channels
                      : channels_of(1) != n.out.channels || channels_of(2) != n.out.channels)))
      return {graph_problem::heads, i};
    const int row = n.kind == op::embedding ? n.in[0] : n.kind == op::attention ? -1 : n.in[2];
    if (row >= 0 && !row_operand_fits(n, g.nodes[row].out))
      return {graph_problem::row_operand, i};
    if (n.kind == op::input)
      for (int k = 0; k < i; ++k)
        if (g.nodes[k].kind == op::input && g.nodes[k].slot == n.slot &&
            g.nodes[k].out != n.out)
          return {graph_problem::input, i};
    if (n.kind == op::attention && n.in[1] >= 0 &&
        (g.nodes[n.in[1]].out.height != g.nodes[n.in[2]].out.height ||
         g.nodes[n.in[1]].out.width != g.nodes[n.in[2]].out.width))
      return {graph_problem::extents, i};
    if (n.kind == op::geglu && channels_of(0) % 2 != 0)
      return {graph_problem::extents, i};
    const auto extent_of = [&](int k) {
      return g.nodes[n.in[k]].out;
    };
    if (n.in[1] >= 0 &&
        (n.kind == op::concat || n.kind == op::group_norm || n.kind == op::conv) &&
        (extent_of(0).height != extent_of(1).height ||
         extent_of(0).width != extent_of(1).width))
      return {graph_problem::extents, i};
    if (n.kind == op::add && extent_of(0) != extent_of(1))
      return {graph_problem::extents, i};
    if (n.in[3] >= 0 && extent_of(3) != n.out)
      return {graph_problem::extents, i};
  }
  return {};
}

constexpr const char* to_string(graph_problem p) {
  switch (p) {
    case graph_problem::empty:
      return "a feature map vanishes: too many levels for the resolution, or a width of 0";
    case graph_problem::groups:
      return "the groups of a normalisation do not divide its channels: choose "
             "encoder_channels and decoder widths that are multiples of norm_groups, or "
             "another norm_groups";
    case graph_problem::heads:
      return "attention heads do not divide the channels: choose widths that are multiples of "
             "a head's channels (channels_per_head, num_head_channels) or of num_heads";
    case graph_problem::extents:
      return "two feature maps that meet have different sizes: the resolution must be "
             "divisible by 2 for every level below the first";
    case graph_problem::shared_qkv:
      return "something else reads the queries, keys and values of an attention: give it a "
             "convolution of its own";
    case graph_problem::row_operand:
      return "what is read by row has the wrong width: add_row needs one number a channel, a "
             "modulation two (scale, shift), divide_row and "
             "embedding a single one";
    case graph_problem::attributes:
      return "a setting is out of range: kernels and strides are at least 1, padding at least "
             "0, dropout in [0, 1), epsilon above 0, embeddings "
             "have an even number of channels from 4, resampling filters have taps that do not "
             "add up to 0 and a rate of at least 1";
    case graph_problem::foreign:
      return "an operation reads a feature that is not there for it: one of another stage's "
             "decoder, or none; give what encode returns or "
             "decode has made";
    case graph_problem::output:
      return "a stage's result is not made in its own segment: call segment(1 + stage) before "
             "what makes it";
    case graph_problem::input:
      return "one input is read with two different extents: ask for each input with the same "
             "channels, height and width";
    default:
      return "none";
  }
}

/// The graph itself. @throws value_error for one that does not fit
MULTISTAGE_COLD inline graph checked(graph g) {
  const graph_check c = check(g);
  require<value_error>(c.problem == graph_problem::none, "network: ", to_string(c.problem),
                       " (at operation ", c.node, ")");
  return g;
}

}  // namespace multistage
