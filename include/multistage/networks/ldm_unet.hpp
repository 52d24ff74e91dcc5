// The U-Net of latent diffusion (Rombach, Blattmann, Lorenz, Esser, Ommer, arXiv 2112.10752;
// Dhariwal and Nichol, arXiv 2105.05233), with a decoder for each stage (arXiv 2312.09181).
// Residual blocks, attention behind them where the level's downsampling factor asks for it:
// self-attention, or transformer blocks that look at a context.
//
//   constexpr ldm_unet net{.resolution = 64, .channels = 3, .attn_downsample = {4, 2}};
//   using model = multi_decoder<net, decoders{256, 192, 128}, ddpm_schedule>;
#pragma once
#include "arrangement.hpp"
#include "parts.hpp"

namespace multistage {

/// Settings of the network; lists end at their first zero, sizes are those of latent images.
/// What each means, its name in files and its range: `fields`.
struct ldm_unet {
  int resolution = 64;         ///< rows of the latent images
  int channels = 3;            ///< of the latent images
  int columns = 0;             ///< of the latent images; 0: as many as rows
  int encoder_channels = 224;  ///< width of the shared encoder at its first level
  std::array<int, 8> channel_mult{1, 2, 3, 4};  ///< decoders: in their own width
  int num_blocks = 2;                           ///< decoders have one more
  std::array<int, 8> attn_downsample{8, 4, 2};
  int num_head_channels = 32;
  int num_heads = 1;
  int norm_groups = 32;  ///< of every group norm
  bool spatial_transformer = false;
  int context_dim = 0;
  int context_tokens = 1;
  int transformer_depth = 1;
  bool scale_shift_norm = false;
  bool resblock_updown = false;
  int label_dim = 0;  ///< classes; 0 without labels
  bool class_context = false;
  double dropout = 0;      ///< before a block's second convolution
  double norm_eps = 1e-5;  ///< a transformer's own group norm has 1e-6
  bool flip_sin_to_cos = true;
  int freq_shift = 0;
  int downsample_padding = 1;
  bool shared_middle = true;  ///< whether the middle blocks belong to all stages

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
    visit(option{"attn_downsample", "factors (1, 2, 4, ...) of the levels that attend"},
          self.attn_downsample);
    visit(option{"num_head_channels", "channels of a head; 0: num_heads heads",
                 between(0, most_of_a_size)},
          self.num_head_channels);
    visit(option{"num_heads", "where num_head_channels is 0", between(1, most_of_a_size)},
          self.num_heads);
    visit(option{"spatial_transformer", "whether levels attend by transformers"},
          self.spatial_transformer);
    visit(option{"context_dim", "channels of the context's tokens; 0: no context",
                 between(0, most_of_a_size)},
          self.context_dim);
    visit(option{"context_tokens", "of the context", between(1, most_of_a_size)},
          self.context_tokens);
    visit(option{"transformer_depth", "transformer blocks in a row", between(0, 64)},
          self.transformer_depth);
    visit(option{"scale_shift_norm",
                 "whether the embedding modulates the second norm; else it is added before"},
          self.scale_shift_norm);
    visit(option{"resblock_updown",
                 "whether residual blocks resample; else convolutions between them"},
          self.resblock_updown);
    visit(option{"class_context",
                 "whether classes become the context; else they join the embedding"},
          self.class_context);
    visit(option{"norm_eps", "of the group norms", between(1e-12, 1)}, self.norm_eps);
    visit(option{"flip_sin_to_cos", "whether t's embedding is [cos, sin]; DDPM: [sin, cos]"},
          self.flip_sin_to_cos);
    visit(option{"freq_shift", "its frequencies are 10000^(-j / (half its width - freq_shift))",
                 between(0, 1)},
          self.freq_shift);
    visit(option{"downsample_padding", "1; DDPM: 0, zeros behind the last row and column only",
                 between(0, 1)},
          self.downsample_padding);
  }
};

