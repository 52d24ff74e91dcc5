// Pictures by a way to draw that is data: a sampler by name, its options as JSON, steps by
// stage, the encoder's reuse.
//
//   const drawn_pictures p = draw_pictures(model, {.sampler = "unipc"}, "0-255", {});
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../core/stopwatch.hpp"
#include "../diffusion/latent_decoder.hpp"
#include "../samplers/by_name.hpp"
#include "../samplers/sample.hpp"
#include "../samplers/steps_by_stage.hpp"
#include "experiment.hpp"

namespace multistage {

/// Pictures, and what they took.
struct drawn_pictures {
  std::vector<float> values;        ///< [n, h, w, c] in [-1, 1]
  shape extents{};                  ///< of them
  std::vector<double> evaluations;  ///< of a picture, by stage
  double encoder_evaluations = 0;   ///< how many of them ran the shared encoder
  double seconds = 0;               ///< of all of them, decoding aside
};

namespace detail {

/// A sampler with its options. @throws value_error for options that it has not
template <class Sampler>
Sampler configured(Sampler sampler, const drawing& d, const partition& stages) {
  read_fields(d.options, "drawing by " + d.sampler, sampler);
  if (d.steps_by_stage.empty())
    return sampler;
  if constexpr (walks_levels<Sampler>) {
    const std::vector<int> steps(d.steps_by_stage.begin(), d.steps_by_stage.end());
    return steps_by_stage(std::move(sampler), stages, steps);
  } else {
    fail<value_error>("drawing by ", d.sampler, ": it has no steps_by_stage");
  }
}

}  // namespace detail

/// @param seeds of the pictures. @param decoder of latents; none: the model draws pictures.
/// @throws value_error for a sampler that is unknown, or options that it has not; numeric_error
template <class Scalar, class Backend>
drawn_pictures draw_pictures(dynamic_model<Scalar, Backend>& model,
                             const drawing& d,
                             const std::string& seeds,
                             const std::optional<latent_decoder>& decoder) {
  std::optional<sampling_result> result;
  double seconds = 0;
  const sampling_options options{
      .seeds = seeds,
      .reuse = {.every = d.encoder_every, .sigma_low = d.encoder_low},
      .clip = decoder ? clipping::none : clipping::pictures};
  for_each_sampler([&](const char* name, const auto& sampler) {
    if (d.sampler != name)
      return;
    const auto own = detail::configured(sampler, d, model.stages());
    const stopwatch whole;
    result = sample(model, own, options);
    seconds = whole.seconds();
  });
  require<value_error>(result.has_value(), "drawing: sampler '", d.sampler,
                       "' is unknown; known: ", sampler_names());
  drawn_pictures p;
  p.extents = result->extents;
  p.seconds = seconds;
  p.evaluations.assign(result->evaluations.begin(), result->evaluations.end());
  p.encoder_evaluations = double(result->encoder_evaluations);
  if (decoder) {
    result->images = (*decoder)(result->images, result->extents);
    p.extents = decoder->extents(result->extents);
    for (double& v : result->images)
      v = std::clamp(v, -1.0, 1.0);
  }
  p.values.assign(result->images.begin(), result->images.end());
  return p;
}

}  // namespace multistage
