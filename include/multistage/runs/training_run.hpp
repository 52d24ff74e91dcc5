// A whole training run from a configuration: the data's sizes, its stages, the model, training
// with checkpoints, snapshots, log and report, in a folder that it can be gone on with from.
//
//   run_directory place("runs/icons", run_directory::begin);
//   training_run run(cpu(), io::open_images("icons"), c, place);
//   const run_outcome end = run.run();
//   std::puts(end.text.c_str());
#pragma once
#include <sys/resource.h>

#include "../core/progress.hpp"
#include "../data/draw_moments.hpp"
#include "../data/held.hpp"
#include "../io/dataset.hpp"
#include "../training/trainer.hpp"
#include "presets.hpp"
#include "run_report.hpp"
#include "snapshots.hpp"

namespace multistage {

/// How a run ended.
struct run_outcome {
  int signal = 0;        ///< that ended it; 0: none did
  bool finished = true;  ///< whether it saw all that `kimg` asks for
  index_t steps = 0;     ///< over the whole training
  double images = 0;     ///< likewise
  double seconds = 0;    ///< of this run's training, snapshots included
  std::string text{};    ///< what happened and how to go on, for people
};

/// The most memory that this process has had, in bytes.
inline double peak_memory() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) * 1024;
}

namespace detail {

/// Standard deviation of the values of some images of a set.
MULTISTAGE_COLD inline double standard_deviation_of(const image_source& images) {
  constexpr index_t enough = 4096;
  const image_source some = spread_over(images, enough);
  return io::image_set{values_of(some), some.extents}.standard_deviation();
}

/// Sets a setting that data decide, unless somebody chose it.
template <class T, class U>
void take_from_data(run_configuration& c, const char* name, T& setting, const U& of_data) {
  if (c.chosen(name))
    return;
  setting = T(of_data);
  c.origins[name] = "data";
}

}  // namespace detail

/// The images that a configuration names. @throws file_error, value_error
MULTISTAGE_COLD inline image_source open_data(const data_options& data) {
  require<value_error>(!data.path.empty(),
                       "train: no data are named; give --data PATH: a "
                       "folder of pictures, shards, an array, IDX or "
                       "CIFAR-10 files");
  io::image_rule rule;
  rule.largest = data.largest;
  rule.array = data.array;
  rule.channels = data.channels;
  rule.latents = data.latents;
  return io::open_images(data.path, rule);
}

/// What the data decide of a configuration: extents of the images, classes, and sigma_data
/// where it is to be measured. Labels are left out for one row in ten, without which a model
/// cannot be guided. What somebody chose stays.
MULTISTAGE_COLD inline void fit_to_data(run_configuration& c, const image_source& images) {
  const shape e = images.extents;
  if (images.kind == image_values::latents)
    detail::take_from_data(c, "data.latents", c.data.latents, true);
  const bool labelled = c.data.labels && images.class_count > 0;
  std::visit(
      [&]<class Net>(Net& net) {
        detail::take_from_data(c, "model.resolution", net.resolution, e.height);
        detail::take_from_data(c, "model.columns", net.columns,
                               e.width == e.height ? 0 : e.width);
        detail::take_from_data(c, "model.channels", net.channels, e.channels);
        if constexpr (is_known_network<Net>)
          detail::take_from_data(c, "model.label_dim", net.label_dim,
                                 labelled ? images.class_count : 0);
        if constexpr (requires { net.augment_dim; })
          detail::take_from_data(c, "model.augment_dim", net.augment_dim,
                                 c.augment.label_count());
        if constexpr (requires { net.class_context; })
          detail::take_from_data(c, "model.class_context", net.class_context,
                                 net.label_dim > 0 && net.context_dim > 0);
      },
      c.model.network);
  constexpr double usual_dropout = 0.1;
  if (labelled && c.training.label_dropout == 0)
    detail::take_from_data(c, "training.label_dropout", c.training.label_dropout,
                           usual_dropout);
  if (c.run.measure_sigma_data)
    detail::take_from_data(c, "model.sigma_data", c.model.precond.sigma_data,
                           detail::standard_deviation_of(images));
}

