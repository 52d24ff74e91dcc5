// Fusion: operations that only pass a value on to their single reader become part of a
// neighbour, so that nothing is written to memory just to be read back.
//   group_norm, silu          -> group_norm with SiLU
//   conv, + row, + x, * s     -> one convolution with row bias, residual and scale
//   concat read only by group_norm and 1x1 convolutions -> no buffer: those read two inputs
//
// A fusion must not change what is computed but for rounding: bias, row bias and residual are
// added to the sum and then scaled, so a scale is taken in only where it is the last.
#pragma once
#include "node.hpp"

namespace multistage {

namespace fusion {

/// Whether a node may read a concatenation's two parts in the place of its first operand.
constexpr bool reads_two(const node& n) {
  const auto* conv = n.as<ops::convolution>();
  return n.is<ops::group_normalisation>() || (conv && conv->window.pointwise());
}

/// Whether each concat may go without a buffer.
MULTISTAGE_COLD constexpr constant_vector<char> virtual_concats(const graph& g) {
  constant_vector<char> result(g.nodes.size(), 0);
  for (std::size_t i = 0; i < g.nodes.size(); ++i)
    result[i] = g.nodes[i].is<ops::concatenation>() && g.nodes[i].in[2] < 0;
  for (const node& n : g.nodes)
    for_each_input(n, [&](int v, int k) {
      if (k != 0 || !reads_two(n))
        result[v] = false;
    });
  for (int v : g.outputs)
    result[v] = false;
  return result;
}

/// A graph on its way: fused nodes, with holes where a part moved on.
class fused_nodes {
 public:
  MULTISTAGE_COLD explicit constexpr fused_nodes(const graph& raw)
      : raw_(raw),
        readers_(raw.nodes.size(), 0),
        is_virtual_(virtual_concats(raw)),
        place_(raw.nodes.size(), 0) {
    for (const node& n : raw.nodes)
      for_each_input(n, [&](int v, int) { ++readers_[v]; });
    for (int v : raw.outputs)
      ++readers_[v];
    for (int i = 0; i < int(raw.nodes.size()); ++i)
      append(i);
  }

  /// The nodes without holes, in the order of their last parts.
  MULTISTAGE_COLD constexpr graph result() const {
    graph g = raw_;
    g.nodes.clear();
    constant_vector<int> final_place(nodes_.size(), 0);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (moved_[i])
        continue;
      node n = nodes_[i];
      for (int& v : n.in)
        if (v >= 0)
          v = final_place[v];
      n.facts = describe(n.what, operands_of(g.nodes, n));
      final_place[i] = int(g.nodes.size());
      g.nodes.push_back(n);
    }
    for (int& v : g.outputs)
      v = final_place[place_[v]];
    return g;
  }

 private:
  MULTISTAGE_COLD constexpr void append(int i) {
    if (is_virtual_[i]) {
      place_[i] = -1;
      return;
    }
    node n = linked(i);
    join(i, n);
    place_[i] = int(nodes_.size());
    nodes_.push_back(n);
    moved_.push_back(false);
  }

  /// Raw node i with its operands among the fused nodes.
  constexpr node linked(int i) const {
    node n = raw_.nodes[i];
    for_each_input(raw_.nodes[i], [&](int v, int k) {
      if (!is_virtual_[v]) {
        n.in[k] = place_[v];
        return;
      }
      n.in[0] = place_[raw_.nodes[v].in[0]];
      n.in[1] = place_[raw_.nodes[v].in[1]];
    });
    return n;
  }

  /// Makes n part of what makes one of its operands, where that is possible.
  MULTISTAGE_COLD constexpr void join(int i, node& n) {
    if (n.is<ops::activation<silu_function>>()) {
      const int p = producer<ops::group_normalisation>(i, 0);
      if (p >= 0 && !nodes_[p].as<ops::group_normalisation>()->silu)
        take(p, n).as<ops::group_normalisation>()->silu = true;
    } else if (n.is<ops::row_addition>()) {
      const int p = producer<ops::convolution>(i, 0);
      if (p >= 0 && nodes_[p].in[2] < 0 && unfinished(nodes_[p])) {
        const int row = n.in[1];
        take(p, n).in[2] = row;
      }
    } else if (n.is<ops::addition>()) {
      for (int k = 0; k < 2 && n.is<ops::addition>(); ++k) {
        const int p = producer<ops::convolution>(i, k);
        if (p >= 0 && unfinished(nodes_[p])) {
          const int other = n.in[1 - k];
          take(p, n).in[3] = other;
        }
      }
    } else if (n.is<ops::scaling>()) {
      const double factor = n.as<ops::scaling>()->factor;
      const int p = producer<ops::convolution>(i, 0);
      if (p >= 0)
        take(p, n).as<ops::convolution>()->scale *= factor;
    }
  }

  /// Where the Op lies that makes operand k of raw node i, when that node is all that reads it,
  /// in the same segment; or -1.
  template <class Op>
  constexpr int producer(int i, int k) const {
    const int v = raw_.nodes[i].in[k];
    if (v < 0 || readers_[v] != 1 || is_virtual_[v])
      return -1;
    const node& p = nodes_[place_[v]];
    return p.is<Op>() && p.segment == raw_.nodes[i].segment ? place_[v] : -1;
  }
  /// A convolution whose sum may still grow.
  static constexpr bool unfinished(const node& conv) {
    return conv.in[3] < 0 && conv.as<ops::convolution>()->scale == 1;
  }
  /// Moves node p into the place of n.
  constexpr node& take(int p, node& n) {
    moved_[p] = true;
    return n = nodes_[p];
  }

  const graph& raw_;
  constant_vector<int> readers_;
  constant_vector<char> is_virtual_;
  constant_vector<int> place_;  ///< raw node -> position among the fused ones
  constant_vector<node> nodes_;
  constant_vector<char> moved_;
};

}  // namespace fusion

/// @see the file's head. A fused node stands where its last part stood.
MULTISTAGE_COLD constexpr graph fuse(const graph& raw) {
  return fusion::fused_nodes(raw).result();
}

}  // namespace multistage
