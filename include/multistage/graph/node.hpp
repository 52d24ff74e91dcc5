// A network as data: nodes in topological order, the parameters they use, and the segment each
// belongs to. Segment 0 is shared by all stages, segment 1 + s belongs to stage s. All of it
// exists at compile time too.
//
// Parameters lie in one flat array, each at a multiple of 16 elements, those of a segment
// together: an optimiser sees one tensor, and a stage's own parameters are a range of it.
#pragma once
#include <array>

#include "../core/constant_vector.hpp"
#include "operations.hpp"

namespace multistage {

/// An operation in its place: what it reads, the parameters it uses, and what it said of itself
/// on these operands.
struct node {
  any_operation what{};  ///< the operation with its attributes
  std::array<int, ops::most_operands> in{-1, -1, -1, -1};  ///< nodes; -1: absent
  int weight = -1;                                         ///< parameters; -1: absent
  int bias = -1;                                           ///< parameter; -1: absent
  int segment = 0;                                         ///< to which it belongs
  ops::description facts{};  ///< extents, cost and memory on its operands

  /// Extents of one row of its value.
  constexpr const extent& out() const {
    return facts.out;
  }
  /// The operation as an Op; null when it is another one.
  template <class Op>
  constexpr const Op* as() const {
    return std::get_if<Op>(&what);
  }
  /// The same, to be changed, as fusions do.
  template <class Op>
  constexpr Op* as() {
    return std::get_if<Op>(&what);
  }
  /// Whether the operation is an Op.
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

/// A trained or fixed tensor of the network: its size, how upstream stores it, where it lies in
/// the flat memory, and how it starts.
struct parameter {
  parameter_layout layout = parameter_layout::vector;  ///< upstream's way to store it
  int out = 0;                      ///< channels that come out, or the length of a vector
  int in = 1;                       ///< channels that go in
  int kernel = 1;                   ///< rows of a kernel
  int kernel_width = 0;             ///< 0: as kernel
  qkv_order qkv = qkv_order::none;  ///< upstream's order of its outputs
  int heads = 1;                    ///< for qkv_order::by_head
  int segment = 0;                  ///< to which it belongs
  index_t offset = 0;               ///< in the model's flat parameter memory
  initialization init = initialization::constant;  ///< distribution of its first values
  double gain = 0;                                 ///< the value itself for constant
  bool trainable = true;                           ///< false for Fourier frequencies
  /// Columns of a kernel.
  constexpr int columns() const {
    return kernel_width == 0 ? kernel : kernel_width;
  }
  /// Pixels of a kernel.
  constexpr index_t taps() const {
    return index_t{kernel} * columns();
  }
  /// Its elements.
  constexpr index_t size() const {
    return out * in * taps();
  }
};

/// @see the file's head.
struct graph {
  constant_vector<node> nodes;            ///< in topological order
  constant_vector<parameter> parameters;  ///< in the order in which they were recorded
  constant_vector<int> outputs;           ///< by stage
  int segments = 1;                       ///< the shared one, and one a stage
  /// Extent of the flat memory: every parameter starts at a multiple of `alignment`
  index_t parameter_elements = 0;
  static constexpr index_t alignment = 16;  ///< elements; 64 bytes of floats

  /// How many stages have a decoder.
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
