// Everything that a training run is told, in one struct of structs: the data, how its stages
// are found, the model, how it is trained, and what the run does beside it. Each part names its
// options by `fields`, from which files, command lines and tables derive
// (runs/configuration_file.hpp), and each value knows where it came from.
//
//   run_configuration c = preset("small-32");
//   c.training.learning_rate = 5e-4;
//   c.run.kimg = 200;
#pragma once
#include <map>
#include <string>

#include "../core/seeds.hpp"
#include "../data/augment.hpp"
#include "../data/transform.hpp"
#include "../diffusion/configuration.hpp"
#include "../schedule/any_schedule.hpp"
#include "../stages/optimal_denoiser_clustering.hpp"
#include "../training/checkpointed_run.hpp"

namespace multistage {

/// Which images, and how their files are read.
struct data_options {
  std::string path{};    ///< whatever io::open_images takes
  double largest = 0;    ///< white in arrays of integers; 0: 255
  std::string array{};   ///< of an npz archive
  index_t channels = 0;  ///< 3, 1, or 0: as they are
  bool latents = false;  ///< values are latents, which may leave [-1, 1]
  bool labels = true;    ///< the model learns classes where the data have some

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"data", "images: shards, an array, IDX, CIFAR-10 or a folder of pictures"},
          self.path);
    visit(option{"largest", "white in arrays of integers; 0: 255", at_least(0)}, self.largest);
    visit(option{"array", "which array of an npz archive"}, self.array);
    visit(option{"channels", "3, 1, or 0: as the pictures are", between(0, 3)}, self.channels);
    visit(option{"latents", "values are latent images, which may leave [-1, 1]"}, self.latents);
    visit(option{"labels", "whether the model learns the data's classes, where they have some"},
          self.labels);
  }
};

/// What happens to images before they are shown.
enum class augmentation_kind { none, mirror, edm };
/// The names of `augmentation_kind`, in order.
constexpr std::array<const char*, 3> option_names(augmentation_kind) {
  return {"none", "mirror", "edm"};
}

/// Augmentation: nothing, mirroring of half of the images, or EDM's, which tells the network.
struct augmentation_settings {
  augmentation_kind kind = augmentation_kind::none;
  augment_options amounts = edm_augmentation;  ///< of `edm`

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"augment",
                 "images as they are, half of them mirrored, or EDM's augmentation "
                 "with the amounts below"},
          self.kind);
    augment_options::fields(self.amounts, visit);
  }
  /// As the trainer takes it.
  image_transform transform() const {
    if (kind == augmentation_kind::mirror)
      return mirror{};
    return kind == augmentation_kind::edm ? image_transform(amounts) : image_transform();
  }
  /// Labels that the network reads of it.
  int label_count() const {
    return kind == augmentation_kind::edm ? amounts.label_count() : 0;
  }
};

/// How the stages of a data set are found.
struct stage_options {
  /// "auto": three stages by Algorithm 1; a number N: the best N by the similarity map;
  /// boundaries in sigma, "0.5,20"; or a file that `cluster` wrote, or a checkpoint.
  std::string stages = "auto";
  clustering_options clustering{};  ///< of `auto` and, its alpha aside, of N
  int nodes = 41;                   ///< times of the similarity map
  index_t images = 4096;            ///< of the set that are compared, at most
  double budget = 0;                ///< million multiply-accumulates; 0: widths as configured
  std::string cache{};              ///< folder; empty: the user's own, "none": none
  /// Bytes that the search may take; 0: no limit. No option: what is left of the trainer's.
  index_t memory = 0;

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"stages", "auto, how many, boundaries (0.5,20), or a file of cluster's"},
          self.stages);
    clustering_options::fields(self.clustering, visit);
    visit(option{"nodes", "times of the similarity map", between(2, 1000)}, self.nodes);
    visit(option{"stage_images", "of the data that are compared, at most", between(2, 1e7)},
          self.images);
    visit(option{"budget",
                 "million multiply-accumulates an image, on average, to which decoders are "
                 "tailored; 0: widths as they are",
                 at_least(0)},
          self.budget);
    visit(option{"cache", "folder for stages that were found; none: none"}, self.cache);
  }
};

