// The stages of a data set, found once: what a run's configuration says of them ("auto", a
// number, boundaries, a file), the similarity map for its report, and a folder that remembers
// both by the checksum of the images, so that the next run on the same data begins at once.
//
//   const found_stages f = find_stages(backend, images, fingerprint, c.stages, schedule, 0);
//   f.stages.boundaries();
#pragma once
#include <cstdlib>

#include "../data/spread.hpp"
#include "../networks/tailor_decoders.hpp"
#include "../stages/n_stage.hpp"
#include "../training/checkpoint_state.hpp"
#include "../training/quotas.hpp"
#include "configuration_file.hpp"

namespace multistage {

/// Stages, and how alike the noise levels are that they were cut from.
struct found_stages {
  partition stages;              ///< in sigma
  std::string how;               ///< in words, for people
  similarity_figure similarity;  ///< over times of the VP schedule; empty where none was needed
  bool cached = false;           ///< whether it was known from before

  /// As runs keep it.
  io::json json() const {
    io::json_document j(io::json::object());
    j.set("stage_boundaries", stages.boundaries());
    j.set("how", how);
    j.set("times", similarity.times);
    j.set("sigmas", similarity.sigmas);
    j.set("matrix", similarity.matrix);
    return std::move(j.edit());
  }
  /// The inverse of json(). @throws value_error
  static found_stages from_json(const io::json& j, const std::string& where) {
    found_stages f;
    const auto take = [&](const char* key, auto& to) {
      require<value_error>(j.is_object() && j.contains(key) && io::detail::take(j[key], to),
                           where, ": '", key, "' is missing or unfit");
    };
    std::vector<double> boundaries;
    take("stage_boundaries", boundaries);
    take("how", f.how);
    take("times", f.similarity.times);
    take("sigmas", f.similarity.sigmas);
    take("matrix", f.similarity.matrix);
    const std::size_t n = f.similarity.times.size();
    require<value_error>(f.similarity.sigmas.size() == n && f.similarity.matrix.size() == n * n,
                         where, ": its similarity map is not square");
    f.stages = partition(std::move(boundaries));
    return f;
  }
};

namespace detail {

/// Noise levels that a schedule has and the clustering is asked about.
inline clustering_options within(clustering_options o, const any_schedule& schedule) {
  o.sigma_min = std::max(o.sigma_min, schedule.sigma(schedule.t_min()));
  o.sigma_max = std::min(o.sigma_max, schedule.sigma(schedule.t_max()));
  return o;
}

/// The partition that a file of `cluster` or a checkpoint holds. @throws file_error,
/// value_error
MULTISTAGE_COLD inline partition stages_of_file(const std::string& path) {
  constexpr std::uint64_t start = 8;
  const auto first = io::byte_source(path).bytes(0, start + 1);
  const bool is_json = !first.empty() && first[0] == '{';
  const io::json_document document =
      is_json ? read_configuration(path)
              : checkpoint_detail::opened(io::safetensors(path)).meta_json("config");
  require<value_error>(document->is_object() && document->contains("stage_boundaries"), path,
                       ": has no 'stage_boundaries'; give a file that cluster wrote, or a "
                       "checkpoint");
  return io::partition_from_json((*document)["stage_boundaries"]);
}

/// The search within so many bytes: fewer draws at once, the same stages. @param nodes of the
/// similarity map. @throws value_error saying what it takes at least
template <class Backend>
MULTISTAGE_COLD clustering_options
within_memory(clustering_options o, index_t bytes, int nodes, const shape& images) {
  constexpr index_t kernels = index_t{8} << 20;  // scratch of products, about
  constexpr index_t arrays = 3;  // results, noisy images, a draw's image with its noise
  const index_t fixed = kernels + optimal_denoiser<double, Backend>::working_bytes(images);
  const index_t one_draw = nodes * images.row_size() * index_t(sizeof(double));
  const index_t least = fixed + arrays * one_draw;
  require<value_error>(bytes >= least, "stages: ", bytes, " bytes of memory are left, and ",
                       least, " are needed to find the stages of images ", images, "; give ",
                       least - bytes,
                       " more, or the stages: boundaries in sigma, or a file of cluster");
  o.block_bytes = std::min(o.block_bytes, (bytes - fixed) / arrays);
  return o;
}

/// A text of numbers with commas between them, all of them numbers. @param what names it
inline std::vector<double> numbers_of(const char* what, const std::string& text) {
  std::vector<double> numbers;
  set_option(option{what, "boundaries in sigma"}, numbers, text);
  return numbers;
}

/// The best partition of a similarity map into so many stages, between the map's nodes.
inline partition best_partition(const similarity_figure& map, int stages) {
  std::vector<double> boundaries;
  const vp_schedule vp;
  for (const index_t cut : n_stage_partition(map.matrix, stages, stage_weight::nodes).cuts)
    boundaries.push_back(
        vp.sigma(0.5 * (map.times[std::size_t(cut) - 1] + map.times[std::size_t(cut)])));
  return partition(std::move(boundaries));
}

/// The folder of what was found before; empty for none.
inline std::string cache_folder(const std::string& asked) {
  if (asked == "none")
    return "";
  if (!asked.empty())
    return asked;
  const char* const base = std::getenv("XDG_CACHE_HOME");
  if (base != nullptr && *base == '/')
    return std::string(base) + "/multistage";
  const char* const home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? std::string(home) + "/.cache/multistage" : "";
}

}  // namespace detail

/// What "auto" or a number asks for, computed.
template <class Backend>
MULTISTAGE_COLD found_stages search_stages(Backend backend,
                                           const image_source& all_images,
                                           const stage_options& o,
                                           const any_schedule& schedule,
                                           std::uint64_t seed) {
  const image_source images = spread_over(all_images, o.images);
  clustering_options all_draws = detail::within(o.clustering, schedule);
  all_draws.seed = seed;
  if (o.memory > 0)
    all_draws = detail::within_memory<Backend>(all_draws, o.memory, o.nodes, images.extents);
  clustering_options few = all_draws;
  constexpr index_t draws_of_the_map = 128;
  few.draws = std::min(few.draws, draws_of_the_map);
  found_stages found;
  found.similarity = similarity_between_times(backend, images, o.nodes, few);
  const std::string of = " of " + std::to_string(images.extents.rows) + " of " +
                         std::to_string(all_images.extents.rows) + " images";
  if (o.stages == "auto") {
    try {
      found.stages = cluster_by_optimal_denoiser(backend, images, all_draws).stages;
    } catch (const value_error& e) {
      fail<value_error>(e.what(),
                        "; or name the stages: --stages 3, the best three by the similarity "
                        "map, 0.5,20 (boundaries), or 1, one network for all");
    }
    found.how = "Algorithm 1 with alpha = " + option_text(o.clustering.alpha) + ", " +
                std::to_string(all_draws.draws) + " draws" + of;
    return found;
  }
  const int stages = detail::number_from<int>(option{"stages", "how many"}, o.stages);
  require<value_error>(stages >= 1 && stages <= 8 && stages <= o.nodes, "stages = ", stages,
                       "; 1 to 8 are supported, and no more than nodes = ", o.nodes);
  found.stages = detail::best_partition(found.similarity, stages);
  found.how = "the best " + std::to_string(stages) + " by the similarity" + of;
  return found;
}

/// The stages that options ask for, from the cache where they were found before.
/// @param fingerprint of the images. @throws value_error, file_error; a cache that cannot be
/// read or written is none
template <class Backend>
MULTISTAGE_COLD found_stages find_stages(Backend backend,
                                         const image_source& images,
                                         const std::string& fingerprint,
                                         const stage_options& o,
                                         const any_schedule& schedule,
                                         std::uint64_t seed) {
  const bool whole = o.stages.find_first_not_of("0123456789") == std::string::npos;
  const bool list = o.stages.find_first_not_of("0123456789.,eE+- ") == std::string::npos;
  if (o.stages == "1")
    return {partition(), "one for all noise levels", {}, false};
  if (o.stages != "auto" && !whole)
    return {list ? partition(detail::numbers_of("stages", o.stages))
                 : detail::stages_of_file(o.stages),
            "given: " + o.stages,
            {},
            false};
  std::ostringstream key;  // everything that the result depends on
  key << fingerprint << ' ' << o.stages << ' ' << o.nodes << ' ' << o.images << ' ' << seed;
  stage_options::fields(o, [&]<class T>(const option& one, const T& value) {
    if constexpr (std::is_arithmetic_v<T>)
      key << ' ' << one.name << ' ' << value;
  });
  const clustering_options range = detail::within(o.clustering, schedule);
  key << ' ' << range.sigma_min << ' ' << range.sigma_max;
  if (o.clustering.what != compared::noise)
    key << " of images";
  if (whole)
    key << " weighed by nodes";
  const std::string text = key.str();
  const std::string folder = detail::cache_folder(o.cache);
  const std::string path =
      folder + "/stages-" + fingerprint_of(std::span<const char>(text)) + ".json";
  if (!folder.empty() && std::filesystem::exists(path))
    try {
      found_stages known = found_stages::from_json(*read_configuration(path), path);
      known.cached = true;
      return known;
    } catch (const error&) {  // found anew, and written over
    }
  found_stages found = search_stages(backend, images, o, schedule, seed);
  if (!folder.empty())
    try {
      io::make_directory(folder);
      io::write_file(path, found.json().dump() + "\n");
    } catch (const file_error& e) {
      warn("stages: they are found anew next time, since the cache cannot be written: ",
           e.what());
    }
  return found;
}

namespace detail {
/// Steps in which decoders' widths are chosen: what groups of norms divide, 16 at most.
inline int width_step(const decltype(configuration::network)& network) {
  constexpr int usual = 16;
  return as_it_is(network, [&](const auto& net) {
    if constexpr (requires { net.norm_groups; })
      return std::min(usual, net.norm_groups);
    return usual;
  });
}
}  // namespace detail

/// The decoders of a configuration for so many stages: as configured where the numbers agree,
/// else with the configured widths spread over the stages; tailored where there is a budget.
/// @throws value_error when no widths fit the budget
MULTISTAGE_COLD inline decoders decoders_for(const run_configuration& c,
                                             const partition& stages) {
  decoders d = c.model.stages;
  const int before = d.stage_count();
  const int count = stages.stage_count();
  if (c.stages.budget > 0) {
    const std::vector<double> shares =
        stage_quotas(trainer_options_of(c), stages).probabilities();
    return as_it_is(c.model.network, [&](const auto& net) -> decoders {
      if constexpr (is_known_network<std::decay_t<decltype(net)>>)
        return tailor_decoders(net, {.budget = c.stages.budget * 1e6,
                                     .shares = shares,
                                     .step = detail::width_step(c.model.network),
                                     .shared_encoder = d.shared_encoder})
            .stages;
      return d;
    });
  }
  if (count == before)
    return d;
  decoders spread;
  spread.shared_encoder = d.shared_encoder;
  const int encoder =
      std::visit([](const auto& n) { return n.encoder_channels; }, c.model.network);
  for (int s = 0; s < count; ++s) {
    spread.blocks[std::size_t(s)] = d.blocks[0];
    if (before == 1 || count == 1) {
      spread.widths[std::size_t(s)] = encoder;
      continue;
    }
    const double at = double(s) * (before - 1) / (count - 1);  // among the configured ones
    const int low = std::min(int(at), before - 2);
    const double width =
        d.widths[std::size_t(low)] +
        (at - low) * (d.widths[std::size_t(low) + 1] - d.widths[std::size_t(low)]);
    const int step = detail::width_step(c.model.network);
    spread.widths[std::size_t(s)] = std::max(step, int(std::lround(width / step)) * step);
  }
  return spread;
}

}  // namespace multistage
