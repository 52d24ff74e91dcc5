// A whole training run from a configuration: the data's sizes, its stages, the model, training
// with checkpoints, snapshots, log and report, in a folder that it can be gone on with from.
//
//   run_directory place("runs/icons", run_directory::begin);
//   training_run run(cpu(), io::open_images("icons"), c, place);
//   const run_outcome end = run.run();
//   std::puts(end.text.c_str());
#pragma once
#include "../data/draw_moments.hpp"
#include "../data/held.hpp"
#include "../io/autoencoder_file.hpp"
#include "../io/dataset.hpp"
#include "../io/file_fingerprint.hpp"
#include "../training/trainer.hpp"
#include "presets.hpp"
#include "run_journal.hpp"

namespace multistage {

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

/// What the data decide of a configuration: extents of the images, classes, embeddings for
/// networks that look at some, how latents are clustered, and sigma_data where it is to be
/// measured. Labels and embeddings
/// are left out for one row in ten, without which a model cannot be guided. What somebody chose
/// stays.
MULTISTAGE_COLD inline void fit_to_data(run_configuration& c, const image_source& images) {
  const shape e = images.extents;
  if (images.kind == image_values::latents)
    detail::take_from_data(c, "data.latents", c.data.latents, true);
  std::optional<double> spread;
  if (c.data.latents || c.run.measure_sigma_data)
    spread = detail::standard_deviation_of(images);
  require<value_error>(!spread || *spread > 0 || c.chosen("model.sigma_data"),
                       "data: all values of the images are the same; there is nothing to learn "
                       "from them");
  if (c.data.latents) {
    const clustering_options fit = for_latents(c.stages.clustering, *spread);
    detail::take_from_data(c, "stages.compare", c.stages.clustering.what, fit.what);
    if (c.stages.clustering.what == compared::image)
      detail::take_from_data(c, "stages.threshold", c.stages.clustering.threshold,
                             fit.threshold);
  }
  const bool labelled = c.data.labels && images.class_count > 0;
  bool conditioned = labelled;
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
        if constexpr (requires { net.class_context; }) {
          if (images.context && net.spatial_transformer) {
            const shape of_context = images.context->extents;  // [n, 1, tokens, width]
            detail::take_from_data(c, "model.context_tokens", net.context_tokens,
                                   of_context.width);
            detail::take_from_data(c, "model.context_dim", net.context_dim,
                                   of_context.channels);
            conditioned = true;
          }
          detail::take_from_data(c, "model.class_context", net.class_context,
                                 net.label_dim > 0 && net.context_dim > 0 && !images.context);
        }
      },
      c.model.network);
  constexpr double usual_dropout = 0.1;
  if (conditioned && c.training.label_dropout == 0)
    detail::take_from_data(c, "training.label_dropout", c.training.label_dropout,
                           usual_dropout);
  if (c.run.measure_sigma_data)
    detail::take_from_data(c, "model.sigma_data", c.model.precond.sigma_data, *spread);
}

/// A run at work in its folder.
template <class Backend>
class training_run {
 public:
  /// Told a line of text for people.
  using line_handler = std::function<void(const std::string&)>;

  /// Fits the configuration to the data, finds the stages, makes the model: whatever is wrong
  /// is said here. @param place begun, or one with a run to go on with, whose configuration c
  /// is. @param decoder makes pictures of the latents that are drawn; none: the autoencoder
  /// that lies beside the data, where there is one. @param processes that train together: all
  /// make the same run, the first one writes its files and speaks
  /// @throws value_error, shape_error, file_error
  MULTISTAGE_COLD training_run(Backend backend,
                               image_source images,
                               run_configuration c,
                               const run_directory& place,
                               line_handler say = print_line,
                               std::optional<latent_decoder> decoder = {},
                               process_group processes = {});

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
  MULTISTAGE_COLD run_outcome run(const resume_options& resumed_with = {});

