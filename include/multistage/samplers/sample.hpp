// Pictures from seeds: each seed's latents and noise are its own streams of random numbers, so
// that a picture depends on its seed alone, not on the batch it is drawn in, the threads or the
// backend.
#pragma once
#include <functional>

#include "../core/seeds.hpp"
#include "../core/warning.hpp"
#include "../diffusion/guidance.hpp"
#include "../diffusion/model.hpp"
#include "edm_heun.hpp"

namespace multistage {

namespace functor {
/// d = mask known + (1 - mask) d
struct blend {
  const double* known;
  const double* mask;
  double* d;
  MULTISTAGE_HD void operator()(index_t i) const {
    d[i] = mask[i] * known[i] + (1 - mask[i]) * d[i];
  }
};
/// d into [-1, 1]
struct clip {
  double* d;
  MULTISTAGE_HD void operator()(index_t i) const {
    d[i] = d[i] < -1 ? -1 : d[i] > 1 ? 1 : d[i];
  }
};
}  // namespace functor

/// What an observer sees at a step: host copies of what it asks for.
struct sampling_step {
  index_t batch_first = 0;  ///< the first row of this batch among all seeds
  int step = 0;
  int stage = 0;
  double sigma = 0;
  std::function<std::vector<double>()> x, denoised;  ///< [rows, h, w, c]
};

/// The shared encoder's features taken over from step to step (Faster Diffusion: Li et al.,
/// arXiv 2312.09608): of `every` evaluations in a row the first runs the encoder, the others
/// the stage's decoder alone, on features that are then a little old. Cheaper the larger the
/// encoder's part; its error grows with the distance between levels, so it may be limited to an
/// interval of them. Off by default.
struct encoder_reuse {
  int every = 1;
  double sigma_low = 0;  ///< acts for sigma in (sigma_low, sigma_high]
  double sigma_high = HUGE_VAL;

  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"encoder_every",
                 "of so many evaluations in a row one runs the shared encoder, the others "
                 "reuse its features; 1: all do",
                 between(1, 1'000'000)},
          s.every);
    visit(option{"encoder_low", "no reuse at or below this noise level", at_least(0)},
          s.sigma_low);
    visit(option{"encoder_high", "no reuse above this noise level", or_infinite(0)},
          s.sigma_high);
  }
};

/// What is kept inside [-1, 1]: nothing (latent images leave it), the finished pictures, or
/// each D as well, as DDPM does (Ho et al., arXiv 2006.11239).
enum class clipping { none, pictures, denoised };
constexpr std::array<const char*, 3> option_names(clipping) {
  return {"none", "pictures", "denoised"};
}

/// What `sample` is told beside the sampler.
struct sampling_options {
  seed_list seeds{};  ///< a picture a seed: "0-63,100", numbers, or a range of them
  index_t batch = 64;
  int class_label = -1;  ///< for models with labels; -1: none
  /// [context_tokens, context_dim], for models that have one: the same for all pictures
  std::vector<double> context = {};
  std::vector<double> weak_context = {};
  guidance guide = {};
  encoder_reuse reuse = {};
  std::vector<double> from = {};  ///< [h, w, c]: image-to-image; pictures start from it with
                                  ///< the sampler's first noise level added
  std::vector<double> known = {};  ///< [h, w, c]: what is known of the picture (inpainting)
  std::vector<double> mask = {};  ///< [h, w, c], 1 where it is known, 0 where it is to be drawn
  clipping clip = clipping::none;
  std::function<bool(const sampling_step&)> observer = {};  ///< returns whether to go on

  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"batch", "pictures drawn at a time; they do not depend on it",
                 between(1, 1'000'000)},
          s.batch);
    visit(option{"label", "class to draw; -1: none", at_least(-1)}, s.class_label);
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

/// Pictures [seeds, h, w, c] in host memory, and how often each stage's network was evaluated
/// (rows times evaluations).
struct sampling_result {
  std::vector<double> images;
  shape extents{};
  std::vector<index_t> evaluations;  ///< by stage, per picture
  index_t encoder_evaluations = 0;   ///< how many of them ran the encoder
};

