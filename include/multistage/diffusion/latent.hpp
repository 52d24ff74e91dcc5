// Autoencoders at work: images to latent images and back (Rombach et al., arXiv 2112.10752,
// section 3.1), and the gradients of their losses,
//   VQ: mean (D(zq) - x)^2 + beta mean |sg(zq) - z|^2 + mean |zq - sg(z)|^2
//   KL: mean (D(z) - x)^2 + kl_weight mean_rows KL.
// A diffusion model is trained on scale_factor times the latent image, with scale_factor = 1 /
// (standard deviation of the latent values).
//
// Weights of encoder, decoder and codebook lie in one flat array, which an optimiser sees.
//
//   autoencoder_model<float, cpu> model(cpu(), autoencoder{.resolution = 64}, 1);
//   model.encode(pictures.view(), latents.view());       // [n, h, w, c] to [n, h', w', c']
//   model.decode(latents.cview(), pictures.view());      // and back
//
// The decoder's last layer is a network of its own behind the rest: a loss on its result
// may ask for the norm of its gradient by that layer's weights, which is how an adversarial
// loss is weighed against the others (arXiv 2012.09841, eq. 7; training/autoencoder_loss.hpp).
#pragma once
#include <numeric>

#include "../graph/executor.hpp"
#include "../graph/parameters.hpp"
#include "../networks/autoencoder.hpp"
#include "../ops/gaussian.hpp"
#include "../ops/quantize.hpp"
#include "../ops/reduce.hpp"
#include "autoencoder_report.hpp"

namespace multistage {

/// An autoencoder with weights: those of the encoder, the decoder and the codebook, one after
/// the other in one flat memory, so that an optimiser sees a single tensor. Not thread-safe.
template <class Scalar, class Backend>
class autoencoder_model {
 public:
  /// @throws value_error when the configuration does not fit together.
  autoencoder_model(Backend backend, const autoencoder& config, std::uint64_t seed);

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

  /// Every tensor of the flat memory: a graph of parameters alone, with upstream's names.
  MULTISTAGE_COLD described_network tensors() const;
  /// Calls f(name, parameter, offset in the flat memory) for every tensor.
  template <class F>
  void for_each_parameter(F&& f) const {
    const described_network all = tensors();
    for (std::size_t k = 0; k < all.names.size(); ++k) {
      const parameter& p = all.structure.parameters[k];
      f(all.names[k], p, p.offset);
    }
  }
  /// Where the codebook [n_embed, embed_dim] begins in the flat memory; its end without one.
  index_t codes_start() const {
    return end_start() + end_.network().parameter_elements;
  }

  /// The latent image of pictures x [rows, h, w, c] in [-1, 1], scaled by scale_factor: codes
  /// (VQ), or a sample with `noise` like z, or the mean without (KL). @throws shape_error
  void encode(view<const Scalar> x, view<Scalar> z, view<const Scalar> noise = {});
  /// What the encoder makes of pictures x, scaled by scale_factor: pixels before quantisation
  /// (VQ), or means and log variances of the scaled latent image (KL), like moments(rows). A
  /// diffusion model learns these: codes are looked up when it is decoded. @throws shape_error
  void encode_moments(view<const Scalar> x, view<Scalar> m);
  /// Pictures x of latent images z, which are divided by scale_factor first; with a codebook
  /// and `quantize`, pixels snap to their codes.
  void decode(view<const Scalar> z, view<Scalar> x, bool quantize = true);
  /// Bytes that decoding `rows` latent images takes beside them and the pictures, at most.
  index_t decoding_bytes(index_t rows) const {
    const index_t activations = body_.inference_plan().arena_elements(rows) +
                                end_.inference_plan().arena_elements(rows);
    const index_t between = hidden_shape(rows).size() + 2 * latents(rows).size();
    return (activations + between) * index_t(sizeof(Scalar));
  }
  /// Measures scale_factor on pictures: 1 / (standard deviation of their latent values), as
  /// latent diffusion does with its first batch.
  double measure_scale_factor(view<const Scalar> x);

