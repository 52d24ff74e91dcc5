// EDM's SongUNet: DDPM++ and NCSN++ (Karras, Aittala, Aila, Laine, arXiv 2206.00364, table 8;
// Song et al., arXiv 2011.13456), with a decoder for each stage (arXiv 2312.09181). The code
// below is the figure: encoder levels downwards, every output pushed on the stack of skips;
// decoder levels upwards, every block reading [x, popped skip].
//
//   embedding of the noise level -> mapping -> what each block is told (edm_mapping.hpp)
//   image -> conv -> levels: blocks, attention where attn_resolutions has the level, down
//         -> middle -> levels: one block more than on the way down, up -> norm, silu, conv -> F
//
// The preconditioning around it (diffusion/preconditioning.hpp) makes a denoiser of F.
#pragma once
#include "arrangement.hpp"
#include "edm_mapping.hpp"

namespace multistage {

/// Settings of the network; lists end at their first zero. What each means, its name in files
/// and its range: `fields`.
struct song_unet {
  int resolution = 32;                       ///< rows of the images, in pixels
  int channels = 3;                          ///< of the images
  int columns = 0;                           ///< of the images; 0: as many as rows
  int encoder_channels = 128;                ///< width of the shared encoder at its first level
  std::array<int, 8> channel_mult{2, 2, 2};  ///< decoders: in their own width
  int num_blocks = 4;                        ///< decoders have one more
  std::array<int, 8> attn_resolutions{16};
  int channel_mult_noise = 1;
  int channel_mult_emb = 4;
  bool fourier = false;  ///< NCSN++'s embedding; else positional
  auxiliary_path encoder_type = auxiliary_path::standard;
  auxiliary_path decoder_type = auxiliary_path::standard;  ///< standard or skip
  std::array<int, 8> resample_filter{1, 1};
  int norm_groups = 32;  ///< at most, and at least four channels a group
  int label_dim = 0;     ///< classes; 0 without labels
  int augment_dim = 0;
  double dropout = 0;          ///< before a block's second convolution
  bool shared_middle = false;  ///< whether the middle blocks belong to all stages

