// What `sample` is told beside the sampler, and what it gives back.
//
//   sampling_options o{.seeds = "0-63", .batch = 16};
//   sampling_result pictures = sample(model, edm_heun{}, o);
#pragma once
#include <functional>
#include <vector>

#include "../core/options.hpp"
#include "../core/seeds.hpp"
#include "../core/warning.hpp"
#include "../distributed/process_group.hpp"
#include "any_model.hpp"
#include "label_list.hpp"

namespace multistage {

/// What an observer sees at a step: host copies of what it asks for.
struct sampling_step {
  index_t batch_first = 0;                 ///< the first row of this batch among all seeds
  int step = 0;                            ///< from 0
  int stage = 0;                           ///< that the step's first evaluation is routed to
  double sigma = 0;                        ///< the noise level of that evaluation
  std::function<std::vector<double>()> x;  ///< [rows, h, w, c], y + sigma n
  std::function<std::vector<double>()> denoised;  ///< [rows, h, w, c], D(x; sigma)
};

/// What is kept inside [-1, 1]: nothing (latent images leave it), the finished pictures, or
/// each D as well, as DDPM does (Ho et al., arXiv 2006.11239).
enum class clipping { none, pictures, denoised };
/// The names of `clipping`, in order.
constexpr std::array<const char*, 3> option_names(clipping) {
  return {"none", "pictures", "denoised"};
}

/// What `sample` is told beside the sampler.
struct sampling_options {
  seed_list seeds{};            ///< a picture a seed: "0-63,100", numbers, or a range of them
  index_t batch = 64;           ///< pictures drawn at a time; they do not depend on it
  label_list class_label = {};  ///< of models with labels: 3, "0-9", "cat,dog", "random"
  label_list negative_label = {};    ///< likewise, of guidance's weak side
  std::vector<double> context = {};  ///< [n, context_tokens, context_dim], for models that
                                     ///< have one: n = 1 for all pictures, or one after the
                                     ///< other, from the beginning again
  std::vector<double> weak_context = {};  ///< likewise, of guidance's weak side
  guidance guide = {};                    ///< how strongly, and where
  encoder_reuse reuse = {};               ///< of the shared encoder's features
  std::vector<double> from = {};   ///< [h, w, c]: image-to-image; pictures start from it with
                                   ///< the sampler's first noise level added
  std::vector<double> known = {};  ///< [h, w, c]: what is known of the picture (inpainting)
  std::vector<double> mask = {};  ///< [h, w, c], 1 where it is known, 0 where it is to be drawn
  clipping clip = clipping::none;                           ///< what is kept inside [-1, 1]
  std::function<bool(const sampling_step&)> observer = {};  ///< returns whether to go on
  process_group processes = {};  ///< that share the pictures out and all get all of them; each
                                 ///< calls `sample` with the same, and observes its own

  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"batch", "pictures drawn at a time; they do not depend on it",
                 between(1, 1'000'000)},
          s.batch);
    visit(
        option{"label",
               "classes to draw, one picture after the other and from the beginning again: 3, "
               "0-9, names with commas between; random: by each seed; -1: none"},
        s.class_label);
    visit(option{"negative_label", "likewise, what guidance leads away from; -1: no class"},
          s.negative_label);
    visit(option{"clip", "what is kept inside [-1, 1]"}, s.clip);
    visit(option{"context", "of a conditioned model"}, s.context);
    visit(option{"weak_context", "of guidance's weak side"}, s.weak_context);
    visit(option{"from", "the picture to start from"}, s.from);
    visit(option{"known", "what is known of the picture"}, s.known);
    visit(option{"mask", "1 where it is known, 0 where it is to be drawn", between(0, 1)},
          s.mask);
    guidance::fields(s.guide, visit);
    encoder_reuse::fields(s.reuse, visit);
  }
};

/// Everything about the options that no model is needed for. @throws value_error naming option
/// and value, for one out of its range, an interval that holds no noise level, known without
/// mask or the other way round
MULTISTAGE_COLD inline void check(const sampling_options& o) {
  check_options("sample", o);
  o.class_label.check("label");
  o.negative_label.check("negative_label");
  o.guide.check("sample");
  o.reuse.check("sample");
  require<value_error>(o.known.empty() == o.mask.empty(),
                       "sample: known and mask go together; give both or neither");
}