namespace detail {
/// Warns of what has no effect, or another than is meant, with this model.
template <class Scalar, class Backend, class Sampler>
MULTISTAGE_COLD void warn_of_sampling(dynamic_model<Scalar, Backend>& model,
                                      const Sampler& sampler,
                                      const sampling_options& o,
                                      bool has_weak) {
  const training_facts& trained = model.trained();
  if (o.guide.acts() && !has_weak) {
    const bool conditioned =
        o.class_label >= 0 || !o.context.empty() || !o.weak_context.empty();
    if (!conditioned)
      warn(
          "sample: guidance without a class_label, a context or a weak model: both of its "
          "sides are the same evaluation, so it costs twice as much and changes "
          "nothing; give one of them, or guide.scale = 1");
    else if (o.class_label >= 0 && trained.label_dropout && *trained.label_dropout == 0)
      warn(
          "sample: guidance on a model that was trained with label_dropout = 0: without a "
          "label it gives what it never learnt; train with "
          "trainer_options::label_dropout = 0.1, or give a weak model");
  }
  if (!trained.augmented)
    return;
  if constexpr (requires { sampler.augmented; }) {
    if (*trained.augmented > 0 ? *trained.augmented != sampler.augmented
                               : sampler.augmented < 100)
      warn("sample: pfgm with augmented = ", sampler.augmented,
           ", but the model was trained with trainer_options::augmented = ", *trained.augmented,
           *trained.augmented > 0
               ? "; both must be the same"
               : " (Gaussian noise), to which only many dimensions come near; take 2048");
  } else if (*trained.augmented > 0 && *trained.augmented < 100) {
    warn("sample: the model was trained with trainer_options::augmented = ", *trained.augmented,
         ", whose noise has heavier tails than this sampler's; draw with pfgm{.augmented = ",
         *trained.augmented, "}");
  }
}
}  // namespace detail

