// What a training run is told, and what a step reports.
#pragma once
#include <cmath>
#include <optional>
#include <vector>

#include "../core/options.hpp"
#include "../diffusion/loss_weighting.hpp"
#include "../diffusion/noise_levels.hpp"
#include "adam.hpp"
#include "importance.hpp"

namespace multistage {

/// Lists "by stage" have an entry a stage, stage 0 (lowest noise) first; empty means the same
/// for all.
struct trainer_options {
  double learning_rate = 1e-3;
  adam_options adam{};
  double lr_rampup_kimg =
      10;  ///< the rate grows linearly over so many thousand images; 0: none
  double ema_halflife_kimg = 500;  ///< of the average of the weights, in thousand images
  double ema_rampup_ratio =
      0.05;  // the half-life is at most this share of the images seen; 0: no such limit
  index_t batch_size = 64;
  double gradient_clip =
      0;  ///< largest norm of the gradient over all parameters; 0: no clipping
  noise_level_draws levels{};
  std::optional<loss_weight>
      weight{};  ///< of the squared error of D; none: EDM's, with the model's sigma_data
  bool stratified = false;  ///< rows of a stage take equal shares of its distribution instead
                            ///< of independent draws
  loss_importance importance{};  ///< draws levels inside a stage by the spread of their losses
  int augmented = 0;  ///< dimensions of Poisson flow's noise (see samplers/pfgm.hpp), up to
                      ///< 65536; 0: Gaussian noise
  std::vector<double> stage_probabilities{};  ///< by stage; empty: by P(sigma)
  double shared_rate = 1;  ///< factor on the learning rate of what stages share; 0 freezes it
  std::vector<double> stage_rates{};              ///< by stage: the same for its decoder
  std::vector<double> stage_ema_halflife_kimg{};  ///< by stage, in ema_halflife_kimg's place
  double shared_kimg =
      0;  // what stages share stands still once so many thousand images were seen; 0: never
  std::vector<double> stage_kimg{};  ///< by stage: thousand images of its own after which it is
                                     ///< done and gets no more rows; 0: never
  double label_dropout =
      0;  // how often a row's label is left out, for guidance without labels (0.1 is usual)
  bool one_after_the_other =
      false;  // the lowest stage that is not done gets all rows; needs stage_kimg
  double least_stage_share = 0;  ///< no stage gets fewer than this share of rows
  bool checkpoint_activations =
      false;  // keep only what blocks hand on: less memory for one more forward pass
  index_t memory_budget =
      0;  // bytes for activations; 0: no limit. What does not fit is checkpointed
  std::uint64_t seed = 0;

  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"learning_rate", "of Adam", above(0)}, s.learning_rate);
    visit(option{"adam.beta1", "decay of the mean of gradients", {0, 1, true, false}},
          s.adam.beta1);
    visit(option{"adam.beta2", "decay of the mean of their squares", {0, 1, true, false}},
          s.adam.beta2);
    visit(option{"adam.epsilon", "added to the root of that mean", above(0)}, s.adam.epsilon);
    visit(option{"lr_rampup_kimg", "thousand images over which the rate grows; 0: none",
                 at_least(0)},
          s.lr_rampup_kimg);
    visit(option{"ema_halflife_kimg", "of the average of the weights, in thousand images",
                 at_least(0)},
          s.ema_halflife_kimg);
    visit(option{"ema_rampup_ratio",
                 "the half-life as a share of the images seen, at most; 0: no such limit",
                 at_least(0)},
          s.ema_rampup_ratio);
    visit(option{"batch_size", "rows of a step", between(1, 1e7)}, s.batch_size);
    visit(option{"gradient_clip", "largest norm of the gradient; 0: no clipping", at_least(0)},
          s.gradient_clip);
    visit(option{"levels.p_mean", "mean of ln sigma"}, s.levels.p_mean);
    visit(option{"levels.p_std", "standard deviation of ln sigma", above(0)}, s.levels.p_std);
    visit(option{"levels.sigma_min", "lower end of bounded draws", above(0)},
          s.levels.sigma_min);
    visit(option{"levels.sigma_max", "upper end of bounded draws", above(0)},
          s.levels.sigma_max);
    visit(option{"levels.knee", "as a share of the times", inside(0, 1)}, s.levels.knee);
    visit(option{"levels.suppression", "how much rarer times above the knee are", above(0)},
          s.levels.suppression);
    visit(
        option{"importance.bins", "of noise levels in each stage; 0: none", between(0, 10'000)},
        s.importance.bins);
    visit(option{"importance.history", "losses a bin must have seen", between(1, 1e9)},
          s.importance.history);
    visit(option{"importance.uniform", "share of draws that stay uniform", between(0, 1)},
          s.importance.uniform);
    visit(option{"augmented", "dimensions of Poisson flow's noise; 0: Gaussian noise",
                 between(0, 65536)},
          s.augmented);
    visit(option{"stage_probabilities", "by stage", at_least(0)}, s.stage_probabilities);
    visit(option{"shared_rate", "factor on the rate of what stages share", at_least(0)},
          s.shared_rate);
    visit(option{"stage_rates", "the same for each stage's decoder", at_least(0)},
          s.stage_rates);
    visit(option{"stage_ema_halflife_kimg", "half-lives by stage", at_least(0)},
          s.stage_ema_halflife_kimg);
    visit(option{"shared_kimg",
                 "thousand images after which what stages share stands still; 0: never",
                 at_least(0)},
          s.shared_kimg);
    visit(option{"stage_kimg", "thousand images of each stage; 0: no end", at_least(0)},
          s.stage_kimg);
    visit(option{"label_dropout", "how often a label is left out", between(0, 1)},
          s.label_dropout);
    visit(option{"least_stage_share", "of rows, for every stage", between(0, 1)},
          s.least_stage_share);
    visit(option{"memory_budget", "bytes for activations; 0: no limit", at_least(0)},
          s.memory_budget);
  }
};