  /// Adds the gradient of the loss on pictures x to `gradients`, laid out like the weights
  /// (null: not wanted).
  /// @param noise like the latent image (KL).
  autoencoder_report<Scalar> differentiate(view<const Scalar> x,
                                           view<const Scalar> noise,
                                           Scalar* gradients,
                                           std::optional<random_stream> dropout = {});
  /// The same with a loss of one's own in the place of the mean square.
  /// @param loss called once as loss(decoded, gradient, norm): returns the loss of pictures
  /// `decoded` and writes its gradient by them; norm(gradient) is the norm of the gradient by
  /// the weights of the decoder's last layer that such a gradient by `decoded` causes
  template <class Loss>
  autoencoder_report<Scalar> differentiate(view<const Scalar> x,
                                           view<const Scalar> noise,
                                           Scalar* gradients,
                                           std::optional<random_stream> dropout,
                                           Loss&& loss) {
    const index_t rows = x.extents.rows;
    ops::expect("differentiate", "x", x, images(rows));
    if (config_.kind == latent_kind::kl)
      ops::expect("differentiate", "noise", noise, latents(rows));
    autoencoder_report<Scalar> r;
    network_inputs<Scalar> in;
    in[input_slot::image] = x.data;
    const auto on_moments = [&](int, index_t, index_t, const Scalar* m, Scalar* dm) {
      const view<const Scalar> latent(m, moments(rows));
      const view<Scalar> dlatent(dm, moments(rows));
      r.moments = host(m, latent.extents.size());
      if (config_.kind == latent_kind::vq)
        through_codes(latent, dlatent, gradients, r, dropout, loss);
      else
        through_samples(latent, noise, dlatent, gradients, r, dropout, loss);
    };
    encoder_.differentiate(weights_.data(), gradients, in, {rows}, on_moments,
                           {.dropout = dropout});
    r.loss += r.latent_loss;
    return r;
  }

 private:
  autoencoder_model(Backend backend,
                    const autoencoder& config,
                    described_network encoder,
                    described_network body,
                    described_network end,
                    std::uint64_t seed);

  /// Where the parts of the decoder begin in the flat memory.
  index_t body_start() const {
    return encoder_.network().parameter_elements;
  }
  index_t end_start() const {
    return body_start() + body_.network().parameter_elements;
  }
  /// Of all parts and the codebook.
  index_t weight_count() const {
    const bool has_codes = config_.kind == latent_kind::vq;
    return codes_start() + (has_codes ? codebook().size() : 0);
  }
  /// Extents of what the decoder's last layer reads.
  shape hidden_shape(index_t rows) const {
    const graph& g = body_.network();
    return g.nodes[std::size_t(g.outputs[0])].out().of(rows);
  }
  /// Codes lie in memory as upstream has them, [n_embed, embed_dim].
  parameter codebook() const {
    return {.layout = parameter_layout::linear_io,
            .out = config_.embed_dim,
            .in = config_.n_embed,
            .segment = 1};
  }
  /// Of the codebook as a matrix, a row a code.
  shape codes_shape() const {
    return {1, 1, config_.n_embed, config_.embed_dim};
  }
  /// The codebook in memory laid out like the weights.
  view<const Scalar> codes(const tensor<Scalar, Backend>& w) const {
    return {w.data() + codes_start(), codes_shape()};
  }
  /// The codebook's part of flat memory that may be absent.
  view<Scalar> codes_of(Scalar* flat) const {
    return flat ? view<Scalar>(flat + codes_start(), codes_shape()) : view<Scalar>{};
  }

