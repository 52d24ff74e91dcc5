// ADM's U-Net as EDM trains it (Dhariwal and Nichol, arXiv 2105.05233; Karras et al., arXiv
// 2206.00364): modulation by [scale, shift], attention with 64 channels a head, no scaling of
// skips, resampling on the identity path.
#pragma once
#include "song_unet.hpp"

namespace multistage {

/// Configuration; lists end at their first zero.
struct adm_unet {
  int resolution = 64;
  int channels = 3;
  int columns = 0;  ///< of images that are not square; 0: as many as rows (resolution)
  int encoder_channels = 192;
  std::array<int, 8> channel_mult{1, 2, 3, 4};
  int num_blocks = 3;
  std::array<int, 8> attn_resolutions{32, 16, 8};
  int channel_mult_emb = 4;
  int channels_per_head = 64;
  int norm_groups = 32;
  int label_dim = 0;
  int augment_dim = 0;
  double dropout = 0;  ///< in training, before a block's second convolution
  bool shared_middle =
      false;  // whether the two blocks between encoder and decoders belong to all stages

  constexpr int depth() const {
    return length(channel_mult);
  }
  constexpr int width() const {
    return columns > 0 ? columns : resolution;
  }
  template <class F>
  constexpr void for_each_setting(F&& f) const {
    f("channel_mult_emb", channel_mult_emb, 1, 256);
    f("channels_per_head", channels_per_head, 1, 1 << 16);
    f("norm_groups", norm_groups, 1, 1 << 16);
    f("augment_dim", augment_dim, 0, 1 << 20);
  }
};

namespace adm {

inline constexpr layer_init plain{initialization::kaiming_uniform, 0.57735026918962576,
                                  0.57735026918962576};
inline constexpr layer_init zero{initialization::constant, 0};

template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& b,
                                       const adm_unet& u,
                                       feature x,
                                       std::string_view name,
                                       feature modulation = {}) {
  return b.group_norm(x, groups_for(x.channels, u.norm_groups), 1e-5, name, modulation);
}

template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& b,
                                        const adm_unet& u,
                                        feature x,
                                        feature emb,
                                        int out,
                                        bool attention,
                                        song::move m = song::move::none) {
  const auto moved = [&](feature f) {
    return m == song::move::none ? f : b.resample(f, {}, m == song::move::up);
  };
  feature h = b.conv(moved(b.silu(norm(b, u, x, "norm0"))), out, "conv0", {}, {plain});
  h = b.conv(
      b.dropout(b.silu(norm(b, u, h, "norm1", b.linear(emb, 2 * out, "affine", {plain}))),
                u.dropout),
      out, "conv1", {}, {zero});
  const feature skip =
      x.channels != out ? b.conv(moved(x), out, "skip", {1, 1, 0}, {plain}) : moved(x);
  h = b.add(h, skip);
  if (!attention)
    return h;
  const int heads = out / u.channels_per_head;
  const feature qkv = b.conv(norm(b, u, h, "norm2"), 3 * out, "qkv", {1, 1, 0},
                             {plain, true, qkv_order::interleaved, heads});
  return b.add(b.conv(b.attention(qkv, heads), out, "proj", {1, 1, 0}, {zero}), h);
}

/// The two blocks at the deepest level.
template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& b,
                                         const adm_unet& u,
                                         feature x,
                                         feature emb) {
  for (int i = 0; i < 2; ++i) {
    const auto layer = b.scope(x.height, "x", x.width, "_in", i);
    x = block(b, u, x, emb, x.channels, i == 0);
  }
  return x;
}

}  // namespace adm

template <class Builder>
MULTISTAGE_COLD constexpr encoded encode(Builder& b, const adm_unet& u, bool) {
  using namespace adm;
  const auto model = b.scope("model");
  const int wide = u.encoder_channels * u.channel_mult_emb;
  feature emb = b.embedding(b.input(input_slot::noise_level, 1), u.encoder_channels,
                            {.sine_first = false, .endpoint = false});
  if (u.augment_dim > 0)
    emb = b.add(emb, b.linear(b.input(input_slot::augment_labels, u.augment_dim),
                              u.encoder_channels, "map_augment", {plain, false}));
  emb =
      b.linear(b.silu(b.linear(emb, wide, "map_layer0", {plain})), wide, "map_layer1", {plain});
  if (u.label_dim > 0)
    emb = b.add(
        emb, b.linear(b.input(input_slot::class_labels, u.label_dim), wide, "map_label",
                      {{initialization::kaiming_uniform, constexpr_sqrt(u.label_dim)}, false}));
  emb = b.silu(emb);

  const auto enc = b.scope("enc");
  feature x = b.input(input_slot::image, u.channels, u.resolution, u.width());
  constant_vector<feature> skips;
  for (int level = 0; level < u.depth(); ++level) {
    const int r = u.resolution >> level;
    const int c = u.width() >> level;
    const int out = u.encoder_channels * u.channel_mult[level];
    if (level == 0) {
      const auto layer = b.scope(r, "x", c, "_conv");
      skips.push_back(x = b.conv(x, out, "", {}, {plain}));
    } else {
      const auto layer = b.scope(r, "x", c, "_down");
      skips.push_back(x = block(b, u, x, emb, x.channels, false, song::move::down));
    }
    for (int i = 0; i < u.num_blocks; ++i) {
      const auto layer = b.scope(r, "x", c, "_block", i);
      skips.push_back(x = block(b, u, x, emb, out, contains(u.attn_resolutions, r)));
    }
  }
  if (u.shared_middle)
    x = middle(b, u, x, emb);
  return {x, emb, skips};
}

/// One stage's decoder; returns F, [channels, resolution, width].
template <class Builder>
MULTISTAGE_COLD constexpr feature decode(Builder& b,
                                         const adm_unet& u,
                                         const decoder_spec& d,
                                         encoded e) {
  using namespace adm;
  feature x = e.x;
  {
    const auto dec = d.alone ? b.scope("model.dec") : b.scope("model.decs.", d.stage);
    int number = 0;
    for (int level = u.depth() - 1; level >= 0; --level) {
      const int r = u.resolution >> level;
      const int c = u.width() >> level;
      if (level == u.depth() - 1) {
        if (!u.shared_middle)
          x = middle(b, u, x, e.emb);
      } else {
        const auto layer = b.scope(r, "x", c, "_up");
        x = block(b, u, x, e.emb, x.channels, false, song::move::up);
      }
      level_skips<Builder> skips(e.skips, u.num_blocks + 1);
      for (int i = 0; i < d.blocks; ++i, ++number) {
        const auto layer = b.scope(r, "x", c, "_block", i);
        x = block(b, u, skips.join(b, x), e.emb, d.width * u.channel_mult[level],
                  d.attention(number, contains(u.attn_resolutions, r)));
      }
    }
  }
  const auto outs = d.alone ? b.scope("model") : b.scope("model.outs.", d.stage);
  return b.conv(b.silu(norm(b, u, x, "out_norm")), u.channels, "out_conv", {}, {zero});
}

}  // namespace multistage
