// The folder of a training run, and what lies in it:
//   model.safetensors         the newest checkpoint, with the run's configuration inside
//   model-00001200.safetensors   those before it, by step (--keep)
//   config.json               the configuration
//   stages.json               the stages, and the similarity map that they were cut from
//   log.jsonl                 losses, throughput and snapshots, a line each
//   snapshots/                a grid of samples for each snapshot
//   samples.webp, report.html
// One process at a time works there: others are refused.
//
//   run_directory place("runs/icons", run_directory::begin);
#pragma once
#include "../distributed/process_group.hpp"
#include "../distributed/together.hpp"
#include "../io/json_lines.hpp"
#include "../io/kept_versions.hpp"
#include "../io/run_lock.hpp"
#include "../training/checkpoint.hpp"
#include "configuration_file.hpp"

namespace multistage {

/// A run's folder, locked as long as this lives.
class run_directory {
 public:
  /// Whether a run begins there or goes on.
  enum purpose_of_use { begin, resume };

  /// Makes the folder where a run begins; one that ended before its first checkpoint is begun
  /// anew. @throws file_error when it cannot be written or another process works there,
  /// value_error where a run is to begin and there is one, or is to go on and there is none.
  /// @param processes of the run: the first one opens the folder, which all of them see
  run_directory(std::string path, purpose_of_use what, process_group processes = {})
      : path_(std::move(path)) {
    together(processes, [&] {
      if (processes.rank() == 0)
        open(what);
    });
  }

