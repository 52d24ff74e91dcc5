// Runs a graph on a backend. Rows of a batch are sorted by stage: the shared segment runs over
// all of them, each decoder over the rows of its stage. In training each decoder's backward
// follows its forward at once, so that decoders take turns in the same memory.
//
// An executor owns one arena, which grows to what the largest batch so far needs; plans say
// where each value lies in it. Values of the shared segment lie first, those of the decoder at
// work behind. The caller owns weights, inputs, results and gradients.
//
//   executor<float, cpu> run(cpu(), recorder.finish());
//   run.forward(weights, inputs, {4, 2, 2}, out);                // rows of stages 0, 1, 2
//   run.differentiate(weights, gradients, inputs, {4, 2, 2}, loss);
#pragma once
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>

#include "../core/one_user.hpp"
#include "../core/scratch.hpp"
#include "../core/stopwatch.hpp"
#include "check.hpp"
#include "inputs.hpp"
#include "plan.hpp"
#include "prepared_weights.hpp"
#include "shard_sums.hpp"

namespace multistage {

/// A network on a backend: the graph, its plans for inference and for training, and the memory
/// that they need, which it keeps. One caller at a time; several executors may share a backend.
template <class T, class Backend>
class executor {
 public:
  /// @throws value_error for a network that does not fit (graph/check.hpp), or with an
  /// operation of the user's own that does not run on this backend and scalar
  MULTISTAGE_COLD executor(Backend backend, graph g);

  /// The graph that it runs, fused.
  const graph& network() const {
    return graph_;
  }
  /// What `forward` does, step by step.
  const plan& inference_plan() const {
    return inference_;
  }
  /// What `differentiate` does, step by step.
  const plan& training_plan() const {
    return training_;
  }
  /// Whether training keeps only what blocks hand on and makes the rest again in backward: less
  /// memory for one more forward pass.
  void set_checkpointing(bool on) {
    if (on != training_.options.checkpoint)
      training_ = make_plan(graph_, {.training = true, .checkpoint = on});
  }
  /// Takes at once what training on any mix of stages in a batch of `rows` will need, so that
  /// no step does. @param shards of a step
  void reserve_for_training(index_t rows, index_t shards = 0) {
    reserve(training_.arena_elements(rows));
    sums_.reserve(shards, largest_parameters());
  }
  /// Elements of the largest node's parameters.
  index_t largest_parameters() const {
    index_t most = 0;
    for (const node& n : graph_.nodes)
      most = std::max(most, parameter_size(n.weight) + parameter_size(n.bias));
    return most;
  }
  /// Called after each step with its node, kind and seconds; for profiles. Empty: nothing is
  /// timed.
  std::function<void(int node, step_kind kind, double seconds)> observer;
  /// Bytes of the arena as it stands.
  index_t arena_bytes() const {
    return arena_.size() * index_t(sizeof(T));
  }

  /// How much memory `forward` may take for weights in the form that the backend would rather
  /// have.
  void set_prepared_budget(index_t bytes) {
    prepared_.set_budget(bytes);
  }
  /// How much they take now.
  index_t prepared_bytes() const {
    return prepared_.bytes();
  }

  /// out [rows, output] = the network's results. @param rows_by_stage how many rows each stage
  /// has, in the order of the rows. @param version tells states of the weights apart: what is
  /// prepared for one state is kept until another comes; 0: keep nothing. @throws value_error
  /// when features are to be taken over and none of that many rows were kept.
  void forward(const T* weights,
               const network_inputs<T>& inputs,
               const std::vector<index_t>& rows_by_stage,
               T* out,
               std::uint64_t version = 0,
               shared_features features = shared_features::compute);

  /// Adds the gradients of a loss to `gradients` (null: not wanted). `loss(stage, first row,
  /// rows, F, dF)` gets the results of those rows and writes the gradient with respect to them.
  template <class Loss>
  void differentiate(const T* weights,
                     T* gradients,
                     const network_inputs<T>& inputs,
                     const std::vector<index_t>& rows_by_stage,
                     Loss&& loss,
                     const differentiation<T>& options = {}) {
    const auto visit = user_.enter("network");
    kept_rows_ = 0;
    if (options.wants_input_gradients() && !to_inputs_)
      to_inputs_ = make_plan(graph_, {.training = true, .input_gradients = true});
    pass run{*this,   options.wants_input_gradients() ? *to_inputs_ : training_,
             weights, gradients,
             inputs,  rows_by_stage,
             options};
    if (!options.shards.empty())
      sums_.reserve(std::ssize(options.shards) - 1, largest_parameters());
    run.shared.forward();
    for_each_stage(rows_by_stage, [&](int stage, index_t first, index_t rows) {
      frame f = run.decoder(stage, first, rows);
      f.forward();
      const int v = graph_.outputs[stage];
      loss(stage, first, rows, static_cast<const T*>(f.value(v)), f.gradient(v));
      f.backward();
    });
    run.shared.backward();
  }

