// Training of an autoencoder of latent diffusion (Esser et al., arXiv 2012.09841; Rombach et
// al., arXiv 2112.10752, section 3.1 and appendix G). A step is
//   pictures by their numbers -> encode, decode, loss and gradient (autoencoder_loss.hpp)
//   -> the discriminator's gradient on the same pictures -> nothing that is not finite
//   -> both weights and the average -> codes that nobody uses find a pixel.
// Every draw is a function of (seed, step), so a run that was stopped and resumed equals one
// that was not, bit by bit. Each part can be used alone.
//
//   autoencoder_trainer t(model, images, {.batch_size = 16});
//   run(t, kimg(50), observer);
//
// Upstream decodes the pictures anew for the discriminator, after the autoencoder's step. Here
// both learn from the same ones: a third of the work less, and no difference that we know of.
#pragma once
#include <algorithm>
#include <numeric>

#include "../core/build_advice.hpp"
#include "../core/warning.hpp"
#include "../data/batch_reader.hpp"
#include "../data/survey.hpp"
#include "../diffusion/latent.hpp"
#include "autoencoder_loss.hpp"
#include "codebook_use.hpp"
#include "flat_adam.hpp"
#include "learning_rate.hpp"
#include "moving_average.hpp"
#include "non_finite_advice.hpp"

namespace multistage {

namespace functor {
/// Standard normal numbers of a stream.
template <class T>
struct normal_values {
  random_stream numbers;
  T* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    to[i] = T(numbers.normal(std::uint64_t(i)));
  }
};
}  // namespace functor

/// Trains an autoencoder on a data set. One thread at a time, as the model.
template <class Scalar, class Backend>
class autoencoder_trainer {
 public:
  /// What is trained.
  using model_type = autoencoder_model<Scalar, Backend>;
  /// What its pictures are held against beside pixels.
  using distance_type = perceptual_distance<Scalar, Backend>;

  /// @param model is trained in place and must outlive this object. @param images pictures of
  /// the model's extents. @param distance for the perceptual term; none: over random
  /// convolutions, with a warning, unless perceptual_weight is 0.
  /// @throws value_error for data that cannot train and options out of range; shape_error when
  /// images do not fit the model
  MULTISTAGE_COLD autoencoder_trainer(model_type& model,
                                      image_source images,
                                      autoencoder_options options,
                                      std::unique_ptr<distance_type> distance = nullptr);

  /// What is trained.
  model_type& model() {
    return model_;
  }
  /// As given.
  const autoencoder_options& options() const {
    return options_;
  }
  /// A hash of the images, by which a resumed run knows that they are the same.
  const std::string& images_fingerprint() const {
    return images_fingerprint_;
  }
  /// The data set.
  const image_source& images() const {
    return reader_->images();
  }
  /// Steps made, those of resumed runs included.
  index_t steps() const {
    return step_;
  }
  /// Images seen, likewise.
  double images_seen() const {
    return images_seen_;
  }
  /// Never: it trains as long as it is asked to.
  bool done() const {
    return false;
  }
  /// Over what the perceptual distance is taken; empty without one.
  std::string distance_name() const {
    return distance_ ? distance_->name() : "";
  }
  /// Whether the discriminator is at work.
  bool adversarial() const {
    return critic_ && images_seen_ >= options_.discriminator_kimg * 1000;
  }
  /// Of which codes are at work (vq).
  const codebook_use& codes() const {
    return use_;
  }

  /// One step on pictures drawn from the data set. Whatever it throws, nothing has changed
  /// then, and the step may be asked for again. @throws numeric_error when a value is not
  /// finite
  autoencoder_step step();

  /// What the autoencoder with averaged weights leaves of pictures, host memory [n, h, w, c].
  MULTISTAGE_COLD std::vector<float> reconstruct(std::span<const float> pictures);

  /// Everything that a checkpoint must hold beside weights, averages and moments.
  struct state {
    index_t step = 0;                  ///< steps made
    double images_seen = 0;            ///< images seen
    index_t critic_updates = 0;        ///< steps that the discriminator made
    std::vector<double> codes_used{};  ///< of codebook_use
  };
  /// As it is now.
  state counters() {
    return {step_, images_seen_, critic_update_ ? critic_update_->updates() : 0, use_.state()};
  }
  /// @throws value_error when the state is not of this model; nothing has changed then
  void restore(const state& s);
  /// Moments and average of the autoencoder's weights.
  flat_adam<Scalar, Backend>& update() {
    return *update_;
  }
  /// The discriminator; null without one.
  discriminator<Scalar, Backend>* critic() {
    return critic_ ? &*critic_ : nullptr;
  }
  /// Its moments; null without one.
  flat_adam<Scalar, Backend>* critic_update() {
    return critic_update_ ? &*critic_update_ : nullptr;
  }

