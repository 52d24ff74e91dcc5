// A training run: steps until a limit, an interrupt or an observer says stop; what happened is
// kept as a history of losses by stage.
//
//   run(trainer, kimg(200), [&](const loss_point& p, double done) {
//     bar.show(done, std::to_string(int(p.images_per_second)) + " images/s");
//     return true;                                   // false ends the run
//   });
#pragma once
#include <concepts>

#include "../core/signals.hpp"
#include "../core/stopwatch.hpp"
#include "../distributed/together.hpp"
#include "trainer.hpp"

namespace multistage {

/// When a run ends: whichever comes first. Numbers at 0 do not limit.
struct training_limit {
  double kimg = 0;     ///< thousand images, counted over the whole training
  double seconds = 0;  ///< of this run
  index_t steps = 0;   ///< of this run
};
/// So many thousand images, counted over the whole training.
inline training_limit kimg(double thousands) {
  return {.kimg = thousands};
}
/// So long from now.
inline training_limit seconds(double s) {
  return {.seconds = s};
}

/// What a run drives: a value with `step()`, whose report says `step`, `loss` and `rows` (by
/// stage, or by whatever else it lists), and `steps()`, `images_seen()`, `done()`.
template <class T>
concept steps_through_data = requires(T& t) {
  { t.step().loss } -> std::convertible_to<std::vector<double>>;
  { t.step().rows } -> std::convertible_to<std::vector<index_t>>;
  { t.steps() } -> std::convertible_to<index_t>;
  { t.images_seen() } -> std::convertible_to<double>;
  { t.done() } -> std::convertible_to<bool>;
};

/// Mean loss by stage over a window of steps.
struct loss_point {
  index_t step = 0;              ///< the last one of the window
  double images = 0;             ///< seen over the whole training
  double seconds = 0;            ///< since the run began
  double images_per_second = 0;  ///< in the window
  std::vector<double> loss;      ///< NaN for a stage without rows in the window
  double step_seconds = 0;       ///< a step's, in the window
  group_traffic traffic{};       ///< a step's, likewise, on this process, where several train
  double new_images = 0;         ///< seen in the window
};

/// What a run did.
struct run_result {
  std::vector<loss_point> history;  ///< a point a window
  double seconds = 0;               ///< it took
  double images = 0;                ///< it saw
  bool interrupted = false;         ///< by a signal
  int signal = 0;  ///< which; a program that ends for it returns 128 + its number
  /// On average.
  double images_per_second() const {
    return seconds > 0 ? images / seconds : 0;
  }
};

/// The processes that step together: a trainer's `processes()`; one that has none is alone.
template <class Trainer>
process_group processes_of(Trainer& t) {
  if constexpr (requires { t.processes(); })
    return t.processes();
  else
    return {};
}

namespace detail {

/// How much of its limit a run has seen.
inline double share_done(const training_limit& limit,
                         double images,
                         double seconds,
                         index_t steps) {
  double done = 0;
  if (limit.kimg > 0)
    done = std::max(done, images / (limit.kimg * 1000));
  if (limit.seconds > 0)
    done = std::max(done, seconds / limit.seconds);
  if (limit.steps > 0)
    done = std::max(done, double(steps) / double(limit.steps));
  return done;
}
/// How many times so many thousand images were seen; 0 times none.
inline double multiples_of(double kimg, double images) {
  return kimg > 0 ? std::floor(images / (1000 * kimg)) : 0.0;
}
/// What ends a run or a window, so far.
struct run_clock {
  double seconds = 0;  // since the run began
  double window = 0;   // since the window did
  int signal = 0;      // that was caught
};
/// The same on all processes: the first one's time, and the first signal that any has caught.
MULTISTAGE_COLD inline run_clock agreed(process_group& processes, const run_clock& here) {
  if (processes.size() == 1)
    return here;
  run_clock all;
  const std::vector<run_clock> clocks = values_of_all(processes, here);
  all.seconds = clocks.front().seconds;
  all.window = clocks.front().window;
  for (const run_clock& one : clocks)
    if (all.signal == 0)
      all.signal = one.signal;
  return all;
}

/// Losses of a window, by stage.
class loss_sums {
 public:
  /// Adds a step's.
  template <class Report>
  void add(const Report& step) {
    sum_.resize(step.loss.size());
    rows_.resize(step.loss.size());
    for (std::size_t k = 0; k < sum_.size(); ++k)
      if (step.rows[k] > 0) {
        sum_[k] += step.loss[k] * double(step.rows[k]);
        rows_[k] += double(step.rows[k]);
      }
  }
  /// Their means; begins anew.
  std::vector<double> take() {
    std::vector<double> means;
    for (std::size_t k = 0; k < sum_.size(); ++k)
      means.push_back(sum_[k] / rows_[k]);
    std::fill(sum_.begin(), sum_.end(), 0.0);
    std::fill(rows_.begin(), rows_.end(), 0.0);
    return means;
  }