/// How settings must go together. @throws value_error
MULTISTAGE_COLD inline void check_rules(const ldm_unet& net) {
  check_denoiser_rules(net);
  require<value_error>(!net.spatial_transformer || net.transformer_depth >= 1,
                       "network: transformer_depth = ", net.transformer_depth,
                       " with spatial_transformer; at least 1 is needed");
  const bool one_token = net.context_dim >= 1 && net.context_tokens == 1;
  require<value_error>(
      !net.class_context || (one_token && net.label_dim >= 1),
      "network: class_context with context_dim = ", net.context_dim,
      ", context_tokens = ", net.context_tokens, ", label_dim = ", net.label_dim,
      "; classes that become the context are label_dim >= 1 of them, one token of context_dim "
      ">= 1");
  require<value_error>(net.context_dim == 0 || net.spatial_transformer,
                       "network: context_dim = ", net.context_dim,
                       " without spatial_transformer, which alone looks at a context");
}

/// The parts of the figure.
namespace ldm {

/// A 1 x 1 convolution: each pixel by itself.
inline constexpr ops::conv_window each_pixel{1, 1, 0};

/// Group norm over norm_groups groups. @param modulation [scale, shift]
template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& build,
                                       const ldm_unet& net,
                                       feature x,
                                       std::string_view name,
                                       feature modulation = {}) {
  return build.group_norm(x, net.norm_groups, net.norm_eps, name, modulation);
}

/// A residual block that is told `emb`, by addition or by modulation of its second norm; it may
/// resample. @param emb SiLU of the embedding.
/// @param x [channels, h, w]. @param out channels of the result. @param how the way to another
/// level: the result is [out, h / 2, w / 2] or [out, 2 h, 2 w] then
template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& build,
                                        const ldm_unet& net,
                                        feature x,
                                        feature emb,
                                        int out,
                                        resampling how = resampling::none) {
  const auto moved = [&](feature f) {
    if (how == resampling::none)
      return f;
    return build.resample(f, mean_and_nearest, how == resampling::up);
  };
  feature h = build.silu(norm(build, net, x, "in_layers.0"));
  h = build.conv(moved(h), out, "in_layers.2", {}, {initial::kaiming});
  // What the block is told: a row that is added, or scale and shift of the second norm.
  const bool modulates = net.scale_shift_norm;
  const int told = modulates ? 2 * out : out;
  const feature row = build.linear(emb, told, "emb_layers.1", {initial::kaiming});
  if (!modulates)
    h = build.add_row(h, row);
  h = build.silu(norm(build, net, h, "out_layers.0", modulates ? row : feature{}));
  h = build.dropout(h, net.dropout);
  h = build.conv(h, out, "out_layers.3", {}, {initial::zero});
  feature skip = moved(x);
  if (x.channels != out)
    skip = build.conv(skip, out, "skip_connection", each_pixel, {initial::kaiming});
  return build.add(h, skip);
}

/// Heads that attend over so many channels.
constexpr int heads(const ldm_unet& net, int channels) {
  return net.num_head_channels > 0 ? channels / net.num_head_channels : net.num_heads;
}

/// Attention of the pixels of x [channels, h, w] to each other, and its residual. Queries, keys
/// and values of a head lie together, as upstream has them.
template <class Builder>
MULTISTAGE_COLD constexpr feature self_attention(Builder& build,
                                                 const ldm_unet& net,
                                                 feature x) {
  const int n = heads(net, x.channels);
  const layer_options to_heads{
      .init = initial::kaiming,
      .qkv = qkv_order::by_head,
      .heads = n,
      .layout = parameter_layout::conv_oi1,
  };
  const layer_options from_heads{
      .init = initial::zero,
      .layout = parameter_layout::conv_oi1,
  };
  feature h = norm(build, net, x, "norm");
  h = build.conv(h, 3 * x.channels, "qkv", each_pixel, to_heads);
  h = build.attention(h, n);
  h = build.conv(h, x.channels, "proj_out", each_pixel, from_heads);
  return build.add(h, x);
}

