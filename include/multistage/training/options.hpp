// What a training run is told, and what a step reports.
//
//   trainer_options o{.learning_rate = 1e-3, .ema_halflife_kimg = 500, .batch_size = 512};
//   check(o, 3);      // ranges, and lists of an entry for each stage
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "../core/options.hpp"
#include "../diffusion/loss_weighting.hpp"
#include "../diffusion/noise_distributions.hpp"
#include "../distributed/process_group.hpp"
#include "adam.hpp"
#include "importance.hpp"
#include "learning_rate.hpp"
#include "update_fields.hpp"

namespace multistage {

/// What each means, its name and its range: `fields`. Lists "by stage" have an entry a stage,
/// stage 0 (lowest noise) first; empty means the same for all.
struct trainer_options {
  double learning_rate = 1e-3;        ///< of Adam
  adam_options adam{};                ///< decays of the moments
  double lr_rampup_kimg = 10;         ///< thousand images of its warm-up
  learning_rate_schedule schedule{};  ///< what becomes of the rate after that
  double ema_halflife_kimg = 500;     ///< of the average, in thousand images
  double ema_rampup_ratio = 0.05;     ///< half-life by images seen, at most
  double ema_std = 0;
  std::vector<double> average_stds{};            ///< see kept_averages.hpp
  std::vector<double> average_halflives_kimg{};  ///< likewise
  index_t batch_size = 64;
  index_t shards = 8;
  index_t micro_batch = 0;
  double gradient_clip = 0;    ///< largest norm; 0: none
  noise_level_draws levels{};  ///< a distribution of the library's or of one's own
  loss_weight weight{};        ///< none: EDM's, with the model's sigma_data
  bool stratified = false;
  loss_importance importance{};  ///< which noise levels are drawn more often, by their loss
  int augmented = 0;             ///< samplers/pfgm.hpp draws with such a model
  std::vector<double> stage_probabilities{};  ///< by stage; empty: as `levels` has them
  double shared_rate = 1;
  std::vector<double> stage_rates{};              ///< by stage
  std::vector<double> stage_ema_halflife_kimg{};  ///< by stage, for ema_halflife_kimg
  double shared_kimg = 0;
  std::vector<double> stage_kimg{};  ///< by stage
  double label_dropout = 0;          ///< 0.1 is usual where guidance is wanted
  bool one_after_the_other = false;
  bool one_stage_a_batch = false;  ///< as separate networks are trained
  double least_stage_share = 0;
  bool checkpoint_activations = false;
  bool shard_state = false;
  std::vector<double> stage_begins{};  ///< training/placement.hpp
  index_t memory = 0;
  /// Bytes of `memory` that the caller takes beside the training, e.g. for its snapshots; what
  /// the process has when the trainer is made is counted anyhow. No option: the caller knows.
  index_t memory_beside = 0;
  std::uint64_t seed = 0;  ///< of levels, noise, order of images and dropout

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    update_fields(self, visit);
    draw_fields(self, visit);
    visit(option{"batch_size", "rows of a step", between(1, 1e7)}, self.batch_size);
    visit(option{"shards",
                 "of a step's rows, whose gradients are added up as a tree: as many processes "
                 "can share a step, with the same bits for any number of them",
                 between(1, 65536)},
          self.shards);
    visit(option{"micro_batch",
                 "rows at once, with less memory and the same bits; 0: the whole batch",
                 between(0, 1e7)},
          self.micro_batch);
    visit(option{"checkpoint_activations",
                 "keep only what blocks hand on: less memory for one more forward pass"},
          self.checkpoint_activations);
    visit(option{"shard_state",
                 "of several processes each keeps the moments and averages of its share of the "
                 "weights alone (ZeRO's first stage)"},
          self.shard_state);
    visit(option{"stage_begins",
                 "where in the stages each process but the first begins, 1.25 behind a quarter "
                 "of stage 1's rows: decoders are where their rows are; empty: everywhere",
                 above(0)},
          self.stage_begins);
    visit(option{"memory",
                 "bytes for the whole run, which choose micro_batch and checkpointing; 0: no "
                 "limit",
                 at_least(0),
                 {},
                 true},
          self.memory);
  }

