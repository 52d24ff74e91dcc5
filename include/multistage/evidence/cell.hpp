// A cell: one arm trained once, with one seed, and what is known of it so far. Its lines of
// JSON (OUT/cells/NAME.jsonl) say how it began, its quality at each point of the budget, by
// each way to draw, and that it ended; the checkpoint beside it lets it go on where it was.
//
//   for (const cell& c : cells_of(e))
//     if (!read_record(out, c.name).ended) ...
#pragma once
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../io/json_lines.hpp"
#include "experiment.hpp"
#include "quality.hpp"

namespace multistage {

/// What is trained once.
struct cell {
  std::string name{};        ///< of its files
  std::string arm_name{};    ///< which arm
  std::uint64_t seed = 0;    ///< of weights, order of images, noise and levels
  double share = 1;          ///< of the arm's budget
  bool is_try = false;       ///< of the search, which tries all averages
  double learning_rate = 0;  ///< of a try; 0: the one that the search found
};

/// The tries of an arm's search. None where there is nothing to search for.
inline std::vector<cell> tries_of(const experiment& e, const std::string& arm_name) {
  std::vector<cell> tries;
  const tuning_options& tuning = e.arm_of(arm_name).tuning;
  for (const double rate : tuning.learning_rates) {
    const std::string name = arm_name + ".rate" + option_text(rate);
    tries.push_back({name, arm_name, tuning.seed, tuning.share, true, rate});
  }
  return tries;
}
/// An arm with one of the experiment's seeds.
inline cell cell_of(const std::string& arm_name, double seed) {
  return {arm_name + ".seed" + option_text(seed), arm_name, std::uint64_t(seed)};
}
/// All cells: searches first, then all arms seed by seed, so that what was stopped has pairs.
MULTISTAGE_COLD inline std::vector<cell> cells_of(const experiment& e) {
  std::vector<cell> all;
  for (const arm& a : e.arms)
    if (a.tuned_as.empty())
      for (cell& one : tries_of(e, a.name))
        all.push_back(std::move(one));
  for (const double seed : e.seeds)
    for (const arm& a : e.arms)
      all.push_back(cell_of(a.name, seed));
  return all;
}

/// What was measured with one set of weights and one way to draw.
struct measurement {
  double share = 0;             ///< of the budget
  double spent = 0;             ///< multiply-accumulates of forward passes
  double images = 0;            ///< seen
  double seconds = 0;           ///< of training until there
  double average_std = 0;       ///< of the average, where averages are tried
  double evaluations = 0;       ///< of networks, a picture
  double sampling_macs = 0;     ///< multiply-accumulates, a picture
  double sampling_seconds = 0;  ///< a picture
  std::string drawing{};        ///< the row of a table of drawings; empty: the arm's own
  std::string failure{};        ///< why a way to draw gave no pictures; empty where it did
  picture_quality quality{};    ///< of the pictures

  /// Names the figures (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"share", "of the budget"}, self.share);
    visit(option{"spent", "multiply-accumulates of forward passes"}, self.spent);
    visit(option{"images", "seen"}, self.images);
    visit(option{"seconds", "of training"}, self.seconds);
    visit(option{"average_std", "of the average"}, self.average_std);
    visit(option{"evaluations", "of networks, a picture"}, self.evaluations);
    visit(option{"sampling_macs", "multiply-accumulates, a picture"}, self.sampling_macs);
    visit(option{"sampling_seconds", "a picture"}, self.sampling_seconds);
    visit(option{"drawing", "the row of a table of drawings"}, self.drawing);
    visit(option{"failure", "why there are no pictures"}, self.failure);
    picture_quality::fields(self.quality, visit);
  }
  /// As a line. @param kind "point", "average" or "drawing"
  io::json line(const char* kind) const {
    io::detail::writer w;
    io::detail::visit_fields(w, *this);
    w.document.set("kind", std::string(kind));
    return std::move(w.document.edit());
  }
};

/// How a cell began: what it is, and what its data made of it.
struct cell_start {
  std::string settings{};            ///< hash of everything that its results depend on
  std::vector<double> boundaries{};  ///< of its stages, in sigma
  std::vector<double> widths{};      ///< of its decoders
  std::vector<double> macs{};        ///< of an image, by stage
  std::vector<double> shares{};      ///< of rows, by stage
  double parameters = 0;             ///< of all stages
  double learning_rate = 0;          ///< of the training
  double average_std = 0;            ///< of the average that samples are drawn with
  double budget = 0;                 ///< multiply-accumulates
  double training_images = 0;        ///< images that are shown
  double floor = 0;  ///< Frechet distance of as many training images as pictures are drawn
  std::string features{};  ///< what quality is measured over
  std::string images{};    ///< hash of the data

  /// Names them (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"settings", "hash of what results depend on"}, self.settings);
    visit(option{"boundaries", "of stages, in sigma"}, self.boundaries);
    visit(option{"widths", "of decoders"}, self.widths);
    visit(option{"macs", "of an image, by stage"}, self.macs);
    visit(option{"shares", "of rows, by stage"}, self.shares);
    visit(option{"parameters", "of all stages"}, self.parameters);
    visit(option{"learning_rate", "of the training"}, self.learning_rate);
    visit(option{"average_std", "of the average"}, self.average_std);
    visit(option{"budget", "multiply-accumulates"}, self.budget);
    visit(option{"training_images", "that are shown"}, self.training_images);
    visit(option{"floor", "Frechet distance of as many training images"}, self.floor);
    visit(option{"features", "what quality is measured over"}, self.features);
    visit(option{"images", "hash of the data"}, self.images);
  }
};

