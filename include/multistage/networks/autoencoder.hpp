// The autoencoders of latent diffusion (Rombach et al., arXiv 2112.10752; Esser, Rombach,
// Ommer, arXiv 2012.09841): a convolutional encoder and decoder around a latent image that is
// either quantised to a codebook (VQ) or a diagonal Gaussian (KL). Two descriptions, one for
// each direction: what lies between them is in diffusion/latent.hpp.
//
//   constexpr autoencoder net{.kind = latent_kind::kl, .resolution = 256, .embed_dim = 4};
//   autoencoder_model<float, cpu> model(cpu(), net, 1);     // diffusion/latent.hpp
#pragma once
#include "parts.hpp"
#include "record.hpp"

namespace multistage {

/// What a latent image is: codes of a codebook, or a sample of a diagonal Gaussian.
enum class latent_kind { vq, kl };
/// Their names in files.
constexpr std::array<const char*, 2> option_names(latent_kind) {
  return {"vq", "kl"};
}

/// Settings of an autoencoder; lists end at their first zero, sizes are those of the image.
/// What each means, its name in files and its range: `fields`.
struct autoencoder {
  latent_kind kind = latent_kind::vq;
  int resolution = 256;                      ///< rows of the images, in pixels
  int channels = 3;                          ///< of the images
  int columns = 0;                           ///< of the images; 0: as many as rows
  int encoder_channels = 128;                ///< width at the first level
  std::array<int, 8> channel_mult{1, 2, 4};  ///< widths of the levels, over that
  int num_blocks = 2;                        ///< the decoder has one more
  std::array<int, 8> attn_resolutions{};
  int z_channels = 3;
  int embed_dim = 3;
  int n_embed = 8192;
  int norm_groups = 32;  ///< of every group norm
  double commitment_beta = 0.25;
  double kl_weight = 1e-6;
  double dropout = 0;  ///< before a block's second convolution

  /// Levels of resolution.
  constexpr int depth() const {
    return length(channel_mult);
  }
  /// Columns of the images.
  constexpr int width() const {
    return columns > 0 ? columns : resolution;
  }
  /// Rows of the latent image.
  constexpr int latent_height() const {
    return resolution >> (depth() - 1);
  }
  /// Columns of the latent image.
  constexpr int latent_width() const {
    return width() >> (depth() - 1);
  }
  /// Names every setting (core/options.hpp).
  template <class Self, class Visit>
  static constexpr void fields(Self& self, Visit&& visit) {
    constexpr number_range size = between(1, most_of_a_size);
    visit(option{"kind", "of latent images"}, self.kind);
    image_settings(self, visit);
    visit(option{"attn_resolutions", "rows of the levels that attend, beside the middle", size},
          self.attn_resolutions);
    visit(option{"z_channels", "of the latent image between the convolutional networks", size},
          self.z_channels);
    visit(option{"embed_dim", "channels of what is quantised or sampled", size},
          self.embed_dim);
    visit(option{"n_embed", "codes of the codebook (vq)", between(0, 1 << 20)}, self.n_embed);
    visit(option{"commitment_beta", "weight of |sg(zq) - z|^2 (vq)", at_least(0)},
          self.commitment_beta);
    visit(option{"kl_weight", "weight of the divergence from a standard normal (kl)",
                 at_least(0)},
          self.kl_weight);
  }
};

/// How settings must go together. @throws value_error
MULTISTAGE_COLD inline void check_rules(const autoencoder& net) {
  check_levels("autoencoder", net.resolution, net.width(), net.depth());
  require<value_error>(net.kind != latent_kind::vq || net.n_embed >= 1,
                       "autoencoder: n_embed = ", net.n_embed,
                       "; a codebook (vq) has at least 1 code");
}
/// Refuses settings that are out of range or do not go together. @throws value_error naming the
/// setting
inline void check_settings(const autoencoder& net) {
  check_settings("autoencoder", net);
}

/// The parts of the figures.
namespace autoencoding {

/// Group norm over norm_groups groups.
template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& build,
                                       const autoencoder& net,
                                       feature x,
                                       std::string_view name) {
  return build.group_norm(x, net.norm_groups, 1e-6, name);
}

/// A residual block: h = conv2(silu(norm2(conv1(silu(norm1(x)))))), shortcut(x) + h.
/// @param x [channels, h, w]. @param out channels of the result
template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& build,
                                        const autoencoder& net,
                                        feature x,
                                        int out) {
  feature h = build.silu(norm(build, net, x, "norm1"));
  h = build.conv(h, out, "conv1", {}, {initial::kaiming});
  h = build.silu(norm(build, net, h, "norm2"));
  h = build.dropout(h, net.dropout);
  h = build.conv(h, out, "conv2", {}, {initial::kaiming});
  if (x.channels != out)
    x = build.conv(x, out, "nin_shortcut", {1, 1, 0}, {initial::kaiming});
  return build.add(h, x);
}

/// Attention with one head, and its residual. Each pixel of x [channels, h, w] looks at all.
template <class Builder>
MULTISTAGE_COLD constexpr feature attention(Builder& build, const autoencoder& net, feature x) {
  const feature h = norm(build, net, x, "norm");
  const auto one = [&](std::string_view name) {
    return build.conv(h, x.channels, name, {1, 1, 0}, {initial::kaiming});
  };
  const feature q = one("q");
  const feature k = one("k");
  const feature v = one("v");
  feature mixed = build.attention(q, k, v, 1);
  mixed = build.conv(mixed, x.channels, "proj_out", {1, 1, 0}, {initial::kaiming});
  return build.add(mixed, x);
}

