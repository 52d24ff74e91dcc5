// What an arm works with: its images cut into those that are trained on and those that are held
// out, its configuration fitted to them, its stages, and the meter of its pictures.
//
//   const arm_data d(cpu(), a, out, inception);
//   d.config().model.stages.widths;
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../io/autoencoder_file.hpp"
#include "../runs/training_run.hpp"
#include "../stages/interval_clustering.hpp"
#include "../training/gradient_affinity.hpp"
#include "cell.hpp"

namespace multistage {

/// Levels of clusterings that look at noise levels alone.
inline constexpr index_t clustered_levels = 1000;

/// Stages of equal spread of VP's times, or of its log-SNR; by the interval programme. @param
/// by timestep or snr
MULTISTAGE_COLD inline partition stages_without_data(const std::string& by, int stages) {
  const vp_schedule vp;
  const std::vector<index_t> first = by == "snr"
                                         ? cluster_by_snr(clustered_levels, stages, vp)
                                         : cluster_by_timestep(clustered_levels, stages);
  std::vector<double> times;
  for (std::size_t s = 1; s < first.size(); ++s)
    times.push_back(double(first[s]) / double(clustered_levels));
  return partition::from_times(vp, times);
}

/// Stages by how alike the gradients of a trained unified model are at different noise levels.
/// @param seeds of the draws of images and noise, over which affinities are averaged
template <class Scalar, class Backend>
MULTISTAGE_COLD partition stages_by_gradients(dynamic_model<Scalar, Backend>& model,
                                              const image_source& images,
                                              trainer_options options,
                                              int stages,
                                              int seeds = 4) {
  constexpr int levels = 24;
  const vp_schedule vp;
  std::vector<double> sigmas;
  for (int i = 1; i <= levels; ++i)
    sigmas.push_back(vp.sigma(double(i) / levels));
  gradient_affinity affinity(sigmas);
  for (int k = 0; k < seeds; ++k) {
    options.seed = std::uint64_t(k);
    trainer<Scalar, Backend> t(model, images, options);
    affinity.collect(t);
  }
  const std::vector<index_t> first = cluster_by_gradient(affinity.matrix(), stages);
  std::vector<double> times;
  for (std::size_t s = 1; s < first.size(); ++s)
    times.push_back((double(first[s]) + 0.5) / levels);  // between two levels
  return partition::from_times(vp, times);
}

/// Images, stages and the meter of an arm.
class arm_data {
 public:
  /// @param out folder of the experiment, where stages are kept. @param inception @see
  /// quality_meter. @throws file_error, value_error for data that do not fit
  template <class Backend>
  MULTISTAGE_COLD arm_data(const Backend& backend,
                           const arm& a,
                           const std::string& out,
                           const std::string& inception)
      : config_(a.run) {
    const image_source source = open_data(config_.data);
    const io::image_set all = io::read_all(source);
    fingerprint_ = fingerprint_of(all.span());
    std::tie(training_, held_out_) = io::split(all, a.held_out, split_seed);
    fit_to_data(config_, images());
    config_.stages.cache = out + "/stages";
    if (a.pictures.empty())
      meter_.emplace(backend, training_, held_out_, inception);
    else
      take_pictures(backend, a, inception);
    io::image_set some = pictures_.count() > 0 ? pictures_ : training_;
    some.extents.rows = std::min(a.samples, some.count());
    some.values.resize(std::size_t(some.extents.size()));
    floor_ = (*meter_)(some.span(), some.extents).frechet;
  }
  arm_data(const arm_data&) = delete;

  /// As the data have it; decoders are as the arm says.
  const run_configuration& config() const {
    return config_;
  }
  /// The images that are shown to networks.
  image_source images() const {
    image_source images = image_source::of(training_.span(), training_.extents);
    if (config_.data.latents)
      images.kind = image_values::latents;
    return images;
  }
  /// Hash of all images, those that are held out too.
  const std::string& fingerprint() const {
    return fingerprint_;
  }
  /// Of the pictures that are drawn.
  const quality_meter& meter() const {
    return *meter_;
  }
  /// Makes pictures of latents; none where the model draws pictures.
  const std::optional<latent_decoder>& decoder() const {
    return decoder_;
  }
  /// The Frechet distance of training images, as many as pictures are drawn, to the images that
  /// are held out: where a model without fault would be.
  double floor() const {
    return floor_;
  }

 private:
  static constexpr std::uint64_t split_seed = 1;

  /// Of latents quality is measured over the pictures that they were made of, cut likewise.
  template <class Backend>
  void take_pictures(const Backend& backend, const arm& a, const std::string& inception) {
    const std::string file = io::autoencoder_beside(config_.data.path);
    require<file_error>(!file.empty(), config_.data.path,
                        ": no autoencoder lies beside these latents; `encode` leaves one");
    decoder_.emplace(io::load_autoencoder<float>(file, backend));
    const io::image_set all = io::read_all(io::open_images(a.pictures));
    require<value_error>(all.count() == training_.count() + held_out_.count(), a.pictures, ": ",
                         all.count(), " pictures for ", training_.count() + held_out_.count(),
                         " latents");
    auto [shown, kept] = io::split(all, a.held_out, split_seed);
    pictures_ = std::move(shown);
    meter_.emplace(backend, pictures_, kept, inception);
  }

  run_configuration config_;
  io::image_set training_;
  io::image_set held_out_;
  io::image_set pictures_{};  // that latents of the training were made of
  std::string fingerprint_{};
  std::optional<quality_meter> meter_{};
  std::optional<latent_decoder> decoder_{};
  double floor_ = 0;
};

}  // namespace multistage
