// train_probe FILE STEPS [--kill-at N | --classes N]: trains a tiny model to STEPS steps in
// all, going on from FILE if it is there, saving at every third step; with --kill-at it dies by
// SIGKILL in the middle of step N; with --classes it has labels.
#include <csignal>
#include <filesystem>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>

namespace ms = multistage;

int main(int argc, char** argv) {
  return ms::exit_status([&] {
    ms::require<ms::value_error>(argc >= 3,
                                 "usage: train_probe FILE STEPS [--kill-at N | --classes N]");
    const std::string file = argv[1];
    const long steps = std::stol(argv[2]);
    const std::string option = argc >= 5 ? argv[3] : "";
    const long kill_at = option == "--kill-at" ? std::stol(argv[4]) : 0;
    const int classes = option == "--classes" ? std::stoi(argv[4]) : 0;
    const ms::song_unet network{.resolution = 8,
                                .channels = 1,
                                .encoder_channels = 8,
                                .channel_mult = {1, 2},
                                .num_blocks = 1,
                                .attn_resolutions = {4},
                                .label_dim = classes};
    ms::dynamic_model<float, ms::cpu> net(ms::cpu(), {network, ms::decoders{{12, 8, 4}}, {}},
                                          ms::partition({0.5, 20.0}), 2);
    std::vector<float> images(40 * 64);
    const ms::random_stream numbers(7);
    for (std::size_t i = 0; i < images.size(); ++i)
      images[i] = float(2 * numbers.uniform(i) - 1);
    std::vector<int> labels;
    for (int i = 0; i < 40 && classes > 0; ++i)
      labels.push_back(i % classes);
    ms::trainer t{net, std::span<const float>(images), ms::shape{40, 8, 8, 1},
                  ms::trainer_options{.batch_size = 16, .least_stage_share = 0.1},
                  std::span<const int>(labels)};
    if (std::filesystem::exists(file))
      ms::resume(file, t);
    while (t.steps() < steps) {
      if (kill_at == t.steps() + 1)
        std::raise(SIGKILL);
      t.step();
      if (t.steps() % 3 == 0 || t.steps() == steps)
        ms::save(file, t);
    }
    return 0;
  });
}