/// Draws a picture for each seed with the model's averaged weights. @param weak evaluates the
/// weak side of guidance (autoguidance); without it that is the model itself without label, or
/// with weak_context. @throws value_error for parameters out of range, numeric_error when the
/// network's result is not finite (saying step, sigma and stage).
template <class Scalar, class Backend, class Sampler>
sampling_result sample(dynamic_model<Scalar, Backend>& model,
                       const Sampler& method,
                       const sampling_options& options = {},
                       dynamic_model<Scalar, Backend>* weak = nullptr) {
  const auto visit = model.use();
  check_options("sample", options);
  Sampler sampler = method;
  if constexpr (requires {
                  sampler.crossing.stages;
                })  // it is told of the model's stages, unless it knows some
    if (sampler.crossing.stages.stage_count() == 1)
      sampler.crossing.stages = model.stages();
  const seed_list& seeds = options.seeds;
  Backend& b = model.backend();
  const index_t total = index_t(seeds.size());
  const index_t size = model.images(1).row_size();
  const double start = [&] {
    if constexpr (requires { sampler.start_scale(); })
      return sampler.start_scale();
    else
      return sampler.sigmas().front();
  }();
  sampling_result result{
      {}, model.images(total), std::vector<index_t>(std::size_t(model.stage_count()), 0)};
  tensor<Scalar, Backend> labels;
  const index_t label_dim = model.label_dim(input_slot::class_labels);
  require<value_error>(
      options.class_label >= -1 && options.class_label < std::max<index_t>(label_dim, 0),
      "sample: class_label = ", options.class_label, ", the model knows ", label_dim,
      " classes");
  const auto like_a_picture = [&](const char* name, const std::vector<double>& v) {
    require<shape_error>(v.empty() || index_t(v.size()) == size, "sample: ", name, " has ",
                         v.size(), " values, a picture has ", size);
  };
  like_a_picture("from", options.from);
  like_a_picture("known", options.known);
  like_a_picture("mask", options.mask);
  require<value_error>(options.known.empty() == options.mask.empty(),
                       "sample: known and mask go together; give both or neither");
  const index_t context_size = model.label_dim(input_slot::context);
  for (const std::vector<double>* c : {&options.context, &options.weak_context})
    require<shape_error>(c->empty() || index_t(c->size()) == context_size,
                         "sample: a context of ", c->size(), " values, the model takes ",
                         context_size);
  require<shape_error>(weak == nullptr || weak->images(1) == model.images(1),
                       "sample: the weak model's pictures are ",
                       weak ? weak->images(1) : shape{}, ", the model's ", model.images(1));
  require<value_error>(options.guide.scale_by_stage.empty() ||
                           int(options.guide.scale_by_stage.size()) == model.stage_count(),
                       "sample: ", options.guide.scale_by_stage.size(),
                       " scales of guidance by stage for a model of ", model.stage_count(),
                       " stages; give one a stage");
  detail::warn_of_sampling(model, sampler, options, weak != nullptr);
  const auto spread = [&](const std::vector<double>& context,
                          index_t rows) {  // one context for every row
    tensor<Scalar, Backend> t(b, {rows, 1, 1, context_size});
    std::vector<Scalar> host;
    for (index_t r = 0; r < rows; ++r)
      host.insert(host.end(), context.begin(), context.end());
    b.upload(host.data(), t.data(), index_t(host.size()));
    return t;
  };
  for (index_t first = 0; first < total; first += options.batch) {
    const index_t rows = std::min(options.batch, total - first);
    tensor<double, Backend> x(b, model.images(rows));
    conditioning<Scalar> given;
    conditioning<Scalar> weakly;
    tensor<Scalar, Backend> context;
    tensor<Scalar, Backend> weak_context;
    if (!options.context.empty())
      given.context = (context = spread(options.context, rows)).data();
    if (!options.weak_context.empty())
      weakly.context = (weak_context = spread(options.weak_context, rows)).data();
    if (options.class_label >= 0) {
      std::vector<Scalar> one_hot(std::size_t(rows * label_dim), Scalar(0));
      for (index_t r = 0; r < rows; ++r)
        one_hot[r * label_dim + options.class_label] = Scalar(1);
      labels = tensor<Scalar, Backend>(b, {rows, 1, 1, label_dim}, one_hot);
      given.class_labels = labels.data();
    }
    const auto draw = [&](purpose use, std::uint64_t step, view<double> z) {
      for (index_t r = 0; r < rows; ++r)
        fill_normal(b, random_stream(seeds[std::size_t(first + r)], use, step), size,
                    z.data + r * size);
    };
    draw(purpose::latents, 0, x.view());
    ops::linear_combination<Backend, double>(b, x.size(), x.data(), {{start, x.data()}});
    tensor<double, Backend> known;
    tensor<double, Backend> mask;
    const auto every_row = [&](const std::vector<double>& picture) {
      tensor<double, Backend> t(b, model.images(rows));
      for (index_t r = 0; r < rows; ++r)
        b.upload(picture.data(), t.data() + r * size, size);
      return t;
    };
    if (!options.from.empty()) {
      const auto y = every_row(options.from);
      ops::linear_combination<Backend, double>(b, x.size(), x.data(),
                                               {{1, x.data()}, {1, y.data()}});
    }
    if (!options.mask.empty()) {
      known = every_row(options.known);
      mask = every_row(options.mask);
    }
    std::vector<double> sigmas(std::size_t(rows), 0.0);
    // age: of the kept features, in evaluations
    int evaluation = 0;
    int age = 0;
    tensor<double, Backend> second;
    const auto denoise = [&](view<const double> at, double sigma, view<double> d) {
      std::fill(sigmas.begin(), sigmas.end(), sigma);
      const int stage = model.stages().stage(sigma);
      const double w = options.guide.at(sigma, stage);
      shared_features features = shared_features::compute;
      // Without another model, guidance's two sides take turns in one network, and neither
      // finds its own features again.
      if (options.reuse.every > 1 && sigma > options.reuse.sigma_low &&
          sigma <= options.reuse.sigma_high && (w == 1 || weak))
        features = age++ % options.reuse.every == 0 ? shared_features::keep
                                                    : shared_features::take_over;
      else
        age = 0;
      model.denoise(at, sigmas, d, given, rows, features);
      if (first == 0)
        ++result.evaluations[stage],
            result.encoder_evaluations += features != shared_features::take_over;
      if (w != 1) {
        if (second.size() == 0)
          second = tensor<double, Backend>(b, model.images(rows));
        if (weak)
          weak->denoise(at, sigmas, second.view(), given, rows);
        else
          model.denoise(at, sigmas, second.view(), weakly, rows);
        if (first == 0)
          ++result.evaluations[stage], ++result.encoder_evaluations;
        ops::linear_combination<Backend, double>(b, d.extents.size(), d.data,
                                                 {{w, d.data}, {1 - w, second.data()}});
      }
      ++evaluation;
      // The denoised picture is what is known where it is known: x follows it there.
      if (mask.size() > 0)
        b.for_each_index(d.extents.size(), functor::blend{known.data(), mask.data(), d.data});
      require<numeric_error>(std::isfinite(ops::sum<Backend, double>(b, view<const double>(d))),
                             "sample: the network's result is not finite at evaluation ",
                             evaluation, ", sigma ", sigma, ", stage ", stage,
                             "; was the model trained, and on images in [-1, 1]?");
      if (options.clip == clipping::denoised)
        b.for_each_index(d.extents.size(), functor::clip{d.data});
    };
    bool go_on = true;
    sampler(
        b, x.view(), denoise,
        [&](int step, view<double> z) { draw(purpose::churn, std::uint64_t(step), z); },
        [&](int step, double sigma, view<const double> at, view<const double> d) {
          const auto host = [&b](view<const double> v) {
            std::vector<double> h(static_cast<std::size_t>(v.extents.size()));
            b.download(v.data, h.data(), v.extents.size());
            return h;
          };
          if (options.observer)
            go_on = options.observer({first, step, model.stages().stage(sigma), sigma,
                                      [=] { return host(at); },
                                      [=] {
                                        return host(d);
                                      }});
          return go_on;
        });
    if (options.clip != clipping::none)
      b.for_each_index(x.size(), functor::clip{x.data()});
    const std::vector<double> host = x.to_host();
    result.images.insert(result.images.end(), host.begin(), host.end());
    if (!go_on) {
      result.extents.rows = first + rows;
      break;
    }
  }
  return result;
}

}  // namespace multistage
