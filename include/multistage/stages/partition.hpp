// The partition of noise levels into stages (arXiv 2312.09181, section 3): boundaries ascend in
// sigma, stage i holds sigma in (boundary i-1, boundary i], stage 0 the lowest noise. One
// object serves training and sampling, and lies in every checkpoint.
//
//   partition stages({0.6, 9});                // three stages
//   stages.stage(0.6) == 0; stages.stage(0.61) == 1;
//   partition::from_times(vp_schedule{}, {0.442, 0.630});
//
// Boundaries are noise levels, not times, so that one partition holds for every schedule.
#pragma once
#include <cmath>
#include <utility>
#include <vector>

#include "../core/error.hpp"

namespace multistage {

/// Intervals of noise levels, one a stage. A value: models copy it, and it never changes.
class partition {
 public:
  /// One stage that holds everything.
  partition() = default;
  /// @param boundaries in sigma, finite, above 0 and strictly ascending; n boundaries make n +
  /// 1 stages. @throws value_error otherwise.
  explicit partition(std::vector<double> boundaries)
      : boundaries_(std::move(boundaries)) {
    for (std::size_t i = 0; i < boundaries_.size(); ++i) {
      require<value_error>(std::isfinite(boundaries_[i]) && boundaries_[i] > 0,
                           "partition: boundary ", i, " is ", boundaries_[i],
                           "; boundaries are noise levels sigma, finite and above 0");
      require<value_error>(i == 0 || boundaries_[i - 1] < boundaries_[i],
                           "partition: boundary ", i, " is ", boundaries_[i],
                           ", not above the one before it, ", boundaries_[i == 0 ? 0 : i - 1],
                           "; boundaries must ascend");
    }
  }
  /// From times of a schedule whose sigma grows with t.
  template <class Schedule>
  static partition from_times(const Schedule& schedule, const std::vector<double>& times) {
    std::vector<double> sigmas;
    for (double t : times)
      sigmas.push_back(schedule.sigma(t));
    return partition(std::move(sigmas));
  }

  /// One more than there are boundaries.
  int stage_count() const {
    return int(boundaries_.size()) + 1;
  }
  /// Noise levels between stages, ascending.
  const std::vector<double>& boundaries() const {
    return boundaries_;
  }
  /// The stage of a noise level: how many boundaries lie below it.
  int stage(double sigma) const {
    int s = 0;
    while (s < int(boundaries_.size()) && boundaries_[s] < sigma)
      ++s;
    return s;
  }
  /// Ends of a stage in sigma: 0 below the first, infinity above the last.
  double lower(int stage) const {
    return stage == 0 ? 0.0 : boundaries_.at(stage - 1);
  }
  /// The largest sigma that still belongs to the stage; infinity for the last.
  double upper(int stage) const {
    return stage == int(boundaries_.size()) ? HUGE_VAL : boundaries_.at(stage);
  }
  /// The boundaries in a schedule's own time.
  template <class Schedule>
  std::vector<double> times(const Schedule& schedule) const {
    std::vector<double> t;
    for (double b : boundaries_)
      t.push_back(schedule.t(b));
    return t;
  }
  /// One stage less: stage i and the one above it become one. @throws value_error when there is
  /// none above
  partition merged(int i) const {
    require<value_error>(i >= 0 && i < int(boundaries_.size()), "partition: stage ", i,
                         " has none above it to merge with");
    std::vector<double> b = boundaries_;
    b.erase(b.begin() + i);
    return partition(std::move(b));
  }
  /// One stage more: the stage that holds sigma is cut there. @throws value_error when a
  /// boundary is there already
  partition split(double sigma) const {
    std::vector<double> b = boundaries_;
    b.insert(b.begin() + stage(sigma), sigma);
    return partition(std::move(b));
  }
  /// The same boundaries to the last digit.
  friend bool operator==(const partition&, const partition&) = default;

 private:
  std::vector<double> boundaries_;
};

}  // namespace multistage