/// Pictures [seeds, h, w, c] in host memory, and how often each stage's network was evaluated
/// (rows times evaluations).
struct sampling_result {
  std::vector<double> images;        ///< in the order of the seeds
  shape extents{};                   ///< of the images
  std::vector<index_t> evaluations;  ///< by stage, per picture
  index_t encoder_evaluations = 0;   ///< how many of them ran the encoder
};

namespace sampling {

/// @throws shape_error for a picture among the options that has not `size` values
MULTISTAGE_COLD inline void check_pictures(const sampling_options& o, index_t size) {
  const auto like_a_picture = [&](const char* name, const std::vector<double>& v) {
    require<shape_error>(v.empty() || index_t(v.size()) == size, "sample: ", name, " has ",
                         v.size(), " values, a picture has ", size);
  };
  like_a_picture("from", o.from);
  like_a_picture("known", o.known);
  like_a_picture("mask", o.mask);
}

/// @throws shape_error, value_error for options and a weak model that do not fit the model
MULTISTAGE_COLD inline void check_for(const any_model& model,
                                      const any_model* weak,
                                      const sampling_options& o) {
  check_contexts(model.label_dim(input_slot::context), o.context);
  check_contexts(model.label_dim(input_slot::context), o.weak_context);
  require<value_error>(!o.negative_label.any() || (o.guide.acts() && weak == nullptr),
                       "sample: negative_label = ", o.negative_label.name(),
                       " is of guidance's weak side: it needs guidance other than 1, and no "
                       "weak model, which has the picture's own label");
  require<shape_error>(weak == nullptr || weak->images(1) == model.images(1),
                       "sample: the weak model's pictures are ",
                       weak ? weak->images(1) : shape{}, ", the model's ", model.images(1));
  require<value_error>(o.guide.scale_by_stage.empty() ||
                           int(o.guide.scale_by_stage.size()) == model.stages().stage_count(),
                       "sample: ", o.guide.scale_by_stage.size(),
                       " scales of guidance by stage for a model of ",
                       model.stages().stage_count(), " stages; give one a stage");
}

/// @throws value_error for options that only a model knows
MULTISTAGE_COLD inline void check_without_model(const sampling_options& o) {
  require<value_error>(!o.class_label.any() && !o.negative_label.any() && o.context.empty() &&
                           o.weak_context.empty() && !o.guide.acts() && o.reuse.every <= 1,
                       "sample: labels, contexts, guidance and the encoder's reuse are options "
                       "of a model; a denoiser of your own is decorated instead: guided{...} "
                       "(diffusion/guidance.hpp), reusing{...} (samplers/model_denoiser.hpp)");
}

/// Warns of what has no effect, or another than is meant, with a model trained so.
/// @param augmented of a sampler that follows Poisson flow; 0: of one that does not
MULTISTAGE_COLD inline void warn_of(const training_facts& trained,
                                    const sampling_options& o,
                                    bool has_weak,
                                    int augmented) {
  if (o.guide.acts() && !has_weak) {
    const bool conditioned = o.class_label.any() || o.negative_label.any() ||
                             !o.context.empty() || !o.weak_context.empty();
    if (!conditioned)
      warn(
          "sample: guidance without a class_label, a context or a weak model: both of its "
          "sides are the same evaluation, so it costs twice as much and changes "
          "nothing; give one of them, or guide.scale = 1");
    else if (o.class_label.any() && !o.negative_label.any() && trained.label_dropout &&
             *trained.label_dropout == 0)
      warn(
          "sample: guidance on a model that was trained with label_dropout = 0: without a "
          "label it gives what it never learnt; train with "
          "trainer_options::label_dropout = 0.1, or give a weak model");
  }
  if (!trained.augmented)
    return;
  const int taught = *trained.augmented;
  if (augmented > 0 && (taught > 0 ? taught != augmented : augmented < 100))
    warn("sample: pfgm with augmented = ", augmented,
         ", but the model was trained with trainer_options::augmented = ", taught,
         taught > 0 ? "; both must be the same"
                    : " (Gaussian noise), to which only many dimensions come near; take 2048");
  if (augmented == 0 && taught > 0 && taught < 100)
    warn("sample: the model was trained with trainer_options::augmented = ", taught,
         ", whose noise has heavier tails than this sampler's; draw with pfgm{.augmented = ",
         taught, "}");
}

}  // namespace sampling
}  // namespace multistage
