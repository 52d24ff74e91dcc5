// The verbs that a network's description speaks: conv, group_norm, silu, attention... Each says
// which operation it is, what it reads and which parameters it has, and hands that to a sink:
// the recorder, which keeps nodes, or the cost counter, which only adds up. A sink has
//   feature apply(operation, operands, weight, bias);
//
//   const feature x = b.input(input_slot::image, 3, 32, 32);
//   const feature h = b.silu(b.group_norm(b.conv(x, 64, "conv0"), 32, 1e-5, "norm0"));
//
// Names are upstream's: a parameter is called scope.layer.weight, and files hold it so.
#pragma once
#include <initializer_list>
#include <string_view>

#include "node.hpp"

namespace multistage {

/// How a layer's weights start.
struct layer_init {
  initialization mode = initialization::xavier_uniform;  ///< of the weights
  double gain = 1;       ///< a factor of that distribution's width
  double bias_gain = 0;  ///< the same of the bias; 0: zeros
};

/// What convolutions and linear layers may be told beside their sizes.
struct layer_options {
  layer_init init{};  ///< first values
  bool bias = true;   ///< whether it has one
  /// Upstream's order of its outputs, where it makes queries, keys and values.
  qkv_order qkv = qkv_order::none;
  int heads = 1;  ///< for qkv_order::by_head
  /// vector: what the verb says, conv_oihw or linear_oi
  parameter_layout layout = parameter_layout::vector;
  std::string_view weight_name = "weight";  ///< upstream's name behind the layer's
  std::string_view bias_name = "bias";      ///< upstream's name behind the layer's
};

/// A parameter of an operation with its name, layer.kind; absent without a size.
struct named_parameter {
  std::string_view layer{};  ///< upstream's, below the scope
  std::string_view kind{};   ///< weight, bias, or another of upstream's
  parameter what{};          ///< its size, layout and first values

