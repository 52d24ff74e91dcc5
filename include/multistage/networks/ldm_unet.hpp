// The U-Net of latent diffusion (Rombach, Blattmann, Lorenz, Esser, Ommer, arXiv 2112.10752;
// Dhariwal and Nichol, arXiv 2105.05233), with a decoder for each stage (arXiv 2312.09181).
// Residual blocks, attention behind them where the level's downsampling factor asks for it:
// self-attention, or transformer blocks that look at a context.
#pragma once
#include "arrangement.hpp"

namespace multistage {

/// Configuration; lists end at their first zero. Sizes in pixels of the latent image, and
/// channels.
struct ldm_unet {
  int resolution = 64;
  int channels = 3;
  int columns = 0;  ///< of images that are not square; 0: as many as rows (resolution)
  int encoder_channels = 224;
  std::array<int, 8> channel_mult{1, 2, 3, 4};
  int num_blocks = 2;
  std::array<int, 8> attn_downsample{8, 4,
                                     2};  // factors (1, 2, 4, ...) of the levels that attend
  int num_head_channels = 32;             ///< channels of a head; 0: num_heads heads
  int num_heads = 1;
  int norm_groups = 32;
  bool spatial_transformer = false;
  int context_dim = 0;  ///< channels of the context's tokens; 0: no context
  int context_tokens = 1;
  int transformer_depth = 1;  ///< transformer blocks in a row
  bool scale_shift_norm =
      false;  // the embedding modulates the second norm; else it is added before
  bool resblock_updown = false;  ///< resampling inside residual blocks; else by convolutions
  int label_dim = 0;             ///< number of classes
  bool class_context = false;    ///< classes become the context, one token of context_dim; else
                                 ///< they are added to the embedding
  double dropout = 0;            ///< in training, before a block's second convolution
  double norm_eps = 1e-5;        ///< of the group norms, a transformer's own (1e-6) excepted
  bool flip_sin_to_cos =
      true;  // the embedding of t is [cos, sin]; else [sin, cos], as DDPM has it
  int freq_shift =
      0;  ///< its frequencies are 10000^(-j / (half its width - freq_shift)); 0 or 1
  int downsample_padding = 1;  ///< 0: zeros behind the last row and column only, as DDPM has it
  bool shared_middle = true;

  constexpr int depth() const {
    return length(channel_mult);
  }
  constexpr int width() const {
    return columns > 0 ? columns : resolution;
  }
  template <class F>
  constexpr void for_each_setting(F&& f) const {
    f("num_head_channels", num_head_channels, 0, 1 << 16);
    f("num_heads", num_heads, 1, 1 << 16);
    f("norm_groups", norm_groups, 1, 1 << 16);
    f("context_dim", context_dim, class_context ? 1 : 0, 1 << 16);
    f("context_tokens", context_tokens, 1, class_context ? 1 : 1 << 16);
    f("norm_eps", norm_eps, 1e-12, 1.0);
    f("freq_shift", freq_shift, 0, 1);
    f("downsample_padding", downsample_padding, 0, 1);
    f("transformer_depth", transformer_depth, spatial_transformer ? 1 : 0, 64);
    if (class_context)
      f("label_dim", label_dim, 1, 1 << 20);
    if (context_dim > 0)
      f("spatial_transformer", spatial_transformer, 1, 1);
  }
};

namespace ldm {

inline constexpr layer_init plain{initialization::kaiming_uniform, 0.57735026918962576,
                                  0.57735026918962576};
inline constexpr layer_init zero{initialization::constant, 0};
inline constexpr ops::resample_filter halves{{1, 1}, -1, 2, ops::filter_cost::none};

enum class move { none, down, up };

template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& b,
                                       const ldm_unet& u,
                                       feature x,
                                       std::string_view name,
                                       feature modulation = {}) {
  return b.group_norm(x, u.norm_groups, u.norm_eps, name, modulation);
}

/// @param emb silu of the embedding.
template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& b,
                                        const ldm_unet& u,
                                        feature x,
                                        feature emb,
                                        int out,
                                        move m = move::none) {
  const auto moved = [&](feature f) {
    return m == move::none ? f : b.resample(f, halves, m == move::up);
  };
  feature h =
      b.conv(moved(b.silu(norm(b, u, x, "in_layers.0"))), out, "in_layers.2", {}, {plain});
  const feature row =
      b.linear(emb, u.scale_shift_norm ? 2 * out : out, "emb_layers.1", {plain});
  if (!u.scale_shift_norm)
    h = b.add_row(h, row);
  h = b.silu(norm(b, u, h, "out_layers.0", u.scale_shift_norm ? row : feature{}));
  h = b.conv(b.dropout(h, u.dropout), out, "out_layers.3", {}, {zero});
  const feature skip = moved(x);
  return b.add(
      h, x.channels != out ? b.conv(skip, out, "skip_connection", {1, 1, 0}, {plain}) : skip);
}

