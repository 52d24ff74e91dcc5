// The builder that a network's description speaks to: each verb appends a node. `Names` decides
// whether names are kept: at run time they are (checkpoints need them), at compile time they
// would only cost.
#pragma once
#include <algorithm>
#include <string>
#include <string_view>

#include "../core/error.hpp"
#include "../core/utf8.hpp"
#include "fuse.hpp"
#include "node.hpp"

namespace multistage {

/// Names of nothing.
struct no_names {
  template <class... Parts>
  constexpr std::size_t push(const Parts&...) {
    return 0;
  }
  constexpr void pop(std::size_t) {}
  constexpr void parameter(std::string_view, std::string_view) {}
  constexpr void segment(int) {}
  constexpr void check() const {}
};

/// Upstream's names: of each parameter, e.g. "enc.8x8_block0.conv0.weight".
struct name_list {
  std::vector<std::string> parameters;
  std::string prefix;

  template <class... Parts>
  std::size_t push(const Parts&... parts) {
    const std::size_t before = prefix.size();
    (append(parts), ...);
    prefix += '.';
    return before;
  }
  void pop(std::size_t size) {
    prefix.resize(size);
  }
  void parameter(std::string_view layer, std::string_view kind) {
    parameters.push_back(prefix + std::string(layer) + (layer.empty() ? "" : ".") +
                         std::string(kind));
  }
  /// Refuses names under which weights could not be saved and read back: of two parameters
  /// alike, of what checkpoints keep beside the weights, and none that JSON can hold. @throws
  /// value_error
  MULTISTAGE_COLD void check() const {
    std::vector<std::string> sorted = parameters;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    require<value_error>(twice == sorted.end(), "network: two parameters are called '",
                         twice == sorted.end() ? std::string() : *twice,
                         "'; files could hold only one of them: give the layers names of their "
                         "own, or record each inside a scope of its own");
    for (const std::string& name : parameters) {
      require<value_error>(name != "__metadata__" && name.rfind("training.", 0) != 0,
                           "network: a parameter cannot be called '", name,
                           "': '__metadata__' and names that begin with 'training.' have a "
                           "meaning of their own in checkpoints; give the layer another name");
      require<value_error>(is_utf8(name), "network: the name of parameter ",
                           &name - parameters.data(), " is not UTF-8; names in files must be");
    }
  }

 private:
  void append(std::string_view s) {
    prefix += s;
  }
  void append(int i) {
    prefix += std::to_string(i);
  }
};

/// How a layer's weights start.
struct layer_init {
  initialization mode = initialization::xavier_uniform;
  double gain = 1;
  double bias_gain = 0;
};

struct layer_options {
  layer_init init{};
  bool bias = true;
  qkv_order qkv = qkv_order::none;
  int heads = 1;
  parameter_layout layout =
      parameter_layout::vector;  // vector: what the verb says, conv_oihw or linear_oi
  std::string_view weight_name = "weight";
  std::string_view bias_name = "bias";
};

/// @see the file's head. Spatial sizes that do not fit are the description's to refuse (see
/// networks/).
template <class Names = no_names>
class recorder {
 public:
  Names names;

  /// Prefix of the names inside, until the result dies.
  template <class... Parts>
  [[nodiscard]] constexpr auto scope(const Parts&... parts) {
    return scope_guard{names, names.push(parts...)};
  }
  /// Which segment what follows belongs to: 0 shared, 1 + s stage s.
  constexpr void segment(int s) {
    segment_ = s;
    if (s >= graph_.segments)
      graph_.segments = s + 1;
  }