 private:
  /// How weights move.
  template <class Self, class Visit>
  static void update_fields(Self& self, Visit& visit) {
    visit_update_options(self, visit);
    learning_rate_schedule::fields(self.schedule, visit);
    visit(
        option{"ema_std",
               "relative standard deviation of a power function in the place of the half-life "
               "(EDM2), by each stage's own images; 0: the half-life",
               between(0, 0.2886)},
        self.ema_std);
    visit(option{"average_stds",
                 "of further averages by power functions, from which ones of any length are "
                 "made after training",
                 above(0, 0.2886)},
          self.average_stds);
    visit(option{"average_halflives_kimg",
                 "of further averages, in thousand images that each stage has seen itself",
                 above(0)},
          self.average_halflives_kimg);
    visit(option{"shared_rate", "factor on the rate of what stages share; 0 freezes it",
                 at_least(0)},
          self.shared_rate);
    visit(option{"stage_rates", "the same for each stage's decoder", at_least(0)},
          self.stage_rates);
    visit(option{"stage_ema_halflife_kimg", "half-lives by stage", at_least(0)},
          self.stage_ema_halflife_kimg);
    visit(option{"shared_kimg",
                 "thousand images after which what stages share stands still; 0: never",
                 at_least(0)},
          self.shared_kimg);
  }
  /// Which rows are drawn, and how their losses count.
  template <class Self, class Visit>
  static void draw_fields(Self& self, Visit& visit) {
    visit(option{"levels", "distribution of the noise levels"}, self.levels);
    visit(option{"weight", "of the squared error of D"}, self.weight);
    visit(option{"stratified",
                 "rows take equal shares of the distribution, not independent draws"},
          self.stratified);
    loss_importance::fields(self.importance, visit);
    visit(option{"augmented", "dimensions of Poisson flow's noise; 0: Gaussian noise",
                 between(0, 65536)},
          self.augmented);
    visit(option{"label_dropout", "how often a row's label is left out", between(0, 1)},
          self.label_dropout);
    visit(option{"stage_probabilities", "of a row, by stage", at_least(0)},
          self.stage_probabilities);
    visit(option{"least_stage_share", "of rows, for every stage", between(0, 1)},
          self.least_stage_share);
    visit(option{"stage_kimg",
                 "thousand images of its own after which a stage gets no more; 0: no end",
                 at_least(0)},
          self.stage_kimg);
    visit(option{"one_after_the_other",
                 "the lowest stage that is not done gets all rows; needs stage_kimg"},
          self.one_after_the_other);
    visit(option{"one_stage_a_batch",
                 "all rows of a step are of one stage, drawn by the stages' shares"},
          self.one_stage_a_batch);
  }
};

/// Whether an option decides only how a step is done, not what comes out of it.
inline bool is_only_how(const std::string& name) {
  return name == "micro_batch" || name == "checkpoint_activations" || name == "memory" ||
         name == "shard_state" || name == "stage_begins";
}

/// @throws value_error naming the option that is out of range, its value and what it may be
MULTISTAGE_COLD inline void check(const trainer_options& o, int stages) {
  check_options("trainer", o);
  check(o.schedule, o.learning_rate);
  const auto by_stage = [&](const char* name, const std::vector<double>& v) {
    require<value_error>(v.empty() || int(v.size()) == stages, "trainer: ", v.size(), " ", name,
                         " for ", stages, " stages; give one a stage");
  };
  by_stage("stage_probabilities", o.stage_probabilities);
  by_stage("stage_rates", o.stage_rates);
  by_stage("stage_ema_halflife_kimg", o.stage_ema_halflife_kimg);
  by_stage("stage_kimg", o.stage_kimg);
  require<value_error>(
      !o.one_after_the_other || !o.stage_kimg.empty(),
      "trainer: one_after_the_other needs stage_kimg, how long each stage is trained");
  require<value_error>(o.least_stage_share * stages <= 1,
                       "trainer: least_stage_share = ", o.least_stage_share,
                       " is outside [0, 1/", stages, "]");
}

/// What one step did, by stage.
struct step_report {
  index_t step = 0;           ///< counted from 1
  double images_seen = 0;     ///< with this step's
  std::vector<double> loss;   ///< mean over the stage's rows; NaN where it had none
  std::vector<index_t> rows;  ///< of each stage
  double gradient_norm = 0;   ///< before clipping, over what moves
  group_traffic traffic{};    ///< of a step that several processes share, on this one
};

/// A batch given from outside; host memory.
template <class T>
struct training_batch {
  std::vector<T> images;                ///< NHWC
  std::vector<T> noise;                 ///< standard normal, like the images
  std::vector<double> sigmas;           ///< by row
  std::vector<T> class_labels{};        ///< one-hot [rows, label_dim] where the model has them
  std::vector<float> augment_labels{};  ///< [rows, augment_dim]; empty: zeros
  std::vector<float> context{};         ///< [rows, tokens, width]; empty: zeros
};

}  // namespace multistage
