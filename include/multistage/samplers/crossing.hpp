// What samplers do where the stage changes: a value from one stage's network is no history for
// the next one's, and a step that reaches across a boundary ends where its network was never
// trained.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "../core/options.hpp"
#include "../stages/partition.hpp"

namespace multistage {

/// What a multistep method does with its history where the stage changes: the values on both
/// sides come from different networks. carry: uses it on (what the reference does); restart:
/// forgets it and begins with first order again; align: restarts, and each boundary is made the
/// end of a step.
enum class boundary_policy { carry, restart, align };
/// The names of `boundary_policy`, in order.
constexpr std::array<const char*, 3> option_names(boundary_policy) {
  return {"carry", "restart", "align"};
}

/// The stages a sampler knows of, and what it does between them. Without stages, `sample` puts
/// the model's in their place.
struct stage_crossing {
  partition stages{};                               ///< one: the model's are taken
  boundary_policy policy = boundary_policy::carry;  ///< what is done between them

  /// Whether history from level `before` serves at level `now`.
  bool keeps_history(double before, double now) const {
    if (policy == boundary_policy::carry || now <= 0)
      return true;
    return stages.stage(before) == stages.stage(now);
  }

  /// The order, of at most k, of a step to level `to` from the newest of `history`. Values at
  /// levels that lie a hundred times nearer to each other (in ln sigma) than the step is long
  /// are no history: what they differ by, rounding and all, would be stretched as far. With
  /// align, a step onto a boundary that is more than twice as long (in ln sigma) as the one
  /// before it is of first order: a polynomial does not reach so far beyond its values.
  int order(int k, const std::vector<double>& history, double to) const {
    if (k == 1 || history.size() < 2 || to <= 0)
      return k;
    const double h = std::log(history[0] / to);  // the step's length
    for (std::size_t j = 1; int(j) < k && j < history.size(); ++j) {
      const double apart = std::log(history[j] / history[j - 1]);
      if (apart < 0.01 * h)
        k = int(j);
    }
    if (policy != boundary_policy::align)
      return k;
    const std::vector<double>& all = stages.boundaries();
    if (std::find(all.begin(), all.end(), to) == all.end())
      return k;
    const double before = std::log(history[1] / history[0]);
    return h > 2 * before ? 1 : k;
  }

  /// Where a step from `sigma` towards `end` must stop at the latest: at the next boundary, if
  /// asked for.
  double stop(double sigma, double end) const {
    if (policy != boundary_policy::align)
      return end;
    const std::vector<double>& all = stages.boundaries();
    const auto first_not_below = std::lower_bound(all.begin(), all.end(), sigma);
    if (first_not_below == all.begin())
      return end;
    return std::max(*std::prev(first_not_below), end);
  }

  /// The levels, of which, if asked for, each boundary between the first and the last has one
  /// of its own, so that no step reaches across. The nearest level that is still free is moved
  /// onto it, unless it had to go further than half a step; then a level is inserted, at the
  /// cost of one more step.
  /// @param orders a number for each step (or none); a step that is divided leaves its own to
  /// both parts.
  std::vector<double> aligned(std::vector<double> levels,
                              std::vector<int>* orders = nullptr) const;
};

namespace sampling {

/// Levels while boundaries find their places among them.
class alignment {
 public:
  /// Of levels that descend; both ends stay.
  explicit alignment(std::vector<double> levels)
      : levels_(std::move(levels)),
        fixed_(levels_.size(), 0) {
    fixed_.front() = 1;
    fixed_.back() = 1;
    for (std::size_t i = 0; i < levels_.size(); ++i) {
      const bool first = i == 0;
      const bool last = i + 1 == levels_.size();
      const double above = first ? 0 : length(levels_[i - 1], levels_[i]);
      const double below = last ? 0 : length(levels_[i], levels_[i + 1]);
      span_.push_back(std::max(above, below));
    }
  }
  /// As they are by now, descending.
  const std::vector<double>& levels() const {
    return levels_;
  }

  /// Whether a boundary is a level already; that one stays where it is.
  bool holds(double boundary) {
    const auto at = std::find(levels_.begin(), levels_.end(), boundary);
    if (at == levels_.end())
      return false;
    fixed_[std::size_t(at - levels_.begin())] = 1;
    return true;
  }
  /// A level that may be moved onto a boundary, and how far in ln sigma; `far` when there is
  /// none.
  struct move {
    std::size_t level = 0;       ///< which of the levels
    double distance = HUGE_VAL;  ///< in ln sigma
  };
  /// The level with the shortest way onto a boundary.
  move nearest(double boundary) const {
    move best;
    const std::size_t below = first_below(boundary);
    for (const std::size_t i : {below - 1, below}) {
      if (fixed_[i])
        continue;
      const double level = levels_[i];
      const double distance = std::fabs(std::log(level / boundary));
      // The step on the other side grows by as much.
      const double other =
          level > boundary ? length(levels_[i - 1], level) : length(level, levels_[i + 1]);
      const bool near = distance <= 0.5 * span_[i];
      const bool bearable = other + distance <= 1.5 * span_[i];
      if (near && bearable && distance < best.distance)
        best = {i, distance};
    }
    return best;
  }
  /// Moves a level onto a boundary, where it stays.
  void put(std::size_t level, double boundary) {
    levels_[level] = boundary;
    fixed_[level] = 1;
  }
  /// Returns which step was divided.
  std::size_t insert(double boundary) {
    const std::size_t at = first_below(boundary);
    const auto place = std::ptrdiff_t(at);
    levels_.insert(levels_.begin() + place, boundary);
    fixed_.insert(fixed_.begin() + place, char(1));
    span_.insert(span_.begin() + place, 0.0);
    return at - 1;
  }

 private:
  /// Length of a step in ln sigma; a step to 0, which has none, does not count.
  static double length(double from, double to) {
    return to > 0 ? std::log(from / to) : 0;
  }
  /// The place of the first level below a boundary.
  std::size_t first_below(double boundary) const {
    const auto below = [&](double level) {
      return level < boundary;
    };
    const auto found = std::find_if(levels_.begin(), levels_.end(), below);
    return std::size_t(found - levels_.begin());
  }
  std::vector<double> levels_;
  std::vector<char> fixed_;   // both ends, and levels that are boundaries
  std::vector<double> span_;  // the longer of the steps beside each level, as it was given
};

}  // namespace sampling

/// @see stage_crossing
inline std::vector<double> stage_crossing::aligned(std::vector<double> levels,
                                                   std::vector<int>* orders) const {
  if (policy != boundary_policy::align || levels.size() < 2)
    return levels;
  sampling::alignment places(std::move(levels));
  const double highest = places.levels().front();
  const double lowest = places.levels().back();
  std::vector<double> open;  // boundaries that have no level yet
  for (const double boundary : stages.boundaries()) {
    const bool between = boundary < highest && boundary > lowest;
    if (between && !places.holds(boundary))
      open.push_back(boundary);
  }
  while (!open.empty()) {  // the shortest way first
    std::size_t which = 0;
    sampling::alignment::move best;
    for (std::size_t k = 0; k < open.size(); ++k) {
      const sampling::alignment::move one = places.nearest(open[k]);
      if (one.distance < best.distance) {
        best = one;
        which = k;
      }
    }
    if (best.distance < HUGE_VAL) {
      places.put(best.level, open[which]);
    } else {
      const std::size_t step = places.insert(open[which]);
      if (orders)
        orders->insert(orders->begin() + std::ptrdiff_t(step), (*orders)[step]);
    }
    open.erase(open.begin() + std::ptrdiff_t(which));
  }
  return places.levels();
}

}  // namespace multistage
