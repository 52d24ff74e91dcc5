// A user's program: a small model in a project of its own, drawing, and about to train twice.
#include <cstdio>
#include <multistage/multistage.hpp>

namespace ms = multistage;
using model = ms::multi_decoder<ms::song_unet{.resolution = 8,
                                              .channels = 1,
                                              .encoder_channels = 8,
                                              .channel_mult = {1, 2},
                                              .num_blocks = 1,
                                              .attn_resolutions = {4}},
                                ms::decoders{{12, 8}}>;

int main() {
  model net(ms::partition({1.0}), ms::seed{1});
  const auto pictures = ms::sample(net, ms::edm_heun{.num_steps = 2}, {.seeds = "0-1"});
  const std::vector<float> images(16 * 64, 0.5F);
  for (int twice = 0; twice < 2; ++twice) {
    std::vector<float> some = images;
    for (std::size_t i = 0; i < some.size(); i += 3)
      some[i] = -0.5F;
    const ms::trainer trainer{net, std::span<const float>(some), ms::shape{16, 8, 8, 1},
                              ms::trainer_options{.batch_size = 4}};
  }
  std::printf("%zu values\n", pictures.images.size());
  return pictures.images.size() == 128 ? 0 : 1;
}
