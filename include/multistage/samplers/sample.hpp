// Pictures from seeds: each seed's latents and noise are its own streams of random numbers, so that a picture depends on its seed alone,
// not on the batch it is drawn in, the threads or the backend.
#pragma once
#include <charconv>
#include <functional>
#include <string_view>

#include "../diffusion/guidance.hpp"
#include "../diffusion/model.hpp"
#include "edm_heun.hpp"

namespace multistage {

/// Seeds from text like "0-63,70": single numbers and ranges, in that order. @throws value_error for anything else, or more than 10^7.
inline std::vector<std::uint64_t> parse_seeds(std::string_view text) {
  std::vector<std::uint64_t> seeds;
  const std::string_view all = text;
  const auto number = [&] {
    std::uint64_t v = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), v);
    require<value_error>(status == std::errc(), "seeds: '", all, "' is not a list like 0-63,70");
    text.remove_prefix(std::size_t(end - text.data()));
    return v;
  };
  while (!text.empty()) {
    const std::uint64_t first = number();
    std::uint64_t last = first;
    if (!text.empty() && text.front() == '-') {
      text.remove_prefix(1);
      last = number();
    }
    require<value_error>(last >= first && last - first < 10'000'000 && seeds.size() + (last - first) < 10'000'000, "seeds: '", all,
                         "' holds a range that descends or more than 10000000 seeds");
    for (std::uint64_t s = first;; ++s) {
      seeds.push_back(s);
      if (s == last) break;
    }
    if (text.empty()) break;
    require<value_error>(text.front() == ',' && text.size() > 1, "seeds: '", all, "' is not a list like 0-63,70");
    text.remove_prefix(1);
  }
  require<value_error>(!seeds.empty(), "seeds: the list is empty; give at least one, e.g. 0-63");
  return seeds;
}

namespace functor {
/// d = mask known + (1 - mask) d
struct blend {
  const double *known, *mask;
  double* d;
  MULTISTAGE_HD void operator()(index_t i) const { d[i] = mask[i] * known[i] + (1 - mask[i]) * d[i]; }
};
}  // namespace functor

/// What an observer sees at a step: host copies of what it asks for.
struct sampling_step {
  index_t batch_first = 0;  // the first row of this batch among all seeds
  int step = 0, stage = 0;
  double sigma = 0;
  std::function<std::vector<double>()> x, denoised;  // [rows, h, w, c]
};

/// The shared encoder's features taken over from step to step (Faster Diffusion: Li et al., arXiv 2312.09608): of `every` evaluations in a row the first
/// runs the encoder, the others the stage's decoder alone, on features that are then a little old. Cheaper the larger the encoder's part; its error grows
/// with the distance between levels, so it may be limited to an interval of them. Off by default.
struct encoder_reuse {
  int every = 1;
  double sigma_low = 0, sigma_high = HUGE_VAL;  // acts for sigma in (sigma_low, sigma_high]
};

struct sampling_options {
  std::string_view seeds = "0";
  index_t batch = 64;
  int class_label = -1;                                 // for models with labels; -1: none
  std::vector<double> context = {}, weak_context = {};  // [context_tokens, context_dim], for models that have one: the same for all pictures
  guidance guide = {};
  encoder_reuse reuse = {};
  std::vector<double> from = {};                            // [h, w, c]: image-to-image; pictures start from it with the sampler's first noise level added
  std::vector<double> known = {};                           // [h, w, c]: what is known of the picture (inpainting)
  std::vector<double> mask = {};                            // [h, w, c], 1 where it is known, 0 where it is to be drawn
  std::function<bool(const sampling_step&)> observer = {};  // returns whether to go on
};

/// Pictures [seeds, h, w, c] in host memory, and how often each stage's network was evaluated (rows times evaluations).
struct sampling_result {
  std::vector<double> images;
  shape extents{};
  std::vector<index_t> evaluations;  // by stage, per picture
  index_t encoder_evaluations = 0;   // how many of them ran the encoder
};

