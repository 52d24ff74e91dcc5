// Runs a graph on a backend. Rows of a batch are sorted by stage: the shared segment runs over
// all of them, each decoder over the rows of its stage. In training each decoder's backward
// follows its forward at once, so that decoders take turns in the same memory.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>

#include "../core/one_user.hpp"
#include "../core/scratch.hpp"
#include "../ops/attention.hpp"
#include "../ops/combine.hpp"
#include "../ops/dropout.hpp"
#include "../ops/elementwise.hpp"
#include "../ops/geglu.hpp"
#include "../ops/norm.hpp"
#include "../ops/reduce.hpp"
#include "check.hpp"
#include "inputs.hpp"
#include "plan.hpp"
#include "prepared_weights.hpp"

namespace multistage {

template <class T, class Backend>
class executor {
 public:
  executor(Backend backend, graph g)
      : backend_(std::move(backend)),
        graph_(checked(std::move(g))),
        inference_(make_plan(graph_, {})),
        training_(make_plan(graph_, {.training = true})) {}

  const graph& network() const {
    return graph_;
  }
  const plan& inference_plan() const {
    return inference_;
  }
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
  /// no step does.
  void reserve_for_training(index_t rows) {
    reserve(training_.arena_elements(rows));
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
               shared_features features = shared_features::compute) {
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
      const index_t size = graph_.nodes[v].out.size();
      backend_.copy(f.value(v), out + first * size, rows * size);
    });
  }

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
    int node = -1;
    int stage = -1;
  };
  trouble first_non_finite(const T* weights,
                           const network_inputs<T>& inputs,
                           const std::vector<index_t>& rows_by_stage) {
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

 private:
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
      const node& n = at(v);
      if (n.kind == op::input)
        return const_cast<T*>(r.inputs[n.slot]) + first * n.out.size();
      if (!mine(v))
        return r.shared.value(v) + first * n.out.size();
      return place(backwards && p.remade[v] >= 0 ? p.remade[v] : p.value[v]);
    }
    /// Null where no gradient is wanted.
    T* gradient(int v) const {
      if (v < 0)
        return nullptr;
      if (at(v).kind == op::input) {
        T* g = r.asked.input_gradients[std::size_t(at(v).slot)];
        return g ? g + first * at(v).out.size() : nullptr;
      }
      if (!mine(v)) {
        T* g = r.shared.gradient(v);
        return g ? g + first * at(v).out.size() : nullptr;
      }
      return place(p.gradient[v]);
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
      for (const step& s : p.backward)
        timed(s, [&] {
          if (s.kind == step_kind::remake)
            compute(s.node, true);
          else if (s.kind == step_kind::zero_gradient)
            zero(gradient(s.node), rows * at(s.node).out.size());
          else
            differentiate(s);
        });
    }
    template <class F>
    void timed(const step& s, F&& f) {
      if (!e().observer)
        return f();
      const auto begin = std::chrono::steady_clock::now();
      f();
      e().backend_.synchronize();
      e().observer(
          s.node, s.kind,
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    int first_non_finite() {
      for (const step& s : p.forward) {
        compute(s.node);
        const index_t n = rows * at(s.node).out.size();
        if (!std::isfinite(
                reduce_sum(e().backend_, n, static_cast<const T*>(value(s.node)), true)))
          return s.node;
      }
      return -1;
    }

    void zero(T* to, index_t n) const {
      e().backend_.for_each_index(n, ops::functor::set<T>{T(0), to});
    }
    /// to (+)= factor from
    void add_to(T* to, const T* from, T factor, bool accumulate, index_t n) const {
      if (!to || (to == from && !accumulate && factor == T(1)))
        return;
      if (accumulate)
        ops::linear_combination<Backend, T>(e().backend_, n, to, {{T(1), to}, {factor, from}});
      else
        ops::linear_combination<Backend, T>(e().backend_, n, to, {{factor, from}});
    }

    conv_problem<T> conv(const node& n, T* y) const {
      const extent in = at(n.in[0]).out;
      return {.rows = rows,
              .height = in.height,
              .width = in.width,
              .channels = in.channels,
              .channels2 = n.in[1] >= 0 ? at(n.in[1]).out.channels : 0,
              .out_height = n.out.height,
              .out_width = n.out.width,
              .out_channels = n.out.channels,
              .kernel = n.window.kernel,
              .stride = n.window.stride,
              .padding = n.window.padding,
              .x = value(n.in[0]),
              .x2 = value(n.in[1]),
              .weight = weight(n.weight),
              .bias = weight(n.bias),
              .row_bias = value(n.in[2]),
              .residual = value(n.in[3]),
              .scale = T(n.scale),
              .y = y};
    }
    norm_problem<T> norm(const node& n, int i, T* y) const {
      const extent in = at(n.in[0]).out;
      return {.rows = rows,
              .pixels = in.pixels(),
              .channels = in.channels,
              .channels2 = n.out.channels - in.channels,
              .groups = n.groups,
              .epsilon = T(n.epsilon),
              .silu = n.silu,
              .x = value(n.in[0]),
              .x2 = value(n.in[1]),
              .weight = weight(n.weight),
              .bias = weight(n.bias),
              .modulation = value(n.in[2]),
              .statistics = place(p.statistics[i]),
              .y = y};
    }
    /// Layer norm is group norm of one group on one pixel.
    norm_problem<T> layer_norm(const node& n, int i, T* y) const {
      return {.rows = rows * n.out.pixels(),
              .pixels = 1,
              .channels = n.out.channels,
              .channels2 = 0,
              .groups = 1,
              .epsilon = T(n.epsilon),
              .silu = false,
              .x = value(n.in[0]),
              .weight = weight(n.weight),
              .bias = weight(n.bias),
              .statistics = place(p.statistics[i]),
              .y = y};
    }
    attention_problem<T> attention(const node& n, int i, T* y) const {
      const T scale = T(1 / std::sqrt(double(n.out.channels / n.heads)));
      attention_problem<T> a =
          n.in[1] < 0 ? ops::make_self_attention<T>(rows, n.out.pixels(), n.out.channels,
                                                    n.heads, value(n.in[0]), scale)
                      : ops::make_cross_attention<T>(
                            rows, n.out.pixels(), at(n.in[1]).out.pixels(), n.out.channels,
                            n.heads, value(n.in[0]), value(n.in[1]), value(n.in[2]), scale);
      a.y = y;
      a.log_sum_exp = place(p.statistics[i]);
      return a;
    }

    /// The value of node i. With `again` it goes where backward looks for it, from statistics
    /// that are there.
    void compute(int i, bool again = false) {
      Backend& b = e().backend_;
      const node& n = at(i);
      T* y = place(again ? p.remade[i] : p.value[i]);
      const index_t size = rows * n.out.size();
      switch (n.kind) {
        case op::embedding: {
          const view<const T> frequencies =
              n.weight >= 0 ? view<const T>(weight(n.weight), {1, 1, 1, n.out.channels / 2})
                            : view<const T>{};
          ops::embedding<Backend, T>(b, view<const T>(value(n.in[0]), {rows, 1, 1, 1}),
                                     view<T>(y, {rows, 1, 1, n.out.channels}), n.form,
                                     frequencies);
          break;
        }
        case op::conv: {
          conv_problem<T> c = conv(n, y);
          if (r.keeps_prepared)
            c.prepared = e().prepared_.get(b, std::size_t(i), c);
          conv_forward(b, c);
          break;
        }
        case op::group_norm:
        case op::layer_norm: {
          const norm_problem<T> q =
              n.kind == op::group_norm ? norm(n, i, y) : layer_norm(n, i, y);
          if (!again)
            norm_statistics(b, q);
          norm_apply(b, q);
          break;
        }
        case op::silu:
          b.for_each_index(size, ops::functor::map<silu_function, T>{value(n.in[0]), y});
          break;
        case op::gelu:
          b.for_each_index(size, ops::functor::map<gelu_function, T>{value(n.in[0]), y});
          break;
        case op::geglu:
          b.for_each_index(size, ops::functor::geglu<T>{value(n.in[0]), n.out.channels, y});
          break;
        case op::dropout:
          drop(i, value(n.in[0]), y, false);
          break;
        case op::divide_row:
          b.for_each_index(size, ops::functor::divide_row<T>{value(n.in[0]), value(n.in[2]),
                                                             n.out.size(), y, false});
          break;
        case op::add:
          ops::linear_combination<Backend, T>(b, size, y,
                                              {{T(1), value(n.in[0])}, {T(1), value(n.in[1])}});
          break;
        case op::scale:
          ops::linear_combination<Backend, T>(b, size, y, {{T(n.scale), value(n.in[0])}});
          break;
        case op::add_row:
          b.for_each_index(size, ops::functor::add_row<T>{value(n.in[0]), value(n.in[2]),
                                                          n.out.channels, n.out.pixels(), y});
          break;
        case op::concat: {
          const index_t c1 = at(n.in[0]).out.channels;
          const index_t c2 = at(n.in[1]).out.channels;
          b.for_each_index(size,
                           ops::functor::concat<T>{value(n.in[0]), value(n.in[1]), c1, c2, y});
          break;
        }
        case op::resample:
          resample_run(b, resampling(n, value(n.in[0]), at(n.in[0]).out, y, n.out, n.up,
                                     gain(n), false));
          break;
        case op::attention:
          attention_forward(b, attention(n, i, y));
          break;
        case op::input:
        case op::none:
          break;
      }
    }

    /// Dropout of node i, forward and backward alike.
    void drop(int i, const T* from, T* to, bool accumulate) const {
      const index_t size = at(i).out.size();
      if (!r.asked.dropout)
        return add_to(to, from, T(1), accumulate, rows * size);
      // Each node takes its own 2^40 elements of the step's stream, each row of the batch its
      // place in them.
      e().backend_.for_each_index(
          rows * size,
          ops::functor::dropout<T>{from, *r.asked.dropout, (index_t{i} << 40) + first * size,
                                   T(at(i).scale), to, accumulate},
          256);
    }
    static T gain(const node& n) {
      return n.up ? T(n.filter.rate * n.filter.rate) : T(1);
    }
    resample_problem<T> resampling(const node& n,
                                   const T* x,
                                   extent from,
                                   T* y,
                                   extent to,
                                   bool up,
                                   T gain,
                                   bool accumulate) const {
      return ops::make_resample_problem<T>(
          x, shape{rows, from.height, from.width, from.channels}, y,
          shape{rows, to.height, to.width, to.channels}, n.filter, up, gain, accumulate);
    }

    void differentiate(const step& s) {
      Backend& b = e().backend_;
      const node& n = at(s.node);
      T* dy = gradient(s.node);
      const index_t size = rows * n.out.size();
      const auto target = [&](int k) {
        return n.in[k] >= 0 && r.p.facts.differentiable[n.in[k]] ? gradient(n.in[k]) : nullptr;
      };
      T* d0 = target(0);
      T* d1 = target(1);
      T* d2 = target(2);
      T* d3 = target(3);
      switch (n.kind) {
        case op::conv: {
          const conv_problem<T> q = conv(n, nullptr);
          if (n.scale != 1)
            add_to(dy, dy, T(n.scale), false, size);
          if (d0 || d1)
            conv_backward_input(b, q, dy, d0, s.accumulate[0], d1, s.accumulate[1]);
          if (T* dw = weight_gradient(n.weight))
            conv_backward_weight(b, q, dy, dw);
          T* const dbias = weight_gradient(n.bias);
          if (d2 || dbias) {  // sums over pixels by row serve both
            T* sums = place(p.scratch[s.node]);
            if (d2 && (!dbias || !s.accumulate[2]))
              sums = d2;
            if (d2 || q.out_pixels() > 1) {
              row_sums(b, rows, q.out_pixels(), n.out.channels, dy, sums,
                       d2 == sums && s.accumulate[2]);
              if (d2 && sums != d2)
                add_to(d2, sums, T(1), true, rows * n.out.channels);
              if (dbias)
                column_sums(b, rows, n.out.channels, sums, dbias, true);
            } else
              column_sums(b, rows, n.out.channels, dy, dbias, true);
          }
          add_to(d3, dy, T(1), s.accumulate[3], size);
          break;
        }
        case op::group_norm:
          norm_backward(b, norm(n, s.node, nullptr),
                        norm_gradients<T>{.dy = dy,
                                          .dx = d0,
                                          .accumulate = s.accumulate[0],
                                          .dx2 = d1,
                                          .accumulate2 = s.accumulate[1],
                                          .dweight = weight_gradient(n.weight),
                                          .dbias = weight_gradient(n.bias),
                                          .dmodulation = d2,
                                          .accumulate_modulation = s.accumulate[2],
                                          .partials = place(p.scratch[s.node])});
          break;
        case op::layer_norm:
          norm_backward(b, layer_norm(n, s.node, nullptr),
                        norm_gradients<T>{.dy = dy,
                                          .dx = d0,
                                          .accumulate = s.accumulate[0],
                                          .dweight = weight_gradient(n.weight),
                                          .dbias = weight_gradient(n.bias),
                                          .partials = place(p.scratch[s.node])});
          break;
        case op::geglu:
          b.for_each_index(size, ops::functor::geglu_backward<T>{
                                     value(n.in[0]), dy, n.out.channels, d0, s.accumulate[0]});
          break;
        case op::dropout:
          drop(s.node, dy, d0, s.accumulate[0]);
          break;
        case op::divide_row:
          b.for_each_index(size, ops::functor::divide_row<T>{dy, value(n.in[2]), n.out.size(),
                                                             d0, s.accumulate[0]});
          break;
        case op::silu:
          b.for_each_index(size, ops::functor::map_backward<silu_function, T>{
                                     value(n.in[0]), dy, d0, s.accumulate[0]});
          break;
        case op::gelu:
          b.for_each_index(size, ops::functor::map_backward<gelu_function, T>{
                                     value(n.in[0]), dy, d0, s.accumulate[0]});
          break;
        case op::add:
          if (n.in[0] == n.in[1]) {
            add_to(d0, dy, T(2), s.accumulate[0], size);
            break;
          }
          add_to(d1, dy, T(1), s.accumulate[1],
                 size);  // first: d0 may have taken over dy's memory
          add_to(d0, dy, T(1), s.accumulate[0], size);
          break;
        case op::scale:
          add_to(d0, dy, T(n.scale), s.accumulate[0], size);
          break;
        case op::add_row:
          if (d2)
            row_sums(b, rows, n.out.pixels(), n.out.channels, dy, d2, s.accumulate[2]);
          add_to(d0, dy, T(1), s.accumulate[0], size);
          break;
        case op::concat: {
          const index_t c1 = at(n.in[0]).out.channels;
          const index_t c2 = at(n.in[1]).out.channels;
          if (d0)
            b.for_each_index(rows * n.out.pixels() * c1,
                             ops::functor::split<T>{dy, c1 + c2, 0, c1, d0, s.accumulate[0]});
          if (d1)
            b.for_each_index(rows * n.out.pixels() * c2,
                             ops::functor::split<T>{dy, c1 + c2, c1, c2, d1, s.accumulate[1]});
          break;
        }
        case op::resample:
          if (d0)
            resample_run(b, resampling(n, dy, n.out, d0, at(n.in[0]).out, !n.up, gain(n),
                                       s.accumulate[0]));
          break;
        case op::attention: {
          const attention_problem<T> a = attention(n, s.node, value(s.node));
          const index_t c = n.out.channels;
          attention_backward(b, a,
                             n.in[1] < 0 ? attention_gradients<T>{dy, d0, d0 + c, d0 + 2 * c}
                                         : attention_gradients<T>{dy, d0, d1, d2});
          break;
        }
        case op::embedding:
        case op::input:
        case op::none:
          break;
      }
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
          rows(std::accumulate(rows_by_stage.begin(), rows_by_stage.end(), index_t{0})),
          p(plan_),
          base(e.reserve(features == shared_features::compute ? p.arena_elements(rows_by_stage)
                                                              : p.arena_elements(rows))),
          asked(options),
          shared{*this, p.segments[0], 0, base, 0, rows} {
      require<shape_error>(int(rows_by_stage.size()) == e.graph_.stage_count(),
                           "network: rows are given for ", rows_by_stage.size(),
                           " stages, the network has ", e.graph_.stage_count());
      for (const node& n : e.graph_.nodes)
        require<value_error>(n.kind != op::input || inputs[n.slot], "network: its input ",
                             to_string(n.slot), " is missing");
    }
    pass(const pass&) = delete;
    frame decoder(int stage, index_t first, index_t n) {
      return {*this,     p.segments[stage + 1],
              stage + 1, base + rows * p.segments[0].row_elements,
              first,     n};
    }
  };

  T* reserve(index_t elements) {
    if (arena_.size() < elements)
      kept_rows_ = 0;
    return grown(arena_, backend_, elements);
  }

  Backend backend_;
  graph graph_;
  plan inference_;
  plan training_;
  std::optional<plan> to_inputs_;  // made when first asked for
  tensor<T, Backend> arena_;
  prepared_weights<T, Backend> prepared_;
  index_t kept_rows_ = 0;  // of which the arena holds the shared part's features
  one_user user_;
};

}  // namespace multistage
