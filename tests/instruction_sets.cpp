// What a unit compiled for one instruction set computes, as bits; see instruction_sets.sh.
#include <cstdio>
#include <multistage/core/fingerprint.hpp>
#include <multistage/multistage.hpp>

namespace ms = multistage;

namespace {
constexpr ms::song_unet network{.resolution = 8,
                                .channels = 1,
                                .encoder_channels = 32,
                                .channel_mult = {1, 2},
                                .num_blocks = 1,
                                .attn_resolutions = {4}};
using model = ms::multi_decoder<network, ms::decoders{32, 16}>;

template <class T>
unsigned long long bits_of(const std::vector<T>& values) {
  return std::stoull(ms::fingerprint_of(std::span<const T>(values)), nullptr, 16);
}
}  // namespace

void UNIT() {
  const ms::cpu b(2);
  std::vector<float> images(20 * 64);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(i * 7 % 13) / 6.5f - 1;
  model net(ms::partition({1.0}), ms::seed{1}, 0.5, b);
  ms::trainer t{net,
                std::span<const float>(images),
                ms::shape{20, 8, 8, 1},
                {.learning_rate = 1e-3, .lr_rampup_kimg = 0, .batch_size = 8}};
  for (int i = 0; i < 3; ++i)
    t.step();
  std::printf("weights %016llx\n", bits_of(net.weights().to_host()));
  const auto pictures = ms::sample(net, ms::edm_heun{.num_steps = 3}, {.seeds = "0-3"});
  std::printf("pictures %016llx\n", bits_of(pictures.images));
  const auto stages = ms::similarity_between_times(b, std::span<const float>(images),
                                                   ms::shape{20, 8, 8, 1}, 3, {.draws = 4});
  std::printf("similarity %016llx\n", bits_of(stages.matrix));
}
