// A whole training run of an autoencoder from a configuration, in a folder like that of a
// diffusion model's run (run_directory.hpp): checkpoints, pictures beside what is left of them,
// a log. The checkpoint, model.safetensors, is what `encode` and `generate --autoencoder` take.
//
//   autoencoder_configuration c{.model = autoencoder_of_kind("vq-f4")};
//   run_directory place("runs/codes", run_directory::begin);
//   autoencoder_run run(cpu(), io::open_images("icons"), c, place);
//   std::puts(run.run().text.c_str());
#pragma once
#include "../io/perceptual_file.hpp"
#include "../training/checkpoint_autoencoder.hpp"
#include "training_run.hpp"

namespace multistage {

/// What such a run does beside the training.
struct autoencoder_run_options {
  double kimg = 0;            ///< thousand images over the whole training; 0: no limit
  double hours = 0;           ///< of this run; 0: no limit
  index_t steps = 0;          ///< of this run; 0: no limit
  double snapshot_kimg = 10;  ///< between pictures of what it makes of pictures
  double save_minutes = 10;   ///< between checkpoints, at most
  int keep = 2;               ///< checkpoints that are kept
  std::string perceptual{};   ///< the network of the perceptual distance, a file
  std::uint64_t seed = 0;     ///< of weights, noise and the order of images

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"kimg", "thousand images over the whole training; 0: no limit", at_least(0)},
          self.kimg);
    visit(option{"hours", "of this run; 0: no limit", at_least(0)}, self.hours);
    visit(option{"steps", "of this run; 0: no limit", at_least(0)}, self.steps);
    visit(option{"snapshot", "thousand images between grids of samples; 0: at the end alone",
                 at_least(0)},
          self.snapshot_kimg);
    visit(option{"save_minutes", "between checkpoints, at most", above(0)}, self.save_minutes);
    visit(option{"keep", "checkpoints that are kept", between(1, 1000)}, self.keep);
    visit(option{"perceptual",
                 "file of VGG-16's or AlexNet's weights for the perceptual distance; none: "
                 "random convolutions"},
          self.perceptual);
    visit(option{"seed", "of weights, noise, levels and the order of images", at_least(0)},
          self.seed);
  }
};

/// Everything that such a run is told.
struct autoencoder_configuration {
  data_options data{};             ///< which pictures
  autoencoder model{};             ///< the network
  autoencoder_options training{};  ///< losses and optimisation
  autoencoder_run_options run{};   ///< limits, and what is shown

  /// The sections: visit(name, options).
  template <class Self, class Visit>
  static void sections(Self& self, Visit&& visit) {
    visit("data", self.data);
    visit("model", self.model);
    visit("training", self.training);
    visit("run", self.run);
  }
};

/// The autoencoders of latent diffusion by their names, f4 and f8 saying how much smaller
/// latents are (Rombach et al., arXiv 2112.10752, tables 8 and 9). @throws value_error that
/// lists the names
MULTISTAGE_COLD inline autoencoder autoencoder_of_kind(const std::string& name) {
  static constexpr std::array names{"vq-f4", "vq-f8", "kl-f4", "kl-f8"};
  const int which = detail::choice_index("autoencoder", name, names);
  autoencoder a;
  a.kind = which < 2 ? latent_kind::vq : latent_kind::kl;
  const bool eighth = which % 2 == 1;
  a.channel_mult = {1, 2, 4};
  if (eighth)
    a.channel_mult =
        which == 1 ? std::array<int, 8>{1, 2, 2, 4} : std::array<int, 8>{1, 2, 4, 4};
  a.z_channels = a.embed_dim = eighth ? 4 : 3;
  a.n_embed = eighth ? 16384 : 8192;
  return a;
}

/// Lays JSON of sections {"data", "model", "training", "run"} over a configuration. @throws
/// value_error naming section and key
MULTISTAGE_COLD inline void lay_over(autoencoder_configuration& c,
                                     const io::json& j,
                                     const std::string& where) {
  autoencoder_configuration changed = c;
  io::detail::reader all(j, where);
  all.skip({"data", "model", "training", "run"});
  all.finish();
  autoencoder_configuration::sections(changed, [&](const char* section, auto& options) {
    const std::string of = where + ": " + section;
    io::detail::reader read(detail::section_of(j, section), of);
    read.skip({"network"});
    io::detail::visit_fields(read, options);
    read.finish();
    check_options(of.c_str(), options);
  });
  c = std::move(changed);
}

/// A configuration as JSON, whole.
MULTISTAGE_COLD inline io::json to_json(const autoencoder_configuration& c) {
  io::json_document document(io::json::object());
  autoencoder_configuration::sections(c, [&](const char* section, const auto& options) {
    io::detail::writer w;
    io::detail::visit_fields(w, options);
    document.set(section, std::move(w.document.edit()));
  });
  document.edit()["model"]["network"] = "autoencoder";
  return std::move(document.edit());
}

/// Whether a run's folder is of an autoencoder.
MULTISTAGE_COLD inline bool is_autoencoder_run(const std::string& folder) {
  const std::string path = folder + "/config.json";
  if (!std::filesystem::exists(path))
    return false;
  const io::json_document j = read_configuration(path);
  return j->is_object() && j->contains("model") && (*j)["model"].is_object() &&
         io::is_text((*j)["model"].value("network", io::json()), "autoencoder");
}

