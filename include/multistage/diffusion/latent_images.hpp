// A data set of pictures seen as one of latents: what diffusion in a latent space is trained
// on, what its stages are found on, what `encode` writes.
//
//   measure_scale_factor(model, pictures);
//   image_source latents = latent_images(model, pictures);
#pragma once
#include <algorithm>
#include <memory>

#include "../data/image_source.hpp"
#include "latent.hpp"

namespace multistage {

/// The latents of a data set's pictures, encoded when they are asked for: pixels before
/// quantisation (VQ), or means and log variances, from which training draws anew each time
/// (KL), scaled by the model's scale_factor. Labels and context stay. @param model must outlive
/// it. @param batch pictures encoded at once. @throws shape_error for pictures that are not the
/// model's
template <class Scalar, class Backend>
MULTISTAGE_COLD image_source latent_images(autoencoder_model<Scalar, Backend>& model,
                                           const image_source& pictures,
                                           index_t batch = 16) {
  const index_t n = pictures.extents.rows;
  require<shape_error>(pictures.extents == model.images(n), "encode: pictures are ",
                       pictures.extents, ", the autoencoder takes ", model.images(n),
                       "; resize them (prepare --size)");
  image_source latents = pictures;
  latents.extents = model.moments(n);
  latents.kind =
      model.config().kind == latent_kind::kl ? image_values::moments : image_values::latents;
  latents.finite = false;
  latents.fingerprint.clear();
  latents.read_bytes = {};
  latents.read = [&model, read = pictures.read, batch](std::span<const index_t> rows,
                                                       float* to) {
    const index_t of_picture = model.images(1).row_size();
    const index_t of_latent = model.moments(1).row_size();
    for (std::size_t at = 0; at < rows.size(); at += std::size_t(batch)) {
      const std::size_t some = std::min(std::size_t(batch), rows.size() - at);
      std::vector<float> host(some * std::size_t(of_picture));
      read(rows.subspan(at, some), host.data());
      const tensor<Scalar, Backend> x(model.backend(), model.images(index_t(some)),
                                      std::vector<Scalar>(host.begin(), host.end()));
      tensor<Scalar, Backend> m(model.backend(), model.moments(index_t(some)));
      model.encode_moments(x.view(), m.view());
      const std::vector<Scalar> values = m.to_host();
      std::copy(values.begin(), values.end(), to + index_t(at) * of_latent);
    }
  };
  return latents;
}

/// Sets the model's scale_factor to 1 / the standard deviation of latents (KL: of their draws,
/// variances included) of pictures spread evenly over a set. Returns it. @param most pictures
/// that are looked at. @throws value_error where all latents are alike
template <class Scalar, class Backend>
MULTISTAGE_COLD double measure_scale_factor(autoencoder_model<Scalar, Backend>& model,
                                            const image_source& pictures,
                                            index_t most = 4096) {
  model.set_scale_factor(1);
  const image_source latents = latent_images(model, pictures);
  const index_t n = std::min(most, latents.extents.rows);
  const index_t channels = model.config().embed_dim;
  const index_t period = latents.extents.channels;
  constexpr index_t batch = 64;
  double count = 0;
  double sum = 0;
  double squares = 0;
  for (index_t first = 0; first < n; first += batch) {
    std::vector<index_t> rows(static_cast<std::size_t>(std::min(batch, n - first)));
    for (std::size_t i = 0; i < rows.size(); ++i)
      rows[i] = (first + index_t(i)) * latents.extents.rows / n;
    std::vector<float> values(rows.size() * std::size_t(latents.extents.row_size()));
    latents.read(rows, values.data());
    for (std::size_t i = 0; i < values.size(); ++i)
      if (index_t(i) % period < channels) {
        count += 1;
        sum += double(values[i]);
        squares += double(values[i]) * double(values[i]);
      } else {
        const double log_variance = std::clamp(double(values[i]), -30.0, 20.0);
        squares += std::exp(log_variance);  // of the draws about their mean
      }
  }
  const double mean = sum / count;
  const double variance = squares / count - mean * mean;
  require<value_error>(variance > 0, "encode: the latents of ", n,
                       " pictures are all alike; the autoencoder has learnt nothing");
  model.set_scale_factor(1 / std::sqrt(variance));
  return model.scale_factor();
}

}  // namespace multistage