 private:
  /// What an evaluation found.
  struct found {
    autoencoder_step report;
    autoencoder_report<Scalar> of_model;
    codebook_use use;             ///< as it is afterwards
    std::vector<index_t> unused;  ///< codes that are to move
  };

  step_numbers numbers() const {
    return {options_.seed, step_};
  }
  MULTISTAGE_COLD void choose_distance();
  MULTISTAGE_COLD void make_discriminator();

  /// The step's pictures, some mirrored, [batch, h, w, c]; the next step's are read meanwhile.
  tensor<Scalar, Backend> draw_pictures();

  /// Losses, and both gradients.
  found evaluate(const tensor<Scalar, Backend>& x);
  void describe(found& f, const autoencoder_terms& terms, double of_critic, index_t rows);
  /// The norm of a gradient. @throws numeric_error where it or a term of the loss is not finite
  MULTISTAGE_COLD double finite_norm(const found& f,
                                     const tensor<Scalar, Backend>& gradient,
                                     const described_network& of,
                                     const char* whose);

  void apply(found& f, double critic_norm);
  /// What the average keeps of itself in a step.
  double keep() const {
    const halflife_rule average{options_.ema_halflife_kimg * 1000, options_.ema_rampup_ratio};
    return average.keep(images_seen_, double(options_.batch_size));
  }
  /// Puts codes that nobody uses in the places of the batch's pixels.
  void revive(const found& f);

  model_type& model_;
  std::optional<batch_reader> reader_;
  std::string images_fingerprint_;
  autoencoder_options options_;
  std::unique_ptr<distance_type> distance_;
  codebook_use use_;
  std::optional<discriminator<Scalar, Backend>> critic_;
  std::optional<autoencoder_loss<Scalar, Backend>> loss_;
  std::optional<flat_adam<Scalar, Backend>> update_;
  std::optional<flat_adam<Scalar, Backend>> critic_update_;
  tensor<Scalar, Backend> gradient_;
  tensor<Scalar, Backend> critic_gradient_;
  index_t step_ = 0;
  double images_seen_ = 0;
};

template <class Scalar, class Backend>
MULTISTAGE_COLD autoencoder_trainer<Scalar, Backend>::autoencoder_trainer(
    model_type& model,
    image_source images,
    autoencoder_options options,
    std::unique_ptr<distance_type> distance)
    : model_(model),
      options_(std::move(options)),
      distance_(std::move(distance)),
      use_(model.config().kind == latent_kind::vq ? model.config().n_embed : 0) {
  if constexpr (Backend::on_host)
    detail::advise_on_build();
  check_options("autoencoder_trainer", options_);
  images_fingerprint_ = survey_images(images).fingerprint;
  const shape wanted = model_.images(images.extents.rows);
  require<shape_error>(images.extents == wanted, "autoencoder_trainer: images are ",
                       images.extents, ", the autoencoder takes ", wanted,
                       "; resize the images or choose resolution and channels to match");
  reader_.emplace(std::move(images),
                  options_.mirror ? image_transform(mirror{}) : image_transform());
  Backend& backend = model_.backend();
  choose_distance();
  if (options_.discriminator_weight > 0)
    make_discriminator();
  loss_.emplace(backend, options_, distance_.get(), critic_ ? &*critic_ : nullptr);
  gradient_ = tensor<Scalar, Backend>(backend, model_.weights().extents());
  update_.emplace(model_.weights(), options_.adam, model_.tensors().structure);
}

template <class Scalar, class Backend>
autoencoder_step autoencoder_trainer<Scalar, Backend>::step() {
  const tensor<Scalar, Backend> x = draw_pictures();
  found f = evaluate(x);
  f.report.gradient_norm = finite_norm(f, gradient_, model_.tensors(), "autoencoder");
  double critic_norm = 0;
  if (adversarial()) {
    critic_norm = finite_norm(
        f, critic_gradient_, {critic_->network(), critic_->parameter_names()}, "discriminator");
  }
  apply(f, critic_norm);  // nothing may fail from here on
  return f.report;
}

