// A cell at work: trained to each point of its budget, measured there, and then by every way to
// draw that a table asks for. What is done stands in its lines; a run that ends anywhere goes
// on where it was, with the same bits.
//
//   cell_run run(cpu(), e, c, data, stages, found, out);
//   run.work(told);                                  // false: a signal asked to end
#pragma once
#include <algorithm>
#include <filesystem>
#include <functional>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arm_data.hpp"
#include "budget.hpp"
#include "draw.hpp"

namespace multistage {

/// Told how much of a cell's budget is spent, in [0, 1], and what to say beside it.
using cell_progress = std::function<void(double share, const std::string& text)>;

/// Trains and measures one cell.
template <class Backend>
class cell_run {
 public:
  /// @param data of the cell's arm. @param stages of the arm. @param found by the search; what
  /// is 0 stays as configured. @param drawings ways to draw beside the arm's own
  /// @throws value_error where the lines that are there are of other settings
  MULTISTAGE_COLD cell_run(Backend backend,
                           const experiment& e,
                           const cell& c,
                           const arm_data& data,
                           const partition& stages,
                           const tuned& found,
                           std::vector<drawing> drawings,
                           const std::string& out)
      : experiment_(e),
        cell_(c),
        arm_(e.arm_of(c.arm_name)),
        data_(data),
        drawings_(std::move(drawings)),
        out_(out),
        config_(data.config()) {
    config_.run.seed = c.seed;
    if (!arm_.tailored_to.empty())
      config_.stages.budget = mean_macs(e.arm_of(arm_.tailored_to), stages) / 1e6;
    config_.model.stages = decoders_for(config_, stages);
    take_tuned(found);
    model_.emplace(backend, config_.model, stages, c.seed);
    trainer_options options = trainer_options_of(config_);
    set_lengths(options);
    trainer_.emplace(*model_, data.images(), options, config_.augment.transform());
    budgeted_.emplace(*trainer_);
    record_ = read_record(out, c.name);
    begin(options);
  }

  /// Does what is left to do. @param told as training goes on. Returns false where a signal
  /// asked to end; a value that is not finite ends the cell with its reason
  /// @throws file_error
  MULTISTAGE_COLD bool work(const cell_progress& told) {
    if (!record_.failure.empty())
      return true;
    const bool trained = record_.ended;  // a table that came later asks for more
    try {
      if (trained)
        load_weights(checkpoint(), *model_);
      else if (!train_and_measure(told))
        return false;
      if (!draw_otherwise(told))
        return false;
    } catch (const numeric_error& problem) {
      lines_->write({{"kind", "end"}, {"failure", problem.what()}});
      return true;
    }
    if (trained)
      return true;
    lines_->write({{"kind", "end"}});
    save(checkpoint(), *model_);  // for whoever draws with it; moments are no more needed
    return true;
  }

