// ADM's U-Net as EDM trains it (Dhariwal and Nichol, arXiv 2105.05233; Karras et al., arXiv
// 2206.00364): modulation by [scale, shift], attention with 64 channels a head, no scaling of
// skips, resampling on the identity path.
//
//   constexpr adm_unet net{.resolution = 64, .label_dim = 1000};
//   using model = multi_decoder<net, decoders{192, 128, 64}, edm_schedule>;
#pragma once
#include "arrangement.hpp"
#include "edm_mapping.hpp"

namespace multistage {

/// Settings of the network; lists end at their first zero. What each means, its name in files
/// and its range: `fields`.
struct adm_unet {
  int resolution = 64;         ///< rows of the images, in pixels
  int channels = 3;            ///< of the images
  int columns = 0;             ///< of the images; 0: as many as rows
  int encoder_channels = 192;  ///< width of the shared encoder at its first level
  std::array<int, 8> channel_mult{1, 2, 3, 4};  ///< decoders: in their own width
  int num_blocks = 3;                           ///< decoders have one more
  std::array<int, 8> attn_resolutions{32, 16, 8};
  int channel_mult_emb = 4;
  int channels_per_head = 64;
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
    visit(option{"attn_resolutions", "rows of the levels that attend",
                 between(1, most_of_a_size)},
          self.attn_resolutions);
    visit(option{"channel_mult_emb", "width of what blocks are told", between(1, 256)},
          self.channel_mult_emb);
    visit(option{"augment_dim", "augmentation labels; 0: none", between(0, 1 << 20)},
          self.augment_dim);
    visit(option{"channels_per_head", "of attention", between(1, most_of_a_size)},
          self.channels_per_head);
  }
};

/// How settings must go together. @throws value_error
inline void check_rules(const adm_unet& net) {
  check_denoiser_rules(net);
}

/// The parts of the figure.
namespace adm {

/// Group norm over groups of at least four channels. @param modulation [scale, shift]
template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& build,
                                       const adm_unet& net,
                                       feature x,
                                       std::string_view name,
                                       feature modulation = {}) {
  return build.group_norm(x, groups_for(x.channels, net.norm_groups), 1e-5, name, modulation);
}

/// Attention over heads of channels_per_head channels, and its residual.
template <class Builder>
MULTISTAGE_COLD constexpr feature attend(Builder& build, const adm_unet& net, feature x) {
  constexpr ops::conv_window each_pixel{1, 1, 0};
  const int heads = x.channels / net.channels_per_head;
  const layer_options to_qkv{initial::kaiming, true, qkv_order::interleaved, heads};
  feature h = norm(build, net, x, "norm2");
  h = build.conv(h, 3 * x.channels, "qkv", each_pixel, to_qkv);
  h = build.attention(h, heads);
  h = build.conv(h, x.channels, "proj", each_pixel, {initial::zero});
  return build.add(h, x);
}

/// A residual block whose second norm is modulated by `emb`; it may resample, and attend
/// behind: h = conv1(silu(modulated norm1(conv0(silu(norm0(x)))))), skip(x) + h.
/// @param x [channels, h, w]. @param emb what blocks are told, [channels].
/// @param out channels of the result. @param how the way to another level: the result is
/// [out, h / 2, w / 2] or [out, 2 h, 2 w] then.
/// @param attends whether attention follows.
template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& build,
                                        const adm_unet& net,
                                        feature x,
                                        feature emb,
                                        int out,
                                        bool attends,
                                        resampling how = resampling::none) {
  const auto moved = [&](feature f) {
    return how == resampling::none ? f : build.resample(f, {}, how == resampling::up);
  };
  feature h = build.silu(norm(build, net, x, "norm0"));
  h = build.conv(moved(h), out, "conv0", {}, {initial::kaiming});
  const feature modulation = build.linear(emb, 2 * out, "affine", {initial::kaiming});
  h = build.silu(norm(build, net, h, "norm1", modulation));
  h = build.dropout(h, net.dropout);
  h = build.conv(h, out, "conv1", {}, {initial::zero});
  feature skip = moved(x);
  if (x.channels != out)
    skip = build.conv(skip, out, "skip", {1, 1, 0}, {initial::kaiming});
  h = build.add(h, skip);
  return attends ? attend(build, net, h) : h;
}

/// The two blocks at the deepest level, between encoder and decoders; the first attends.
template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& build,
                                         const adm_unet& net,
                                         feature x,
                                         feature emb) {
  for (int i = 0; i < 2; ++i) {
    const auto layer = build.scope(x.height, "x", x.width, "_in", i);
    x = block(build, net, x, emb, x.channels, i == 0);
  }
  return x;
}

}  // namespace adm

/// The encoder, with the mapping of the noise level, labels and augmentations. Names are those
/// of upstream's modules: "model.enc.64x64_block0.conv0.weight".
template <class Builder>
MULTISTAGE_COLD constexpr encoded encode(Builder& build, const adm_unet& net, bool) {
  using namespace adm;
  const auto model = build.scope("model");
  constexpr ops::embedding_form form{.sine_first = false, .endpoint = false};
  const feature c_noise = build.input(input_slot::noise_level, 1);
  const feature level_of_noise = build.embedding(c_noise, net.encoder_channels, form);
  const feature emb =
      edm_mapping(build, net, level_of_noise, initial::kaiming, label_place::behind_layers);

  const auto names = build.scope("enc");
  // Downwards: at each level one layer that enters it, then its blocks; all outputs are skips.
  feature x = build.input(input_slot::image, net.channels, net.resolution, net.width());
  constant_vector<feature> skips;
  for (int level = 0; level < net.depth(); ++level) {
    const int rows = net.resolution >> level;
    const int columns = net.width() >> level;
    const int out = net.encoder_channels * net.channel_mult[level];
    const bool attends = contains(net.attn_resolutions, rows);
    if (level == 0) {
      const auto layer = build.scope(rows, "x", columns, "_conv");
      x = build.conv(x, out, "", {}, {initial::kaiming});
    } else {
      const auto layer = build.scope(rows, "x", columns, "_down");
      x = block(build, net, x, emb, x.channels, false, resampling::down);
    }
    skips.push_back(x);
    for (int i = 0; i < net.num_blocks; ++i) {
      const auto layer = build.scope(rows, "x", columns, "_block", i);
      x = block(build, net, x, emb, out, attends);
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
                                         const adm_unet& net,
                                         const decoder_spec& spec,
                                         encoded enc) {
  using namespace adm;
  // Upwards: the middle or the way up from the level below, then the level's blocks.
  feature x = enc.x;
  {
    const auto names =
        spec.alone ? build.scope("model.dec") : build.scope("model.decs.", spec.stage);
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
      const bool usual = contains(net.attn_resolutions, rows);
      level_skips<Builder> skips(enc.skips, net.num_blocks + 1);
      for (int i = 0; i < spec.blocks; ++i, ++number) {
        const auto layer = build.scope(rows, "x", columns, "_block", i);
        x = skips.join(build, x);
        x = block(build, net, x, enc.emb, channels, spec.attention(number, usual));
      }
    }
  }
  const auto outs = spec.alone ? build.scope("model") : build.scope("model.outs.", spec.stage);
  x = build.silu(norm(build, net, x, "out_norm"));
  return build.conv(x, net.channels, "out_conv", {}, {initial::zero});
}

}  // namespace multistage
