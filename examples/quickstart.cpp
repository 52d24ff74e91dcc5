// From images to pictures in one page: cluster the noise levels, train a three-stage
// multi-decoder model, draw, measure, report.
//   quickstart OUT_DIR [--seconds 60] [--seed 1] [--threads 0] [--backend cpu|eigen|thrust]
//   [--data FILE.npy] [--resume [--other-data]]
#include <CLI/CLI.hpp>
#include <multistage/io.hpp>
#include <multistage/metrics/frechet_distance.hpp>
#include <multistage/multistage.hpp>

#include "backends.hpp"
#include "command_line.hpp"
#include "quickstart_origin.hpp"
#include "quickstart_report.hpp"

namespace ms = multistage;

struct settings {
  std::string out = "out";
  std::string data = MULTISTAGE_EXAMPLE_DATA "/digits.npy";
  std::string backend = "cpu";
  double seconds = 60;
  std::uint64_t seed = 1;
  int threads = 0;
  bool resume = false;
  bool other_data = false;
  quickstart_origin origin;  // of the run, for its report
};

template <class Backend>
int quickstart(Backend backend, const settings& s) {
  // Everything that shapes the model is a template argument.
  using model = ms::multi_decoder<ms::song_unet{.resolution = 8,
                                                .channels = 1,
                                                .encoder_channels = 32,
                                                .channel_mult = {1, 2},
                                                .num_blocks = 1,
                                                .attn_resolutions = {4}},
                                  ms::decoders{48, 32, 16},  // stage 0, the lowest noise, first
                                  ms::edm_schedule, Backend>;

  // 1,797 digits of 8x8; 397 are kept from training, to measure against.
  ms::io::make_directory(s.out);
  const ms::io::run_lock only_one(s.out);  // a second run in the same directory is refused
  const ms::io::image_set all = ms::io::images_from(ms::io::read_npy(s.data), s.data, {16});
  ms::require<ms::value_error>(
      all.count() >= 4, s.data, ": has ", all.count(),
      " images; the quickstart takes 4 or more, two to learn from and two to measure against");
  const auto [train, held_out] =
      ms::io::split(all, std::min<ms::index_t>(397, all.count() / 2), 1);

  // Three stages, by how alike the optimal denoisers are: no network is needed for that.
  const ms::vp_schedule vp;
  const std::string checkpoint = s.out + "/model.safetensors";
  ms::clustering found;
  double sigma_data = train.standard_deviation();
  if (s.resume) {  // the run's own: clustered anew, by another build or from other images, they
                   // might differ in a digit
    const auto before = ms::load<float>(checkpoint, backend, {.lazy = true});
    ms::require<ms::file_error>(before.stage_count() == 3, checkpoint,
                                ": is a checkpoint of another model, of ", before.stage_count(),
                                " stages; the quickstart's has 3");
    found.stages = before.stages();
    found.t1 = vp.t(found.stages.boundaries()[0]);
    found.t2 = vp.t(found.stages.boundaries()[1]);
    sigma_data = before.config().precond.sigma_data;
  } else {
    found = ms::cluster_by_optimal_denoiser(backend, train.span(), train.extents,
                                            {.alpha = 0.95, .seed = s.seed}, vp);
  }
  std::printf("stages end at sigma %.3g and %.3g (VP t %.3f and %.3f)\n",
              found.stages.boundaries()[0], found.stages.boundaries()[1], found.t1, found.t2);

  // All stages train in one run; a batch mixes them.
  model net(found.stages, ms::seed{s.seed}, sigma_data, backend);
  std::printf(
      "%lld parameters (%lld shared), %.1f / %.1f / %.1f million multiply-accumulates an "
      "image\n",
      (long long)model::parameters, (long long)model::shared_parameters, model::macs(0) * 1e-6,
      model::macs(1) * 1e-6, model::macs(2) * 1e-6);
  ms::trainer trainer{net,
                      train.span(),
                      train.extents,
                      {.learning_rate = 3e-3,
                       .ema_rampup_ratio = 0.1,
                       .batch_size = 128,
                       .levels = ms::log_normal_levels{-0.5, 1.4},
                       .least_stage_share = 0.05,
                       .seed = s.seed}};
  // The checkpoint is saved now and then, at the end, and when Ctrl-C or a scheduler asks to
  // stop.
  ms::io::json_lines log(s.out + "/log.jsonl", s.resume);
  ms::progress bar("training");
  const ms::run_result run = ms::run(
      trainer, ms::seconds(s.seconds),
      {.path = checkpoint,
       .every_seconds = 15,
       .resume = s.resume,
       .resumed_with = {.other_images = s.other_data}},
      [&](const ms::loss_point& p, double done) {
        log.write(
            {{"step", p.step}, {"images", p.images}, {"seconds", p.seconds}, {"loss", p.loss}});
        bar.show(done, quickstart_line(p));
        return true;
      });
  bar.end();
  if (run.interrupted) {
    std::fprintf(stderr,
                 "interrupted: %s holds everything; go on with the same command and --resume\n",
                 checkpoint.c_str());
    return 128 + run.signal;
  }

  // A picture for each seed; every evaluation goes to the decoder of its own sigma.
  const ms::edm_heun sampler{.num_steps = 18};
  quickstart_trajectories paths;
  const std::string seeds = "0-" + std::to_string(held_out.count() - 1);
  const ms::sampling_result pictures =
      ms::sample(net, sampler, {.seeds = seeds, .batch = 128, .observer = std::ref(paths)});
  const std::vector<double> samples = quickstart_clip(pictures.images);

  // Frechet distance over pixels; the distance of as many training images says what is
  // possible.
  const ms::index_t size = held_out.extents.row_size();
  const std::vector<double> real = held_out.as_double();
  const std::vector<double> seen = train.as_double();
  const quickstart_metrics metrics{
      .frechet_samples = ms::frechet_distance(samples, real, size),
      .frechet_train = ms::frechet_distance(std::span(seen).first(real.size()), real, size),
      .seconds = run.seconds,
      .images_per_second = run.images_per_second(),
      .images = trainer.images_seen(),
      .parameters = model::parameters,
      .seed = s.seed,
      .backend = std::string(Backend::name),
      .data = s.data == settings().data ? "" : s.data,
      .configuration = ms::io::to_json(net.config()).dump(),
      .copied = quickstart_nearest(samples, seen, size),
      .usual = quickstart_nearest(real, seen, size)};
  quickstart_report(s.out, found,
                    ms::similarity_between_times(backend, train.span(), train.extents), run,
                    pictures, samples, train, held_out, paths, metrics, s.origin);
  std::printf(
      "Frechet distance over pixels: %.3f for samples, %.3f for training images\nsee "
      "%s/report.html\n",
      metrics.frechet_samples, metrics.frechet_train, s.out.c_str());
  return 0;
}