  /// Whether there is such a parameter.
  constexpr bool there() const {
    return what.out > 0;
  }
};

/// @see the file's head. @tparam Sink derives from this.
template <class Sink>
class verbs {
 public:
  /// What the caller hands to the network in `slot`, a row of it.
  constexpr feature input(input_slot slot, int channels, int height = 1, int width = 1) {
    return apply(ops::network_input{slot, {channels, height, width}}, {});
  }
  /// [sin, cos] of a noise level. @param frequencies the name of a fixed tensor of Fourier
  /// frequencies; none: positional
  constexpr feature embedding(feature level,
                              int channels,
                              ops::embedding_form form,
                              std::string_view frequencies = {}) {
    named_parameter fixed;
    if (!frequencies.empty())
      fixed = {"",
               frequencies,
               {.out = channels / 2,
                .init = initialization::normal,
                .gain = 16,
                .trainable = false}};
    return apply(ops::noise_embedding{channels, form}, {level}, fixed);
  }
  /// x [h, w, c] to [window.out(h), window.out_width(w), out] (ops/conv.hpp).
  constexpr feature conv(feature x,
                         int out,
                         std::string_view name,
                         ops::conv_window window = {},
                         layer_options o = {}) {
    return layer(x, out, name, window, parameter_layout::conv_oihw, o);
  }
  /// A linear layer of each pixel.
  constexpr feature linear(feature x, int out, std::string_view name, layer_options o = {}) {
    return layer(x, out, name, {.kernel = 1, .stride = 1, .padding = 0},
                 parameter_layout::linear_oi, o);
  }
  /// @param modulation [scale, shift] by row, 2 channels wide, or absent
  constexpr feature group_norm(feature x,
                               int groups,
                               double epsilon,
                               std::string_view name,
                               feature modulation = {}) {
    return normalisation(ops::group_normalisation{groups, epsilon}, {x, {}, modulation}, name);
  }
  /// Layer normalisation over the channels of each pixel.
  constexpr feature layer_norm(feature x, double epsilon, std::string_view name) {
    return normalisation(ops::layer_normalisation{epsilon}, {x}, name);
  }
  /// x sigmoid(x).
  constexpr feature silu(feature x) {
    return apply(ops::activation<silu_function>{}, {x});
  }
  /// x P(X <= x) of a standard normal X.
  constexpr feature gelu(feature x) {
    return apply(ops::activation<gelu_function>{}, {x});
  }
  /// max(x, 0).
  constexpr feature relu(feature x) {
    return apply(ops::activation<relu_function>{}, {x});
  }
  /// x above 0, 0.2 x below.
  constexpr feature leaky_relu(feature x) {
    return apply(ops::activation<leaky_relu_function>{}, {x});
  }
  /// The first half of x's channels times gelu of the second (Shazeer, arXiv 2002.05202).
  constexpr feature geglu(feature x) {
    return apply(ops::gated_gelu{}, {x});
  }
  /// In training, zeroes a share of the values and scales the others up by 1 / (1 - share);
  /// nothing when the share is 0.
  constexpr feature dropout(feature x, double share) {
    return share == 0 ? x : apply(ops::dropping{share}, {x});
  }
  /// x + y, of equal extents.
  constexpr feature add(feature x, feature y) {
    return apply(ops::addition{}, {x, y});
  }
  /// x + row, with row's channels spread over x's pixels.
  constexpr feature add_row(feature x, feature row) {
    return apply(ops::row_addition{}, {x, row});
  }
  /// factor x.
  constexpr feature scale(feature x, double factor) {
    return apply(ops::scaling{factor}, {x});
  }
  /// x / row, with one number a row; no gradient flows into the divisor.
  constexpr feature divide_row(feature x, feature row) {
    return apply(ops::row_division{}, {x, row});
  }
  /// The channels of two to four features, one behind the other.
  constexpr feature concat(feature x, feature y, feature z = {}, feature u = {}) {
    return apply(ops::concatenation{}, {x, y, z, u});
  }
  /// Half or twice the height and width by a separable filter (ops/resample.hpp).
  constexpr feature resample(feature x, const ops::resample_filter& filter, bool up) {
    return apply(ops::resampling{filter, up}, {x});
  }
  /// The maximum or mean of windows of x (ops/pool.hpp).
  constexpr feature pool(feature x, ops::pool_kind kind, ops::conv_window window) {
    return apply(ops::pooling{kind, window}, {x});
  }
  /// Self-attention over qkv's pixels; qkv has three times the channels, [q, k, v]; scores are
  /// scaled by (channels / heads)^-1/2. Nothing else may read qkv.
  constexpr feature attention(feature qkv, int heads) {
    return apply(ops::softmax_attention{heads}, {qkv});
  }
  /// Attention of q's pixels to those of k and v, whose channels are q's. Nothing else may read
  /// them.
  constexpr feature attention(feature q, feature k, feature v, int heads) {
    return apply(ops::softmax_attention{heads}, {q, k, v});
  }
  /// Any operation, one of the user's own among them (ops/own_operation.hpp), with parameters
  /// where it has some.
  template <class Op>
  constexpr feature apply(const Op& op,
                          const ops::operand_list& operands,
                          const named_parameter& weight = {},
                          const named_parameter& bias = {}) {
    return static_cast<Sink&>(*this).take(op, operands, weight, bias);
  }

 private:
  constexpr feature layer(feature x,
                          int out,
                          std::string_view name,
                          const ops::conv_window& window,
                          parameter_layout layout,
                          const layer_options& o) {
    named_parameter weight{name,
                           o.weight_name,
                           {.layout = o.layout == parameter_layout::vector ? layout : o.layout,
                            .out = out,
                            .in = x.channels,
                            .kernel = window.kernel,
                            .kernel_width = window.resolved().kernel_width,
                            .qkv = o.qkv,
                            .heads = o.heads,
                            .init = o.init.mode,
                            .gain = o.init.gain}};
    // Biases are drawn like weights of the same fan; a gain of 0 starts them at 0.
    named_parameter bias{
        name,
        o.bias_name,
        {.out = o.bias ? out : 0,
         .qkv = o.qkv,
         .heads = o.heads,
         .init = o.init.bias_gain == 0 ? initialization::constant : o.init.mode,
         .gain = o.init.bias_gain}};
    return apply(ops::convolution{out, window}, {x}, weight, bias);
  }
  /// With its weight, which starts at 1, and its bias, at 0.
  template <class Op>
  constexpr feature normalisation(const Op& op,
                                  const ops::operand_list& operands,
                                  std::string_view name) {
    const int channels = operands[0].channels;
    return apply(op, operands, {name, "weight", {.out = channels, .gain = 1}},
                 {name, "bias", {.out = channels}});
  }
};

}  // namespace multistage