/// Numbers of the noise levels that are drawn; `training.levels` says which distribution.
struct level_parameters {
  double p_mean = -1.2;
  double p_std = 1.2;
  double knee = 0.7;
  double suppression = 5;

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"p_mean", "log_normal levels: mean of ln sigma"}, self.p_mean);
    visit(option{"p_std", "log_normal levels: standard deviation of ln sigma", above(0)},
          self.p_std);
    visit(option{"knee", "time_kneed levels: where, as a share of the times", inside(0, 1)},
          self.knee);
    visit(
        option{"suppression", "time_kneed levels: how much rarer times above it are", above(0)},
        self.suppression);
  }
};

/// What pictures are compared over at snapshots.
enum class snapshot_features { none, pixels, random, inception };
/// The names of `snapshot_features`, in order.
constexpr std::array<const char*, 4> option_names(snapshot_features) {
  return {"none", "pixels", "random", "inception"};
}

/// How long a run goes on and what it keeps, whatever it trains.
struct run_limits {
  double kimg = 0;            ///< thousand images over the whole training; 0: no limit
  double hours = 0;           ///< of this run; 0: no limit
  index_t steps = 0;          ///< of this run; 0: no limit
  double snapshot_kimg = 50;  ///< between snapshots
  double save_minutes = 10;   ///< between checkpoints, at most
  int keep = 2;               ///< checkpoints that are kept
  bool animation = true;      ///< whether the snapshots become one at the end
  std::uint64_t seed = 0;     ///< of weights, levels, noise, order of images

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"kimg", "thousand images over the whole training; 0: no limit", at_least(0)},
          self.kimg);
    visit(option{"hours", "of this run; 0: no limit", at_least(0)}, self.hours);
    visit(option{"steps", "of this run; 0: no limit", at_least(0)}, self.steps);
    visit(option{"save_minutes", "between checkpoints, at most", above(0)}, self.save_minutes);
    visit(option{"keep", "checkpoints that are kept", between(1, 1000)}, self.keep);
    visit(option{"seed", "of weights, noise, levels and the order of images", at_least(0)},
          self.seed);
    visit(option{"snapshot", "thousand images between grids of samples; 0: at the end alone",
                 at_least(0)},
          self.snapshot_kimg);
    visit(option{"animation", "whether the grids become an animation at the end"},
          self.animation);
  }
  /// As `run` takes it.
  training_limit limit() const {
    return {kimg, 3600 * hours, steps};
  }
  /// @throws value_error for a run without end
  void check_end() const {
    require<value_error>(kimg > 0 || hours > 0 || steps > 0,
                         "run: it would never end; give kimg, hours or steps");
  }
};

