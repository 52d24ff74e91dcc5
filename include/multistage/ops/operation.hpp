// What an operation is. Each is one struct in one file of ops/ and says everything there is to
// know about it:
//   struct row_addition {                                        its attributes, if it has any
//     static constexpr operation needs = operation::elementwise; what a backend must support
//     static constexpr const char* name = "add_row";             for messages and profiles
//     static constexpr operand_names operands{"x", "row"};
//     constexpr description describe(const operand_list&) const; extents, checks, cost, memory
//     void forward(Backend&, const forward_pass<T>&) const;
//     void backward(Backend&, const backward_pass<T>&) const;
//   };
// The call on tensors (`run` below), the verb of descriptions, cost, checks, plan and executor
// all derive from that struct. A new operation is a file and its name in graph/operations.hpp;
// one of the user's own is the same struct (own_operation.hpp).
//
// `describe` is asked when a network is recorded, also at compile time, and before a call on
// tensors: it sees extents alone, and what it refuses runs nowhere. `forward` and `backward`
// get memory that fits.
#pragma once
#include <array>
#include <optional>
#include <string>

#include "../core/random.hpp"
#include "shape_rules.hpp"

namespace multistage {

/// Extents of one row of a feature map.
struct extent {
  int channels = 0;  ///< values a pixel
  int height = 1;    ///< pixels
  int width = 1;     ///< pixels
  /// Pixels of the map.
  constexpr index_t pixels() const {
    return index_t{height} * width;
  }
  /// Elements of the map.
  constexpr index_t size() const {
    return pixels() * channels;
  }
  /// The extents of `rows` of them.
  constexpr shape of(index_t rows) const {
    return {rows, height, width, channels};
  }
  friend constexpr bool operator==(const extent&, const extent&) = default;
};

/// A handle to a recorded value; below 0 for none.
struct feature {
  int id = -1;       ///< number of the node
  int channels = 0;  ///< values a pixel
  int height = 1;    ///< pixels
  int width = 1;     ///< pixels

  /// Whether there is such a value.
  constexpr bool there() const {
    return id >= 0;
  }
  /// Extents of one row of it.
  constexpr extent extents() const {
    return {channels, height, width};
  }
};

/// What can be wrong with a recorded network, by kind; the sentences are in graph/check.hpp.
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
  output,
  backend,
  parameters
};