  /// Levels of resolution.
  constexpr int depth() const {
    return length(channel_mult);
  }
  /// Columns of the images.
  constexpr int width() const {
    return columns > 0 ? columns : resolution;
  }
  /// Names every setting (core/options.hpp).
  template <class Self, class Visit>
  static constexpr void fields(Self& self, Visit&& visit) {
    denoiser_settings(self, visit);
    visit(option{"attn_resolutions",
                 "rows of the levels that attend (decoders: in their last block)",
                 between(1, most_of_a_size)},
          self.attn_resolutions);
    visit(option{"channel_mult_noise", "width of the noise level's embedding", between(1, 256)},
          self.channel_mult_noise);
    visit(option{"channel_mult_emb", "width of what blocks are told", between(1, 256)},
          self.channel_mult_emb);
    visit(option{"augment_dim", "augmentation labels; 0: none", between(0, 1 << 20)},
          self.augment_dim);
    visit(option{"embedding", "of the noise level", {}, {"positional", "fourier"}},
          self.fourier);
    visit(option{"encoder_type", "how the image goes along the encoder"}, self.encoder_type);
    visit(option{"decoder_type", "how pictures go along the decoder", {}, {"standard", "skip"}},
          self.decoder_type);
    visit(option{"resample_filter", "taps of the filter that resamples"}, self.resample_filter);
  }
};

/// How settings must go together. @throws value_error
inline void check_rules(const song_unet& net) {
  check_denoiser_rules(net);
}

/// The parts of the figure.
namespace song {

/// Group norm over groups of at least four channels.
template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& build,
                                       const song_unet& net,
                                       feature x,
                                       std::string_view name) {
  return build.group_norm(x, groups_for(x.channels, net.norm_groups), 1e-6, name);
}

/// Attention with one head, and its residual. Each pixel of x [channels, h, w] looks at all.
template <class Builder>
MULTISTAGE_COLD constexpr feature attend(Builder& build, const song_unet& net, feature x) {
  constexpr layer_init small{initialization::xavier_uniform, 0.44721359549995793};
  constexpr ops::conv_window each_pixel{1, 1, 0};
  constexpr layer_options to_qkv{small, true, qkv_order::interleaved};
  feature h = norm(build, net, x, "norm2");
  h = build.conv(h, 3 * x.channels, "qkv", each_pixel, to_qkv);
  h = build.attention(h, 1);
  h = build.conv(h, x.channels, "proj", each_pixel, {initial::nearly_zero});
  return build.scale(build.add(h, x), sqrt_half);
}

/// A residual block that is told `emb`; it may resample, and attend behind:
///   h = conv1(silu(norm1(conv0(silu(norm0(x))) + affine(emb)))),   (skip(x) + h) sqrt(1/2).
/// @param x [channels, h, w]. @param emb what blocks are told, [channels].
/// @param out channels of the result. @param how the way to another level: the result is
/// [out, h / 2, w / 2] or [out, 2 h, 2 w] then.
/// @param attends whether attention follows.
template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& build,
                                        const song_unet& net,
                                        feature x,
                                        feature emb,
                                        int out,
                                        bool attends,
                                        resampling how = resampling::none) {
  const auto moved = [&](feature f) {
    if (how == resampling::none)
      return f;
    return build.resample(f, {net.resample_filter}, how == resampling::up);
  };
  feature h = build.silu(norm(build, net, x, "norm0"));
  h = build.conv(moved(h), out, "conv0", {}, {initial::xavier});
  h = build.add_row(h, build.linear(emb, out, "affine", {initial::xavier}));
  h = build.silu(norm(build, net, h, "norm1"));
  h = build.dropout(h, net.dropout);
  h = build.conv(h, out, "conv1", {}, {initial::nearly_zero});
  feature skip = x;
  if (x.channels != out || how != resampling::none)
    skip = build.conv(moved(x), out, "skip", {1, 1, 0}, {initial::xavier});
  h = build.scale(build.add(h, skip), sqrt_half);
  return attends ? attend(build, net, h) : h;
}

/// The two blocks at the deepest level, between encoder and decoders; the first attends.
template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& build,
                                         const song_unet& net,
                                         feature x,
                                         feature emb) {
  for (int i = 0; i < 2; ++i) {
    const auto layer = build.scope(x.height, "x", x.width, "_in", i);
    x = block(build, net, x, emb, x.channels, i == 0);
  }
  return x;
}

/// The encoder's auxiliary path at a level below the first: the image (`aux`), resampled as the
/// features are, joins x. @param aux [3 or channels, 2 h, 2 w] before, like x after.
template <class Builder>
MULTISTAGE_COLD constexpr feature join_image(Builder& build,
                                             const song_unet& net,
                                             feature x,
                                             feature& aux) {
  const ops::resample_filter filter{net.resample_filter};
  if (net.encoder_type == auxiliary_path::skip) {
    aux = build.resample(aux, filter, false);
    const auto layer = build.scope(x.height, "x", x.width, "_aux_skip");
    const feature seen = build.conv(aux, x.channels, "", {1, 1, 0}, {initial::xavier});
    return build.add(x, seen);
  }
  // Upstream adds the bias behind the filter; the filter's taps all lie inside and sum to 1, so
  // it may stand here.
  const auto layer = build.scope(x.height, "x", x.width, "_aux_residual");
  aux = build.conv(aux, x.channels, "", {3, 1, 1 + filter.pad()}, {initial::xavier});
  aux = build.resample(aux, {net.resample_filter, 0}, false);
  aux = build.scale(build.add(aux, x), sqrt_half);
  return aux;
}

/// The picture [channels of the image, rows, columns] that a decoder's level gives.
template <class Builder>
MULTISTAGE_COLD constexpr feature picture(Builder& build,
                                          const song_unet& net,
                                          feature x,
                                          int rows,
                                          int columns) {
  feature head{};
  {
    const auto layer = build.scope(rows, "x", columns, "_aux_norm");
    head = build.silu(norm(build, net, x, ""));
  }
  const auto layer = build.scope(rows, "x", columns, "_aux_conv");
  return build.conv(head, net.channels, "", {}, {initial::nearly_zero});
}

}  // namespace song

