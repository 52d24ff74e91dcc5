// All cells of an experiment, worked through by any number of processes: each takes the first
// cell that is ready and that nobody works on (io/run_lock.hpp), until none is left. Processes
// need not know of each other: started by a shell, by mpirun or on machines that share a folder
// they share the cells out.
//
//   const int signal = cell_worker(cpu(1), e, "out", "").work();
#pragma once
#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../core/progress.hpp"
#include "../io/run_lock.hpp"
#include "cell_run.hpp"

namespace multistage {

/// Works on an experiment's cells.
template <class Backend>
class cell_worker {
 public:
  /// @param out the experiment's folder. @param inception @see quality_meter. @throws
  /// file_error
  MULTISTAGE_COLD cell_worker(Backend backend,
                              const experiment& e,
                              std::string out,
                              std::string inception)
      : backend_(std::move(backend)),
        experiment_(e),
        out_(std::move(out)),
        inception_(std::move(inception)),
        cells_(cells_of(e)) {
    io::make_directory(out_);
    io::make_directory(out_ + "/cells");
    io::make_directory(out_ + "/stages");
    keep_arms(e, out_);
    for (const cell& c : cells_)
      all_ += budget_of(c);
    done_before_ = done();
  }

  /// Works until no cell is left; the signal that asked to end before, or 0. Waits for those
  /// that others work on. An arm that cannot be made is left out (refused()), and what needs
  /// its cells. @throws as cells do
  MULTISTAGE_COLD int work() {
    const stop_signals stop;
    progress bar("experiment");
    constexpr auto pause = std::chrono::milliseconds(500);
    for (outcome o = outcome::worked; o != outcome::nothing_left && stop.caught() == 0;) {
      o = work_on_one(bar, stop);
      if (o == outcome::others_work && stop.caught() == 0)
        std::this_thread::sleep_for(pause);
    }
    return stop.caught();
  }
  /// Arms that could not be made, by name, and why.
  const std::map<std::string, std::string>& refused() const {
    return refused_;
  }
  /// Share of the experiment's compute that is spent, by all processes.
  double share_done() const {
    return all_ > 0 ? done() / all_ : 1;
  }

 private:
  /// Of a look at all cells.
  enum class outcome { worked, others_work, nothing_left };
  /// Works on the first cell that can be worked on.
  outcome work_on_one(progress& bar, const stop_signals& stop) {
    bool others = false;
    bool waits = false;  // for a cell that others may be working on
    for (const cell& c : cells_) {
      if (refused_.count(c.arm_name) > 0 || has_ended(c))
        continue;
      if (!is_ready(c)) {
        waits = true;
        continue;
      }
      if (work_on(c, bar) || stop.caught() != 0)
        return outcome::worked;
      others = true;
    }
    // What waits while nobody works waits for an arm that was refused.
    return others || (waits && refused_.empty()) ? outcome::others_work : outcome::nothing_left;
  }
  double budget_of(const cell& c) const {
    return c.share * experiment_.arm_of(c.arm_name).budget();
  }
  double done() const {
    double sum = 0;
    for (const cell& c : cells_) {
      const cell_record r = read_record(out_, c.name);
      sum += r.ended ? budget_of(c) : r.points.empty() ? 0 : r.points.back().spent;
    }
    return sum;
  }
  bool has_ended(const cell& c) {
    if (std::count(ended_.begin(), ended_.end(), c.name) > 0)
      return true;
    const cell_record r = read_record(out_, c.name);
    const bool ended = r.ended && r.left_of(drawings_of(c)).empty();
    if (ended)
      ended_.push_back(c.name);
    return ended;
  }
  /// The cell whose gradients an arm's stages are made of.
  cell gradients_of(const arm& a) const {
    return cell_of(a.gradients_of, experiment_.seeds.front());
  }
  /// Whether all is there that a cell needs.
  bool is_ready(const cell& c) {
    const arm& a = experiment_.arm_of(c.arm_name);
    if (!a.gradients_of.empty() && !has_ended(gradients_of(a)))
      return false;
    return c.is_try || search_of(experiment_, out_, a).has_value();
  }
  /// False: somebody else works on it, or a signal came.
  bool work_on(const cell& c, progress& bar) {
    std::optional<io::run_lock> lock;
    try {
      lock.emplace(cell_path(out_, c.name));
    } catch (const io::place_in_use&) {
      return false;
    }
    if (has_ended(c))  // before it was locked
      return true;
    try {
      return work_on_locked(c, bar);
    } catch (const value_error& e) {
      refused_[c.arm_name] = e.what();
      bar.end();
      warn("experiment: arm '", c.arm_name, "' cannot be made and is left out: ", e.what());
      return true;
    }
  }
  bool work_on_locked(const cell& c, progress& bar) {
    const arm& a = experiment_.arm_of(c.arm_name);
    const arm_data& data = data_of(a);
    const partition stages = stages_of(a, data);
    const tuned found = c.is_try ? tuned() : search_of(experiment_, out_, a).value();
    cell_run<Backend> run(backend_, experiment_, c, data, stages, found, drawings_of(c), out_);
    const double before = done();
    return run.work([&](double share, const std::string& text) {
      const double now = before + share * budget_of(c) - done_before_;
      bar.show(std::clamp(now / (all_ - done_before_), 0.0, 1.0), c.name + "  " + text);
    });
  }
  const arm_data& data_of(const arm& a) {
    std::unique_ptr<arm_data>& held = data_[a.name];
    if (!held)
      held = std::make_unique<arm_data>(backend_, a, out_, inception_);
    return *held;
  }
  /// The stages of an arm; what is known of them is kept for the page.
  partition stages_of(const arm& a, const arm_data& data) {
    const any_schedule schedule = schedule_of(data.config().model.precond);
    const int count = a.run.model.stages.stage_count();
    found_stages found;
    if (a.stages_by == "gradient") {
      const cell source = gradients_of(a);
      const arm& unified = experiment_.arm_of(a.gradients_of);
      const trainer_options options = trainer_options_of(data_of(unified).config());
      auto model = load<float>(cell_path(out_, source.name, ".safetensors"), backend_);
      found = {stages_by_gradients(model, data.images(), options, count),
               "by gradients of " + source.name,
               {}};
    } else if (!a.stages_by.empty()) {
      found = {stages_without_data(a.stages_by, count), "by " + a.stages_by, {}};
    } else {
      found = find_stages(backend_, data.images(), data.fingerprint(), data.config().stages,
                          schedule, 0);
    }
    io::write_file(out_ + "/stages/" + a.name + ".json", found.json().dump() + "\n");
    return found.stages;
  }
  /// The ways to draw that tables ask for of a cell.
  std::vector<drawing> drawings_of(const cell& c) const {
    std::vector<drawing> all;
    if (c.is_try)
      return all;
    for (const result_table& t : experiment_.tables)
      for (const table_group& g : t.groups)
        if (const auto names = g.all(); std::count(names.begin(), names.end(), c.arm_name) > 0)
          all.insert(all.end(), t.drawings.begin(), t.drawings.end());
    return all;
  }

  Backend backend_;
  const experiment& experiment_;
  std::string out_;
  std::string inception_;
  std::vector<cell> cells_;
  std::vector<std::string> ended_{};
  std::map<std::string, std::string> refused_{};  // arms, and why
  std::map<std::string, std::unique_ptr<arm_data>> data_{};
  double all_ = 0;          // multiply-accumulates of all budgets
  double done_before_ = 0;  // of them, when this process began
};

}  // namespace multistage
