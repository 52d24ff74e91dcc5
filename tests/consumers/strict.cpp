// Everything a user can include, used a little: must compile without a word under strict
// warnings, and run under any standard library.
#include <multistage/eigen.hpp>
#include <multistage/io.hpp>
#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>
#include <multistage/metrics/inception.hpp>
#include <multistage/metrics/random_convolutions.hpp>
#include <multistage/multistage.hpp>
#include <multistage/thrust.hpp>

namespace ms = multistage;
using model = ms::multi_decoder<ms::song_unet{.resolution = 8,
                                              .channels = 1,
                                              .encoder_channels = 8,
                                              .channel_mult = {1, 2},
                                              .num_blocks = 1,
                                              .attn_resolutions = {4}},
                                ms::decoders{12, 8}>;

int main(int argc, char** argv) {
  return ms::exit_status([&] {
    const std::string file = argc > 1 ? argv[1] : "strict.safetensors";
    const ms::shape extents{24, 8, 8, 1};
    std::vector<float> images(std::size_t(extents.size()));
    const ms::random_stream numbers(7);
    for (std::size_t i = 0; i < images.size(); ++i)
      images[i] = float(2 * numbers.uniform(i) - 1);
    model net(ms::partition({1.0}), ms::seed{1});
    ms::trainer trainer{net, std::span<const float>(images), extents,
                        ms::trainer_options{.batch_size = 16}};
    ms::run(trainer, ms::training_limit{.steps = 3},
            [](const ms::loss_point&, double) { return true; });
    ms::save(file, trainer);
    auto loaded = ms::load(file, ms::cpu());
    const auto one = ms::sample(net, ms::edm_heun{.num_steps = 3}, {.seeds = "0-3"});
    const auto other = ms::sample(loaded, ms::edm_heun{.num_steps = 3}, {.seeds = "0-3"});
    ms::require<ms::numeric_error>(one.images == other.images,
                                   "a saved and loaded model draws other pictures");
    const std::string png = ms::io::image_grid(one.images, one.extents, 2, 2).png();
    const double distance =
        ms::frechet_distance(one.images, other.images, one.extents.row_size());
    std::printf("%zu bytes of PNG, distance %.3g\n", png.size(), distance);
    return png.size() > 100 && distance < 1e-6 ? 0 : 1;
  });
}
