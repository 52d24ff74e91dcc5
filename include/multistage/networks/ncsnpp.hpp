// NCSN++ and DDPM++ as score-based models train them (Song, Sohl-Dickstein, Kingma, Kumar,
// Ermon, Poole, arXiv 2011.13456, appendix H), with a decoder for each stage (arXiv
// 2312.09181). Layers are numbered in order of use, so a block's name is its number; the two
// blocks in the middle belong to the encoder.
#pragma once
#include "../core/math.hpp"
#include "arrangement.hpp"

namespace multistage {

/// biggan: resampling inside residual blocks; ddpm: between them.
enum class residual_block { biggan, ddpm };
/// How input_skip joins the image: added to or put beside the features.
enum class combination { sum, cat };

/// Configuration; lists end at their first zero. Sizes in pixels and channels.
struct ncsnpp {
  int resolution = 32;
  int channels = 3;
  int columns = 0;  ///< of images that are not square; 0: as many as rows (resolution)
  int encoder_channels = 128;
  std::array<int, 8> channel_mult{2, 2, 2};
  int num_blocks = 4;
  std::array<int, 8> attn_resolutions{16};
  bool fourier =
      false;  // embedding of ln sigma by random frequencies; else positional, of 999 t
  std::array<int, 8> resample_filter{1, 3, 3, 1};
  bool fir = true;           ///< resample with the filter; else 2x2 mean and nearest neighbour
  bool output_skip = false;  ///< a picture at every level, summed upwards ("progressive")
  auxiliary_path progressive_input = auxiliary_path::standard;
  combination progressive_combine = combination::sum;
  bool skip_rescale = true;  ///< sums of two paths times sqrt(1/2)
  residual_block resblock_type = residual_block::biggan;
  bool resample_with_conv = true;  ///< ddpm blocks: a convolution with each resampling
  int norm_groups = 32;
  bool scale_by_sigma = false;  ///< the result is divided by the label
  int label_dim = 0;            ///< has no classes
  double dropout = 0;           ///< in training, before a block's second convolution
  bool shared_middle = true;

  constexpr int depth() const {
    return length(channel_mult);
  }
  constexpr int width() const {
    return columns > 0 ? columns : resolution;
  }
  template <class F>
  constexpr void for_each_setting(F&& f) const {
    f("norm_groups", norm_groups, 1, 1 << 16);
    f("label_dim", label_dim, 0, 0);
    const int taps = length(resample_filter);
    bool even = taps % 2 == 0;
    for (int i = 0; i < taps; ++i)
      even = even && resample_filter[i] == resample_filter[taps - 1 - i];
    if (fir)
      f("resample_filter's symmetry (1: an even number of taps, the same from both ends)", even,
        1, 1);
    if (resblock_type == residual_block::ddpm)
      f("fir with resblock_type ddpm", fir, 0, 0);
  }
};

namespace score {

inline constexpr double sqrt_half = 0.70710678118654752440;
inline constexpr layer_init plain{initialization::xavier_uniform, 1};
inline constexpr layer_init zero{initialization::xavier_uniform, 1e-5};
inline constexpr layer_init nin{initialization::xavier_uniform, 0.31622776601683794};

enum class move { none, down, up };

/// The next numbered layer's names.
template <class Builder>
struct layers {
  Builder& b;
  std::string_view list;
  int stage;
  int next;
  constexpr auto operator()() {
    return stage < 0 ? b.scope(list, next++) : b.scope(list, stage, ".", next++);
  }
};

constexpr ops::resample_filter filter(const ncsnpp& u) {
  return u.fir ? ops::resample_filter{u.resample_filter, -1, 2, ops::filter_cost::full}
               : ops::resample_filter{{1, 1}, -1, 2, ops::filter_cost::none};
}

template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& b,
                                       const ncsnpp& u,
                                       feature x,
                                       std::string_view name) {
  return b.group_norm(x, groups_for(x.channels, u.norm_groups), 1e-6, name);
}

/// A 1x1 layer with weights [in, out].
template <class Builder>
MULTISTAGE_COLD constexpr feature network_in_network(Builder& b,
                                                     feature x,
                                                     int out,
                                                     std::string_view name,
                                                     layer_init init = nin) {
  return b.conv(x, out, name, {1, 1, 0},
                {.init = init,
                 .layout = parameter_layout::linear_io,
                 .weight_name = "W",
                 .bias_name = "b"});
}

template <class Builder>
MULTISTAGE_COLD constexpr feature sum(Builder& b, const ncsnpp& u, feature x, feature y) {
  const feature s = b.add(x, y);
  return u.skip_rescale ? b.scale(s, sqrt_half) : s;
}

template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& b,
                                        const ncsnpp& u,
                                        feature x,
                                        feature emb,
                                        int out,
                                        move m = move::none) {
  const auto moved = [&](feature f) {
    return m == move::none ? f : b.resample(f, filter(u), m == move::up);
  };
  feature h = b.conv(moved(b.silu(norm(b, u, x, "GroupNorm_0"))), out, "Conv_0", {}, {plain});
  h = b.add_row(h, b.linear(emb, out, "Dense_0", {plain}));
  h = b.conv(b.dropout(b.silu(norm(b, u, h, "GroupNorm_1")), u.dropout), out, "Conv_1", {},
             {zero});
  feature skip = moved(x);
  if (u.resblock_type == residual_block::biggan && (x.channels != out || m != move::none))
    skip = b.conv(skip, out, "Conv_2", {1, 1, 0}, {plain});
  else if (x.channels != out)
    skip = network_in_network(b, skip, out, "NIN_0");
  return sum(b, u, h, skip);
}