  /// A forward pass of one part: out = e(x).
  void run(executor<Scalar, Backend>& e,
           const Scalar* weights,
           const Scalar* x,
           index_t rows,
           Scalar* out) {
    network_inputs<Scalar> in;
    in[input_slot::image] = x;
    e.forward(weights, in, {rows}, out);
  }
  /// x *= factor
  void scale(Scalar* x, index_t n, double factor) {
    ops::linear_combination<Backend, Scalar>(backend_, n, x, {{Scalar(factor), x}});
  }
  /// n values, brought to the host.
  std::vector<Scalar> host(const Scalar* from, index_t n) {
    std::vector<Scalar> h(static_cast<std::size_t>(n));
    backend_.download(from, h.data(), n);
    return h;
  }
  /// The nearest codes of z = `latent`, what is lost on their pictures, and on themselves.
  template <class Loss>
  void through_codes(view<const Scalar> latent,
                     view<Scalar> dlatent,
                     Scalar* gradients,
                     autoencoder_report<Scalar>& r,
                     const std::optional<random_stream>& dropout,
                     Loss& loss) {
    tensor<Scalar, Backend> z(backend_, latent.extents);   // [rows, h, w, embed_dim]
    tensor<Scalar, Backend> dz(backend_, latent.extents);  // likewise
    tensor<index_t, Backend> index(
        backend_, {latent.extents.rows, latent.extents.height, latent.extents.width, 1});
    ops::quantize<Backend, Scalar>(backend_, latent, codes(weights_), index.data(), z.view());
    r.latent = z.to_host();
    r.loss = through_decoder(z, dz, gradients, r, dropout, loss);
    const double beta = config_.commitment_beta;
    ops::quantize_backward<Backend, Scalar>(backend_, latent, codes(weights_), index.data(),
                                            z.cview(), dz.cview(), beta, dlatent,
                                            codes_of(gradients));
    r.indices = index.to_host();
    double square = 0;
    for (std::size_t i = 0; i < r.latent.size(); ++i)
      square += std::pow(double(r.latent[i]) - double(r.moments[i]), 2);
    r.latent_loss = (1 + beta) * square / double(r.latent.size());
  }
  /// Samples of the moments, what is lost on their pictures, and the divergences.
  template <class Loss>
  void through_samples(view<const Scalar> latent,
                       view<const Scalar> noise,
                       view<Scalar> dlatent,
                       Scalar* gradients,
                       autoencoder_report<Scalar>& r,
                       const std::optional<random_stream>& dropout,
                       Loss& loss) {
    const index_t rows = latent.extents.rows;
    tensor<Scalar, Backend> z(backend_, latents(rows));   // [rows, h, w, embed_dim]
    tensor<Scalar, Backend> dz(backend_, latents(rows));  // likewise
    tensor<double, Backend> kl(backend_, {rows, 1, 1, 1});
    ops::sample_gaussian<Backend, Scalar>(backend_, latent, noise, z.view());
    r.latent = z.to_host();
    r.loss = through_decoder(z, dz, gradients, r, dropout, loss);
    const double weight = config_.kl_weight / double(rows);
    ops::gaussian_divergence<Backend, Scalar>(backend_, latent, kl.data());
    ops::gaussian_backward<Backend, Scalar>(backend_, latent, noise, dz.cview(), weight,
                                            dlatent);
    r.kl = kl.to_host();
    r.latent_loss = weight * std::accumulate(r.kl.begin(), r.kl.end(), 0.0);
  }
  /// The loss of what the decoder makes of z; dz = its gradient with respect to z.
  template <class Loss>
  double through_decoder(const tensor<Scalar, Backend>& z,
                         tensor<Scalar, Backend>& dz,
                         Scalar* gradients,
                         autoencoder_report<Scalar>& r,
                         const std::optional<random_stream>& dropout,
                         Loss& loss) {
    const index_t rows = z.extents().rows;
    network_inputs<Scalar> in;
    in[input_slot::image] = z.data();
    differentiation<Scalar> asked{.dropout = dropout};
    if (asked.dropout)
      asked.dropout->stream ^= std::uint64_t{1} << 47;  // masks apart from the encoder's
    asked.input_gradients[std::size_t(input_slot::image)] = dz.data();
    double found = 0;
    const auto on_hidden = [&](int, index_t, index_t, const Scalar* hidden, Scalar* dhidden) {
      const shape extents = hidden_shape(rows);
      found = through_last_layer({hidden, extents}, {dhidden, extents}, gradients, r, loss);
    };
    Scalar* const own = gradients ? gradients + body_start() : nullptr;
    body_.differentiate(weights_.data() + body_start(), own, in, {rows}, on_hidden, asked);
    return found;
  }
  /// The same of the last layer, which reads `hidden`.
  template <class Loss>
  double through_last_layer(view<const Scalar> hidden,
                            view<Scalar> dhidden,
                            Scalar* gradients,
                            autoencoder_report<Scalar>& r,
                            Loss& loss) {
    const index_t rows = hidden.extents.rows;
    const shape filter{3, 3, hidden.extents.channels, config_.channels};
    const view<const Scalar> weight(weights_.data() + end_start(), filter);
    const auto norm = [&](const Scalar* gradient) {
      const view<const Scalar> by_decoded(gradient, images(rows));
      tensor<Scalar, Backend> dweight(backend_, filter);
      ops::conv_backward<Backend, Scalar>(backend_, hidden, weight, by_decoded, {},
                                          dweight.view(), {});
      return std::sqrt(ops::sum_of_squares<Backend, Scalar>(backend_, dweight.cview()));
    };
    network_inputs<Scalar> in;
    in[input_slot::image] = hidden.data;
    differentiation<Scalar> asked;
    asked.input_gradients[std::size_t(input_slot::image)] = dhidden.data;  // added to
    ops::fill<Backend, Scalar>(backend_, dhidden, Scalar(0));
    double found = 0;
    const auto on_decoded = [&](int, index_t, index_t, const Scalar* decoded, Scalar* by_it) {
      const view<const Scalar> pictures(decoded, images(rows));
      const view<Scalar> gradient(by_it, images(rows));
      r.decoded = host(decoded, images(rows).size());
      found = loss(pictures, gradient, norm);
    };
    Scalar* const own = gradients ? gradients + end_start() : nullptr;
    end_.differentiate(weights_.data() + end_start(), own, in, {rows}, on_decoded, asked);
    return found;
  }

