// A whole training run of an autoencoder from a configuration, in a folder like that of a
// diffusion model's run (run_directory.hpp): checkpoints, pictures beside what is left of them,
// a log, a report. The checkpoint, model.safetensors, is what `encode` and `generate
// --autoencoder` take.
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
struct autoencoder_run_options : run_limits {
  std::string perceptual{};  ///< the network of the perceptual distance, a file

  /// Its snapshots come sooner than a diffusion model's.
  autoencoder_run_options() {
    snapshot_kimg = 10;
  }
  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    run_limits::fields(self, visit);
    visit(option{"perceptual",
                 "file of VGG-16's or AlexNet's weights for the perceptual distance; none: "
                 "random convolutions"},
          self.perceptual);
  }
};

/// Everything that such a run is told.
struct autoencoder_configuration {
  data_options data{};             ///< which pictures
  autoencoder model{};             ///< the network
  autoencoder_options training{};  ///< losses and optimisation
  autoencoder_run_options run{};   ///< limits, and what is shown
  /// Where values came from, by "section.option"; what is not there is the default.
  std::map<std::string, std::string> origins{};

  /// Names of all sections.
  static constexpr std::array section_names{"data", "model", "training", "run"};
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

/// Lays JSON of sections {"data", "model", "training", "run"} over a configuration, and notes
/// `origin` for each value that it sets. @throws value_error naming section and key
MULTISTAGE_COLD inline void lay_over(autoencoder_configuration& c,
                                     const io::json& j,
                                     const std::string& origin,
                                     const std::string& where = "configuration") {
  autoencoder_configuration changed = c;
  const io::json& model = detail::section_of(j, "model");
  require<value_error>(!model.contains("network") || model["network"] == "autoencoder", where,
                       ": is no configuration of an autoencoder; leave --autoencoder out");
  io::detail::reader all(j, where);
  all.skip({"data", "model", "training", "run", "origins"});
  all.finish();
  detail::note_origins(changed.origins, j, origin);
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
  document.edit()["origins"] = c.origins;
  return std::move(document.edit());
}

/// A configuration to begin with: `autoencoder_of_kind`, and the default of everything else.
/// @throws value_error
MULTISTAGE_COLD inline autoencoder_configuration autoencoder_preset(const std::string& kind) {
  autoencoder_configuration c{.model = autoencoder_of_kind(kind)};
  const io::json_document usual(io::to_json(autoencoder()));
  const io::json_document own(io::to_json(c.model));
  for (const auto& [key, value] : own->items())
    if ((*usual)[key] != value)
      c.origins["model." + key] = kind;
  return c;
}

/// What the pictures decide of a configuration: their extents.
MULTISTAGE_COLD inline void fit_to_data(autoencoder_configuration& c,
                                        const image_source& images) {
  const shape e = images.extents;
  c.model.resolution = int(e.height);
  c.model.columns = e.width == e.height ? 0 : int(e.width);
  c.model.channels = int(e.channels);
  for (const char* name : {"resolution", "columns", "channels"})
    c.origins[std::string("model.") + name] = "data";
}

/// Whether a run's folder is of an autoencoder, as its checkpoint or, before there was a sound
/// one, its configuration says.
MULTISTAGE_COLD inline bool is_autoencoder_run(const std::string& folder) {
  try {
    const io::safetensors f(folder);
    return f.metadata().count("format") && f.meta("format") == io::autoencoder_format;
  } catch (const file_error&) {
  }
  const std::string path = folder + "/config.json";
  if (!std::filesystem::exists(path))
    return false;
  const io::json_document j = read_configuration(path);
  return j->is_object() && j->contains("model") && (*j)["model"].is_object() &&
         io::is_text((*j)["model"].value("network", io::json()), "autoencoder");
}

namespace detail {

/// What a log's line of an autoencoder's training has: losses by name, and the codebook's use.
inline constexpr auto autoencoder_log_names = [] {
  std::array<const char*, autoencoder_step::names.size() + 1> all{};
  std::copy(autoencoder_step::names.begin(), autoencoder_step::names.end(), all.begin());
  all.back() = "codes_used";
  return all;
}();

/// The page of such a run. @param state of the run. @throws file_error
MULTISTAGE_COLD inline void write_autoencoder_report(
    const run_directory& place,
    const autoencoder_configuration& c,
    const std::vector<std::pair<std::string, std::string>>& state) {
  const run_history h = read_history(place.log(), autoencoder_log_names);
  io::report page("Autoencoder: " + std::filesystem::path(place.path()).filename().string());
  page.table(state);
  add_grids(page, place,
            "Rows of pictures, and below each what the autoencoder with averaged weights "
            "leaves of it.");
  const auto chart = [&](std::vector<std::size_t> which, const std::string& title,
                         const char* caption, bool logarithmic) {
    std::vector<charted_loss> shown;
    for (const std::size_t k : which)
      shown.push_back({k, autoencoder_log_names[k]});
    if (const std::string png = loss_chart(h, shown, title, logarithmic); !png.empty())
      page.picture(png, caption);
  };
  if (!h.points.empty()) {
    page.heading("Training");
    chart({0, 1, 2}, "What is lost", "Terms of the autoencoder's loss; each should fall.",
          true);
    chart({3, 5}, "Discriminator",
          "What it says of decoded pictures, -mean D, and its own loss, which is 1 while it "
          "cannot tell them from pictures.",
          false);
    chart({6}, "Codes", "Perplexity of the codes that a batch takes.", false);
    chart({7}, "Codebook", "Share of the codes that 1,000 pictures took.", false);
    page.picture(rate_chart(h), "Images a second.");
  }
  add_configuration(page, io::json_document(to_json(c)),
                    autoencoder_configuration::section_names, c.origins);
  page.save(place.report());
}

}  // namespace detail

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
                                  const run_directory& place);

  /// Trains until the configuration's limits or a signal. @param other_images goes on although
  /// the data are others. @throws as `run` of training/checkpoint.hpp
  MULTISTAGE_COLD run_outcome run(bool other_images = false);

 private:
  std::unique_ptr<perceptual_distance<float, Backend>> distance(const Backend& backend) const;
  bool observed(const loss_point& p, double done, run_journal& journal);
  /// Rows of eight pictures, and below each what the averaged autoencoder leaves of it.
  MULTISTAGE_COLD bool take_snapshot(double images_seen);

  const run_directory& place_;
  bool is_written_ = false;  // the configuration, by this run
  autoencoder_configuration config_;
  std::optional<autoencoder_model<float, Backend>> model_;
  std::optional<autoencoder_trainer<float, Backend>> trainer_;
};