/// y = to_out(attention of x to `to`) without the residual.
template <class Builder>
MULTISTAGE_COLD constexpr feature cross_attention(Builder& build,
                                                  const ldm_unet& net,
                                                  feature x,
                                                  feature to,
                                                  std::string_view name) {
  const auto layer = build.scope(name);
  const layer_options bare{.init = initial::kaiming, .bias = false};
  const feature q = build.linear(x, x.channels, "to_q", bare);
  const feature k = build.linear(to, x.channels, "to_k", bare);
  const feature v = build.linear(to, x.channels, "to_v", bare);
  const feature mixed = build.attention(q, k, v, heads(net, x.channels));
  return build.linear(mixed, x.channels, "to_out.0", {initial::kaiming});
}

/// Transformer blocks: self-attention, attention to the context (to x without one), and two
/// layers with GEGLU between them, each behind a layer norm and with its residual.
/// @param context [tokens, context_dim], or none
template <class Builder>
MULTISTAGE_COLD constexpr feature transformer(Builder& build,
                                              const ldm_unet& net,
                                              feature x,
                                              feature context) {
  const int channels = x.channels;
  feature h = build.group_norm(x, net.norm_groups, 1e-6, "norm");
  h = build.conv(h, channels, "proj_in", each_pixel, {initial::kaiming});
  for (int i = 0; i < net.transformer_depth; ++i) {
    const auto layer = build.scope("transformer_blocks.", i);
    // Pixels look at each other.
    const feature n1 = build.layer_norm(h, 1e-5, "norm1");
    h = build.add(cross_attention(build, net, n1, n1, "attn1"), h);
    // They look at the context, or at each other again where there is none.
    const feature n2 = build.layer_norm(h, 1e-5, "norm2");
    const feature seen = context.id < 0 ? n2 : context;
    h = build.add(cross_attention(build, net, n2, seen, "attn2"), h);
    // Each pixel by itself, through four times as many channels.
    feature wide = build.layer_norm(h, 1e-5, "norm3");
    wide = build.linear(wide, 8 * channels, "ff.net.0.proj", {initial::kaiming});
    wide = build.geglu(wide);  // [4 channels, h, w]
    h = build.add(build.linear(wide, channels, "ff.net.2", {initial::kaiming}), h);
  }
  h = build.conv(h, channels, "proj_out", each_pixel, {initial::zero});
  return build.add(h, x);
}

/// What a level that attends does behind a block.
template <class Builder>
MULTISTAGE_COLD constexpr feature attention(Builder& build,
                                            const ldm_unet& net,
                                            feature x,
                                            feature context) {
  if (net.spatial_transformer)
    return transformer(build, net, x, context);
  return self_attention(build, net, x);
}

/// Block, attention, block at the deepest level.
template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& build,
                                         const ldm_unet& net,
                                         feature x,
                                         const encoded& enc) {
  for (int i = 0; i < 3; ++i) {
    const auto layer = build.scope(i);
    if (i == 1)
      x = attention(build, net, x, enc.context);
    else
      x = block(build, net, x, enc.emb, x.channels);
  }
  return x;
}

/// The embeddings of the noise level and the classes, and the context, put into `enc`.
template <class Builder>
MULTISTAGE_COLD constexpr void embed(Builder& build, const ldm_unet& net, encoded& enc) {
  const int wide = 4 * net.encoder_channels;
  const ops::embedding_form form{
      .sine_first = !net.flip_sin_to_cos,
      .endpoint = net.freq_shift == 1,
  };
  enc.level = build.input(input_slot::noise_level, 1);
  feature emb = build.embedding(enc.level, net.encoder_channels, form);
  emb = build.silu(build.linear(emb, wide, "time_embed.0", {initial::kaiming}));
  emb = build.linear(emb, wide, "time_embed.2", {initial::kaiming});
  if (net.label_dim > 0) {
    // A table with a row for each class.
    const layer_options table{
        .init = initial::xavier,
        .bias = false,
        .layout = parameter_layout::linear_io,
    };
    const feature label = build.input(input_slot::class_labels, net.label_dim);
    if (net.class_context)
      enc.context = build.linear(label, net.context_dim, "class_embedder.embedding", table);
    else
      emb = build.add(emb, build.linear(label, wide, "label_emb", table));
  }
  if (net.context_dim > 0 && !net.class_context)
    enc.context = build.input(input_slot::context, net.context_dim, net.context_tokens);
  enc.emb = build.silu(emb);
}

}  // namespace ldm

