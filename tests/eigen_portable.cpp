// A model on the Eigen backend that trains and draws in the scalar type that the compiler's
// command line names; prints pictures.
#include <cstdio>
#include <multistage/eigen.hpp>

namespace ms = multistage;
using model = ms::multi_decoder<ms::song_unet{.resolution = 8,
                                              .channels = 1,
                                              .encoder_channels = 8,
                                              .channel_mult = {1, 2},
                                              .num_blocks = 1,
                                              .attn_resolutions = {4}},
                                ms::decoders{12, 8},
                                ms::edm_schedule,
                                ms::eigen,
                                SCALAR>;

int main() {
  model net(ms::partition({1.0}), ms::seed{1});
  std::vector<float> images(std::size_t(net.images(4).size()));
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(2 * ms::random_stream(1).uniform(i) - 1);
  ms::trainer trainer{
      net,
      std::span<const float>(images),
      net.images(4),
      {.learning_rate = 1e-2, .lr_rampup_kimg = 0, .ema_halflife_kimg = 1e-3, .batch_size = 8}};
  for (int i = 0; i < 10; ++i)
    trainer.step();
  for (const double value :
       ms::sample(net, ms::edm_heun{.num_steps = 4}, {.seeds = "0-1"}).images)
    std::printf("%.17g\n", value);
}
