// A user's program: the README's model in a project of its own.
#include <cstdio>
#include <multistage/multistage.hpp>

namespace ms = multistage;
using model =
    ms::multi_decoder<ms::song_unet{.resolution = 8, .channels = 1, .encoder_channels = 8, .channel_mult = {1, 2}, .num_blocks = 1, .attn_resolutions = {4}},
                      ms::decoders{{12, 8}}>;

int main() {
  model net(ms::partition({1.0}), ms::seed{1});
  const auto pictures = ms::sample(net, ms::edm_heun{.num_steps = 2}, {.seeds = "0-1"});
  std::printf("%zu values\n", pictures.images.size());
  return pictures.images.size() == 128 ? 0 : 1;
}