int main(int argc, char** argv) {
  settings s;
  s.origin = quickstart_origin_of(argc, argv);
  CLI::App app{
      "Trains a three-stage multi-decoder diffusion model on small images and draws with it"};
  app.add_option("out", s.out, "directory for pictures, model and report")
      ->capture_default_str();
  app.add_option("--seconds", s.seconds, "of training")
      ->check(CLI::Range(0.1, 1e6))
      ->capture_default_str();
  app.add_option("--seed", s.seed, "of weights, order of the data and noise")
      ->check(command_line::seed_number())
      ->capture_default_str();
  app.add_option("--threads", s.threads, "that compute; 0: one per processor that may be used")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--backend", s.backend, "that computes")
      ->check(CLI::IsMember(command_line::backend_names()))
      ->capture_default_str();
  app.add_option("--data", s.data, "images, npy [n, 8, 8] of integers 0..16 or floats -1..1")
      ->capture_default_str();
  app.add_flag("--resume", s.resume, "go on from the model in the directory");
  app.add_flag("--other-data", s.other_data,
               "with --resume: go on although the images are others than before");
  return command_line::run(app, argc, argv, [&] {
    return std::visit([&](const auto& backend) { return quickstart(backend, s); },
                      backend_of(s.backend, s.threads));
  });
}