  Backend backend_;
  autoencoder config_;
  std::vector<std::string> encoder_names_;
  std::vector<std::string> body_names_;
  std::vector<std::string> end_names_;
  executor<Scalar, Backend> encoder_;
  executor<Scalar, Backend> body_;  // the decoder but for its last layer
  executor<Scalar, Backend> end_;   // that layer
  tensor<Scalar, Backend> weights_;
  double scale_factor_ = 1;
};

template <class Scalar, class Backend>
autoencoder_model<Scalar, Backend>::autoencoder_model(Backend backend,
                                                      const autoencoder& config,
                                                      std::uint64_t seed)
    : autoencoder_model(std::move(backend),
                        config,
                        record_part(config, autoencoder_part::encoder),
                        record_part(config, autoencoder_part::decoder_body),
                        record_part(config, autoencoder_part::decoder_end),
                        seed) {}

template <class Scalar, class Backend>
MULTISTAGE_COLD described_network autoencoder_model<Scalar, Backend>::tensors() const {
  described_network all;
  const auto add = [&](const std::string& name, parameter p, index_t start) {
    p.offset += start;
    all.structure.parameters.push_back(p);
    all.names.push_back(name);
  };
  const auto add_part = [&](const graph& g, const std::vector<std::string>& names,
                            index_t start) {
    for (std::size_t k = 0; k < g.parameters.size(); ++k)
      add(names[k], g.parameters[k], start);
  };
  add_part(encoder_.network(), encoder_names_, 0);
  add_part(body_.network(), body_names_, body_start());
  add_part(end_.network(), end_names_, end_start());
  if (config_.kind == latent_kind::vq)
    add("quantize.embedding.weight", codebook(), codes_start());
  all.structure.parameter_elements = weights_.size();
  return all;
}

template <class Scalar, class Backend>
void autoencoder_model<Scalar, Backend>::encode(view<const Scalar> x,
                                                view<Scalar> z,
                                                view<const Scalar> noise) {
  const index_t rows = x.extents.rows;
  ops::expect("encode", "x", x, images(rows));
  ops::expect("encode", "z", z, latents(rows));
  tensor<Scalar, Backend> m(backend_, moments(rows));
  run(encoder_, weights_.data(), x.data, rows, m.data());
  if (config_.kind == latent_kind::vq) {
    tensor<index_t, Backend> index(backend_, {rows, z.extents.height, z.extents.width, 1});
    ops::quantize<Backend, Scalar>(backend_, m.cview(), codes(weights_), index.data(), z);
  } else {
    ops::sample_gaussian<Backend, Scalar>(backend_, m.cview(), noise, z);
  }
  scale(z.data, z.extents.size(), scale_factor_);
}

template <class Scalar, class Backend>
void autoencoder_model<Scalar, Backend>::encode_moments(view<const Scalar> x, view<Scalar> m) {
  const index_t rows = x.extents.rows;
  ops::expect("encode_moments", "x", x, images(rows));
  ops::expect("encode_moments", "m", m, moments(rows));
  run(encoder_, weights_.data(), x.data, rows, m.data);
  if (config_.kind == latent_kind::vq)
    return scale(m.data, m.extents.size(), scale_factor_);
  const ops::functor::scaled_moments<Scalar> scaled{
      .moments = m.data,
      .channels = config_.embed_dim,
      .factor = scale_factor_,
      .log_square = 2 * std::log(scale_factor_),
  };
  backend_.for_each_index(m.extents.size(), scaled);
}

template <class Scalar, class Backend>
void autoencoder_model<Scalar, Backend>::decode(view<const Scalar> z,
                                                view<Scalar> x,
                                                bool quantize) {
  const index_t rows = z.extents.rows;
  ops::expect("decode", "z", z, latents(rows));
  ops::expect("decode", "x", x, images(rows));
  tensor<Scalar, Backend> from(backend_, latents(rows));
  tensor<Scalar, Backend> snapped(backend_, latents(rows));
  ops::linear_combination<Backend, Scalar>(backend_, from.size(), from.data(),
                                           {{Scalar(1 / scale_factor_), z.data}});
  const bool snaps = config_.kind == latent_kind::vq && quantize;
  if (snaps) {
    tensor<index_t, Backend> index(backend_, {rows, z.extents.height, z.extents.width, 1});
    ops::quantize<Backend, Scalar>(backend_, from.cview(), codes(weights_), index.data(),
                                   snapped.view());
  }
  const Scalar* const decoded = snaps ? snapped.data() : from.data();
  tensor<Scalar, Backend> hidden(backend_, hidden_shape(rows));
  run(body_, weights_.data() + body_start(), decoded, rows, hidden.data());
  run(end_, weights_.data() + end_start(), hidden.data(), rows, x.data);
}

template <class Scalar, class Backend>
double autoencoder_model<Scalar, Backend>::measure_scale_factor(view<const Scalar> x) {
  scale_factor_ = 1;
  tensor<Scalar, Backend> z(backend_, latents(x.extents.rows));
  encode(x, z.view());
  const std::vector<Scalar> values = z.to_host();
  const double count = double(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double square = 0;
  for (const Scalar v : values)
    square += (double(v) - mean) * (double(v) - mean);
  set_scale_factor(1 / std::sqrt(square / count));
  return scale_factor_;
}

template <class Scalar, class Backend>
autoencoder_report<Scalar> autoencoder_model<Scalar, Backend>::differentiate(
    view<const Scalar> x,
    view<const Scalar> noise,
    Scalar* gradients,
    std::optional<random_stream> dropout) {
  const auto mean_square = [&](view<const Scalar> decoded, view<Scalar> gradient, const auto&) {
    const index_t n = x.extents.size();
    const Scalar factor = Scalar(2 / double(n));
    ops::linear_combination<Backend, Scalar>(backend_, n, gradient.data,
                                             {{factor, decoded.data}, {-factor, x.data}});
    return ops::sum_of_squares<Backend, Scalar>(backend_, view<const Scalar>(gradient)) *
           double(n) / 4;
  };
  return differentiate(x, noise, gradients, dropout, mean_square);
}

template <class Scalar, class Backend>
autoencoder_model<Scalar, Backend>::autoencoder_model(Backend backend,
                                                      const autoencoder& config,
                                                      described_network encoder,
                                                      described_network body,
                                                      described_network end,
                                                      std::uint64_t seed)
    : backend_(std::move(backend)),
      config_(config),
      encoder_names_(std::move(encoder.names)),
      body_names_(std::move(body.names)),
      end_names_(std::move(end.names)),
      encoder_(backend_, std::move(encoder.structure)),
      body_(backend_, std::move(body.structure)),
      end_(backend_, std::move(end.structure)),
      weights_(backend_, {1, 1, 1, weight_count()}) {
  std::vector<Scalar> all;
  const auto append = [&](const graph& g, std::uint64_t of) {
    std::vector<Scalar> own;
    initialize(g, of, own);
    all.insert(all.end(), own.begin(), own.end());
  };
  append(encoder_.network(), seed);
  // The decoder's numbers are those of one network, whose last two parameters are the end's.
  graph decoder = body_.network();
  for (parameter p : end_.network().parameters) {
    p.offset += decoder.parameter_elements;
    decoder.parameters.push_back(p);
  }
  decoder.parameter_elements += end_.network().parameter_elements;
  append(decoder, seed + 1);
  all.resize(std::size_t(weights_.size()));
  // Codes begin uniform within 1 / n_embed.
  const random_stream numbers(seed, purpose::weights, std::uint64_t{1} << 40);
  const index_t first = codes_start();
  for (index_t i = first; i < weights_.size(); ++i) {
    const double place = 2 * numbers.uniform(i - first) - 1;
    all[std::size_t(i)] = Scalar(place / config_.n_embed);
  }
  backend_.upload(all.data(), weights_.data(), weights_.size());
}

}  // namespace multistage
