// The options of samplers whose noise levels may be any schedule's, spelt alike by all:
//   num_steps              steps; where a sampler can end at 0, the last one does
//   sigma_min, sigma_max   ends of the levels; 0: those of `schedule`
//   steps                  how the levels lie between them (see schedule/noise_levels.hpp)
//   schedule               whose times the spacings in t divide
//   levels                 in the place of all these, where given: the ends of the steps,
//                          descending
// They come first and in this order, a sampler's own behind them: ddim{.num_steps = 30, .eta =
// 1}. Each sampler lists them in `fields` (core/options.hpp), and `name()` is what programs
// call it. The members themselves stand in each sampler: C++ names the direct members of an
// aggregate alone when one is made, so that a common base would end that spelling.
#pragma once
#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "../schedule/any_schedule.hpp"
#include "../schedule/noise_levels.hpp"
#include "crossing.hpp"
#include "levels.hpp"

namespace multistage::sampling {

/// The options that say where steps lie, for the field lists of samplers.
template <class Sampler, class Visit>
void level_fields(Sampler& s, Visit& visit) {
  steps_field(visit, s.num_steps, "steps from the highest noise level to the lowest");
  ends_fields(s, visit, "lowest noise level above 0; 0: the schedule's own",
              "highest noise level; 0: the schedule's own", between(0, 1e6));
  visit(option{"spacing", "how the levels lie between them"}, s.steps);
  visit(option{"schedule", "in whose time spacings divide, and what is a polynomial in t"},
        s.schedule);
  levels_field(visit, s.levels);
}
/// What multistep methods do between stages, likewise.
template <class Sampler, class Visit>
void crossing_field(Sampler& s, Visit& visit) {
  visit(option{"boundary", "what is done where the stage changes"}, s.crossing.policy);
}

/// Both ends of a sampler's way, in its schedule's time and in sigma.
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

/// The levels that a sampler walks: its own list, or the ends of its num_steps steps.
/// @param to_zero the last of them goes to 0
/// @throws value_error for any of its options that is out of range
template <class Sampler>
std::vector<double> levels_of(const Sampler& s, bool to_zero) {
  check_options(s.name(), s);
  if (!s.levels.empty())
    return check_levels(s.name(), s.levels);
  const noise_ends ends = ends_of(s);
  require<value_error>(ends.low < ends.high, s.name(), ": sigma_min = ", ends.low,
                       ", sigma_max = ", ends.high, "; noise levels must lie between them");
  if (!to_zero)
    return noise_levels(s.schedule, s.steps, ends, s.num_steps);
  std::vector<double> levels{ends.high};
  if (s.num_steps > 1)
    levels = noise_levels(s.schedule, s.steps, ends, s.num_steps - 1);
  levels.push_back(0);
  return levels;
}
/// The same where no step may end at 0. @throws value_error also for a list that does
template <class Sampler>
std::vector<double> positive_levels_of(const Sampler& s) {
  std::vector<double> levels = levels_of(s, false);
  require<value_error>(
      levels.back() > 0, s.name(),
      ": the last noise level is 0; end above it, and denoise once more if wanted");
  return levels;
}
/// Where samplers of variance-preserving processes start: latents of unit variance in x_t,
/// which over noise over signal have the standard deviation sqrt(1 + sigma^2).
inline double unit_start(double sigma) {
  return std::sqrt(1 + sigma * sigma);
}

/// Whether a sampler's schedule does anything: where it gives an end of the steps, they are
/// spaced in its time, or the sampler itself reads it, as its own `reads_schedule()` says.
template <class Sampler>
bool reads_schedule(const Sampler& s) {
  if constexpr (requires { s.reads_schedule(); })
    if (s.reads_schedule())
      return true;
  const bool own_ends = s.sigma_min == 0 || s.sigma_max == 0;
  return s.levels.empty() &&
         (own_ends || (s.steps != spacing::log_snr && s.steps != spacing::karras));
}

/// Why an option of a sampler does nothing beside its others; null where it does something.
/// What a sampler itself knows of that stands in its `idle(option)`.
template <class Sampler>
const char* no_effect(const Sampler& s, std::string_view option) {
  if constexpr (requires { s.levels; })
    if (!s.levels.empty())
      for (const char* replaced : {"num_steps", "sigma_min", "sigma_max", "spacing", "rho",
                                   "discretization", "epsilon_s"})
        if (option == replaced)
          return "with a list of levels, which takes its place";
  if constexpr (requires { s.idle(option); })
    if (const char* why = s.idle(option))
      return why;
  if constexpr (requires { s.steps; })
    if (option == "schedule" && !reads_schedule(s))
      return "with these levels, which are no matter of a time";
  return nullptr;
}

}  // namespace multistage::sampling