template <class Scalar, class Backend>
MULTISTAGE_COLD std::vector<float> autoencoder_trainer<Scalar, Backend>::reconstruct(
    std::span<const float> pictures) {
  const index_t n = index_t(pictures.size()) / model_.images(1).row_size();
  Backend& backend = model_.backend();
  const tensor<Scalar, Backend> x(backend, model_.images(n),
                                  std::vector<Scalar>(pictures.begin(), pictures.end()));
  tensor<Scalar, Backend> z(backend, model_.latents(n));
  tensor<Scalar, Backend> y(backend, model_.images(n));
  const auto change_weights = [&] {
    std::swap(model_.weights(), update_->average());
  };
  change_weights();
  try {
    model_.encode(x.view(), z.view());
    model_.decode(std::as_const(z).view(), y.view());
  } catch (...) {
    change_weights();
    throw;
  }
  change_weights();
  const std::vector<Scalar> values = y.to_host();
  return {values.begin(), values.end()};
}

template <class Scalar, class Backend>
void autoencoder_trainer<Scalar, Backend>::restore(const state& s) {
  use_.restore(s.codes_used);
  step_ = s.step;
  images_seen_ = s.images_seen;
  update_->updates() = s.step;
  if (critic_update_)
    critic_update_->updates() = s.critic_updates;
}

template <class Scalar, class Backend>
MULTISTAGE_COLD void autoencoder_trainer<Scalar, Backend>::choose_distance() {
  if (options_.perceptual_weight == 0)
    return distance_.reset();
  if (distance_)
    return;
  distance_ = std::make_unique<distance_type>(
      distance_type::of_random_convolutions(model_.backend(), model_.images(1)));
  warn("autoencoder_trainer: the perceptual distance is over ", distance_->name(),
       ", which know edges and colours, not content; give the weights of VGG-16 or AlexNet "
       "(examples/convert_checkpoint.py perceptual), or perceptual_weight = 0");
}

template <class Scalar, class Backend>
MULTISTAGE_COLD void autoencoder_trainer<Scalar, Backend>::make_discriminator() {
  const autoencoder& a = model_.config();
  critic_.emplace(model_.backend(),
                  patch_discriminator{.resolution = a.resolution,
                                      .columns = a.columns,
                                      .channels = a.channels,
                                      .width = options_.discriminator_width,
                                      .layers = options_.discriminator_layers},
                  options_.seed);
  critic_update_.emplace(critic_->weights(), options_.adam, critic_->network());
  critic_gradient_ = tensor<Scalar, Backend>(model_.backend(), critic_->weights().extents());
}

template <class Scalar, class Backend>
tensor<Scalar, Backend> autoencoder_trainer<Scalar, Backend>::draw_pictures() {
  const index_t rows = options_.batch_size;
  image_batch batch = reader_->take(numbers(), rows);
  tensor<Scalar, Backend> x(model_.backend(), model_.images(rows),
                            std::vector<Scalar>(batch.images.begin(), batch.images.end()));
  reader_->prepare({options_.seed, step_ + 1}, rows, std::move(batch));
  return x;
}

template <class Scalar, class Backend>
auto autoencoder_trainer<Scalar, Backend>::evaluate(const tensor<Scalar, Backend>& x) -> found {
  Backend& backend = model_.backend();
  tensor<Scalar, Backend> noise;
  if (model_.config().kind == latent_kind::kl) {
    noise = tensor<Scalar, Backend>(backend, model_.latents(x.extents().rows));
    backend.for_each_index(
        noise.size(),
        functor::normal_values<Scalar>{numbers().of(purpose::training_noise), noise.data()});
  }
  ops::fill<Backend, Scalar>(backend, gradient_.view(), Scalar(0));
  autoencoder_terms terms;
  double of_critic = autoencoder_terms::none;
  const auto loss = [&](view<const Scalar> y, view<Scalar> dy, const auto& norm) {
    terms = (*loss_)(x.view(), y, dy, norm, adversarial());
    if (adversarial()) {
      ops::fill<Backend, Scalar>(backend, critic_gradient_.view(), Scalar(0));
      of_critic = critic_->differentiate(x.view(), y, critic_gradient_.data());
    }
    return terms.total;
  };
  found f{{}, {}, use_, {}};
  f.of_model = model_.differentiate(x.view(), std::as_const(noise).view(), gradient_.data(),
                                    numbers().of(purpose::dropout), loss);
  describe(f, terms, of_critic, x.extents().rows);
  return f;
}

