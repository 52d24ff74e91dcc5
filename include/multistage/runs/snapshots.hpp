// Snapshots of a model in training: a grid of samples for the same seeds each time, and a
// Frechet distance between a few more samples and the data, over features that it names.
//
//   snapshot_maker snapshots(model, images, c);
//   if (const auto s = snapshots.take("after 50 kimg"))
//     io::write_file("grid.png", s->png);
#pragma once
#include "../core/signals.hpp"
#include "../core/stopwatch.hpp"
#include "../data/spread.hpp"
#include "../diffusion/latent_decoder.hpp"
#include "../io/animation.hpp"
#include "../io/figures.hpp"
#include "../io/inception_file.hpp"
#include "../io/pictures.hpp"
#include "../metrics/feature_extractor.hpp"
#include "../metrics/frechet_distance.hpp"
#include "../samplers/edm_heun.hpp"
#include "../samplers/sample.hpp"
#include "run_configuration.hpp"

namespace multistage {

/// What a snapshot shows.
struct snapshot {
  std::string png;                  ///< the grid's file
  std::optional<double> frechet{};  ///< distance to the data, where it is asked for
  index_t n = 0;                    ///< pictures drawn for it
  std::string features{};           ///< that it is over, with the hash of their weights
  double seconds = 0;               ///< it took
};

namespace detail {

/// Values of all images of a set.
inline std::vector<float> values_of(const image_source& images) {
  std::vector<float> values(static_cast<std::size_t>(images.extents.size()));
  images.read_block(0, images.extents.rows, values.data());
  return values;
}

/// Values that a grid can show: of latents without a decoder, the first channels.
MULTISTAGE_COLD inline void show_channels(std::vector<double>& values, shape& extents) {
  if (extents.channels == 1 || extents.channels == 3)
    return;
  const index_t channels = extents.channels == 2 ? 1 : 3;
  constexpr double spread = 3;  // of unit variance, what lies in [-1, 1]
  const index_t pixels = extents.rows * extents.height * extents.width;
  std::vector<double> shown(static_cast<std::size_t>(pixels * channels));
  for (index_t p = 0; p < pixels; ++p)
    for (index_t c = 0; c < channels; ++c)
      shown[std::size_t(p * channels + c)] =
          values[std::size_t(p * extents.channels + c)] / spread;
  values = std::move(shown);
  extents.channels = channels;
}

}  // namespace detail

/// Takes snapshots of a model, with its averaged weights.
template <class Scalar, class Backend>
class snapshot_maker {
 public:
  /// @param model must outlive it. @param images from which features are taken at once.
  /// @param decoder of latents; none: they show their first channels. @throws file_error,
  /// value_error
  snapshot_maker(dynamic_model<Scalar, Backend>& model,
                 const image_source& images,
                 const run_configuration& c,
                 std::optional<latent_decoder> decoder = {})
      : model_(model),
        run_(c.run),
        decoder_(std::move(decoder)),
        latents_(c.data.latents) {
    const any_schedule schedule = schedule_of(model.config().precond);
    sampler_.num_steps = run_.snapshot_steps;
    sampler_.sigma_min = std::max(sampler_.sigma_min, schedule.sigma(schedule.t_min()));
    sampler_.sigma_max = std::min(sampler_.sigma_max, schedule.sigma(schedule.t_max()));
    sampler_.sigmas();
    if (const index_t classes = model.label_dim(input_slot::class_labels); classes > 0)
      labels_ = label_list("0-" + std::to_string(classes - 1));
    if (images.context && model.label_dim(input_slot::context) > 0) {
      const std::vector<float> some = detail::values_of(
          spread_over(*images.context, index_t(parse_seeds(run_.snapshot_seeds).size())));
      contexts_.assign(some.begin(), some.end());
    }
    if (run_.features == snapshot_features::none)
      return;
    features_ = extractor(images.extents);
    const image_source some = spread_over(images, 4 * run_.frechet_images);
    require<value_error>(some.extents.rows >= 2,
                         "snapshots: the Frechet distance needs two images at least; features "
                         "= none does without");
    real_ = features_->features(detail::values_of(some), some.extents);
  }

  /// Bytes that taking one needs beside what is there already, about: pictures as samplers and
  /// metrics hold them, the grid and its file. The network's activations are those of training,
  /// of as many rows. @param at_once pictures that are drawn at a time
  MULTISTAGE_COLD index_t bytes(index_t at_once) const {
    const index_t few = index_t(parse_seeds(run_.snapshot_seeds).size());
    const index_t many = features_ ? run_.frechet_images : 0;
    const shape shown = decoder_ ? decoder_->extents(model_.images(few)) : model_.images(few);
    constexpr index_t of_sampler = 8;  // copies of what is drawn at a time, in double
    constexpr index_t of_result = 3;   // of all pictures: returned, put together, as floats
    const index_t of_pixel = run_.animation ? film_bytes : grid_bytes;
    const index_t zoom = zoom_of(shown);
    return (of_sampler * at_once + of_result * std::max(few, many)) * model_.images(1).size() *
               index_t(sizeof(double)) +
           of_result * shown.size() * index_t(sizeof(double)) +
           of_pixel * shown.rows * shown.pixels() * zoom * zoom +
           (decoder_ ? decoder_->bytes() : 0) +
           (features_ ? many * features_->dimension * index_t(sizeof(double)) : 0);
  }

