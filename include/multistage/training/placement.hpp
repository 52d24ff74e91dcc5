// Where the decoders of a multi-stage model live when several processes train it. The rows of
// a step are sorted by stage; each process takes those between two places in the stages. A
// decoder whose rows are all one process's lives there: its gradient never travels, and no
// other process keeps its moments and averages. What the stages share is everyone's.
//
//   4 processes, 3 stages      begins()        processes that have decoder 0, 1, 2
//   data parallel              (none)          all     all     all
//   stage parallel             1 / 1.5 / 2     0       1 2     3
//   rows by their number       .6 / 1.2 / 2    0 1     1 2     3
//
// plan_placement compares them by the time of a step, and says how it came to its choice.
//
//   const auto plan = plan_placement(costs_of(net.network(), probabilities, 512),
//   world.size()); options.stage_begins = plan.best().begins;
#pragma once
#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "../core/error.hpp"
#include "../core/index_range.hpp"
#include "../graph/cost.hpp"

namespace multistage {

/// Where in the stages each process begins. Empty: anywhere, wherever its turn comes, which
/// keeps all as busy as each other, and every decoder on all of them.
struct stage_placement {
  /// Of each process but the first, ascending: 1.25 is behind a quarter of stage 1's rows.
  std::vector<double> begins{};

  /// Whether decoders are everywhere.
  bool everywhere() const {
    return begins.empty();
  }
  /// The processes that have rows of a stage.
  index_range hosts(int stage, int processes) const {
    if (everywhere())
      return {0, processes};
    const auto first = std::upper_bound(begins.begin(), begins.end(), double(stage));
    const auto behind = std::lower_bound(begins.begin(), begins.end(), double(stage) + 1);
    return {first - begins.begin(), behind - begins.begin() + 1};
  }
  /// The processes that have each segment of a network: all have what stages share.
  std::vector<index_range> hosts_of_segments(int segments, int processes) const {
    std::vector<index_range> all{{0, processes}};
    for (int segment = 1; segment < segments; ++segment)
      all.push_back(hosts(segment - 1, processes));
    return all;
  }
};

/// @throws value_error for a placement that is not one of so many processes and stages
MULTISTAGE_COLD inline void check(const stage_placement& p, int processes, int stages) {
  if (p.everywhere())
    return;
  require<value_error>(int(p.begins.size()) == processes - 1, "placement: ", p.begins.size(),
                       " places for ", processes, " processes; give one each but the first");
  for (std::size_t k = 0; k < p.begins.size(); ++k)
    require<value_error>(p.begins[k] > (k == 0 ? 0 : p.begins[k - 1]) && p.begins[k] < stages,
                         "placement: process ", k + 1, " begins at ", p.begins[k],
                         "; places ascend between 0 and the ", stages, " stages");
}

/// What a step costs, in parts.
struct placement_costs {
  /// Of a stage.
  struct stage {
    double probability = 0;  ///< of a row
    double macs = 0;         ///< of its decoder, a row's forward pass
    double bytes = 0;        ///< of its decoder's gradient
  };
  double shared_macs = 0;           ///< of what stages share, a row's forward pass
  double shared_bytes = 0;          ///< of its gradient
  std::vector<stage> stages{};      ///< lowest noise first
  double rows = 0;                  ///< of a step
  double macs_per_second = 1e11;    ///< of a process
  double bytes_per_second = 1.2e9;  ///< that leave a process: 10 Gbit/s
};

/// A placement and what it costs.
struct planned_placement {
  std::string name;           ///< "data parallel"
  stage_placement placement;  ///< where decoders are
  double computing = 0;       ///< seconds a step, on the process that takes longest
  double sending = 0;         ///< seconds a step, likewise
  double bytes = 0;           ///< that leave that process in a step
  /// Of a step.
  double seconds() const {
    return computing + sending;
  }
};

/// Those of a network in training. @param probabilities of a row, by stage. @param rows of a
/// step. @param bytes of a weight
MULTISTAGE_COLD inline placement_costs costs_of(const graph& network,
                                                const std::vector<double>& probabilities,
                                                double rows,
                                                double bytes = sizeof(float)) {
  const cost shared = cost_of_segment(network, 0);
  placement_costs costs{.shared_macs = double(shared.macs),
                        .shared_bytes = double(shared.parameters) * bytes,
                        .rows = rows};
  for (std::size_t s = 0; s < probabilities.size(); ++s) {
    const cost own = cost_of_segment(network, int(s) + 1);
    costs.stages.push_back(
        {probabilities[s], double(own.macs), double(own.parameters) * bytes});
  }
  return costs;
}

namespace placement_detail {

/// Training takes the forward pass, and twice as much for gradients.
inline constexpr double passes = 3;

/// How many times its mean a share of a step's rows is, two standard deviations above it: how
/// many rows a stage has is drawn anew each step.
inline double busiest(double share, double rows) {
  return 1 + 2 * std::sqrt(std::max(1 - share, 0.0) / (share * rows));
}

/// Seconds a step, of both kinds.
MULTISTAGE_COLD inline planned_placement estimated(const std::string& name,
                                                   const stage_placement& placement,
                                                   const placement_costs& c,
                                                   int processes) {
  planned_placement p{name, placement};
  const auto reduced = [](double bytes, index_t hosts) {
    return 2 * bytes * double(hosts - 1) / double(hosts);
  };
  double all = 0;
  for (const placement_costs::stage& s : c.stages)
    all += s.probability * (c.shared_macs + s.macs) * passes * c.rows;
  for (int rank = 0; rank < processes; ++rank) {
    double macs = placement.everywhere() ? all / processes : 0;
    double of_rows = 0;  // the share that the process has
    double bytes = reduced(c.shared_bytes, processes);
    const auto& begins = placement.begins;
    const double from = rank == 0 || placement.everywhere() ? 0 : begins[std::size_t(rank) - 1];
    const double to = placement.everywhere() || rank + 1 == processes
                          ? double(c.stages.size())
                          : begins[std::size_t(rank)];
    for (std::size_t s = 0; s < c.stages.size(); ++s) {
      const double share = std::min(to, double(s) + 1) - std::max(from, double(s));
      if (share <= 0)
        continue;
      bytes += reduced(c.stages[s].bytes, placement.hosts(int(s), processes).size());
      of_rows += share * c.stages[s].probability;
      if (!placement.everywhere())
        macs += share * c.stages[s].probability * (c.shared_macs + c.stages[s].macs) * passes *
                c.rows;
    }
    if (!placement.everywhere() && of_rows > 0)
      macs *= busiest(of_rows, c.rows);
    p.computing = std::max(p.computing, macs / c.macs_per_second);
    p.sending = std::max(p.sending, bytes / c.bytes_per_second);
    p.bytes = std::max(p.bytes, bytes);
  }
  return p;
}
/// Places that give all processes as much to compute.
MULTISTAGE_COLD inline std::vector<double> balanced(const placement_costs& c, int processes) {
  std::vector<double> done(1, 0.0);
  for (const placement_costs::stage& s : c.stages)
    done.push_back(done.back() + s.probability * (c.shared_macs + s.macs));
  std::vector<double> begins;
  for (int rank = 1; rank < processes; ++rank) {
    const double at = done.back() * rank / processes;
    std::size_t s = 0;
    while (s + 1 < c.stages.size() && done[s + 1] <= at)
      ++s;
    begins.push_back(double(s) + (at - done[s]) / (done[s + 1] - done[s]));
  }
  return begins;
}
/// Whole processes for each stage, or whole stages for each process: the places nearest to
/// balanced ones that split no process between stages which both go on elsewhere.
MULTISTAGE_COLD inline std::vector<double> by_stage(const placement_costs& c, int processes) {
  const int stages = int(c.stages.size());
  std::vector<double> begins = balanced(c, processes);
  if (processes <= stages) {
    for (std::size_t k = 0; k < begins.size(); ++k) {
      const double least = k == 0 ? 1 : begins[k - 1] + 1;
      const double most = double(stages) - double(begins.size() - k);
      begins[k] = std::clamp(std::round(begins[k]), least, most);
    }
    return begins;
  }
  // One process a stage; then one more where each has most to do.
  std::vector<int> hosts(c.stages.size(), 1);
  const auto load = [&](std::size_t s) {
    return c.stages[s].probability * (c.shared_macs + c.stages[s].macs) / hosts[s];
  };
  for (int left = processes - stages; left > 0; --left) {
    std::size_t busiest = 0;
    for (std::size_t s = 1; s < hosts.size(); ++s)
      if (load(s) > load(busiest))
        busiest = s;
    ++hosts[busiest];
  }
  begins.clear();
  for (std::size_t s = 0; s < hosts.size(); ++s)
    for (int k = 0; k < hosts[s]; ++k)
      if (s > 0 || k > 0)
        begins.push_back(double(s) + double(k) / hosts[s]);
  return begins;
}

}  // namespace placement_detail

/// The placements that were compared, the best one first.
struct placement_plan {
  std::vector<planned_placement> compared;  ///< by seconds of a step
  std::string text;                         ///< how they compare, for people