 private:
  std::string checkpoint() const {
    return cell_path(out_, cell_.name, ".safetensors");
  }
  double budget() const {
    return cell_.share * arm_.budget();
  }
  /// What an image costs with another arm's decoders, on average over the levels of training.
  double mean_macs(const arm& other, const partition& stages) const {
    configuration model = config_.model;
    model.stages = other.run.model.stages;
    const std::vector<double> shares =
        stage_quotas(trainer_options_of(config_), stages).probabilities();
    return weighted_sum(shares, macs_by_stage(record(model).structure));
  }
  /// A try keeps all averages; others have the one that the search found.
  void take_tuned(const tuned& found) {
    if (cell_.learning_rate > 0 || found.learning_rate > 0)
      config_.training.learning_rate =
          cell_.learning_rate > 0 ? cell_.learning_rate : found.learning_rate;
    if (cell_.is_try)
      config_.training.average_stds = arm_.tuning.average_stds;
    else if (found.average_std > 0)
      config_.training.ema_std = found.average_std;
  }
  /// How long each stage is trained, where the arm says so: shares of the compute.
  void set_lengths(trainer_options& o) const {
    if (arm_.lengths.empty())
      return;
    const std::vector<double> macs = macs_by_stage(model_->network());
    require<value_error>(arm_.lengths.size() == macs.size(), "arm '", arm_.name,
                         "': ", arm_.lengths.size(), " lengths for ", macs.size(), " stages");
    double sum = 0;
    for (const double length : arm_.lengths)
      sum += length;
    for (std::size_t s = 0; s < macs.size(); ++s)
      o.stage_kimg.push_back(arm_.lengths[s] / sum * budget() / macs[s] / 1000);
  }
  /// Everything that the results depend on, as a hash.
  std::string settings(const trainer_options& o) const {
    run_configuration c = config_;
    c.data.path.clear();
    c.stages.cache.clear();
    c.run = {};
    c.origins.clear();
    c.training = o;
    io::json_document all(to_json(c));
    all.set("boundaries", model_->stages().boundaries());
    all.set("images", data_.fingerprint());
    all.set("seed", cell_.seed);
    all.set("budget", budget());
    all.set("points", experiment_.points);
    all.set("samples", arm_.samples);
    all.set("sampler", arm_.draws.sampler + arm_.draws.options.dump());
    all.set("stage_kimg", o.stage_kimg);
    const std::string text = all->dump();
    return fingerprint_of(std::span<const char>(text));
  }
  /// Writes the first line, or compares it with the one that is there.
  void begin(const trainer_options& o) {
    cell_start s;
    s.settings = settings(o);
    if (record_.start) {
      require<value_error>(record_.start->settings == s.settings, cell_path(out_, cell_.name),
                           ": was begun with other data or settings; name another folder, or "
                           "remove this file to begin the cell anew");
    }
    lines_.emplace(cell_path(out_, cell_.name), true);
    if (record_.start)
      return;
    const auto& widths = config_.model.stages.widths;
    s.boundaries = model_->stages().boundaries();
    s.widths.assign(widths.begin(), widths.begin() + model_->stage_count());
    s.macs = budgeted_->macs();
    s.shares = trainer_->probabilities();
    s.parameters = double(model_->parameter_count());
    s.learning_rate = o.learning_rate;
    s.average_std = o.ema_std;
    s.budget = budget();
    s.training_images = double(data_.images().extents.rows);
    s.floor = data_.floor();
    s.features = data_.meter().text();
    s.images = data_.fingerprint();
    io::detail::writer w;
    io::detail::visit_fields(w, s);
    w.document.set("kind", std::string("start"));
    w.document.set("cell", cell_.name);
    w.document.set("arm", cell_.arm_name);
    w.document.set("seed", cell_.seed);
    lines_->write(*w.document);
  }

