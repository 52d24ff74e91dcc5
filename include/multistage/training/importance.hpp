// Noise levels drawn by how much their losses vary (Nichol and Dhariwal, arXiv 2102.09672, eq.
// 18): where a stage's levels are cut into bins of equal probability, a bin is drawn with
// probability ~ sqrt(E L^2), and its rows weigh 1 / (bins p), so that the loss's mean stays
// what it was.
//
//   trainer_options{.importance = {.bins = 100}};
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/options.hpp"

namespace multistage {

/// How far levels are drawn by the spread of their losses.
struct loss_importance {
  int bins = 0;            ///< in each stage; 0: levels are drawn as their distribution says
  int history = 10;        ///< over about how many losses E L^2 is averaged
  double uniform = 0.001;  ///< share of draws that stay uniform over the bins

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(
        option{"importance.bins", "of noise levels in each stage; 0: none", between(0, 10'000)},
        self.bins);
    visit(option{"importance.history",
                 "losses a bin must have seen before its stage is drawn by importance",
                 between(1, 1e9)},
          self.history);
    visit(option{"importance.uniform", "share of draws that stay uniform", between(0, 1)},
          self.uniform);
  }
};

/// The running means of squares of losses, by stage and bin.
class importance_sampler {
 public:
  /// Inactive.
  importance_sampler() = default;
  /// @throws value_error for options out of range
  importance_sampler(const loss_importance& o, int stages)
      : o_(o),
        mean_square_(std::size_t(stages) * std::size_t(o.bins), 0.0),
        seen_(mean_square_.size(), 0.0) {
    check_options("loss_importance", o);
  }
  /// Whether levels are drawn by importance at all.
  bool active() const {
    return o_.bins > 0;
  }

  /// Where a uniform number of a stage goes: a number in (0, 1) for the stage's distribution,
  /// its bin, and the weight of its loss.
  struct placed {
    double u;       ///< for the stage's distribution
    int bin;        ///< in which it is
    double weight;  ///< of its loss
  };
  /// Places a uniform number of a stage.
  placed place(int stage, double u) const {
    const int n = o_.bins;
    const std::vector<double> p = probabilities(stage);
    int bin = 0;
    while (bin + 1 < n && u >= p[std::size_t(bin)])
      u -= p[std::size_t(bin++)];
    const double share = p[std::size_t(bin)];
    const double inside = std::clamp(u / share, 1e-12, 1 - 1e-12);
    return {(bin + inside) / n, bin, 1 / (n * share)};
  }
  /// The probability of each of a stage's bins.
  std::vector<double> probabilities(int stage) const {
    const std::size_t n = std::size_t(o_.bins);
    const std::size_t first = std::size_t(stage) * n;
    std::vector<double> p(n, 1 / double(n));
    double sum = 0;
    for (std::size_t b = 0; b < n; ++b) {
      if (seen_[first + b] < o_.history)
        return p;
      sum += std::sqrt(mean_square_[first + b]);
    }
    if (sum > 0)
      for (std::size_t b = 0; b < n; ++b)
        p[b] = (1 - o_.uniform) * std::sqrt(mean_square_[first + b]) / sum +
               o_.uniform / double(n);
    return p;
  }
  /// A loss without its importance weight.
  void record(int stage, int bin, double loss) {
    const std::size_t k = std::size_t(stage * o_.bins + bin);
    seen_[k] = std::min(seen_[k] + 1, double(o_.history));
    mean_square_[k] += (loss * loss - mean_square_[k]) / seen_[k];
  }
  /// All of it, for checkpoints.
  std::vector<double> state() const {
    std::vector<double> s = mean_square_;
    s.insert(s.end(), seen_.begin(), seen_.end());
    return s;
  }
  /// @throws value_error for a state of other bins
  void restore(const std::vector<double>& s) {
    require<value_error>(s.size() == 2 * mean_square_.size(), "loss_importance: a state of ",
                         s.size(), " values, this sampler has ", 2 * mean_square_.size(),
                         "; a resumed run must have the same bins");
    std::copy_n(s.begin(), mean_square_.size(), mean_square_.begin());
    std::copy_n(s.begin() + std::ptrdiff_t(mean_square_.size()), seen_.size(), seen_.begin());
  }

 private:
  loss_importance o_{};
  std::vector<double> mean_square_;
  std::vector<double> seen_;
};

}  // namespace multistage
