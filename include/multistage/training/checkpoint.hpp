// Checkpoints: one safetensors file with the averaged weights under upstream's own names (what
// a PyTorch user loads), the weights and Adam's moments under "training.", and in its metadata
// the configuration, the partition and the counters. Written atomically.
#pragma once
#include <cmath>

#include "../core/warning.hpp"
#include "../io/json.hpp"
#include "../io/run_lock.hpp"
#include "../io/weights.hpp"
#include "run.hpp"

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
  if (!j->empty())
    w.metadata["trained"] = j->dump();
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
  return facts;
}

template <class Scalar, class Backend>
io::safetensors_writer start(dynamic_model<Scalar, Backend>& model) {
  io::safetensors_writer w;
  io::json_document config(io::to_json(model.config()));
  config.set("stage_boundaries", model.stages().boundaries());
  w.metadata = {{"format", format}, {"config", config->dump()}};
  add_facts(w, model.trained());
  io::add_parameters(w, "", model.network(), model.parameter_names(),
                     model.averaged_weights().to_host());
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

/// What a file says of the run that it is to go on.
template <class State>
struct training_state {
  State counters;
  std::uint64_t seed = 0;
  index_t batch = 0;
  std::string images;  // their fingerprint; empty in files of older versions
};

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
  const auto sound = [&](bool holds, const char* key, const auto& value, const char* rule) {
    require<file_error>(holds, f.path(), ": its training state is broken: '", key, "' holds ",
                        value, "; ", rule, "; use an earlier checkpoint");
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
  // The counters against each other. A step may be given a batch of any size from outside.
  sound(s.images_seen == std::floor(s.images_seen), "images_seen", s.images_seen,
        "images are counted one by one");
  sound(s.step > 0 ? s.images_seen >= double(s.step) : s.images_seen == 0, "images_seen",
        s.images_seen, "each of the steps saw one at least, and nothing else did");
  double of_stages = 0;
  for (const double n : s.stage_images)
    of_stages += n;
  sound(std::fabs(of_stages - s.images_seen) <= 1e-9 * s.images_seen, "stage_images", of_stages,
        "together they are images_seen");
  for (std::size_t k = 0; segments == stages + 1 && k < s.stage_images.size(); ++k)
    sound(double(s.updates[k + 1]) <= s.stage_images[k], "segment_updates", s.updates[k + 1],
          "an update takes an image of the segment's stage");
  sound(!j.contains("images") || !t.images.empty(), "images", "nothing",
        "it is the images' fingerprint");
  return t;
}

/// What differs between two configurations, for messages.
inline std::string differences(const io::json& file, const io::json& model) {
  std::string text;
  const auto shown = [](const io::json& from, const std::string& key) {
    return from.contains(key) ? io::detail::excerpt(from[key]) : std::string("nothing");
  };
  const auto note = [&](const std::string& key) {
    text += "\n  " + key.substr(0, 60) + ": the file has " + shown(file, key) + ", the model " +
            shown(model, key);
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

/// Writes the model: averaged weights, configuration, partition. @throws numeric_error for
/// weights that are not finite, file_error; an older file stays then. state_error while another
/// thread uses the model, as all below do.
template <class Scalar, class Backend>
void save(const std::string& path, dynamic_model<Scalar, Backend>& model) {
  const auto visit = model.use();  // a step in another thread would change weights under way
  checkpoint_detail::start(model).write(path);
}

/// Writes the model and all that training needs to go on from here. @throws as above, for the
/// moments of Adam too
template <class Scalar, class Backend>
void save(const std::string& path, trainer<Scalar, Backend>& t) {
  auto& model = t.model();
  const auto visit = model.use();
  io::safetensors_writer w = checkpoint_detail::start(model);
  const auto add = [&](const char* prefix, const std::vector<Scalar>& flat) {
    io::add_parameters(w, prefix, model.network(), model.parameter_names(), flat);
  };
  add("training.weights.", model.weights().to_host());
  add("training.first_moment.", t.first_moment().to_host());
  add("training.second_moment.", t.second_moment().to_host());
  const auto c = t.counters();
  io::json_document counters(io::json::object());
  counters.set("steps", c.step);
  counters.set("images_seen", c.images_seen);
  counters.set("segment_updates", c.updates);
  counters.set("seed", t.options().seed);
  counters.set("batch_size", t.options().batch_size);
  counters.set("stage_images", c.stage_images);
  counters.set("importance", c.importance);
  counters.set("images", t.images_fingerprint());
  w.metadata["training"] = counters->dump();
  w.write(path);
}

struct load_options {
  bool lazy = false;  ///< read a stage's weights when the stage is first used; the file must
                      ///< stay as it is until then
};

/// The model of a checkpoint, its structure built from the file's configuration. @throws
/// file_error, value_error, each naming the file
template <class Scalar = float, class Backend>
dynamic_model<Scalar, Backend> load(const io::safetensors& f,
                                    Backend backend,
                                    const load_options& options = {}) {
  using model_type = dynamic_model<Scalar, Backend>;
  const io::json_document document = checkpoint_detail::opened(f).meta_json("config");
  const io::json& j = *document;
  model_type model = checkpoint_detail::named(f, [&] {
    configuration c = io::configuration_from_json(j);
    return model_type(backend, c, checkpoint_detail::partition_of(j), std::nullopt);
  });
  if (f.metadata().count("training"))
    checkpoint_detail::read_training_state<typename trainer<Scalar, Backend>::state>(
        f, model.network().segments, model.stage_count());
  io::check_parameters(f, "", model.network(), model.parameter_names(),
                       checkpoint_detail::is_ours);
  model.read_weights_on_demand(
      [f, g = model.network(), names = model.parameter_names()](int segment, Scalar* to) {
        for (std::size_t k = 0; k < g.parameters.size(); ++k)
          if (g.parameters[k].segment == segment)
            io::read_parameter(f, names[k], g.parameters[k], to, g.parameter_range(segment)[0]);
      });
  model.set_trained(checkpoint_detail::facts_of(f));
  if (!options.lazy)
    model.weights();
  return model;
}
template <class Scalar = float, class Backend>
dynamic_model<Scalar, Backend> load(const std::string& path,
                                    Backend backend,
                                    const load_options& options = {}) {
  return load<Scalar>(io::safetensors(path), std::move(backend), options);
}

/// What start_from took over.
struct start_report {
  struct part {
    std::string name;  ///< "encoder", "decoder of stage 1"
    int copied = 0;
    int total = 0;
  };
  std::vector<part> parts;
  std::string text() const {
    std::string s;
    for (const part& p : parts)
      s += p.name + ": " + std::to_string(p.copied) + " of " + std::to_string(p.total) +
           " tensors taken over\n";
    return s;
  }
};

/// Starts a multi-decoder model from a unified network of the same kind: the encoder is copied,
/// and of each decoder the tensors whose shapes fit. The k-th tensor of a decoder answers the
/// k-th of the unified one, so decoders of another depth or attention take nothing over.
/// @throws file_error when the file does not hold that unified network.
template <class Scalar, class Backend>
start_report start_from(const std::string& path, dynamic_model<Scalar, Backend>& model) {
  const auto visit = model.use();
  const io::safetensors f(path);
  configuration single = model.config();
  single.stages = {
      .widths = {std::visit([](const auto& n) { return n.encoder_channels; }, single.network)}};
  const described_network unified = record(single);
  io::check_parameters(f, "", unified.structure, unified.names, checkpoint_detail::is_ours);
  const auto of_segment = [](const graph& g, int segment) {
    std::vector<std::size_t> list;
    for (std::size_t k = 0; k < g.parameters.size(); ++k)
      if (g.parameters[k].segment == segment)
        list.push_back(k);
    return list;
  };
  const graph& g = model.network();
  std::vector<Scalar> flat = model.weights().to_host();
  start_report report;
  for (int segment = 0; segment < g.segments; ++segment) {
    const auto from = of_segment(unified.structure, segment == 0 ? 0 : 1);
    const auto to = of_segment(g, segment);
    start_report::part part{
        segment == 0 ? "encoder" : "decoder of stage " + std::to_string(segment - 1), 0,
        int(to.size())};
    for (std::size_t k = 0; from.size() == to.size() && k < to.size(); ++k) {
      if (upstream_extents(unified.structure.parameters[from[k]]) !=
          upstream_extents(g.parameters[to[k]]))
        continue;
      io::read_parameter(f, unified.names[from[k]], g.parameters[to[k]], flat.data());
      ++part.copied;
    }
    report.parts.push_back(part);
  }
  model.backend().upload(flat.data(), model.weights().data(), index_t(flat.size()));
  if (model.has_average())
    model.backend().upload(flat.data(), model.averaged_weights().data(), index_t(flat.size()));
  return report;
}

/// Upstream-named weights of any safetensors file into a model. Nothing is changed unless
/// everything fits.
/// @throws file_error listing missing, unexpected and misshapen tensors together.
template <class Scalar, class Backend>
void load_weights(const std::string& path, dynamic_model<Scalar, Backend>& model) {
  const auto visit = model.use();
  const io::safetensors f(path);
  const auto flat = io::read_parameters<Scalar>(f, "", model.network(), model.parameter_names(),
                                                checkpoint_detail::is_ours);
  model.backend().upload(flat.data(), model.weights().data(), index_t(flat.size()));
  if (model.has_average())
    model.backend().upload(flat.data(), model.averaged_weights().data(), index_t(flat.size()));
}

struct resume_options {
  bool other_images =
      false;  // go on although the images are not those that the run was trained on
};

/// Continues a training run: the next step is the one that the saved run would have made. The
/// checkpoint must be of the same configuration, partition, seed, batch size and images.
/// Nothing is changed unless everything fits. @throws file_error, value_error saying what
/// differs
template <class Scalar, class Backend>
void resume(const io::safetensors& f,
            trainer<Scalar, Backend>& t,
            const resume_options& options = {}) {
  auto& model = t.model();
  const auto visit = model.use();
  io::json_document own(io::to_json(model.config()));
  own.set("stage_boundaries", model.stages().boundaries());
  io::json_document stored = checkpoint_detail::opened(f).meta_json("config");
  // Of parts of the user's own types files hold the settings as they are.
  if (model.config().described())
    stored = checkpoint_detail::complete(f, stored);
  if (const std::string text = checkpoint_detail::differences(stored, own); !text.empty()) {
    std::string tensors;
    try {
      io::check_parameters(f, "", model.network(), model.parameter_names(),
                           checkpoint_detail::is_ours);
    } catch (const file_error& e) {
      tensors = std::string("\n") + e.what();
    }
    fail<file_error>(f.path(), ": is a checkpoint of another model:", text, tensors);
  }
  require<file_error>(f.metadata().count("training"), f.path(),
                      ": holds a model but no training state; it can be sampled, not resumed");
  using state = typename trainer<Scalar, Backend>::state;
  const auto s = checkpoint_detail::read_training_state<state>(f, model.network().segments,
                                                               model.stage_count());
  require<value_error>(s.seed == t.options().seed && s.batch == t.options().batch_size,
                       f.path(), ": was trained with seed ", s.seed, " and batch_size ",
                       s.batch, ", this run has ", t.options().seed, " and ",
                       t.options().batch_size, "; a resumed run must have the same");
  require<value_error>(
      options.other_images || s.images.empty() || s.images == t.images_fingerprint(), f.path(),
      ": was trained on other images (fingerprint ", s.images.substr(0, 16),
      ", this run's are ", t.images_fingerprint(),
      "); give the same images and classes, or say that others are meant (other_images, "
      "--other-data)");
  const auto none = [](const std::string&) {
    return true;
  };
  const auto read = [&](const char* prefix) {
    return io::read_parameters<Scalar>(f, prefix, model.network(), model.parameter_names(),
                                       none);
  };
  const auto average = read("");
  const auto weights = read("training.weights.");
  const auto first = read("training.first_moment.");
  const auto second = read("training.second_moment.");
  for (const Scalar v : second)
    require<file_error>(v >= 0, f.path(), ": its tensors training.second_moment.* hold ", v,
                        "; means of squares are not negative; use an earlier checkpoint");
  for (int segment = 0; segment < model.network().segments; ++segment) {
    if (s.counters.updates[std::size_t(segment)] > 0)
      continue;
    const auto [begin, end] = model.network().parameter_range(segment);
    for (index_t i = begin; i < end; ++i)
      require<file_error>(
          first[std::size_t(i)] == 0 && second[std::size_t(i)] == 0, f.path(),
          ": its training state is broken: 'segment_updates' says that segment ", segment,
          " was never updated, its moments of Adam are not 0; use an earlier checkpoint");
  }
  const auto facts = checkpoint_detail::facts_of(f);
  checkpoint_detail::named(f, [&] { t.restore(s.counters); });
  if (facts.label_dropout)  // labels that were left out before count
    model.set_trained(
        {std::max(*facts.label_dropout, t.options().label_dropout), t.options().augmented});
  const auto put = [&](const std::vector<Scalar>& v, tensor<Scalar, Backend>& to) {
    model.backend().upload(v.data(), to.data(), index_t(v.size()));
  };
  put(average, model.averaged_weights());
  put(weights, model.weights());
  put(first, t.first_moment());
  put(second, t.second_moment());
}
template <class Scalar, class Backend>
void resume(const std::string& path,
            trainer<Scalar, Backend>& t,
            const resume_options& options = {}) {
  resume(io::safetensors(path), t, options);
}

/// Where a run keeps its checkpoint.
struct run_checkpoint {
  std::string path;
  double every_seconds = 60;  ///< between saves while the run goes on
  bool resume = false;        ///< go on from the file, which must be there
  resume_options resumed_with = {};
};

/// Trains as run() in training/run.hpp does and keeps a checkpoint: saved now and then, at the
/// end, when a signal asks the program to stop, and when the observer throws. The path is
/// locked meanwhile (io/run_lock.hpp): a second run with it is refused. A save in between that
/// fails is tried again at the next turn and warned of; the file that was there stays. @throws
/// as run, save and resume do; a numeric_error says what the file holds
template <class Scalar, class Backend, class Observe>
run_result run(trainer<Scalar, Backend>& t,
               const training_limit& limit,
               const run_checkpoint& c,
               Observe&& observe,
               double window_seconds = 0.5) {
  require<value_error>(c.every_seconds > 0, "run: a checkpoint every ", c.every_seconds,
                       " seconds; give a number above 0");
  io::detail::check_writable(c.path);  // before the work, not after it
  const io::run_lock lock(c.path);
  const stop_signals signals;  // until the last save is done
  if (c.resume)
    resume(c.path, t, c.resumed_with);
  using clock = std::chrono::steady_clock;
  clock::time_point saved_at = clock::now();
  std::string held =
      c.resume ? "the state after step " + std::to_string(t.steps()) : "nothing of this run";
  bool stopped_by_observer = false;
  const auto save_now = [&] {
    save(c.path, t);
    saved_at = clock::now();
    held = "the state after step " + std::to_string(t.steps());
  };
  try {
    const auto save_now_and_then = [&](const loss_point& p, double done) {
      stopped_by_observer = true;
      const bool go_on = observe(p, done);
      stopped_by_observer = false;
      if (std::chrono::duration<double>(clock::now() - saved_at).count() < c.every_seconds)
        return go_on;
      try {
        save_now();
      } catch (const file_error& e) {
        saved_at = clock::now();
        warn("run: a checkpoint could not be written and is tried again in ", c.every_seconds,
             " s: ", e.what());
      }
      return go_on;
    };
    run_result r = run(t, limit, save_now_and_then, window_seconds);
    save_now();
    return r;
  } catch (const numeric_error& e) {
    fail<numeric_error>(e.what(), "; ", c.path, " holds ", held);
  } catch (...) {
    if (stopped_by_observer)
      try {
        save_now();
      } catch (const error&) {  // what the observer threw says more
      }
    throw;
  }
}

}  // namespace multistage
