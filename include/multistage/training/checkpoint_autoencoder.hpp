// Checkpoints of an autoencoder's training: the file that io::load_autoencoder opens, with the
// averaged weights, and in it under "training." what a run needs to go on: weights, moments,
// the discriminator, the counters. Written atomically; `run` (checkpoint.hpp) keeps one.
//
//   run(trainer, kimg(50), run_checkpoint{.path = "autoencoder.safetensors"}, observer);
#pragma once
#include "../io/autoencoder_file.hpp"
#include "autoencoder_trainer.hpp"
#include "checkpoint.hpp"

namespace multistage {

namespace checkpoint_detail {

/// The arrays of a run beside the averages, each with its prefix and the names of its tensors:
/// f(prefix, tensors, array).
template <class Scalar, class Backend, class F>
void for_each_array(autoencoder_trainer<Scalar, Backend>& t, F&& f) {
  const described_network own = t.model().tensors();
  f("training.weights.", own, t.model().weights());
  f("training.first_moment.", own, t.update().first_moment());
  f("training.second_moment.", own, t.update().second_moment());
  if (!t.critic())
    return;
  const described_network critic{t.critic()->network(), t.critic()->parameter_names()};
  f("training.discriminator.weights.", critic, t.critic()->weights());
  f("training.discriminator.first_moment.", critic, t.critic_update()->first_moment());
  f("training.discriminator.second_moment.", critic, t.critic_update()->second_moment());
}

}  // namespace checkpoint_detail

/// Writes the autoencoder, averaged, and all that training needs to go on from here. @param run
/// what the caller wants to know of the run when it goes on. @throws numeric_error for weights
/// that are not finite, file_error; an older file stays then
template <class Scalar, class Backend>
void save(const std::string& path,
          autoencoder_trainer<Scalar, Backend>& t,
          const std::string& run = {}) {
  io::safetensors_writer w = io::autoencoder_writer(t.model(), t.update().average().to_host());
  checkpoint_detail::for_each_array(
      t, [&](const char* prefix, const described_network& n, tensor<Scalar, Backend>& array) {
        io::add_parameters(w, prefix, n.structure, n.names, array.to_host());
      });
  const auto c = t.counters();
  io::json_document counters(io::json::object());
  counters.set("steps", c.step);
  counters.set("images_seen", c.images_seen);
  counters.set("critic_updates", c.critic_updates);
  counters.set("codes_used", c.codes_used);
  counters.set("seed", t.options().seed);
  counters.set("images", t.images_fingerprint());
  counters.set("distance", t.distance_name());
  counters.set("batch_size", t.options().batch_size);
  w.metadata["training"] = counters->dump();
  if (!run.empty())
    w.metadata["run"] = run;
  w.write(path);
}

/// Continues a training run: the next step is the one that the saved run would have made. The
/// file must be of the same configuration, seed, batch size and images. Nothing is changed
/// unless everything fits. @throws file_error, value_error saying what differs
template <class Scalar, class Backend>
void resume(const std::string& path,
            autoencoder_trainer<Scalar, Backend>& t,
            const resume_options& options = {}) {
  const io::safetensors f(path);
  const io::json_document config = io::opened_autoencoder(f).meta_json("config");
  const std::string other = checkpoint_detail::differences(
      io::to_json(io::autoencoder_from_json(*config)), io::to_json(t.model().config()));
  require<file_error>(other.empty(), path, ": is of another autoencoder:", other);
  require<file_error>(f.metadata().count("training"), path,
                      ": holds an autoencoder but no training state; it can be used, not "
                      "resumed");
  const io::json_document document = f.meta_json("training");
  const io::json& j = *document;
  const auto take = [&](const char* key, auto& to) {
    require<file_error>(j.is_object() && j.contains(key) && io::detail::take(j[key], to), path,
                        ": its training state is broken: '", key, "' is missing or unfit");
  };
  typename autoencoder_trainer<Scalar, Backend>::state s;
  std::uint64_t seed = 0;
  index_t batch = 0;
  std::string images;
  std::string distance;
  take("steps", s.step);
  take("images_seen", s.images_seen);
  take("critic_updates", s.critic_updates);
  take("codes_used", s.codes_used);
  take("seed", seed);
  take("batch_size", batch);
  take("images", images);
  take("distance", distance);
  require<file_error>(s.step >= 0 && s.critic_updates >= 0 && s.critic_updates <= s.step &&
                          is_finite(s.images_seen) && s.images_seen >= 0,
                      path, ": its training state is broken: ", s.step, " steps, ",
                      s.images_seen, " images, ", s.critic_updates,
                      " steps of the discriminator");
  require<value_error>(seed == t.options().seed && batch == t.options().batch_size, path,
                       ": was trained with seed ", seed, " and batch_size ", batch,
                       ", this run has ", t.options().seed, " and ", t.options().batch_size,
                       "; a resumed run must have the same");
  require<value_error>(distance == t.distance_name(), path,
                       ": was trained with the perceptual distance over '", distance,
                       "', this run has '", t.distance_name(), "'; give the same network");
  require<value_error>(options.other_images || images == t.images_fingerprint(), path,
                       ": was trained on other images; give the same, or say that others are "
                       "meant (other_images, --other-data)");
  const described_network own = t.model().tensors();
  std::vector<std::pair<tensor<Scalar, Backend>*, std::vector<Scalar>>> read;
  read.emplace_back(
      &t.update().average(),
      io::read_parameters<Scalar>(f, "", own.structure, own.names, io::of_training));
  checkpoint_detail::for_each_array(
      t, [&](const char* prefix, const described_network& n, tensor<Scalar, Backend>& array) {
        read.emplace_back(&array,
                          io::read_parameters<Scalar>(f, prefix, n.structure, n.names,
                                                      [](const std::string&) { return true; }));
      });
  t.restore(s);
  for (auto& [to, values] : read)
    t.model().backend().upload(values.data(), to->data(), index_t(values.size()));
}

}  // namespace multistage
