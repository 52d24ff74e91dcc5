// An experiment as data: ways to train ("arms"), each with its whole configuration and budget,
// the seeds that all are repeated with, and the tables that compare them. A file of JSON says
// all of it (examples/reproduce.json is one):
//   {"title": ..., "scales": {NAME: {"seeds": [...], "points": [...], "tuning": {...},
//                                    "bases": {NAME: {"run": {...}, "teraflops": ...}}}},
//    "arms": [{"name": ..., "base": NAME, "run": {...}}], "tables": [...]}
// An arm is its base with its own settings laid over; one whose base a scale lacks is not of
// that scale. `run` is what `train --config` takes.
//
//   const experiment e = read_experiment("reproduce.json", "quick", "examples/data");
//   e.arm_of("edm-multi").run.training.batch_size;
#pragma once
#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../runs/configuration_file.hpp"

namespace multistage {

/// How pictures are drawn: a sampler by name with its options.
struct drawing {
  std::string text{};                     ///< of its row; empty: made of the sampler
  std::string sampler = "edm_heun";       ///< @see for_each_sampler
  std::vector<double> steps_by_stage{};   ///< stage 0 first; empty: as `num_steps` says
  int encoder_every = 1;                  ///< @see encoder_reuse
  double encoder_low = 0;                 ///< likewise
  io::json options = io::json::object();  ///< of the sampler

  /// Names the settings (core/options.hpp); "options" is an object of the sampler's own.
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"text", "of its row"}, self.text);
    visit(option{"sampler", "by its name"}, self.sampler);
    visit(option{"steps_by_stage", "numbers of steps, lowest noise first", above(0)},
          self.steps_by_stage);
    visit(option{"encoder_every", "of so many evaluations one runs the encoder", at_least(1)},
          self.encoder_every);
    visit(option{"encoder_low", "no reuse at or below this noise level", at_least(0)},
          self.encoder_low);
  }
};

/// The search for a learning rate and an average: a scale's, where an arm's base says nothing
/// else.
struct tuning_options {
  std::vector<double> learning_rates{};  ///< a short run each; empty: as configured
  std::vector<double> average_stds{};    ///< relative standard deviations, all of each run
  double share = 0.25;                   ///< of the budget that such a run gets
  std::uint64_t seed = 1000;             ///< of these runs, none of the others'

  /// Names the settings (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"learning_rates", "that are tried", above(0)}, self.learning_rates);
    visit(option{"average_stds", "that are tried", above(0, 0.2886)}, self.average_stds);
    visit(option{"share", "of the budget that a try gets", above(0, 1)}, self.share);
    visit(option{"seed", "of the tries", at_least(0)}, self.seed);
  }
};

/// One way to train.
struct arm {
  std::string name{};             ///< of its files: letters, digits, dashes
  std::string base{};             ///< whose settings it begins with
  std::string text{};             ///< of its rows
  std::string tuned_as{};         ///< the arm whose search serves it; empty: its own
  std::string stages_by{};        ///< timestep, snr or gradient; empty: as run.stages says
  std::string gradients_of{};     ///< the unified arm whose gradients are clustered
  std::string tailored_to{};      ///< an arm whose mean cost decoders are tailored to
  std::string pictures{};         ///< of latents: the images that they were made of
  std::vector<double> lengths{};  ///< shares of the budget by stage; empty: as rows are drawn
  double teraflops = 1;           ///< the budget: 10^12 operations of forward passes
  index_t held_out = 256;         ///< images that are kept from training
  index_t samples = 256;          ///< pictures drawn for each measurement
  drawing draws{};                ///< how
  run_configuration run{};        ///< data, stages, model, training
  tuning_options tuning{};        ///< what is searched for first