  constexpr feature input(input_slot slot, int channels, int height = 1, int width = 1) {
    node n{.kind = op::input, .out = {channels, height, width}};
    n.slot = slot;
    return append(n);
  }
  /// [sin, cos] of a noise level. @param frequencies the name of a fixed tensor of Fourier
  /// frequencies; none: positional.
  constexpr feature embedding(feature level,
                              int channels,
                              ops::embedding_form form,
                              std::string_view frequencies = {}) {
    node n{.kind = op::embedding, .out = {channels, 1, 1}, .in = {level.id, -1, -1, -1}};
    n.form = form;
    if (!frequencies.empty()) {
      n.weight = add_parameter({.out = channels / 2,
                                .init = initialization::normal,
                                .gain = 16,
                                .trainable = false});
      names.parameter("", frequencies);
    }
    return append(n);
  }
  constexpr feature conv(feature x,
                         int out,
                         std::string_view name,
                         ops::conv_window window = {},
                         layer_options o = {}) {
    node n{.kind = op::conv,
           .out = {out, int(window.out(x.height)), int(window.out(x.width))},
           .in = {x.id, -1, -1, -1}};
    n.window = window;
    weights(n, x.channels,
            o.layout == parameter_layout::vector ? parameter_layout::conv_oihw : o.layout, name,
            o);
    return append(n);
  }
  constexpr feature linear(feature x, int out, std::string_view name, layer_options o = {}) {
    node n{.kind = op::conv, .out = {out, x.height, x.width}, .in = {x.id, -1, -1, -1}};
    n.window = {.kernel = 1, .stride = 1, .padding = 0};
    weights(n, x.channels,
            o.layout == parameter_layout::vector ? parameter_layout::linear_oi : o.layout, name,
            o);
    return append(n);
  }
  /// @param modulation [scale, shift] by row, 2 channels wide, or absent.
  constexpr feature group_norm(feature x,
                               int groups,
                               double epsilon,
                               std::string_view name,
                               feature modulation = {}) {
    node n{.kind = op::group_norm,
           .out = {x.channels, x.height, x.width},
           .in = {x.id, -1, modulation.id, -1}};
    n.groups = groups;
    n.epsilon = epsilon;
    affine(n, name);
    return append(n);
  }
  /// Layer normalisation over the channels of each pixel.
  constexpr feature layer_norm(feature x, double epsilon, std::string_view name) {
    node n{.kind = op::layer_norm, .out = extent_of(x), .in = {x.id, -1, -1, -1}};
    n.epsilon = epsilon;
    affine(n, name);
    return append(n);
  }
  constexpr feature silu(feature x) {
    return append({.kind = op::silu, .out = extent_of(x), .in = {x.id, -1, -1, -1}});
  }
  constexpr feature gelu(feature x) {
    return append({.kind = op::gelu, .out = extent_of(x), .in = {x.id, -1, -1, -1}});
  }
  /// The first half of x's channels times gelu of the second (Shazeer, arXiv 2002.05202).
  constexpr feature geglu(feature x) {
    return append({.kind = op::geglu,
                   .out = {x.channels / 2, x.height, x.width},
                   .in = {x.id, -1, -1, -1}});
  }
  /// In training, zeroes a share of the values and scales the others up by 1 / (1 - share);
  /// nothing when the share is 0.
  constexpr feature dropout(feature x, double share) {
    if (share == 0)
      return x;
    node n{.kind = op::dropout, .out = extent_of(x), .in = {x.id, -1, -1, -1}};
    n.scale = share;
    return append(n);
  }
  constexpr feature add(feature x, feature y) {
    return append({.kind = op::add, .out = extent_of(x), .in = {x.id, y.id, -1, -1}});
  }
  /// x + row, with row's channels spread over x's pixels.
  constexpr feature add_row(feature x, feature row) {
    return append({.kind = op::add_row, .out = extent_of(x), .in = {x.id, -1, row.id, -1}});
  }
  constexpr feature scale(feature x, double factor) {
    node n{.kind = op::scale, .out = extent_of(x), .in = {x.id, -1, -1, -1}};
    n.scale = factor;
    return append(n);
  }
  /// x / row, with one number a row; no gradient flows into the divisor.
  constexpr feature divide_row(feature x, feature row) {
    return append({.kind = op::divide_row, .out = extent_of(x), .in = {x.id, -1, row.id, -1}});
  }
  constexpr feature concat(feature x, feature y) {
    return append({.kind = op::concat,
                   .out = {x.channels + y.channels, x.height, x.width},
                   .in = {x.id, y.id, -1, -1}});
  }
  constexpr feature resample(feature x, const ops::resample_filter& filter, bool up) {
    const auto move = [&](int e) {
      return int(up ? filter.up(e) : filter.down(e));
    };
    node n{.kind = op::resample,
           .out = {x.channels, move(x.height), move(x.width)},
           .in = {x.id, -1, -1, -1}};
    n.filter = filter;
    n.up = up;
    return append(n);
  }
  /// Self-attention over qkv's pixels; qkv has three times the channels, [q, k, v]; scores are
  /// scaled by (channels / heads)^-1/2. Nothing else may read qkv.
  constexpr feature attention(feature qkv, int heads) {
    node n{.kind = op::attention,
           .out = {qkv.channels / 3, qkv.height, qkv.width},
           .in = {qkv.id, -1, -1, -1}};
    n.heads = heads;
    return append(n);
  }
  /// Attention of q's pixels to those of k and v, whose channels are q's. Nothing else may read
  /// them.
  constexpr feature attention(feature q, feature k, feature v, int heads) {
    node n{.kind = op::attention, .out = extent_of(q), .in = {q.id, k.id, v.id, -1}};
    n.heads = heads;
    return append(n);
  }
  /// The result of the next stage.
  constexpr void output(feature x) {
    graph_.outputs.push_back(x.id);
  }

