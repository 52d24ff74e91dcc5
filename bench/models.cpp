// End to end: images per second of training and of sampling, for the quickstart's model and for
// each stage of the paper's EDM model.
#include <benchmark/benchmark.h>

#include <multistage/diffusion/paper_models.hpp>
#include <multistage/eigen.hpp>
#include <multistage/multistage.hpp>
#include <multistage/thrust.hpp>

namespace ms = multistage;

namespace {

template <class Backend>
using quickstart = ms::multi_decoder<ms::song_unet{.resolution = 8,
                                                   .channels = 1,
                                                   .encoder_channels = 32,
                                                   .channel_mult = {1, 2},
                                                   .num_blocks = 1,
                                                   .attn_resolutions = {4}},
                                     ms::decoders{{48, 32, 16}},
                                     ms::edm_schedule,
                                     Backend>;

/// Rows of the given stage (or, below 0, as training draws them); counters: images/s and the
/// arena's bytes.
template <class Model>
void training_step(benchmark::State& s) {
  Model net(ms::partition({2.5103, 7.6577}), ms::seed{1});
  const ms::index_t rows = s.range(0);
  const auto count = net.images(1).row_size();
  std::vector<float> images(std::size_t(64 * count));
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(2 * ms::random_stream(1).uniform(i) - 1);
  ms::trainer_options o{.batch_size = rows};
  if (s.range(1) >= 0) {
    o.stage_probabilities.assign(3, 0.0);
    o.stage_probabilities[std::size_t(s.range(1))] = 1;
  }
  ms::trainer t{net, std::span<const float>(images), net.images(64), o};
  for (auto _ : s)
    t.step();
  s.SetItemsProcessed(s.iterations() * rows);
  s.counters["activation_bytes"] = double(net.engine().arena_bytes());
}
template <class Model>
void forward(benchmark::State& s) {
  Model net(ms::partition({2.5103, 7.6577}), ms::seed{1});
  auto b = net.backend();
  const ms::index_t rows = s.range(0);
  ms::tensor<double, typename Model::backend_type> x(b, net.images(rows)),
      d(b, net.images(rows));
  const std::vector<double> sigmas(std::size_t(rows),
                                   std::array{1.0, 5.0, 50.0}[std::size_t(s.range(1))]);
  for (auto _ : s)
    net.denoise(x.view(), sigmas, d.view(), {}, rows);
  s.SetItemsProcessed(s.iterations() * rows);
  s.counters["FLOP/s"] = benchmark::Counter(2.0 * double(rows * Model::macs(int(s.range(1)))),
                                            benchmark::Counter::kIsIterationInvariantRate,
                                            benchmark::Counter::OneK::kIs1000);
}
template <class Model>
void sampling(benchmark::State& s) {
  Model net(ms::partition({0.55, 42}), ms::seed{1});
  for (auto _ : s)
    ms::sample(net, ms::edm_heun{.num_steps = 18}, {.seeds = "0-63"});
  s.SetItemsProcessed(s.iterations() * 64);
}

void stages(benchmark::internal::Benchmark* b) {
  for (int stage = 0; stage < 3; ++stage)
    b->Args({4, stage});
  b->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_TEMPLATE(training_step, quickstart<ms::cpu>)
    ->Args({64, -1})
    ->Args({128, -1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(training_step, quickstart<ms::eigen>)
    ->Args({64, -1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(training_step, quickstart<ms::thrust_host>)
    ->Args({64, -1})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(forward, quickstart<ms::cpu>)
    ->Args({64, 0})
    ->Args({64, 1})
    ->Args({64, 2})
    ->Args({1, 0})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(forward, quickstart<ms::eigen>)
    ->Args({64, 0})
    ->Args({64, 1})
    ->Args({64, 2})
    ->Args({1, 0})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_TEMPLATE(sampling, quickstart<ms::cpu>)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(forward, ms::paper::edm_cifar10_multistage<>)->Apply(stages);
BENCHMARK_TEMPLATE(forward, ms::paper::edm_cifar10_multistage<ms::eigen>)->Apply(stages);
BENCHMARK_TEMPLATE(training_step, ms::paper::edm_cifar10_multistage<>)->Apply(stages);

BENCHMARK_TEMPLATE(forward, ms::paper::vp_cifar10_multistage<>)->Apply(stages);
BENCHMARK_TEMPLATE(forward, ms::paper::ldm_celeba256_multistage<>)->Apply(stages);
BENCHMARK_TEMPLATE(forward, ms::paper::ldm_imagenet256_multistage<>)->Apply(stages);

}  // namespace