 private:
  std::vector<double> sum_;
  std::vector<double> rows_;
};

}  // namespace detail

/// Trains until the limit, a signal that asks to stop (core/signals.hpp), or until every stage
/// has seen its stage_kimg. `observe(point, share done)` is called at the end of each window of
/// about `window_seconds`, which ends sooner at a multiple of `window_kimg` thousand images (0:
/// it does not), and returns whether to go on. Processes that train together end together: a
/// signal to one of them ends all. @throws value_error for a limit that never ends,
/// numeric_error as trainer::step does
template <steps_through_data Trainer, class Observe>
run_result run(Trainer& t,
               const training_limit& limit,
               Observe&& observe,
               double window_seconds = 0.5,
               double window_kimg = 0) {
  require<value_error>(limit.kimg >= 0 && limit.seconds >= 0 && limit.steps >= 0 &&
                           (limit.kimg > 0 || limit.seconds > 0 || limit.steps > 0),
                       "run: the limit must name kimg, seconds or steps above 0; got kimg = ",
                       limit.kimg, ", seconds = ", limit.seconds, ", steps = ", limit.steps);
  const stopwatch whole;
  stopwatch window;
  const stop_signals signals;
  process_group processes = processes_of(t);
  group_traffic traffic = processes.traffic();
  run_result r;
  detail::loss_sums losses;
  const double images_before = t.images_seen();
  const index_t first_step = t.steps();
  index_t window_step = first_step;
  double window_images = images_before;
  for (bool go_on = true; go_on;) {
    const auto s = t.step();
    losses.add(s);
    const detail::run_clock now =
        detail::agreed(processes, {whole.seconds(), window.seconds(), signals.caught()});
    r.seconds = now.seconds;
    r.images = t.images_seen() - images_before;
    const double done = t.done() ? 1
                                 : detail::share_done(limit, t.images_seen(), r.seconds,
                                                      t.steps() - first_step);
    r.signal = now.signal;
    r.interrupted = r.signal != 0;
    go_on = done < 1 && !r.interrupted;
    const double length = now.window;
    const bool at_multiple = detail::multiples_of(window_kimg, t.images_seen()) !=
                             detail::multiples_of(window_kimg, window_images);
    if (length >= window_seconds || at_multiple || !go_on) {
      loss_point p{s.step, t.images_seen(), r.seconds, 0, losses.take()};
      const double steps = double(t.steps() - std::exchange(window_step, t.steps()));
      p.step_seconds = length / steps;
      p.new_images = t.images_seen() - window_images;
      p.images_per_second = p.new_images / length;
      const group_traffic before = std::exchange(traffic, processes.traffic());
      p.traffic = traffic.since(before).per(steps);
      r.history.push_back(p);
      const bool more = observe(r.history.back(), std::min(done, 1.0));
      go_on = !any(processes, !more) && go_on;
      window_images = t.images_seen();
      window.restart();
    }
  }
  if constexpr (requires { t.complete_average(); })
    t.complete_average();
  return r;
}

}  // namespace multistage
