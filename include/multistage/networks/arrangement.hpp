// How stages share a network (table 3 of arXiv 2312.09181): a shared encoder with a decoder for
// each stage ("multi-decoder"), a network of its own for each stage ("separate"), or one
// network for all ("unified", which is a single decoder). Decoders may differ in width, in
// depth and in where they attend.
//
//   decoders{192, 128, 16};                                     // three stages, one encoder
//   decoders{128};                                              // unified: one stage
//   decoders{.widths = {128, 64}, .shared_encoder = false};     // separate: nothing shared
#pragma once
#include "../core/options.hpp"
#include "../graph/recorder.hpp"

namespace multistage {

/// A choice of a decoder's blocks, counted from the deepest level on in the order in which they
/// run; bit i is block i.
struct block_choice {
  bool given = false;        ///< false: as the network's own settings say
  std::uint64_t blocks = 0;  ///< a bit a block
  /// Whether a block is chosen. @param otherwise what the network's own settings say
  constexpr bool operator()(int block, bool otherwise) const {
    return given ? block < 64 && (blocks >> block & 1) != 0 : otherwise;
  }
};

/// What each stage has for itself, stage 0 (lowest noise) first.
struct decoders {
  /// What takes encoder_channels' place in each decoder; ended by the first zero.
  std::array<int, 8> widths{};
  bool shared_encoder = true;   ///< false: stages have encoders too, as wide as their decoders
  std::array<int, 8> blocks{};  ///< residual blocks a level; 0: one more than the encoder has
  std::array<block_choice, 8> attention{};  ///< which blocks attend

  /// As many as there are widths.
  constexpr int stage_count() const {
    return length(widths);
  }
  /// The same with stage s alone.
  constexpr decoders only(int s) const {
    return {{widths[s]}, shared_encoder, {blocks[s]}, {attention[s]}};
  }
  /// Names the settings that are numbers (core/options.hpp); files tell the others in their own
  /// way ("architecture", "decoder_attention").
  template <class Self, class Visit>
  static constexpr void fields(Self& self, Visit&& visit) {
    visit(option{"decoder_channels", "width of each stage's decoder", between(1, 1 << 16)},
          self.widths);
    visit(option{"decoder_blocks", "residual blocks a level of each decoder", between(0, 255)},
          self.blocks);
  }
};

/// One stage's decoder, as a network's `decode` is told.
struct decoder_spec {
  int stage = 0;             ///< 0: lowest noise
  bool alone = true;         ///< the only one of its network
  int width = 0;             ///< what takes encoder_channels' place
  int blocks = 0;            ///< residual blocks a level
  block_choice attention{};  ///< which blocks attend
};

/// What an encoder hands to every decoder.
struct encoded {
  feature x;                         ///< its result
  feature emb;                       ///< what blocks are told
  constant_vector<feature> skips{};  ///< what decoders read again, the last one first
  int next = 0;                      ///< the next number, where layers are numbered
  feature level{};                   ///< the noise level's label
  feature context{};                 ///< tokens to attend to
};

/// The skips of one level. An encoder of n blocks a level leaves n + 1; a decoder with fewer
/// blocks leaves the rest unread, one with more reads none in its last.
template <class Builder>
class level_skips {
 public:
  /// @param skips of all levels that are left, the last one first. @param count of this level's
  constexpr level_skips(constant_vector<feature>& skips, int count)
      : skips_(skips),
        left_(count) {}
  /// Skips are read once.
  level_skips(const level_skips&) = delete;
  constexpr ~level_skips() {
    skips_.resize(skips_.size() - std::size_t(left_));
  }
  /// [x, the next skip]
  constexpr feature join(Builder& build, feature x) {
    if (left_ == 0)
      return x;
    const feature joined = build.concat(x, skips_.back());
    skips_.pop_back();
    --left_;
    return joined;
  }

 private:
  constant_vector<feature>& skips_;
  int left_;
};

/// Speaks a whole model into a recorder: `encode(build, net, alone)` and `decode(build, net,
/// spec, encoded)`, which returns the network's result, describe the parts of a network of type
/// Net. Names are the network's; stages with an encoder of their own stand in
/// "stages.<stage>".
template <class Builder, class Net>
MULTISTAGE_COLD constexpr void describe(Builder& build, const Net& net, const decoders& d) {
  const int stages = d.stage_count();
  const auto spec = [&](int s, bool alone) {
    return decoder_spec{s, alone, d.widths[s],
                        d.blocks[s] > 0 ? d.blocks[s] : net.num_blocks + 1, d.attention[s]};
  };
  if (d.shared_encoder) {
    build.segment(0);
    const auto shared = encode(build, net, stages == 1);
    for (int s = 0; s < stages; ++s) {
      build.segment(1 + s);
      build.output(decode(build, net, spec(s, stages == 1), shared));
    }
    return;
  }
  for (int s = 0; s < stages; ++s) {
    const auto stage = build.scope("stages.", s);
    build.segment(1 + s);
    Net own = net;
    own.encoder_channels = d.widths[s];
    build.output(decode(build, own, spec(s, true), encode(build, own, true)));
  }
}

}  // namespace multistage