/// A run at work in its folder.
template <class Backend>
class training_run {
 public:
  /// Told a line of text for people.
  using line_handler = std::function<void(const std::string&)>;

  /// Fits the configuration to the data, finds the stages, makes the model: whatever is wrong
  /// is said here. @param place begun, or one with a run to go on with, whose configuration c
  /// is. @param show makes pictures of what a model of latents draws. @param processes that
  /// train together: all make the same run, the first one writes its files and speaks
  /// @throws value_error, shape_error, file_error
  MULTISTAGE_COLD training_run(Backend backend,
                               image_source images,
                               run_configuration c,
                               const run_directory& place,
                               line_handler say = print_line,
                               show_pictures show = {},
                               process_group processes = {})
      : place_(place),
        processes_(std::move(processes)),
        is_first_(processes_.rank() == 0),
        source_(held_in_memory(std::move(images), small_set)),
        images_(one_draw_each(source_)),
        config_(std::move(c)),
        say_(std::move(say)) {
    check(config_);
    on_first([&] {
      place_.write_run(config_);
      before_ = read_history(place_.log());
    });
    const bool goes_on = first_says(processes_, place_.has_checkpoint());
    if (!goes_on)
      fit_to_data(config_, images_);
    share_stages(backend);
    if (!goes_on)
      config_.model.stages = decoders_for(config_, stages_.stages);
    model_.emplace(backend, config_.model, stages_.stages, config_.run.seed);
    // Latents that are kept as moments are drawn anew each time they are shown.
    const bool drawn = source_.kind == image_values::moments;
    const image_transform first = drawn ? image_transform(draw_moments{}) : image_transform();
    trainer_.emplace(*model_, source_, trainer_options_of(config_), processes_,
                     first.then(config_.augment.transform()));
    on_first([&] {
      snapshots_.emplace(*model_, images_, config_, std::move(show));
      place_.write_run(config_);
      say_(description());
    });
  }

  /// The configuration with all that data and stages decided.
  const run_configuration& config() const {
    return config_;
  }
  /// The stages.
  const found_stages& stages() const {
    return stages_;
  }
  /// The model, for whoever wants to draw with it.
  dynamic_model<float, Backend>& model() {
    return *model_;
  }

  /// Trains until the configuration's limits or a signal. @param resumed_with what may differ
  /// from the run that is gone on with. @throws as `run` of training/checkpoint.hpp
  MULTISTAGE_COLD run_outcome run(const resume_options& resumed_with = {}) {
    const bool goes_on = first_says(processes_, place_.has_checkpoint());
    bool nothing_left = false;
    on_first([&] { nothing_left = goes_on && is_done(); });
    if (first_says(processes_, nothing_left))
      return {.text = place_.path() + ": has seen its " + option_text(config_.run.kimg) +
                      " kimg; give more --kimg to train on"};
    on_first([&] { log_.emplace(place_.log(), goes_on); });
    seconds_before_ = before_.points.empty() || !goes_on ? 0 : before_.points.back().seconds;
    if (is_first_)
      bar_.emplace("training");
    const run_checkpoint kept{.path = place_.checkpoint(),
                              .every_seconds = 60 * config_.run.save_minutes,
                              .resume = goes_on,
                              .resumed_with = resumed_with,
                              .every_kimg = config_.run.snapshot_kimg,
                              .keep = config_.run.keep,
                              .run = to_json(config_).dump(),
                              .on_nan = config_.run.on_nan};
    const training_limit limit{config_.run.kimg, 3600 * config_.run.hours, config_.run.steps};
    constexpr double window = 2;
    const run_result r = multistage::run(
        *trainer_, limit, kept,
        [&](const loss_point& p, double done) { return observed(p, done); }, window);
    if (is_first_)
      bar_->end();
    return ended(r);
  }

