// Checkpoints: one safetensors file with the averaged weights under upstream's own names (what
// a PyTorch user loads), the weights and Adam's moments under "training.", and in its metadata
// the configuration, the partition and the counters. Written atomically.
//
//   save("model.safetensors", trainer);
//   resume("model.safetensors", trainer);            // goes on as if it had not been stopped
#pragma once
#include "checkpoint_averages.hpp"
#include "checkpointed_run.hpp"

namespace multistage {

/// Writes the model: averaged weights, configuration, partition. @throws numeric_error for
/// weights that are not finite, file_error; an older file stays then. state_error while another
/// thread uses the model, as all below do.
template <class Scalar, class Backend>
void save(const std::string& path, dynamic_model<Scalar, Backend>& model) {
  const auto visit = model.use();  // a step in another thread would change weights under way
  checkpoint_detail::start(model, model.averaged_weights().to_host()).write(path);
}

/// Writes the model with the further averages of its run, without what only going on needs: of
/// a series of such snapshots average_of_series makes averages of any length. Of processes that
/// train together all call it, the first one writes. @throws as above; on all
template <class Scalar, class Backend>
void save_snapshot(const std::string& path, trainer<Scalar, Backend>& t) {
  const auto visit = t.model().use();
  const bool writes = t.processes().rank() == 0;
  const auto average = checkpoint_detail::sampled_average_of(t, writes);
  const auto averages = checkpoint_detail::averages_of(t, writes);
  together(t.processes(), [&] {
    if (!writes)
      return;
    io::safetensors_writer w = checkpoint_detail::start(t.model(), average);
    checkpoint_detail::add_averages(w, t, averages);
    w.write(path);
  });
}

namespace checkpoint_detail {

/// The counters of a run and its options, for the metadata.
template <class Scalar, class Backend>
io::json_document counters_of(trainer<Scalar, Backend>& t) {
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
  counters.set("rate_factor", c.rate_factor);
  counters.edit()["options"] = std::move(options_json(t.options()).edit());
  return counters;
}

}  // namespace checkpoint_detail

/// Writes the model and all that training needs to go on from here, on as many processes as one
/// likes. Of processes that train together all call it, the first one writes. @param run what
/// the caller wants to know of the run when it goes on, a text that `run_text_of` gives back.
/// @throws as above, for the moments of Adam too; on all
template <class Scalar, class Backend>
void save(const std::string& path, trainer<Scalar, Backend>& t, const std::string& run = {}) {
  auto& model = t.model();
  const auto visit = model.use();
  const bool writes = t.processes().rank() == 0;
  t.complete_weights();
  const auto average = checkpoint_detail::sampled_average_of(t, writes);
  const auto first_moment = t.update().whole(t.first_moment(), writes);
  const auto second_moment = t.update().whole(t.second_moment(), writes);
  const auto averages = checkpoint_detail::averages_of(t, writes);
  together(t.processes(), [&] {
    if (!writes)
      return;
    io::safetensors_writer w = checkpoint_detail::start(model, average);
    const auto add = [&](const char* prefix, const std::vector<Scalar>& flat) {
      io::add_parameters(w, prefix, model.network(), model.parameter_names(), flat);
    };
    add("training.weights.", model.weights().to_host());
    add("training.first_moment.", first_moment);
    add("training.second_moment.", second_moment);
    checkpoint_detail::add_averages(w, t, averages);
    w.metadata["training"] = checkpoint_detail::counters_of(t)->dump();
    if (!run.empty())
      w.metadata["run"] = run;
    w.write(path);
  });
}

/// What `save` was told of the run; empty where it was told nothing.
MULTISTAGE_COLD inline std::string run_text_of(const io::safetensors& f) {
  return f.metadata().count("run") ? f.meta("run") : std::string();
}

/// How a checkpoint is opened.
struct load_options {
  /// Whether a stage's weights are read when the stage is first used; the file must stay as it
  /// is until then.
  bool lazy = false;
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
/// The same of a file by its path.
template <class Scalar = float, class Backend>
dynamic_model<Scalar, Backend> load(const std::string& path,
                                    Backend backend,
                                    const load_options& options = {}) {
  return load<Scalar>(io::safetensors(path), std::move(backend), options);
}

/// What start_from took over.
struct start_report {
  /// Of the encoder, or of one stage's decoder.
  struct part {
    std::string name;  ///< "encoder", "decoder of stage 1"
    int copied = 0;    ///< tensors taken over
    int total = 0;     ///< tensors it has
  };
  std::vector<part> parts;  ///< the encoder first
  /// A line for each part.
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

namespace checkpoint_detail {

/// Refuses a checkpoint of another model. @throws file_error naming what differs
template <class Scalar, class Backend>
void check_model(const io::safetensors& f, const dynamic_model<Scalar, Backend>& model) {
  io::json_document own(io::to_json(model.config()));
  own.set("stage_boundaries", model.stages().boundaries());
  io::json_document stored = opened(f).meta_json("config");
  // Of parts of the user's own types files hold the settings as they are.
  if (model.config().described())
    stored = complete(f, stored);
  if (const std::string text = differences(stored, own); !text.empty()) {
    std::string tensors;
    try {
      io::check_parameters(f, "", model.network(), model.parameter_names(), is_ours);
    } catch (const file_error& e) {
      tensors = std::string("\n") + e.what();
    }
    fail<file_error>(f.path(), ": is a checkpoint of another model:", text, tensors);
  }
  require<file_error>(f.metadata().count("training"), f.path(),
                      ": holds a model but no training state; it can be sampled, not resumed");
}
/// Refuses a run of other options or images than a trainer's. @throws value_error naming what
/// differs
template <class State, class Scalar, class Backend>
void check_run(const io::safetensors& f,
               const training_state<State>& s,
               trainer<Scalar, Backend>& t,
               const resume_options& options) {
  require<value_error>(s.seed == t.options().seed && s.batch == t.options().batch_size,
                       f.path(), ": was trained with seed ", s.seed, " and batch_size ",
                       s.batch, ", this run has ", t.options().seed, " and ",
                       t.options().batch_size, "; a resumed run must have the same");
  if (s.options->is_object() && !options.other_options) {
    io::json_document now = options_json(t.options());
    io::json_document then(*s.options);
    keep_comparable(then.edit(), now.edit());
    const std::string text = differences(then, now, "this run");
    require<value_error>(text.empty(), f.path(), ": was trained with other options:", text,
                         "\n  give the same, or say that others are meant (other_options)");
  }
  require<value_error>(
      options.other_images || s.images.empty() || s.images == t.images_fingerprint(), f.path(),
      ": was trained on other images (fingerprint ", s.images.substr(0, 16),
      ", this run's are ", t.images_fingerprint(),
      "); give the same images and classes, or say that others are meant (other_images, "
      "--other-data)");
  const std::vector<std::string> then = facts_of(f).class_names;
  const std::vector<std::string>& now = t.model().trained().class_names;
  require<value_error>(options.other_images || then.empty() || now.empty() || then == now,
                       f.path(), ": was trained on classes of other names",
                       first_difference(then, now),
                       "; give the same images and classes, or say that others are meant "
                       "(other_images, --other-data)");
}
/// The arrays of a run; each lies as the weights do.
template <class Scalar>
struct stored_arrays {
  std::vector<Scalar> average;
  std::vector<Scalar> weights;
  std::vector<Scalar> first_moment;
  std::vector<Scalar> second_moment;
  std::vector<std::vector<Scalar>> averages;
};
/// @throws file_error for moments that no run can have
template <class State, class Scalar, class Backend>
stored_arrays<Scalar> read_arrays(const io::safetensors& f,
                                  const State& counters,
                                  trainer<Scalar, Backend>& t) {
  const auto& model = t.model();
  const auto read = [&](const char* prefix) {
    return io::read_parameters<Scalar>(f, prefix, model.network(), model.parameter_names(),
                                       [](const std::string&) { return true; });
  };
  stored_arrays<Scalar> a{read(""), read("training.weights."), read("training.first_moment."),
                          read("training.second_moment."),
                          read_averages(f, t, counters.segment_images())};
  for (const Scalar v : a.second_moment)
    require<file_error>(v >= 0, f.path(), ": its tensors training.second_moment.* hold ", v,
                        "; means of squares are not negative; use an earlier checkpoint");
  for (int segment = 0; segment < model.network().segments; ++segment) {
    if (counters.updates[std::size_t(segment)] > 0)
      continue;
    const auto [begin, end] = model.network().parameter_range(segment);
    for (index_t i = begin; i < end; ++i)
      require<file_error>(
          a.first_moment[std::size_t(i)] == 0 && a.second_moment[std::size_t(i)] == 0, f.path(),
          ": its training state is broken: 'segment_updates' says that segment ", segment,
          " was never updated, its moments of Adam are not 0; use an earlier "
          "checkpoint");
  }
  return a;
}
/// What tells a run's state from another's.
template <class Scalar>
std::string facts_of_state(const io::safetensors& f, const stored_arrays<Scalar>& a) {
  fingerprinter hash;
  for (const auto* values : {&a.average, &a.weights, &a.first_moment, &a.second_moment})
    hash.add(bytes_in_memory(std::span<const Scalar>(*values)));
  return "counters " + f.meta("training") + "\nweights " + hash.text();
}

}  // namespace checkpoint_detail

/// Continues a training run: the next step is the one that the saved run would have made,
/// whatever the number of processes then and now. The checkpoint must be of the same
/// configuration, partition, options and images; only how a step is done (micro_batch, memory)
/// may differ. Of processes that train together all call it and read the file.
/// Nothing is changed unless everything fits. @throws file_error, value_error saying what
/// differs
template <class Scalar, class Backend>
void resume(const io::safetensors& f,
            trainer<Scalar, Backend>& t,
            const resume_options& options = {}) {
  auto& model = t.model();
  const auto visit = model.use();
  using state = typename trainer<Scalar, Backend>::state;
  checkpoint_detail::training_state<state> s;
  checkpoint_detail::stored_arrays<Scalar> a;
  together(t.processes(), [&] {
    checkpoint_detail::check_model(f, model);
    s = checkpoint_detail::read_training_state<state>(f, model.network().segments,
                                                      model.stage_count());
    checkpoint_detail::check_run(f, s, t, options);
    a = checkpoint_detail::read_arrays(f, s.counters, t);
  });
  if (t.processes().size() > 1)
    require_same(t.processes(), f.path(), checkpoint_detail::facts_of_state(f, a));
  checkpoint_detail::named(f, [&] { t.restore(s.counters); });
  const training_facts facts = checkpoint_detail::facts_of(f);
  training_facts now = model.trained();
  if (facts.label_dropout)  // labels that were left out before count
    now.label_dropout = std::max(*facts.label_dropout, t.options().label_dropout);
  if (now.class_names.empty())
    now.class_names = facts.class_names;
  if (!now.images)
    now.images = facts.images;
  model.set_trained(now);
  auto& update = t.update();
  if (update.is_shared_out())
    model.drop_average();
  update.put(a.average, update.is_shared_out() ? update.average() : model.averaged_weights());
  model.backend().upload(a.weights.data(), model.weights().data(), index_t(a.weights.size()));
  update.put(a.first_moment, t.first_moment());
  update.put(a.second_moment, t.second_moment());
  for (std::size_t i = 0; i < a.averages.size(); ++i)
    update.put(a.averages[i], t.averages()[i].weights);
}
/// The same of a file by its path.
template <class Scalar, class Backend>
void resume(const std::string& path,
            trainer<Scalar, Backend>& t,
            const resume_options& options = {}) {
  std::optional<io::safetensors> f;
  together(t.processes(), [&] { f.emplace(path); });
  resume(*f, t, options);
}

}  // namespace multistage
