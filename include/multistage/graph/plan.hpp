// A plan: in which order the nodes of a segment run forward and backward, and where in an arena
// each value, gradient and scratch lies. Extents are counted for one row; a plan for n rows is
// the same plan times n. Values that are cheap to make (norms, SiLU) are dropped after the
// forward pass and made again right before the backward step that reads them; with checkpoints,
// so is all that blocks hold inside.
#pragma once
#include <algorithm>

#include "node.hpp"

namespace multistage {

enum class step_kind { forward, remake, backward, zero_gradient };

struct step {
  step_kind kind;
  int node;
  std::array<bool, 4> accumulate{};  ///< backward: whether the gradient of each operand is
                                     ///< added to what is there
};

/// Where something lies: `offset` elements times rows from the arena's start.
struct buffer {
  index_t size = 0;
  /// first and last step of its life
  int first = -1;
  int last = -1;
  int shares = -1;  ///< the buffer whose memory it takes over (in-place operations)
  index_t offset = 0;

  constexpr void live(int at) {
    if (first < 0)
      first = at;
    last = std::max(last, at);
  }
};

/// The plan of one segment. Indices by node; -1 where a node has none.
struct segment_plan {
  constant_vector<step> forward;
  constant_vector<step> backward;
  constant_vector<int> value;
  constant_vector<int> remade;
  constant_vector<int> gradient;
  constant_vector<int> statistics;
  constant_vector<int> scratch;
  constant_vector<buffer> buffers;
  index_t row_elements = 0;  ///< arena elements for one row

  constexpr index_t offset(int b) const {
    return buffers[b].offset;
  }
};

/// What every segment's plan needs to know of the graph.
struct graph_facts {
  constant_vector<char> differentiable;  ///< a gradient flows through the node
  constant_vector<char>
      exported;  ///< a shared node that a decoder reads, or a decoder's output
  constant_vector<char> sees_image;  ///< the node depends on the image
};

/// What a plan is for.
struct plan_options {
  bool training = false;
  bool checkpoint = false;  ///< keep only what blocks hand on; everything inside them is made
                            ///< again in backward (Chen et al., arXiv 1604.06174)
  bool input_gradients = false;  ///< gradients with respect to the image and the context too
  friend constexpr bool operator==(const plan_options&, const plan_options&) = default;
};

MULTISTAGE_COLD constexpr graph_facts facts_of(const graph& g, bool input_gradients = false) {
  const constant_vector<char> none(g.nodes.size(), 0);
  graph_facts f{none, none, none};
  for (std::size_t i = 0; i < g.nodes.size(); ++i) {
    const node& n = g.nodes[i];
    const auto trains = [&](int p) {
      return p >= 0 && g.parameters[p].trainable;
    };
    f.differentiable[i] = trains(n.weight) || trains(n.bias) ||
                          (input_gradients && n.kind == op::input &&
                           (n.slot == input_slot::image || n.slot == input_slot::context));
    f.sees_image[i] = n.kind == op::input && n.slot == input_slot::image;
    for_each_input(n, [&](int v, int) {
      if (f.sees_image[v])
        f.sees_image[i] = true;
      if (f.differentiable[v])
        f.differentiable[i] = true;
      if (g.nodes[v].segment != n.segment && g.nodes[v].kind != op::input)
        f.exported[v] = true;
    });
  }
  for (int v : g.outputs)
    f.exported[v] = true;
  return f;
}

namespace planning {

/// Cheap to make again from operands that are kept anyway.
constexpr bool cheap(const node& n) {
  return n.kind == op::group_norm || n.kind == op::layer_norm || n.kind == op::silu ||
         n.kind == op::gelu || n.kind == op::geglu || n.kind == op::dropout;
}
/// With checkpoints everything is made again but the sums that end blocks, and vectors.
constexpr bool remakeable(const node& n, bool checkpoint) {
  return cheap(n) || (checkpoint && n.out.pixels() > 1 && n.kind != op::add &&
                      n.kind != op::scale && !(n.kind == op::conv && n.in[3] >= 0));
}

/// Whether backward of `n` reads the value of its operand k (the operands' gradients aside).
constexpr bool backward_reads(const node& n, int k) {
  switch (n.kind) {
    case op::conv:
      return k < 2;
    case op::group_norm:
    case op::attention:
      return k < 3;
    case op::layer_norm:
    case op::silu:
    case op::gelu:
    case op::geglu:
      return k == 0;
    case op::divide_row:
      return k == 2;
    default:
      return false;
  }
}
constexpr index_t statistics_size(const node& n) {
  if (n.kind == op::group_norm)
    return 2 * n.groups;
  if (n.kind == op::layer_norm)
    return 2 * n.out.pixels();
  if (n.kind == op::attention)
    return n.heads * n.out.pixels();
  return 0;
}
/// Scratch of backward.
constexpr index_t scratch_size(const node& n) {
  if (n.kind == op::group_norm)
    return 2 * n.out.channels;
  if (n.kind == op::layer_norm)
    return 2 * n.out.size();
  if (n.kind == op::conv && n.bias >= 0)
    return n.out.channels;
  return 0;
}
/// The operand over whose memory the result may be written, or -1.
constexpr int in_place_operand(const node& n) {
  switch (n.kind) {
    case op::conv:
      return 3;
    case op::add:
    case op::silu:
    case op::gelu:
    case op::scale:
    case op::divide_row:
    case op::dropout:
    case op::add_row:
      return 0;
    default:
      return -1;
  }
}
/// The operand whose gradient may take over the memory of the result's gradient, or -1.
constexpr int in_place_gradient(const node& n) {
  switch (n.kind) {
    case op::conv:
      return 3;
    case op::add:
    case op::scale:
    case op::divide_row:
    case op::dropout:
    case op::add_row:
    case op::silu:
    case op::gelu:
      return 0;
    default:
      return -1;
  }
}

/// Offsets by size, largest first, each at the lowest place that is free during its life.
MULTISTAGE_COLD constexpr index_t place(constant_vector<buffer>& buffers) {
  constant_vector<int> order;
  for (int i = 0; i < int(buffers.size()); ++i)
    if (buffers[i].shares < 0 && buffers[i].first >= 0 && buffers[i].size > 0)
      order.push_back(i);
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    return buffers[a].size != buffers[b].size ? buffers[a].size > buffers[b].size : a < b;
  });
  constant_vector<int> placed;  // by offset
  index_t total = 0;
  for (int i : order) {
    buffer& b = buffers[i];
    index_t at = 0;
    for (int j : placed) {
      const buffer& other = buffers[j];
      if (other.last < b.first || b.last < other.first)
        continue;
      if (at + b.size <= other.offset)
        break;
      at = std::max(at, other.offset + other.size);
    }
    b.offset = at;
    total = std::max(total, at + b.size);
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), i,
                         [&](int x, int y) { return buffers[x].offset < buffers[y].offset; }),
        i);
  }
  for (buffer& b : buffers)
    if (b.shares >= 0)
      b.offset = buffers[b.shares].offset;
  return total;
}

}  // namespace planning