constexpr int heads(const ldm_unet& u, int channels) {
  return u.num_head_channels > 0 ? channels / u.num_head_channels : u.num_heads;
}

template <class Builder>
MULTISTAGE_COLD constexpr feature self_attention(Builder& b, const ldm_unet& u, feature x) {
  const int n = heads(u, x.channels);
  const layer_options one{.init = plain,
                          .qkv = qkv_order::by_head,
                          .heads = n,
                          .layout = parameter_layout::conv_oi1};
  const feature qkv = b.conv(norm(b, u, x, "norm"), 3 * x.channels, "qkv", {1, 1, 0}, one);
  return b.add(b.conv(b.attention(qkv, n), x.channels, "proj_out", {1, 1, 0},
                      {.init = zero, .layout = parameter_layout::conv_oi1}),
               x);
}

/// y = to_out(attention of x to `to`) without the residual.
template <class Builder>
MULTISTAGE_COLD constexpr feature cross_attention(Builder& b,
                                                  const ldm_unet& u,
                                                  feature x,
                                                  feature to,
                                                  std::string_view name) {
  const auto layer = b.scope(name);
  const layer_options bare{.init = plain, .bias = false};
  const feature q = b.linear(x, x.channels, "to_q", bare);
  const feature k = b.linear(to, x.channels, "to_k", bare);
  const feature v = b.linear(to, x.channels, "to_v", bare);
  return b.linear(b.attention(q, k, v, heads(u, x.channels)), x.channels, "to_out.0", {plain});
}

template <class Builder>
MULTISTAGE_COLD constexpr feature transformer(Builder& b,
                                              const ldm_unet& u,
                                              feature x,
                                              feature context) {
  feature h = b.conv(b.group_norm(x, u.norm_groups, 1e-6, "norm"), x.channels, "proj_in",
                     {1, 1, 0}, {plain});
  for (int i = 0; i < u.transformer_depth; ++i) {
    const auto layer = b.scope("transformer_blocks.", i);
    const feature n1 = b.layer_norm(h, 1e-5, "norm1");
    h = b.add(cross_attention(b, u, n1, n1, "attn1"), h);
    const feature n2 = b.layer_norm(h, 1e-5, "norm2");
    h = b.add(cross_attention(b, u, n2, context.id < 0 ? n2 : context, "attn2"), h);
    const feature wide = b.geglu(
        b.linear(b.layer_norm(h, 1e-5, "norm3"), 8 * x.channels, "ff.net.0.proj", {plain}));
    h = b.add(b.linear(wide, x.channels, "ff.net.2", {plain}), h);
  }
  return b.add(b.conv(h, x.channels, "proj_out", {1, 1, 0}, {zero}), x);
}

template <class Builder>
MULTISTAGE_COLD constexpr feature attention(Builder& b,
                                            const ldm_unet& u,
                                            feature x,
                                            feature context) {
  return u.spatial_transformer ? transformer(b, u, x, context) : self_attention(b, u, x);
}

template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& b,
                                         const ldm_unet& u,
                                         feature x,
                                         const encoded& e) {
  for (int i = 0; i < 3; ++i) {
    const auto layer = b.scope(i);
    x = i == 1 ? attention(b, u, x, e.context) : block(b, u, x, e.emb, x.channels);
  }
  return x;
}

}  // namespace ldm