  /// Names the settings (core/options.hpp); "drawing", "run" and "tuning" are objects.
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"name", "of its files"}, self.name);
    visit(option{"base", "whose settings it begins with"}, self.base);
    visit(option{"text", "of its rows"}, self.text);
    visit(option{"tuned_as", "the arm whose search serves it"}, self.tuned_as);
    visit(option{"stages_by", "timestep, snr or gradient"}, self.stages_by);
    visit(option{"gradients_of", "the unified arm whose gradients are clustered"},
          self.gradients_of);
    visit(option{"tailored_to", "an arm whose mean cost decoders are tailored to"},
          self.tailored_to);
    visit(option{"pictures", "of latents: the images that they were made of"}, self.pictures);
    visit(option{"lengths", "shares of the budget by stage", at_least(0)}, self.lengths);
    visit(option{"teraflops", "the budget of forward passes", above(0)}, self.teraflops);
    visit(option{"held_out", "images that are kept from training", between(4, 1e7)},
          self.held_out);
    visit(option{"samples", "pictures drawn for each measurement", between(4, 1e7)},
          self.samples);
  }
  /// The budget in multiply-accumulates, of two operations each.
  double budget() const {
    return teraflops * 1e12 / 2;
  }
  /// The arm whose search serves it.
  const std::string& search() const {
    return tuned_as.empty() ? name : tuned_as;
  }
};

/// Arms that are compared with one of them.
struct table_group {
  std::string text{};               ///< what they have in common
  std::string baseline{};           ///< the arm that the others are compared with
  std::vector<std::string> arms{};  ///< the others

  /// The arms, the baseline first.
  std::vector<std::string> all() const {
    std::vector<std::string> names{baseline};
    names.insert(names.end(), arms.begin(), arms.end());
    return names;
  }
  /// Names the settings (core/options.hpp); "arms" is a list of names.
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"text", "what they have in common"}, self.text);
    visit(option{"baseline", "the arm that others are compared with"}, self.baseline);
  }
};

/// A table of trained arms, or of ways to draw with them.
struct result_table {
  std::string number{};               ///< as --table takes it
  std::string title{};                ///< its heading
  std::string text{};                 ///< what it asks
  std::vector<table_group> groups{};  ///< each with a table of its own
  std::vector<drawing> drawings{};    ///< rows of each group's arms; none: rows are the arms

  /// Names the settings (core/options.hpp); "groups" and "drawings" are lists.
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"number", "as --table takes it"}, self.number);
    visit(option{"title", "its heading"}, self.title);
    visit(option{"text", "what it asks"}, self.text);
  }
};

/// Everything that is run and shown.
struct experiment {
  std::string title{};                 ///< of the page
  std::string scale{};                 ///< its size, by name
  double hours = 1;                    ///< that it was made for, on two processors
  std::vector<double> seeds{};         ///< whole numbers
  std::vector<double> points{};        ///< shares of the budget at which arms are measured
  std::vector<arm> arms{};             ///< of this scale
  std::vector<result_table> tables{};  ///< with what this scale has of them

  /// Names the settings of a scale (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"hours", "that it was made for", above(0)}, self.hours);
    visit(option{"seeds", "of the repetitions", at_least(0)}, self.seeds);
    visit(option{"points", "shares of the budget at which arms are measured", above(0, 1)},
          self.points);
  }
  /// Whether there is an arm of this name.
  bool has(const std::string& name) const {
    return std::any_of(arms.begin(), arms.end(), [&](const arm& a) { return a.name == name; });
  }
  /// The arm of a name. @throws value_error where there is none
  const arm& arm_of(const std::string& name) const {
    const auto found =
        std::find_if(arms.begin(), arms.end(), [&](const arm& a) { return a.name == name; });
    require<value_error>(found != arms.end(), "experiment: no arm is called '", name, "'");
    return *found;
  }
};

