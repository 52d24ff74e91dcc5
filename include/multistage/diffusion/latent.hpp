// Autoencoders at work: images to latent images and back (Rombach et al., arXiv 2112.10752,
// section 3.1), and the gradients of their losses,
//   VQ: mean (D(zq) - x)^2 + beta mean |sg(zq) - z|^2 + mean |zq - sg(z)|^2      KL: mean (D(z)
//   - x)^2 + kl_weight mean_rows KL.
// A diffusion model is trained on scale_factor times the latent image, with scale_factor = 1 /
// (standard deviation of the latent values).
//
// Weights of encoder, decoder and codebook lie in one flat array, so that an optimiser sees
// one.
#pragma once
#include <numeric>

#include "../graph/executor.hpp"
#include "../graph/parameters.hpp"
#include "../networks/autoencoder.hpp"
#include "../ops/gaussian.hpp"
#include "../ops/quantize.hpp"
#include "../ops/reduce.hpp"

namespace multistage {

/// What one differentiation of an autoencoder found; host memory, NHWC.
template <class T>
struct autoencoder_report {
  std::vector<T> moments;  ///< [rows, h, w, embed_dim] (VQ: z) or twice as many channels (KL)
  std::vector<T> latent;   ///< what is decoded: zq, or the sample
  std::vector<index_t> indices;  ///< VQ: code of each pixel
  std::vector<double> kl;        ///< KL: divergence of each row
  std::vector<T> decoded;        ///< what the decoder makes of them, like the images
  double latent_loss = 0;        ///< of the codes or of the divergences, weighted
  double loss = 0;               ///< all of it: latent_loss and the mean square of decoded - x
};

/// An autoencoder with weights: those of the encoder, the decoder and the codebook, one after
/// the other in one flat memory, so that an optimiser sees a single tensor. Not thread-safe.
template <class Scalar, class Backend>
class autoencoder_model {
 public:
  /// @throws value_error when the configuration does not fit together.
  autoencoder_model(Backend backend, const autoencoder& config, std::uint64_t seed)
      : autoencoder_model(std::move(backend),
                          config,
                          recorded(config, true),
                          recorded(config, false),
                          seed) {}

  /// Its settings.
  const autoencoder& config() const {
    return config_;
  }
  /// Encoder, decoder and codebook, one after the other.
  tensor<Scalar, Backend>& weights() {
    return weights_;
  }
  /// Where it computes.
  Backend& backend() {
    return backend_;
  }
  /// Latent values are multiplied by this before diffusion, and divided by it before decoding.
  double scale_factor() const {
    return scale_factor_;
  }
  /// @throws value_error unless it is above 0
  void set_scale_factor(double s) {
    require<value_error>(s > 0 && std::isfinite(s), "autoencoder: scale_factor = ", s,
                         " must be above 0");
    scale_factor_ = s;
  }
  /// Extents of a batch of pictures.
  shape images(index_t rows) const {
    return {rows, config_.resolution, config_.width(), config_.channels};
  }
  /// Extents of a batch of latent images.
  shape latents(index_t rows) const {
    return {rows, config_.latent_height(), config_.latent_width(), config_.embed_dim};
  }
  /// Extents of what the encoder returns: latent images, or means and log variances.
  shape moments(index_t rows) const {
    shape s = latents(rows);
    if (config_.kind == latent_kind::kl)
      s.channels *= 2;
    return s;
  }

  /// Calls f(name, parameter, offset in the flat memory) for every tensor, names as upstream
  /// has them.
  template <class F>
  void for_each_parameter(F&& f) const {
    const auto part = [&](const graph& g, const std::vector<std::string>& names,
                          index_t start) {
      for (std::size_t k = 0; k < g.parameters.size(); ++k)
        f(names[k], g.parameters[k], start + g.parameters[k].offset);
    };
    part(encoder_.network(), encoder_names_, 0);
    part(decoder_.network(), decoder_names_, decoder_start());
    if (config_.kind == latent_kind::vq)
      f(std::string("quantize.embedding.weight"), codebook(), codes_start());
  }