/// What a cell's lines say.
struct cell_record {
  std::optional<cell_start> start{};    ///< none: it has not begun
  std::vector<measurement> points{};    ///< along its training
  std::vector<measurement> averages{};  ///< of a try, at its end
  std::vector<measurement> drawings{};  ///< other ways to draw, at its end
  std::string failure{};                ///< why it has no end worth the name
  bool ended = false;                   ///< whether nothing is left to train

  /// Which of some ways to draw are still to be measured. Tables that came later may ask for
  /// more of a cell that has ended.
  std::vector<drawing> left_of(const std::vector<drawing>& asked) const {
    std::vector<drawing> left;
    if (failure.empty())
      std::copy_if(asked.begin(), asked.end(), std::back_inserter(left), [&](const drawing& d) {
        return std::none_of(drawings.begin(), drawings.end(),
                            [&](const measurement& m) { return m.drawing == d.text; });
      });
    return left;
  }
};

/// The place of a cell's file. @param ending with its dot
inline std::string cell_path(const std::string& out,
                             const std::string& name,
                             const char* ending = ".jsonl") {
  return out + "/cells/" + name + ending;
}

/// What an arm is told, whole, as a folder keeps it: its settings and those of the experiment
/// that its cells depend on. Where data lie is left out; what they are stands in each cell.
MULTISTAGE_COLD inline io::json_document told_of_arm(const experiment& e, const arm& a) {
  io::detail::writer w;
  io::detail::visit_fields(w, a);
  run_configuration run = a.run;
  run.data.path.clear();
  run.origins.clear();
  w.document.set("run", to_json(run));
  io::detail::writer draws;
  io::detail::visit_fields(draws, a.draws);
  draws.document.set("options", a.draws.options);
  w.document.set("drawing", *draws.document);
  w.document.set("points", e.points);
  io::detail::writer tuning;
  io::detail::visit_fields(tuning, a.tuning);
  w.document.set("tuning", *tuning.document);
  for (const char* text : {"text", "pictures"})  // of pages, and of places
    w.document.edit().erase(text);
  return std::move(w.document);
}

/// Keeps what each arm is told in OUT/arms, so that a folder holds one experiment: other tables
/// of it may come later, other settings may not. @throws value_error for an arm that was begun
/// with others, file_error
MULTISTAGE_COLD inline void keep_arms(const experiment& e, const std::string& out) {
  io::make_directory(out + "/arms");
  for (const arm& a : e.arms) {
    const std::string path = out + "/arms/" + a.name + ".json";
    const std::string text = told_of_arm(e, a)->dump(1) + "\n";
    if (!std::filesystem::exists(path)) {
      io::write_file(path, text);
      continue;
    }
    const auto bytes = io::read_file(path);
    const std::string_view kept(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    require<value_error>(kept == text, path,
                         ": this arm was begun with other settings (budget, "
                         "points, search or options); name another folder");
  }
}

namespace detail {

/// Takes one line into a record. @throws value_error for a key that none has
MULTISTAGE_COLD inline void take_line(const io::json& j,
                                      const std::string& where,
                                      cell_record& to) {
  const std::string kind = j.value("kind", std::string());
  if (kind == "start") {
    read_fields(j, where, to.start.emplace(), {"kind", "cell", "arm", "seed"});
  } else if (kind == "end") {
    to.ended = true;
    to.failure = j.value("failure", std::string());
  } else {
    std::vector<measurement>& list = kind == "point"     ? to.points
                                     : kind == "average" ? to.averages
                                                         : to.drawings;
    read_fields(j, where, list.emplace_back(), {"kind"});
  }
}

}  // namespace detail

/// Reads a cell's lines; a last one that a crash tore is passed over. @throws file_error,
/// value_error for lines that are no cell's
MULTISTAGE_COLD inline cell_record read_record(const std::string& out,
                                               const std::string& name) {
  cell_record r;
  const std::string path = cell_path(out, name);
  if (!std::filesystem::exists(path))
    return r;
  const auto bytes = io::read_file(path);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string_view::npos)
      break;
    const io::json_document line = io::parse_json(text.substr(at, end - at), path);
    require<value_error>(line->is_object(), path, ": holds a line that is no object");
    detail::take_line(*line, path, r);
    at = end + 1;
  }
  return r;
}

/// What a search found.
struct tuned {
  double learning_rate = 0;  ///< 0: as configured
  double average_std = 0;    ///< 0: as configured
  double frechet = 0;        ///< that it was found by
};

/// The best of an arm's tries by the Frechet distance; nothing while one has not ended. A try
/// that failed is the worst there is. @throws as read_record, and numeric_error where all
/// failed
MULTISTAGE_COLD inline std::optional<tuned> search_of(const experiment& e,
                                                      const std::string& out,
                                                      const arm& a) {
  const std::vector<cell> tries = tries_of(e, a.search());
  tuned best{0, 0, HUGE_VAL};
  for (const cell& one : tries) {
    const cell_record r = read_record(out, one.name);
    if (!r.ended)
      return {};
    for (const measurement& m : r.averages.empty() ? r.points : r.averages)
      if (m.quality.frechet < best.frechet)
        best = {one.learning_rate, m.average_std, m.quality.frechet};
  }
  require<numeric_error>(tries.empty() || best.frechet < HUGE_VAL, "experiment: all tries of ",
                         a.search(), " failed; give lower learning_rates");
  return best;
}

}  // namespace multistage
