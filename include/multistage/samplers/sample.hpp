// Pictures from seeds: each seed's latents and noise are its own streams of random numbers, so
// that a picture depends on its seed alone, not on the batch it is drawn in, the threads or the
// backend. A batch at a time, x = start n goes down a sampler's noise levels (for EDM's:
// Karras et al., arXiv 2206.00364, algorithm 2) with a denoiser: the model's with what the
// options stack around it, or a user's own.
//
//   const auto pictures = sample(net, edm_heun{.num_steps = 18}, {.seeds = "0-15"});
//   pictures.images;                                 // [16, h, w, c] in [-1, 1], on the host
//
// Processes that are given (`processes`) draw a share of the seeds each, the same pictures as
// one would, and hand them round.
#pragma once
#include <functional>
#include <optional>
#include <span>

#include "../core/random.hpp"
#include "../distributed/together.hpp"
#include "denoisers.hpp"
#include "sampling_options.hpp"

namespace multistage {

namespace sampling {

/// The random numbers of a batch: row r draws from the streams of its own seed.
template <class Backend>
struct seeded_rows {
  Backend& b;              ///< where noise is drawn
  const seed_list& seeds;  ///< of all pictures
  index_t first;           ///< the batch's first row among all seeds

  /// Standard normal noise into z [rows, h, w, c]. @param draw tells draws of one use apart
  void fill(purpose use, std::uint64_t draw, view<double> z) const {
    const index_t size = z.extents.row_size();
    for (index_t r = 0; r < z.extents.rows; ++r) {
      const std::uint64_t seed = seeds[std::size_t(first + r)];
      fill_normal(b, random_stream(seed, use, draw), size, z.data + r * size);
    }
  }
};

/// x [rows, h, w, c] at the start of a walk: latents times `start`, and the picture `from`
/// where one is given.
template <class Backend>
MULTISTAGE_COLD tensor<double, Backend> starting_point(const seeded_rows<Backend>& noise,
                                                       const shape& extents,
                                                       double start,
                                                       const std::vector<double>& from) {
  Backend& b = noise.b;
  tensor<double, Backend> x(b, extents);
  noise.fill(purpose::latents, 0, x.view());
  ops::linear_combination<Backend, double>(b, x.size(), x.data(), {{start, x.data()}});
  if (from.empty())
    return x;
  const index_t size = extents.row_size();
  shape one = extents;
  one.rows = 1;
  const tensor<double, Backend> picture(b, one, from);
  for (index_t r = 0; r < extents.rows; ++r) {
    double* const row = x.data() + r * size;
    ops::linear_combination<Backend, double>(b, size, row, {{1, row}, {1, picture.data()}});
  }
  return x;
}

/// What any denoiser is decorated with: what is known of the picture [1, h, w, c], the check of
/// its results, and clipping.
template <class Backend>
MULTISTAGE_COLD any_denoiser decorated(any_denoiser denoise,
                                       const Backend& b,
                                       const shape& picture,
                                       const partition& stages,
                                       const sampling_options& o) {
  if (!o.mask.empty()) {
    tensor<double, Backend> known(b, picture, o.known);
    tensor<double, Backend> mask(b, picture, o.mask);
    denoise =
        inpainted<any_denoiser, Backend>(std::move(denoise), std::move(known), std::move(mask));
  }
  denoise = verified<any_denoiser, Backend>(std::move(denoise), stages, b);
  if (o.clip == clipping::denoised)
    denoise = clipped<any_denoiser, Backend>(std::move(denoise), b);
  return denoise;
}

/// The classes of all pictures, -1: none.
struct picture_classes {
  std::vector<int> strong;  ///< what is drawn
  std::vector<int> weak;    ///< what guidance's weak side is told, without another model
};
/// As the options name them. @throws value_error for classes that the model does not know
MULTISTAGE_COLD inline picture_classes classes_of(const any_model& model,
                                                  const sampling_options& o) {
  const index_t known = model.label_dim(input_slot::class_labels);
  const std::vector<std::string>& names = model.trained().class_names;
  return {o.class_label.of(o.seeds, known, names), o.negative_label.of(o.seeds, known, names)};
}

/// Which pictures a batch draws.
struct batch_rows {
  index_t first;  ///< the batch's first row among all seeds
  index_t count;  ///< of rows
  /// Of a list of all pictures, the batch's part.
  std::span<const int> of(const std::vector<int>& all) const {
    return std::span(all).subspan(std::size_t(first), std::size_t(count));
  }
};

/// The weak side of guidance, for one batch: another model with what it knows of the same
/// labels, or the model itself with negative labels or none.
MULTISTAGE_COLD inline any_denoiser weak_side(const any_model& model,
                                              const any_model* weak,
                                              const sampling_options& o,
                                              const picture_classes& classes,
                                              const batch_rows& batch,
                                              evaluation_counter* counter) {
  if (weak == nullptr)
    return model.denoiser({batch.of(classes.weak), o.weak_context, batch.first}, counter);
  const bool labelled = weak->label_dim(input_slot::class_labels) > 0;
  const bool reads_context = weak->label_dim(input_slot::context) > 0;
  const std::vector<int> unlabelled(std::size_t(batch.count), -1);
  const std::vector<double> none;
  return weak->denoiser({labelled ? batch.of(classes.strong) : std::span(unlabelled),
                         reads_context ? o.context : none, batch.first},
                        counter);
}

/// A model's denoiser for one batch, with its labels, the encoder's reuse and guidance.
/// @param b on which guidance computes. @param counter told of each evaluation; null: nobody is
template <class Backend>
MULTISTAGE_COLD any_denoiser denoiser_of(const any_model& model,
                                         const any_model* weak,
                                         const Backend& b,
                                         const sampling_options& o,
                                         const picture_classes& classes,
                                         const batch_rows& batch,
                                         evaluation_counter* counter) {
  // Where guidance's two sides take turns in one network, neither finds its own features again.
  std::function<bool(double)> taking_turns;
  if (weak == nullptr && o.guide.acts())
    taking_turns = [guide = o.guide, stages = model.stages()](double sigma) {
      return guide.at(sigma, stages.stage(sigma)) != 1;
    };
  any_denoiser denoise = model.denoiser({batch.of(classes.strong), o.context, batch.first},
                                        counter, o.reuse, std::move(taking_turns));
  if (!o.guide.acts())
    return denoise;
  return guided<any_denoiser, any_denoiser, Backend>(
      std::move(denoise), weak_side(model, weak, o, classes, batch, counter), o.guide,
      model.stages(), b);
}

/// sigma at a sampler's start, or what else it multiplies latents of unit variance by.
template <class Sampler>
double start_of(const Sampler& sampler) {
  if constexpr (requires { sampler.start_scale(); })
    return sampler.start_scale();
  else {
    const std::vector<double> sigmas = sampler.sigmas();
    require<value_error>(!sigmas.empty(),
                         "sample: sigmas() of the sampler is empty; it returns the noise "
                         "levels of its steps, the highest first");
    return sigmas.front();
  }
}

/// The sampler, told of a model's stages unless it knows some.
template <class Sampler>
Sampler told_of(Sampler sampler, const partition& stages) {
  if constexpr (requires { sampler.crossing.stages; })
    if (sampler.crossing.stages.stage_count() == 1)
      sampler.crossing.stages = stages;
  return sampler;
}

/// Tells the options' observer of the steps of one batch.
template <class Backend>
struct reporter {
  Backend& b;                       ///< where the pictures are
  const sampling_options& options;  ///< whose observer is told
  const partition& stages;          ///< of which a step names its own
  index_t first;                    ///< the batch's first row among all seeds
  bool go_on = true;                ///< what the observer said last