  /// Prints a line on stdout.
  static void print_line(const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

 private:
  /// f() on the process that writes and speaks; where that fails all end.
  template <class F>
  void on_first(F&& f) {
    together(processes_, [&] {
      if (is_first_)
        f();
    });
  }
  /// The first process finds the stages, the others hear of them.
  MULTISTAGE_COLD void share_stages(const Backend& backend);
  /// The stages of a run that is gone on with are those that it has.
  MULTISTAGE_COLD void find_stages(const Backend& backend);
  /// The autoencoder that lies beside the data's latents, if it is one of them.
  MULTISTAGE_COLD std::optional<latent_decoder> decoder_beside(const Backend& backend) const;
  /// The model in a few lines.
  MULTISTAGE_COLD std::string description() const;

  static std::string text_of(const loss_point& p);
  /// Pictures of a snapshot that are drawn at a time: in little memory, as many as a step has
  /// rows.
  index_t drawn_at_once() const;
  /// The model knows what it learns, so that whoever draws with it can be told.
  MULTISTAGE_COLD void note_images();
  /// False: somebody waits for the end.
  bool take_snapshot(double images, run_journal& journal);
  void report(const std::string& how, const run_journal& journal);

  static constexpr index_t small_set = index_t{1} << 30;  // bytes that are held in memory
  const run_directory& place_;
  process_group processes_;
  bool is_first_;
  bool is_written_ = false;  // the configuration, by this run
  image_source source_;      // as it was given
  image_source images_;      // the same, of moments one draw each
  run_configuration config_;
  line_handler say_;
  run_history before_;
  found_stages stages_;
  std::optional<dynamic_model<float, Backend>> model_;
  std::optional<trainer<float, Backend>> trainer_;
  std::optional<snapshot_maker<float, Backend>> snapshots_;
};

template <class Backend>
MULTISTAGE_COLD training_run<Backend>::training_run(Backend backend,
                                                    image_source images,
                                                    run_configuration c,
                                                    const run_directory& place,
                                                    line_handler say,
                                                    std::optional<latent_decoder> decoder,
                                                    process_group processes)
    : place_(place),
      processes_(std::move(processes)),
      is_first_(processes_.rank() == 0),
      source_(held_in_memory(std::move(images), small_set)),
      images_(one_draw_each(source_)),
      config_(std::move(c)),
      say_(std::move(say)) {
  check(config_);
  on_first([&] { before_ = read_history(place_.log()); });
  const bool goes_on = first_says(processes_, place_.has_checkpoint());
  if (!goes_on)
    on_first([&] { place_.write_run(config_); });
  if (!goes_on)
    fit_to_data(config_, images_);
  if (config_.stages.budget == 0)
    record(config_.model);  // what does not fit together is said before the stages are sought
  share_stages(backend);
  if (!goes_on)
    config_.model.stages = decoders_for(config_, stages_.stages);
  model_.emplace(backend, config_.model, stages_.stages, config_.run.seed);
  on_first([&] {
    if (!decoder && config_.data.latents)
      decoder = decoder_beside(backend);
    snapshots_.emplace(*model_, images_, config_, std::move(decoder));
  });
  // Latents that are kept as moments are drawn anew each time they are shown.
  const bool drawn = source_.kind == image_values::moments;
  const image_transform first = drawn ? image_transform(draw_moments{}) : image_transform();
  trainer_options options = trainer_options_of(config_);
  if (Backend::on_host && snapshots_)
    options.memory_beside = snapshots_->bytes(drawn_at_once());
  trainer_.emplace(*model_, source_, options, processes_,
                   first.then(config_.augment.transform()));
  note_images();
  on_first([&] {
    if (!goes_on)
      place_.write_run(config_);
    say_(description());
  });
}

template <class Backend>
MULTISTAGE_COLD run_outcome training_run<Backend>::run(const resume_options& resumed_with) {
  const bool goes_on = first_says(processes_, place_.has_checkpoint());
  bool nothing_left = false;
  on_first([&] { nothing_left = place_.has_seen(config_.run.kimg); });
  if (first_says(processes_, nothing_left))
    return already_done(place_, config_.run.kimg);
  const double before = before_.points.empty() || !goes_on ? 0 : before_.points.back().seconds;
  std::optional<run_journal> journal;
  const run_journal::tasks tasks{[&](double images) { return take_snapshot(images, *journal); },
                                 [&](const std::string& state) {
                                   report(state, *journal);
                                 }};
  together(processes_, [&] { journal.emplace(place_, config_.run, before, tasks, is_first_); });
  const run_checkpoint kept{.path = place_.checkpoint(),
                            .every_seconds = 60 * config_.run.save_minutes,
                            .resume = goes_on,
                            .resumed_with = resumed_with,
                            .every_kimg = config_.run.snapshot_kimg,
                            .keep = config_.run.keep,
                            .run = to_json(config_).dump(),
                            .on_nan = config_.run.on_nan};
  constexpr double window = 2;
  const run_result r = multistage::run(
      *trainer_, config_.run.limit(), kept,
      [&](const loss_point& p, double done) {
        if (is_first_ && !std::exchange(is_written_, true))  // what this run was told
          tried_to_write("the configuration", [&] { place_.write_run(config_); });
        io::json line{{"loss", p.loss}};
        if (processes_.size() > 1) {
          line["step_seconds"] = p.step_seconds;
          line["bytes_sent"] = p.traffic.bytes;
          line["seconds_exchanging"] = p.traffic.seconds;
          line["seconds_hidden"] = p.traffic.hidden;
        }
        return journal->observed(p, done, std::move(line), text_of(p));
      },
      window);
  const bool finished = trainer_->done() || config_.run.kimg == 0 ||
                        trainer_->images_seen() >= 1000 * config_.run.kimg;
  return journal->ended(r, finished, trainer_->steps(), config_.run.animation);
}

template <class Backend>
MULTISTAGE_COLD void training_run<Backend>::share_stages(const Backend& backend) {
  std::string text;
  on_first([&] {
    find_stages(backend);
    text = stages_.json().dump();
  });
  text = all_gather(processes_, text).front();
  if (!is_first_)
    stages_ = found_stages::from_json(*io::parse_json(text, "stages of rank 0"), "rank 0");
}

template <class Backend>
MULTISTAGE_COLD void training_run<Backend>::find_stages(const Backend& backend) {
  if (std::filesystem::exists(place_.stages())) {
    stages_ = found_stages::from_json(*read_configuration(place_.stages()), place_.stages());
    return;
  }
  if (place_.has_checkpoint()) {
    stages_ = {detail::stages_of_file(place_.checkpoint()), "of the checkpoint", {}, true};
  } else {
    say_("finding the stages of " + std::to_string(images_.extents.rows) + " images");
    stage_options how = config_.stages;
    if (Backend::on_host && config_.training.memory > 0)
      how.memory = std::max(config_.training.memory - resident_memory(), index_t{1});
    stages_ = multistage::find_stages(backend, images_, survey_images(images_).fingerprint, how,
                                      schedule_of(config_.model.precond), config_.run.seed);
  }
  io::write_file(place_.stages(), stages_.json().dump() + "\n");
}

template <class Backend>
MULTISTAGE_COLD std::optional<latent_decoder> training_run<Backend>::decoder_beside(
    const Backend& backend) const {
  const std::string path = io::autoencoder_beside(config_.data.path);
  if (path.empty())
    return {};
  latent_decoder decoder(io::load_autoencoder<float>(path, backend));
  if (decoder.fits(images_.extents))
    return decoder;
  warn("snapshots: ", path, " is of other latents than ", images_.extents,
       ", whose channels are shown instead of pictures");
  return {};
}

template <class Backend>
MULTISTAGE_COLD std::string training_run<Backend>::description() const {
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

template <class Backend>
std::string training_run<Backend>::text_of(const loss_point& p) {
  std::string text = "loss";
  for (const double l : p.loss)
    text += std::isnan(l) ? " -" : " " + detail::short_number(l);
  if (p.traffic.bytes > 0)
    text += "  " + detail::short_number(p.step_seconds) + " s a step, " +
            std::to_string(std::lround(100 * p.traffic.waiting() / p.step_seconds)) +
            " % exchanging " + detail::short_number(p.traffic.bytes / (1 << 20)) + " MiB, " +
            detail::short_number(p.traffic.hidden) + " s of it hidden";
  return text;
}

template <class Backend>
index_t training_run<Backend>::drawn_at_once() const {
  const index_t usual = sampling_options().batch;
  const index_t rows = trainer_ ? trainer_->memory().micro_batch : config_.training.batch_size;
  return config_.training.memory > 0 ? std::min(rows, usual) : usual;
}

template <class Backend>
MULTISTAGE_COLD void training_run<Backend>::note_images() {
  training_facts facts = model_->trained();
  facts.images = "pictures";
  if (config_.data.latents) {
    const std::string beside = io::autoencoder_beside(config_.data.path);
    facts.images = beside.empty() ? "latents" : "latents of " + io::fingerprint_of_file(beside);
  }
  model_->set_trained(facts);
}

template <class Backend>
bool training_run<Backend>::take_snapshot(double images, run_journal& journal) {
  trainer_->complete_average();
  if (!is_first_)
    return true;
  const std::optional<snapshot> s = snapshots_->take(
      "after " + detail::short_number(images / 1000) + " thousand images", drawn_at_once());
  if (!s)
    return false;
  tried_to_write("a snapshot", [&] { io::write_file(place_.snapshot(images), s->png); });
  if (s->frechet)
    journal.note({{"images", images},
                  {"frechet_distance", *s->frechet},
                  {"n", s->n},
                  {"features", s->features},
                  {"seconds", s->seconds}});
  return true;
}

template <class Backend>
void training_run<Backend>::report(const std::string& how, const run_journal& journal) {
  auto state = journal.state(how);
  state.emplace_back("parameters", std::to_string(model_->parameter_count()));
  state.emplace_back("backend", std::string(Backend::name));
  write_report(place_, config_, stages_, state);
}

}  // namespace multistage
