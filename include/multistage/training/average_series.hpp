// Averages of any length, made from a series of snapshots of a run that kept averages by power
// functions (post_hoc.hpp):
//
//   ms::trainer t{model, images, {.average_stds = {0.05, 0.1}}};   // save_snapshot now and
//   then auto net = ms::load("snapshot-last.safetensors", ms::cpu()); const auto weights =
//   ms::average_of_series(paths, 0.08, net);  // and net is that average
//
// Each segment of the network has a time of its own, the images that it had seen by each
// snapshot, and so weights of its own for the snapshots' averages.
#pragma once
#include "checkpoint.hpp"
#include "post_hoc.hpp"

namespace multistage {

/// An average in one of the files of a series.
struct snapshot_average {
  std::size_t file = 0;       ///< its place in the series
  std::string name;           ///< of the average; empty: the one that sampling uses
  double exponent = 0;        ///< of its power function
  std::vector<double> count;  ///< what it counts in the result, by segment; 0 where not used
};

namespace checkpoint_detail {

/// By what snapshots of one run are known; checkpoints of older versions have it elsewhere.
inline std::string run_of(const io::safetensors& f) {
  for (const char* section : {"averages", "training"}) {
    if (!f.metadata().count(section))
      continue;
    const io::json_document j = f.meta_json(section);
    if (j->is_object() && j->contains("seed") && j->contains("images"))
      return (*j)["seed"].dump() + " " + (*j)["images"].dump();
  }
  return "";
}

/// What each average counts in one segment. @param images that the segment had seen, by file
inline void weigh(std::vector<snapshot_average>& kept,
                  int segment,
                  const std::vector<double>& images,
                  double exponent) {
  std::vector<power_profile> profiles;
  std::vector<snapshot_average*> owners;
  for (snapshot_average& a : kept) {
    a.count.push_back(0);
    const power_profile p{images[a.file], a.exponent};
    const bool seen = std::any_of(profiles.begin(), profiles.end(), [&](const auto& other) {
      return other.images == p.images && other.exponent == p.exponent;
    });
    if (p.images == 0 || seen)  // a stage that is done is the same in later snapshots
      continue;
    profiles.push_back(p);
    owners.push_back(&a);
  }
  if (profiles.empty()) {  // never trained: any snapshot has it
    kept.front().count[std::size_t(segment)] = 1;
    return;
  }
  const double last = *std::max_element(images.begin(), images.end());
  const auto weights = post_hoc_weights(profiles, {last, exponent});
  for (std::size_t i = 0; i < owners.size(); ++i)
    owners[i]->count[std::size_t(segment)] = weights[i];
}

/// flat += count * the average's weights, segment by segment.
inline void add_counted(const io::safetensors& f,
                        const snapshot_average& a,
                        const graph& g,
                        const std::vector<std::string>& names,
                        std::vector<double>& flat) {
  const std::string prefix = average_prefix(a.name);
  std::vector<double> values(flat.size(), 0.0);
  for (std::size_t k = 0; k < g.parameters.size(); ++k) {
    const parameter& p = g.parameters[k];
    const double count = a.count[std::size_t(p.segment)];
    if (count == 0)
      continue;
    io::read_parameter(f, prefix + names[k], p, values.data());
    for (index_t i = p.offset; i < p.offset + p.size(); ++i)
      flat[std::size_t(i)] += count * values[std::size_t(i)];
  }
}

}  // namespace checkpoint_detail

/// Makes a model the average of the relative standard deviation at the end of a series of
/// snapshots or checkpoints of one run, which the model is of. What each of their averages
/// counts is returned. @throws value_error for a std out of range or files without averages by
/// power functions, file_error for files of another model; the model is as it was then
template <class Scalar, class Backend>
MULTISTAGE_COLD std::vector<snapshot_average> average_of_series(
    std::span<const std::string> paths,
    double relative_std,
    dynamic_model<Scalar, Backend>& model) {
  using namespace checkpoint_detail;
  const auto visit = model.use();
  const double exponent = power_function_exponent(relative_std);
  const graph& g = model.network();
  std::vector<snapshot_average> kept;
  std::vector<std::vector<double>> images(std::size_t(g.segments));  // [segment][file]
  std::string run;                                                   // of the first file
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const io::safetensors f(paths[i]);
    const stored_averages stored = averages_of(opened(f), g.segments);
    const std::string of = run_of(f);
    run = i == 0 ? of : run;
    require<value_error>(of == run, "average_of_series: ", paths[i], " is of another run than ",
                         paths[0], " (seed or images differ); give snapshots of one run");
    for (std::size_t s = 0; s < images.size(); ++s)
      images[s].push_back(stored.segment_images.empty() ? 0 : stored.segment_images[s]);
    for (const stored_average& a : stored.kept)
      if (a.halflife == 0) {
        io::check_parameters(f, average_prefix(a.name), g, model.parameter_names(), is_ours);
        kept.push_back({i, a.name, a.exponent, {}});
      }
  }
  require<value_error>(!kept.empty(), "average_of_series: none of ", paths.size(),
                       " files keeps an average by a power function; train with average_stds "
                       "= 0.05, 0.1 and give its snapshots");
  for (int s = 0; s < g.segments; ++s)
    weigh(kept, s, images[std::size_t(s)], exponent);
  std::vector<double> flat(std::size_t(g.parameter_elements), 0.0);
  for (const snapshot_average& a : kept)
    add_counted(io::safetensors(paths[a.file]), a, g, model.parameter_names(), flat);
  const std::vector<Scalar> weights(flat.begin(), flat.end());
  const index_t size = index_t(weights.size());
  model.backend().upload(weights.data(), model.weights().data(), size);
  if (model.has_average())
    model.backend().upload(weights.data(), model.averaged_weights().data(), size);
  return kept;
}

}  // namespace multistage
