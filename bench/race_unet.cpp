// One side of the race against PyTorch (bench/race.sh): forward passes or training steps of a
// network, stage by stage.
//   race_unet --network NAME --batch N [--train [--checkpoint]] [--threads N] [--repeats N]
// Prints a JSON line a stage: {"network", "stage", "batch", "threads", "forward_s" or
// "train_step_s", "gflop_per_s", "peak_bytes"}; times are the best of the repeats, after one
// pass that is not counted. peak_bytes: what a pass takes at its peak beyond weights (in
// training also gradients, two moments and the average), all of which are touched before; each
// stage runs in a process of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <multistage/multistage.hpp>

#include "machine_peak.hpp"
#include "networks.hpp"

namespace ms = multistage;

namespace {

/// Bytes of a line of /proc/self/status.
double status_bytes(const char* line) {
  std::ifstream f("/proc/self/status");
  std::string word;
  while (f >> word)
    if (word == line) {
      double kib = 0;
      f >> kib;
      return kib * 1024;
    }
  return 0;
}
/// Makes the peak of resident memory start from what is resident now.
void forget_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

void race(const std::string& name,
          int s,
          ms::index_t batch,
          int threads,
          int repeats,
          bool train,
          bool checkpoint) {
  const ms::configuration config = bench::network(name);
  const ms::cpu b(threads);
  ms::dynamic_model<float, ms::cpu> model(b, config, bench::stages_of(config), 1);
  const ms::shape images = model.images(batch);
  const double sigma = bench::sigma_in(s);
  double seconds = 0;
  double peak = 0;
  const auto timed = [&](auto&& pass) {
    const double before = status_bytes("VmRSS:");
    forget_peak();
    pass();  // weights are prepared, memory is taken
    seconds = bench::seconds_of(repeats, pass);
    peak = std::max(status_bytes("VmHWM:") - before, 0.0);
  };
  if (train) {
    std::vector<float> data(static_cast<std::size_t>(images.size()));
    for (std::size_t i = 0; i < data.size(); ++i)
      data[i] = float(2 * ms::random_stream(1).uniform(i) - 1);
    const ms::training_batch<float> given{data, std::vector<float>(data.size(), 0.5f),
                                          std::vector<double>(std::size_t(batch), sigma)};
    std::vector<float> set = data;  // two images at least, unequal
    set.insert(set.end(), data.rbegin(), data.rend());
    ms::trainer_options o;
    o.batch_size = batch;
    o.checkpoint_activations = checkpoint;
    ms::trainer t{model, std::span<const float>(set), model.images(2 * batch), o};
    for (ms::tensor<float, ms::cpu>* moment :
         {&t.first_moment(), &t.second_moment(), &t.gradient()})
      std::fill_n(moment->data(), moment->size(), 0.0f);
    timed([&] { t.step(given); });
  } else {
    const ms::tensor<double, ms::cpu> x(b, images,
                                        std::vector<double>(std::size_t(images.size()), 0.3));
    ms::tensor<double, ms::cpu> d(b, images);
    const std::vector<double> sigmas(std::size_t(batch), sigma);
    timed([&] { model.denoise(x.view(), sigmas, d.view(), {}, batch); });
  }
  const double macs =
      double(ms::cost_of_stage(model.network(), s).macs) * double(batch) * (train ? 3 : 1);
  std::printf(
      "{\"network\": \"%s\", \"stage\": %d, \"batch\": %lld, \"threads\": %d, \"%s\": %.6g, "
      "\"gflop_per_s\": %.4g, \"peak_bytes\": %.0f}\n",
      name.c_str(), s, static_cast<long long>(batch), b.threads(),
      train ? "train_step_s" : "forward_s", seconds, 2 * macs / seconds / 1e9, peak);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Forward passes or training steps of a network, stage by stage, as JSON lines"};
  std::string name;
  ms::index_t batch = 4;
  int threads = 0;
  int repeats = 5;
  bool train = false;
  bool checkpoint = false;
  app.add_option("--network", name, "which network")
      ->required()
      ->check(CLI::IsMember(bench::network_names));
  app.add_option("--batch", batch, "images in a batch")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_flag("--train", train,
               "time a training step: forward, backward, Adam and the average");
  app.add_option("--threads", threads, "threads; 0: one a core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--repeats", repeats, "timed repeats, of which the best counts")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_flag("--checkpoint", checkpoint,
               "a training step makes activations again instead of keeping them");
  CLI11_PARSE(app, argc, argv);
  return ms::exit_status([&] {
    for (int s = 0; s < bench::network(name).stages.stage_count(); ++s) {
      const pid_t child = ::fork();
      ms::require<ms::error>(child >= 0, "race_unet: cannot start a process");
      if (child == 0) {
        race(name, s, batch, threads, repeats, train, checkpoint);
        std::fflush(stdout);
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      ms::require<ms::error>(status == 0, "race_unet: stage ", s, " failed");
    }
    return 0;
  });
}
