// What a checkpoint says beside its tensors, in its metadata: what the model was trained with,
// its configuration with the partition, the counters of the run. What a file says is believed
// only as far as a run could have said it.
#pragma once
#include <cmath>

#include "../io/json.hpp"
#include "../io/weights.hpp"
#include "trainer.hpp"

namespace multistage {

namespace checkpoint_detail {

inline constexpr const char* format = "multistage-checkpoint-1";
inline bool is_ours(const std::string& name) {
  return name.rfind("training.", 0) == 0 || io::is_resample_filter(name);
}

/// What the model was trained with, where sampling must match it, under "trained".
inline void add_facts(io::safetensors_writer& w, const training_facts& facts) {
  io::json_document j(io::json::object());
  if (facts.label_dropout)
    j.set("label_dropout", *facts.label_dropout);
  if (facts.augmented)
    j.set("augmented", *facts.augmented);
  if (!facts.class_names.empty())
    j.set("class_names", facts.class_names);
  if (facts.images)
    j.set("images", *facts.images);
  if (!j->empty())
    w.metadata["trained"] = j->dump(-1, ' ', false, io::json::error_handler_t::replace);
}
inline training_facts facts_of(const io::safetensors& f) {
  training_facts facts;
  if (!f.metadata().count("trained"))
    return facts;
  const io::json_document document = f.meta_json("trained");
  const io::json& j = *document;
  const auto take = [&]<class T>(const char* key, std::optional<T>& to, double most) {
    if (j.is_object() && !j.contains(key))
      return;
    T v{};
    require<file_error>(
        j.is_object() && io::detail::take(j[key], v) && v >= 0 && double(v) <= most, f.path(),
        ": its metadata 'trained' is broken: '", key, "' is not from 0 to ", most);
    to = v;
  };
  take("label_dropout", facts.label_dropout, 1);
  take("augmented", facts.augmented, 65536);
  require<file_error>(
      !j.contains("class_names") || io::detail::take(j["class_names"], facts.class_names),
      f.path(),
      ": its metadata 'trained' is broken: 'class_names' is no list "
      "of texts");
  if (j.contains("images")) {
    require<file_error>(io::detail::take(j["images"], facts.images.emplace()), f.path(),
                        ": its metadata 'trained' is broken: 'images' is no text");
  }
  return facts;
}

/// A file that begins with a model. @param average of its weights
template <class Scalar, class Backend>
io::safetensors_writer start(dynamic_model<Scalar, Backend>& model,
                             const std::vector<Scalar>& average) {
  io::safetensors_writer w;
  io::json_document config(io::to_json(model.config()));
  config.set("stage_boundaries", model.stages().boundaries());
  w.metadata = {{"format", format}, {"config", config->dump()}};
  add_facts(w, model.trained());
  io::add_parameters(w, "", model.network(), model.parameter_names(), average);
  return w;
}

inline const io::safetensors& opened(const io::safetensors& f) {
  require<file_error>(f.metadata().count("format") && f.meta("format") == format, f.path(),
                      ": is not a checkpoint of this library (metadata format is not '", format,
                      "'); open bare weights with load_weights");
  return f;
}

/// What make() returns; errors of values, which come from the file's configuration, name the
/// file.
template <class F>
auto named(const io::safetensors& f, F&& make) {
  try {
    return make();
  } catch (const value_error& e) {
    fail<value_error>(f.path(), ": ", e.what());
  }
}

/// The partition that a configuration carries; without one, a single stage.
inline partition partition_of(const io::json& config) {
  return config.contains("stage_boundaries")
             ? io::partition_from_json(config["stage_boundaries"])
             : partition();
}

/// A file's configuration with its partition, all settings written out. What load refuses, this
/// refuses.
inline io::json_document complete(const io::safetensors& f, const io::json& config) {
  return named(f, [&] {
    io::json_document j(io::to_json(io::configuration_from_json(config)));
    j.set("stage_boundaries", partition_of(config).boundaries());
    return j;
  });
}

/// Options by their names: numbers as numbers, the rest as texts.
template <class Options>
io::json_document options_json(const Options& options) {
  io::json_document j(io::json::object());
  Options::fields(options, [&](const option& o, const auto& value) {
    using type = std::decay_t<decltype(value)>;
    if constexpr (std::is_arithmetic_v<type> || std::is_same_v<type, std::vector<double>>)
      j.set(o.name, value);
    else
      j.set(o.name, option_text(value));
  });
  return j;
}
/// Of two runs' options those that both have and that the results depend on.
inline void keep_comparable(io::json& a, io::json& b) {
  const auto drop = [](io::json& from, const io::json& other) {
    for (auto it = from.begin(); it != from.end();)
      it = other.contains(it.key()) && !is_only_how(it.key()) ? std::next(it) : from.erase(it);
  };
  drop(a, b);
  drop(b, a);
}

/// What a file says of the run that it is to go on.
template <class State>
struct training_state {
  State counters;
  std::uint64_t seed = 0;
  index_t batch = 0;
  std::string images;         // their fingerprint; empty in files of older versions
  io::json_document options;  // those it was trained with; null in files of older versions
};

/// Refuses a value that no run can have had. @throws file_error
template <class Value>
void require_sound(const io::safetensors& f,
                   bool holds,
                   const char* key,
                   const Value& value,
                   const char* rule) {
  require<file_error>(holds, f.path(), ": its training state is broken: '", key, "' holds ",
                      value, "; ", rule, "; use an earlier checkpoint");
}

/// The counters of a run against each other. A step may be given a batch of any size from
/// outside. @throws file_error
template <class State>
void check_counters(const io::safetensors& f, const State& s, int segments, int stages) {
  require_sound(f, s.images_seen == std::floor(s.images_seen), "images_seen", s.images_seen,
                "images are counted one by one");
  require_sound(f, s.step > 0 ? s.images_seen >= double(s.step) : s.images_seen == 0,
                "images_seen", s.images_seen,
                "each of the steps saw one at least, and nothing else did");
  double of_stages = 0;
  for (const double n : s.stage_images)
    of_stages += n;
  require_sound(f, std::fabs(of_stages - s.images_seen) <= 1e-9 * s.images_seen, "stage_images",
                of_stages, "together they are images_seen");
  for (std::size_t k = 0; segments == stages + 1 && k < s.stage_images.size(); ++k)
    require_sound(f, double(s.updates[k + 1]) <= s.stage_images[k], "segment_updates",
                  s.updates[k + 1], "an update takes an image of the segment's stage");
}

/// @throws file_error naming the value that is missing, of another kind, or one no run can have
/// had
template <class State>
training_state<State> read_training_state(const io::safetensors& f, int segments, int stages) {
  const io::json_document document = f.meta_json("training");
  const io::json& j = *document;
  training_state<State> t;
  State& s = t.counters;
  const auto take = [&](const char* key, auto& to) {
    require<file_error>(j.is_object() && j.contains(key) && io::detail::take(j[key], to),
                        f.path(), ": its training state is broken: '", key,
                        "' is missing or unfit; use an earlier checkpoint");
  };
  take("steps", s.step);
  take("images_seen", s.images_seen);
  take("segment_updates", s.updates);
  take("stage_images", s.stage_images);
  take("importance", s.importance);
  take("seed", t.seed);
  take("batch_size", t.batch);
  if (j.contains("images"))
    take("images", t.images);
  if (j.contains("rate_factor"))
    take("rate_factor", s.rate_factor);
  if (j.contains("options"))
    t.options = io::json_document(j["options"]);
  const auto sound = [&](bool holds, const char* key, const auto& value, const char* rule) {
    require_sound(f, holds, key, value, rule);
  };
  constexpr double most = 9e15;  // up to which doubles count one by one
  const auto count = [&](const char* key, double value) {
    sound(is_finite(value) && value >= 0 && value <= most, key, value, "it counts from 0");
  };
  count("steps", double(s.step));
  count("images_seen", s.images_seen);
  sound(t.batch > 0, "batch_size", t.batch, "it is above 0");
  sound(int(s.updates.size()) == segments, "segment_updates", s.updates.size(),
        "there is one number for each segment of the network");
  sound(int(s.stage_images.size()) == stages, "stage_images", s.stage_images.size(),
        "there is one number for each stage");
  for (const index_t u : s.updates)
    sound(u >= 0 && u <= s.step, "segment_updates", u,
          "a segment is updated at most once a step");
  for (const double n : s.stage_images)
    count("stage_images", n);
  for (const double v : s.importance)
    sound(is_finite(v) && v >= 0, "importance", v, "they are mean squares");
  check_counters(f, s, segments, stages);
  sound(s.rate_factor > 0 && s.rate_factor <= 1, "rate_factor", s.rate_factor,
        "it is above 0 and at most 1");
  sound(!j.contains("options") || j["options"].is_object(), "options", "something else",
        "it is an object");
  sound(!j.contains("images") || !t.images.empty(), "images", "nothing",
        "it is the images' fingerprint");
  return t;
}

/// Where two lists of names differ first, for messages.
inline std::string first_difference(const std::vector<std::string>& file,
                                    const std::vector<std::string>& run) {
  for (std::size_t i = 0; i < std::min(file.size(), run.size()); ++i)
    if (file[i] != run[i])
      return " (class " + std::to_string(i) + " is '" + printable(file[i], 60) +
             "' there, in this run '" + printable(run[i], 60) + "')";
  return " (" + std::to_string(file.size()) + ", this run has " + std::to_string(run.size()) +
         ")";
}

/// What differs between two configurations, for messages.
inline std::string differences(const io::json& file,
                               const io::json& model,
                               const std::string& other = "the model") {
  std::string text;
  const auto shown = [](const io::json& from, const std::string& key) {
    return from.contains(key) ? io::detail::excerpt(from[key]) : std::string("nothing");
  };
  const auto note = [&](const std::string& key) {
    text += "\n  " + printable(key, 60) + ": the file has " + shown(file, key) + ", " + other +
            " " + shown(model, key);
  };
  for (const auto& [key, value] : model.items())
    if (!file.contains(key) || file[key] != value)
      note(key);
  for (const auto& [key, value] : file.items())
    if (!model.contains(key))
      note(key);
  return text;
}

}  // namespace checkpoint_detail

}  // namespace multistage
