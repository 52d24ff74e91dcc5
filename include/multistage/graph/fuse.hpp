// Fusion: operations that only pass a value on to their single reader become part of a
// neighbour, so that nothing is written to memory just to be read back.
//   group_norm, silu          -> group_norm with SiLU
//   conv, + row, + x, * s     -> one convolution with row bias, residual and scale
//   concat read only by group_norm and 1x1 convolutions -> no buffer: those read two inputs
#pragma once
#include "node.hpp"

namespace multistage {

namespace fusion {

constexpr bool reads_two(const node& n, int operand) {
  if (operand != 0)
    return false;
  return n.kind == op::group_norm || (n.kind == op::conv && n.window.kernel == 1 &&
                                      n.window.stride == 1 && n.window.padding == 0);
}

/// Whether each concat may go without a buffer.
MULTISTAGE_COLD constexpr constant_vector<char> virtual_concats(const graph& g) {
  constant_vector<char> result(g.nodes.size(), 0);
  for (std::size_t i = 0; i < g.nodes.size(); ++i)
    result[i] = g.nodes[i].kind == op::concat;
  for (const node& n : g.nodes)
    for_each_input(n, [&](int v, int k) {
      if (!reads_two(n, k))
        result[v] = false;
    });
  for (int v : g.outputs)
    result[v] = false;
  return result;
}

}  // namespace fusion

/// @see the file's head. A fused node stands where its last part stood.
MULTISTAGE_COLD constexpr graph fuse(const graph& raw) {
  const int count = int(raw.nodes.size());
  constant_vector<int> readers(count, 0);
  for (const node& n : raw.nodes)
    for_each_input(n, [&](int v, int) { ++readers[v]; });
  for (int v : raw.outputs)
    ++readers[v];
  const constant_vector<char> is_virtual = fusion::virtual_concats(raw);

  constant_vector<node> out;  // fused nodes, with holes of kind none where a part moved on
  constant_vector<int> place(count, 0);  // raw node -> position in out
  out.reserve(count);
  for (int i = 0; i < count; ++i) {
    node n = raw.nodes[i];
    int virtual_input = -1;
    for_each_input(n, [&](int v, int k) {
      if (is_virtual[v])
        virtual_input = v;
      else
        n.in[k] = place[v];
    });
    if (virtual_input >= 0) {
      n.in[0] = place[raw.nodes[virtual_input].in[0]];
      n.in[1] = place[raw.nodes[virtual_input].in[1]];
    }
    if (is_virtual[i]) {
      place[i] = -1;
      continue;
    }
    // A producer may be absorbed when this node is all that reads it, in the same segment.
    const auto absorb = [&](int operand, op kind) {
      const int v = raw.nodes[i].in[operand];
      if (v < 0 || readers[v] != 1 || is_virtual[v])
        return -1;
      const node& p = out[place[v]];
      return p.kind == kind && p.segment == n.segment ? place[v] : -1;
    };
    const auto merge = [&](int producer, auto&& change) {
      node m = out[producer];
      out[producer].kind = op::none;
      change(m);
      n = m;
    };
    if (n.kind == op::silu) {
      if (const int p = absorb(0, op::group_norm); p >= 0 && !out[p].silu)
        merge(p, [](node& m) { m.silu = true; });
    } else if (n.kind == op::add_row) {
      if (const int p = absorb(0, op::conv);
          p >= 0 && out[p].in[2] < 0 && out[p].in[3] < 0 && out[p].scale == 1)
        merge(p, [row = n.in[2]](node& m) { m.in[2] = row; });
    } else if (n.kind == op::add) {
      for (int k = 0; k < 2 && n.kind == op::add; ++k)
        if (const int p = absorb(k, op::conv); p >= 0 && out[p].in[3] < 0 && out[p].scale == 1)
          merge(p, [other = n.in[1 - k]](node& m) { m.in[3] = other; });
    } else if (n.kind == op::scale) {
      if (const int p = absorb(0, op::conv); p >= 0)
        merge(p, [s = n.scale](node& m) { m.scale *= s; });
    }
    place[i] = int(out.size());
    out.push_back(n);
  }

  graph g = raw;
  g.nodes.clear();
  constant_vector<int> final_place(out.size(), 0);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i].kind == op::none)
      continue;
    for (int& v : out[i].in)
      if (v >= 0)
        v = final_place[v];
    final_place[i] = int(g.nodes.size());
    g.nodes.push_back(out[i]);
  }
  for (int& v : g.outputs)
    v = final_place[place[v]];
  return g;
}

}  // namespace multistage