/// The encoder, with the embeddings of noise level and classes.
template <class Builder>
MULTISTAGE_COLD constexpr encoded encode(Builder& build, const ldm_unet& net, bool) {
  using namespace ldm;
  encoded enc;
  embed(build, net, enc);
  const ops::conv_window halving{
      .kernel = 3,
      .stride = 2,
      .padding = net.downsample_padding,
      .padding_end = 1,
  };

  feature x = build.input(input_slot::image, net.channels, net.resolution, net.width());
  // Downwards: blocks are numbered through all levels, a block's parts from 0.
  int number = 0;
  {
    const auto layer = build.scope("input_blocks.", number++, ".0");
    x = build.conv(x, net.encoder_channels, "", {}, {initial::kaiming});
    enc.skips.push_back(x);
  }
  for (int level = 0; level < net.depth(); ++level) {
    const int channels = net.encoder_channels * net.channel_mult[level];
    const bool attends = contains(net.attn_downsample, 1 << level);
    for (int i = 0; i < net.num_blocks; ++i) {
      const auto blocks = build.scope("input_blocks.", number++);
      {
        const auto layer = build.scope(0);
        x = block(build, net, x, enc.emb, channels);
      }
      if (attends) {
        const auto layer = build.scope(1);
        x = attention(build, net, x, enc.context);
      }
      enc.skips.push_back(x);
    }
    if (level == net.depth() - 1)
      break;
    const auto layer = build.scope("input_blocks.", number++, ".0");
    if (net.resblock_updown)
      x = block(build, net, x, enc.emb, x.channels, resampling::down);
    else
      x = build.conv(x, x.channels, "op", halving, {initial::kaiming});
    enc.skips.push_back(x);
  }
  if (net.shared_middle) {
    const auto blocks = build.scope("middle_block");
    x = middle(build, net, x, enc);
  }
  enc.x = x;
  return enc;
}

/// One stage's decoder; returns the predicted noise, [channels, resolution, width].
template <class Builder>
MULTISTAGE_COLD constexpr feature decode(Builder& build,
                                         const ldm_unet& net,
                                         const decoder_spec& spec,
                                         encoded enc) {
  using namespace ldm;
  feature x = enc.x;
  if (!net.shared_middle) {
    const auto blocks =
        spec.alone ? build.scope("middle_block") : build.scope("middle_blocks.", spec.stage);
    x = middle(build, net, x, enc);
  }
  // Upwards: the last block of a level holds the way to the next.
  int number = 0;
  for (int level = net.depth() - 1; level >= 0; --level) {
    const int channels = spec.width * net.channel_mult[level];
    const bool level_attends = contains(net.attn_downsample, 1 << level);
    level_skips<Builder> skips(enc.skips, net.num_blocks + 1);
    for (int i = 0; i < spec.blocks; ++i, ++number) {
      const auto blocks = spec.alone ? build.scope("output_blocks.", number)
                                     : build.scope("de_modules.", spec.stage, ".", number);
      int part = 0;
      {
        const auto layer = build.scope(part++);
        x = skips.join(build, x);
        x = block(build, net, x, enc.emb, channels);
      }
      if (spec.attention(number, level_attends)) {
        const auto layer = build.scope(part++);
        x = attention(build, net, x, enc.context);
      }
      const bool last = i == spec.blocks - 1;
      if (level == 0 || !last)
        continue;
      const auto layer = build.scope(part++);
      if (net.resblock_updown) {
        x = block(build, net, x, enc.emb, x.channels, resampling::up);
      } else {
        x = build.resample(x, mean_and_nearest, true);
        x = build.conv(x, x.channels, "conv", {}, {initial::kaiming});
      }
    }
  }
  const auto out = spec.alone ? build.scope("out") : build.scope("outs.", spec.stage);
  x = build.silu(norm(build, net, x, "0"));
  return build.conv(x, net.channels, "2", {}, {initial::zero});
}

}  // namespace multistage