  /// The latent image of pictures x [rows, h, w, c] in [-1, 1], scaled by scale_factor: codes
  /// (VQ), or a sample with `noise` like z, or the mean without (KL). @throws shape_error
  void encode(view<const Scalar> x, view<Scalar> z, view<const Scalar> noise = {}) {
    const index_t rows = x.extents.rows;
    ops::expect("encode", "x", x, images(rows));
    ops::expect("encode", "z", z, latents(rows));
    tensor<Scalar, Backend> m(backend_, moments(rows));
    run(encoder_, weights_.data(), x.data, rows, m.data());
    if (config_.kind == latent_kind::vq) {
      tensor<index_t, Backend> index(backend_, {rows, z.extents.height, z.extents.width, 1});
      ops::quantize<Backend, Scalar>(backend_, std::as_const(m).view(), codes(weights_),
                                     index.data(), z);
    } else
      ops::sample_gaussian<Backend, Scalar>(backend_, std::as_const(m).view(), noise, z);
    scale(z.data, z.extents.size(), scale_factor_);
  }
  /// Pictures x of latent images z, which are divided by scale_factor first; with a codebook
  /// and `quantize`, pixels snap to their codes.
  void decode(view<const Scalar> z, view<Scalar> x, bool quantize = true) {
    const index_t rows = z.extents.rows;
    ops::expect("decode", "z", z, latents(rows));
    ops::expect("decode", "x", x, images(rows));
    tensor<Scalar, Backend> from(backend_, latents(rows)), snapped(backend_, latents(rows));
    ops::linear_combination<Backend, Scalar>(backend_, from.size(), from.data(),
                                             {{Scalar(1 / scale_factor_), z.data}});
    const bool snaps = config_.kind == latent_kind::vq && quantize;
    if (snaps) {
      tensor<index_t, Backend> index(backend_, {rows, z.extents.height, z.extents.width, 1});
      ops::quantize<Backend, Scalar>(backend_, std::as_const(from).view(), codes(weights_),
                                     index.data(), snapped.view());
    }
    run(decoder_, weights_.data() + decoder_start(), snaps ? snapped.data() : from.data(), rows,
        x.data);
  }
  /// Measures scale_factor on pictures: 1 / (standard deviation of their latent values), as
  /// latent diffusion does with its first batch.
  double measure_scale_factor(view<const Scalar> x) {
    scale_factor_ = 1;
    tensor<Scalar, Backend> z(backend_, latents(x.extents.rows));
    encode(x, z.view());
    const std::vector<Scalar> values = z.to_host();
    const double mean =
        std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
    double square = 0;
    for (const Scalar v : values)
      square += (double(v) - mean) * (double(v) - mean);
    set_scale_factor(1 / std::sqrt(square / double(values.size())));
    return scale_factor_;
  }

  /// Adds the gradient of the loss on pictures x to `gradients`, laid out like the weights.
  /// @param noise like the latent image (KL).
  autoencoder_report<Scalar> differentiate(view<const Scalar> x,
                                           view<const Scalar> noise,
                                           Scalar* gradients,
                                           std::optional<random_stream> dropout = {}) {
    const index_t rows = x.extents.rows;
    ops::expect("differentiate", "x", x, images(rows));
    const bool vq = config_.kind == latent_kind::vq;
    if (!vq)
      ops::expect("differentiate", "noise", noise, latents(rows));
    autoencoder_report<Scalar> r;
    tensor<Scalar, Backend> z(backend_, latents(rows)), dz(backend_, latents(rows));
    tensor<index_t, Backend> index(backend_, {rows, z.extents().height, z.extents().width, 1});
    tensor<double, Backend> kl(backend_, {rows, 1, 1, 1});
    network_inputs<Scalar> in;
    in[input_slot::image] = x.data;
    encoder_.differentiate(
        weights_.data(), gradients, in, {rows},
        [&](int, index_t, index_t, const Scalar* m, Scalar* dm) {
          const view<const Scalar> latent(m, moments(rows));
          r.moments = host(m, latent.extents.size());
          if (vq)
            ops::quantize<Backend, Scalar>(backend_, latent, codes(weights_), index.data(),
                                           z.view());
          else
            ops::sample_gaussian<Backend, Scalar>(backend_, latent, noise, z.view());
          r.latent = z.to_host();
          r.loss = decode_and_differentiate(x, z, dz, gradients, r, dropout);
          if (vq) {
            ops::quantize_backward<Backend, Scalar>(
                backend_, latent, codes(weights_), index.data(), std::as_const(z).view(),
                std::as_const(dz).view(), config_.commitment_beta,
                view<Scalar>(dm, latent.extents), codes_of(gradients));
            r.indices = index.to_host();
            double square = 0;
            for (std::size_t i = 0; i < r.latent.size(); ++i)
              square += std::pow(double(r.latent[i]) - double(r.moments[i]), 2);
            r.latent_loss = (1 + config_.commitment_beta) * square / double(r.latent.size());
          } else {
            const double weight = config_.kl_weight / double(rows);
            ops::gaussian_divergence<Backend, Scalar>(backend_, latent, kl.data());
            ops::gaussian_backward<Backend, Scalar>(backend_, latent, noise,
                                                    std::as_const(dz).view(), weight,
                                                    view<Scalar>(dm, latent.extents));
            r.kl = kl.to_host();
            r.latent_loss = weight * std::accumulate(r.kl.begin(), r.kl.end(), 0.0);
          }
        },
        {.dropout = dropout});
    r.loss += r.latent_loss;
    return r;
  }

