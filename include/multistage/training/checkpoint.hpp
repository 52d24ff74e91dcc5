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
  checkpoint_detail::start(model).write(path);
}

/// Writes the model with the further averages of its run, without what only going on needs: of
/// a series of such snapshots average_of_series makes averages of any length. @throws as above
template <class Scalar, class Backend>
void save_snapshot(const std::string& path, trainer<Scalar, Backend>& t) {
  const auto visit = t.model().use();
  io::safetensors_writer w = checkpoint_detail::start(t.model());
  checkpoint_detail::add_averages(w, t);
  w.write(path);
}

/// Writes the model and all that training needs to go on from here. @param run what the caller
/// wants to know of the run when it goes on, a text that `run_text_of` gives back. @throws as
/// above, for the moments of Adam too
template <class Scalar, class Backend>
void save(const std::string& path, trainer<Scalar, Backend>& t, const std::string& run = {}) {
  auto& model = t.model();
  const auto visit = model.use();
  io::safetensors_writer w = checkpoint_detail::start(model);
  const auto add = [&](const char* prefix, const std::vector<Scalar>& flat) {
    io::add_parameters(w, prefix, model.network(), model.parameter_names(), flat);
  };
  add("training.weights.", model.weights().to_host());
  add("training.first_moment.", t.first_moment().to_host());
  add("training.second_moment.", t.second_moment().to_host());
  checkpoint_detail::add_averages(w, t);
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
  counters.edit()["options"] = std::move(checkpoint_detail::options_json(t.options()).edit());
  w.metadata["training"] = counters->dump();
  if (!run.empty())
    w.metadata["run"] = run;
  w.write(path);
}

/// What `save` was told of the run; empty where it was told nothing. @throws file_error for a
/// file that is no checkpoint
MULTISTAGE_COLD inline std::string run_text_of(const std::string& path) {
  const io::safetensors f(path);
  checkpoint_detail::opened(f);
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

/// Continues a training run: the next step is the one that the saved run would have made. The
/// checkpoint must be of the same configuration, partition, options and images; only how a step
/// is done (micro_batch, memory) may differ.
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
  if (s.options->is_object() && !options.other_options) {
    io::json_document now = checkpoint_detail::options_json(t.options());
    io::json_document then(*s.options);
    checkpoint_detail::keep_comparable(then.edit(), now.edit());
    const std::string text = checkpoint_detail::differences(then, now, "this run");
    require<value_error>(text.empty(), f.path(), ": was trained with other options:", text,
                         "\n  give the same, or say that others are meant (other_options)");
  }
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
  const auto averages = checkpoint_detail::read_averages(f, t, s.counters.segment_images());
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
  const training_facts facts = checkpoint_detail::facts_of(f);
  training_facts now = model.trained();
  require<value_error>(options.other_images || facts.class_names.empty() ||
                           now.class_names.empty() || facts.class_names == now.class_names,
                       f.path(), ": was trained on classes of other names",
                       checkpoint_detail::first_difference(facts.class_names, now.class_names),
                       "; give the same images and classes, or say that others are meant "
                       "(other_images, --other-data)");
  checkpoint_detail::named(f, [&] { t.restore(s.counters); });
  if (facts.label_dropout)  // labels that were left out before count
    now.label_dropout = std::max(*facts.label_dropout, t.options().label_dropout);
  if (now.class_names.empty())
    now.class_names = facts.class_names;
  model.set_trained(now);
  const auto put = [&](const std::vector<Scalar>& v, tensor<Scalar, Backend>& to) {
    model.backend().upload(v.data(), to.data(), index_t(v.size()));
  };
  put(average, model.averaged_weights());
  put(weights, model.weights());
  put(first, t.first_moment());
  put(second, t.second_moment());
  for (std::size_t i = 0; i < averages.size(); ++i)
    put(averages[i], t.averages()[i].weights);
}
/// The same of a file by its path.
template <class Scalar, class Backend>
void resume(const std::string& path,
            trainer<Scalar, Backend>& t,
            const resume_options& options = {}) {
  resume(io::safetensors(path), t, options);
}

}  // namespace multistage