/// The encoder, with the mapping of the noise level, labels and augmentations. Names are those
/// of upstream's modules: "model.enc.32x32_block0.conv0.weight".
template <class Builder>
MULTISTAGE_COLD constexpr encoded encode(Builder& build, const song_unet& net, bool) {
  using namespace song;
  const auto model = build.scope("model");
  const int width = net.encoder_channels * net.channel_mult_noise;
  const char* const frequencies = net.fourier ? "map_noise.freqs" : "";
  const feature c_noise = build.input(input_slot::noise_level, 1);
  const feature level_of_noise = build.embedding(c_noise, width, {}, frequencies);
  const feature emb =
      edm_mapping(build, net, level_of_noise, initial::xavier, label_place::before_layers);

  const auto names = build.scope("enc");
  // Downwards: at each level one layer that enters it, then its blocks; all outputs are skips.
  feature x = build.input(input_slot::image, net.channels, net.resolution, net.width());
  feature aux = x;
  constant_vector<feature> skips;
  for (int level = 0; level < net.depth(); ++level) {
    const int rows = net.resolution >> level;
    const int columns = net.width() >> level;
    const int channels = net.encoder_channels * net.channel_mult[level];
    const bool attends = contains(net.attn_resolutions, rows);
    if (level == 0) {
      const auto layer = build.scope(rows, "x", columns, "_conv");
      x = build.conv(x, net.encoder_channels, "", {}, {initial::xavier});
    } else {
      const auto layer = build.scope(rows, "x", columns, "_down");
      x = block(build, net, x, emb, x.channels, false, resampling::down);
    }
    if (level > 0 && net.encoder_type != auxiliary_path::standard)
      x = join_image(build, net, x, aux);
    skips.push_back(x);
    for (int i = 0; i < net.num_blocks; ++i) {
      const auto layer = build.scope(rows, "x", columns, "_block", i);
      x = block(build, net, x, emb, channels, attends);
      skips.push_back(x);
    }
  }
  if (net.shared_middle)
    x = middle(build, net, x, emb);
  return {x, emb, skips};
}

/// One stage's decoder; returns F, [channels, resolution, width].
template <class Builder>
MULTISTAGE_COLD constexpr feature decode(Builder& build,
                                         const song_unet& net,
                                         const decoder_spec& spec,
                                         encoded enc) {
  using namespace song;
  const auto names =
      spec.alone ? build.scope("model.dec") : build.scope("model.decs.", spec.stage);
  // Upwards: the middle or the way up from the level below, then the level's blocks.
  feature x = enc.x;
  feature out{};
  int number = 0;
  for (int level = net.depth() - 1; level >= 0; --level) {
    const int rows = net.resolution >> level;
    const int columns = net.width() >> level;
    if (level == net.depth() - 1) {
      if (!net.shared_middle)
        x = middle(build, net, x, enc.emb);
    } else {
      const auto layer = build.scope(rows, "x", columns, "_up");
      x = block(build, net, x, enc.emb, x.channels, false, resampling::up);
    }
    // Blocks read the skips of their level, the last one first.
    const int channels = spec.width * net.channel_mult[level];
    level_skips<Builder> skips(enc.skips, net.num_blocks + 1);
    for (int i = 0; i < spec.blocks; ++i, ++number) {
      const auto layer = build.scope(rows, "x", columns, "_block", i);
      const bool usual = i == spec.blocks - 1 && contains(net.attn_resolutions, rows);
      x = skips.join(build, x);
      x = block(build, net, x, enc.emb, channels, spec.attention(number, usual));
    }
    // A picture at the end; with decoder_type skip at every level, summed upwards.
    if (level > 0 && net.decoder_type != auxiliary_path::skip)
      continue;
    const bool first = out.id < 0;
    if (!first)
      out = build.resample(out, {net.resample_filter}, true);
    const feature head = picture(build, net, x, rows, columns);
    out = first ? head : build.add(head, out);
  }
  return out;
}

}  // namespace multistage
