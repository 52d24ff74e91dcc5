// EDM's SongUNet: DDPM++ and NCSN++ (Karras, Aittala, Aila, Laine, arXiv 2206.00364, table 8;
// Song et al., arXiv 2011.13456), with a decoder for each stage (arXiv 2312.09181). The code
// below is the figure: encoder levels downwards, every output pushed on the stack of skips;
// decoder levels upwards, every block reading [x, popped skip].
#pragma once
#include "../core/math.hpp"
#include "arrangement.hpp"

namespace multistage {

/// Configuration; lists end at their first zero. Sizes in pixels and channels.
struct song_unet {
  int resolution = 32;
  int channels = 3;
  int columns = 0;  ///< of images that are not square; 0: as many as rows (resolution)
  int encoder_channels = 128;
  std::array<int, 8> channel_mult{
      2, 2, 2};        // width of each level, in encoder_channels (decoder: in its own width)
  int num_blocks = 4;  ///< residual blocks a level; decoders have one more
  std::array<int, 8> attn_resolutions{
      16};                     // where encoder blocks, and the last decoder block, attend
  int channel_mult_noise = 1;  ///< width of the noise level's embedding
  int channel_mult_emb = 4;    ///< width of what the blocks are told
  bool fourier = false;        ///< NCSN++'s embedding; else positional
  auxiliary_path encoder_type = auxiliary_path::standard;
  auxiliary_path decoder_type = auxiliary_path::standard;  ///< standard or skip
  std::array<int, 8> resample_filter{1, 1};
  int norm_groups = 32;  ///< at most, and at least four channels a group
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
    f("channel_mult_noise", channel_mult_noise, 1, 256);
    f("channel_mult_emb", channel_mult_emb, 1, 256);
    f("norm_groups", norm_groups, 1, 1 << 16);
    f("augment_dim", augment_dim, 0, 1 << 20);
  }
};

namespace song {

inline constexpr double sqrt_half = 0.70710678118654752440;
inline constexpr layer_init plain{initialization::xavier_uniform, 1};
inline constexpr layer_init zero{initialization::xavier_uniform, 1e-5};
inline constexpr layer_init attentive{initialization::xavier_uniform, 0.44721359549995793};

enum class move { none, down, up };

template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& b,
                                       const song_unet& u,
                                       feature x,
                                       std::string_view name) {
  return b.group_norm(x, groups_for(x.channels, u.norm_groups), 1e-6, name);
}

template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& b,
                                        const song_unet& u,
                                        feature x,
                                        feature emb,
                                        int out,
                                        bool attention,
                                        move m = move::none) {
  const auto moved = [&](feature f) {
    return m == move::none ? f : b.resample(f, {u.resample_filter}, m == move::up);
  };
  feature h = b.conv(moved(b.silu(norm(b, u, x, "norm0"))), out, "conv0", {}, {plain});
  h = b.add_row(h, b.linear(emb, out, "affine", {plain}));
  h = b.conv(b.dropout(b.silu(norm(b, u, h, "norm1")), u.dropout), out, "conv1", {}, {zero});
  const feature skip = x.channels != out || m != move::none
                           ? b.conv(moved(x), out, "skip", {1, 1, 0}, {plain})
                           : x;
  h = b.scale(b.add(h, skip), sqrt_half);
  if (!attention)
    return h;
  const feature qkv = b.conv(norm(b, u, h, "norm2"), 3 * out, "qkv", {1, 1, 0},
                             {attentive, true, qkv_order::interleaved});
  return b.scale(b.add(b.conv(b.attention(qkv, 1), out, "proj", {1, 1, 0}, {zero}), h),
                 sqrt_half);
}

/// The two blocks at the deepest level.
template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& b,
                                         const song_unet& u,
                                         feature x,
                                         feature emb) {
  for (int i = 0; i < 2; ++i) {
    const auto layer = b.scope(x.height, "x", x.width, "_in", i);
    x = block(b, u, x, emb, x.channels, i == 0);
  }
  return x;
}

}  // namespace song