  /// @see sampling_step. Returns whether to go on
  bool operator()(int step, double sigma, view<const double> x, view<const double> denoised) {
    const auto host = [this](view<const double> v) {
      std::vector<double> values(static_cast<std::size_t>(v.extents.size()));
      b.download(v.data, values.data(), v.extents.size());
      return values;
    };
    if (!options.observer)
      return go_on;
    sampling_step seen;
    seen.batch_first = first;
    seen.step = step;
    seen.stage = stages.stage(sigma);
    seen.sigma = sigma;
    seen.x = [=] {
      return host(x);
    };
    seen.denoised = [=] {
      return host(denoised);
    };
    go_on = options.observer(seen);
    return go_on;
  }
};

/// The pictures of all processes from those of each one's share of the seeds; with an observer
/// that stopped a process, up to the batch in which it did. @param goes_on whether none did
/// here
MULTISTAGE_COLD inline sampling_result of_all(process_group group,
                                              sampling_result own,
                                              bool goes_on) {
  if (group.size() == 1)
    return own;
  const auto rows = all_gather(group, std::span<const index_t>(&own.extents.rows, 1));
  const char here = goes_on ? 1 : 0;
  const auto go_on = all_gather(group, std::span(&here, 1));
  own.images = all_gather(group, std::span<const double>(own.images));
  own.extents.rows = 0;
  for (int rank = 0; rank < group.size(); ++rank) {
    own.extents.rows += rows[std::size_t(rank)];
    if (go_on[std::size_t(rank)] == 0)
      break;
  }
  own.images.resize(static_cast<std::size_t>(own.extents.size()));
  return own;
}
/// The evaluations that rank 0 counted, on all processes.
MULTISTAGE_COLD inline sampling_result counted_alike(process_group group,
                                                     sampling_result result) {
  broadcast(group, std::span(result.evaluations));
  broadcast(group, std::span(&result.encoder_evaluations, 1));
  return result;
}

/// Draws all seeds, those of this process batch after batch; a stop by the observer ends it
/// behind the batch.
/// @param picture [1, h, w, c]
/// @param make (batch_rows, whether it is the first batch) gives a batch's denoiser
template <class Backend, class Sampler, class Make>
sampling_result draw(Backend& b,
                     const shape& picture,
                     const Sampler& sampler,
                     const partition& stages,
                     const sampling_options& options,
                     Make&& make) {
  const double start = start_of(sampler);
  process_group group = options.processes;
  const index_range own = share_of(index_t(options.seeds.size()), group.rank(), group.size());
  sampling_result result;
  result.extents = picture;
  result.extents.rows = 0;
  const auto one_batch = [&](index_t first) {
    shape batch = picture;
    batch.rows = std::min(options.batch, own.end - first);
    const seeded_rows<Backend> noise{b, options.seeds, first};
    tensor<double, Backend> x = starting_point(noise, batch, start, options.from);
    any_denoiser bare = make(batch_rows{first, batch.rows}, first == own.begin);
    any_denoiser denoise = decorated<Backend>(std::move(bare), b, picture, stages, options);
    const auto fresh_noise = [&](int step, view<double> z) {
      noise.fill(purpose::churn, std::uint64_t(step), z);
    };
    reporter<Backend> observe{b, options, stages, first};
    sampler(b, x.view(), denoise, fresh_noise, observe);
    if (options.clip != clipping::none)
      b.for_each_index(x.size(), functor::clip{x.data()});
    const std::vector<double> host = x.to_host();
    result.images.insert(result.images.end(), host.begin(), host.end());
    result.extents.rows += batch.rows;
    return observe.go_on;
  };
  bool goes_on = true;
  together(group, [&] {
    for (index_t first = own.begin; first < own.end && goes_on; first += options.batch)
      goes_on = one_batch(first);
  });
  return of_all(group, std::move(result), goes_on);
}

}  // namespace sampling

/// What gives a denoiser for each batch: a function of its number of rows.
template <class F>
concept denoiser_maker = requires(F& make, index_t rows) {
  { make(rows) } -> denoiser;
};

/// Draws a picture for each seed with a denoiser of the caller's own, without any model.
/// @param denoise a denoiser, or a function that makes one for each batch, as what remembers
/// something from evaluation to evaluation needs it (`reusing`)
/// @param picture [1, h, w, c]
/// @param options those that only a model knows aside; `evaluations` of the result has one
/// entry
/// @param backend whose memory the denoiser gets
/// @throws value_error, shape_error for parameters out of range, numeric_error when the
/// denoiser's result is not finite (saying evaluation and sigma)
template <class Denoise, class Sampler, class Backend = cpu>
requires denoiser<Denoise> || denoiser_maker<Denoise> sampling_result
sample(Denoise&& denoise,
       const shape& picture,
       const Sampler& sampler,
       const sampling_options& options = {},
       Backend backend = Backend()) {
  check(options);
  sampling::check_without_model(options);
  require<shape_error>(picture.rows == 1 && picture.size() > 0, "sample: a picture of ",
                       picture, "; its extents are {1, height, width, channels}");
  sampling::check_pictures(options, picture.size());
  index_t evaluations = 0;
  sampling_result result = sampling::draw(
      backend, picture, sampler, {}, options,
      [&](const sampling::batch_rows& batch, bool counts) -> any_denoiser {
        const auto counted = [&evaluations, counts](auto evaluate) -> any_denoiser {
          return [evaluate = std::move(evaluate), &evaluations, counts](
                     view<const double> x, double sigma, view<double> denoised) mutable {
            evaluate(x, sigma, denoised);
            evaluations += counts;
          };
        };
        if constexpr (denoiser<Denoise>)
          return counted(std::ref(denoise));
        else
          return counted(denoise(batch.count));
      });
  result.evaluations = {evaluations};
  return sampling::counted_alike(options.processes, std::move(result));
}

/// Draws a picture for each seed with a model's averaged weights.
/// @param weak evaluates the weak side of guidance (autoguidance); none: the model itself
/// without label, or with weak_context
/// @param backend that the sampler walks on, which reaches the models' memory
/// @throws value_error for parameters out of range, numeric_error when the network's result is
/// not finite (saying evaluation, sigma and stage)
template <class Sampler, class Backend = cpu>
sampling_result sample(const any_model& model,
                       const Sampler& method,
                       const sampling_options& options = {},
                       const any_model* weak = nullptr,
                       Backend backend = Backend()) {
  const auto visit = model.use();
  check(options);
  const Sampler sampler = sampling::told_of(method, model.stages());
  sampler.sigmas();  // what is wrong with it is said first
  sampling::check_for(model, weak, options);
  sampling::check_pictures(options, model.images(1).size());
  require<value_error>(model.on_host() == Backend::on_host, "sample: the sampler walks on ",
                       Backend::name, ", the model computes on ", model.backend_name(),
                       ", whose memory is another; give sample that backend");
  int augmented = 0;
  if constexpr (requires { sampler.augmented; })
    augmented = sampler.augmented;
  sampling::warn_of(model.trained(), options, weak != nullptr, augmented);
  const sampling::picture_classes classes = sampling::classes_of(model, options);
  evaluation_counter counter{model.stages()};
  sampling_result result =
      sampling::draw(backend, model.images(1), sampler, model.stages(), options,
                     [&](const sampling::batch_rows& batch, bool counts) {
                       return sampling::denoiser_of(model, weak, backend, options, classes,
                                                    batch, counts ? &counter : nullptr);
                     });
  result.evaluations = counter.by_stage;
  result.encoder_evaluations = counter.encoder;
  return sampling::counted_alike(options.processes, std::move(result));
}
/// The same of a model whose type is known, on the backend that it computes on.
template <class Scalar, class Backend, class Sampler>
sampling_result sample(dynamic_model<Scalar, Backend>& model,
                       const Sampler& method,
                       const sampling_options& options = {},
                       dynamic_model<Scalar, Backend>* weak = nullptr) {
  std::optional<any_model> other;
  if (weak != nullptr)
    other.emplace(std::ref(*weak));
  return sample(any_model(std::ref(model)), method, options, other ? &*other : nullptr,
                model.backend());
}

}  // namespace multistage