/// Plans segment `s`. For training, backward runs after everything that reads the segment's
/// exports (or the loss) has run.
MULTISTAGE_COLD constexpr segment_plan plan_segment(const graph& g,
                                                    const graph_facts& facts,
                                                    int s,
                                                    plan_options options) {
  using namespace planning;
  const int count = int(g.nodes.size());
  segment_plan p;
  for (auto* list : {&p.value, &p.remade, &p.gradient, &p.statistics, &p.scratch})
    list->assign(count, -1);
  const auto mine = [&](int v) {
    return g.nodes[v].segment == s && g.nodes[v].kind != op::input;
  };
  const auto fresh = [&](index_t size) {
    p.buffers.push_back({.size = round_up(size, graph::alignment)});
    return int(p.buffers.size()) - 1;
  };
  int now = 0;

  for (int i = 0; i < count; ++i) {
    const node& n = g.nodes[i];
    if (!mine(i))
      continue;
    p.value[i] = fresh(n.out.size());
    p.buffers[p.value[i]].live(now);
    if (statistics_size(n) > 0) {
      p.statistics[i] = fresh(statistics_size(n));
      p.buffers[p.statistics[i]].live(now);
    }
    for_each_input(n, [&](int v, int) {
      if (mine(v))
        p.buffers[p.value[v]].live(now);
    });
    p.forward.push_back({step_kind::forward, i});
    ++now;
  }
  // Here the decoders, or the loss, run.
  const int gap = now++;
  for (int i = 0; i < count; ++i)
    // What does not see the image is small, and is computed again over features that were kept:
    // it has its memory for itself.
    if (mine(i) && (facts.exported[i] || (!options.training && s == 0 && !facts.sees_image[i])))
      p.buffers[p.value[i]].live(gap);

  if (options.training) {
    constant_vector<char> written(count, 0);  // gradient holds something
    for (int i = 0; i < count; ++i)
      if (facts.differentiable[i] && facts.exported[i] && mine(i)) {
        p.gradient[i] = fresh(g.nodes[i].out.size());
        p.buffers[p.gradient[i]].live(gap);
        written[i] = true;
      }
    // The value of v for a backward step: kept, or made again first.
    const auto need = [&](auto&& self, int v) -> void {
      if (!mine(v))
        return;
      const bool keep = !remakeable(g.nodes[v], options.checkpoint) || facts.exported[v];
      if (keep)
        return p.buffers[p.value[v]].live(now);
      if (p.remade[v] < 0) {
        for_each_input(g.nodes[v], [&](int w, int) { self(self, w); });
        // What it is made of is read at this step.
        for_each_input(g.nodes[v], [&](int w, int) {
          if (mine(w))
            p.buffers[p.remade[w] >= 0 ? p.remade[w] : p.value[w]].live(now);
        });
        p.remade[v] = fresh(g.nodes[v].out.size());
        p.buffers[p.remade[v]].live(now);
        if (p.statistics[v] >= 0)
          p.buffers[p.statistics[v]].live(now);
        p.backward.push_back({step_kind::remake, v});
        ++now;
      }
      p.buffers[p.remade[v]].live(now);
    };
    for (int i = count - 1; i >= 0; --i) {
      const node& n = g.nodes[i];
      if (!mine(i) || !facts.differentiable[i] || !written[i])
        continue;
      for_each_input(n, [&](int v, int k) {
        if (backward_reads(n, k))
          need(need, v);
      });
      if (n.kind == op::attention)
        need(need, i);  // its own result
      // Remakes of one operand may have passed time: everything read now lives until now.
      for_each_input(n, [&](int v, int k) {
        if (backward_reads(n, k) && mine(v))
          p.buffers[p.remade[v] >= 0 ? p.remade[v] : p.value[v]].live(now);
      });
      if (n.kind == op::attention)
        p.buffers[p.remade[i] >= 0 ? p.remade[i] : p.value[i]].live(now);
      if (p.statistics[i] >= 0)
        p.buffers[p.statistics[i]].live(now);
      if (scratch_size(n) > 0) {
        p.scratch[i] = fresh(scratch_size(n));
        p.buffers[p.scratch[i]].live(now);
      }
      p.buffers[p.gradient[i]].live(now);
      step back{step_kind::backward, i};
      for_each_input(n, [&](int v, int k) {
        if (!facts.differentiable[v])
          return;
        back.accumulate[k] = written[v] || g.nodes[v].kind == op::input;  // the caller's memory
        written[v] = true;
        if (!mine(v))
          return;
        if (p.gradient[v] < 0)
          p.gradient[v] = fresh(g.nodes[v].out.size());
        p.buffers[p.gradient[v]].live(now);
      });
      p.backward.push_back(back);
      ++now;
    }
    // Shared values that other stages read but this one does not have no gradient here.
    if (s > 0)
      for (int i = 0; i < count; ++i)
        if (g.nodes[i].segment == 0 && g.nodes[i].kind != op::input && facts.exported[i] &&
            facts.differentiable[i] && !written[i])
          p.backward.push_back({step_kind::zero_gradient, i});
  }

  const auto root_of = [&](int b) {
    return p.buffers[b].shares >= 0 ? p.buffers[b].shares : b;
  };
  // In-place: the result takes over an operand that dies at this step.
  const auto take_over = [&](int result, int operand, int at) {
    if (result < 0 || operand < 0)
      return;
    buffer& r = p.buffers[result];
    buffer& o = p.buffers[operand];
    if (r.size != o.size || r.first != at || o.last != at || r.shares >= 0 || o.first == at)
      return;
    const int root = root_of(operand);
    r.shares = root;
    p.buffers[root].last = std::max(p.buffers[root].last, r.last);
  };
  for (int at = 0; at < int(p.forward.size()); ++at) {
    const int i = p.forward[at].node;
    const int k = in_place_operand(g.nodes[i]);
    const int v = k >= 0 ? g.nodes[i].in[k] : -1;
    if (v < 0 || !mine(v) || facts.exported[v])
      continue;
    // Not over memory that the node also reads elsewhere, as a convolution reads its
    // neighbourhood.
    bool alone = true;
    for_each_input(g.nodes[i], [&](int w, int other) {
      if (other != k && mine(w) && root_of(p.value[w]) == root_of(p.value[v]))
        alone = false;
    });
    if (alone)
      take_over(p.value[i], p.value[v], at);
  }
  for (int b = 0; b < int(p.backward.size()); ++b) {
    const step& st = p.backward[b];
    if (st.kind != step_kind::backward)
      continue;
    const int k = in_place_gradient(g.nodes[st.node]);
    const int v = k >= 0 ? g.nodes[st.node].in[k] : -1;
    if (v >= 0 && mine(v) && facts.differentiable[v] && !st.accumulate[k])
      take_over(p.gradient[v], p.gradient[st.node], gap + 1 + b);
  }
  p.row_elements = place(p.buffers);
  return p;
}

