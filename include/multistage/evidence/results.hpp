// What an experiment's cells say together: means over seeds with intervals, and differences of
// arms seed by seed. "Better" and "worse" are said only where the interval of the difference
// excludes zero.
//
//   const experiment_results r(e, "out");
//   const grid t = table_of_arms(r, e.tables[0].groups[0]);    // header and rows of text
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../io/grid.hpp"
#include "cell.hpp"
#include "statistics.hpp"

namespace multistage {

/// The cells of each arm that have ended, in the order of the seeds.
class experiment_results {
 public:
  /// Reads the lines of all cells. @throws file_error, value_error
  MULTISTAGE_COLD experiment_results(const experiment& e, const std::string& out)
      : experiment_(e),
        out_(out) {
    for (const arm& a : e.arms)
      for (const double seed : e.seeds) {
        cell_record r = read_record(out, cell_of(a.name, seed).name);
        missing_ += r.ended ? 0 : 1;
        if (r.ended && !r.failure.empty())
          failures_.push_back(a.name + ": " + r.failure);
        for (const measurement& m : r.drawings)
          if (!m.failure.empty())
            failures_.push_back(a.name + ", " + m.drawing + ": " + m.failure);
        if (r.ended && r.failure.empty())
          records_[a.name][seed] = std::move(r);
      }
  }
  /// What is measured.
  const experiment& asked() const {
    return experiment_;
  }
  /// Its folder.
  const std::string& folder() const {
    return out_;
  }
  /// Cells that have not ended yet.
  int missing() const {
    return missing_;
  }
  /// Cells that ended without a result and ways to draw that gave none, with the reason.
  const std::vector<std::string>& failures() const {
    return failures_;
  }
  /// An arm's cells by seed; none where none has ended.
  const std::map<double, cell_record>& of(const std::string& name) const {
    static const std::map<double, cell_record> nothing;
    const auto found = records_.find(name);
    return found == records_.end() ? nothing : found->second;
  }
  /// How an arm's first cell began; null where none has ended.
  const cell_start* start_of(const std::string& name) const {
    const auto& cells = of(name);
    return cells.empty() ? nullptr : &*cells.begin()->second.start;
  }

