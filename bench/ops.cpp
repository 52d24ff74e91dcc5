// Microbenchmarks of every operation, forward and backward, on every host backend. Counters:
// FLOP/s (for products, as the direct algorithm counts them), and items/s (values written).
//   build/native/bench/bench_ops --benchmark_filter=conv
#include <benchmark/benchmark.h>

#include <multistage/eigen.hpp>
#include <multistage/multistage.hpp>
#include <multistage/ops/activation.hpp>
#include <multistage/ops/concat.hpp>
#include <multistage/ops/gaussian.hpp>
#include <multistage/ops/pool.hpp>
#include <multistage/ops/quantize.hpp>
#include <multistage/thrust.hpp>

namespace ms = multistage;

namespace {

template <class Backend>
struct bench {
  benchmark::State& state;
  Backend b{};
  ms::tensor<float, Backend> make(ms::shape s) {
    ms::tensor<float, Backend> t(b, s);
    ms::fill_normal(b, ms::random_stream(1), t.size(), t.data());
    return t;
  }
  template <class F>
  void run(double flop, ms::index_t items, F&& f) {
    for (auto _ : state) {
      f();
      benchmark::ClobberMemory();
    }
    if (flop > 0)
      state.counters["FLOP/s"] =
          benchmark::Counter(flop, benchmark::Counter::kIsIterationInvariantRate,
                             benchmark::Counter::OneK::kIs1000);
    state.SetItemsProcessed(state.iterations() * items);
  }
};

/// Shapes of the quickstart's network and of the paper's: rows, extent, in, out, kernel.
void conv_shapes(benchmark::internal::Benchmark* b) {
  b->Args({64, 8, 32, 32, 3})
      ->Args({64, 4, 64, 64, 3})
      ->Args({64, 8, 96, 48, 3})
      ->Args({4, 32, 256, 256, 3})
      ->Args({4, 16, 256, 256, 3})
      ->Args({4, 32, 16, 16, 3})
      ->Args({4, 32, 384, 192, 1})
      ->Args({4, 32, 3, 128, 3});
  b->ArgNames({"rows", "side", "in", "out", "kernel"})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}
template <class Backend>
void conv(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const ms::shape ys{s.range(0), s.range(1), s.range(1), s.range(3)};
  const int kernel = int(s.range(4));
  const auto x = k.make(xs);
  const auto w = k.make({kernel, kernel, s.range(2), s.range(3)});
  auto y = k.make(ys);
  k.run(2.0 * double(xs.rows * ys.pixels() * kernel * kernel * s.range(2) * s.range(3)),
        ys.size(), [&] {
          ms::ops::conv(k.b, x.view(), w.view(), y.view(), {kernel, 1, kernel / 2});
        });
}
template <class Backend>
void conv_backward(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const ms::shape ys{s.range(0), s.range(1), s.range(1), s.range(3)};
  const int kernel = int(s.range(4));
  const auto x = k.make(xs);
  const auto w = k.make({kernel, kernel, s.range(2), s.range(3)});
  const auto dy = k.make(ys);
  auto dx = k.make(xs);
  auto dw = k.make({kernel, kernel, s.range(2), s.range(3)});
  auto db = k.make({1, 1, 1, s.range(3)});
  k.run(4.0 * double(xs.rows * ys.pixels() * kernel * kernel * s.range(2) * s.range(3)),
        ys.size(), [&] {
          ms::ops::conv_backward(k.b, x.view(), w.view(), dy.view(), dx.view(), dw.view(),
                                 db.view(), {kernel, 1, kernel / 2});
        });
}
template <class Backend>
void matmul(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::index_t m = s.range(0);
  const ms::index_t n = s.range(1);
  const ms::index_t d = s.range(2);
  const auto a = k.make({m, 1, 1, d});
  const auto b = k.make({d, 1, 1, n});
  auto c = k.make({m, 1, 1, n});
  k.run(2.0 * double(m * n * d), m * n,
        [&] { ms::ops::matmul(k.b, a.view(), b.view(), c.view()); });
}
template <class Backend>
void group_norm_silu(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  const auto w = k.make({1, 1, 1, s.range(2)});
  const auto bias = k.make({1, 1, 1, s.range(2)});
  auto y = k.make(xs);
  auto stat = k.make({s.range(0), 1, 8, 2});
  k.run(0, xs.size(), [&] {
    ms::ops::group_norm(k.b, x.view(), w.view(), bias.view(), stat.view(), y.view(),
                        {.groups = 8, .silu = true});
  });
}
template <class Backend>
void group_norm_silu_backward(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  const auto w = k.make({1, 1, 1, s.range(2)});
  const auto bias = k.make({1, 1, 1, s.range(2)});
  const auto dy = k.make(xs);
  auto dx = k.make(xs);
  auto stat = k.make({s.range(0), 1, 8, 2});
  auto dw = k.make({1, 1, 1, s.range(2)});
  auto db = k.make({1, 1, 1, s.range(2)});
  auto partials = k.make({s.range(0), 1, 1, 2 * s.range(2)});
  ms::ops::group_norm(k.b, x.view(), w.view(), bias.view(), stat.view(), dx.view(),
                      {.groups = 8, .silu = true});
  k.run(0, xs.size(), [&] {
    ms::ops::group_norm_backward(k.b, x.view(), w.view(), bias.view(), stat.view(),
                                 {.groups = 8, .silu = true},
                                 {.dy = dy.data(),
                                  .dx = dx.data(),
                                  .dweight = dw.data(),
                                  .dbias = db.data(),
                                  .partials = partials.data()});
  });
}
template <class Backend>
void layer_norm(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  const auto w = k.make({1, 1, 1, s.range(2)});
  const auto bias = k.make({1, 1, 1, s.range(2)});
  auto y = k.make(xs);
  auto stat = k.make({s.range(0) * s.range(1) * s.range(1), 1, 1, 2});
  k.run(0, xs.size(), [&] {
    ms::ops::layer_norm(k.b, x.view(), w.view(), bias.view(), stat.view(), y.view());
  });
}
template <class Backend>
void attention(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape q{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto a = k.make(q);
  const auto b = k.make(q);
  const auto c = k.make(q);
  auto y = k.make(q);
  k.run(2.0 * double(q.rows * ms::ops::attention_macs(q.pixels(), q.pixels(), q.channels)),
        q.size(), [&] { ms::ops::attention(k.b, a.view(), b.view(), c.view(), y.view(), 1); });
}
template <class Backend>
void attention_backward(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape q{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto a = k.make(q);
  const auto b = k.make(q);
  const auto c = k.make(q);
  const auto dy = k.make(q);
  auto y = k.make(q);
  auto da = k.make(q);
  auto db = k.make(q);
  auto dc = k.make(q);
  auto lse = k.make({q.rows, 1, q.pixels(), 1});
  ms::ops::attention(k.b, a.view(), b.view(), c.view(), y.view(), 1, lse.view());
  k.run(5.0 * double(q.rows * ms::ops::attention_macs(q.pixels(), q.pixels(), q.channels)),
        q.size(), [&] {
          ms::ops::attention_backward(k.b, a.view(), b.view(), c.view(), y.view(), 1,
                                      lse.view(), dy.view(), da.view(), db.view(), dc.view());
        });
}
template <class Backend>
void resample_down(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  auto y = k.make({xs.rows, xs.height / 2, xs.width / 2, xs.channels});
  k.run(0, y.size(), [&] {
    ms::ops::resample(k.b, x.view(), y.view(), {{1, 3, 3, 1}}, false);
  });
}
template <class Backend>
void pool(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  auto y = k.make({xs.rows, xs.height / 2, xs.width / 2, xs.channels});
  k.run(0, y.size(), [&] {
    ms::ops::pool(k.b, x.view(), y.view(), ms::ops::pool_kind::maximum, {2, 2, 0});
  });
}
template <class Backend>
void pool_backward(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  const auto dy = k.make({xs.rows, xs.height / 2, xs.width / 2, xs.channels});
  auto dx = k.make(xs);
  k.run(0, dx.size(), [&] {
    ms::ops::pool_backward(k.b, x.view(), dy.view(), dx.view(), ms::ops::pool_kind::maximum,
                           {2, 2, 0});
  });
}
template <class Backend>
void resample_up(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  auto y = k.make({xs.rows, xs.height * 2, xs.width * 2, xs.channels});
  k.run(0, y.size(), [&] { ms::ops::resample(k.b, x.view(), y.view(), {{1, 3, 3, 1}}, true); });
}
template <class Backend>
void silu(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({1, 1, 1, s.range(0)});
  auto y = k.make({1, 1, 1, s.range(0)});
  k.run(0, x.size(), [&] { ms::ops::silu(k.b, x.view(), y.view()); });
}
template <class Backend>
void gelu(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({1, 1, 1, s.range(0)});
  auto y = k.make({1, 1, 1, s.range(0)});
  k.run(0, x.size(), [&] { ms::ops::gelu(k.b, x.view(), y.view()); });
}
template <class Backend>
void linear_combination(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({1, 1, 1, s.range(0)});
  const auto z = k.make({1, 1, 1, s.range(0)});
  auto y = k.make({1, 1, 1, s.range(0)});
  k.run(0, x.size(), [&] {
    ms::ops::linear_combination<Backend, float>(k.b, x.size(), y.data(),
                                                {{2.0f, x.data()}, {3.0f, z.data()}});
  });
}
template <class Backend>
void sum(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({1, 1, 1, s.range(0)});
  k.run(0, x.size(),
        [&] { benchmark::DoNotOptimize(ms::ops::sum<Backend, float>(k.b, x.view())); });
}
template <class Backend>
void normal_numbers(benchmark::State& s) {
  bench<Backend> k{s};
  auto x = k.make({1, 1, 1, s.range(0)});
  k.run(0, x.size(), [&] { ms::fill_normal(k.b, ms::random_stream(1), x.size(), x.data()); });
}
template <class Backend>
void embedding(benchmark::State& s) {
  bench<Backend> k{s};
  const auto v = k.make({s.range(0), 1, 1, 1});
  auto y = k.make({s.range(0), 1, 1, s.range(1)});
  k.run(0, y.size(), [&] { ms::ops::embedding(k.b, v.view(), y.view()); });
}
template <class Backend>
void layer_norm_backward(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const ms::index_t tokens = xs.rows * xs.pixels();
  const auto x = k.make(xs);
  const auto w = k.make({1, 1, 1, s.range(2)});
  const auto bias = k.make({1, 1, 1, s.range(2)});
  const auto dy = k.make(xs);
  auto dx = k.make(xs);
  auto stat = k.make({tokens, 1, 1, 2});
  auto partials = k.make({tokens, 1, 1, 2 * s.range(2)});
  ms::ops::layer_norm(k.b, x.view(), w.view(), bias.view(), stat.view(), dx.view());
  k.run(0, xs.size(), [&] {
    ms::ops::layer_norm_backward(
        k.b, x.view(), w.view(), bias.view(), stat.view(),
        {.dy = dy.data(), .dx = dx.data(), .partials = partials.data()});
  });
}
template <class Backend>
void linear(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({s.range(0), 1, 1, s.range(1)});
  const auto w = k.make({1, 1, s.range(1), s.range(1)});
  auto y = k.make({s.range(0), 1, 1, s.range(1)});
  k.run(2.0 * double(s.range(0) * s.range(1) * s.range(1)), y.size(),
        [&] { ms::ops::linear(k.b, x.view(), w.view(), y.view()); });
}
template <class Backend>
void silu_backward(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({1, 1, 1, s.range(0)});
  const auto dy = k.make({1, 1, 1, s.range(0)});
  auto dx = k.make({1, 1, 1, s.range(0)});
  k.run(0, x.size(), [&] { ms::ops::silu_backward(k.b, x.view(), dy.view(), dx.view()); });
}
template <class Backend>
void gelu_backward(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({1, 1, 1, s.range(0)});
  const auto dy = k.make({1, 1, 1, s.range(0)});
  auto dx = k.make({1, 1, 1, s.range(0)});
  k.run(0, x.size(), [&] { ms::ops::gelu_backward(k.b, x.view(), dy.view(), dx.view()); });
}
template <class Backend>
void add_row(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  const auto row = k.make({s.range(0), 1, 1, s.range(2)});
  auto y = k.make(xs);
  k.run(0, y.size(), [&] { ms::ops::add_row(k.b, x.view(), row.view(), y.view()); });
}
template <class Backend>
void concat(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  const auto x2 = k.make(xs);
  auto y = k.make({xs.rows, xs.height, xs.width, 2 * xs.channels});
  k.run(0, y.size(), [&] { ms::ops::concat(k.b, x.view(), x2.view(), y.view()); });
}
template <class Backend>
void split(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto y = k.make({xs.rows, xs.height, xs.width, 2 * xs.channels});
  auto x = k.make(xs);
  k.run(0, x.size(), [&] { ms::ops::split(k.b, y.view(), xs.channels, x.view()); });
}
template <class Backend>
void import_nchw(benchmark::State& s) {
  bench<Backend> k{s};
  const ms::shape xs{s.range(0), s.range(1), s.range(1), s.range(2)};
  const auto x = k.make(xs);
  auto y = k.make(xs);
  k.run(0, x.size(), [&] { ms::ops::copy(k.b, ms::nchw(x.data(), xs), y.view()); });
}
template <class Backend>
void sum_over_pixels(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({s.range(0), s.range(1), s.range(1), s.range(2)});
  auto y = k.make({1, 1, 1, s.range(2)});
  k.run(0, x.size(), [&] { ms::ops::sum_over_pixels(k.b, x.view(), y.view()); });
}
template <class Backend>
void geglu(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({s.range(0), s.range(1), s.range(1), 2 * s.range(2)});
  auto y = k.make({s.range(0), s.range(1), s.range(1), s.range(2)});
  k.run(0, y.size(), [&] { ms::ops::geglu(k.b, x.view(), y.view()); });
}
template <class Backend>
void geglu_backward(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({s.range(0), s.range(1), s.range(1), 2 * s.range(2)});
  const auto dy = k.make({s.range(0), s.range(1), s.range(1), s.range(2)});
  auto dx = k.make(x.extents());
  k.run(0, dx.size(), [&] { ms::ops::geglu_backward(k.b, x.view(), dy.view(), dx.view()); });
}
template <class Backend>
void dropout(benchmark::State& s) {
  bench<Backend> k{s};
  const auto x = k.make({1, 1, 1, s.range(0)});
  auto y = k.make(x.extents());
  k.run(0, y.size(),
        [&] { ms::ops::dropout(k.b, x.view(), y.view(), 0.1, ms::random_stream(3)); });
}
/// Latent pixels to the nearest of the codes; items are pixels.
template <class Backend>
void quantize(benchmark::State& s) {
  bench<Backend> k{s};
  const auto z = k.make({1, s.range(0), s.range(0), 3});
  const auto codes = k.make({1, 1, s.range(1), 3});
  auto q = k.make(z.extents());
  ms::tensor<ms::index_t, Backend> index(k.b, {1, s.range(0), s.range(0), 1});
  k.run(0, z.extents().pixels(),
        [&] { ms::ops::quantize(k.b, z.view(), codes.view(), index.data(), q.view()); });
}
template <class Backend>
void quantize_backward(benchmark::State& s) {
  bench<Backend> k{s};
  const auto z = k.make({1, s.range(0), s.range(0), 3});
  const auto codes = k.make({1, 1, s.range(1), 3});
  const auto dq = k.make(z.extents());
  auto q = k.make(z.extents());
  auto dz = k.make(z.extents());
  auto dcodes = k.make(codes.extents());
  ms::tensor<ms::index_t, Backend> index(k.b, {1, s.range(0), s.range(0), 1});
  ms::ops::quantize(k.b, z.view(), codes.view(), index.data(), q.view());
  k.run(0, z.extents().pixels(), [&] {
    ms::ops::quantize_backward(k.b, z.view(), codes.view(), index.data(), q.view(), dq.view(),
                               0.25, dz.view(), dcodes.view());
  });
}
template <class Backend>
void gaussian(benchmark::State& s) {
  bench<Backend> k{s};
  const auto m = k.make({1, 1, 1, 2 * s.range(0)});
  const auto noise = k.make({1, 1, 1, s.range(0)});
  auto z = k.make(noise.extents());
  auto dm = k.make(m.extents());
  k.run(0, z.size(), [&] {
    ms::ops::sample_gaussian(k.b, m.view(), noise.view(), z.view());
    ms::ops::gaussian_backward(k.b, m.view(), noise.view(), z.view(), 1e-6, dm.view());
  });
}
/// Posterior means over a data set; items are queries.
template <class Backend>
void optimal_denoiser(benchmark::State& s) {
  bench<Backend> k{s};
  const auto y = k.make({s.range(0), 1, 1, s.range(1)});
  const auto x = k.make({64, 1, 1, s.range(1)});
  auto d = k.make({64, 1, 1, s.range(1)});
  const ms::optimal_denoiser<float, Backend> best(k.b, y.view());
  const std::vector<double> sigmas(64, 5.0);
  k.run(4.0 * 64 * double(s.range(0) * s.range(1)), 64,
        [&] { best(x.view(), sigmas, d.view()); });
}

/// A step of Adam with the average of the weights; items are weights.
template <class Backend, bool Decays>
void adam(benchmark::State& s) {
  bench<Backend> k{s};
  const auto gradient = k.make({1, 1, 1, s.range(0)});
  auto weight = k.make(gradient.extents());
  auto first = k.make(gradient.extents());
  auto second = k.make(gradient.extents());
  auto average = k.make(gradient.extents());
  const ms::tensor<std::uint8_t, Backend> decays(
      k.b, gradient.extents(), std::vector<std::uint8_t>(std::size_t(s.range(0)), 1));
  ms::functor::adam_and_average<float, Decays> step{
      gradient.data(), weight.data(), first.data(), second.data(), average.data(), 0.9f,
      0.999f,          1e-8f,         1e-4f,        1.1f,          1.01f,          1,
      0.999f,          true};
  step.kept = 0.999f;
  step.decays = decays.data();
  k.b.for_each_index(s.range(0), ms::ops::functor::set<float>{1, second.data()});
  k.run(0, s.range(0), [&] { k.b.for_each_index(s.range(0), step); });
}
template <class Backend>
void adam_and_average(benchmark::State& s) {
  adam<Backend, false>(s);
}
template <class Backend>
void adamw_and_average(benchmark::State& s) {
  adam<Backend, true>(s);
}
/// A further average of the weights; items are weights.
template <class Backend>
void further_average(benchmark::State& s) {
  bench<Backend> k{s};
  const auto weight = k.make({1, 1, 1, s.range(0)});
  auto average = k.make(weight.extents());
  const ms::functor::follow<float> step{weight.data(), average.data(), 0.999f};
  k.run(0, s.range(0), [&] { k.b.for_each_index(s.range(0), step); });
}

void image_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "side", "channels"})
      ->Args({64, 8, 48})
      ->Args({4, 32, 256})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}
