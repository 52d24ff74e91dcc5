// One side of the race against PyTorch (bench/race.sh): forward passes or training steps of a network, stage by stage.
//   race_unet --network NAME --batch N [--train] [--threads N] [--repeats N]
// Prints a JSON line a stage: {"network", "stage", "batch", "threads", "forward_s" or "train_step_s", "gflop_per_s", "peak_bytes"}; times are the best
// of the repeats, after one pass that is not counted. peak_bytes: what the process took at most beyond weights, gradients and moments.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <multistage/diffusion/paper_models.hpp>
#include <multistage/multistage.hpp>

namespace ms = multistage;

namespace {

ms::configuration network(const std::string& name) {
  if (name == "edm_cifar10_multistage") return ms::paper::edm_cifar10_multistage<>::make_configuration();
  if (name == "edm_cifar10_unified") return ms::paper::edm_cifar10<>::make_configuration();
  if (name == "vp_cifar10_multistage") return ms::paper::vp_cifar10_multistage<>::make_configuration();
  if (name == "ldm_celeba256_multistage") return ms::paper::ldm_celeba256_multistage<>::make_configuration();
  return {ms::song_unet{.resolution = 8, .channels = 1, .encoder_channels = 32, .channel_mult = {1, 2}, .num_blocks = 1, .attn_resolutions = {4}},
          ms::decoders{.widths = {48, 32, 16}},
          {}};
}

double peak_rss() {
  rusage u{};
  ::getrusage(RUSAGE_SELF, &u);
  return double(u.ru_maxrss) * 1024;
}

template <class F>
double best_of(int repeats, F&& f) {
  f();
  double best = HUGE_VAL;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Forward passes or training steps of a network, stage by stage, as JSON lines"};
  std::string name;
  ms::index_t batch = 4;
  int threads = 0, repeats = 5;
  bool train = false;
  app.add_option("--network", name, "which network")
      ->required()
      ->check(CLI::IsMember({"edm_cifar10_multistage", "edm_cifar10_unified", "vp_cifar10_multistage", "ldm_celeba256_multistage", "quickstart"}));
  app.add_option("--batch", batch, "images in a batch")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_flag("--train", train, "time a training step: forward, backward, Adam and the average");
  app.add_option("--threads", threads, "threads; 0: one a core")->check(CLI::Range(0, 1024))->capture_default_str();
  app.add_option("--repeats", repeats, "timed repeats, of which the best counts")->check(CLI::Range(1, 10000))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return ms::exit_status([&] {
    const ms::configuration config = network(name);
    const int stages = config.stages.stage_count();
    const ms::cpu b(threads);
    std::vector<double> boundaries;  // where they lie does not matter here
    for (int s = 1; s < stages; ++s) boundaries.push_back(s == 1 ? 2.5 : 7.7);
    const double before = peak_rss();
    ms::dynamic_model<float, ms::cpu> model(b, config, ms::partition(boundaries), 1);
    const ms::shape images = model.images(batch);
    const double weights = double(model.weights().size()) * sizeof(float);
    std::vector<float> data(static_cast<std::size_t>(model.images(64).size()));
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = float(2 * ms::random_stream(1).uniform(i) - 1);

    for (int s = 0; s < stages; ++s) {
      const double sigma = s == 0 ? 1.0 : s == 1 ? 5.0 : 50.0;
      double seconds = 0;
      if (train) {
        ms::trainer_options o;
        o.batch_size = batch;
        ms::trainer t{model, std::span<const float>(data), model.images(64), o};
        ms::training_batch<float> given{std::vector<float>(data.begin(), data.begin() + std::min<ms::index_t>(images.size(), ms::index_t(data.size()))),
                                        std::vector<float>(std::size_t(images.size()), 0.5f), std::vector<double>(std::size_t(batch), sigma)};
        given.images.resize(std::size_t(images.size()), 0.25f);
        seconds = best_of(repeats, [&] { t.step(given); });
      } else {
        const ms::tensor<double, ms::cpu> x(b, images, std::vector<double>(std::size_t(images.size()), 0.3));
        ms::tensor<double, ms::cpu> d(b, images);
        const std::vector<double> sigmas(std::size_t(batch), sigma);
        seconds = best_of(repeats, [&] { model.denoise(x.view(), sigmas, d.view(), {}, batch); });
      }
      const double macs = double(ms::cost_of_stage(model.network(), s).macs) * double(batch) * (train ? 3 : 1);
      // Weights; in training gradients, two moments and the average beside them. The host copy that initialisation makes is freed, but counts in the peak.
      const double owned = weights * (train ? 5 : 1);
      std::printf("{\"network\": \"%s\", \"stage\": %d, \"batch\": %lld, \"threads\": %d, \"%s\": %.6g, \"gflop_per_s\": %.4g, \"peak_bytes\": %.0f}\n", name.c_str(), s,
                  static_cast<long long>(batch), b.threads(), train ? "train_step_s" : "forward_s", seconds, 2 * macs / seconds / 1e9, std::max(peak_rss() - before - owned, 0.0));
      std::fflush(stdout);
    }
    return 0;
  });
}
