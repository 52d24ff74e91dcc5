// Whether a recorded network makes sense: every operation fits its operands (what each says of
// itself, ops/operation.hpp), nothing reads what is not there for it, and every stage has its
// result.
//
// The same checks hold at compile time, where a type's static_asserts name the layer, and at
// run time, where value_error does. What passes them never reads outside of memory.
#pragma once
#include "../core/error.hpp"
#include "node.hpp"

namespace multistage {

/// The first thing that does not fit: its kind, and where.
struct graph_check {
  graph_problem problem = graph_problem::none;  ///< none: the network fits
  int node = -1;                                ///< the first at which it does not
};

/// The first node of a recording (before fusion) that reads what is not there for it: a stage's
/// decoder sees the shared part and itself.
constexpr graph_check check_links(const graph& recorded) {
  const int count = int(recorded.nodes.size());
  for (int i = 0; i < count; ++i) {
    const node& n = recorded.nodes[i];
    for (int k = 0; k < ops::most_operands; ++k) {
      if (n.in[k] < 0) {
        if ((n.facts.needed >> k & 1) != 0)
          return {graph_problem::foreign, i};
        continue;
      }
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
  }
  return {};
}

namespace detail {
/// Whether another node reads what backward of `n` writes the gradient of.
constexpr bool shares_written_gradient(const node& n, const constant_vector<int>& readers) {
  bool shared = false;
  for_each_input(n, [&](int v, int k) {
    if ((n.facts.writes_gradient >> k & 1) != 0 && readers[v] > 1)
      shared = true;
  });
  return shared;
}
/// Whether a node has the parameters that its operation announces.
constexpr bool parameters_fit(const graph& g, const node& n) {
  const auto fits = [&](int number, const shape& announced, bool needed) {
    if (number < 0)
      return announced.size() == 0 || !needed;
    return g.parameters[number].size() == announced.size();
  };
  return fits(n.weight, n.facts.weight, n.facts.weight_needed) &&
         fits(n.bias, n.facts.bias, n.facts.bias_needed);
}
/// Whether an input before node i has its slot and other extents.
constexpr bool contradicts_input(const graph& g, int i) {
  const auto* input = g.nodes[i].as<ops::network_input>();
  if (!input)
    return false;
  for (int k = 0; k < i; ++k)
    if (const auto* other = g.nodes[k].as<ops::network_input>())
      if (other->slot == input->slot && other->extents != input->extents)
        return true;
  return false;
}
}  // namespace detail

/// The first node that does not fit.
constexpr graph_check check(const graph& g) {
  if (g.outputs.empty())
    return {graph_problem::output, -1};
  for (int s = 0; s < g.stage_count(); ++s)
    if (g.segments <= s + 1 || g.nodes[g.outputs[s]].segment != s + 1)
      return {graph_problem::output, g.outputs[s]};
  constant_vector<int> readers(g.nodes.size(), 0);
  for (const node& n : g.nodes)
    for_each_input(n, [&](int v, int) { ++readers[v]; });
  for (int i = 0; i < int(g.nodes.size()); ++i) {
    const node& n = g.nodes[i];
    const graph_problem p = problem_of(n.facts, operands_of(g.nodes, n));
    if (p != graph_problem::none)
      return {p, i};
    if (!detail::parameters_fit(g, n))
      return {graph_problem::parameters, i};
    if (detail::shares_written_gradient(n, readers))
      return {graph_problem::shared_qkv, i};
    if (detail::contradicts_input(g, i))
      return {graph_problem::input, i};
  }
  for (int s = 1; s < g.stage_count(); ++s)
    if (g.nodes[g.outputs[s]].out() != g.nodes[g.outputs[0]].out())
      return {graph_problem::extents, g.outputs[s]};
  return {};
}

/// What is wrong, in a sentence.
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
             "modulation two (scale, shift), divide_row and embedding a single one";
    case graph_problem::attributes:
      return "a setting is out of range";
    case graph_problem::foreign:
      return "an operation reads a feature that is not there for it: one of another stage's "
             "decoder, or none; give what encode returns or decode has made";
    case graph_problem::output:
      return "a stage's result is missing, or not made in its own segment: call segment(1 + "
             "stage) before what makes it, and output() with it";
    case graph_problem::input:
      return "one input is read with two different extents: ask for each input with the same "
             "channels, height and width";
    case graph_problem::backend:
      return "an operation of one's own does not run on this backend and scalar: add the "
             "backend to its list `backends`";
    case graph_problem::parameters:
      return "an operation's parameters are not those that its description announces: give "
             "apply() a weight and a bias of as many elements as description::weight and "
             "description::bias say, and none where they say none";
    default:
      return "none";
  }
}

namespace detail {
/// "[height, width, channels]"
MULTISTAGE_COLD inline std::string text_of(const extent& e) {
  return "[" + std::to_string(e.height) + ", " + std::to_string(e.width) + ", " +
         std::to_string(e.channels) + "]";
}
/// The first operand that is not what its operation expects, and what that is; or nothing.
MULTISTAGE_COLD inline std::string wrong_operand(const graph& g, const node& n) {
  const ops::operand_list in = operands_of(g.nodes, n);
  for (int k = 0; k < ops::most_operands; ++k)
    if (in[k].there() && in[k].extents() != n.facts.in[k])
      return operand_name(n.what, k) + " is " + text_of(in[k].extents()) + ", expected " +
             text_of(n.facts.in[k]);
  return {};
}
}  // namespace detail

/// The whole message: the sentence, the operation that does not fit, what it says itself, and
/// the operand or the numbers that do not fit. @param layer what names the place
MULTISTAGE_COLD inline std::string explain(const graph& g,
                                           const graph_check& c,
                                           const std::string& layer) {
  std::string text = std::string("network: ") + to_string(c.problem) + " (at " + layer;
  if (c.node < 0)
    return text + ")";
  const node& n = g.nodes[c.node];
  const ops::misfit& wrong = n.facts.wrong;
  text += std::string(", ") + name_of(n.what);
  if (wrong.kind != graph_problem::none) {
    text += std::string(": ") + wrong.sentence;
  } else if (c.problem == graph_problem::extents || c.problem == graph_problem::row_operand) {
    const std::string operand = detail::wrong_operand(g, n);
    text += operand.empty() ? operand : ": " + operand;
  }
  if (wrong.channels > 0)
    text += ", " + std::to_string(wrong.divisor) + " and " + std::to_string(wrong.channels) +
            " channels";
  return text + ")";
}

/// The graph itself. @throws value_error for one that does not fit
MULTISTAGE_COLD inline graph checked(graph g) {
  const graph_check c = check(g);
  if (c.problem != graph_problem::none)
    fail<value_error>(explain(g, c, "operation " + std::to_string(c.node)));
  return g;
}

}  // namespace multistage