void attention_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "side", "channels"})
      ->Args({64, 4, 64})
      ->Args({4, 16, 256})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}
void lengths(benchmark::internal::Benchmark* b) {
  b->ArgName("values")->Arg(1 << 12)->Arg(1 << 20)->UseRealTime()->Unit(
      benchmark::kMicrosecond);
}

#define MULTISTAGE_BENCH_ON(backend)                                          \
  BENCHMARK_TEMPLATE(conv, backend)->Apply(conv_shapes);                      \
  BENCHMARK_TEMPLATE(conv_backward, backend)->Apply(conv_shapes);             \
  BENCHMARK_TEMPLATE(matmul, backend)                                         \
      ->ArgNames({"rows", "columns", "inner"})                                \
      ->Args({1024, 512, 512})                                                \
      ->Args({64, 128, 128})                                                  \
      ->UseRealTime()                                                         \
      ->Unit(benchmark::kMicrosecond);                                        \
  BENCHMARK_TEMPLATE(group_norm_silu, backend)->Apply(image_shapes);          \
  BENCHMARK_TEMPLATE(group_norm_silu_backward, backend)->Apply(image_shapes); \
  BENCHMARK_TEMPLATE(layer_norm, backend)->Apply(image_shapes);               \
  BENCHMARK_TEMPLATE(layer_norm_backward, backend)->Apply(image_shapes);      \
  BENCHMARK_TEMPLATE(linear, backend)                                         \
      ->ArgNames({"rows", "channels"})                                        \
      ->Args({64, 128})                                                       \
      ->UseRealTime()                                                         \
      ->Unit(benchmark::kMicrosecond);                                        \
  BENCHMARK_TEMPLATE(silu_backward, backend)->Apply(lengths);                 \
  BENCHMARK_TEMPLATE(gelu_backward, backend)->Apply(lengths);                 \
  BENCHMARK_TEMPLATE(add_row, backend)->Apply(image_shapes);                  \
  BENCHMARK_TEMPLATE(concat, backend)->Apply(image_shapes);                   \
  BENCHMARK_TEMPLATE(split, backend)->Apply(image_shapes);                    \
  BENCHMARK_TEMPLATE(import_nchw, backend)->Apply(image_shapes);              \
  BENCHMARK_TEMPLATE(sum_over_pixels, backend)->Apply(image_shapes);          \
  BENCHMARK_TEMPLATE(attention, backend)->Apply(attention_shapes);            \
  BENCHMARK_TEMPLATE(attention_backward, backend)->Apply(attention_shapes);   \
  BENCHMARK_TEMPLATE(geglu, backend)->Apply(image_shapes);                    \
  BENCHMARK_TEMPLATE(geglu_backward, backend)->Apply(image_shapes);           \
  BENCHMARK_TEMPLATE(dropout, backend)->Apply(lengths);                       \
  BENCHMARK_TEMPLATE(adam_and_average, backend)->Apply(lengths);              \
  BENCHMARK_TEMPLATE(adamw_and_average, backend)->Apply(lengths);             \
  BENCHMARK_TEMPLATE(further_average, backend)->Apply(lengths);               \
  BENCHMARK_TEMPLATE(quantize, backend)                                       \
      ->ArgNames({"side", "codes"})                                           \
      ->Args({64, 8192})                                                      \
      ->UseRealTime()                                                         \
      ->Unit(benchmark::kMicrosecond);                                        \
  BENCHMARK_TEMPLATE(quantize_backward, backend)                              \
      ->ArgNames({"side", "codes"})                                           \
      ->Args({64, 8192})                                                      \
      ->UseRealTime()                                                         \
      ->Unit(benchmark::kMicrosecond);                                        \
  BENCHMARK_TEMPLATE(gaussian, backend)->Apply(lengths);                      \
  BENCHMARK_TEMPLATE(pool, backend)->Apply(image_shapes);                     \
  BENCHMARK_TEMPLATE(pool_backward, backend)->Apply(image_shapes);            \
  BENCHMARK_TEMPLATE(resample_down, backend)->Apply(image_shapes);            \
  BENCHMARK_TEMPLATE(resample_up, backend)->Apply(image_shapes);              \
  BENCHMARK_TEMPLATE(silu, backend)->Apply(lengths);                          \
  BENCHMARK_TEMPLATE(gelu, backend)->Apply(lengths);                          \
  BENCHMARK_TEMPLATE(linear_combination, backend)->Apply(lengths);            \
  BENCHMARK_TEMPLATE(sum, backend)->Apply(lengths);                           \
  BENCHMARK_TEMPLATE(normal_numbers, backend)->Apply(lengths);                \
  BENCHMARK_TEMPLATE(embedding, backend)                                      \
      ->ArgNames({"rows", "channels"})                                        \
      ->Args({64, 128})                                                       \
      ->UseRealTime()                                                         \
      ->Unit(benchmark::kMicrosecond);                                        \
  BENCHMARK_TEMPLATE(optimal_denoiser, backend)                               \
      ->ArgNames({"images", "values"})                                        \
      ->Args({1400, 64})                                                      \
      ->Args({10000, 3072})                                                   \
      ->UseRealTime()                                                         \
      ->Unit(benchmark::kMillisecond)

// What stands above the table of results.
const bool explained = [] {
  benchmark::AddCustomContext("names",
                              "operation<backend>/sizes; side: rows and columns of square "
                              "images, in and out: channels, kernel: side of the kernel");
  benchmark::AddCustomContext("columns",
                              "Time is wall time a call, CPU the calling thread's; FLOP/s "
                              "counts the direct algorithm's, items/s the values written");
  benchmark::AddCustomContext(
      "a warning 'Library was built as DEBUG'",
      "is of Debian's package of Google Benchmark, whose timer it concerns; not of multistage");
  return true;
}();

MULTISTAGE_BENCH_ON(ms::cpu);
MULTISTAGE_BENCH_ON(ms::eigen);
MULTISTAGE_BENCH_ON(ms::thrust_host);

}  // namespace