/// Block, attention, block at the deepest level.
template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& build, const autoencoder& net, feature x) {
  {
    const auto layer = build.scope("mid.block_1");
    x = block(build, net, x, x.channels);
  }
  {
    const auto layer = build.scope("mid.attn_1");
    x = attention(build, net, x);
  }
  const auto layer = build.scope("mid.block_2");
  return block(build, net, x, x.channels);
}

/// Block i of a level, and its attention where the level has some.
/// @param way "down." or "up.", as upstream names the blocks. @param x [channels, h, w]
template <class Builder>
MULTISTAGE_COLD constexpr feature level_block(Builder& build,
                                              const autoencoder& net,
                                              std::string_view way,
                                              int level,
                                              int i,
                                              feature x) {
  const int channels = net.encoder_channels * net.channel_mult[level];
  {
    const auto layer = build.scope(way, level, ".block.", i);
    x = block(build, net, x, channels);
  }
  if (!contains(net.attn_resolutions, net.resolution >> level))
    return x;
  const auto layer = build.scope(way, level, ".attn.", i);
  return attention(build, net, x);
}

}  // namespace autoencoding

/// Image to latent image: [embed_dim, ...] (VQ, before quantisation) or [2 embed_dim, ...] (KL:
/// means, then log variances).
template <class Builder>
MULTISTAGE_COLD constexpr void describe_encoder(Builder& build, const autoencoder& net) {
  using namespace autoencoding;
  const int moments = net.kind == latent_kind::kl ? 2 : 1;
  build.segment(1);
  feature x = build.input(input_slot::image, net.channels, net.resolution, net.width());
  {
    const auto encoder = build.scope("encoder");
    x = build.conv(x, net.encoder_channels, "conv_in", {}, {initial::kaiming});
    for (int level = 0; level < net.depth(); ++level) {
      for (int i = 0; i < net.num_blocks; ++i)
        x = level_block(build, net, "down.", level, i, x);
      if (level == net.depth() - 1)
        break;
      const auto layer = build.scope("down.", level, ".downsample");
      x = build.conv(x, x.channels, "conv", {3, 2, 0, 1}, {initial::kaiming});
    }
    x = middle(build, net, x);
    x = build.silu(norm(build, net, x, "norm_out"));
    x = build.conv(x, moments * net.z_channels, "conv_out", {}, {initial::kaiming});
  }
  x = build.conv(x, moments * net.embed_dim, "quant_conv", {1, 1, 0}, {initial::kaiming});
  build.output(x);
}

/// Latent image [embed_dim, ...] to what the last layer reads, [encoder_channels
/// channel_mult[0], resolution, width].
template <class Builder>
MULTISTAGE_COLD constexpr feature describe_decoder_body(Builder& build,
                                                        const autoencoder& net) {
  using namespace autoencoding;
  build.segment(1);
  feature x =
      build.input(input_slot::image, net.embed_dim, net.latent_height(), net.latent_width());
  x = build.conv(x, net.z_channels, "post_quant_conv", {1, 1, 0}, {initial::kaiming});
  const auto decoder = build.scope("decoder");
  const int deepest = net.encoder_channels * net.channel_mult[net.depth() - 1];
  x = build.conv(x, deepest, "conv_in", {}, {initial::kaiming});
  x = middle(build, net, x);
  for (int level = net.depth() - 1; level >= 0; --level) {
    for (int i = 0; i <= net.num_blocks; ++i)
      x = level_block(build, net, "up.", level, i, x);
    if (level == 0)
      break;
    const auto layer = build.scope("up.", level, ".upsample");
    x = build.resample(x, mean_and_nearest, true);
    x = build.conv(x, x.channels, "conv", {}, {initial::kaiming});
  }
  return build.silu(norm(build, net, x, "norm_out"));
}

/// The last layer, to the image.
template <class Builder>
MULTISTAGE_COLD constexpr void describe_decoder_end(Builder& build,
                                                    const autoencoder& net,
                                                    feature x) {
  build.segment(1);
  const auto decoder = build.scope("decoder");
  build.output(build.conv(x, net.channels, "conv_out", {}, {initial::kaiming}));
}

/// Latent image [embed_dim, ...] to image.
template <class Builder>
MULTISTAGE_COLD constexpr void describe_decoder(Builder& build, const autoencoder& net) {
  describe_decoder_end(build, net, describe_decoder_body(build, net));
}

/// What is a network of its own: a loss may look at the decoder's last layer alone.
enum class autoencoder_part {
  encoder,       ///< describe_encoder
  decoder_body,  ///< describe_decoder_body
  decoder_end    ///< describe_decoder_end
};

/// Records a part at run time. @throws value_error saying which setting does not fit.
MULTISTAGE_COLD inline described_network record_part(const autoencoder& net,
                                                     autoencoder_part which) {
  check_settings(net);
  recorder<name_list> build;
  if (which == autoencoder_part::encoder) {
    describe_encoder(build, net);
  } else if (which == autoencoder_part::decoder_body) {
    build.output(describe_decoder_body(build, net));
  } else {
    build.segment(1);
    const int channels = net.encoder_channels * net.channel_mult[0];
    describe_decoder_end(build, net,
                         build.input(input_slot::image, channels, net.resolution, net.width()));
  }
  return detail::finish(build);
}

}  // namespace multistage
