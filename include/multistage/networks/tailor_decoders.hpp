// Widths of decoders for a budget (the "tailored decoders" of arXiv 2312.09181, section 4):
// maximise
//   sum_s need_s ln(width_s)   subject to   shared + sum_s share_s MACs_s(width_s) <= budget,
// where share_s is how often stage s runs: its probability in training, or its part of a
// sampler's evaluations. A concave gain over a convex cost, so that widening again and again
// where a step gains most for its cost ends at the optimum, up to the size of a step.
#pragma once
#include <cmath>
#include <functional>

#include "../core/error.hpp"
#include "../graph/counter.hpp"
#include "arrangement.hpp"

namespace multistage {

/// What decoders are tailored to.
struct tailoring {
  double budget = 0;  ///< multiply-accumulates of one image, on average over the stages
  std::vector<double> shares;   ///< of the stages, stage 0 (lowest noise) first; any scale
  std::vector<double> needs{};  ///< how much a stage gains from width; empty: all alike
  int step = 16;                ///< widths are multiples of this
  int most = 1024;              ///< the largest width
  bool shared_encoder = true;   ///< false: each stage has an encoder too
};

/// What tailor_decoders found, and what it costs.
struct tailored_decoders {
  decoders stages;          ///< with the widths
  double average_macs = 0;  ///< multiply-accumulates of one image, on average over the stages
};

namespace detail {

/// @throws value_error when shares or needs are no weights
MULTISTAGE_COLD inline void check(const tailoring& t) {
  const int stages = int(t.shares.size());
  require<value_error>(stages >= 1 && stages <= 8, "tailor_decoders: ", stages,
                       " shares; give one for each of 1 to 8 stages");
  require<value_error>(t.needs.empty() || int(t.needs.size()) == stages,
                       "tailor_decoders: ", t.needs.size(), " needs for ", stages, " stages");
  require<value_error>(t.step >= 1 && t.most >= t.step, "tailor_decoders: step = ", t.step,
                       ", most = ", t.most, "; 1 <= step <= most is needed");
  double sum = 0;
  for (const double share : t.shares) {
    require<value_error>(share >= 0 && std::isfinite(share), "tailor_decoders: a share is ",
                         share, "; shares must not be negative");
    sum += share;
  }
  require<value_error>(sum > 0, "tailor_decoders: all shares are 0");
  for (const double need : t.needs)
    require<value_error>(need > 0 && std::isfinite(need), "tailor_decoders: a need is ", need,
                         "; needs are above 0");
}

/// Widths by stage that grow from the least there is, a step at a time.
class growing_widths {
 public:
  /// @param macs what a stage costs at a width, infinite where groups or heads do not fit.
  /// @throws value_error when no width fits
  growing_widths(const tailoring& t, std::function<double(int)> macs)
      : t_(t),
        macs_(std::move(macs)) {
    for (const double share : t.shares)
      sum_ += share;
    const int least = next_width(0);
    require<value_error>(least > 0, "tailor_decoders: no multiple of ", t.step, " up to ",
                         t.most, " is a width that the network's groups and heads divide");
    width_.assign(t.shares.size(), least);
    cost_.assign(t.shares.size(), macs_(least));
  }
  /// By stage.
  const std::vector<int>& widths() const {
    return width_;
  }
  /// Multiply-accumulates of one image, on average over the stages.
  double average() const {
    double mean = 0;
    for (std::size_t s = 0; s < width_.size(); ++s)
      mean += t_.shares[s] / sum_ * cost_[s];
    return mean;
  }
  /// Widens the stage that gains most for its cost by a step. Returns whether one fits the
  /// budget.
  bool widen() {
    step best;
    for (std::size_t s = 0; s < width_.size(); ++s)
      if (const step one = step_of(s); one.rate > best.rate)
        best = one;
    if (best.width == 0)
      return false;
    width_[best.stage] = best.width;
    cost_[best.stage] = best.cost;
    return true;
  }

 private:
  struct step {
    std::size_t stage = 0;
    int width = 0;
    double cost = 0;
    double rate = 0;  // gain for the cost
  };
  /// A stage's next step; rate 0 where there is none or it does not fit the budget.
  step step_of(std::size_t s) const {
    const int wider = next_width(width_[s]);
    if (wider == 0)
      return {};
    const double cost = macs_(wider);
    const double more = t_.shares[s] / sum_ * (cost - cost_[s]);
    if (average() + more > t_.budget)
      return {};
    const double gain =
        (t_.needs.empty() ? 1 : t_.needs[s]) * std::log(double(wider) / width_[s]);
    return {s, wider, cost, gain / (more > 0 ? more : 1e-300)};
  }
  /// The width that is tried after one.
  int next_width(int from) const {
    for (int width = from + t_.step; width <= t_.most; width += t_.step)
      if (std::isfinite(macs_(width)))
        return width;
    return 0;
  }

  const tailoring& t_;
  std::function<double(int)> macs_;
  double sum_ = 0;
  std::vector<int> width_;
  std::vector<double> cost_;
};

}  // namespace detail

/// Widths of a network's decoders that fit a budget. @throws value_error when shares or needs
/// are no weights, or not even decoders one step wide fit the budget (saying what they take).
template <class Net>
tailored_decoders tailor_decoders(const Net& net, const tailoring& t) {
  detail::check(t);
  // What a stage costs at a width; the other stages' widths do not matter.
  const auto macs = [&](int width) {
    cost_counter c;
    describe(c, net, decoders{.widths = {width}, .shared_encoder = t.shared_encoder});
    return c.problem == graph_problem::none ? double(c.segments[0].macs + c.segments[1].macs)
                                            : HUGE_VAL;
  };
  detail::growing_widths grown(t, macs);
  require<value_error>(grown.average() <= t.budget, "tailor_decoders: decoders of width ",
                       grown.widths()[0], " take ", grown.average(),
                       " multiply-accumulates on average, the budget is ", t.budget);
  while (grown.widen()) {
  }
  tailored_decoders result;
  result.stages.shared_encoder = t.shared_encoder;
  std::copy(grown.widths().begin(), grown.widths().end(), result.stages.widths.begin());
  result.average_macs = grown.average();
  return result;
}

}  // namespace multistage