 private:
  const experiment& experiment_;
  std::string out_;
  std::map<std::string, std::map<double, cell_record>> records_{};
  std::vector<std::string> failures_{};
  int missing_ = 0;
};

/// The measurement at the end of a cell, or by one of the other ways to draw; null where it was
/// not made or failed.
inline const measurement* measured(const cell_record& r, const std::string& drawing_text = {}) {
  if (drawing_text.empty())
    return r.points.empty() ? nullptr : &r.points.back();
  for (const measurement& m : r.drawings)
    if (m.drawing == drawing_text)
      return m.failure.empty() ? &m : nullptr;
  return nullptr;
}

/// A figure of a measurement, as columns show it.
using figure_of = double (*)(const measurement&);

/// The Frechet distance.
inline double frechet_of(const measurement& m) {
  return m.quality.frechet;
}

/// A figure of an arm over its seeds. @param drawing_text empty: by the arm's own drawing
inline estimate over_seeds(const experiment_results& r,
                           const std::string& name,
                           figure_of figure,
                           const std::string& drawing_text = {}) {
  std::vector<double> values;
  for (const auto& [seed, record] : r.of(name))
    if (const measurement* m = measured(record, drawing_text))
      values.push_back(figure(*m));
  return mean_of(values);
}

/// What is compared with what.
struct compared_measurement {
  std::string arm_name{};      ///< whose
  std::string drawing_text{};  ///< by which way to draw; empty: the arm's own
};
/// A figure of one minus that of another, seed by seed, over the seeds that both have.
inline estimate paired_difference(const experiment_results& r,
                                  const compared_measurement& one,
                                  const compared_measurement& other,
                                  figure_of figure) {
  std::vector<double> a;
  std::vector<double> b;
  for (const auto& [seed, record] : r.of(one.arm_name)) {
    const auto partner = r.of(other.arm_name).find(seed);
    const measurement* const left = measured(record, one.drawing_text);
    if (left == nullptr || partner == r.of(other.arm_name).end())
      continue;
    if (const measurement* const right = measured(partner->second, other.drawing_text)) {
      a.push_back(figure(*left));
      b.push_back(figure(*right));
    }
  }
  return mean_difference(a, b);
}

/// The compute at which an arm first has the quality that the baseline has at its end, as a
/// share of the baseline's, seed by seed.
struct reached_share {
  estimate share{};  ///< over the seeds that reach it
  int seeds = 0;     ///< that both have
  int at_once = 0;   ///< that reach it by the first point: their share is that or less
};
/// @see reached_share
MULTISTAGE_COLD inline reached_share compute_until(const experiment_results& r,
                                                   const std::string& name,
                                                   const std::string& baseline) {
  std::vector<double> shares;
  reached_share found;
  for (const auto& [seed, record] : r.of(name)) {
    const auto partner = r.of(baseline).find(seed);
    if (partner == r.of(baseline).end())
      continue;
    ++found.seeds;
    const measurement& aim = partner->second.points.back();
    std::vector<double> compute;
    std::vector<double> quality;
    for (const measurement& m : record.points) {
      compute.push_back(m.spent);
      quality.push_back(frechet_of(m));
    }
    const double at = first_reach(compute, quality, frechet_of(aim));
    if (std::isfinite(at))
      shares.push_back(at / aim.spent);
    found.at_once += at == compute.front() ? 1 : 0;
  }
  found.share = mean_of(shares);
  return found;
}

/// Numbers as tables show them.
namespace shown {

/// Three digits.
inline std::string number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, std::fabs(v) >= 1000 ? "%.0f" : "%.3g", v);
  return std::isfinite(v) ? text : "-";
}
/// A mean with its interval.
inline std::string interval(const estimate& e) {
  if (e.n == 0)
    return "-";
  return number(e.mean) + (std::isfinite(e.half) ? " ± " + number(e.half) : "");
}
/// A difference with its interval, and what it says of a figure that is better when lower.
inline std::string difference(const estimate& e) {
  static constexpr const char* said[] = {"better", "no difference seen", "worse"};
  if (e.n < 2)
    return e.n == 1 ? number(e.mean) + " (one seed)" : "-";
  return (e.mean > 0 ? "+" : "") + interval(e) + ": " + said[int(verdict_of(e))];
}
/// A share of compute, or who reached it.
inline std::string reach(const reached_share& s) {
  if (s.seeds == 0)
    return "-";
  const std::string of = std::to_string(s.share.n) + " of " + std::to_string(s.seeds);
  if (s.share.n == 0)
    return "not reached";
  return (s.at_once > 0 ? "at most " : "") + interval(s.share) +
         (s.share.n < s.seeds ? " (" + of + " seeds)" : "");
}

}  // namespace shown

namespace detail {

/// Means of what an arm costs and how good it is.
MULTISTAGE_COLD inline std::vector<std::string> cells_of_row(const experiment_results& r,
                                                             const std::string& name) {
  const cell_start& s = *r.start_of(name);
  std::string widths;
  for (const double w : s.widths)
    widths += (widths.empty() ? "" : ", ") + shown::number(w);
  std::string boundaries;
  for (const double b : s.boundaries)
    boundaries += (boundaries.empty() ? "" : ", ") + shown::number(b);
  const auto mean = [&](figure_of f) {
    return shown::interval(over_seeds(r, name, f));
  };
  return {
      r.asked().arm_of(name).text,
      widths,
      boundaries.empty() ? "-" : boundaries,
      shown::number(s.parameters / 1e6),
      shown::number(2 * weighted_sum(s.shares, s.macs) / 1e6),
      shown::number(
          over_seeds(r, name, [](const measurement& m) { return 2 * m.sampling_macs / 1e9; })
              .mean),
      shown::number(
          over_seeds(r, name, [](const measurement& m) { return 1000 * m.sampling_seconds; })
              .mean),
      mean(frechet_of),
      mean([](const measurement& m) { return 1000 * m.quality.kid; }),
      mean([](const measurement& m) { return m.quality.precision; }),
      mean([](const measurement& m) { return m.quality.recall; })};
}

}  // namespace detail