namespace ops {

/// How many operands an operation has at most.
inline constexpr int most_operands = 4;
/// The operands of an operation in a description, in its order; those that are absent are not
/// there().
using operand_list = std::array<feature, most_operands>;
/// What messages call them; those behind the last are null.
using operand_names = std::array<const char*, most_operands>;

/// Why an operation cannot be: the kind of problem, for networks; the sentence, for calls on
/// tensors; and the two numbers that do not go together (channels, and what should divide
/// them), where there are such.
struct misfit {
  graph_problem kind = graph_problem::none;  ///< none where the operation fits
  const char* sentence = "";                 ///< for calls on tensors
  int channels = 0;  ///< that do not go together with the next; 0 where that is not the problem
  int divisor = 0;   ///< what should divide them
};

/// When backward needs a value that forward has made: whether it was kept, or is made again.
enum class keeping {
  always,              // what blocks hand on
  unless_checkpoints,  // made again where training keeps only what blocks hand on
  never                // so cheap that it is always made again
};

/// An operation on given operands: what it expects, what it makes, what that costs. Sizes are
/// elements for one row of the batch.
struct description {
  misfit wrong{};                          ///< kind none: it fits, and what follows holds
  unsigned needed = 0b0001;                ///< bit k: operand k must be there
  unsigned by_row = 0;                     ///< bit k: operand k is one vector a row
  std::array<extent, most_operands> in{};  ///< what each operand that is there must be
  extent out{};                            ///< what the result is
  shape weight{0, 0, 0, 0};                ///< what the parameters must be, where it has any
  shape bias{0, 0, 0, 0};                  ///< what the bias must be, where it has one
  bool weight_needed = true;               ///< where it is announced; else it may be absent
  bool bias_needed = false;                ///< the same of the bias
  index_t macs = 0;                        ///< multiply-accumulates of one image
  index_t statistics = 0;                  ///< what forward leaves for backward
  index_t scratch = 0;                     ///< what backward works in
  unsigned backward_reads = 0;             ///< bit k: the value of operand k
  bool backward_reads_result = false;      ///< whether backward reads the value of the result
  unsigned writes_gradient = 0;            ///< bit k: the gradient of operand k is written, not
                                           ///< added to, so that nothing else may read it
  unsigned stops_gradient = 0;             ///< bit k: no gradient flows into operand k
  int in_place = -1;                       ///< the operand whose memory the result may take
  int gradient_in_place = -1;              ///< the operand whose gradient may take that of the
                                           ///< result's gradient
  keeping kept = keeping::unless_checkpoints;  ///< whether the result stays until backward
};

/// A description that says only why there is none.
constexpr description refused(graph_problem kind,
                              const char* sentence,
                              int channels = 0,
                              int divisor = 0) {
  description d;
  d.wrong = {kind, sentence, channels, divisor};
  return d;
}
/// What is wrong with an operation on these operands, of which a network makes a message.
constexpr graph_problem problem_of(const description& d, const operand_list& in) {
  if (d.wrong.kind != graph_problem::none)
    return d.wrong.kind;
  for (int k = 0; k < most_operands; ++k) {
    if ((d.needed >> k & 1) != 0 && !in[k].there())
      return graph_problem::foreign;
    if (in[k].there() && in[k].extents() != d.in[k])
      return (d.by_row >> k & 1) != 0 ? graph_problem::row_operand : graph_problem::extents;
  }
  const extent& y = d.out;
  return y.channels < 1 || y.height < 1 || y.width < 1 ? graph_problem::empty
                                                       : graph_problem::none;
}
/// Of an operation from x to something like x, element by element.
constexpr description elementwise(const feature& x) {
  description d;
  d.in[0] = x.extents();
  d.out = x.extents();
  d.in_place = 0;
  d.gradient_in_place = 0;
  return d;
}

/// Whether an operand is there. One of an empty batch has no memory either, but extents that
/// say so.
template <class T>
constexpr bool given(const view<T>& v) {
  return v || v.extents.size() == 0;
}

/// What forward works on. Operands, parameters and result lie one element after the other.
template <class T>
struct forward_pass {
  std::array<view<const T>, most_operands> in{};  ///< [rows, ...]; empty where absent
  view<const T> weight{};       ///< the parameters; empty where there are none
  view<const T> bias{};         ///< likewise
  view<T> y{};                  ///< the result; empty where backward has not asked for it
  T* statistics = nullptr;      ///< description::statistics a row
  bool again = false;           ///< the value is made again: its statistics are there already
  const T* prepared = nullptr;  ///< the weights in the form that the backend would rather have
  std::optional<random_stream> numbers{};  ///< of this step; none where nothing is random
  index_t first_number = 0;                ///< the element of the stream that y's first takes

