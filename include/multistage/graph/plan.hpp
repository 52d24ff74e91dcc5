// A plan: in which order the nodes of a segment run forward and backward, and where in an arena
// each value, gradient and scratch lies. Extents are counted for one row; a plan for n rows is
// the same plan times n. Values that are cheap to make (norms, SiLU) are dropped after the
// forward pass and made again right before the backward step that reads them; with checkpoints,
// so is all that blocks hold inside.
//
// Each value, gradient and scratch has an interval of life in steps, from who writes it to who
// reads it last. Intervals are placed largest first at the lowest offset that is free for all
// of their life, which wastes little for graphs that are long and thin. Where an operation may
// work in place and the operand has no later reader, both have one buffer. All of it is a
// function of the graph, so the memory of a batch is known before anything runs.
//
//   const plan p = make_plan(graph, {});
//   p.arena_elements(64);      // the memory that 64 rows take
#pragma once
#include <algorithm>

#include "node.hpp"

namespace multistage {

/// What a step does with its node: computes it, makes it again for backward, differentiates it,
/// or writes zeros to a gradient that others will add to.
enum class step_kind { forward, remake, backward, zero_gradient };

/// One step of a plan.
struct step {
  step_kind kind;  ///< what is done
  int node;        ///< with which node
  /// Backward: whether the gradient of each operand is added to what is there
  std::array<bool, ops::most_operands> accumulate{};
};

/// Where something lies: `offset` elements times rows from the arena's start.
struct buffer {
  index_t size = 0;  ///< elements a row
  // first and last step of its life
  int first = -1;      ///< first step of its life
  int last = -1;       ///< last step of its life
  int shares = -1;     ///< the buffer whose memory it takes over (in-place operations)
  index_t offset = 0;  ///< elements a row from the arena's start

  /// It is used at a step.
  constexpr void live(int at) {
    if (first < 0)
      first = at;
    last = std::max(last, at);
  }
};

/// The plan of one segment. Indices by node; -1 where a node has none.
struct segment_plan {
  constant_vector<step> forward;    ///< steps in their order
  constant_vector<step> backward;   ///< steps in their order; empty for inference
  constant_vector<int> value;       ///< buffer of each node's value
  constant_vector<int> remade;      ///< buffer of its value when it is made again
  constant_vector<int> gradient;    ///< buffer of its gradient
  constant_vector<int> statistics;  ///< buffer of what forward leaves for backward
  constant_vector<int> scratch;     ///< buffer of what backward works in
  constant_vector<buffer> buffers;  ///< all of them, by number
  index_t row_elements = 0;         ///< arena elements for one row