template <class Builder>
MULTISTAGE_COLD constexpr feature attention(Builder& b, const ncsnpp& u, feature x) {
  const feature h = norm(b, u, x, "GroupNorm_0");
  const feature q = network_in_network(b, h, x.channels, "NIN_0");
  const feature k = network_in_network(b, h, x.channels, "NIN_1");
  const feature v = network_in_network(b, h, x.channels, "NIN_2");
  return sum(b, u, network_in_network(b, b.attention(q, k, v, 1), x.channels, "NIN_3", zero),
             x);
}

/// From one level to the next, and back.
template <class Builder>
MULTISTAGE_COLD constexpr feature resampled(Builder& b,
                                            const ncsnpp& u,
                                            feature x,
                                            feature emb,
                                            move m) {
  if (u.resblock_type == residual_block::biggan)
    return block(b, u, x, emb, x.channels, m);
  if (m == move::up)
    x = b.resample(x, filter(u), true);
  if (!u.resample_with_conv)
    return m == move::up ? x : b.resample(x, filter(u), false);
  return b.conv(x, x.channels, "Conv_0",
                m == move::up ? ops::conv_window{} : ops::conv_window{3, 2, 0, 1}, {plain});
}

template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& b,
                                         const ncsnpp& u,
                                         feature x,
                                         feature emb,
                                         layers<Builder>& next) {
  {
    const auto layer = next();
    x = block(b, u, x, emb, x.channels);
  }
  {
    const auto layer = next();
    x = attention(b, u, x);
  }
  const auto layer = next();
  return block(b, u, x, emb, x.channels);
}

}  // namespace score