  /// What was recorded, a node a verb.
  constexpr const graph& recorded() const {
    return graph_;
  }
  /// The recorded graph, fused (fuse.hpp). @throws value_error for names that could not be
  /// saved and read back
  constexpr graph finish() const {
    names.check();
    return fuse(graph_);
  }

 private:
  struct scope_guard {
    Names& names;
    std::size_t before;
    constexpr ~scope_guard() {
      names.pop(before);
    }
  };
  static constexpr extent extent_of(feature x) {
    return {x.channels, x.height, x.width};
  }

  constexpr feature append(node n) {
    n.segment = segment_;
    graph_.nodes.push_back(n);
    return {int(graph_.nodes.size()) - 1, n.out.channels, n.out.height, n.out.width};
  }
  constexpr int add_parameter(parameter p) {
    p.segment = segment_;
    p.offset = graph_.parameter_elements;
    graph_.parameter_elements += round_up(p.size(), graph::alignment);
    graph_.parameters.push_back(p);
    return int(graph_.parameters.size()) - 1;
  }
  constexpr void weights(node& n,
                         int in,
                         parameter_layout layout,
                         std::string_view name,
                         const layer_options& o) {
    parameter p{.layout = layout,
                .out = n.out.channels,
                .in = in,
                .kernel = n.window.kernel,
                .qkv = o.qkv,
                .heads = o.heads};
    p.init = o.init.mode;
    p.gain = o.init.gain;
    n.weight = add_parameter(p);
    names.parameter(name, o.weight_name);
    if (o.bias) {
      // Biases are drawn like weights of the same fan; a gain of 0 starts them at 0.
      n.bias =
          add_parameter({.out = n.out.channels,
                         .in = 1,
                         .qkv = o.qkv,
                         .heads = o.heads,
                         .init = o.init.bias_gain == 0 ? initialization::constant : o.init.mode,
                         .gain = o.init.bias_gain});
      names.parameter(name, o.bias_name);
    }
  }
  /// Weight and bias of a normalisation.
  constexpr void affine(node& n, std::string_view name) {
    n.weight = add_parameter({.out = n.out.channels, .gain = 1});
    n.bias = add_parameter({.out = n.out.channels});
    names.parameter(name, "weight");
    names.parameter(name, "bias");
  }

  graph graph_;
  int segment_ = 0;
};

}  // namespace multistage
