// NCSN++ and DDPM++ as score-based models train them (Song, Sohl-Dickstein, Kingma, Kumar,
// Ermon, Poole, arXiv 2011.13456, appendix H), with a decoder for each stage (arXiv
// 2312.09181). Layers are numbered in order of use, so a block's name is its number; the two
// blocks in the middle belong to the encoder.
//
//   constexpr ncsnpp net{.resolution = 32, .num_blocks = 8};
//   using model = multi_decoder<net, decoders{192, 128, 16}, vp_schedule>;
#pragma once
#include "arrangement.hpp"
#include "parts.hpp"

namespace multistage {

/// Where residual blocks resample: inside (biggan) or between them (ddpm).
enum class residual_block { biggan, ddpm };
/// Their names in files.
constexpr std::array<const char*, 2> option_names(residual_block) {
  return {"biggan", "ddpm"};
}
/// How input_skip joins the image: added to or put beside the features.
enum class combination { sum, cat };
/// Their names in files.
constexpr std::array<const char*, 2> option_names(combination) {
  return {"sum", "cat"};
}

/// Settings of the network; lists end at their first zero. What each means, its name in files
/// and its range: `fields`.
struct ncsnpp {
  int resolution = 32;                       ///< rows of the images, in pixels
  int channels = 3;                          ///< of the images
  int columns = 0;                           ///< of the images; 0: as many as rows
  int encoder_channels = 128;                ///< width of the shared encoder at its first level
  std::array<int, 8> channel_mult{2, 2, 2};  ///< decoders: in their own width
  int num_blocks = 4;                        ///< decoders have one more
  std::array<int, 8> attn_resolutions{16};
  bool fourier = false;  ///< the embedding is of ln sigma; else positional, of 999 t
  std::array<int, 8> resample_filter{1, 3, 3, 1};
  bool fir = true;           ///< else 2x2 means and nearest neighbours
  bool output_skip = false;  ///< "progressive" in files
  auxiliary_path progressive_input = auxiliary_path::standard;
  combination progressive_combine = combination::sum;
  bool skip_rescale = true;
  residual_block resblock_type = residual_block::biggan;
  bool resample_with_conv = true;
  int norm_groups = 32;  ///< at most, and at least four channels a group
  bool scale_by_sigma = false;
  int label_dim = 0;          ///< has no classes
  double dropout = 0;         ///< before a block's second convolution
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
    visit(option{"attn_resolutions",
                 "rows of the levels that attend (decoders: behind their last block)",
                 between(1, most_of_a_size)},
          self.attn_resolutions);
    visit(option{"embedding", "of the noise level", {}, {"positional", "fourier"}},
          self.fourier);
    visit(option{"resample_filter", "taps of the filter that resamples"}, self.resample_filter);
    visit(option{"fir", "whether resampling uses the filter"}, self.fir);
    visit(option{"progressive",
                 "a picture at every level, summed upwards",
                 {},
                 {"none", "output_skip"}},
          self.output_skip);
    visit(option{"progressive_input",
                 "how the image goes along the encoder",
                 {},
                 {"none", "input_skip", "residual"}},
          self.progressive_input);
    visit(option{"progressive_combine", "how input_skip joins the image"},
          self.progressive_combine);
    visit(option{"skip_rescale", "whether sums of two paths are multiplied by sqrt(1/2)"},
          self.skip_rescale);
    visit(option{"resblock_type", "resampling inside blocks or between them"},
          self.resblock_type);
    visit(option{"resample_with_conv", "ddpm blocks: a convolution with each resampling"},
          self.resample_with_conv);
    visit(option{"scale_by_sigma", "whether the result is divided by the label"},
          self.scale_by_sigma);
  }
};

/// How settings must go together. @throws value_error
MULTISTAGE_COLD inline void check_rules(const ncsnpp& net) {
  check_denoiser_rules(net);
  require<value_error>(net.label_dim == 0, "network: label_dim = ", net.label_dim,
                       "; ncsnpp has no classes, leave it 0");
  const int taps = length(net.resample_filter);
  bool symmetric = taps % 2 == 0;
  for (int i = 0; i < taps; ++i)
    symmetric = symmetric && net.resample_filter[i] == net.resample_filter[taps - 1 - i];
  require<value_error>(!net.fir || symmetric, "network: resample_filter has ", taps,
                       " taps; with fir their number is even, and they are the same from both "
                       "ends");
  require<value_error>(!net.fir || net.resblock_type != residual_block::ddpm,
                       "network: fir with resblock_type ddpm; ddpm's blocks resample without "
                       "a filter, set fir to false");
}