template <class Builder>
MULTISTAGE_COLD constexpr encoded encode(Builder& b, const ncsnpp& u, bool alone) {
  using namespace score;
  layers<Builder> next{b, alone ? "all_modules." : "en_modules.", -1, 0};
  const feature level = b.input(input_slot::noise_level, 1);
  feature emb{};
  if (u.fourier) {
    const auto layer = next();
    emb = b.embedding(level, 2 * u.encoder_channels, {.logarithm = true}, "W");
  } else
    emb = b.embedding(level, u.encoder_channels, {});
  for (int i = 0; i < 2; ++i) {
    const auto layer = next();
    emb = b.silu(b.linear(emb, 4 * u.encoder_channels, "", {plain}));
  }

  const feature image = b.input(input_slot::image, u.channels, u.resolution, u.width());
  feature x{};
  feature pyramid = image;
  {
    const auto layer = next();
    x = b.conv(image, u.encoder_channels, "", {}, {plain});
  }
  constant_vector<feature> skips{x};
  for (int l = 0; l < u.depth(); ++l) {
    for (int i = 0; i < u.num_blocks; ++i) {
      {
        const auto layer = next();
        x = block(b, u, x, emb, u.encoder_channels * u.channel_mult[l]);
      }
      if (contains(u.attn_resolutions, x.height)) {
        const auto layer = next();
        x = attention(b, u, x);
      }
      skips.push_back(x);
    }
    if (l == u.depth() - 1)
      break;
    {
      const auto layer = next();
      x = resampled(b, u, x, emb, move::down);
    }
    if (u.progressive_input == auxiliary_path::skip) {
      pyramid = b.resample(pyramid, filter(u), false);
      const auto layer = next();
      const feature picture = b.conv(pyramid, x.channels, "Conv_0", {1, 1, 0}, {plain});
      x = u.progressive_combine == combination::sum ? b.add(picture, x) : b.concat(picture, x);
    } else if (u.progressive_input == auxiliary_path::residual) {
      const auto layer = next();
      if (u.fir) {  // filtered at full resolution, then a strided convolution without padding
        const ops::resample_filter smooth{u.resample_filter, length(u.resample_filter) / 2, 1,
                                          ops::filter_cost::full};
        pyramid = b.conv(b.resample(pyramid, smooth, false), x.channels, "Conv2d_0", {3, 2, 0},
                         {plain});
      } else
        pyramid = b.conv(pyramid, x.channels, "Conv_0", {3, 2, 0, 1}, {plain});
      x = pyramid = sum(b, u, pyramid, x);
    }
    skips.push_back(x);
  }
  if (u.shared_middle)
    x = middle(b, u, x, emb, next);
  return {.x = x, .emb = emb, .skips = skips, .next = next.next, .level = level};
}

/// One stage's decoder; returns what score_sde's network returns.
template <class Builder>
MULTISTAGE_COLD constexpr feature decode(Builder& b,
                                         const ncsnpp& u,
                                         const decoder_spec& d,
                                         encoded e) {
  using namespace score;
  layers<Builder> next{b, d.alone ? "all_modules." : "de_modules.", d.alone ? -1 : d.stage,
                       d.alone ? e.next : 0};
  feature x = e.x;
  feature out{};
  if (!u.shared_middle)
    x = middle(b, u, x, e.emb, next);
  const auto head = [&](feature h) {
    {
      const auto layer = next();
      h = b.silu(norm(b, u, h, ""));
    }
    const auto layer = next();
    return b.conv(h, u.channels, "", {}, {zero});
  };
  int number = 0;
  for (int l = u.depth() - 1; l >= 0; --l) {
    level_skips<Builder> skips(e.skips, u.num_blocks + 1);
    for (int i = 0; i < d.blocks; ++i, ++number) {
      {
        const auto layer = next();
        x = block(b, u, skips.join(b, x), e.emb, d.width * u.channel_mult[l]);
      }
      if (d.attention(number, i == d.blocks - 1 && contains(u.attn_resolutions, x.height))) {
        const auto layer = next();
        x = attention(b, u, x);
      }
    }
    if (u.output_skip) {
      const feature picture = head(x);
      out = out.id < 0 ? picture : b.add(b.resample(out, filter(u), true), picture);
    }
    if (l > 0) {
      const auto layer = next();
      x = resampled(b, u, x, e.emb, move::up);
    }
  }
  if (!u.output_skip)
    out = head(x);
  return u.scale_by_sigma ? b.divide_row(out, e.level) : out;
}

}  // namespace multistage