  /// The best one.
  const stage_placement& best() const {
    return compared.front().placement;
  }
};

/// Compares data parallel, stage parallel and mixed placements. @param processes at least one
/// @throws value_error for costs without stages
MULTISTAGE_COLD inline placement_plan plan_placement(const placement_costs& costs,
                                                     int processes) {
  using namespace placement_detail;
  require<value_error>(!costs.stages.empty() && processes > 0 && costs.rows > 0,
                       "plan_placement: ", costs.stages.size(), " stages, ", processes,
                       " processes, ", costs.rows, " rows; give one at least of each");
  placement_plan plan;
  plan.compared.push_back(estimated("data parallel", {}, costs, processes));
  if (processes > 1 && costs.stages.size() > 1) {
    plan.compared.push_back(
        estimated("stage parallel", {by_stage(costs, processes)}, costs, processes));
    plan.compared.push_back(
        estimated("rows in order of stages", {balanced(costs, processes)}, costs, processes));
  }
  std::stable_sort(plan.compared.begin(), plan.compared.end(),
                   [](const auto& a, const auto& b) { return a.seconds() < b.seconds(); });
  std::ostringstream text;
  text.precision(3);
  for (const planned_placement& p : plan.compared) {
    text << p.name << ": " << p.seconds() << " s a step = " << p.computing << " computing + "
         << p.sending << " sending " << p.bytes / (1 << 20) << " MiB";
    for (std::size_t s = 0; s < costs.stages.size(); ++s) {
      const index_range hosts = p.placement.hosts(int(s), processes);
      text << (s == 0 ? "; decoder 0 on process " : ", ") << hosts.begin;
      if (hosts.size() > 1)
        text << " to " << hosts.end - 1;
    }
    text << '\n';
  }
  plan.text = text.str();
  return plan;
}

}  // namespace multistage
