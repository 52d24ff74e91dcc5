// The GPU's side of the race against PyTorch (bench/race_torch.py --device cuda): forward
// passes or training steps of a network.
//   race_cuda --network NAME --batch N [--train] [--tf32] [--repeats N] [--profile]
// Prints a JSON line a stage: {"network", "stage", "batch", "precision", "forward_s" or
// "train_step_s", "gflop_per_s", "bytes"}; times are the median of the repeats, after passes
// that are not counted; bytes are what the device's memory holds in all.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <multistage/cuda.hpp>

#include "networks.hpp"

namespace ms = multistage;

namespace {

template <class Pass>
double median_seconds(int repeats, const ms::cuda& b, Pass&& pass) {
  for (int i = 0; i < 3; ++i)
    pass();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    b.synchronize();
    const auto begin = std::chrono::steady_clock::now();
    pass();
    b.synchronize();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return seconds[seconds.size() / 2];
}

struct options {
  std::string network;
  ms::index_t batch = 64;
  int repeats = 10;
  bool train = false;
  bool tf32 = false;
  bool profile = false;
};

void race(const options& o, int s) {
  const ms::configuration config = bench::network(o.network);
  ms::cuda b;
  set_precision(b, o.tf32 ? ms::product_precision::tf32 : ms::product_precision::full);
  ms::dynamic_model<float, ms::cuda> model(b, config, bench::stages_of(config), 1);
  const ms::shape images = model.images(o.batch);
  const double sigma = bench::sigma_in(s);
  std::map<std::string, double> by_kind;
  const auto observe = [&](bool on) {
    if (!o.profile)
      return;
    model.engine().observer = nullptr;
    if (on)
      model.engine().observer = [&](int node, ms::step_kind kind, double seconds) {
        by_kind[std::string(name_of(model.network().nodes[std::size_t(node)].what)) +
                (kind == ms::step_kind::backward        ? ", backward"
                 : kind == ms::step_kind::remake        ? ", again"
                 : kind == ms::step_kind::zero_gradient ? ", zeros"
                                                        : "")] += seconds;
      };
  };
  double seconds = 0;
  const auto timed = [&](auto&& pass) {
    seconds = median_seconds(o.repeats, b, pass);
    observe(true);
    if (o.profile)
      pass();
    observe(false);
  };
  if (o.train) {
    std::vector<float> data(static_cast<std::size_t>(images.size()));
    for (std::size_t i = 0; i < data.size(); ++i)
      data[i] = float(2 * ms::random_stream(1).uniform(i) - 1);
    const ms::training_batch<float> given{data, std::vector<float>(data.size(), 0.5f),
                                          std::vector<double>(std::size_t(o.batch), sigma)};
    std::vector<float> set = data;  // two images at least, unequal
    set.insert(set.end(), data.rbegin(), data.rend());
    ms::trainer_options t;
    t.batch_size = o.batch;
    ms::trainer trainer{model, std::span<const float>(set), model.images(2 * o.batch), t};
    timed([&] { trainer.step(given); });
  } else {
    const ms::tensor<double, ms::cuda> x(b, images,
                                         std::vector<double>(std::size_t(images.size()), 0.3));
    ms::tensor<double, ms::cuda> d(b, images);
    const std::vector<double> sigmas(std::size_t(o.batch), sigma);
    timed([&] { model.denoise(x.view(), sigmas, d.view(), {}, o.batch); });
  }
  std::size_t left = 0;
  std::size_t all = 0;
  cudaMemGetInfo(&left, &all);
  const double macs =
      double(ms::cost_of_stage(model.network(), s).macs) * double(o.batch) * (o.train ? 3 : 1);
  std::printf(
      "{\"network\": \"%s\", \"stage\": %d, \"batch\": %lld, \"precision\": \"%s\", \"%s\": "
      "%.6g, "
      "\"gflop_per_s\": %.4g, \"bytes\": %zu}\n",
      o.network.c_str(), s, static_cast<long long>(o.batch), o.tf32 ? "tf32" : "full",
      o.train ? "train_step_s" : "forward_s", seconds, 2 * macs / seconds / 1e9, all - left);
  for (const auto& [kind, time] : by_kind)
    std::printf("  %-24s %9.3f ms\n", kind.c_str(), time * 1e3);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Forward passes or training steps of a network on a GPU, stage by stage, as JSON lines"};
  options o;
  int stage = -1;
  app.add_option("--network", o.network, "which network")
      ->required()
      ->check(CLI::IsMember(bench::network_names));
  app.add_option("--batch", o.batch, "images in a batch")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--repeats", o.repeats, "timed repeats, of which the median counts")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--stage", stage, "this stage alone");
  app.add_flag("--train", o.train,
               "time a training step: forward, backward, Adam and the average");
  app.add_flag("--tf32", o.tf32,
               "products of 11 significant bits, PyTorch's default for convolutions");
  app.add_flag("--profile", o.profile,
               "milliseconds by kind of operation of one pass more, each waited for");
  CLI11_PARSE(app, argc, argv);
  return ms::exit_status([&] {
    for (int s = 0; s < bench::network(o.network).stages.stage_count(); ++s)
      if (stage < 0 || stage == s)
        race(o, s);
    return 0;
  });
}
