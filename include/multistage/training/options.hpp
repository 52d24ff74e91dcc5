// What a training run is told, and what a step reports.
#pragma once
#include <cmath>
#include <optional>
#include <vector>

#include "../diffusion/loss_weighting.hpp"
#include "../diffusion/noise_levels.hpp"
#include "adam.hpp"
#include "importance.hpp"

namespace multistage {

/// Lists "by stage" have an entry a stage, stage 0 (lowest noise) first; empty means the same for all.
struct trainer_options {
  double learning_rate = 1e-3;
  adam_options adam{};
  double lr_rampup_kimg = 10;      // the rate grows linearly over so many thousand images; 0: none
  double ema_halflife_kimg = 500;  // of the average of the weights, in thousand images
  double ema_rampup_ratio = 0.05;  // the half-life is at most this share of the images seen; 0: no such limit
  index_t batch_size = 64;
  double gradient_clip = 0;  // largest norm of the gradient over all parameters; 0: no clipping
  noise_level_draws levels{};
  std::optional<loss_weight> weight{};            // of the squared error of D; none: EDM's, with the model's sigma_data
  bool stratified = false;                        // rows of a stage take equal shares of its distribution instead of independent draws
  loss_importance importance{};                   // draws levels inside a stage by the spread of their losses
  int augmented = 0;                              // dimensions of Poisson flow's noise (see samplers/pfgm.hpp), up to 65536; 0: Gaussian noise
  std::vector<double> stage_probabilities{};      // by stage; empty: by P(sigma)
  double shared_rate = 1;                         // factor on the learning rate of what stages share; 0 freezes it
  std::vector<double> stage_rates{};              // by stage: the same for its decoder
  std::vector<double> stage_ema_halflife_kimg{};  // by stage, in ema_halflife_kimg's place
  double shared_kimg = 0;                         // what stages share stands still once so many thousand images were seen; 0: never
  std::vector<double> stage_kimg{};               // by stage: thousand images of its own after which it is done and gets no more rows; 0: never
  bool one_after_the_other = false;               // the lowest stage that is not done gets all rows; needs stage_kimg
  double least_stage_share = 0;                   // no stage gets fewer than this share of rows
  bool checkpoint_activations = false;            // keep only what blocks hand on: less memory for one more forward pass
  index_t memory_budget = 0;                      // bytes for activations; 0: no limit. What does not fit is checkpointed
  std::uint64_t seed = 0;
};

/// @throws value_error naming the option that is out of range, its value and what it may be
MULTISTAGE_COLD inline void check(const trainer_options& o, int stages) {
  const auto positive = [](const char* name, double v) { require<value_error>(v > 0 && std::isfinite(v), "trainer: ", name, " = ", v, " must be above 0"); };
  const auto not_negative = [](const char* name, double v) {
    require<value_error>(v >= 0 && std::isfinite(v), "trainer: ", name, " = ", v, " must not be negative");
  };
  const auto by_stage = [&](const char* name, const std::vector<double>& v) {
    require<value_error>(v.empty() || int(v.size()) == stages, "trainer: ", v.size(), " ", name, " for ", stages, " stages");
    for (const double x : v) not_negative(name, x);
  };
  positive("learning_rate", o.learning_rate);
  positive("batch_size", double(o.batch_size));
  positive("levels.p_std", o.levels.p_std);
  require<value_error>(o.levels.sigma_min > 0 && o.levels.sigma_min < o.levels.sigma_max, "trainer: levels from sigma ", o.levels.sigma_min, " to ",
                       o.levels.sigma_max, "; they must ascend and be above 0");
  require<value_error>(o.levels.knee > 0 && o.levels.knee < 1 && o.levels.suppression > 0, "trainer: levels.knee = ", o.levels.knee,
                       ", levels.suppression = ", o.levels.suppression, "; the knee lies inside (0, 1), the suppression is above 0");
  positive("adam.epsilon", o.adam.epsilon);
  not_negative("lr_rampup_kimg", o.lr_rampup_kimg);
  not_negative("ema_halflife_kimg", o.ema_halflife_kimg);
  not_negative("ema_rampup_ratio", o.ema_rampup_ratio);
  not_negative("gradient_clip", o.gradient_clip);
  not_negative("shared_rate", o.shared_rate);
  not_negative("shared_kimg", o.shared_kimg);
  by_stage("stage_probabilities", o.stage_probabilities);
  by_stage("stage_rates", o.stage_rates);
  by_stage("stage_ema_halflife_kimg", o.stage_ema_halflife_kimg);
  by_stage("stage_kimg", o.stage_kimg);
  for (double b : {o.adam.beta1, o.adam.beta2}) require<value_error>(b >= 0 && b < 1, "trainer: adam's beta = ", b, " is outside [0, 1)");
  require<value_error>(o.augmented >= 0 && o.augmented <= 65536, "trainer: augmented = ", o.augmented, " dimensions are outside 0..65536");
  require<value_error>(!o.one_after_the_other || !o.stage_kimg.empty(), "trainer: one_after_the_other needs stage_kimg, how long each stage is trained");
  require<value_error>(o.least_stage_share >= 0 && o.least_stage_share * stages <= 1, "trainer: least_stage_share = ", o.least_stage_share,
                       " is outside [0, 1/", stages, "]");
}

/// What one step did, by stage.
struct step_report {
  index_t step = 0;
  double images_seen = 0;
  std::vector<double> loss;  // mean over the stage's rows; NaN where it had none
  std::vector<index_t> rows;
  double gradient_norm = 0;
};

/// A batch given from outside; host memory, NHWC, noise standard normal, class labels one-hot [rows, label_dim] where the model has them.
template <class T>
struct training_batch {
  std::vector<T> images, noise;
  std::vector<double> sigmas;
  std::vector<T> class_labels{};
};

}  // namespace multistage