/// The parts of the figure.
namespace score {

/// The next numbered layer's names.
template <class Builder>
struct layers {
  Builder& build;         ///< whose names they are
  std::string_view list;  ///< in which upstream keeps them
  int stage;              ///< below 0: of no stage
  int next;               ///< the next number
  /// Enters the next layer until the value goes.
  constexpr auto operator()() {
    const int number = next++;
    if (stage < 0)
      return build.scope(list, number);
    return build.scope(list, stage, ".", number);
  }
};

/// What moves between levels.
constexpr ops::resample_filter filter(const ncsnpp& net) {
  if (!net.fir)
    return mean_and_nearest;
  return {net.resample_filter, -1, 2, ops::filter_cost::full};
}

/// Group norm over groups of at least four channels.
template <class Builder>
MULTISTAGE_COLD constexpr feature norm(Builder& build,
                                       const ncsnpp& net,
                                       feature x,
                                       std::string_view name) {
  return build.group_norm(x, groups_for(x.channels, net.norm_groups), 1e-6, name);
}

/// How weights of 1x1 layers begin but for those in front of a sum.
inline constexpr layer_init pointwise_init{initialization::xavier_uniform, 0.31622776601683794};

/// A 1x1 layer with weights [in, out], "NIN" upstream.
/// @param x [channels, h, w]. @param out channels of the result. @param init of its weights
template <class Builder>
MULTISTAGE_COLD constexpr feature network_in_network(Builder& build,
                                                     feature x,
                                                     int out,
                                                     std::string_view name,
                                                     layer_init init = pointwise_init) {
  const layer_options options{
      .init = init,
      .layout = parameter_layout::linear_io,
      .weight_name = "W",
      .bias_name = "b",
  };
  return build.conv(x, out, name, {1, 1, 0}, options);
}

/// x + y, rescaled where the network does.
template <class Builder>
MULTISTAGE_COLD constexpr feature sum(Builder& build, const ncsnpp& net, feature x, feature y) {
  const feature both = build.add(x, y);
  return net.skip_rescale ? build.scale(both, sqrt_half) : both;
}

/// A residual block that is told `emb`; it may resample:
///   h = Conv_1(silu(norm(Conv_0(silu(norm(x))) + Dense_0(emb)))),   skip(x) + h.
/// @param x [channels, h, w]. @param emb what blocks are told, [channels].
/// @param out channels of the result. @param how the way to another level: the result is
/// [out, h / 2, w / 2] or [out, 2 h, 2 w] then
template <class Builder>
MULTISTAGE_COLD constexpr feature block(Builder& build,
                                        const ncsnpp& net,
                                        feature x,
                                        feature emb,
                                        int out,
                                        resampling how = resampling::none) {
  const auto moved = [&](feature f) {
    if (how == resampling::none)
      return f;
    return build.resample(f, filter(net), how == resampling::up);
  };
  feature h = build.silu(norm(build, net, x, "GroupNorm_0"));
  h = build.conv(moved(h), out, "Conv_0", {}, {initial::xavier});
  h = build.add_row(h, build.linear(emb, out, "Dense_0", {initial::xavier}));
  h = build.silu(norm(build, net, h, "GroupNorm_1"));
  h = build.dropout(h, net.dropout);
  h = build.conv(h, out, "Conv_1", {}, {initial::nearly_zero});
  feature skip = moved(x);
  const bool changed = x.channels != out || how != resampling::none;
  if (net.resblock_type == residual_block::biggan && changed)
    skip = build.conv(skip, out, "Conv_2", {1, 1, 0}, {initial::xavier});
  else if (x.channels != out)
    skip = network_in_network(build, skip, out, "NIN_0");
  return sum(build, net, h, skip);
}

/// Attention with one head, and its residual. Each pixel of x [channels, h, w] looks at all.
template <class Builder>
MULTISTAGE_COLD constexpr feature attention(Builder& build, const ncsnpp& net, feature x) {
  const feature h = norm(build, net, x, "GroupNorm_0");
  const feature q = network_in_network(build, h, x.channels, "NIN_0");
  const feature k = network_in_network(build, h, x.channels, "NIN_1");
  const feature v = network_in_network(build, h, x.channels, "NIN_2");
  feature mixed = build.attention(q, k, v, 1);
  mixed = network_in_network(build, mixed, x.channels, "NIN_3", initial::nearly_zero);
  return sum(build, net, mixed, x);
}

/// From one level to the next, and back: a block that resamples (biggan), or resampling by
/// itself, with or without a convolution (ddpm). @param how down or up
template <class Builder>
MULTISTAGE_COLD constexpr feature resampled(Builder& build,
                                            const ncsnpp& net,
                                            feature x,
                                            feature emb,
                                            resampling how) {
  if (net.resblock_type == residual_block::biggan)
    return block(build, net, x, emb, x.channels, how);
  const bool up = how == resampling::up;
  if (up)
    x = build.resample(x, filter(net), true);
  if (!net.resample_with_conv)
    return up ? x : build.resample(x, filter(net), false);
  // Downwards the convolution takes every second pixel.
  const ops::conv_window window = up ? ops::conv_window{} : ops::conv_window{3, 2, 0, 1};
  return build.conv(x, x.channels, "Conv_0", window, {initial::xavier});
}

/// Block, attention, block at the deepest level.
template <class Builder>
MULTISTAGE_COLD constexpr feature middle(Builder& build,
                                         const ncsnpp& net,
                                         feature x,
                                         feature emb,
                                         layers<Builder>& next) {
  {
    const auto layer = next();
    x = block(build, net, x, emb, x.channels);
  }
  {
    const auto layer = next();
    x = attention(build, net, x);
  }
  const auto layer = next();
  return block(build, net, x, emb, x.channels);
}

/// A numbered block, and where the level attends another layer of attention.
/// @param out channels of the result. @param next counts the layers
template <class Builder>
MULTISTAGE_COLD constexpr feature level_block(Builder& build,
                                              const ncsnpp& net,
                                              feature x,
                                              feature emb,
                                              int out,
                                              bool attends,
                                              layers<Builder>& next) {
  {
    const auto layer = next();
    x = block(build, net, x, emb, out);
  }
  if (!attends)
    return x;
  const auto layer = next();
  return attention(build, net, x);
}

/// What every block is told, [4 encoder_channels], from the noise level's label: an embedding
/// by random frequencies or by positions, and two layers.
template <class Builder>
MULTISTAGE_COLD constexpr feature mapping(Builder& build,
                                          const ncsnpp& net,
                                          feature label,
                                          layers<Builder>& next) {
  feature emb{};
  if (net.fourier) {
    const auto layer = next();
    emb = build.embedding(label, 2 * net.encoder_channels, {.logarithm = true}, "W");
  } else {
    emb = build.embedding(label, net.encoder_channels, {});
  }
  for (int i = 0; i < 2; ++i) {
    const auto layer = next();
    emb = build.silu(build.linear(emb, 4 * net.encoder_channels, "", {initial::xavier}));
  }
  return emb;
}

/// Progressive input: the image (`pyramid`), resampled as the features are, joins x.
/// @param pyramid [channels, 2 h, 2 w] before, [channels, h, w] after
template <class Builder>
MULTISTAGE_COLD constexpr feature join_image(Builder& build,
                                             const ncsnpp& net,
                                             feature x,
                                             feature& pyramid,
                                             layers<Builder>& next) {
  if (net.progressive_input == auxiliary_path::skip) {
    pyramid = build.resample(pyramid, filter(net), false);
    const auto layer = next();
    const feature picture =
        build.conv(pyramid, x.channels, "Conv_0", {1, 1, 0}, {initial::xavier});
    if (net.progressive_combine == combination::sum)
      return build.add(picture, x);
    return build.concat(picture, x);
  }
  const auto layer = next();
  if (net.fir) {
    // Filtered at full resolution, then a strided convolution without padding.
    const int half = length(net.resample_filter) / 2;
    const ops::resample_filter smooth{net.resample_filter, half, 1, ops::filter_cost::full};
    pyramid = build.resample(pyramid, smooth, false);
    pyramid = build.conv(pyramid, x.channels, "Conv2d_0", {3, 2, 0}, {initial::xavier});
  } else {
    pyramid = build.conv(pyramid, x.channels, "Conv_0", {3, 2, 0, 1}, {initial::xavier});
  }
  pyramid = sum(build, net, pyramid, x);
  return pyramid;
}

/// The picture [channels of the image, h, w] that features give.
template <class Builder>
MULTISTAGE_COLD constexpr feature picture_of(Builder& build,
                                             const ncsnpp& net,
                                             feature x,
                                             layers<Builder>& next) {
  {
    const auto layer = next();
    x = build.silu(norm(build, net, x, ""));
  }
  const auto layer = next();
  return build.conv(x, net.channels, "", {}, {initial::nearly_zero});
}

}  // namespace score