  /// Where a value first stops being finite: the node and the stage (-1: shared), or node -1.
  /// For finding out what went wrong.
  struct trouble {
    int node = -1;   ///< the first that is not finite; -1: all are
    int stage = -1;  ///< whose decoder it is in; -1: the shared part
  };
  /// Runs the forward pass node by node, looking at each value. It takes as much time as a pass
  /// and a copy of every value to the host.
  trouble first_non_finite(const T* weights,
                           const network_inputs<T>& inputs,
                           const std::vector<index_t>& rows_by_stage);

 private:
  /// The graph, if the backend runs each of its operations. @throws value_error naming one it
  /// does not
  static graph runnable(graph g);

  /// f(stage, first row, rows) for stages that have rows.
  template <class F>
  static void for_each_stage(const std::vector<index_t>& rows_by_stage, F&& f) {
    index_t first = 0;
    for (std::size_t s = 0; s < rows_by_stage.size(); first += rows_by_stage[s++])
      if (rows_by_stage[s] > 0)
        f(int(s), first, rows_by_stage[s]);
  }

  struct pass;

  /// One segment at work on rows [first, first + rows) of the batch.
  struct frame {
    pass& r;
    const segment_plan& p;
    int segment;
    T* base;
    index_t first;
    index_t rows;
    bool backwards = false;

    executor& e() const {
      return r.owner;
    }
    const node& at(int i) const {
      return e().graph_.nodes[i];
    }
    bool mine(int v) const {
      return at(v).segment == segment;
    }
    T* place(int b) const {
      return b < 0 ? nullptr : base + p.offset(b) * rows;
    }
    shape of(const extent& e) const {
      return e.of(rows);
    }
    const T* weight(int parameter) const {
      return parameter < 0 ? nullptr : r.weights + e().graph_.parameters[parameter].offset;
    }
    T* weight_gradient(int parameter) const {
      return parameter < 0 || !r.gradients || !e().graph_.parameters[parameter].trainable
                 ? nullptr
                 : r.gradients + e().graph_.parameters[parameter].offset;
    }
    T* value(int v) const {
      if (v < 0)
        return nullptr;
      const index_t before = first * at(v).out().size();
      if (const auto* input = at(v).template as<ops::network_input>())
        return const_cast<T*>(r.inputs[input->slot]) + before;
      if (!mine(v))
        return r.shared.value(v) + before;
      return place(backwards && p.remade[v] >= 0 ? p.remade[v] : p.value[v]);
    }
    /// Null where no gradient is wanted.
    T* gradient(int v) const {
      if (v < 0)
        return nullptr;
      const auto* input = at(v).template as<ops::network_input>();
      if (!input && mine(v))
        return place(p.gradient[v]);
      T* const g =
          input ? r.asked.input_gradients[std::size_t(input->slot)] : r.shared.gradient(v);
      return g ? g + first * at(v).out().size() : nullptr;
    }

    void forward() {
      for (const step& s : p.forward)
        timed(s, [&] { compute(s.node); });
    }
    /// Only what does not depend on the image: the noise level's and the labels' ways into the
    /// decoders.
    void forward_without_image() {
      for (const step& s : p.forward)
        if (!r.p.facts.sees_image[s.node])
          timed(s, [&] { compute(s.node); });
    }
    void backward() {
      backwards = true;
      const std::vector<index_t> from = complete_from(e().graph_, p, segment);
      for (std::size_t k = 0; k < p.backward.size(); ++k) {
        const step& s = p.backward[k];
        timed(s, [&] {
          if (s.kind == step_kind::remake)
            compute(s.node, true);
          else if (s.kind == step_kind::zero_gradient)
            zero(gradient(s.node), rows * at(s.node).out().size());
          else
            differentiate(s);
        });
        if (r.asked.complete && (k == 0 || from[k] < from[k - 1]))
          r.asked.complete(segment, from[k]);
      }
    }
    template <class F>
    void timed(const step& s, F&& f) {
      if (!e().observer)
        return f();
      const stopwatch pass;
      f();
      e().backend_.synchronize();
      e().observer(s.node, s.kind, pass.seconds());
    }
    int first_non_finite() {
      for (const step& s : p.forward) {
        compute(s.node);
        const index_t n = rows * at(s.node).out().size();
        if (!std::isfinite(
                reduce_sum(e().backend_, n, static_cast<const T*>(value(s.node)), true)))
          return s.node;
      }
      return -1;
    }
    void zero(T* to, index_t n) const {
      e().backend_.for_each_index(n, ops::functor::set<T>{T(0), to});
    }

