// The mapping of EDM's U-Nets (Karras et al., arXiv 2206.00364, table 8): what every block is
// told, made from the embedding of the noise level, from augmentations and labels by two
// layers. Ho et al. add the labels before these layers (DDPM++, NCSN++), Dhariwal and Nichol
// behind them (ADM).
#pragma once
#include "../core/math.hpp"
#include "parts.hpp"

namespace multistage {

/// Where labels join the embedding, and how their layer begins.
enum class label_place { before_layers, behind_layers };

/// SiLU of the mapped embedding, [encoder_channels * channel_mult_emb].
/// @param embedding of the noise level. @param init of all layers but ADM's of the labels
template <class Builder, class Net>
MULTISTAGE_COLD constexpr feature edm_mapping(Builder& build,
                                              const Net& net,
                                              feature embedding,
                                              layer_init init,
                                              label_place labels) {
  // Wide is what blocks are told, narrow what the embedding is.
  const int narrow = embedding.channels;
  const int wide = net.encoder_channels * net.channel_mult_emb;
  feature emb = embedding;
  if (net.label_dim > 0 && labels == label_place::before_layers) {
    const feature one_hot = build.input(input_slot::class_labels, net.label_dim);
    const feature label = build.scale(one_hot, constexpr_sqrt(net.label_dim));
    emb = build.add(emb, build.linear(label, narrow, "map_label", {init}));
  }
  if (net.augment_dim > 0) {
    const feature augmented = build.input(input_slot::augment_labels, net.augment_dim);
    emb = build.add(emb, build.linear(augmented, narrow, "map_augment", {init, false}));
  }
  emb = build.silu(build.linear(emb, wide, "map_layer0", {init}));
  emb = build.linear(emb, wide, "map_layer1", {init});
  if (net.label_dim > 0 && labels == label_place::behind_layers) {
    const feature label = build.input(input_slot::class_labels, net.label_dim);
    const layer_init as_one_hot{initialization::kaiming_uniform, constexpr_sqrt(net.label_dim)};
    emb = build.add(emb, build.linear(label, wide, "map_label", {as_one_hot, false}));
  }
  return build.silu(emb);
}

}  // namespace multistage