/// Draws a picture for each seed with the model's averaged weights. @param weak evaluates the weak side of guidance (autoguidance); without it
/// that is the model itself without label, or with weak_context. @throws value_error for parameters out of range, numeric_error
/// when the network's result is not finite (saying step, sigma and stage).
template <class Scalar, class Backend, class Sampler>
sampling_result sample(dynamic_model<Scalar, Backend>& model, const Sampler& sampler, const sampling_options& options = {},
                       dynamic_model<Scalar, Backend>* weak = nullptr) {
  const std::vector<std::uint64_t> seeds = parse_seeds(options.seeds);
  require<value_error>(options.batch >= 1, "sample: batch = ", options.batch, "; it must be at least 1");
  Backend& b = model.backend();
  const index_t total = index_t(seeds.size()), size = model.images(1).row_size();
  const double start = [&] {
    if constexpr (requires { sampler.start_scale(); })
      return sampler.start_scale();
    else
      return sampler.sigmas().front();
  }();
  sampling_result result{{}, model.images(total), std::vector<index_t>(std::size_t(model.stage_count()), 0)};
  tensor<Scalar, Backend> labels;
  const index_t label_dim = model.label_dim(input_slot::class_labels);
  require<value_error>(options.class_label >= -1 && options.class_label < std::max<index_t>(label_dim, 0), "sample: class_label = ", options.class_label,
                       ", the model knows ", label_dim, " classes");
  const auto like_a_picture = [&](const char* name, const std::vector<double>& v) {
    require<shape_error>(v.empty() || index_t(v.size()) == size, "sample: ", name, " has ", v.size(), " values, a picture has ", size);
  };
  like_a_picture("from", options.from);
  like_a_picture("known", options.known);
  like_a_picture("mask", options.mask);
  require<value_error>(options.known.empty() == options.mask.empty(), "sample: known and mask go together; give both or neither");
  const index_t context_size = model.label_dim(input_slot::context);
  for (const std::vector<double>* c : {&options.context, &options.weak_context})
    require<shape_error>(c->empty() || index_t(c->size()) == context_size, "sample: a context of ", c->size(), " values, the model takes ", context_size);
  require<shape_error>(weak == nullptr || weak->images(1) == model.images(1), "sample: the weak model's pictures are ", weak ? weak->images(1) : shape{},
                       ", the model's ", model.images(1));
  require<value_error>(options.reuse.every >= 1, "sample: reuse.every = ", options.reuse.every, "; it is at least 1 (no reuse)");
  const auto spread = [&](const std::vector<double>& context, index_t rows) {  // one context for every row
    tensor<Scalar, Backend> t(b, {rows, 1, 1, context_size});
    std::vector<Scalar> host;
    for (index_t r = 0; r < rows; ++r) host.insert(host.end(), context.begin(), context.end());
    b.upload(host.data(), t.data(), index_t(host.size()));
    return t;
  };
  for (index_t first = 0; first < total; first += options.batch) {
    const index_t rows = std::min(options.batch, total - first);
    tensor<double, Backend> x(b, model.images(rows));
    conditioning<Scalar> given, weakly;
    tensor<Scalar, Backend> context, weak_context;
    if (!options.context.empty()) given.context = (context = spread(options.context, rows)).data();
    if (!options.weak_context.empty()) weakly.context = (weak_context = spread(options.weak_context, rows)).data();
    if (options.class_label >= 0) {
      std::vector<Scalar> one_hot(std::size_t(rows * label_dim), Scalar(0));
      for (index_t r = 0; r < rows; ++r) one_hot[r * label_dim + options.class_label] = Scalar(1);
      labels = tensor<Scalar, Backend>(b, {rows, 1, 1, label_dim}, one_hot);
      given.class_labels = labels.data();
    }
    const auto draw = [&](purpose use, std::uint64_t step, view<double> z) {
      for (index_t r = 0; r < rows; ++r) fill_normal(b, random_stream(seeds[first + r], use, step), size, z.data + r * size);
    };
    draw(purpose::latents, 0, x.view());
    ops::linear_combination<Backend, double>(b, x.size(), x.data(), {{start, x.data()}});
    tensor<double, Backend> known, mask;
    const auto every_row = [&](const std::vector<double>& picture) {
      tensor<double, Backend> t(b, model.images(rows));
      for (index_t r = 0; r < rows; ++r) b.upload(picture.data(), t.data() + r * size, size);
      return t;
    };
    if (!options.from.empty()) {
      const auto y = every_row(options.from);
      ops::linear_combination<Backend, double>(b, x.size(), x.data(), {{1, x.data()}, {1, y.data()}});
    }
    if (!options.mask.empty()) {
      known = every_row(options.known);
      mask = every_row(options.mask);
    }
    std::vector<double> sigmas(std::size_t(rows), 0.0);
    int evaluation = 0, age = 0;  // age: of the kept features, in evaluations
    tensor<double, Backend> second;
    const auto denoise = [&](view<const double> at, double sigma, view<double> d) {
      std::fill(sigmas.begin(), sigmas.end(), sigma);
      const int stage = model.stages().stage(sigma);
      const double w = options.guide.at(sigma, stage);
      shared_features features = shared_features::compute;
      // Without another model, guidance's two sides take turns in one network, and neither finds its own features again.
      if (options.reuse.every > 1 && sigma > options.reuse.sigma_low && sigma <= options.reuse.sigma_high && (w == 1 || weak))
        features = age++ % options.reuse.every == 0 ? shared_features::keep : shared_features::take_over;
      else
        age = 0;
      model.denoise(at, sigmas, d, given, rows, features);
      if (first == 0) ++result.evaluations[stage], result.encoder_evaluations += features != shared_features::take_over;
      if (w != 1) {
        if (second.size() == 0) second = tensor<double, Backend>(b, model.images(rows));
        if (weak)
          weak->denoise(at, sigmas, second.view(), given, rows);
        else
          model.denoise(at, sigmas, second.view(), weakly, rows);
        if (first == 0) ++result.evaluations[stage], ++result.encoder_evaluations;
        ops::linear_combination<Backend, double>(b, d.extents.size(), d.data, {{w, d.data}, {1 - w, second.data()}});
      }
      ++evaluation;
      // The denoised picture is what is known where it is known: x follows it there.
      if (mask.size() > 0) b.for_each_index(d.extents.size(), functor::blend{known.data(), mask.data(), d.data});
      require<numeric_error>(std::isfinite(ops::sum<Backend, double>(b, view<const double>(d))), "sample: the network's result is not finite at evaluation ",
                             evaluation, ", sigma ", sigma, ", stage ", stage, "; was the model trained, and on images in [-1, 1]?");
    };
    bool go_on = true;
    sampler(
        b, x.view(), denoise, [&](int step, view<double> z) { draw(purpose::churn, std::uint64_t(step), z); },
        [&](int step, double sigma, view<const double> at, view<const double> d) {
          const auto host = [&b](view<const double> v) {
            std::vector<double> h(static_cast<std::size_t>(v.extents.size()));
            b.download(v.data, h.data(), v.extents.size());
            return h;
          };
          if (options.observer) go_on = options.observer({first, step, model.stages().stage(sigma), sigma, [=] { return host(at); }, [=] { return host(d); }});
          return go_on;
        });
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