namespace detail {

/// Sets what an object names of a struct, some of its keys aside. @throws value_error
template <class Options>
void read_fields(const io::json& j,
                 const std::string& where,
                 Options& to,
                 std::initializer_list<const char*> others = {}) {
  io::detail::reader read(j, where);
  read.skip(others);
  io::detail::visit_fields(read, to);
  read.finish();
  check_options(where.c_str(), to);
}
/// A member that is a list, or nothing. @throws value_error for what is none
inline const io::json& list_of(const io::json& j, const char* key, const std::string& where) {
  static const io::json nothing = io::json::array();
  if (!j.contains(key))
    return nothing;
  require<value_error>(j.at(key).is_array(), where, ": '", key, "' is no list");
  return j.at(key);
}

/// @throws value_error
MULTISTAGE_COLD inline void read_drawing(const io::json& j,
                                         const std::string& where,
                                         drawing& to) {
  read_fields(j, where, to, {"options"});
  if (j.contains("options"))
    to.options = j["options"];
  require<value_error>(to.options.is_object(), where, ": 'options' is no object");
}

/// Lays what a base or an arm says over an arm. @throws value_error
MULTISTAGE_COLD inline void read_arm(const io::json& j, const std::string& where, arm& to) {
  read_fields(j, where, to, {"drawing", "run", "tuning"});
  if (j.contains("drawing"))
    read_drawing(j["drawing"], where + ": drawing", to.draws);
  if (j.contains("tuning"))
    read_fields(j["tuning"], where + ": tuning", to.tuning);
  if (j.contains("run"))
    lay_over(to.run, j["run"], where, where + ": run");
  const bool known = to.stages_by.empty() || to.stages_by == "timestep" ||
                     to.stages_by == "snr" || to.stages_by == "gradient";
  require<value_error>(known, where, ": stages_by '", to.stages_by,
                       "' is unknown; known: timestep, snr, gradient");
  require<value_error>((to.stages_by == "gradient") == !to.gradients_of.empty(), where,
                       ": stages_by gradient and gradients_of go together");
}

/// The arms whose bases there are; all names are noted. @throws value_error
MULTISTAGE_COLD inline void read_arms(const io::json& list,
                                      const std::map<std::string, arm>& bases,
                                      const std::string& where,
                                      experiment& e,
                                      std::vector<std::string>& names) {
  for (const io::json& j : list) {
    arm named;
    read_fields(j, where + ": an arm", named, {"drawing", "run", "tuning"});
    const std::string of = where + ": arm '" + named.name + "'";
    constexpr const char* letters = "abcdefghijklmnopqrstuvwxyz0123456789-";
    require<value_error>(!named.name.empty() && named.name.size() <= 60 &&
                             named.name.find_first_not_of(letters) == std::string::npos,
                         of, ": a name is of small letters, digits and dashes");
    require<value_error>(std::count(names.begin(), names.end(), named.name) == 0, of,
                         " is there twice");
    names.push_back(named.name);
    const auto base = bases.find(named.base);
    if (base == bases.end())
      continue;
    arm a = base->second;
    read_arm(j, of, a);
    e.arms.push_back(std::move(a));
  }
}

/// A table with what a scale has of it. @throws value_error for names that no arm has
MULTISTAGE_COLD inline result_table read_table(const io::json& j,
                                               const std::string& where,
                                               const experiment& e,
                                               const std::vector<std::string>& names) {
  result_table t;
  read_fields(j, where + ": a table", t, {"groups", "drawings"});
  const std::string of = where + ": table '" + t.number + "'";
  for (const io::json& d : list_of(j, "drawings", of))
    read_drawing(d, of + ": a drawing", t.drawings.emplace_back());
  for (const io::json& g : list_of(j, "groups", of)) {
    table_group group;
    read_fields(g, of + ": a group", group, {"arms"});
    std::vector<std::string> arms;
    const bool are_names = g.contains("arms") && io::detail::take(g["arms"], arms);
    require<value_error>(are_names, of, ": 'arms' of '", group.text, "' is no list of names");
    arms.insert(arms.begin(), group.baseline);
    for (const std::string& name : arms)
      require<value_error>(std::count(names.begin(), names.end(), name) > 0, of,
                           ": no arm is called '", name, "'");
    if (!e.has(group.baseline))
      continue;
    std::copy_if(arms.begin() + 1, arms.end(), std::back_inserter(group.arms),
                 [&](const std::string& name) { return e.has(name); });
    t.groups.push_back(std::move(group));
  }
  return t;
}

/// @throws value_error for arms that name arms which this scale has not, and for points and
/// seeds that are none
MULTISTAGE_COLD inline void check(const experiment& e, const std::string& where) {
  for (const arm& a : e.arms)
    for (const std::string& other : {a.search(), a.gradients_of, a.tailored_to})
      require<value_error>(other.empty() || e.has(other), where, ": arm '", a.name, "' needs '",
                           other, "', which scale ", e.scale, " has not");
  require<value_error>(
      !e.arms.empty() && !e.seeds.empty() && !e.points.empty() && e.points.back() == 1 &&
          std::is_sorted(e.points.begin(), e.points.end()),
      where, ": scale ", e.scale, " needs arms, seeds, and points that ascend to 1");
}

}  // namespace detail

