// How many steps each stage gets. A sampler that walks a list of noise levels spreads them over
// all of its way; where the stages' networks cost differently, or one of them needs more steps
// than another, each stage's part of the way is divided by itself, by the same spacing:
//
//   sample(net, steps_by_stage(edm_heun{}, net.stages(), {6, 10, 4}));   // stage 0 first
//
// Stage s begins at its upper boundary, which belongs to it, and its n steps end at the lower
// one, where the next stage begins; the lowest stage's last step goes to 0 where the sampler's
// does. A step's first evaluation is its stage's own; later ones of the same step are routed by
// their noise level, as always.
#pragma once
#include <algorithm>
#include <concepts>
#include <vector>

#include "level_options.hpp"

namespace multistage {

/// Spreads its noise levels by EDM's rho, and by nothing else.
template <class Sampler>
concept spreads_by_rho = requires(const Sampler& s) {
  { s.rho } -> std::convertible_to<double>;
  requires !requires {
    s.discretization;
  };
};
/// Spreads its noise levels by a spacing of its schedule.
template <class Sampler>
concept spreads_by_spacing = requires(const Sampler& s) {
  { s.steps } -> std::convertible_to<spacing>;
  s.schedule.t(1.0);
};
/// A sampler whose noise levels may be listed, and that spreads them in a way that serves a
/// part of them, too.
template <class Sampler>
concept walks_levels = requires(Sampler s, std::vector<double> levels) {
  s.levels = levels;
  s.num_steps = 1;
  requires spreads_by_rho<Sampler> || spreads_by_spacing<Sampler>;
};

namespace sampling {

/// The levels of n steps from `high` to `low`, both included, as the sampler spreads them.
template <walks_levels Sampler>
std::vector<double> levels_between(const Sampler& sampler, double high, double low, int n) {
  std::vector<double> levels;
  if constexpr (spreads_by_spacing<Sampler>) {
    const auto& schedule = sampler.schedule;
    levels = noise_levels(schedule, sampler.steps,
                          noise_ends{schedule.t(high), schedule.t(low), high, low}, n);
  } else {
    levels = karras_levels(sampler.name(), n + 1, low, high, sampler.rho);
    levels.pop_back();  // the 0 behind them
    levels.front() = high;
    levels.back() = low;
  }
  return levels;
}

}  // namespace sampling

/// The sampler with levels that give each stage its number of steps. @param steps stage 0
/// (lowest noise) first
/// @throws value_error unless every stage that the sampler's way crosses has at least one step
/// and the others none, and as sigmas() does
template <walks_levels Sampler>
Sampler steps_by_stage(Sampler sampler,
                       const partition& stages,
                       const std::vector<int>& steps) {
  const int count = stages.stage_count();
  require<value_error>(int(steps.size()) == count, sampler.name(), ": steps of ", steps.size(),
                       " stages for a model of ", count,
                       "; give a number for each, stage 0 (lowest noise) first");
  require<value_error>(sampler.levels.empty(), sampler.name(),
                       ": levels and steps by stage exclude each other");
  Sampler even = sampler;  // whose stages are not told, so that it aligns nothing by itself
  even.num_steps = std::max(even.num_steps, 2);
  std::vector<double> way = even.sigmas();
  const bool ends_at_zero = way.back() == 0;
  if (ends_at_zero)
    way.pop_back();
  std::vector<double> levels{way.front()};
  for (int s = count - 1; s >= 0; --s) {
    const auto boundary = [&](int b) {
      return stages.boundaries()[std::size_t(b)];
    };
    const double high = std::min(way.front(), s + 1 < count ? boundary(s) : way.front());
    const double low = std::max(way.back(), s > 0 ? boundary(s - 1) : way.back());
    const bool last = s == 0 && ends_at_zero;
    const int n = steps[std::size_t(s)];
    const bool crossed = low < high;
    require<value_error>(n <= 1'000'000 && (crossed ? n >= 1 : n == 0), sampler.name(), ": ", n,
                         " steps for stage ", s, ", of which the way from sigma ", way.front(),
                         " to ", way.back(), crossed ? " crosses " : " crosses nothing: ",
                         crossed ? "a part: give it 1 to 1000000" : "give it 0");
    const int divided = last ? n - 1 : n;  // the last one goes to 0
    if (!crossed || divided == 0)
      continue;
    const std::vector<double> part = sampling::levels_between(even, high, low, divided);
    levels.insert(levels.end(), part.begin() + 1, part.end());
  }
  if (ends_at_zero)
    levels.push_back(0);
  sampler.levels = std::move(levels);
  sampler.sigmas();  // what is wrong with them is said here
  return sampler;
}

}  // namespace multistage
