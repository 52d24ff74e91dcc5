// Latents that are kept as means and log variances: each time a training step asks for one, it
// is drawn anew (Kingma and Welling, arXiv 1312.6114), z = mean + exp(logvar / 2) n with n a
// function of (seed, step, row of the batch).
//
//   image_transform drawn = draw_moments{};            // what a trainer takes with its images
//   image_source once = one_draw_each(moments);        // for what reads each image once
#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../core/error.hpp"
#include "image_source.hpp"
#include "transform.hpp"

namespace multistage {

/// A transform of moments [h, w, 2 c], means before log variances, to latents [h, w, c]. Log
/// variances are clamped to [-30, 20].
struct draw_moments {
  /// @throws shape_error for an odd number of channels
  MULTISTAGE_COLD bound_transform bind(const shape& moments) const {
    require<shape_error>(moments.channels % 2 == 0 && moments.channels > 0,
                         "draw_moments: moments ", moments,
                         " have an odd number of channels; means and log variances are "
                         "expected, as many of each");
    shape latent = moments;
    latent.channels /= 2;
    return {latent, 0,
            [latent](const float* from, const step_numbers& numbers, index_t row, float* to,
                     float*) {
              const random_stream normals = numbers.of(purpose::moments);
              const index_t size = latent.row_size();
              const index_t channels = latent.channels;
              for (index_t i = 0; i < size; ++i) {
                const float* const mean = from + i / channels * 2 * channels + i % channels;
                const double log_variance = std::clamp(double(mean[channels]), -30.0, 20.0);
                const double n = normals.normal(std::uint64_t(row * size + i));
                to[i] = float(double(*mean) + std::exp(0.5 * log_variance) * n);
              }
            }};
  }
};

/// A set of moments as latents, each image's draw always the same: what clusterings, figures
/// and measures look at. Any other set stays as it is. @throws shape_error
MULTISTAGE_COLD inline image_source one_draw_each(image_source images) {
  if (images.kind != image_values::moments)
    return images;
  const bound_transform draw = draw_moments{}.bind(images.extents);
  const index_t before = images.extents.row_size();
  const index_t after = draw.extents.row_size();
  images.extents.channels = draw.extents.channels;
  images.kind = image_values::latents;
  images.read = [=, read = std::move(images.read)](std::span<const index_t> rows, float* to) {
    std::vector<float> moments(rows.size() * std::size_t(before));
    read(rows, moments.data());
    for (std::size_t r = 0; r < rows.size(); ++r)
      draw.apply(moments.data() + index_t(r) * before, {}, rows[r], to + index_t(r) * after,
                 nullptr);
  };
  return images;
}

}  // namespace multistage