/// The encoder, with the mapping of the noise level. @param alone whether there is one decoder,
/// whose layers go on with the encoder's numbers
template <class Builder>
MULTISTAGE_COLD constexpr encoded encode(Builder& build, const ncsnpp& net, bool alone) {
  using namespace score;
  layers<Builder> next{build, alone ? "all_modules." : "en_modules.", -1, 0};
  const feature label = build.input(input_slot::noise_level, 1);
  const feature emb = mapping(build, net, label, next);

  // Downwards: a level's blocks, then the way to the next; all outputs are skips.
  feature pyramid = build.input(input_slot::image, net.channels, net.resolution, net.width());
  feature x{};
  {
    const auto layer = next();
    x = build.conv(pyramid, net.encoder_channels, "", {}, {initial::xavier});
  }
  constant_vector<feature> skips{x};
  for (int level = 0; level < net.depth(); ++level) {
    const int channels = net.encoder_channels * net.channel_mult[level];
    const bool attends = contains(net.attn_resolutions, x.height);
    for (int i = 0; i < net.num_blocks; ++i) {
      x = level_block(build, net, x, emb, channels, attends, next);
      skips.push_back(x);
    }
    if (level == net.depth() - 1)
      break;
    {
      const auto layer = next();
      x = resampled(build, net, x, emb, resampling::down);
    }
    if (net.progressive_input != auxiliary_path::standard)
      x = join_image(build, net, x, pyramid, next);
    skips.push_back(x);
  }
  if (net.shared_middle)
    x = middle(build, net, x, emb, next);
  return {.x = x, .emb = emb, .skips = skips, .next = next.next, .level = label};
}

