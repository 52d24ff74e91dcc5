// A training run that keeps a checkpoint: written now and then, at the end and when it is
// stopped; gone on from; and, where asked for, gone back to when a value stops being finite.
#pragma once
#include "../core/stopwatch.hpp"
#include "../core/warning.hpp"
#include "../distributed/together.hpp"
#include "../io/kept_versions.hpp"
#include "../io/run_lock.hpp"
#include "run.hpp"

namespace multistage {

/// What a resumed run may do.
struct resume_options {
  /// Whether it goes on although the images are not those that the run was trained on.
  bool other_images = false;
  /// Whether it goes on although options that its results depend on are not those of the run.
  bool other_options = false;
};

/// What a run does when a value stops being finite. back: it goes back to the last checkpoint
/// and on from there with half the learning rate.
enum class on_non_finite { stop, back };
/// As options call them.
constexpr auto option_names(on_non_finite) {
  return std::array{"stop", "back"};
}

/// Where a run keeps its checkpoint.
struct run_checkpoint {
  std::string path;                  ///< of the file
  double every_seconds = 60;         ///< between saves while the run goes on
  bool resume = false;               ///< go on from the file, which must be there
  resume_options resumed_with = {};  ///< how
  double every_kimg = 0;  ///< also at each multiple of so many thousand images; 0: not
  int keep = 1;           ///< states kept: the newest at `path`, those before it beside it
                          ///< (io/kept_versions.hpp), by step
  std::string run = {};   ///< goes along in the file (`save`)
  on_non_finite on_nan = on_non_finite::stop;  ///< said aloud when it happens
  int most_returns = 3;                        ///< how often a run goes back before it stops
};

namespace checkpoint_detail {

/// The state of a run in its file. (`save(path, t, text)` and `resume(path, t, options)` are
/// whatever the trainer's namespace has for it.)
template <class Trainer>
class kept_state {
 public:
  /// Resumes where asked for. @throws value_error for settings out of range, and as resume does
  kept_state(Trainer& t, const run_checkpoint& c)
      : trainer_(t),
        settings_(c),
        processes_(processes_of(t)) {
    require<value_error>(c.every_seconds > 0, "run: a checkpoint every ", c.every_seconds,
                         " seconds; give a number above 0");
    require<value_error>(c.keep >= 1 && c.every_kimg >= 0 && c.most_returns >= 0,
                         "run: keep = ", c.keep, ", every_kimg = ", c.every_kimg,
                         ", most_returns = ", c.most_returns,
                         "; one state is kept at least, the others are not negative");
    require<value_error>(can_go_back || c.on_nan == on_non_finite::stop,
                         "run: this trainer cannot go back; leave on_nan = stop");
    on_first([&] {
      io::detail::check_writable(c.path);  // before the work, not after it
      lock_.emplace(c.path);
    });
    if (c.resume) {
      resume(c.path, t, c.resumed_with);
      held_step_ = t.steps();
    } else if (c.on_nan == on_non_finite::back) {
      save_now();  // there is something to go back to
    }
    saved_multiple_ = multiple();
  }