template <class Backend>
MULTISTAGE_COLD autoencoder_run<Backend>::autoencoder_run(Backend backend,
                                                          const image_source& images,
                                                          autoencoder_configuration c,
                                                          const run_directory& place)
    : place_(place),
      config_(std::move(c)) {
  config_.run.check_end();
  fit_to_data(config_, images);
  config_.training.seed = config_.run.seed;
  model_.emplace(backend, config_.model, config_.run.seed);
  trainer_.emplace(*model_, images, config_.training, distance(backend));
  if (!place_.has_checkpoint())
    place_.write_run(config_);
}

template <class Backend>
MULTISTAGE_COLD run_outcome autoencoder_run<Backend>::run(bool other_images) {
  const autoencoder_run_options& o = config_.run;
  const bool goes_on = place_.has_checkpoint();
  if (place_.has_seen(o.kimg))
    return already_done(place_, o.kimg);
  const run_history before = read_history(place_.log(), detail::autoencoder_log_names);
  run_journal journal(place_, o,
                      before.points.empty() || !goes_on ? 0 : before.points.back().seconds,
                      {[&](double images) { return take_snapshot(images); },
                       [&](const std::string& how) {
                         auto state = journal.state(how);
                         state.emplace_back("perceptual distance", trainer_->distance_name());
                         state.emplace_back("backend", std::string(Backend::name));
                         detail::write_autoencoder_report(place_, config_, state);
                       }});
  const run_checkpoint kept{.path = place_.checkpoint(),
                            .every_seconds = 60 * o.save_minutes,
                            .resume = goes_on,
                            .resumed_with = {.other_images = other_images},
                            .every_kimg = o.snapshot_kimg,
                            .keep = o.keep,
                            .run = to_json(config_).dump()};
  constexpr double window = 2;
  const run_result r = multistage::run(
      *trainer_, o.limit(), kept,
      [&](const loss_point& p, double done) { return observed(p, done, journal); }, window);
  return journal.ended(r, o.kimg == 0 || trainer_->images_seen() >= 1000 * o.kimg,
                       trainer_->steps(), o.animation);
}

template <class Backend>
std::unique_ptr<perceptual_distance<float, Backend>> autoencoder_run<Backend>::distance(
    const Backend& backend) const {
  if (config_.run.perceptual.empty() || config_.training.perceptual_weight == 0)
    return nullptr;
  const shape image = model_->images(1);
  return std::make_unique<perceptual_distance<float, Backend>>(
      backend, io::load_perceptual_network<float>(config_.run.perceptual, image), image);
}

template <class Backend>
bool autoencoder_run<Backend>::observed(const loss_point& p,
                                        double done,
                                        run_journal& journal) {
  if (!std::exchange(is_written_, true))  // what a run that is gone on with was told
    tried_to_write("the configuration", [&] { place_.write_run(config_); });
  io::json line;
  std::string text;
  for (std::size_t k = 0; k < p.loss.size(); ++k)
    if (!std::isnan(p.loss[k])) {
      line[autoencoder_step::names[k]] = p.loss[k];
      text += std::string(text.empty() ? "" : " ") + autoencoder_step::names[k] + " " +
              detail::short_number(p.loss[k]);
    }
  if (config_.model.kind == latent_kind::vq) {
    constexpr double among = 1000;  // images
    line["codes_used"] = trainer_->codes().share_used(p.images, among);
  }
  return journal.observed(p, done, std::move(line), text);
}

template <class Backend>
MULTISTAGE_COLD bool autoencoder_run<Backend>::take_snapshot(double images_seen) {
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
  tried_to_write("a snapshot", [&] {
    io::write_file(place_.snapshot(images_seen),
                   io::image_grid(shown, all, columns, zoom, title).png());
  });
  return true;
}

}  // namespace multistage