/// One stage's decoder; returns what score_sde's network returns.
template <class Builder>
MULTISTAGE_COLD constexpr feature decode(Builder& build,
                                         const ncsnpp& net,
                                         const decoder_spec& spec,
                                         encoded enc) {
  using namespace score;
  // A decoder that is alone goes on with the encoder's numbers; others count their own.
  layers<Builder> next{build, "all_modules.", -1, enc.next};
  if (!spec.alone) {
    next.list = "de_modules.";
    next.stage = spec.stage;
    next.next = 0;
  }
  feature x = enc.x;
  feature out{};
  if (!net.shared_middle)
    x = middle(build, net, x, enc.emb, next);
  // Upwards: a level's blocks, each with a skip, a picture where there is one at every level,
  // and the way to the next.
  int number = 0;
  for (int level = net.depth() - 1; level >= 0; --level) {
    const int channels = spec.width * net.channel_mult[level];
    level_skips<Builder> skips(enc.skips, net.num_blocks + 1);
    for (int i = 0; i < spec.blocks; ++i, ++number) {
      const bool usual = i == spec.blocks - 1 && contains(net.attn_resolutions, x.height);
      const bool attends = spec.attention(number, usual);
      x = skips.join(build, x);
      x = level_block(build, net, x, enc.emb, channels, attends, next);
    }
    if (net.output_skip) {
      const bool first = out.id < 0;
      const feature picture = picture_of(build, net, x, next);
      if (!first)
        out = build.resample(out, filter(net), true);
      out = first ? picture : build.add(out, picture);
    }
    if (level > 0) {
      const auto layer = next();
      x = resampled(build, net, x, enc.emb, resampling::up);
    }
  }
  if (!net.output_skip)
    out = picture_of(build, net, x, next);
  return net.scale_by_sigma ? build.divide_row(out, enc.level) : out;
}

}  // namespace multistage
