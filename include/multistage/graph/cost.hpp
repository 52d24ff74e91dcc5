// What a network costs, read off its graph, at compile time if wanted: parameters and
// multiply-accumulates, by segment.
//
//   const cost all = cost_of_stage(graph, 0);     // the shared part and stage 0's decoder
//   all.macs;                                     // of one image
#pragma once
#include "node.hpp"

namespace multistage {

/// Parameters and multiply-accumulates of one image.
struct cost {
  index_t parameters = 0;  ///< that are trained
  index_t macs = 0;        ///< multiply-accumulates of one image
  /// Of two parts together.
  friend constexpr cost operator+(cost a, cost b) {
    return {a.parameters + b.parameters, a.macs + b.macs};
  }
  friend constexpr bool operator==(const cost&, const cost&) = default;
};

/// Cost of segment `s` alone. Tensors that are not trained (Fourier frequencies) are no
/// parameters.
constexpr cost cost_of_segment(const graph& g, int s) {
  cost c;
  for (const parameter& p : g.parameters)
    if (p.segment == s && p.trainable)
      c.parameters += p.size();
  for (const node& n : g.nodes)
    if (n.segment == s)
      c.macs += n.facts.macs;
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
