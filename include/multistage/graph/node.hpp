// A network as data: nodes in topological order, the parameters they use, and the segment each
// belongs to. Segment 0 is shared by all stages, segment 1 + s belongs to stage s. All of it
// exists at compile time too.
#pragma once
#include <array>

#include "../core/constant_vector.hpp"
#include "../ops/conv.hpp"
#include "../ops/embedding.hpp"
#include "../ops/resample.hpp"

namespace multistage {

/// Extents of one row of a feature map.
struct extent {
  int channels = 0;
  int height = 1;
  int width = 1;
  constexpr index_t pixels() const {
    return index_t{height} * width;
  }
  constexpr index_t size() const {
    return pixels() * channels;
  }
  friend constexpr bool operator==(const extent&, const extent&) = default;
};

/// What a caller hands to a network, in this order. The noise level is the preconditioning's
/// c_noise.
enum class input_slot { image, noise_level, class_labels, augment_labels, context, count };
constexpr const char* to_string(input_slot s) {
  constexpr const char* names[] = {"image", "noise_level", "class_labels", "augment_labels",
                                   "context"};
  return names[int(s)];
}

enum class op {
  none,
  input,
  embedding,
  conv,
  group_norm,
  layer_norm,
  silu,
  gelu,
  geglu,
  dropout,
  add,
  add_row,
  scale,
  divide_row,
  concat,
  resample,
  attention
};

/// One operation. Which fields mean something depends on `kind`.
struct node {
  op kind = op::none;
  extent out{};
  std::array<int, 4> in{-1, -1, -1, -1};  ///< x, x2, row operand (bias, modulation, divisor),
                                          ///< residual; attention: q, k, v or one [q, k, v]
  /// parameters
  int weight = -1;
  int bias = -1;
  int segment = 0;
  ops::conv_window window{};
  int groups = 1;
  int heads = 1;
  /// scale of conv's sum, of op::scale; dropout: the share that is dropped
  double epsilon = 0;
  double scale = 1;
  bool silu = false;  ///< fused behind group_norm
  bool up = false;
  ops::resample_filter filter{};
  ops::embedding_form form{};
  input_slot slot = input_slot::image;
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
  qkv_order qkv = qkv_order::none;
  int heads = 1;  ///< for qkv_order::by_head
  int segment = 0;
  index_t offset = 0;  ///< in the model's flat parameter memory
  initialization init = initialization::constant;
  double gain = 0;  ///< the value itself for constant
  bool trainable = true;
  constexpr index_t size() const {
    return index_t{out} * in * kernel * kernel;
  }
};

/// A handle to a recorded value.
struct feature {
  int id = -1;
  int channels = 0;
  int height = 1;
  int width = 1;
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
  for (int k = 0; k < 4; ++k)
    if (n.in[k] >= 0)
      f(n.in[k], k);
}

}  // namespace multistage