template <class Scalar, class Backend>
void autoencoder_trainer<Scalar, Backend>::describe(found& f,
                                                    const autoencoder_terms& terms,
                                                    double of_critic,
                                                    index_t rows) {
  f.report.step = step_ + 1;
  f.report.images_seen = images_seen_ + double(rows);
  const bool vq = model_.config().kind == latent_kind::vq;
  double perplexity = autoencoder_terms::none;
  if (vq)
    perplexity = f.use.record(f.of_model.indices, f.report.images_seen);
  if (vq && options_.revive_kimg > 0)
    f.unused = f.use.take_unused(f.report.images_seen, options_.revive_kimg * 1000);
  f.report.loss = {terms.reconstruction,
                   terms.perceptual,
                   f.of_model.latent_loss,
                   terms.adversarial,
                   terms.adaptive_weight,
                   of_critic,
                   perplexity};
  const bool at_work[] = {true,          distance_ != nullptr, true, adversarial(),
                          adversarial(), adversarial(),        vq};
  for (const bool is : at_work)
    f.report.rows.push_back(is ? rows : 0);
}

template <class Scalar, class Backend>
MULTISTAGE_COLD double autoencoder_trainer<Scalar, Backend>::finite_norm(
    const found& f,
    const tensor<Scalar, Backend>& gradient,
    const described_network& of,
    const char* whose) {
  for (std::size_t k = 0; k < f.report.loss.size(); ++k)
    if (f.report.rows[k] > 0 && !std::isfinite(f.report.loss[k]))
      fail<numeric_error>("training: the ", autoencoder_step::names[k],
                          " of the autoencoder is not finite at step ", step_ + 1,
                          detail::non_finite_advice);
  const double norm =
      std::sqrt(ops::sum_of_squares<Backend, Scalar>(model_.backend(), gradient.view()));
  if (std::isfinite(norm))
    return norm;
  const std::vector<Scalar> g = gradient.to_host();
  std::string layer = "none alone";
  for (std::size_t k = of.names.size(); k-- > 0;) {
    const parameter& p = of.structure.parameters[k];
    const auto begin = g.begin() + p.offset;
    if (!std::all_of(begin, begin + p.size(), [](Scalar v) { return std::isfinite(v); }))
      layer = of.names[k];
  }
  fail<numeric_error>("training: the ", whose, "'s gradient is not finite at step ", step_ + 1,
                      ", layer ", layer, detail::non_finite_advice);
}

template <class Scalar, class Backend>
void autoencoder_trainer<Scalar, Backend>::apply(found& f, double critic_norm) {
  const autoencoder_options& o = options_;
  const double rate =
      learning_rate_schedule{}.rate(o.learning_rate, o.lr_rampup_kimg, images_seen_);
  const auto clip = [&](double norm) {
    return o.gradient_clip > 0 && norm > o.gradient_clip ? o.gradient_clip / norm : 1.0;
  };
  update_->apply(model_.weights(), gradient_, rate, clip(f.report.gradient_norm), keep());
  if (adversarial())
    critic_update_->apply(critic_->weights(), critic_gradient_, rate * o.discriminator_rate,
                          clip(critic_norm), 0);
  revive(f);
  use_ = std::move(f.use);
  ++step_;
  images_seen_ = f.report.images_seen;
}

template <class Scalar, class Backend>
void autoencoder_trainer<Scalar, Backend>::revive(const found& f) {
  const index_t width = model_.config().embed_dim;
  const index_t pixels = index_t(f.of_model.moments.size()) / width;
  const random_stream which = numbers().of(purpose::codes);
  for (const index_t code : f.unused) {
    const index_t pixel = index_t(which.below(std::uint64_t(code), std::uint32_t(pixels)));
    const index_t at = model_.codes_start() + code * width;
    model_.backend().upload(f.of_model.moments.data() + pixel * width,
                            model_.weights().data() + at, width);
    update_->restart(model_.weights(), at, width);
  }
}

}  // namespace multistage
