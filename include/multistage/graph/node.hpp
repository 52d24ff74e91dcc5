// A network as data: nodes in topological order, the parameters they use, and the segment each
// belongs to. Segment 0 is shared by all stages, segment 1 + s belongs to stage s. All of it
// exists at compile time too.
#pragma once
#include <array>

#include "../core/constant_vector.hpp"
#include "operations.hpp"

namespace multistage {

/// An operation in its place: what it reads, the parameters it uses, and what it said of itself
/// on these operands.
struct node {
  any_operation what{};
  std::array<int, ops::most_operands> in{-1, -1, -1, -1};  ///< nodes; -1: absent
  int weight = -1;                                         ///< parameters; -1: absent
  int bias = -1;
  int segment = 0;
  ops::description facts{};

  constexpr const extent& out() const {
    return facts.out;
  }
  /// The operation as an Op; null when it is another one.
  template <class Op>
  constexpr const Op* as() const {
    return std::get_if<Op>(&what);
  }
  template <class Op>
  constexpr Op* as() {
    return std::get_if<Op>(&what);
  }
  template <class Op>
  constexpr bool is() const {
    return std::holds_alternative<Op>(what);
  }
};

/// How upstream stores a tensor, and so how it is converted on import and export. In the
/// library weights are [k, k, in, out]. linear_io: [in, out], as NIN layers and tables of
/// embeddings have it; conv_oi1: a one-dimensional convolution of kernel 1.
enum class parameter_layout { vector, conv_oihw, linear_oi, linear_io, conv_oi1 };

/// The distribution of initial values: uniform in +-gain sqrt(6 / (fan_in + fan_out)) (Glorot)
/// or +-gain sqrt(3 / fan_in) (He).
enum class initialization { constant, xavier_uniform, kaiming_uniform, normal };

/// How upstream orders the outputs of a layer that makes queries, keys and values; here it is
/// always [q, k, v], heads inside. interleaved: (channel, {q, k, v}) as EDM has it; by_head:
/// (head, {q, k, v}, channel of the head) as latent diffusion has it.
enum class qkv_order { none, interleaved, by_head };

struct parameter {
  parameter_layout layout = parameter_layout::vector;
  int out = 0;
  int in = 1;
  int kernel = 1;
  int kernel_width = 0;  ///< 0: as kernel
  qkv_order qkv = qkv_order::none;
  int heads = 1;  ///< for qkv_order::by_head
  int segment = 0;
  index_t offset = 0;  ///< in the model's flat parameter memory
  initialization init = initialization::constant;
  double gain = 0;  ///< the value itself for constant
  bool trainable = true;
  /// Columns of a kernel.
  constexpr int columns() const {
    return kernel_width == 0 ? kernel : kernel_width;
  }
  /// Pixels of a kernel.
  constexpr index_t taps() const {
    return index_t{kernel} * columns();
  }
  constexpr index_t size() const {
    return out * in * taps();
  }
};

/// @see the file's head.
struct graph {
  constant_vector<node> nodes;
  constant_vector<parameter> parameters;
  constant_vector<int> outputs;  ///< by stage
  int segments = 1;
  index_t parameter_elements =
      0;  // extent of the flat memory: every parameter starts at a multiple of `alignment`
  static constexpr index_t alignment = 16;

  constexpr int stage_count() const {
    return int(outputs.size());
  }
  /// [begin, end) of a segment's parameters in the flat memory: they lie together. Empty for
  /// none.
  constexpr std::array<index_t, 2> parameter_range(int segment) const {
    index_t begin = parameter_elements;
    index_t end = 0;
    for (const parameter& p : parameters)
      if (p.segment == segment)
        begin = p.offset < begin ? p.offset : begin,
        end = p.offset + p.size() > end ? p.offset + p.size() : end;
    return {end > begin ? begin : 0, end > begin ? end : 0};
  }
};

/// The operands of a node that lie in the graph.
template <class F>
constexpr void for_each_input(const node& n, F&& f) {
  for (int k = 0; k < ops::most_operands; ++k)
    if (n.in[k] >= 0)
      f(n.in[k], k);
}
/// The operands of a node as its operation sees them.
constexpr ops::operand_list operands_of(const constant_vector<node>& nodes, const node& n) {
  ops::operand_list list{};
  for_each_input(n, [&](int v, int k) {
    const extent& e = nodes[v].out();
    list[k] = {v, e.channels, e.height, e.width};
  });
  return list;
}

}  // namespace multistage