/// The same with some of its tables, the arms that they need, and those that these need.
/// @throws value_error for a table that there is not
MULTISTAGE_COLD inline experiment with_tables(experiment e,
                                              const std::vector<std::string>& numbers) {
  for (const std::string& number : numbers)
    require<value_error>(std::any_of(e.tables.begin(), e.tables.end(),
                                     [&](const result_table& t) { return t.number == number; }),
                         "experiment: scale ", e.scale, " has no table '", number, "'");
  std::erase_if(e.tables, [&](const result_table& t) {
    return std::count(numbers.begin(), numbers.end(), t.number) == 0;
  });
  std::vector<std::string> needed;
  for (const result_table& t : e.tables)
    for (const table_group& g : t.groups)
      for (const std::string& name : g.all())
        needed.push_back(name);
  for (std::size_t i = 0; i < needed.size(); ++i) {  // grows while it is walked
    const arm& a = e.arm_of(needed[i]);
    for (const std::string& other : {a.search(), a.gradients_of, a.tailored_to})
      if (!other.empty() && std::count(needed.begin(), needed.end(), other) == 0)
        needed.push_back(other);
  }
  std::erase_if(e.arms, [&](const arm& a) {
    return std::count(needed.begin(), needed.end(), a.name) == 0;
  });
  return e;
}

/// An experiment of a file. @param scale one of those that it has. @param folder that the paths
/// of data begin from. @throws file_error, value_error naming what is wrong
MULTISTAGE_COLD inline experiment read_experiment(const std::string& path,
                                                  const std::string& scale,
                                                  const std::string& folder) {
  const io::json_document document = read_configuration(path);
  require<value_error>(document->is_object(), path, ": is no JSON object");
  const io::json& scales = detail::section_of(*document, "scales");
  require<value_error>(scales.is_object() && scales.contains(scale), path, ": has no scale '",
                       scale, "'");
  const std::string where = path + ": scale " + scale;
  const io::json& of_scale = scales.at(scale);
  experiment e;
  e.scale = scale;
  e.title = document->value("title", std::string());
  detail::read_fields(of_scale, where, e, {"tuning", "bases", "tables"});
  tuning_options tuning;
  if (of_scale.contains("tuning"))
    detail::read_fields(of_scale["tuning"], where + ": tuning", tuning);
  std::map<std::string, arm> bases;
  for (const auto& [name, settings] : detail::section_of(of_scale, "bases").items()) {
    arm base{.tuning = tuning};
    detail::read_arm(settings, where + ": base '" + name + "'", base);
    base.run.data.path = folder + "/" + base.run.data.path;
    if (!base.pictures.empty())
      base.pictures = folder + "/" + base.pictures;
    bases[name] = std::move(base);
  }
  std::vector<std::string> names;
  detail::read_arms(detail::list_of(*document, "arms", path), bases, path, e, names);
  for (const io::json& t : detail::list_of(*document, "tables", path))
    e.tables.push_back(detail::read_table(t, path, e, names));
  detail::check(e, path);
  if (!of_scale.contains("tables"))
    return e;
  std::vector<std::string> tables;
  require<value_error>(io::detail::take(of_scale["tables"], tables), where,
                       ": 'tables' is no list of their numbers");
  return with_tables(std::move(e), tables);
}

}  // namespace multistage
