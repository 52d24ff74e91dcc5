// The autoencoders of latent diffusion (Rombach et al., arXiv 2112.10752; Esser, Rombach,
// Ommer, arXiv 2012.09841): a convolutional encoder and decoder around a latent image that is
// either quantised to a codebook (VQ) or a diagonal Gaussian (KL). Two descriptions, one for
// each direction: what lies between them is in diffusion/latent.hpp.
#pragma once
#include "record.hpp"

namespace multistage {

enum class latent_kind { vq, kl };

/// Configuration; lists end at their first zero. Sizes in pixels of the image, and channels.
struct autoencoder {
  latent_kind kind = latent_kind::vq;
  int resolution = 256;
  int channels = 3;
  int columns = 0;  ///< of images that are not square; 0: as many as rows (resolution)
  int encoder_channels = 128;
  std::array<int, 8> channel_mult{1, 2, 4};
  int num_blocks = 2;                     ///< residual blocks a level; the decoder has one more
  std::array<int, 8> attn_resolutions{};  ///< where blocks attend, beside the middle
  int z_channels = 3;  ///< channels of the latent image between the convolutional networks
  int embed_dim = 3;   ///< channels of what is quantised or sampled
  int n_embed = 8192;  ///< codes of the codebook (VQ)
  int norm_groups = 32;
  double commitment_beta = 0.25;  ///< weight of |sg(zq) - z|^2 (VQ)
  double kl_weight = 1e-6;        ///< weight of the divergence from a standard normal (KL)
  double dropout = 0;

  constexpr int depth() const {
    return length(channel_mult);
  }
  constexpr int width() const {
    return columns > 0 ? columns : resolution;
  }
  /// Extents of the latent image.
  constexpr int latent_height() const {
    return resolution >> (depth() - 1);
  }
  constexpr int latent_width() const {
    return width() >> (depth() - 1);
  }
};

namespace autoencoding {

inline constexpr layer_init plain{initialization::kaiming_uniform, 0.57735026918962576,
                                  0.57735026918962576};
inline constexpr ops::resample_filter halves{{1, 1}, -1, 2, ops::filter_cost::none};

template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& b,
                                       const autoencoder& a,
                                       feature x,
                                       std::string_view name) {
  return b.group_norm(x, a.norm_groups, 1e-6, name);
}

template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& b, const autoencoder& a, feature x, int out) {
  feature h = b.conv(b.silu(norm(b, a, x, "norm1")), out, "conv1", {}, {plain});
  h = b.conv(b.dropout(b.silu(norm(b, a, h, "norm2")), a.dropout), out, "conv2", {}, {plain});
  return b.add(h, x.channels != out ? b.conv(x, out, "nin_shortcut", {1, 1, 0}, {plain}) : x);
}

template <class Builder>
MULTISTAGE_COLD constexpr feature attention(Builder& b, const autoencoder& a, feature x) {
  const feature h = norm(b, a, x, "norm");
  const auto one = [&](std::string_view name) {
    return b.conv(h, x.channels, name, {1, 1, 0}, {plain});
  };
  const feature q = one("q");
  const feature k = one("k");
  const feature v = one("v");
  return b.add(b.conv(b.attention(q, k, v, 1), x.channels, "proj_out", {1, 1, 0}, {plain}), x);
}

template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& b, const autoencoder& a, feature x) {
  {
    const auto layer = b.scope("mid.block_1");
    x = block(b, a, x, x.channels);
  }
  {
    const auto layer = b.scope("mid.attn_1");
    x = attention(b, a, x);
  }
  const auto layer = b.scope("mid.block_2");
  return block(b, a, x, x.channels);
}

/// Block i of a level, and its attention.
template <class Builder>
MULTISTAGE_COLD constexpr feature level_block(Builder& b,
                                              const autoencoder& a,
                                              std::string_view way,
                                              int level,
                                              int i,
                                              feature x) {
  {
    const auto layer = b.scope(way, level, ".block.", i);
    x = block(b, a, x, a.encoder_channels * a.channel_mult[level]);
  }
  if (!contains(a.attn_resolutions, a.resolution >> level))
    return x;
  const auto layer = b.scope(way, level, ".attn.", i);
  return attention(b, a, x);
}

}  // namespace autoencoding

