// What a network costs, read off its graph, at compile time if wanted: parameters and
// multiply-accumulates, by segment.
#pragma once
#include "../ops/attention.hpp"
#include "node.hpp"

namespace multistage {

/// Parameters and multiply-accumulates of one image.
struct cost {
  index_t parameters = 0;
  index_t macs = 0;
  friend constexpr cost operator+(cost a, cost b) {
    return {a.parameters + b.parameters, a.macs + b.macs};
  }
  friend constexpr bool operator==(const cost&, const cost&) = default;
};

/// Multiply-accumulates of one node for one image; resampling filters count as dense depthwise
/// convolutions.
constexpr index_t macs_of(const graph& g, const node& n) {
  switch (n.kind) {
    case op::conv:
      return ops::conv_macs(n.out.height, n.out.width, n.window.kernel,
                            g.parameters[n.weight].in, n.out.channels);
    case op::attention:
      return ops::attention_macs(n.out.pixels(),
                                 n.in[1] < 0 ? n.out.pixels() : g.nodes[n.in[1]].out.pixels(),
                                 n.out.channels);
    case op::resample:
      return ops::resample_macs(n.filter, n.up, g.nodes[n.in[0]].out.height,
                                g.nodes[n.in[0]].out.width, n.out.channels);
    default:
      return 0;
  }
}

/// Cost of segment `s` alone. Tensors that are not trained (Fourier frequencies) are no
/// parameters.
constexpr cost cost_of_segment(const graph& g, int s) {
  cost c;
  for (const parameter& p : g.parameters)
    if (p.segment == s && p.trainable)
      c.parameters += p.size();
  for (const node& n : g.nodes)
    if (n.segment == s)
      c.macs += macs_of(g, n);
  return c;
}

/// Cost of evaluating `stage`: the shared segment and the stage's own.
constexpr cost cost_of_stage(const graph& g, int stage) {
  return cost_of_segment(g, 0) + cost_of_segment(g, 1 + stage);
}

/// Parameters of the whole model.
constexpr index_t parameters_of(const graph& g) {
  index_t total = 0;
  for (int s = 0; s < g.segments; ++s)
    total += cost_of_segment(g, s).parameters;
  return total;
}

}  // namespace multistage