  /// Where buffer b begins, in elements a row.
  constexpr index_t offset(int b) const {
    return buffers[b].offset;
  }
};

/// What every segment's plan needs to know of the graph.
struct graph_facts {
  constant_vector<char> differentiable;  ///< a gradient flows through the node
  /// A shared node that a decoder reads, or a decoder's output.
  constant_vector<char> exported;
  constant_vector<char> sees_image;  ///< the node depends on the image
};

/// What a plan is for.
struct plan_options {
  bool training = false;    ///< with a backward pass
  bool checkpoint = false;  ///< keep only what blocks hand on; everything inside them is made
                            ///< again in backward (Chen et al., arXiv 1604.06174)
  bool input_gradients = false;  ///< gradients with respect to the image and the context too
  friend constexpr bool operator==(const plan_options&, const plan_options&) = default;
};

/// Whether a gradient flows into operand k.
constexpr bool passes_gradient(const node& n, int k) {
  return (n.facts.stops_gradient >> k & 1) == 0;
}

/// Walks the graph forwards for what depends on the image, and backwards for what passes
/// gradients.
MULTISTAGE_COLD constexpr graph_facts facts_of(const graph& g, bool input_gradients = false) {
  const constant_vector<char> none(g.nodes.size(), 0);
  graph_facts f{none, none, none};
  for (std::size_t i = 0; i < g.nodes.size(); ++i) {
    const node& n = g.nodes[i];
    const auto trains = [&](int p) {
      return p >= 0 && g.parameters[p].trainable;
    };
    f.differentiable[i] = trains(n.weight) || trains(n.bias);
    if (const auto* input = n.as<ops::network_input>()) {
      f.sees_image[i] = input->slot == input_slot::image;
      f.differentiable[i] = input_gradients && (input->slot == input_slot::image ||
                                                input->slot == input_slot::context);
    }
    for_each_input(n, [&](int v, int k) {
      if (f.sees_image[v])
        f.sees_image[i] = true;
      if (f.differentiable[v] && passes_gradient(n, k))
        f.differentiable[i] = true;
      if (g.nodes[v].segment != n.segment && !g.nodes[v].is<ops::network_input>())
        f.exported[v] = true;
    });
  }
  for (int v : g.outputs)
    f.exported[v] = true;
  return f;
}

namespace planning {

/// Offsets by size, largest first, each at the lowest place that is free during its life.
MULTISTAGE_COLD constexpr index_t place(constant_vector<buffer>& buffers) {
  constant_vector<int> order;
  for (int i = 0; i < int(buffers.size()); ++i)
    if (buffers[i].shares < 0 && buffers[i].first >= 0 && buffers[i].size > 0)
      order.push_back(i);
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    return buffers[a].size != buffers[b].size ? buffers[a].size > buffers[b].size : a < b;
  });
  constant_vector<int> placed;  ///< by offset
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

/// Plans one segment, part by part.
class segment_planner {
 public:
  MULTISTAGE_COLD constexpr segment_planner(const graph& g,
                                            const graph_facts& facts,
                                            int segment,
                                            const plan_options& options)
      : graph_(g),
        facts_(facts),
        segment_(segment),
        options_(options),
        count_(int(g.nodes.size())),
        written_(g.nodes.size(), 0) {
    for (auto* list : {&p_.value, &p_.remade, &p_.gradient, &p_.statistics, &p_.scratch})
      list->assign(g.nodes.size(), -1);
    forward();
    keep_over_gap();
    if (options.training) {
      begin_gradients();
      for (int i = count_ - 1; i >= 0; --i)
        if (mine(i) && facts.differentiable[i] && written_[i])
          backward(i);
      zero_what_is_not_read();
    }
    share_forward();
    share_backward();
    p_.row_elements = place(p_.buffers);
  }

  /// The plan, when all steps are there.
  constexpr segment_plan result() && {
    return std::move(p_);
  }

 private:
  constexpr const node& at(int v) const {
    return graph_.nodes[v];
  }
  /// Whether a value is made by this segment, so that its memory is planned here.
  constexpr bool mine(int v) const {
    return at(v).segment == segment_ && !at(v).is<ops::network_input>();
  }
  /// A buffer of its own, whose life begins with the first step that uses it.
  constexpr int fresh(index_t size) {
    p_.buffers.push_back({.size = round_up(size, graph::alignment)});
    return int(p_.buffers.size()) - 1;
  }
  /// The buffer is in use now.
  constexpr void use(int b) {
    p_.buffers[b].live(now_);
  }
  /// Where backward finds the value of v.
  constexpr int found(int v) const {
    return p_.remade[v] >= 0 ? p_.remade[v] : p_.value[v];
  }

  /// Steps forward, and who reads which value last.
  MULTISTAGE_COLD constexpr void forward() {
    for (int i = 0; i < count_; ++i) {
      if (!mine(i))
        continue;
      const ops::description& d = at(i).facts;
      use(p_.value[i] = fresh(d.out.size()));
      if (d.statistics > 0)
        use(p_.statistics[i] = fresh(d.statistics));
      for_each_input(at(i), [&](int v, int) {
        if (mine(v))
          use(p_.value[v]);
      });
      p_.forward.push_back({step_kind::forward, i});
      ++now_;
    }
  }