    /// What node i works on, its result aside.
    ops::forward_pass<T> operands(int i) const {
      const node& n = at(i);
      ops::forward_pass<T> pass;
      for_each_input(
          n, [&](int v, int k) { pass.in[k] = view<const T>(value(v), of(at(v).out())); });
      const auto parameter = [&](int number, const shape& s) {
        return number < 0 ? view<const T>{} : view<const T>(weight(number), s);
      };
      pass.weight = parameter(n.weight, n.facts.weight);
      pass.bias = parameter(n.bias, n.facts.bias);
      pass.statistics = place(p.statistics[i]);
      // Each node takes its own 2^40 elements of the step's stream, each row of the batch its
      // place in them.
      pass.numbers = r.asked.dropout;
      pass.first_number = (index_t{i} << 40) + (r.asked.first_row + first) * n.out().size();
      return pass;
    }
    /// The value of node i. With `again` it goes where backward looks for it, from statistics
    /// that are there.
    void compute(int i, bool again = false) {
      Backend& b = e().backend_;
      ops::forward_pass<T> pass = operands(i);
      pass.y = view<T>(place(again ? p.remade[i] : p.value[i]), of(at(i).out()));
      pass.again = again;
      as_it_is(at(i).what, [&](const auto& op) {
        if constexpr (requires { op.prepared_size(b, pass); })
          if (r.keeps_prepared)
            pass.prepared = e().prepared_.get(b, std::size_t(i), op, pass);
        op.forward(b, pass);
      });
    }
    /// The gradients of the operands and parameters of a node.
    void differentiate(const step& s) {
      const node& n = at(s.node);
      ops::backward_pass<T> pass{operands(s.node)};
      if (n.facts.backward_reads_result)
        pass.y = view<T>(value(s.node), of(n.out()));
      pass.dy = view<T>(gradient(s.node), of(n.out()));
      for_each_input(n, [&](int v, int k) {
        if (r.p.facts.differentiable[v] && passes_gradient(n, k))
          pass.dx[k] = view<T>(gradient(v), of(at(v).out()));
      });
      pass.accumulate = s.accumulate;
      pass.dweight = weight_gradient(n.weight);
      pass.dbias = weight_gradient(n.bias);
      pass.scratch = place(p.scratch[s.node]);
      pass.pieces = {gradient_piece<Backend>, r.asked.first_row + first};
      if (!r.asked.shards.empty() && (pass.dweight || pass.dbias))
        add_shards(n, pass);
      else
        as_it_is(n.what, [&](const auto& op) { run_backward(op, n.facts, pass); });
    }
    /// The same, shard after shard: a row's gradients do not depend on the others.
    void add_shards(const node& n, const ops::backward_pass<T>& pass) {
      const index_t begin = r.asked.first_row + first;
      const parameter_gradients<T> to{pass.dweight, e().parameter_size(n.weight), pass.dbias,
                                      e().parameter_size(n.bias)};
      as_it_is(n.what, [&](const auto& op) {
        if constexpr (requires { op.backward_operands(e().backend_, pass); })
          op.backward_operands(e().backend_, pass);
      });
      e().sums_.add({begin, begin + rows}, r.asked.shards, to,
                    [&](const index_range& part, index_t shard, T* dweight, T* dbias) {
                      ops::backward_pass<T> own =
                          rows_of(pass, n.facts, part.begin - begin, part.size());
                      own.pieces.first = part.begin - r.asked.shards[std::size_t(shard)];
                      own.dweight = dweight;
                      own.dbias = dbias;
                      as_it_is(n.what, [&](const auto& op) {
                        if constexpr (requires { op.backward_parameters(e().backend_, own); })
                          op.backward_parameters(e().backend_, own);
                        else
                          run_backward(op, n.facts, own);
                      });
                    });
    }
    /// Operations of the library sum over pieces where it matters; those of the user's own are
    /// called once a piece.
    template <class Op>
    void run_backward(const Op& op,
                      const ops::description& d,
                      const ops::backward_pass<T>& pass) {
      if (std::is_same_v<Op, ops::own_operation> && (pass.dweight || pass.dbias))
        pass.pieces.each(pass.dy.extents.rows, [&](index_t begin, index_t count) {
          op.backward(e().backend_, rows_of(pass, d, begin, count));
        });
      else
        op.backward(e().backend_, pass);
    }
  };

