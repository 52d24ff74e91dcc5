// How stages share a network (table 3 of arXiv 2312.09181): a shared encoder with a decoder for each stage ("multi-decoder"), a network
// of its own for each stage ("separate"), or one network for all ("unified", which is a single decoder).
#pragma once
#include "../graph/recorder.hpp"

namespace multistage {

/// Widths by stage, stage 0 (lowest noise) first, ended by the first zero: what takes encoder_channels' place in each stage's decoder.
struct decoders {
  std::array<int, 8> widths{};
  bool shared_encoder = true;  // false: each stage has an encoder too, as wide as its decoder

  constexpr int stage_count() const { return length(widths); }
};

/// Speaks a whole model into a recorder: `encode(b, net)`, `decode(b, net, width, encoded)` and `head(b, net, x)` describe the parts of a
/// network of type Net. Names are upstream's: "model.enc", "model.dec" for one stage, "model.decs.<stage>" for more; what a head names
/// stands in "model" for one stage, in "model.outs.<stage>" for more.
template <class Builder, class Net>
constexpr void describe(Builder& b, const Net& net, const decoders& d) {
  const int stages = d.stage_count();
  const auto decoder = [&](const Net& n, int s, const auto& encoded, bool alone) {
    feature x{};
    {
      const auto inside = alone ? b.scope("dec") : b.scope("decs.", s);
      x = decode(b, n, d.widths[s], encoded);
    }
    if (alone)
      b.output(head(b, n, x));
    else {
      const auto inside = b.scope("outs.", s);
      b.output(head(b, n, x));
    }
  };
  if (d.shared_encoder) {
    const auto model = b.scope("model");
    b.segment(0);
    const auto encoded = encode(b, net);
    for (int s = 0; s < stages; ++s) {
      b.segment(1 + s);
      decoder(net, s, encoded, stages == 1);
    }
    return;
  }
  for (int s = 0; s < stages; ++s) {
    const auto model = b.scope("stages.", s, ".model");
    b.segment(1 + s);
    Net own = net;
    own.encoder_channels = d.widths[s];
    decoder(own, s, encode(b, own), true);
  }
}

}  // namespace multistage