  /// Between forward and backward the decoders, or the loss, run over what is exported. What
  /// does not see the image is small, and is computed again over features that were kept: it
  /// has its memory for itself.
  MULTISTAGE_COLD constexpr void keep_over_gap() {
    gap_ = now_;
    for (int i = 0; i < count_; ++i)
      if (mine(i) && (facts_.exported[i] ||
                      (!options_.training && segment_ == 0 && !facts_.sees_image[i])))
        use(p_.value[i]);
  }
  MULTISTAGE_COLD constexpr void begin_gradients() {
    for (int i = 0; i < count_; ++i)
      if (facts_.differentiable[i] && facts_.exported[i] && mine(i)) {
        use(p_.gradient[i] = fresh(at(i).out().size()));
        written_[i] = true;
      }
    ++now_;
  }

  /// With checkpoints everything is made again but what blocks hand on, and vectors.
  constexpr bool remakeable(int v) const {
    const node& n = at(v);
    return n.facts.kept == ops::keeping::never ||
           (options_.checkpoint && n.out().pixels() > 1 &&
            n.facts.kept == ops::keeping::unless_checkpoints);
  }
  /// The value of v for the backward step that comes next: kept, or made again first.
  MULTISTAGE_COLD constexpr void need(int v) {
    if (!mine(v))
      return;
    if (!remakeable(v) || facts_.exported[v])
      return use(p_.value[v]);
    if (p_.remade[v] < 0) {
      for_each_input(at(v), [&](int w, int) { need(w); });
      // What it is made of is read at this step.
      for_each_input(at(v), [&](int w, int) {
        if (mine(w))
          use(found(w));
      });
      use(p_.remade[v] = fresh(at(v).out().size()));
      if (p_.statistics[v] >= 0)
        use(p_.statistics[v]);
      p_.backward.push_back({step_kind::remake, v});
      ++now_;
    }
    use(p_.remade[v]);
  }

  MULTISTAGE_COLD constexpr void backward(int i) {
    const node& n = at(i);
    const auto reads = [&](int k) {
      return (n.facts.backward_reads >> k & 1) != 0;
    };
    for_each_input(n, [&](int v, int k) {
      if (reads(k))
        need(v);
    });
    if (n.facts.backward_reads_result)
      need(i);
    // Remakes of one operand may have passed time: everything read now lives until now.
    for_each_input(n, [&](int v, int k) {
      if (reads(k) && mine(v))
        use(found(v));
    });
    if (n.facts.backward_reads_result)
      use(found(i));
    if (p_.statistics[i] >= 0)
      use(p_.statistics[i]);
    if (n.facts.scratch > 0)
      use(p_.scratch[i] = fresh(n.facts.scratch));
    use(p_.gradient[i]);
    step back{step_kind::backward, i};
    for_each_input(n, [&](int v, int k) {
      if (!facts_.differentiable[v] || !passes_gradient(n, k))
        return;
      // the caller's memory
      back.accumulate[k] = written_[v] || at(v).is<ops::network_input>();
      written_[v] = true;
      if (!mine(v))
        return;
      if (p_.gradient[v] < 0)
        p_.gradient[v] = fresh(at(v).out().size());
      use(p_.gradient[v]);
    });
    p_.backward.push_back(back);
    ++now_;
  }

  /// Shared values that other stages read but this one does not have no gradient here.
  MULTISTAGE_COLD constexpr void zero_what_is_not_read() {
    if (segment_ == 0)
      return;
    for (int i = 0; i < count_; ++i)
      if (at(i).segment == 0 && !at(i).is<ops::network_input>() && facts_.exported[i] &&
          facts_.differentiable[i] && !written_[i])
        p_.backward.push_back({step_kind::zero_gradient, i});
  }