  bool train_and_measure(const cell_progress& told) {
    if (std::filesystem::exists(checkpoint()))
      resume(checkpoint(), *budgeted_, {});
    if (!record_.points.empty())
      seconds_ = record_.points.back().seconds;
    const bool tries = cell_.is_try && !arm_.tuning.average_stds.empty();
    if (tries)
      return train_to(1, told) && try_averages();
    const std::vector<double> points =
        cell_.is_try ? std::vector<double>{1.0} : experiment_.points;
    for (std::size_t i = record_.points.size(); i < points.size(); ++i) {
      if (!train_to(points[i], told))
        return false;
      told(points[i], "measuring");
      measurement m = measure(arm_.draws, {});
      tell_training(m, points[i]);
      lines_->write(m.line("point"));
      record_.points.push_back(m);
      if (i + 1 == points.size())
        keep_pictures();
    }
    return true;
  }
  /// Trains until so much of the budget is spent. False: a signal came first.
  bool train_to(double point, const cell_progress& told) {
    budgeted_->set_limit(point * budget());
    if (budgeted_->done())
      return true;
    constexpr double no_limit = 1e9;  // seconds; the budget is the limit
    constexpr double window = 1;
    const double before = seconds_;
    const run_result r = multistage::run(
        *budgeted_, training_limit{.seconds = no_limit}, run_checkpoint{.path = checkpoint()},
        [&](const loss_point& p, double) {
          told(budgeted_->spent() / budget(),
               detail::short_number(p.images_per_second) + " images/s");
          return true;
        },
        window);
    seconds_ = before + r.seconds;
    return !r.interrupted;
  }
  /// Seeds of pictures: the same for all arms of a seed.
  std::string picture_seeds() const {
    constexpr std::uint64_t apart = 1'000'000;
    const std::uint64_t first = apart * (cell_.seed + 1);
    return std::to_string(first) + "-" +
           std::to_string(first + std::uint64_t(arm_.samples) - 1);
  }
  /// @param row of a table of drawings
  measurement measure(const drawing& d, const std::string& row) {
    drawn_ = draw_pictures(*model_, d, picture_seeds(), data_.decoder());
    measurement m;
    m.evaluations = std::accumulate(drawn_.evaluations.begin(), drawn_.evaluations.end(), 0.0);
    const double without_encoder = m.evaluations - drawn_.encoder_evaluations;
    m.sampling_macs = weighted_sum(drawn_.evaluations, budgeted_->macs()) -
                      without_encoder * double(cost_of_segment(model_->network(), 0).macs);
    m.sampling_seconds = drawn_.seconds / double(drawn_.extents.rows);
    m.drawing = row;
    m.quality = data_.meter()(drawn_.values, drawn_.extents);
    return m;
  }
  /// How far the training is. @param share of the budget
  void tell_training(measurement& m, double share) const {
    m.share = share;
    m.spent = budgeted_->spent();
    m.images = trainer_->images_seen();
    m.seconds = seconds_;
  }
  /// The first pictures of the last measurement, for the page.
  void keep_pictures() const {
    constexpr index_t few = 12;
    shape e = drawn_.extents;
    e.rows = std::min(few, e.rows);
    const std::vector<double> values(drawn_.values.begin(), drawn_.values.begin() + e.size());
    io::write_npy(cell_path(out_, cell_.name, ".npy"), {e.rows, e.height, e.width, e.channels},
                  values);
  }
  /// Measures with each average that was kept.
  bool try_averages() {
    const auto kept = trainer_->averages();
    for (std::size_t k = record_.averages.size(); k < kept.size(); ++k) {
      auto& sampled = model_->averaged_weights();
      model_->backend().copy(kept[k].weights.data(), sampled.data(), sampled.size());
      measurement m = measure(arm_.draws, {});
      tell_training(m, 1);
      m.average_std = arm_.tuning.average_stds[k];
      lines_->write(m.line("average"));
    }
    return true;
  }
  /// Measures by the other ways to draw. False: a signal came first.
  bool draw_otherwise(const cell_progress& told) {
    const stop_signals stop;
    for (const drawing& d : record_.left_of(drawings_)) {
      if (stop.caught() != 0)
        return false;
      told(1, "drawing: " + d.text);
      measurement m;
      try {
        m = measure(d, d.text);
      } catch (const numeric_error& problem) {  // a sampler that does not suit the model
        m = {.drawing = d.text, .failure = problem.what()};
      }
      const measurement& end = record_.points.back();
      m.share = end.share;
      m.spent = end.spent;
      m.images = end.images;
      m.seconds = end.seconds;
      lines_->write(m.line("drawing"));
    }
    return true;
  }

  const experiment& experiment_;
  const cell& cell_;
  const arm& arm_;
  const arm_data& data_;
  std::vector<drawing> drawings_;
  std::string out_;
  run_configuration config_;
  std::optional<dynamic_model<float, Backend>> model_;
  std::optional<trainer<float, Backend>> trainer_;
  std::optional<budgeted_trainer<float, Backend>> budgeted_;
  cell_record record_;
  std::optional<io::json_lines> lines_;
  double seconds_ = 0;    // of training so far
  drawn_pictures drawn_;  // by the last measurement
};

}  // namespace multistage
