// The further averages of a run in its checkpoints and snapshots: each one's tensors under
// "training.average.NAME.", and in the metadata 'averages' what each is and how many images
// each segment of the network had seen, which is what averages made afterwards need
// (average_series.hpp).
#pragma once
#include "checkpoint_state.hpp"

namespace multistage {

namespace checkpoint_detail {

inline std::string average_prefix(const std::string& name) {
  return name.empty() ? std::string() : "training.average." + name + ".";
}

/// What an average is, for the metadata.
inline io::json_document described(const average_kind& kind) {
  io::json_document j(io::json::object());
  j.set("name", kind.name);
  if (const auto* power = std::get_if<power_rule>(&kind.rule))
    j.set("exponent", power->exponent);
  else
    j.set("halflife", std::get<halflife_rule>(kind.rule).halflife);
  return j;
}

/// The average that sampling uses. All processes of the run call it. @param wanted by this one
template <class Scalar, class Backend>
std::vector<Scalar> sampled_average_of(trainer<Scalar, Backend>& t, bool wanted) {
  auto& update = t.update();
  return update.whole(update.is_shared_out() ? update.average() : t.model().averaged_weights(),
                      wanted);
}
/// The further averages, likewise.
template <class Scalar, class Backend>
std::vector<std::vector<Scalar>> averages_of(trainer<Scalar, Backend>& t, bool wanted) {
  std::vector<std::vector<Scalar>> all;
  for (const kept_average<Scalar, Backend>& a : t.averages())
    all.push_back(t.update().whole(a.weights, wanted));
  return all;
}

/// Adds the averages of a run to a file. The one that sampling uses has no name there: it is
/// the model's. @param averages the further ones
template <class Scalar, class Backend>
void add_averages(io::safetensors_writer& w,
                  trainer<Scalar, Backend>& t,
                  const std::vector<std::vector<Scalar>>& averages) {
  const auto& model = t.model();
  io::json_document kept(io::json::array());
  if (const auto& sampled = t.sampled_average()) {
    average_kind unnamed = *sampled;
    unnamed.name.clear();
    kept.edit().push_back(std::move(described(unnamed).edit()));
  }
  for (std::size_t i = 0; i < averages.size(); ++i) {
    const average_kind& kind = t.averages()[i].kind;
    kept.edit().push_back(std::move(described(kind).edit()));
    io::add_parameters(w, average_prefix(kind.name), model.network(), model.parameter_names(),
                       averages[i]);
  }
  if (kept->empty())
    return;
  io::json_document j(io::json::object());
  j.set("segment_images", t.segment_images());
  j.set("seed", t.options().seed);  // by these, averages of one run are known
  j.set("images", t.images_fingerprint());
  j.edit()["kept"] = std::move(kept.edit());
  w.metadata["averages"] = j->dump();
}

/// What a file says of an average.
struct stored_average {
  std::string name;     // empty: the one that sampling uses
  double exponent = 0;  // of a power function
  double halflife = 0;  // in images; 0: it is a power function
};
/// What a file says of its averages.
struct stored_averages {
  std::vector<double> segment_images;
  std::vector<stored_average> kept;
};

/// @throws file_error for what no run can have written
MULTISTAGE_COLD inline stored_averages averages_of(const io::safetensors& f, int segments) {
  stored_averages found;
  if (!f.metadata().count("averages"))
    return found;
  const io::json_document document = f.meta_json("averages");
  const io::json& j = *document;
  const auto sound = [&](bool holds, const char* rule) {
    require<file_error>(holds, f.path(), ": its metadata 'averages' is broken: ", rule,
                        "; use an earlier checkpoint");
  };
  sound(j.is_object() && j.contains("segment_images") && j.contains("kept") &&
            j["kept"].is_array() && io::detail::take(j["segment_images"], found.segment_images),
        "it holds 'segment_images', a list of numbers, and 'kept', a list");
  sound(int(found.segment_images.size()) == segments,
        "'segment_images' has one number for each segment of the network");
  for (const double images : found.segment_images)
    sound(is_finite(images) && images >= 0 && images <= 9e15, "images are counted from 0");
  for (const io::json& entry : j["kept"]) {
    stored_average a;
    sound(
        entry.is_object() && entry.contains("name") && io::detail::take(entry["name"], a.name),
        "an entry has no 'name'");
    const bool power = entry.contains("exponent");
    const char* const key = power ? "exponent" : "halflife";
    double& value = power ? a.exponent : a.halflife;
    sound(entry.contains(key) && io::detail::take(entry[key], value) && is_finite(value) &&
              value >= 0 && (power || value > 0),
          "an entry has neither an 'exponent' from 0 nor a 'halflife' above 0");
    found.kept.push_back(std::move(a));
  }
  return found;
}

/// The averages of a file as those of a run, in its order. @param images that each segment has
/// seen, as the file's training state says. @throws value_error when they are
/// not those that the run keeps, file_error
template <class Scalar, class Backend>
std::vector<std::vector<Scalar>> read_averages(const io::safetensors& f,
                                               trainer<Scalar, Backend>& t,
                                               const std::vector<double>& images) {
  const auto& model = t.model();
  const auto names = [](const auto& list, auto&& name) {
    std::vector<std::string> sorted;
    for (const auto& a : list)
      if (!name(a).empty())
        sorted.push_back(name(a));
    std::sort(sorted.begin(), sorted.end());
    std::string text;
    for (const std::string& one : sorted)
      text += (text.empty() ? "" : ", ") + one;
    return text.empty() ? std::string("none") : text;
  };
  const stored_averages stored = averages_of(f, model.network().segments);
  require<file_error>(stored.segment_images.empty() || stored.segment_images == images,
                      f.path(),
                      ": its metadata 'averages' is broken: 'segment_images' are not "
                      "those of its training state; use an earlier checkpoint");
  const std::string in_file = names(stored.kept, [](const auto& a) { return a.name; });
  const std::string in_run = names(t.averages(), [](const auto& a) { return a.kind.name; });
  require<value_error>(in_file == in_run, f.path(), ": keeps the further averages ", in_file,
                       ", this run ", in_run,
                       "; give the same average_stds and average_halflives_kimg");
  std::vector<std::vector<Scalar>> averages;
  for (const kept_average<Scalar, Backend>& a : t.averages())
    averages.push_back(io::read_parameters<Scalar>(f, average_prefix(a.kind.name),
                                                   model.network(), model.parameter_names(),
                                                   [](const std::string&) { return false; }));
  return averages;
}

}  // namespace checkpoint_detail

}  // namespace multistage
