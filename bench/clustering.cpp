// The stages' programmes: seconds of a posterior mean, of the interval programme and of the
// exact N-stage partition, as JSON lines. For comparison, the reference implementation in
// Python took 0.66 s, 1.2 to 1.7 s and minutes (with a commercial solver) for the same three.
//   clustering [--threads N]
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <multistage/multistage.hpp>
#include <multistage/stages/interval_clustering.hpp>

namespace ms = multistage;

int main(int argc, char** argv) {
  CLI::App app{"Seconds of the clusterings' parts"};
  int threads = 0;
  app.add_option("--threads", threads)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  ms::cpu b(threads);
  const auto time = [](const char* what, double reference, int repeats, auto&& f) {
    double best = HUGE_VAL;
    for (int i = 0; i < repeats; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      f();
      best = std::min(
          best,
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    std::printf("{\"what\": \"%s\", \"seconds\": %.3g, \"reference_s\": %g, \"times\": %.0f}\n",
                what, best, reference, reference / best);
  };
  // A posterior mean over 10,000 images of 3,072 values. Queries share the reading of the data
  // set, so the figure for one is that of 64 at once.
  ms::tensor<float, ms::cpu> y(b, {10000, 1, 1, 3072}), x(b, {64, 1, 1, 3072}),
      d(b, {64, 1, 1, 3072});
  ms::fill_normal(b, ms::random_stream(1), y.size(), y.data());
  ms::fill_normal(b, ms::random_stream(2), x.size(), x.data());
  const ms::optimal_denoiser<float, ms::cpu> best(b, std::as_const(y).view());
  const std::vector<double> sigmas(64, 5.0);
  double each = 0;
  time("posterior means of 64 queries over 10000 x 3072", 64 * 0.66, 3,
       [&] { best(std::as_const(x).view(), sigmas, d.view()); });
  time("posterior mean of one query", 0.66, 3, [&] {
    best(std::as_const(x).view().rows(0, 1), std::span(sigmas).first(1), d.view().rows(0, 1));
  });
  for (const char* kind : {"timestep", "snr"})
    time(kind[0] == 't' ? "interval programme, timestep, n = 1000, k = 3"
                        : "interval programme, snr, n = 1000, k = 3",
         1.2, 5, [&] {
           each += double((kind[0] == 't' ? ms::cluster_by_timestep(1000, 3)
                                          : ms::cluster_by_snr(1000, 3))[1]);
         });
  std::vector<double> similarity(21 * 21);
  for (int i = 0; i < 21; ++i)
    for (int j = 0; j < 21; ++j)
      similarity[std::size_t(21 * i + j)] = std::exp(-0.2 * std::abs(i - j));
  for (int n : {3, 5})
    time(n == 3 ? "exact partition of 21 nodes into 3 stages"
                : "exact partition of 21 nodes into 5 stages",
         60, 5, [&] { each += ms::n_stage_partition(similarity, n).objective; });
  return each > 0 ? 0 : 1;
}
