// What a step of an autoencoder's training is made of, in pictures of 64 x 64 a second: the
// perceptual distance and its gradient, the discriminator's two passes, the whole step without
// and with the discriminator.
#include <benchmark/benchmark.h>

#include <multistage/multistage.hpp>
#include <multistage/training/autoencoder_trainer.hpp>

namespace ms = multistage;

namespace {

constexpr ms::index_t batch = 8;
constexpr ms::shape image{batch, 64, 64, 3};

std::vector<float> noise(ms::index_t n) {
  std::vector<float> v(std::size_t(n), 0.0f);
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = float(2 * ms::random_stream(1).uniform(i) - 1);
  return v;
}
ms::tensor<float, ms::cpu> pictures(const ms::cpu& b) {
  return {b, image, noise(image.size())};
}
void count(benchmark::State& s) {
  s.counters["images/s"] =
      benchmark::Counter(double(batch), benchmark::Counter::kIsIterationInvariantRate);
}

void perceptual_gradient(benchmark::State& s) {
  const ms::cpu b;
  auto d = ms::perceptual_distance<float, ms::cpu>::of_random_convolutions(b, image);
  const auto x = pictures(b);
  const ms::tensor<float, ms::cpu> y(b, image);
  ms::tensor<float, ms::cpu> dx(b, image);
  for (auto _ : s)
    benchmark::DoNotOptimize(d.differentiate(x.view(), y.view(), 1, dx.view()));
  count(s);
}

void discriminator_passes(benchmark::State& s) {
  const ms::cpu b;
  ms::discriminator<float, ms::cpu> critic(b, {.resolution = 64, .width = 16, .layers = 2}, 1);
  const auto x = pictures(b);
  ms::tensor<float, ms::cpu> dx(b, image);
  ms::tensor<float, ms::cpu> dw(b, critic.weights().extents());
  for (auto _ : s) {
    benchmark::DoNotOptimize(critic.deceive(x.view(), 1, dx.view()));
    benchmark::DoNotOptimize(critic.differentiate(x.view(), x.view(), dw.data()));
  }
  count(s);
}

/// The autoencoder of examples/latent.sh. Range: whether the discriminator is at work.
void autoencoder_step(benchmark::State& s) {
  ms::autoencoder_model<float, ms::cpu> model(ms::cpu(),
                                              {.resolution = 64,
                                               .encoder_channels = 16,
                                               .num_blocks = 1,
                                               .n_embed = 256,
                                               .norm_groups = 8},
                                              1);
  ms::shape set = image;
  set.rows = 64;
  const std::vector<float> values = noise(set.size());
  ms::autoencoder_trainer t(model, ms::image_source::of(std::span<const float>(values), set),
                            {.batch_size = batch,
                             .discriminator_kimg = s.range(0) ? 0.0 : 1e6,
                             .discriminator_width = 16,
                             .discriminator_layers = 2});
  for (auto _ : s)
    benchmark::DoNotOptimize(t.step());
  count(s);
}

}  // namespace

BENCHMARK(perceptual_gradient)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(discriminator_passes)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(autoencoder_step)->Arg(0)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