/// What a run does beside the training.
struct run_options : run_limits {
  std::string snapshot_seeds = "0-63";  ///< of the grid
  int snapshot_steps = 18;              ///< of the sampler (edm_heun)
  snapshot_features features = snapshot_features::random;
  index_t frechet_images = 256;  ///< that are drawn for the Frechet distance
  std::string inception{};       ///< its weights
  on_non_finite on_nan = on_non_finite::stop;
  bool measure_sigma_data = true;

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    run_limits::fields(self, visit);
    visit(option{"on_nan",
                 "stop, or go back to the last checkpoint with half the learning rate "
                 "when a value is not finite"},
          self.on_nan);
    visit(option{"measure_sigma_data", "sigma_data is the data's standard deviation"},
          self.measure_sigma_data);
    snapshot_fields(self, visit);
  }

 private:
  /// Of what one sees.
  template <class Self, class Visit>
  static void snapshot_fields(Self& self, Visit& visit) {
    visit(option{"snapshot_seeds", "of the grid, like 0-63"}, self.snapshot_seeds);
    visit(option{"snapshot_steps", "of the sampler, EDM's Heun", between(1, 10'000)},
          self.snapshot_steps);
    visit(option{"features", "of the Frechet distance at snapshots"}, self.features);
    visit(option{"frechet_images", "drawn for it", between(2, 1e7)}, self.frechet_images);
    visit(option{"inception", "file of Inception's weights, for features inception"},
          self.inception);
  }
};

/// Everything that a run is told.
struct run_configuration {
  data_options data{};              ///< which images
  augmentation_settings augment{};  ///< what is done to them
  stage_options stages{};           ///< how noise levels are split
  configuration model{};            ///< network, decoders, preconditioning
  level_parameters levels{};        ///< numbers behind `training.levels`
  trainer_options training{};       ///< objective and optimisation
  run_options run{};                ///< limits, and what is shown
  /// Where values came from, by "section.option"; what is not there is the default.
  std::map<std::string, std::string> origins{};

  /// Names of all sections, in the order in which people are shown them.
  static constexpr std::array section_names{"data",  "augment",  "stages",
                                            "model", "training", "run"};
  /// The sections but the model's, whose options depend on its network: visit(name, options).
  /// Two may have one name.
  template <class Self, class Visit>
  static void sections(Self& self, Visit&& visit) {
    visit("data", self.data);
    visit("augment", self.augment);
    visit("stages", self.stages);
    visit("training", self.levels);
    visit("training", self.training);
    visit("run", self.run);
  }
  /// The structs of options that the model is of: visit(options).
  template <class Self, class Visit>
  static void model_parts(Self& self, Visit&& visit) {
    std::visit(visit, self.model.network);
    visit(self.model.stages);
    visit(static_cast<
          std::conditional_t<std::is_const_v<Self>, const preconditioning, preconditioning>&>(
        self.model.precond));
  }
  /// Whether somebody chose a value, and no preset: data do not change it then.
  bool chosen(const std::string& section_and_option) const {
    const auto found = origins.find(section_and_option);
    return found != origins.end() && !found->second.starts_with("preset ") &&
           found->second != "data";
  }
};

/// The schedule whose noise levels a model is trained and drawn at.
inline any_schedule schedule_of(const preconditioning& p) {
  switch (p.kind) {
    case precondition::vp:
      return vp_schedule{.beta_min = p.beta_min, .beta_max = p.beta_max};
    case precondition::subvp:
      return sub_vp_schedule{.beta_min = p.beta_min, .beta_max = p.beta_max};
    case precondition::ve:
    case precondition::score_ve:
      return ve_schedule{};
    case precondition::iddpm:
      return cosine_schedule{};
    case precondition::flow:
      return flow_schedule{};
    case precondition::ddpm:
      return ddpm_schedule{.betas = p.betas,
                           .beta_start = p.beta_start,
                           .beta_end = p.beta_end,
                           .num_timesteps = p.num_timesteps};
    default:
      return edm_schedule{};
  }
}

/// The options of the trainer with everything that other sections say of them. Distributions
/// that are named get their numbers here, those of the caller's own stay.
MULTISTAGE_COLD inline trainer_options trainer_options_of(const run_configuration& c) {
  trainer_options o = c.training;
  o.seed = c.run.seed;
  if (o.weight.name() == "edm")
    o.weight = {};  // with the model's sigma_data
  const std::string levels = o.levels.name();
  if (levels == "log_normal")
    o.levels = log_normal_levels{c.levels.p_mean, c.levels.p_std};
  as_it_is(schedule_of(c.model.precond).get(), [&](const auto& schedule) {
    if (levels == "time_uniform")
      o.levels = time_uniform_levels<std::decay_t<decltype(schedule)>>{schedule};
    if (levels == "time_kneed")
      o.levels = time_kneed_levels<std::decay_t<decltype(schedule)>>{
          c.levels.knee, c.levels.suppression, schedule};
  });
  return o;
}

/// What can be said before data are there. @throws value_error naming section and option
MULTISTAGE_COLD inline void check(const run_configuration& c) {
  run_configuration::sections(
      c, [](const char* section, const auto& options) { check_options(section, options); });
  check(c.stages.clustering);
  require<value_error>(
      c.run.features != snapshot_features::inception || !c.run.inception.empty(),
      "run: features = inception needs inception, the file of its weights; "
      "examples/convert_checkpoint.py inception makes it");
  c.run.check_end();
  parse_seeds(c.run.snapshot_seeds);
}

}  // namespace multistage