/// Image to latent image: [embed_dim, ...] (VQ, before quantisation) or [2 embed_dim, ...] (KL:
/// means, then log variances).
template <class Builder>
MULTISTAGE_COLD constexpr void describe_encoder(Builder& b, const autoencoder& a) {
  using namespace autoencoding;
  const int moments = a.kind == latent_kind::kl ? 2 : 1;
  b.segment(1);
  feature x = b.input(input_slot::image, a.channels, a.resolution, a.width());
  {
    const auto encoder = b.scope("encoder");
    x = b.conv(x, a.encoder_channels, "conv_in", {}, {plain});
    for (int level = 0; level < a.depth(); ++level) {
      for (int i = 0; i < a.num_blocks; ++i)
        x = level_block(b, a, "down.", level, i, x);
      if (level == a.depth() - 1)
        break;
      const auto layer = b.scope("down.", level, ".downsample");
      x = b.conv(x, x.channels, "conv", {3, 2, 0, 1}, {plain});
    }
    x = b.conv(b.silu(norm(b, a, middle(b, a, x), "norm_out")), moments * a.z_channels,
               "conv_out", {}, {plain});
  }
  b.output(b.conv(x, moments * a.embed_dim, "quant_conv", {1, 1, 0}, {plain}));
}

/// Latent image [embed_dim, ...] to image.
template <class Builder>
MULTISTAGE_COLD constexpr void describe_decoder(Builder& b, const autoencoder& a) {
  using namespace autoencoding;
  b.segment(1);
  feature x = b.input(input_slot::image, a.embed_dim, a.latent_height(), a.latent_width());
  x = b.conv(x, a.z_channels, "post_quant_conv", {1, 1, 0}, {plain});
  const auto decoder = b.scope("decoder");
  x = b.conv(x, a.encoder_channels * a.channel_mult[a.depth() - 1], "conv_in", {}, {plain});
  x = middle(b, a, x);
  for (int level = a.depth() - 1; level >= 0; --level) {
    for (int i = 0; i <= a.num_blocks; ++i)
      x = level_block(b, a, "up.", level, i, x);
    if (level == 0)
      break;
    const auto layer = b.scope("up.", level, ".upsample");
    x = b.conv(b.resample(x, halves, true), x.channels, "conv", {}, {plain});
  }
  b.output(b.conv(b.silu(norm(b, a, x, "norm_out")), a.channels, "conv_out", {}, {plain}));
}

/// @throws value_error naming the setting that does not fit.
inline void check_settings(const autoencoder& a) {
  using detail::check_setting;
  constexpr int most = 1 << 16;
  require<value_error>(a.depth() >= 1,
                       "autoencoder: channel_mult is empty; give one multiplier a level");
  for (int i = 0; i < a.depth(); ++i)
    check_setting("channel_mult", a.channel_mult[i], 1, 256);
  check_setting("resolution", a.resolution, 1, most);
  check_setting("columns", a.width(), 1, most);
  check_setting("channels", a.channels, 1, most);
  check_setting("encoder_channels", a.encoder_channels, 1, most);
  check_setting("z_channels", a.z_channels, 1, most);
  check_setting("embed_dim", a.embed_dim, 1, most);
  check_setting("norm_groups", a.norm_groups, 1, most);
  check_setting("num_blocks", a.num_blocks, 0, 255);
  check_setting("n_embed", a.n_embed, a.kind == latent_kind::vq ? 1 : 0, 1 << 20);
  require<value_error>(a.dropout >= 0 && a.dropout < 1, "autoencoder: dropout = ", a.dropout,
                       " is outside [0, 1)");
  require<value_error>(a.commitment_beta >= 0 && a.kl_weight >= 0,
                       "autoencoder: commitment_beta ", a.commitment_beta, " and kl_weight ",
                       a.kl_weight, " must not be negative");
  for (int extent : {a.resolution, a.width()})
    require<value_error>(extent % (1 << (a.depth() - 1)) == 0, "autoencoder: ", extent,
                         " pixels are not divisible by ", 1 << (a.depth() - 1), ", as its ",
                         a.depth(), " levels (channel_mult) need");
}

}  // namespace multistage
