// What samplers share. A sampler moves x, in the coordinate x = y + sigma n (whatever alpha a
// schedule has, it cancels), down a list of noise levels. It gets four things: `denoise(x,
// sigma, d)` evaluates D; `noise(k, z)` fills the k-th draw of standard normal noise;
// `observe(step, sigma, x, d)` sees each step's first evaluation and returns whether to go on;
// and x itself.
//
// All samplers spell their options alike:
//   num_steps              steps; where a sampler can end at 0, the last one does
//   sigma_min, sigma_max   ends of the levels; 0: those of `schedule`
//   steps                  how the levels lie between them (see schedule/noise_levels.hpp)
//   schedule               whose times the spacings in t divide
//   levels                 in the place of all these, where given: the ends of the steps,
//   descending
// They come first and in this order, a sampler's own behind them: ddim{.num_steps = 30, .eta =
// 1}. Each sampler lists them in `fields` (core/options.hpp), and `name()` is what programs
// call it.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <span>
#include <vector>

#include "../core/tensor.hpp"
#include "../ops/elementwise.hpp"
#include "../ops/reduce.hpp"
#include "../schedule/any_schedule.hpp"
#include "../schedule/noise_levels.hpp"
#include "crossing.hpp"
#include "levels.hpp"

namespace multistage {
namespace sampling {

/// The options that say where steps lie, for the field lists of samplers.
template <class Sampler, class Visit>
void level_fields(Sampler& s, Visit& visit) {
  visit(option{"num_steps", "steps from the highest noise level to the lowest",
               between(1, 1'000'000)},
        s.num_steps);
  visit(
      option{"sigma_min", "lowest noise level above 0; 0: the schedule's own", between(0, 1e6)},
      s.sigma_min);
  visit(option{"sigma_max", "highest noise level; 0: the schedule's own", between(0, 1e6)},
        s.sigma_max);
  visit(option{"spacing", "how the levels lie between them"}, s.steps);
  visit(option{"schedule", "in whose time spacings divide, and what is a polynomial in t"},
        s.schedule);
  visit(option{"levels", "the ends of the steps, descending, in the place of the options above",
               between(0, 1e6)},
        s.levels);
}
/// What multistep methods do between stages, likewise.
template <class Sampler, class Visit>
void crossing_field(Sampler& s, Visit& visit) {
  visit(option{"boundary", "what is done where the stage changes"}, s.crossing.policy);
}

/// Both ends of a sampler's way.
template <class Sampler>
noise_ends ends_of(const Sampler& s) {
  noise_ends e{s.schedule.t_max(), s.schedule.t_min(), 0, 0};
  if (s.sigma_max > 0)
    e.t_start = s.schedule.t(s.sigma_max);
  if (s.sigma_min > 0)
    e.t_end = s.schedule.t(s.sigma_min);
  e.high = s.sigma_max > 0 ? s.sigma_max : s.schedule.sigma(e.t_start);
  e.low = s.sigma_min > 0 ? s.sigma_min : s.schedule.sigma(e.t_end);
  return e;
}

/// The levels that a sampler walks: its own list, or the ends of its num_steps steps. @param
/// to_zero the last of them goes to 0. @throws value_error for any of its options that is out
/// of range
template <class Sampler>
std::vector<double> levels_of(const char* name, const Sampler& s, bool to_zero) {
  check_options(name, s);
  if (!s.levels.empty())
    return check_levels(name, s.levels);
  const noise_ends ends = ends_of(s);
  require<value_error>(ends.low < ends.high, name, ": sigma_min = ", ends.low,
                       ", sigma_max = ", ends.high, "; noise levels must lie between them");
  if (!to_zero)
    return noise_levels(s.schedule, s.steps, ends, s.num_steps);
  std::vector<double> levels{ends.high};
  if (s.num_steps > 1)
    levels = noise_levels(s.schedule, s.steps, ends, s.num_steps - 1);
  levels.push_back(0);
  return levels;
}
/// The same where no step may end at 0.
template <class Sampler>
std::vector<double> positive_levels_of(const char* name, const Sampler& s) {
  std::vector<double> levels = levels_of(name, s, false);
  require<value_error>(
      levels.back() > 0, name,
      ": the last noise level is 0; end above it, and denoise once more if wanted");
  return levels;
}
/// Where samplers of variance-preserving processes start: latents of unit variance in x_t.
inline double unit_start(double sigma) {
  return std::sqrt(1 + sigma * sigma);
}

/// Whether a schedule matters to where steps lie.
template <class Sampler>
bool divides_time(const Sampler& s) {
  const bool own_ends = s.sigma_min == 0 || s.sigma_max == 0;
  return s.levels.empty() &&
         (own_ends || (s.steps != spacing::log_snr && s.steps != spacing::karras));
}
/// Why a schedule does nothing in a sampler; null where it does something. @param own whether
/// the sampler itself reads its times
template <class Sampler>
const char* idle_schedule(const Sampler& s, std::string_view option, bool own = false) {
  return option == "schedule" && !own && !divides_time(s)
             ? "with these levels, which are no matter of a time"
             : nullptr;
}

/// Up to six terms of a sum, collected one after the other.
class sum {
 public:
  sum(std::initializer_list<ops::term<double>> first) {
    for (const auto& t : first)
      add(t.coefficient, t.x);
  }
  void add(double coefficient, const double* x) {
    terms_.at(count_++) = {coefficient, x};
  }
  std::span<const ops::term<double>> terms() const {
    return {terms_.data(), count_};
  }

 private:
  std::array<ops::term<double>, 6> terms_{};
  std::size_t count_ = 0;
};

/// Work space of one walk: the state, and tensors like it.
template <class Backend>
struct work {
  using state = tensor<double, Backend>;
  Backend& b;
  view<double> x;
  index_t n = x.extents.size();

  state make() const {
    return state(b, x.extents);
  }
  /// y = sum of the terms.
  void combine(double* y, std::initializer_list<ops::term<double>> terms) {
    ops::linear_combination<Backend, double>(b, n, y, terms);
  }
  void combine(double* y, const sum& s) {
    ops::linear_combination<Backend, double>(b, n, y, s.terms());
  }
  /// What multistep methods keep: the newest first, at most `depth`. Tensors are reused.
  struct memory {
    std::vector<state> values;
    std::vector<double> levels;
    std::size_t depth;
    /// A place for a new value at a level.
    state& push(const work& w, double level) {
      if (values.size() < depth)
        values.insert(values.begin(), w.make());
      else
        std::rotate(values.begin(), values.end() - 1, values.end());
      levels.insert(levels.begin(), level);
      if (levels.size() > depth)
        levels.resize(depth);
      return values.front();
    }
    int size() const {
      return int(levels.size());
    }
    void forget() {
      levels.clear(), values.clear();
    }
    /// The newest goes; its memory serves the next.
    void drop_newest() {
      std::rotate(values.begin(), values.begin() + 1, values.end());
      levels.erase(levels.begin());
    }
    const double* operator[](int k) const {
      return values[std::size_t(k)].data();
    }
    /// start + sum of c[k] times the k-th newest value, over the first `count`.
    template <class Coefficients>
    sum add_to(sum start, const Coefficients& c, int count) const {
      for (int k = 0; k < count; ++k)
        start.add(c[std::size_t(k)], (*this)[k]);
      return start;
    }
  };
};

}  // namespace sampling
}  // namespace multistage