template <class Builder>
MULTISTAGE_COLD constexpr encoded encode(Builder& b, const ldm_unet& u, bool) {
  using namespace ldm;
  const int wide = 4 * u.encoder_channels;
  encoded e;
  e.level = b.input(input_slot::noise_level, 1);
  feature emb = b.embedding(e.level, u.encoder_channels,
                            {.sine_first = !u.flip_sin_to_cos, .endpoint = u.freq_shift == 1});
  emb = b.linear(b.silu(b.linear(emb, wide, "time_embed.0", {plain})), wide, "time_embed.2",
                 {plain});
  if (u.label_dim > 0) {  // a table with a row for each class
    const layer_options table{.init = {initialization::xavier_uniform, 1},
                              .bias = false,
                              .layout = parameter_layout::linear_io};
    const feature y = b.input(input_slot::class_labels, u.label_dim);
    if (u.class_context)
      e.context = b.linear(y, u.context_dim, "class_embedder.embedding", table);
    else
      emb = b.add(emb, b.linear(y, wide, "label_emb", table));
  }
  if (u.context_dim > 0 && !u.class_context)
    e.context = b.input(input_slot::context, u.context_dim, u.context_tokens);
  e.emb = b.silu(emb);
  const int before = u.downsample_padding;
  const ops::conv_window halving{.kernel = 3, .stride = 2, .padding = before, .padding_end = 1};

  feature x = b.input(input_slot::image, u.channels, u.resolution, u.width());
  int number = 0;
  {
    const auto layer = b.scope("input_blocks.", number++, ".0");
    x = b.conv(x, u.encoder_channels, "", {}, {plain});
    e.skips.push_back(x);
  }
  for (int level = 0; level < u.depth(); ++level) {
    for (int i = 0; i < u.num_blocks; ++i) {
      const auto blocks = b.scope("input_blocks.", number++);
      {
        const auto layer = b.scope(0);
        x = block(b, u, x, e.emb, u.encoder_channels * u.channel_mult[level]);
      }
      if (contains(u.attn_downsample, 1 << level)) {
        const auto layer = b.scope(1);
        x = attention(b, u, x, e.context);
      }
      e.skips.push_back(x);
    }
    if (level == u.depth() - 1)
      break;
    const auto layer = b.scope("input_blocks.", number++, ".0");
    x = u.resblock_updown ? block(b, u, x, e.emb, x.channels, move::down)
                          : b.conv(x, x.channels, "op", halving, {plain});
    e.skips.push_back(x);
  }
  if (u.shared_middle) {
    const auto blocks = b.scope("middle_block");
    x = middle(b, u, x, e);
  }
  e.x = x;
  return e;
}

/// One stage's decoder; returns the predicted noise, [channels, resolution, width].
template <class Builder>
MULTISTAGE_COLD constexpr feature decode(Builder& b,
                                         const ldm_unet& u,
                                         const decoder_spec& d,
                                         encoded e) {
  using namespace ldm;
  feature x = e.x;
  if (!u.shared_middle) {
    const auto blocks = d.alone ? b.scope("middle_block") : b.scope("middle_blocks.", d.stage);
    x = middle(b, u, x, e);
  }
  int number = 0;
  for (int level = u.depth() - 1; level >= 0; --level) {
    level_skips<Builder> skips(e.skips, u.num_blocks + 1);
    for (int i = 0; i < d.blocks; ++i, ++number) {
      const auto blocks = d.alone ? b.scope("output_blocks.", number)
                                  : b.scope("de_modules.", d.stage, ".", number);
      int part = 0;
      {
        const auto layer = b.scope(part++);
        x = block(b, u, skips.join(b, x), e.emb, d.width * u.channel_mult[level]);
      }
      if (d.attention(number, contains(u.attn_downsample, 1 << level))) {
        const auto layer = b.scope(part++);
        x = attention(b, u, x, e.context);
      }
      if (level > 0 && i == d.blocks - 1) {
        const auto layer = b.scope(part++);
        x = u.resblock_updown
                ? block(b, u, x, e.emb, x.channels, move::up)
                : b.conv(b.resample(x, halves, true), x.channels, "conv", {}, {plain});
      }
    }
  }
  const auto out = d.alone ? b.scope("out") : b.scope("outs.", d.stage);
  return b.conv(b.silu(norm(b, u, x, "0")), u.channels, "2", {}, {zero});
}

}  // namespace multistage
