// How stages share a network (table 3 of arXiv 2312.09181): a shared encoder with a decoder for
// each stage ("multi-decoder"), a network of its own for each stage ("separate"), or one
// network for all ("unified", which is a single decoder). Decoders may differ in width, in
// depth and in where they attend.
#pragma once
#include "../graph/recorder.hpp"

namespace multistage {

/// Where an auxiliary path carries the image through the levels, beside the blocks.
enum class auxiliary_path { standard, skip, residual };

/// A choice of a decoder's blocks, counted from the deepest level on in the order in which they
/// run; bit i is block i.
struct block_choice {
  bool given = false;  ///< false: as the network's own settings say
  std::uint64_t blocks = 0;
  constexpr bool operator()(int block, bool otherwise) const {
    return given ? block < 64 && (blocks >> block & 1) != 0 : otherwise;
  }
};

/// What each stage has for itself, stage 0 (lowest noise) first.
struct decoders {
  std::array<int, 8>
      widths{};  ///< what takes encoder_channels' place in the decoder; ended by the first zero
  bool shared_encoder = true;  ///< false: each stage has an encoder too, as wide as its decoder
  std::array<int, 8> blocks{};  ///< residual blocks a level; 0: one more than the encoder has
  std::array<block_choice, 8> attention{};

  constexpr int stage_count() const {
    return length(widths);
  }
  /// The same with stage s alone.
  constexpr decoders only(int s) const {
    return {{widths[s]}, shared_encoder, {blocks[s]}, {attention[s]}};
  }
};

/// One stage's decoder, as a network's `decode` is told.
struct decoder_spec {
  int stage = 0;
  bool alone = true;  ///< the only one of its network
  int width = 0;
  int blocks = 0;
  block_choice attention{};
};

/// What an encoder hands to every decoder: its result, the embedding, the outputs that decoders
/// read again (the last one first), and, for networks whose layers are numbered, the next
/// number.
struct encoded {
  feature x;
  feature emb;
  constant_vector<feature> skips{};
  int next = 0;
  feature level{};
  feature context{};
};

/// The skips of one level. An encoder of n blocks a level leaves n + 1; a decoder with fewer
/// blocks leaves the rest unread, one with more reads none in its last.
template <class Builder>
class level_skips {
 public:
  constexpr level_skips(constant_vector<feature>& skips, int count)
      : skips_(skips), left_(count) {}
  level_skips(const level_skips&) = delete;
  constexpr ~level_skips() {
    skips_.resize(skips_.size() - std::size_t(left_));
  }
  /// [x, the next skip]
  constexpr feature join(Builder& b, feature x) {
    if (left_ == 0)
      return x;
    const feature y = b.concat(x, skips_.back());
    skips_.pop_back();
    --left_;
    return y;
  }

 private:
  constant_vector<feature>& skips_;
  int left_;
};

/// Speaks a whole model into a recorder: `encode(b, net, alone)` and `decode(b, net, spec,
/// encoded)`, which returns the network's result, describe the parts of a network of type Net.
/// Names are the network's; stages with an encoder of their own stand in "stages.<stage>".
template <class Builder, class Net>
MULTISTAGE_COLD constexpr void describe(Builder& b, const Net& net, const decoders& d) {
  const int stages = d.stage_count();
  const auto spec = [&](int s, bool alone) {
    return decoder_spec{s, alone, d.widths[s],
                        d.blocks[s] > 0 ? d.blocks[s] : net.num_blocks + 1, d.attention[s]};
  };
  if (d.shared_encoder) {
    b.segment(0);
    const auto shared = encode(b, net, stages == 1);
    for (int s = 0; s < stages; ++s) {
      b.segment(1 + s);
      b.output(decode(b, net, spec(s, stages == 1), shared));
    }
    return;
  }
  for (int s = 0; s < stages; ++s) {
    const auto stage = b.scope("stages.", s);
    b.segment(1 + s);
    Net own = net;
    own.encoder_channels = d.widths[s];
    b.output(decode(b, own, spec(s, true), encode(b, own, true)));
  }
}

/// Groups of a normalisation that keeps at least four channels in each.
constexpr int groups_for(int channels, int most) {
  return channels / 4 < 1 ? 1 : channels / 4 < most ? channels / 4 : most;
}

}  // namespace multistage
