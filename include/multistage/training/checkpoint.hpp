// Checkpoints: one safetensors file with the averaged weights under upstream's own names (what a PyTorch user loads), the weights and
// Adam's moments under "training.", and in its metadata the configuration, the partition and the counters. Written atomically.
#pragma once
#include "../io/json.hpp"
#include "../io/weights.hpp"
#include "trainer.hpp"

namespace multistage {

namespace checkpoint_detail {

inline constexpr const char* format = "multistage-checkpoint-1";
inline bool is_ours(const std::string& name) { return name.rfind("training.", 0) == 0 || io::is_resample_filter(name); }

/// What the model was trained with, where sampling must match it, under "trained".
inline void add_facts(io::safetensors_writer& w, const training_facts& facts) {
  io::json j = io::json::object();
  if (facts.label_dropout) j["label_dropout"] = *facts.label_dropout;
  if (facts.augmented) j["augmented"] = *facts.augmented;
  if (!j.empty()) w.metadata["trained"] = j.dump();
}
inline training_facts facts_of(const io::safetensors& f) {
  training_facts facts;
  if (!f.metadata().count("trained")) return facts;
  const io::json j = io::json::parse(f.meta("trained"), nullptr, false);
  const auto take = [&]<class T>(const char* key, std::optional<T>& to, double most) {
    if (j.is_object() && !j.contains(key)) return;
    T v{};
    require<file_error>(j.is_object() && io::detail::take(j[key], v) && v >= 0 && double(v) <= most, f.path(), ": its metadata 'trained' is broken: '", key,
                        "' is not from 0 to ", most);
    to = v;
  };
  take("label_dropout", facts.label_dropout, 1);
  take("augmented", facts.augmented, 65536);
  return facts;
}

template <class Scalar, class Backend>
io::safetensors_writer start(dynamic_model<Scalar, Backend>& model) {
  io::safetensors_writer w;
  io::json config = io::to_json(model.config());
  config["stage_boundaries"] = model.stages().boundaries();
  w.metadata = {{"format", format}, {"config", config.dump()}};
  add_facts(w, model.trained());
  io::add_parameters(w, "", model.network(), model.parameter_names(), model.averaged_weights().to_host());
  return w;
}

inline io::json parse(const io::safetensors& f, const char* key) {
  const io::json j = io::json::parse(f.meta(key), nullptr, false);
  require<file_error>(!j.is_discarded(), f.path(), ": its metadata '", key, "' is not JSON");
  return j;
}

inline io::safetensors open(const std::string& path) {
  io::safetensors f(path);
  require<file_error>(f.metadata().count("format") && f.meta("format") == format, path, ": is not a checkpoint of this library (metadata format is not '",
                      format, "'); open bare weights with load_weights");
  return f;
}

/// What differs between two configurations, for messages.
inline std::string differences(const io::json& file, const io::json& model) {
  std::string text;
  for (const auto& [key, value] : model.items())
    if (!file.contains(key) || file[key] != value)
      text +=
          "\n  " + key + ": the file has " + (file.contains(key) ? io::detail::excerpt(file[key]) : "nothing") + ", the model " + io::detail::excerpt(value);
  return text;
}

}  // namespace checkpoint_detail

/// Writes the model: averaged weights, configuration, partition. @throws file_error; an older file stays then.
template <class Scalar, class Backend>
void save(const std::string& path, dynamic_model<Scalar, Backend>& model) {
  checkpoint_detail::start(model).write(path);
}

/// Writes the model and all that training needs to go on from here.
template <class Scalar, class Backend>
void save(const std::string& path, trainer<Scalar, Backend>& t) {
  auto& model = t.model();
  io::safetensors_writer w = checkpoint_detail::start(model);
  const auto add = [&](const char* prefix, const std::vector<Scalar>& flat) { io::add_parameters(w, prefix, model.network(), model.parameter_names(), flat); };
  add("training.weights.", model.weights().to_host());
  add("training.first_moment.", t.first_moment().to_host());
  add("training.second_moment.", t.second_moment().to_host());
  const auto c = t.counters();
  w.metadata["training"] = io::json{{"steps", c.step},           {"images_seen", c.images_seen},         {"segment_updates", c.updates},
                                    {"seed", t.options().seed},  {"batch_size", t.options().batch_size}, {"stage_images", c.stage_images},
                                    {"importance", c.importance}}
                               .dump();
  w.write(path);
}

struct load_options {
  bool lazy = false;  // read a stage's weights when the stage is first used; the file must stay as it is until then
};

/// The model of a checkpoint, its structure built from the file's configuration. @throws file_error, value_error
template <class Scalar = float, class Backend>
dynamic_model<Scalar, Backend> load(const std::string& path, Backend backend, const load_options& options = {}) {
  const io::safetensors f = checkpoint_detail::open(path);
  const io::json j = checkpoint_detail::parse(f, "config");
  dynamic_model<Scalar, Backend> model(backend, io::configuration_from_json(j),
                                       io::partition_from_json(j.is_object() ? j.value("stage_boundaries", io::json()) : io::json()), std::nullopt);
  io::check_parameters(f, "", model.network(), model.parameter_names(), checkpoint_detail::is_ours);
  model.read_weights_on_demand([f, g = model.network(), names = model.parameter_names()](int segment, Scalar* to) {
    for (std::size_t k = 0; k < g.parameters.size(); ++k)
      if (g.parameters[k].segment == segment) io::read_parameter(f, names[k], g.parameters[k], to, g.parameter_range(segment)[0]);
  });
  model.set_trained(checkpoint_detail::facts_of(f));
  if (!options.lazy) model.weights();
  return model;
}

/// What start_from took over.
struct start_report {
  struct part {
    std::string name;  // "encoder", "decoder of stage 1"
    int copied = 0, total = 0;
  };
  std::vector<part> parts;
  std::string text() const {
    std::string s;
    for (const part& p : parts) s += p.name + ": " + std::to_string(p.copied) + " of " + std::to_string(p.total) + " tensors taken over\n";
    return s;
  }
};

/// Starts a multi-decoder model from a unified network of the same kind: the encoder is copied, and of each decoder the tensors whose shapes
/// fit. The k-th tensor of a decoder answers the k-th of the unified one, so decoders of another depth or attention take nothing over.
/// @throws file_error when the file does not hold that unified network.
template <class Scalar, class Backend>
start_report start_from(const std::string& path, dynamic_model<Scalar, Backend>& model) {
  const io::safetensors f(path);
  configuration single = model.config();
  single.stages = {.widths = {std::visit([](const auto& n) { return n.encoder_channels; }, single.network)}};
  const described_network unified = record(single);
  io::check_parameters(f, "", unified.structure, unified.names, checkpoint_detail::is_ours);
  const auto of_segment = [](const graph& g, int segment) {
    std::vector<std::size_t> list;
    for (std::size_t k = 0; k < g.parameters.size(); ++k)
      if (g.parameters[k].segment == segment) list.push_back(k);
    return list;
  };
  const graph& g = model.network();
  std::vector<Scalar> flat = model.weights().to_host();
  start_report report;
  for (int segment = 0; segment < g.segments; ++segment) {
    const auto from = of_segment(unified.structure, segment == 0 ? 0 : 1), to = of_segment(g, segment);
    start_report::part part{segment == 0 ? "encoder" : "decoder of stage " + std::to_string(segment - 1), 0, int(to.size())};
    for (std::size_t k = 0; from.size() == to.size() && k < to.size(); ++k) {
      if (upstream_extents(unified.structure.parameters[from[k]]) != upstream_extents(g.parameters[to[k]])) continue;
      io::read_parameter(f, unified.names[from[k]], g.parameters[to[k]], flat.data());
      ++part.copied;
    }
    report.parts.push_back(part);
  }
  model.backend().upload(flat.data(), model.weights().data(), index_t(flat.size()));
  if (model.has_average()) model.backend().upload(flat.data(), model.averaged_weights().data(), index_t(flat.size()));
  return report;
}

/// Upstream-named weights of any safetensors file into a model. Nothing is changed unless everything fits.
/// @throws file_error listing missing, unexpected and misshapen tensors together.
template <class Scalar, class Backend>
void load_weights(const std::string& path, dynamic_model<Scalar, Backend>& model) {
  const io::safetensors f(path);
  const auto flat = io::read_parameters<Scalar>(f, "", model.network(), model.parameter_names(), checkpoint_detail::is_ours);
  model.backend().upload(flat.data(), model.weights().data(), index_t(flat.size()));
  if (model.has_average()) model.backend().upload(flat.data(), model.averaged_weights().data(), index_t(flat.size()));
}

/// Continues a training run: the next step is the one that the saved run would have made. The checkpoint must be of the same
/// configuration, partition, seed and batch size. Nothing is changed unless everything fits. @throws file_error saying what differs
template <class Scalar, class Backend>
void resume(const std::string& path, trainer<Scalar, Backend>& t) {
  auto& model = t.model();
  const io::safetensors f = checkpoint_detail::open(path);
  io::json own = io::to_json(model.config());
  own["stage_boundaries"] = model.stages().boundaries();
  if (const std::string text = checkpoint_detail::differences(checkpoint_detail::parse(f, "config"), own); !text.empty()) {
    std::string tensors;
    try {
      io::read_parameters<Scalar>(f, "", model.network(), model.parameter_names(), checkpoint_detail::is_ours);
    } catch (const file_error& e) {
      tensors = std::string("\n") + e.what();
    }
    fail<file_error>(path, ": is a checkpoint of another model:", text, tensors);
  }
  require<file_error>(f.metadata().count("training"), path, ": holds a model but no training state; it can be sampled, not resumed");
  const io::json j = checkpoint_detail::parse(f, "training");
  typename trainer<Scalar, Backend>::state s;
  std::uint64_t seed = 0;
  index_t batch = 0;
  const auto take = [&](const char* key, auto& to) {
    require<file_error>(j.is_object() && j.contains(key) && io::detail::take(j[key], to), path, ": its training state is broken: '", key,
                        "' is missing or unfit");
  };
  take("steps", s.step);
  take("images_seen", s.images_seen);
  take("segment_updates", s.updates);
  take("stage_images", s.stage_images);
  take("importance", s.importance);
  take("seed", seed);
  take("batch_size", batch);
  require<value_error>(seed == t.options().seed && batch == t.options().batch_size, path, ": was trained with seed ", seed, " and batch_size ", batch,
                       ", this run has ", t.options().seed, " and ", t.options().batch_size, "; a resumed run must have the same");
  const auto none = [](const std::string&) { return true; };
  const auto read = [&](const char* prefix) { return io::read_parameters<Scalar>(f, prefix, model.network(), model.parameter_names(), none); };
  const auto average = read(""), weights = read("training.weights."), first = read("training.first_moment."), second = read("training.second_moment.");
  t.restore(s);
  if (const auto facts = checkpoint_detail::facts_of(f); facts.label_dropout)  // labels that were left out before count
    model.set_trained({std::max(*facts.label_dropout, t.options().label_dropout), t.options().augmented});
  const auto put = [&](const std::vector<Scalar>& v, tensor<Scalar, Backend>& to) { model.backend().upload(v.data(), to.data(), index_t(v.size())); };
  put(average, model.averaged_weights());
  put(weights, model.weights());
  put(first, t.first_moment());
  put(second, t.second_moment());
}

}  // namespace multistage