  /// As it was given.
  const std::string& path() const {
    return path_;
  }
  /// The newest checkpoint.
  std::string checkpoint() const {
    return path_ + "/" + io::checkpoint_name;
  }
  /// Whether there is one.
  bool has_checkpoint() const {
    return std::filesystem::exists(checkpoint());
  }
  /// The newest checkpoint, opened. @throws file_error that names the one before it, where
  /// there is one
  MULTISTAGE_COLD io::safetensors opened_checkpoint() const {
    try {
      return io::safetensors(checkpoint());
    } catch (const file_error& e) {
      const auto kept = io::versions_of(checkpoint());
      if (kept.empty())
        throw;
      fail<file_error>(e.what(), "; the checkpoint before it is ", kept.back().second,
                       ": copy it to ", checkpoint(), " to go on from there");
    }
  }
  /// Whether the newest checkpoint has seen so many thousand images, of a training that ends
  /// there. @param kimg 0: it does not
  bool has_seen(double kimg) const {
    if (!has_checkpoint())
      return false;
    const io::json_document state = opened_checkpoint().meta_json("training");
    return kimg > 0 && state->is_object() && state->value("images_seen", 0.0) >= 1000 * kimg;
  }
  /// The configuration's file.
  std::string configuration() const {
    return path_ + "/config.json";
  }
  /// The stages' file.
  std::string stages() const {
    return path_ + "/stages.json";
  }
  /// Lines of what happened.
  std::string log() const {
    return path_ + "/log.jsonl";
  }
  /// The page.
  std::string report() const {
    return path_ + "/report.html";
  }
  /// Where a snapshot's grid goes. @param images seen by then
  std::string snapshot(double images) const {
    char name[64];
    std::snprintf(name, sizeof name, "/snapshots/%09.0f.png", images);
    return path_ + name;
  }
  /// The grids that are there, in order of the images seen, with that number.
  std::vector<std::pair<double, std::string>> snapshots() const {
    std::vector<std::pair<double, std::string>> found;
    std::error_code problem;
    for (const auto& entry :
         std::filesystem::directory_iterator(path_ + "/snapshots", problem)) {
      const std::string name = entry.path().stem().string();
      if (entry.path().extension() == ".png" &&
          name.find_first_not_of("0123456789") == std::string::npos && name.size() <= 15 &&
          !name.empty())
        found.emplace_back(std::stod(name), entry.path().string());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  /// The configuration of the run that is there, of its checkpoint or, before there was one, of
  /// config.json. @throws file_error, value_error
  template <class Configuration = run_configuration>
  MULTISTAGE_COLD Configuration read_run() const {
    const std::string text =
        has_checkpoint() ? run_text_of(opened_checkpoint()) : std::string();
    const std::string& file = text.empty() ? configuration() : checkpoint();
    const io::json_document document =
        text.empty() ? read_configuration(file) : io::parse_json(text, file + ", 'run'");
    return configuration_of_run<Configuration>(*document, file);
  }
  /// Writes config.json. @throws file_error
  template <class Configuration>
  void write_run(const Configuration& c) const {
    io::write_file(configuration(), to_json(c).dump(1) + "\n");
  }

 private:
  MULTISTAGE_COLD void open(purpose_of_use what) {
    if (what == begin)
      io::make_directory(path_);
    else
      require<value_error>(std::filesystem::exists(configuration()) || has_checkpoint(), path_,
                           ": holds no run to go on with; leave --resume out to begin one");
    lock_.emplace(path_);
    const auto kept = io::versions_of(checkpoint());
    require<file_error>(has_checkpoint() || kept.empty(), checkpoint(), ": is not there, and ",
                        kept.empty() ? "" : kept.back().second,
                        ", an earlier checkpoint, is: copy it there to go on from it");
    require<value_error>(what == resume || !has_checkpoint(), path_,
                         ": holds a run already; go on with it (--resume), or name "
                         "another folder");
    if (what == begin)  // what a run left that ended before its first checkpoint
      for (const std::string& stale : {stages(), log(), report(), path_ + "/snapshots"})
        std::filesystem::remove_all(stale);
    io::make_directory(path_ + "/snapshots");
  }

  std::string path_;
  std::optional<io::run_lock> lock_;
};

/// Whether a folder holds a run that can be gone on with.
inline bool is_run(const std::string& path) {
  return std::filesystem::exists(path + "/config.json") ||
         std::filesystem::exists(path + "/model.safetensors");
}

/// What a run's log says, in order; of steps that were made twice, since a run went on from an
/// earlier checkpoint, the later ones.
struct run_history {
  std::vector<loss_point> points;  ///< losses by stage; seconds over all runs
  /// A snapshot's figure.
  struct distance {
    double images = 0;     ///< seen by then
    double frechet = 0;    ///< the distance
    index_t n = 0;         ///< pictures drawn for it
    std::string features;  ///< with the hash of their weights
  };
  std::vector<distance> distances;  ///< those of snapshots that have one
};

/// Reads a log; lines that are no JSON are passed over. @param begun the path of a log.jsonl.
/// @param names of losses that stand in lines of their own under these names; none: an array
/// "loss" by stage
MULTISTAGE_COLD inline run_history read_history(const std::string& begun,
                                                std::span<const char* const> names = {}) {
  run_history h;
  if (!std::filesystem::exists(begun))
    return h;
  const auto bytes = io::read_file(begun);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    at = end + 1;
    if (!io::json::accept(line))
      continue;
    const io::json_document document(io::json::parse(line));
    const io::json& j = *document;
    const auto number = [&](const char* key) {
      return j.contains(key) && j[key].is_number() ? j[key].get<double>() : 0.0;
    };
    if (!j.is_object())
      continue;
    const auto named = [&](const char* name) {
      return j.contains(name);
    };
    if ((j.contains("loss") && j["loss"].is_array()) ||
        std::any_of(names.begin(), names.end(), named)) {
      loss_point p{index_t(number("step")),
                   number("images"),
                   number("seconds"),
                   number("images_per_second"),
                   {}};
      const auto add = [&](const io::json& loss) {
        p.loss.push_back(loss.is_number() ? loss.get<double>() : std::nan(""));
      };
      for (const char* name : names)
        add(j.value(name, io::json()));
      for (const auto& loss : j.value("loss", io::json::array()))
        add(loss);
      while (!h.points.empty() && h.points.back().step >= p.step)
        h.points.pop_back();
      h.points.push_back(std::move(p));
    } else if (j.contains("frechet_distance")) {
      while (!h.distances.empty() && h.distances.back().images >= number("images"))
        h.distances.pop_back();
      h.distances.push_back({number("images"), number("frechet_distance"), index_t(number("n")),
                             j.value("features", std::string())});
    }
  }
  return h;
}

}  // namespace multistage
