// What samplers share. A sampler moves x, in the coordinate x = y + sigma n (whatever alpha a schedule has, it cancels), down a list of noise
// levels. It gets four things: `denoise(x, sigma, d)` evaluates D; `noise(k, z)` fills the k-th draw of standard normal noise; `observe(step,
// sigma, x, d)` sees each step's first evaluation and returns whether to go on; and x itself.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/tensor.hpp"
#include "../ops/elementwise.hpp"
#include "../stages/partition.hpp"

namespace multistage {

/// What a multistep method does with its history where the stage changes: the values on both sides come from different networks.
/// carry: uses it on (what the reference does); restart: forgets it and begins with first order again; align: restarts, and the nearest step
/// is moved onto the boundary, so that no step reaches across.
enum class boundary_policy { carry, restart, align };
constexpr const char* to_string(boundary_policy p) {
  constexpr const char* names[] = {"carry", "restart", "align"};
  return names[int(p)];
}

/// The stages a sampler knows of, and what it does between them.
struct stage_crossing {
  partition stages{};
  boundary_policy policy = boundary_policy::carry;

  /// Whether history from level `before` serves at level `now`.
  bool keeps_history(double before, double now) const { return policy == boundary_policy::carry || now <= 0 || stages.stage(before) == stages.stage(now); }
  /// Levels with the nearest inner one on each boundary, if asked for.
  std::vector<double> aligned(std::vector<double> levels) const {
    if (policy != boundary_policy::align) return levels;
    for (const double b : stages.boundaries()) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < levels.size(); ++i)
        if (best == 0 || std::fabs(std::log(levels[i] / b)) < std::fabs(std::log(levels[best] / b))) best = i;
      if (best > 0 && levels[best - 1] > b && b > levels[best + 1]) levels[best] = b;
    }
    return levels;
  }
};

namespace sampling {

/// @throws value_error unless levels descend from a finite one to 0 or above.
inline const std::vector<double>& check_levels(const char* sampler, const std::vector<double>& levels) {
  require<value_error>(levels.size() >= 2, sampler, ": ", levels.size(), " noise levels; give at least two, the start and the end");
  for (std::size_t i = 0; i < levels.size(); ++i)
    require<value_error>(std::isfinite(levels[i]) && levels[i] >= 0 && (i == 0 || levels[i] < levels[i - 1]), sampler, ": noise level ", i, " is ", levels[i],
                         "; levels descend and end at 0 or above");
  return levels;
}

/// Work space of one walk: the state, and tensors like it.
template <class Backend>
struct work {
  using state = tensor<double, Backend>;
  Backend& b;
  view<double> x;
  index_t n = x.extents.size();

  state make() const { return state(b, x.extents); }
  /// y = sum of the terms.
  void combine(double* y, std::initializer_list<ops::term<double>> terms) { ops::linear_combination<Backend, double>(b, n, y, terms); }
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
      if (levels.size() > depth) levels.resize(depth);
      return values.front();
    }
    int size() const { return int(levels.size()); }
    void forget() { levels.clear(), values.clear(); }
    /// The newest goes; its memory serves the next.
    void drop_newest() {
      std::rotate(values.begin(), values.begin() + 1, values.end());
      levels.erase(levels.begin());
    }
    const double* operator[](int k) const { return values[std::size_t(k)].data(); }
  };
};

}  // namespace sampling
}  // namespace multistage