  /// Rows of the batch.
  index_t rows() const {
    return given(in[0]) ? in[0].extents.rows : y.extents.rows;
  }
};

/// What backward works on: what forward had (y where description::backward_reads_result, else
/// empty), and gradients.
template <class T>
struct backward_pass : forward_pass<T> {
  view<T> dy{};                                  ///< like y; backward may change it
  std::array<view<T>, most_operands> dx{};       ///< empty where not wanted
  std::array<bool, most_operands> accumulate{};  ///< dx[k] is added to, else written
  T* dweight = nullptr;                          ///< added to; null where not wanted
  T* dbias = nullptr;                            ///< added to; null where not wanted
  T* scratch = nullptr;                          ///< description::scratch a row
  row_pieces pieces{};                           ///< over which dweight and dbias are summed
};

/// The pass of some of its rows.
template <class T>
backward_pass<T> rows_of(backward_pass<T> p,
                         const description& d,
                         index_t first,
                         index_t count) {
  const auto cut = [&](auto& v) {
    if (v)
      v = v.rows(first, count);
  };
  p.first_number += first * p.dy.extents.row_size();
  p.pieces.first += first;
  for (auto& x : p.in)
    cut(x);
  for (auto& dx : p.dx)
    cut(dx);
  cut(p.y);
  cut(p.dy);
  p.statistics = p.statistics ? p.statistics + first * d.statistics : nullptr;
  p.scratch = p.scratch ? p.scratch + first * d.scratch : nullptr;
  return p;
}

/// The pass of an operation of one operand: dx (+)= its gradient, from dy like its result.
template <class T>
backward_pass<T> gradient_pass(const view<const T>& x,
                               const view<const T>& dy,
                               const view<T>& dx,
                               bool accumulate) {
  backward_pass<T> pass{forward_pass<T>{.in = {x}}};
  pass.dy = {const_cast<T*>(dy.data), dy.extents, dy.strides};  // by operations that keep it
  pass.dx[0] = dx;
  pass.accumulate[0] = accumulate;
  return pass;
}

/// The features that views of tensors stand for, for `describe`.
template <class T>
constexpr operand_list features_of(const std::array<view<const T>, most_operands>& in) {
  operand_list features{};
  for (int k = 0; k < most_operands; ++k)
    if (k == 0 || given(in[k]))
      features[k] = {k, int(in[k].extents.channels), int(in[k].extents.height),
                     int(in[k].extents.width)};
  return features;
}

/// The description of an operation on tensors, every operand checked. @param where what
/// messages begin with. @throws value_error for attributes out of range, shape_error naming the
/// operand that does not fit
template <class Op, class T>
description checked(const Op& op, const forward_pass<T>& pass, const char* where = Op::name) {
  const view<const T>& x = pass.in[0];
  expect_packed(where, Op::operands[0], x);
  const description d = op.describe(features_of(pass.in));
  const misfit& wrong = d.wrong;
  if (wrong.kind == graph_problem::empty)
    fail<shape_error>(where, ": ", wrong.sentence, " an image of ", x.extents.height, " x ",
                      x.extents.width, "; give a larger image or more padding");
  if (wrong.kind == graph_problem::extents)
    fail<shape_error>(where, ": ", wrong.sentence, "; ", Op::operands[0], " has extents ",
                      x.extents);
  if (wrong.kind != graph_problem::none && wrong.channels > 0)
    fail<value_error>(where, ": ", wrong.sentence, " (", wrong.divisor, " and ", wrong.channels,
                      " channels)");
  require<value_error>(wrong.kind == graph_problem::none, where, ": ", wrong.sentence);
  for (int k = 0; k < most_operands; ++k)
    if (given(pass.in[k]) || (d.needed >> k & 1) != 0)
      expect(where, Op::operands[k], pass.in[k], d.in[k].of(x.extents.rows));
  const auto parameter = [&](const char* name, const view<const T>& v, const shape& s,
                             bool needed) {
    if (s.size() > 0 && (v || needed))
      expect(where, name, v, s);
  };
  parameter("weight", pass.weight, d.weight, d.weight_needed);
  parameter("bias", pass.bias, d.bias, d.bias_needed);
  return d;
}

/// Runs an operation on tensors. @param d what `checked` says of it @throws shape_error naming
/// the result if that does not fit
template <class Op, class Backend, class T>
void run(Backend& b, const Op& op, const forward_pass<T>& pass, const description& d) {
  MULTISTAGE_REQUIRE_NEEDS(Backend, Op, T);
  expect(Op::name, "y", pass.y, d.out.of(pass.rows()));
  op.forward(b, pass);
}
/// Runs an operation on tensors. @throws as `checked` does
template <class Op, class Backend, class T>
void run(Backend& b, const Op& op, const forward_pass<T>& pass) {
  run(b, op, pass, checked(op, pass));
}

/// Runs its backward. @throws as `checked` does
template <class Op, class Backend, class T>
void run_backward(Backend& b, const Op& op, const backward_pass<T>& pass) {
  MULTISTAGE_REQUIRE_NEEDS(Backend, Op, T);
  const std::string where = std::string(Op::name) + "_backward";
  const description d = checked<Op, T>(op, pass, where.c_str());
  expect(where.c_str(), "dy", pass.dy, d.out.of(pass.rows()));
  for (int k = 0; k < most_operands; ++k)
    if (pass.dx[k])
      expect(where.c_str(), "dx", pass.dx[k], pass.in[k].extents);
  op.backward(b, pass);
}

}  // namespace ops
}  // namespace multistage