/// The encoder, with the mapping of the noise level, labels and augmentations.
template <class Builder>
MULTISTAGE_COLD constexpr encoded encode(Builder& b, const song_unet& u, bool) {
  using namespace song;
  const auto model = b.scope("model");
  const int noise = u.encoder_channels * u.channel_mult_noise;
  const int wide = u.encoder_channels * u.channel_mult_emb;
  feature emb = b.embedding(b.input(input_slot::noise_level, 1), noise, {},
                            u.fourier ? "map_noise.freqs" : "");
  if (u.label_dim > 0) {
    const feature y =
        b.scale(b.input(input_slot::class_labels, u.label_dim), constexpr_sqrt(u.label_dim));
    emb = b.add(emb, b.linear(y, noise, "map_label", {plain}));
  }
  if (u.augment_dim > 0)
    emb = b.add(emb, b.linear(b.input(input_slot::augment_labels, u.augment_dim), noise,
                              "map_augment", {plain, false}));
  emb = b.silu(b.linear(emb, wide, "map_layer0", {plain}));
  emb = b.silu(b.linear(emb, wide, "map_layer1", {plain}));

  const auto enc = b.scope("enc");
  feature x = b.input(input_slot::image, u.channels, u.resolution, u.width());
  feature aux = x;
  constant_vector<feature> skips;
  const ops::resample_filter filter{u.resample_filter};
  for (int level = 0; level < u.depth(); ++level) {
    const int r = u.resolution >> level;
    const int c = u.width() >> level;
    if (level == 0) {
      const auto layer = b.scope(r, "x", c, "_conv");
      skips.push_back(x = b.conv(x, u.encoder_channels, "", {}, {plain}));
    } else {
      {
        const auto layer = b.scope(r, "x", c, "_down");
        skips.push_back(x = block(b, u, x, emb, x.channels, false, move::down));
      }
      if (u.encoder_type == auxiliary_path::skip) {
        aux = b.resample(aux, filter, false);
        const auto layer = b.scope(r, "x", c, "_aux_skip");
        skips.back() = x = b.add(x, b.conv(aux, x.channels, "", {1, 1, 0}, {plain}));
      } else if (u.encoder_type == auxiliary_path::residual) {
        // Upstream adds the bias behind the filter; the filter's taps all lie inside and sum to
        // 1, so it may stand here.
        const auto layer = b.scope(r, "x", c, "_aux_residual");
        aux = b.resample(b.conv(aux, x.channels, "", {3, 1, 1 + filter.pad()}, {plain}),
                         {u.resample_filter, 0}, false);
        skips.back() = x = aux = b.scale(b.add(aux, x), sqrt_half);
      }
    }
    for (int i = 0; i < u.num_blocks; ++i) {
      const auto layer = b.scope(r, "x", c, "_block", i);
      skips.push_back(x = block(b, u, x, emb, u.encoder_channels * u.channel_mult[level],
                                contains(u.attn_resolutions, r)));
    }
  }
  if (u.shared_middle)
    x = middle(b, u, x, emb);
  return {x, emb, skips};
}

/// One stage's decoder; returns F, [channels, resolution, width].
template <class Builder>
MULTISTAGE_COLD constexpr feature decode(Builder& b,
                                         const song_unet& u,
                                         const decoder_spec& d,
                                         encoded e) {
  using namespace song;
  const auto dec = d.alone ? b.scope("model.dec") : b.scope("model.decs.", d.stage);
  feature x = e.x;
  feature out{};
  int number = 0;
  for (int level = u.depth() - 1; level >= 0; --level) {
    const int r = u.resolution >> level;
    const int c = u.width() >> level;
    if (level == u.depth() - 1) {
      if (!u.shared_middle)
        x = middle(b, u, x, e.emb);
    } else {
      const auto layer = b.scope(r, "x", c, "_up");
      x = block(b, u, x, e.emb, x.channels, false, move::up);
    }
    level_skips<Builder> skips(e.skips, u.num_blocks + 1);
    for (int i = 0; i < d.blocks; ++i, ++number) {
      const auto layer = b.scope(r, "x", c, "_block", i);
      x = block(b, u, skips.join(b, x), e.emb, d.width * u.channel_mult[level],
                d.attention(number, i == d.blocks - 1 && contains(u.attn_resolutions, r)));
    }
    if (level == 0 || u.decoder_type == auxiliary_path::skip) {
      if (out.id >= 0)
        out = b.resample(out, {u.resample_filter}, true);
      feature head{};
      {
        const auto layer = b.scope(r, "x", c, "_aux_norm");
        head = b.silu(norm(b, u, x, ""));
      }
      const auto layer = b.scope(r, "x", c, "_aux_conv");
      head = b.conv(head, u.channels, "", {}, {zero});
      out = out.id >= 0 ? b.add(head, out) : head;
    }
  }
  return out;
}

}  // namespace multistage