  /// One pass over one batch.
  struct pass {
    executor& owner;
    const T* weights;
    T* gradients;
    network_inputs<T> inputs;
    index_t rows;
    const plan& p;
    T* base;
    differentiation<T> asked;
    bool keeps_prepared = false;
    frame shared;

    pass(executor& e,
         const plan& plan_,
         const T* w,
         T* g,
         const network_inputs<T>& in,
         const std::vector<index_t>& rows_by_stage,
         const differentiation<T>& options = {},
         shared_features features = shared_features::compute)
        : owner(e),
          weights(w),
          gradients(g),
          inputs(in),
          rows(rows_of_pass(e.graph_, w != nullptr, rows_by_stage)),
          p(plan_),
          base(e.reserve(features == shared_features::compute ? p.arena_elements(rows_by_stage)
                                                              : p.arena_elements(rows))),
          asked(options),
          shared{*this, p.segments[0], 0, base, 0, rows} {
      for (const node& n : e.graph_.nodes)
        if (const auto* input = n.template as<ops::network_input>())
          require<value_error>(inputs[input->slot], "network: its input ",
                               to_string(input->slot), " is missing");
    }
    pass(const pass&) = delete;
    frame decoder(int stage, index_t first, index_t n) {
      return {*this,     p.segments[stage + 1],
              stage + 1, base + rows * p.segments[0].row_elements,
              first,     n};
    }
  };

  /// Elements of a parameter; 0 where there is none.
  index_t parameter_size(int number) const {
    return number < 0 ? 0 : graph_.parameters[std::size_t(number)].size();
  }
  /// The arena with room for so many elements.
  T* reserve(index_t elements) {
    if (arena_.size() < elements)
      kept_rows_ = 0;
    return grown(arena_, backend_, elements);
  }

  Backend backend_;
  graph graph_;
  plan inference_;
  plan training_;
  std::optional<plan> to_inputs_;  ///< made when first asked for
  tensor<T, Backend> arena_;
  prepared_weights<T, Backend> prepared_;
  shard_sums<T, Backend> sums_;
  index_t kept_rows_ = 0;  ///< of which the arena holds the shared part's features
  one_user user_;
};

template <class T, class Backend>
MULTISTAGE_COLD executor<T, Backend>::executor(Backend backend, graph g)
    : backend_(std::move(backend)),
      graph_(runnable(checked(std::move(g)))),
      inference_(make_plan(graph_, {})),
      training_(make_plan(graph_, {.training = true})),
      sums_(backend_) {}

template <class T, class Backend>
void executor<T, Backend>::forward(const T* weights,
                                   const network_inputs<T>& inputs,
                                   const std::vector<index_t>& rows_by_stage,
                                   T* out,
                                   std::uint64_t version,
                                   shared_features features) {
  const auto visit = user_.enter("network");
  prepared_.of(weights, version);
  pass run{*this, inference_, weights, nullptr, inputs, rows_by_stage, {}, features};
  run.keeps_prepared = version != 0;
  if (features == shared_features::take_over) {
    require<value_error>(kept_rows_ == run.rows, "network: features of ", run.rows,
                         " rows were to be taken over, ", kept_rows_, " are there");
    run.shared.forward_without_image();
  } else {
    kept_rows_ = 0;  // also when what follows fails
    run.shared.forward();
    if (features == shared_features::keep)
      kept_rows_ = run.rows;
  }
  for_each_stage(rows_by_stage, [&](int stage, index_t first, index_t rows) {
    frame f = run.decoder(stage, first, rows);
    f.forward();
    const int v = graph_.outputs[stage];
    const index_t size = graph_.nodes[v].out().size();
    backend_.copy(f.value(v), out + first * size, rows * size);
  });
}

template <class T, class Backend>
auto executor<T, Backend>::first_non_finite(const T* weights,
                                            const network_inputs<T>& inputs,
                                            const std::vector<index_t>& rows_by_stage)
    -> trouble {
  const auto visit = user_.enter("network");
  kept_rows_ = 0;
  pass run{*this, inference_, weights, nullptr, inputs, rows_by_stage};
  trouble t{run.shared.first_non_finite(), -1};
  for_each_stage(rows_by_stage, [&](int stage, index_t first, index_t rows) {
    if (t.node < 0)
      t = {run.decoder(stage, first, rows).first_non_finite(), stage};
  });
  return t;
}

template <class T, class Backend>
graph executor<T, Backend>::runnable(graph g) {
  for (int i = 0; i < int(g.nodes.size()); ++i)
    if (const auto* own = g.nodes[i].template as<ops::own_operation>())
      if (!own->template runs_on<Backend, T>())
        fail<value_error>(
            explain(g, {graph_problem::backend, i}, "backend " + std::string(Backend::name)));
  return g;
}

}  // namespace multistage
