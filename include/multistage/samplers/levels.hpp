// Lists of noise levels that samplers walk, and the options that say where they lie: EDM's
// (Karras et al., arXiv 2206.00364, eq. 5),
//   sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,
//   sigma_n = 0;
// those of any schedule are in samplers/level_options.hpp. Options that several samplers have
// stand here once with name, meaning and range, for the `fields` of samplers to visit.
#pragma once
#include <cmath>
#include <vector>

#include "../core/error.hpp"
#include "../core/options.hpp"

namespace multistage::sampling {

/// @throws value_error unless levels descend from a finite one to 0 or above.
inline const std::vector<double>& check_levels(const char* sampler,
                                               const std::vector<double>& levels) {
  require<value_error>(levels.size() >= 2, sampler, ": ", levels.size(),
                       " noise levels; give at least two, the start and the end");
  for (std::size_t i = 0; i < levels.size(); ++i)
    require<value_error>(
        std::isfinite(levels[i]) && levels[i] >= 0 && (i == 0 || levels[i] < levels[i - 1]),
        sampler, ": noise level ", i, " is ", levels[i],
        "; levels descend and end at 0 or above");
  return levels;
}

/// The option num_steps. @param least that the sampler can do with
template <class Visit, class Steps>
void steps_field(Visit& visit,
                 Steps& num_steps,
                 const char* meaning = "steps from the highest noise level to 0",
                 int least = 1) {
  visit(option{"num_steps", meaning, between(least, 1'000'000)}, num_steps);
}
/// The options sigma_min and sigma_max, both with their meaning.
template <class Sampler, class Visit>
void ends_fields(Sampler& s,
                 Visit& visit,
                 const char* lowest = "lowest noise level above 0",
                 const char* highest = "highest noise level",
                 const number_range& range = above(0, 1e6)) {
  visit(option{"sigma_min", lowest, range}, s.sigma_min);
  visit(option{"sigma_max", highest, range}, s.sigma_max);
}
/// The option levels, a list in the place of others.
template <class Visit, class Levels>
void levels_field(Visit& visit,
                  Levels& levels,
                  const char* meaning =
                      "the ends of the steps, descending, in the place of the options above") {
  visit(option{"levels", meaning, between(0, 1e6)}, levels);
}

/// The noise levels of EDM's equation 5 with the final 0, descending. @throws value_error
/// naming what is out of range, also where the powers leave a double no digits
MULTISTAGE_COLD inline std::vector<double> karras_levels(const char* sampler,
                                                         int num_steps,
                                                         double sigma_min,
                                                         double sigma_max,
                                                         double rho) {
  require<value_error>(
      sigma_min < sigma_max, sampler, ": sigma_min = ", sigma_min, ", sigma_max = ", sigma_max,
      "; noise levels must lie between them: raise sigma_max or lower sigma_min");
  const double high = std::pow(sigma_max, 1 / rho);
  const double low = std::pow(sigma_min, 1 / rho);
  std::vector<double> s;
  for (int i = 0; i < num_steps; ++i)
    s.push_back(num_steps == 1
                    ? sigma_max
                    : std::pow(high + double(i) / (num_steps - 1) * (low - high), rho));
  s.push_back(0);
  for (std::size_t i = 0; i < s.size(); ++i)
    require<value_error>(s[i] < number_range::infinity && (i == 0 || s[i] < s[i - 1]), sampler,
                         ": rho = ", rho, " and num_steps = ", num_steps, " put noise level ",
                         i, " at ", s[i],
                         "; levels must descend: take a rho nearer to 7, or fewer steps");
  return s;
}
/// The options of that list: num_steps, sigma_min, sigma_max, rho, levels.
template <class Sampler, class Visit>
void karras_fields(Sampler& s, Visit& visit) {
  steps_field(visit, s.num_steps);
  ends_fields(s, visit);
  visit(option{"rho", "how the steps crowd towards low noise", between(0.1, 1000)}, s.rho);
  levels_field(visit, s.levels);
}
/// The levels of a sampler with these options: its own list, or equation 5's. @throws
/// value_error for any of its options that is out of range
template <class Sampler>
std::vector<double> karras_levels_of(const Sampler& s) {
  check_options(s.name(), s);
  return s.levels.empty()
             ? karras_levels(s.name(), s.num_steps, s.sigma_min, s.sigma_max, s.rho)
             : check_levels(s.name(), s.levels);
}

}  // namespace multistage::sampling