/// @throws value_error naming the option that is out of range, its value and what it may be
MULTISTAGE_COLD inline void check(const trainer_options& o, int stages) {
  check_options("trainer", o);
  const auto by_stage = [&](const char* name, const std::vector<double>& v) {
    require<value_error>(v.empty() || int(v.size()) == stages, "trainer: ", v.size(), " ", name,
                         " for ", stages, " stages; give one a stage");
  };
  by_stage("stage_probabilities", o.stage_probabilities);
  by_stage("stage_rates", o.stage_rates);
  by_stage("stage_ema_halflife_kimg", o.stage_ema_halflife_kimg);
  by_stage("stage_kimg", o.stage_kimg);
  require<value_error>(o.levels.sigma_min < o.levels.sigma_max, "trainer: levels from sigma ",
                       o.levels.sigma_min, " to ", o.levels.sigma_max, "; they must ascend");
  require<value_error>(
      !o.one_after_the_other || !o.stage_kimg.empty(),
      "trainer: one_after_the_other needs stage_kimg, how long each stage is trained");
  require<value_error>(o.least_stage_share * stages <= 1,
                       "trainer: least_stage_share = ", o.least_stage_share,
                       " is outside [0, 1/", stages, "]");
}

/// What one step did, by stage.
struct step_report {
  index_t step = 0;
  double images_seen = 0;
  std::vector<double> loss;  ///< mean over the stage's rows; NaN where it had none
  std::vector<index_t> rows;
  double gradient_norm = 0;
};

/// A batch given from outside; host memory, NHWC, noise standard normal, class labels one-hot
/// [rows, label_dim] where the model has them.
template <class T>
struct training_batch {
  std::vector<T> images;
  std::vector<T> noise;
  std::vector<double> sigmas;
  std::vector<T> class_labels{};
};

}  // namespace multistage