  /// The buffer that one shares the memory of, its own where it shares none.
  constexpr int root(int b) const {
    return p_.buffers[b].shares >= 0 ? p_.buffers[b].shares : b;
  }
  /// In place: the result takes over an operand that dies at this step.
  MULTISTAGE_COLD constexpr void take_over(int result, int operand, int at) {
    if (result < 0 || operand < 0)
      return;
    buffer& r = p_.buffers[result];
    const buffer& o = p_.buffers[operand];
    if (r.size != o.size || r.first != at || o.last != at || r.shares >= 0 || o.first == at)
      return;
    r.shares = root(operand);
    buffer& owner = p_.buffers[r.shares];
    owner.last = std::max(owner.last, r.last);
  }
  /// Results take over operands' memory where the operation may work in place.
  MULTISTAGE_COLD constexpr void share_forward() {
    for (int t = 0; t < int(p_.forward.size()); ++t) {
      const int i = p_.forward[t].node;
      const int k = at(i).facts.in_place;
      const int v = k >= 0 ? at(i).in[k] : -1;
      if (v < 0 || !mine(v) || facts_.exported[v])
        continue;
      // Not over memory that the node also reads elsewhere, as a convolution reads its
      // neighbourhood.
      bool alone = true;
      for_each_input(at(i), [&](int w, int other) {
        if (other != k && mine(w) && root(p_.value[w]) == root(p_.value[v]))
          alone = false;
      });
      if (alone)
        take_over(p_.value[i], p_.value[v], t);
    }
  }
  /// The same of gradients.
  MULTISTAGE_COLD constexpr void share_backward() {
    for (int t = 0; t < int(p_.backward.size()); ++t) {
      const step& s = p_.backward[t];
      if (s.kind != step_kind::backward)
        continue;
      const int k = at(s.node).facts.gradient_in_place;
      const int v = k >= 0 ? at(s.node).in[k] : -1;
      if (v >= 0 && mine(v) && facts_.differentiable[v] && !s.accumulate[k])
        take_over(p_.gradient[v], p_.gradient[s.node], gap_ + 1 + t);
    }
  }

  const graph& graph_;
  const graph_facts& facts_;
  const int segment_;
  const plan_options& options_;
  const int count_;
  constant_vector<char> written_;  ///< a node's gradient holds something
  segment_plan p_;
  int now_ = 0;  ///< the step that is planned
  int gap_ = 0;  ///< the moment between forward and backward
};

}  // namespace planning

/// Plans segment `s`. For training, backward runs after everything that reads the segment's
/// exports (or the loss) has run.
MULTISTAGE_COLD constexpr segment_plan plan_segment(const graph& g,
                                                    const graph_facts& facts,
                                                    int s,
                                                    const plan_options& options) {
  return planning::segment_planner(g, facts, s, options).result();
}

/// Plans of all segments and the memory they take together.
struct plan {
  plan_options options;                    ///< what it is for
  graph_facts facts;                       ///< of the whole graph
  constant_vector<segment_plan> segments;  ///< the shared one first, then one a stage

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

/// The plans of all segments. The same graph and options give the same plan, so memory is known
/// before anything runs.
MULTISTAGE_COLD constexpr plan make_plan(const graph& g, plan_options options) {
  plan p{options, facts_of(g, options.input_gradients), {}};
  for (int s = 0; s < g.segments; ++s)
    p.segments.push_back(plan_segment(g, p.facts, s, options));
  return p;
}

/// From where on a segment's gradients of parameters are complete after each of its backward
/// steps: elements descend.
MULTISTAGE_COLD inline std::vector<index_t> complete_from(const graph& g,
                                                          const segment_plan& p,
                                                          int segment) {
  std::vector<index_t> from(p.backward.size());
  index_t end = g.parameter_range(segment)[0];  // of what later steps add to
  for (std::size_t k = from.size(); k-- > 0;) {
    from[k] = end;
    const node& n = g.nodes[p.backward[k].node];
    for (const int number : {n.weight, n.bias}) {
      if (number < 0 || p.backward[k].kind != step_kind::backward)
        continue;
      const parameter& added_to = g.parameters[std::size_t(number)];
      end = std::max(end, added_to.offset + added_to.size());
    }
  }
  return from;
}

}  // namespace multistage