/// A run at work in its folder.
template <class Backend>
class autoencoder_run {
 public:
  /// Fits the configuration to the data and makes the model: whatever is wrong is said here.
  /// @param place begun, or one with a run to go on with, whose configuration c is. @throws
  /// value_error, shape_error, file_error
  MULTISTAGE_COLD autoencoder_run(Backend backend,
                                  const image_source& images,
                                  autoencoder_configuration c,
                                  const run_directory& place)
      : place_(place), config_(std::move(c)) {
    const autoencoder_run_options& run = config_.run;
    require<value_error>(run.kimg > 0 || run.hours > 0 || run.steps > 0,
                         "run: it would never end; give kimg, hours or steps");
    const shape e = images.extents;
    config_.model.resolution = int(e.height);
    config_.model.columns = e.width == e.height ? 0 : int(e.width);
    config_.model.channels = int(e.channels);
    config_.training.seed = run.seed;
    model_.emplace(backend, config_.model, run.seed);
    trainer_.emplace(*model_, images, config_.training, distance(backend));
    io::write_file(place_.configuration(), to_json(config_).dump(1) + "\n");
  }

  /// Trains until the configuration's limits or a signal. @param other_images goes on although
  /// the data are others. @throws as `run` of training/checkpoint.hpp
  MULTISTAGE_COLD run_outcome run(bool other_images = false) {
    const autoencoder_run_options& o = config_.run;
    const bool goes_on = place_.has_checkpoint();
    log_.emplace(place_.log(), goes_on);
    bar_.emplace("training");
    const run_checkpoint kept{.path = place_.checkpoint(),
                              .every_seconds = 60 * o.save_minutes,
                              .resume = goes_on,
                              .resumed_with = {.other_images = other_images},
                              .every_kimg = o.snapshot_kimg,
                              .keep = o.keep,
                              .run = to_json(config_).dump()};
    constexpr double window = 2;
    const run_result r = multistage::run(
        *trainer_, {o.kimg, 3600 * o.hours, o.steps}, kept,
        [&](const loss_point& p, double done) { return observed(p, done); }, window);
    bar_->end();
    run_outcome end{.signal = r.signal,
                    .steps = trainer_->steps(),
                    .images = trainer_->images_seen(),
                    .seconds = r.seconds,
                    .text = {}};
    end.finished = o.kimg == 0 || end.images >= 1000 * o.kimg;
    if (!r.interrupted)
      take_snapshot(end.images);
    end.text = (r.interrupted  ? "stopped by signal " + std::to_string(r.signal)
                : end.finished ? std::string("finished")
                               : "its time is up") +
               " after " + detail::short_number(end.images / 1000) + " thousand images; " +
               place_.checkpoint() + " is the autoencoder";
    return end;
  }

 private:
  std::unique_ptr<perceptual_distance<float, Backend>> distance(const Backend& backend) const {
    if (config_.run.perceptual.empty() || config_.training.perceptual_weight == 0)
      return nullptr;
    const shape image = model_->images(1);
    return std::make_unique<perceptual_distance<float, Backend>>(
        backend, io::load_perceptual_network<float>(config_.run.perceptual, image), image);
  }
  bool observed(const loss_point& p, double done) {
    io::json line{{"step", p.step},
                  {"images", p.images},
                  {"seconds", p.seconds},
                  {"images_per_second", p.images_per_second}};
    std::string text = detail::short_number(p.images / 1000) + " kimg  " +
                       detail::short_number(p.images_per_second) + " images/s ";
    for (std::size_t k = 0; k < p.loss.size(); ++k)
      if (!std::isnan(p.loss[k])) {
        line[autoencoder_step::names[k]] = p.loss[k];
        text += std::string(" ") + autoencoder_step::names[k] + " " +
                detail::short_number(p.loss[k]);
      }
    if (config_.model.kind == latent_kind::vq) {
      constexpr double among = 1000;  // images
      line["codes_used"] = trainer_->codes().share_used(p.images, among);
    }
    log_->write(line);
    bar_->show(done, text);
    const double multiple = config_.run.snapshot_kimg > 0
                                ? std::floor(p.images / (1000 * config_.run.snapshot_kimg))
                                : 0;
    if (multiple != snapshot_multiple_ && snapshot_multiple_ >= 0 && done < 1)
      take_snapshot(p.images);
    snapshot_multiple_ = multiple;
    return true;
  }
  /// Rows of eight pictures, and below each what the averaged autoencoder leaves of it.
  MULTISTAGE_COLD void take_snapshot(double images_seen) {
    constexpr index_t columns = 8;
    constexpr index_t most = 24;
    const std::vector<float> values = detail::values_of(spread_over(trainer_->images(), most));
    shape all = model_->images(1);
    const index_t size = all.row_size();
    const index_t n = index_t(values.size()) / size;
    const std::vector<float> left = trainer_->reconstruct(values);
    std::vector<double> shown;
    for (index_t first = 0; first < n; first += columns)
      for (const std::vector<float>* from : {&values, &left}) {
        const index_t end = std::min(first + columns, n) * size;
        shown.insert(shown.end(), from->begin() + first * size, from->begin() + end);
        const index_t missing = (first + columns) * size - end;  // of the last row
        shown.insert(shown.end(), std::size_t(missing), 0.0);
      }
    all.rows = index_t(shown.size()) / size;
    detail::show_channels(shown, all);
    constexpr index_t cell = 96;  // pixels of a small picture, enlarged
    const int zoom = std::max(1, int(cell / all.width));
    const std::string title = "pictures and what is left of them after " +
                              detail::short_number(images_seen / 1000) + " thousand images";
    io::write_file(place_.snapshot(images_seen),
                   io::image_grid(shown, all, columns, zoom, title).png());
  }

  const run_directory& place_;
  autoencoder_configuration config_;
  std::optional<autoencoder_model<float, Backend>> model_;
  std::optional<autoencoder_trainer<float, Backend>> trainer_;
  std::optional<io::json_lines> log_;
  std::optional<progress> bar_;
  double snapshot_multiple_ = -1;  // of snapshot_kimg at the last window
};

}  // namespace multistage
