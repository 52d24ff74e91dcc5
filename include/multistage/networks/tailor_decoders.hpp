// Widths of decoders for a budget (the "tailored decoders" of arXiv 2312.09181, section 4):
// maximise
//   sum_s need_s ln(width_s)   subject to   shared + sum_s share_s MACs_s(width_s) <= budget,
// where share_s is how often stage s runs: its probability in training, or its part of a
// sampler's evaluations. A concave gain over a convex cost, so that widening again and again
// where a step gains most for its cost ends at the optimum, up to the size of a step.
#pragma once
#include <cmath>
#include <span>

#include "../core/error.hpp"
#include "../graph/counter.hpp"
#include "arrangement.hpp"

namespace multistage {

struct tailoring {
  double budget = 0;  ///< multiply-accumulates of one image, on average over the stages
  std::vector<double> shares;   ///< of the stages, stage 0 (lowest noise) first; any scale
  std::vector<double> needs{};  ///< how much a stage gains from width; empty: all alike
  int step = 16;                ///< widths are multiples of this
  int most = 1024;
  bool shared_encoder = true;
};

struct tailored_decoders {
  decoders stages;
  double average_macs = 0;
};

/// @throws value_error when shares or needs are no weights, or not even decoders one step wide
/// fit the budget (saying what they take).
template <class Net>
tailored_decoders tailor_decoders(const Net& net, const tailoring& t) {
  const int n = int(t.shares.size());
  require<value_error>(n >= 1 && n <= 8, "tailor_decoders: ", n,
                       " shares; give one for each of 1 to 8 stages");
  require<value_error>(t.needs.empty() || int(t.needs.size()) == n,
                       "tailor_decoders: ", t.needs.size(), " needs for ", n, " stages");
  require<value_error>(t.step >= 1 && t.most >= t.step, "tailor_decoders: step = ", t.step,
                       ", most = ", t.most, "; 1 <= step <= most is needed");
  double sum = 0;
  for (const double s : t.shares) {
    require<value_error>(s >= 0 && std::isfinite(s), "tailor_decoders: a share is ", s,
                         "; shares must not be negative");
    sum += s;
  }
  require<value_error>(sum > 0, "tailor_decoders: all shares are 0");
  for (const double w : t.needs)
    require<value_error>(w > 0 && std::isfinite(w), "tailor_decoders: a need is ", w,
                         "; needs are above 0");

  // What a stage costs at a width; the other stages' widths do not matter. Infinite where
  // groups or heads do not fit.
  const auto macs = [&](int width) {
    cost_counter c;
    describe(c, net, decoders{.widths = {width}, .shared_encoder = t.shared_encoder});
    return c.problem == graph_problem::none ? double(c.segments[0].macs + c.segments[1].macs)
                                            : HUGE_VAL;
  };
  const auto next_width = [&](int from) {
    for (int w = from + t.step; w <= t.most; w += t.step)
      if (std::isfinite(macs(w)))
        return w;
    return 0;
  };
  const int least = next_width(0);
  require<value_error>(least > 0, "tailor_decoders: no multiple of ", t.step, " up to ", t.most,
                       " is a width that the network's groups and heads divide");
  std::vector<int> width(std::size_t(n), least);
  std::vector<double> cost(std::size_t(n), macs(least));
  const auto average = [&] {
    double a = 0;
    for (int s = 0; s < n; ++s)
      a += t.shares[s] / sum * cost[s];
    return a;
  };
  require<value_error>(average() <= t.budget, "tailor_decoders: decoders of width ", least,
                       " take ", average(), " multiply-accumulates on average, the budget is ",
                       t.budget);
  for (;;) {
    int best = -1;
    int best_width = 0;
    double best_rate = 0;
    double best_cost = 0;
    for (int s = 0; s < n; ++s) {
      const int w = next_width(width[s]);
      if (w == 0)
        continue;
      const double c = macs(w);
      const double more = t.shares[s] / sum * (c - cost[s]);
      if (average() + more > t.budget)
        continue;
      const double rate = (t.needs.empty() ? 1 : t.needs[s]) * std::log(double(w) / width[s]) /
                          (more > 0 ? more : 1e-300);
      if (rate > best_rate)
        best = s, best_width = w, best_rate = rate, best_cost = c;
    }
    if (best < 0)
      break;
    width[best] = best_width;
    cost[best] = best_cost;
  }
  tailored_decoders result;
  result.stages.shared_encoder = t.shared_encoder;
  for (int s = 0; s < n; ++s)
    result.stages.widths[s] = width[s];
  result.average_macs = average();
  return result;
}

}  // namespace multistage
