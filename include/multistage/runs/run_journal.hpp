// What a run does beside its training, whatever is trained and whatever computes it: its log
// and its progress line, when a snapshot and the report are due, and what is said at its end.
//
//   run_journal journal(place, limits, {take_snapshot, write_report});
//   multistage::run(trainer, limit, kept, [&](const loss_point& p, double done) {
//     return journal.observed(p, done, line, text);
//   });
#pragma once
#include <sys/resource.h>

#include "../core/progress.hpp"
#include "../core/stopwatch.hpp"
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

/// Of a run that is gone on with and has nothing left to do.
MULTISTAGE_COLD inline run_outcome already_done(const run_directory& place, double kimg) {
  return {.text = place.path() + ": has seen its " + option_text(kimg) +
                  " kimg; give more --kimg to train on"};
}

/// f(), whose failure to write a file does not end the training.
template <class F>
void tried_to_write(const char* what, F&& f) {
  try {
    f();
  } catch (const file_error& e) {
    warn(what, " cannot be written; training goes on: ", e.what());
  }
}

/// Keeps a run's log while it trains, and has its snapshots and its report made.
class run_journal {
 public:
  /// What differs from run to run.
  struct tasks {
    /// Draws what is to be seen and writes it, after so many images; false: somebody waits for
    /// the end.
    std::function<bool(double images)> snapshot;
    std::function<void(const std::string& state)> report;  ///< makes the page anew
  };

  /// @param place where the log is gone on with where there is a checkpoint. @param writes
  /// whether this process is the one of several that writes and speaks. @throws file_error
  MULTISTAGE_COLD run_journal(const run_directory& place,
                              const run_limits& limits,
                              double seconds_before,
                              tasks what,
                              bool writes = true)
      : place_(place),
        limits_(limits),
        seconds_before_(seconds_before),
        what_(std::move(what)) {
    if (!writes)
      return;
    log_.emplace(place.log(), place.has_checkpoint());
    bar_.emplace("training");
  }

  /// The end of a window of training. @param line of the log, to which what every run notes is
  /// added. @param text of the progress line, likewise. Returns true: the run goes on.
  MULTISTAGE_COLD bool observed(const loss_point& p,
                                double done,
                                io::json line,
                                const std::string& text) {
    latest_ = p;
    line["step"] = p.step;
    line["images"] = p.images;
    line["seconds"] = seconds();
    line["images_per_second"] = p.images_per_second;
    line["peak_memory"] = peak_memory();
    note(line);
    if (bar_)
      bar_->show(done, detail::short_number(p.images / 1000) + " kimg  " +
                           detail::short_number(p.images_per_second) + " images/s  " + text);
    const auto multiples = [&](double images) {
      return detail::multiples_of(limits_.snapshot_kimg, images);
    };
    if (multiples(p.images) != multiples(p.images - p.new_images) && done < 1)
      take_snapshot();
    constexpr double between_reports = 30;
    if (!since_report_ || since_report_->seconds() > between_reports)
      report("running");
    return true;
  }
  /// Writes a line of the log.
  void note(const io::json& line) {
    if (log_)
      tried_to_write("the log", [&] { log_->write(line); });
  }

  /// The last snapshot, the animation where it is wanted, the report, and what to say.
  MULTISTAGE_COLD run_outcome ended(const run_result& r,
                                    bool finished,
                                    index_t steps,
                                    bool animation) {
    bar_.reset();
    run_outcome end{.signal = r.signal,
                    .finished = finished,
                    .steps = steps,
                    .images = latest_.images,
                    .seconds = r.seconds};
    if (!r.interrupted && snapshot_at_ != latest_.images)
      take_snapshot();
    if (!r.interrupted && animation && log_)
      tried_to_write("the animation", [&] { animate(); });
    const std::string how = r.interrupted  ? "stopped by signal " + std::to_string(r.signal)
                            : end.finished ? "finished"
                                           : limit_reached(end.seconds);
    end.text = how + " after " + detail::short_number(end.images / 1000) +
               " thousand images; " + place_.checkpoint() + " holds everything" +
               (end.finished && !r.interrupted ? "" : ", --resume goes on from there");
    report(how);
    return end;
  }

  /// What every run's page says of its state.
  std::vector<std::pair<std::string, std::string>> state(const std::string& how) const {
    return {{"state", how},
            {"thousand images", detail::short_number(latest_.images / 1000)},
            {"steps", std::to_string(latest_.step)},
            {"seconds of training", detail::short_number(seconds())},
            {"images a second", detail::short_number(latest_.images_per_second)},
            {"peak memory", detail::short_number(peak_memory() / (1 << 20)) + " MiB"}};
  }
  /// Of training, over all runs.
  double seconds() const {
    return seconds_before_ + latest_.seconds;
  }

 private:
  /// Which limit ended a run that did not see its kimg.
  std::string limit_reached(double seconds) const {
    const bool late = limits_.hours > 0 && seconds >= 3600 * limits_.hours;
    return late ? "its hours (" + option_text(limits_.hours) + ") are over"
                : "its limit is reached";
  }
  void take_snapshot() {
    if (!what_.snapshot(latest_.images))
      return;
    snapshot_at_ = latest_.images;
    report("running");
  }
  void report(const std::string& how) {
    if (log_)
      tried_to_write("the report", [&] { what_.report(how); });
    since_report_.emplace();
  }
  void animate() const {
    std::vector<std::string> paths;
    for (const auto& [images, path] : place_.snapshots())
      paths.push_back(path);
    if (const std::string bytes = animation_of(paths); !bytes.empty())
      io::write_file(place_.path() + "/samples.webp", bytes);
  }

  const run_directory& place_;
  run_limits limits_;
  double seconds_before_;  // of training, in earlier runs
  tasks what_;
  std::optional<io::json_lines> log_;  // of the process that writes
  std::optional<progress> bar_;        // likewise
  loss_point latest_{};
  double snapshot_at_ = -1;  // images seen by the last snapshot
  std::optional<stopwatch> since_report_{};
};

}  // namespace multistage
