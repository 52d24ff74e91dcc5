// ADM's U-Net as EDM trains it (Dhariwal and Nichol, arXiv 2105.05233; Karras et al., arXiv 2206.00364): modulation by [scale, shift],
// attention with 64 channels a head, no scaling of skips, resampling on the identity path.
#pragma once
#include "song_unet.hpp"

namespace multistage {

/// Configuration; lists end at their first zero.
struct adm_unet {
  int resolution = 64, channels = 3;
  int encoder_channels = 192;
  std::array<int, 8> channel_mult{1, 2, 3, 4};
  int num_blocks = 3;
  std::array<int, 8> attn_resolutions{32, 16, 8};
  int channel_mult_emb = 4;
  int channels_per_head = 64;
  int norm_groups = 32;
  int label_dim = 0, augment_dim = 0;

  constexpr int depth() const { return length(channel_mult); }
};

namespace adm {

inline constexpr layer_init plain{initialization::kaiming_uniform, 0.57735026918962576, 0.57735026918962576}, zero{initialization::constant, 0};

template <class Builder>
constexpr feature norm(Builder& b, const adm_unet& u, feature x, std::string_view name, feature modulation = {}) {
  const int most = x.channels / 4;
  return b.group_norm(x, u.norm_groups < most ? u.norm_groups : most, 1e-5, name, modulation);
}

template <class Builder>
constexpr feature block(Builder& b, const adm_unet& u, feature x, feature emb, int out, bool attention, song::move m = song::move::none) {
  const auto moved = [&](feature f) { return m == song::move::none ? f : b.resample(f, {}, m == song::move::up); };
  feature h = b.conv(moved(b.silu(norm(b, u, x, "norm0"))), out, "conv0", {}, {plain});
  h = b.conv(b.silu(norm(b, u, h, "norm1", b.linear(emb, 2 * out, "affine", {plain}))), out, "conv1", {}, {zero});
  const feature skip = x.channels != out ? b.conv(moved(x), out, "skip", {1, 1, 0}, {plain}) : moved(x);
  h = b.add(h, skip);
  if (!attention) return h;
  const int heads = out / u.channels_per_head;
  const feature qkv = b.conv(norm(b, u, h, "norm2"), 3 * out, "qkv", {1, 1, 0}, {plain, true, qkv_order::interleaved, heads});
  return b.add(b.conv(b.attention(qkv, heads), out, "proj", {1, 1, 0}, {zero}), h);
}

}  // namespace adm

template <class Builder>
constexpr encoded encode(Builder& b, const adm_unet& u) {
  using namespace adm;
  const int wide = u.encoder_channels * u.channel_mult_emb;
  feature emb = b.embedding(b.input(input_slot::noise_level, 1), u.encoder_channels, {.sine_first = false, .endpoint = false});
  if (u.augment_dim > 0) emb = b.add(emb, b.linear(b.input(input_slot::augment_labels, u.augment_dim), u.encoder_channels, "map_augment", {plain, false}));
  emb = b.linear(b.silu(b.linear(emb, wide, "map_layer0", {plain})), wide, "map_layer1", {plain});
  if (u.label_dim > 0)
    emb = b.add(emb, b.linear(b.input(input_slot::class_labels, u.label_dim), wide, "map_label",
                              {{initialization::kaiming_uniform, constexpr_sqrt(u.label_dim)}, false}));
  emb = b.silu(emb);

  const auto enc = b.scope("enc");
  feature x = b.input(input_slot::image, u.channels, u.resolution, u.resolution);
  std::vector<feature> skips;
  for (int level = 0; level < u.depth(); ++level) {
    const int r = u.resolution >> level, out = u.encoder_channels * u.channel_mult[level];
    if (level == 0) {
      const auto layer = b.scope(r, "x", r, "_conv");
      skips.push_back(x = b.conv(x, out, "", {}, {plain}));
    } else {
      const auto layer = b.scope(r, "x", r, "_down");
      skips.push_back(x = block(b, u, x, emb, x.channels, false, song::move::down));
    }
    for (int i = 0; i < u.num_blocks; ++i) {
      const auto layer = b.scope(r, "x", r, "_block", i);
      skips.push_back(x = block(b, u, x, emb, out, contains(u.attn_resolutions, r)));
    }
  }
  return {x, emb, skips};
}

template <class Builder>
constexpr feature decode(Builder& b, const adm_unet& u, int width, encoded e) {
  using namespace adm;
  feature x = e.x;
  for (int level = u.depth() - 1; level >= 0; --level) {
    const int r = u.resolution >> level;
    if (level == u.depth() - 1) {
      for (int i = 0; i < 2; ++i) {
        const auto layer = b.scope(r, "x", r, "_in", i);
        x = block(b, u, x, e.emb, x.channels, i == 0);
      }
    } else {
      const auto layer = b.scope(r, "x", r, "_up");
      x = block(b, u, x, e.emb, x.channels, false, song::move::up);
    }
    for (int i = 0; i <= u.num_blocks; ++i) {
      const auto layer = b.scope(r, "x", r, "_block", i);
      x = block(b, u, b.concat(x, e.skips.back()), e.emb, width * u.channel_mult[level], contains(u.attn_resolutions, r));
      e.skips.pop_back();
    }
  }
  return x;
}

template <class Builder>
constexpr feature head(Builder& b, const adm_unet& u, feature x) {
  return b.conv(b.silu(adm::norm(b, u, x, "out_norm")), u.channels, "out_conv", {}, {adm::zero});
}

}  // namespace multistage