  /// Prints a line on stdout.
  static void print_line(const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

 private:
  using clock = std::chrono::steady_clock;

  /// f() on the process that writes and speaks; where that fails all end.
  template <class F>
  void on_first(F&& f) {
    together(processes_, [&] {
      if (is_first_)
        f();
    });
  }
  /// The first process finds the stages, the others hear of them.
  MULTISTAGE_COLD void share_stages(const Backend& backend) {
    std::string text;
    on_first([&] {
      find_stages(backend);
      text = stages_.json().dump();
    });
    text = all_gather(processes_, text).front();
    if (!is_first_)
      stages_ = found_stages::from_json(*io::parse_json(text, "stages of rank 0"), "rank 0");
  }
  /// The stages of a run that is gone on with are those that it has.
  MULTISTAGE_COLD void find_stages(const Backend& backend) {
    if (std::filesystem::exists(place_.stages())) {
      stages_ = found_stages::from_json(*read_configuration(place_.stages()), place_.stages());
      return;
    }
    if (place_.has_checkpoint()) {
      stages_ = {detail::stages_of_file(place_.checkpoint()), "of the checkpoint", {}, true};
    } else {
      say_("finding the stages of " + std::to_string(images_.extents.rows) + " images");
      stages_ = multistage::find_stages(backend, images_, survey_images(images_).fingerprint,
                                        config_.stages, schedule_of(config_.model.precond),
                                        config_.run.seed);
    }
    io::write_file(place_.stages(), stages_.json().dump() + "\n");
  }
  /// Whether the checkpoint has seen all that kimg asks for.
  bool is_done() const {
    const io::json_document state = io::safetensors(place_.checkpoint()).meta_json("training");
    const double seen = state->is_object() ? state->value("images_seen", 0.0) : 0.0;
    return config_.run.kimg > 0 && seen >= 1000 * config_.run.kimg;
  }
  /// The model in a few lines.
  MULTISTAGE_COLD std::string description() const {
    std::string text = "stages end at sigma";
    for (const double b : stages_.stages.boundaries())
      text += " " + detail::short_number(b);
    if (stages_.stages.stage_count() == 1)
      text = "one stage";
    text += " (" + stages_.how + (stages_.cached ? ", known from before" : "") + ")\n";
    text += std::to_string(model_->parameter_count()) + " parameters, decoders of";
    for (int s = 0; s < stages_.stages.stage_count(); ++s)
      text += " " + std::to_string(config_.model.stages.widths[std::size_t(s)]);
    const double mebibytes =
        double(model_->activation_bytes(config_.training.batch_size, true)) / (1 << 20);
    return text + " channels; activations of a step take " + detail::short_number(mebibytes) +
           " MiB";
  }

  /// f() on the process that writes; a failure to write a file does not end the training.
  template <class F>
  void tried(const char* what, F&& f) {
    if (!is_first_)
      return;
    try {
      f();
    } catch (const file_error& e) {
      warn(what, " cannot be written; training goes on: ", e.what());
    }
  }
  /// Each window of the training.
  bool observed(const loss_point& p, double done) {
    latest_ = p;
    tried("the log", [&] {
      io::json line{{"step", p.step},
                    {"images", p.images},
                    {"seconds", seconds_before_ + p.seconds},
                    {"images_per_second", p.images_per_second},
                    {"loss", p.loss},
                    {"peak_memory", peak_memory()}};
      if (processes_.size() > 1) {
        line["bytes_sent"] = p.traffic.bytes;
        line["seconds_exchanging"] = p.traffic.seconds;
      }
      log_->write(line);
    });
    if (is_first_)
      bar_->show(done, line_of(p));
    const double multiple = config_.run.snapshot_kimg > 0
                                ? std::floor(p.images / (1000 * config_.run.snapshot_kimg))
                                : 0;
    if (multiple != snapshot_multiple_ && snapshot_multiple_ >= 0 && done < 1)
      take_snapshot();
    snapshot_multiple_ = multiple;
    constexpr double between_reports = 30;
    if (std::chrono::duration<double>(clock::now() - reported_at_).count() > between_reports)
      report("running");
    return true;
  }
  static std::string line_of(const loss_point& p) {
    std::string line = detail::short_number(p.images / 1000) + " kimg  " +
                       detail::short_number(p.images_per_second) + " images/s  loss";
    for (const double l : p.loss)
      line += std::isnan(l) ? " -" : " " + detail::short_number(l);
    if (p.traffic.bytes > 0)
      line += "  sent " + detail::short_number(p.traffic.bytes / (1 << 20)) + " MiB, " +
              detail::short_number(p.traffic.seconds) + " s";
    return line;
  }
  void take_snapshot() {
    const double images = latest_.images;
    trainer_->complete_average();
    if (!is_first_) {
      snapshot_at_ = images;
      return;
    }
    const std::optional<snapshot> s =
        snapshots_->take("after " + detail::short_number(images / 1000) + " thousand images");
    if (!s)
      return;  // somebody waits for the end
    snapshot_at_ = images;
    tried("a snapshot", [&] {
      io::write_file(place_.snapshot(images), s->png);
      if (s->frechet)
        log_->write({{"images", images},
                     {"frechet_distance", *s->frechet},
                     {"n", s->n},
                     {"features", s->features},
                     {"seconds", s->seconds}});
    });
    report("running");
  }
  void report(const std::string& state) {
    tried("the report", [&] {
      write_report(
          place_, config_, stages_,
          {{"state", state},
           {"thousand images", detail::short_number(latest_.images / 1000)},
           {"steps", std::to_string(latest_.step)},
           {"seconds of training", detail::short_number(seconds_before_ + latest_.seconds)},
           {"images a second", detail::short_number(latest_.images_per_second)},
           {"parameters", std::to_string(model_->parameter_count())},
           {"peak memory", detail::short_number(peak_memory() / (1 << 20)) + " MiB"},
           {"backend", std::string(Backend::name)}});
    });
    reported_at_ = clock::now();
  }
  /// The last snapshot, the animation, the report, and what to say.
  MULTISTAGE_COLD run_outcome ended(const run_result& r) {
    run_outcome end{.signal = r.signal,
                    .steps = trainer_->steps(),
                    .images = trainer_->images_seen(),
                    .seconds = r.seconds};
    end.finished =
        trainer_->done() || config_.run.kimg == 0 || end.images >= 1000 * config_.run.kimg;
    if (!r.interrupted && snapshot_at_ != latest_.images)
      take_snapshot();
    if (!r.interrupted && config_.run.animation)
      tried("the animation", [&] {
        std::vector<std::string> paths;
        for (const auto& [images, path] : place_.snapshots())
          paths.push_back(path);
        if (const std::string bytes = animation_of(paths); !bytes.empty())
          io::write_file(place_.path() + "/samples.webp", bytes);
      });
    const std::string how = r.interrupted  ? "stopped by signal " + std::to_string(r.signal)
                            : end.finished ? "finished"
                                           : "its limit is reached";
    end.text = how + " after " + detail::short_number(end.images / 1000) +
               " thousand images; " + place_.checkpoint() + " holds everything" +
               (end.finished && !r.interrupted ? "" : ", --resume goes on from there");
    report(how);
    return end;
  }

  static constexpr index_t small_set = index_t{1} << 30;  // bytes that are held in memory
  const run_directory& place_;
  process_group processes_;
  bool is_first_;
  image_source source_;  // as it was given
  image_source images_;  // the same, of moments one draw each
  run_configuration config_;
  line_handler say_;
  run_history before_;
  found_stages stages_;
  std::optional<dynamic_model<float, Backend>> model_;
  std::optional<trainer<float, Backend>> trainer_;
  std::optional<snapshot_maker<float, Backend>> snapshots_;
  std::optional<io::json_lines> log_;
  std::optional<progress> bar_;
  loss_point latest_{};
  double seconds_before_ = 0;      // of training, in earlier runs
  double snapshot_multiple_ = -1;  // of snapshot_kimg at the last window
  double snapshot_at_ = -1;        // images seen by the last snapshot
  clock::time_point reported_at_{};
};

}  // namespace multistage