  /// Writes the state as it is. @throws as save does
  void save_now() {
    const run_checkpoint& c = settings_;
    if (held_step_ >= 0 && held_step_ != trainer_.steps() && c.keep > 1)
      on_first([&] { io::keep_version(c.path, held_step_); });
    save(c.path, trainer_, c.run);
    since_saved_.restart();
    held_step_ = trainer_.steps();
    if (c.keep > 1)
      on_first([&] { io::drop_versions(c.path, std::size_t(c.keep - 1)); });
  }
  /// The same when it is time. A file that cannot be written is tried again later.
  void save_when_due() {
    const bool due =
        since_saved_.seconds() >= settings_.every_seconds || multiple() != saved_multiple_;
    if (!first_says(processes_, due))
      return;
    try {
      save_now();
      saved_multiple_ = multiple();
    } catch (const echoed_error&) {  // the first process warns
    } catch (const file_error& e) {
      since_saved_.restart();
      warn("run: a checkpoint could not be written and is tried again in ",
           settings_.every_seconds, " s: ", e.what());
    }
  }
  /// After a value that was not finite. @throws numeric_error that says what the file holds,
  /// when the run does not go back, or did so too often
  void go_back(const numeric_error& e) {
    const run_checkpoint& c = settings_;
    const std::string held = held_step_ < 0
                                 ? "nothing of this run"
                                 : "the state after step " + std::to_string(held_step_);
    if (c.on_nan == on_non_finite::stop)
      say_once<numeric_error>(processes_, e.what(), "; ", c.path, " holds ", held);
    if (returns_ == c.most_returns)
      say_once<numeric_error>(processes_, e.what(), "; the run went back ", returns_,
                              " times, as often as it may; ", c.path, " holds ", held);
    if constexpr (can_go_back) {
      ++returns_;
      const double factor = trainer_.rate_factor() / 2;
      resume(c.path, trainer_, c.resumed_with);
      trainer_.set_rate_factor(factor);
      warn("run: ", e.what(), "; goes back to ", held, " (", c.path,
           ") with the learning rate ", "times ", factor, ", return ", returns_, " of at most ",
           c.most_returns);
    }
  }

 private:
  static constexpr bool can_go_back = requires(Trainer & t) {
    t.set_rate_factor(t.rate_factor());
  };
  /// f() on the process that writes; all hear of it when that fails.
  template <class F>
  void on_first(F&& f) {
    together(processes_, [&] {
      if (processes_.rank() == 0)
        f();
    });
  }
  double multiple() const {
    return multistage::detail::multiples_of(settings_.every_kimg, trainer_.images_seen());
  }

  Trainer& trainer_;
  const run_checkpoint& settings_;
  process_group processes_;
  std::optional<io::run_lock> lock_;
  stopwatch since_saved_;
  index_t held_step_ = -1;  // of the state in the file; -1: none of this run
  double saved_multiple_ = 0;
  int returns_ = 0;
};

}  // namespace checkpoint_detail

/// Trains as run() in training/run.hpp does and keeps a checkpoint: saved now and then, at the
/// end, when a signal asks the program to stop, and when the observer throws. The path is
/// locked meanwhile (io/run_lock.hpp): a second run with it is refused. A save in between that
/// fails is tried again at the next turn and warned of; the file that was there stays. When a
/// value stops being finite the run ends, or goes back as `on_nan` says: points of what is done
/// again then stand in the history again. @throws as run, save and resume do; a numeric_error
/// says what the file holds
template <steps_through_data Trainer, class Observe>
run_result run(Trainer& t,
               const training_limit& limit,
               const run_checkpoint& c,
               Observe&& observe,
               double window_seconds = 0.5) {
  const stop_signals signals;  // until the last save is done
  process_group processes = processes_of(t);
  checkpoint_detail::kept_state state(t, c);
  const stopwatch whole;
  const index_t last_step = t.steps() + limit.steps;
  const double images_before = t.images_seen();
  std::vector<loss_point> history;
  training_limit rest = limit;
  while (true) {
    bool stopped_by_observer = false;
    const double seconds_before = whole.seconds();
    const auto observe_and_save = [&](loss_point p, double done) {
      p.seconds += seconds_before;
      history.push_back(p);
      stopped_by_observer = true;
      bool go_on = true;
      together(processes, [&] { go_on = observe(history.back(), done); });
      stopped_by_observer = false;
      state.save_when_due();
      return go_on;
    };
    try {
      run_result r = run(t, rest, observe_and_save, window_seconds, c.every_kimg);
      state.save_now();
      r.history = std::move(history);
      r.seconds += seconds_before;
      r.images = t.images_seen() - images_before;
      return r;
    } catch (const numeric_error& e) {
      state.go_back(e);
    } catch (...) {
      if (stopped_by_observer)
        try {
          state.save_now();
        } catch (const error&) {  // what the observer threw says more
        }
      throw;
    }
    const double here = whole.seconds();
    const double spent = values_of_all(processes, here).front();
    rest.steps = limit.steps > 0 ? last_step - t.steps() : 0;
    rest.seconds = limit.seconds > 0 ? std::max(limit.seconds - spent, 1e-3) : 0;
  }
}

}  // namespace multistage