/// A group of arms as rows: what each costs, how good it is at the end of the budget, and how
/// it differs from the baseline.
MULTISTAGE_COLD inline io::grid table_of_arms(const experiment_results& r,
                                              const table_group& g) {
  io::grid t{{"arrangement", "decoders", "stages end at sigma", "parameters, million",
              "MFLOP an image, training", "GFLOP a picture", "ms a picture", "Frechet distance",
              "KID, thousandths", "precision", "recall", "minus the first row",
              "compute until the first row's quality"},
             {}};
  for (const std::string& name : g.all()) {
    if (r.start_of(name) == nullptr)
      continue;
    std::vector<std::string> row = detail::cells_of_row(r, name);
    row.push_back(name == g.baseline ? ""
                                     : shown::difference(paired_difference(
                                           r, {name}, {g.baseline}, frechet_of)));
    row.push_back(shown::reach(compute_until(r, name, g.baseline)));
    t.rows.push_back(std::move(row));
  }
  return t;
}

/// A group's ways to draw as rows, for each of its arms.
MULTISTAGE_COLD inline io::grid table_of_drawings(const experiment_results& r,
                                                  const result_table& table,
                                                  const table_group& g) {
  io::grid t{{"model", "drawn by", "evaluations", "GFLOP a picture", "ms a picture",
              "Frechet distance", "KID, thousandths", "minus the model's own drawing",
              "minus the first model, drawn alike"},
             {}};
  for (const std::string& name : g.all())
    for (const drawing& d : table.drawings) {
      const auto mean = [&](figure_of f) {
        return over_seeds(r, name, f, d.text);
      };
      if (mean(frechet_of).n == 0)
        continue;
      const auto minus = [&](const compared_measurement& other) {
        return shown::difference(paired_difference(r, {name, d.text}, other, frechet_of));
      };
      t.rows.push_back(
          {r.asked().arm_of(name).text, d.text,
           shown::number(mean([](const measurement& m) { return m.evaluations; }).mean),
           shown::number(
               mean([](const measurement& m) { return 2e-9 * m.sampling_macs; }).mean),
           shown::number(
               mean([](const measurement& m) { return 1000 * m.sampling_seconds; }).mean),
           shown::interval(mean(frechet_of)),
           shown::interval(mean([](const measurement& m) { return 1000 * m.quality.kid; })),
           minus({name}), name == g.baseline ? "" : minus({g.baseline, d.text})});
    }
  return t;
}

namespace detail {
/// A setting that a search found; one that lies at an end of what was tried is said to, since
/// the best may lie beyond.
inline std::string found_among(double found, const std::vector<double>& tried) {
  const auto [least, most] = std::minmax_element(tried.begin(), tried.end());
  const bool at_an_end = tried.size() > 1 && (found == *least || found == *most);
  return shown::number(found) + (at_an_end ? " (an end of what was tried)" : "");
}
}  // namespace detail

/// What the search found for each arm that has one of its own.
MULTISTAGE_COLD inline io::grid table_of_searches(const experiment_results& r) {
  io::grid t{{"arrangement", "learning rate", "average's relative deviation",
              "Frechet distance of the try"},
             {}};
  for (const arm& a : r.asked().arms) {
    if (!a.tuned_as.empty() || a.tuning.learning_rates.empty())
      continue;
    if (const std::optional<tuned> found = search_of(r.asked(), r.folder(), a))
      t.rows.push_back({a.name,
                        detail::found_among(found->learning_rate, a.tuning.learning_rates),
                        detail::found_among(found->average_std, a.tuning.average_stds),
                        shown::number(found->frechet)});
  }
  return t;
}

}  // namespace multistage
