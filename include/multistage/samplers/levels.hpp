// What any list of noise levels that a sampler walks must be.
#pragma once
#include <cmath>
#include <string_view>
#include <vector>

#include "../core/error.hpp"

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
    return s.idle(option);
  return nullptr;
}

}  // namespace multistage::sampling