  /// Draws and measures. Nothing when a signal asked the program to end meanwhile: whoever
  /// waits for it wants a checkpoint. @param title above the grid. @param at_once pictures that
  /// are drawn at a time, of which a picture does not depend
  /// @throws numeric_error for a model that draws no numbers
  std::optional<snapshot> take(const std::string& title,
                               index_t at_once = sampling_options().batch) {
    const stopwatch whole;
    std::optional<sampling_result> few = draw(run_.snapshot_seeds, at_once);
    if (!few)
      return {};
    shape extents = few->extents;
    if (decoder_) {
      few->images = (*decoder_)(few->images, extents);
      extents = decoder_->extents(extents);
    }
    detail::show_channels(few->images, extents);
    const int columns = std::max(1, int(std::lround(std::sqrt(double(extents.rows)))));
    snapshot s{
        .png = io::image_grid(few->images, extents, columns, zoom_of(extents), title).png()};
    if (features_) {
      const std::string seeds = "1000000-" + std::to_string(999'999 + run_.frechet_images);
      std::optional<sampling_result> many = draw(seeds, at_once);
      if (!many)
        return {};
      const std::vector<float> drawn(many->images.begin(), many->images.end());
      s.frechet = frechet_distance(features_->features(drawn, many->extents), real_,
                                   features_->dimension);
      s.n = many->extents.rows;
      s.features = features_->name + ", hash " + features_->hash;
    }
    s.seconds = whole.seconds();
    return s;
  }

 private:
  static constexpr index_t grid_bytes = 12;  // of a pixel: colours, the canvas, its PNG
  static constexpr index_t film_bytes = 40;  // what libwebp keeps while frames are compared

  /// How much a grid enlarges pictures, which may be small.
  static int zoom_of(const shape& pictures) {
    constexpr index_t cell = 96;  // pixels
    return std::max(1, int(cell / pictures.width));
  }
  std::optional<sampling_result> draw(const std::string& seeds, index_t at_once) {
    const stop_signals stop;
    const auto go_on = [&](const sampling_step&) {
      return stop.caught() == 0;
    };
    sampling_result drawn = sample(model_, sampler_,
                                   {.seeds = seeds,
                                    .batch = at_once,
                                    .class_label = labels_,
                                    .context = contexts_,
                                    .clip = latents_ ? clipping::none : clipping::pictures,
                                    .observer = go_on});
    if (stop.caught() != 0)
      return {};
    return drawn;
  }
  feature_extractor extractor(const shape& picture) {
    if (run_.features == snapshot_features::pixels)
      return pixel_features(picture);
    if (run_.features == snapshot_features::random)
      return random_features(model_.backend(), picture);
    return inception_features(io::load_inception(run_.inception, model_.backend()),
                              fingerprint(io::read_file(run_.inception)));
  }

  dynamic_model<Scalar, Backend>& model_;
  run_options run_;
  std::optional<latent_decoder> decoder_;
  bool latents_;
  label_list labels_{};             // one class after the other, of models that have some
  std::vector<double> contexts_{};  // of the data, likewise
  edm_heun sampler_{};
  std::optional<feature_extractor> features_;
  std::vector<double> real_;
};

/// The grids of a run as an animation, at most 120 of them, evenly over time; empty without
/// libwebp or with fewer than two. @param paths of PNGs of one size
MULTISTAGE_COLD inline std::string animation_of(const std::vector<std::string>& paths) {
#ifdef MULTISTAGE_WEBP
  constexpr std::size_t most = 120;
  const std::size_t count = std::min(paths.size(), most);
  if (count < 2)
    return "";
  constexpr int milliseconds = 250;
  std::optional<io::animation> film;
  shape size{1, 0, 0, 0};
  for (std::size_t i = 0; i < count; ++i) {
    const std::string& path = paths[i * (paths.size() - 1) / (count - 1)];
    const io::picture frame = io::decode_png(path, io::read_file(path));
    if (!film) {
      film.emplace(frame.width, frame.height, milliseconds);
      size = {1, frame.height, frame.width, 0};
    }
    if (frame.width == size.width && frame.height == size.height)
      film->add(frame);
  }
  return film->finish();
#else
  (void)paths;
  return "";
#endif
}

}  // namespace multistage