 private:
  static described_network recorded(const autoencoder& a, bool encoder) {
    check_settings(a);
    recorder<name_list> b;
    encoder ? describe_encoder(b, a) : describe_decoder(b, a);
    return detail::finish(b);
  }
  autoencoder_model(Backend backend,
                    const autoencoder& config,
                    described_network encoder,
                    described_network decoder,
                    std::uint64_t seed)
      : backend_(std::move(backend)),
        config_(config),
        encoder_names_(std::move(encoder.names)),
        decoder_names_(std::move(decoder.names)),
        encoder_(backend_, std::move(encoder.structure)),
        decoder_(backend_, std::move(decoder.structure)),
        weights_(backend_,
                 {1, 1, 1,
                  codes_start() + (config.kind == latent_kind::vq ? codebook().size() : 0)}) {
    std::vector<Scalar> part;
    std::vector<Scalar> all;
    initialize(encoder_.network(), seed, part);
    all = part;
    initialize(decoder_.network(), seed + 1, part);
    all.insert(all.end(), part.begin(), part.end());
    all.resize(std::size_t(weights_.size()));
    const random_stream numbers(seed, purpose::weights, std::uint64_t{1} << 40);
    for (index_t i = codes_start(); i < weights_.size(); ++i)
      all[i] = Scalar((2 * numbers.uniform(i - codes_start()) - 1) / config_.n_embed);
    backend_.upload(all.data(), weights_.data(), weights_.size());
  }

  index_t decoder_start() const {
    return encoder_.network().parameter_elements;
  }
  index_t codes_start() const {
    return decoder_start() + decoder_.network().parameter_elements;
  }
  /// Codes lie in memory as upstream has them, [n_embed, embed_dim].
  parameter codebook() const {
    return {.layout = parameter_layout::linear_io,
            .out = config_.embed_dim,
            .in = config_.n_embed,
            .segment = 1};
  }
  shape codes_shape() const {
    return {1, 1, config_.n_embed, config_.embed_dim};
  }
  view<const Scalar> codes(const tensor<Scalar, Backend>& w) const {
    return {w.data() + codes_start(), codes_shape()};
  }
  view<Scalar> codes_of(Scalar* flat) const {
    return flat ? view<Scalar>(flat + codes_start(), codes_shape()) : view<Scalar>{};
  }

  void run(executor<Scalar, Backend>& e,
           const Scalar* weights,
           const Scalar* x,
           index_t rows,
           Scalar* out) {
    network_inputs<Scalar> in;
    in[input_slot::image] = x;
    e.forward(weights, in, {rows}, out);
  }
  void scale(Scalar* x, index_t n, double factor) {
    ops::linear_combination<Backend, Scalar>(backend_, n, x, {{Scalar(factor), x}});
  }
  std::vector<Scalar> host(const Scalar* from, index_t n) {
    std::vector<Scalar> h(static_cast<std::size_t>(n));
    backend_.download(from, h.data(), n);
    return h;
  }
  /// The reconstruction's loss; dz = its gradient with respect to z.
  double decode_and_differentiate(view<const Scalar> x,
                                  const tensor<Scalar, Backend>& z,
                                  tensor<Scalar, Backend>& dz,
                                  Scalar* gradients,
                                  autoencoder_report<Scalar>& r,
                                  std::optional<random_stream> dropout) {
    const index_t rows = x.extents.rows;
    const index_t n = x.extents.size();
    network_inputs<Scalar> in;
    in[input_slot::image] = z.data();
    differentiation<Scalar> asked{.dropout = dropout};
    if (asked.dropout)
      asked.dropout->stream ^= std::uint64_t{1} << 47;  // masks apart from the encoder's
    asked.input_gradients[std::size_t(input_slot::image)] = dz.data();
    double loss = 0;
    decoder_.differentiate(
        weights_.data() + decoder_start(), gradients ? gradients + decoder_start() : nullptr,
        in, {rows},
        [&](int, index_t, index_t, const Scalar* decoded, Scalar* gradient) {
          r.decoded = host(decoded, n);
          const Scalar factor = Scalar(2 / double(n));
          ops::linear_combination<Backend, Scalar>(backend_, n, gradient,
                                                   {{factor, decoded}, {-factor, x.data}});
          loss = ops::sum_of_squares<Backend, Scalar>(backend_,
                                                      view<const Scalar>(gradient, x.extents)) *
                 double(n) / 4;
        },
        asked);
    return loss;
  }

  Backend backend_;
  autoencoder config_;
  std::vector<std::string> encoder_names_;
  std::vector<std::string> decoder_names_;
  executor<Scalar, Backend> encoder_;
  executor<Scalar, Backend> decoder_;
  tensor<Scalar, Backend> weights_;
  double scale_factor_ = 1;
};

}  // namespace multistage