/// Plans of all segments and the memory they take together.
struct plan {
  plan_options options;
  graph_facts facts;
  constant_vector<segment_plan> segments;

  /// Arena elements for rows sorted by stage: the shared part for all rows, and the most
  /// demanding decoder's, one after the other.
  constexpr index_t arena_elements(const constant_vector<index_t>& rows_by_stage) const {
    index_t rows = 0;
    index_t decoder = 0;
    for (std::size_t s = 0; s < rows_by_stage.size(); ++s) {
      rows += rows_by_stage[s];
      decoder = std::max(decoder, rows_by_stage[s] * segments[s + 1].row_elements);
    }
    return rows * segments[0].row_elements + decoder;
  }
  /// The most that any mix of stages in a batch of `rows` takes.
  constexpr index_t arena_elements(index_t rows) const {
    index_t decoder = 0;
    for (std::size_t s = 1; s < segments.size(); ++s)
      decoder = std::max(decoder, segments[s].row_elements);
    return rows * (segments[0].row_elements + decoder);
  }
};

MULTISTAGE_COLD constexpr plan make_plan(const graph& g, plan_options options) {
  plan p{options, facts_of(g, options.input_gradients), {}};
  for (int s = 0; s < g.segments; ++s)
    p.segments.push_back(plan_segment(g, p.facts, s, options));
  return p;
}

}  // namespace multistage
