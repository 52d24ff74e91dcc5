// Training of all stages in one run (arXiv 2312.09181, section 4 and algorithm 2; Karras et
// al., arXiv 2206.00364, table 1): a batch mixes stages; each row's noise level is drawn inside
// its stage. A step is
//   shares of the stages (quotas.hpp) -> rows (rows.hpp) -> loss and gradient (objective.hpp)
//   -> nothing that is not finite (non_finite.hpp) -> weights and average (update.hpp).
// Every draw is a function of (seed, step), so a run that was stopped and resumed equals one
// that was not, bit by bit. Each part can be used alone, in a loop of one's own
// (docs/own-parts.md).
#pragma once
#include "../core/build_advice.hpp"
#include "../core/fingerprint.hpp"
#include "../data/image_source.hpp"
#include "non_finite.hpp"
#include "quotas.hpp"
#include "update.hpp"
#include "warnings.hpp"

namespace multistage {

namespace detail {
/// Refuses images and labels that a model cannot train on. @throws shape_error, value_error
template <class Scalar, class Backend>
MULTISTAGE_COLD void check_data(const dynamic_model<Scalar, Backend>& model,
                                std::span<const float> images,
                                const shape& extents,
                                double label_dropout,
                                std::span<const int> classes) {
  check_images(images, extents);
  require<shape_error>(extents == model.images(extents.rows), "trainer: images are ", extents,
                       ", the model takes ", model.images(extents.rows),
                       "; resize the images or choose resolution and channels to match");
  const index_t known = model.label_dim(input_slot::class_labels);
  require<value_error>(index_t(classes.size()) == (known > 0 ? extents.rows : 0),
                       "trainer: ", classes.size(), " class labels for ", extents.rows,
                       " images and a model of ", known,
                       " classes; give one label an image if the model has classes, else none");
  require<value_error>(label_dropout == 0 || known > 0,
                       "trainer: label_dropout = ", label_dropout,
                       " for a model without labels; leave it 0");
  for (std::size_t i = 0; i < classes.size(); ++i)
    require<value_error>(classes[i] >= 0 && classes[i] < known, "trainer: image ", i,
                         " is of class ", classes[i], ", the model knows 0..", known - 1);
}

/// A hash of images and their classes.
MULTISTAGE_COLD inline std::string fingerprint_of_data(std::span<const float> images,
                                                       const shape& extents,
                                                       std::span<const int> classes) {
  const index_t sides[] = {extents.rows, extents.height, extents.width, extents.channels};
  const std::string parts = fingerprint_of(images) +
                            fingerprint_of(std::span<const index_t>(sides)) +
                            fingerprint_of(classes);
  return fingerprint_of(std::span<const char>(parts));
}

/// Makes a model's activations for training fit a budget, checkpointed if need be.
/// @throws value_error when not even that fits
template <class Scalar, class Backend>
MULTISTAGE_COLD void fit_memory(dynamic_model<Scalar, Backend>& model,
                                const trainer_options& o) {
  constexpr index_t piece = gradient_piece<Backend>;
  require<value_error>(o.micro_batch % piece == 0 || o.micro_batch >= o.batch_size,
                       "trainer: micro_batch = ", o.micro_batch, " is no multiple of ", piece,
                       ", the rows over which backend ", Backend::name, " sums gradients");
  const index_t at_once =
      o.micro_batch > 0 ? std::min(o.micro_batch, o.batch_size) : o.batch_size;
  const auto needed = [&](bool checkpoint) {
    model.engine().set_checkpointing(checkpoint);
    return model.activation_bytes(at_once, true);
  };
  if (o.checkpoint_activations || (o.memory_budget > 0 && needed(false) > o.memory_budget))
    require<value_error>(
        needed(true) <= o.memory_budget || o.memory_budget == 0, "trainer: a batch of ",
        at_once, " takes ", needed(true),
        " bytes of activations even when they are checkpointed, memory_budget is ",
        o.memory_budget, "; a smaller batch_size or a larger budget is needed");
  model.engine().reserve_for_training(at_once);
}
}  // namespace detail

/// Trains a model on images in host memory. One thread at a time, as the model.
template <class Scalar, class Backend>
class trainer {
 public:
  /// What is trained.
  using model_type = dynamic_model<Scalar, Backend>;

  /// @param model is trained in place and must outlive this object. @param images host memory
  /// [n, h, w, c] in [-1, 1].
  /// @param classes the class of each image, for models with labels.
  /// @throws value_error for data that cannot train, or options out of range; shape_error when
  /// images do not fit the model.
  MULTISTAGE_COLD trainer(model_type& model,
                          std::span<const float> images,
                          shape extents,
                          trainer_options options,
                          std::span<const int> classes = {})
      : model_(model),
        options_(std::move(options)),
        quotas_(options_, model.stages()),
        draws_(options_, model.stages()),
        objective_(model, options_) {
    if constexpr (Backend::on_host)
      detail::advise_on_build();
    detail::check_data(model, images, extents, options_.label_dropout, classes);
    Backend& backend = model.backend();
    images_count_ = extents.rows;
    images_ = tensor<Scalar, Backend>(backend, extents,
                                      std::vector<Scalar>(images.begin(), images.end()));
    images_fingerprint_ = detail::fingerprint_of_data(images, extents, classes);
    classes_.assign(classes.begin(), classes.end());
    detail::warn_of_images(images);
    detail::warn_of_stages(quotas_.probabilities(), model_.stages(), options_);
    gradient_ = tensor<Scalar, Backend>(backend, model_.weights().extents());
    update_.emplace(model, options_);
    detail::fit_memory(model, options_);
    const double dropout_before = model_.trained().label_dropout.value_or(0);
    model_.set_trained({std::max(dropout_before, options_.label_dropout), options_.augmented});
    model_.keep_average();  // last: when something fails before, the model's weights are as
                            // they were
  }

  /// What is trained.
  model_type& model() {
    return model_;
  }
  /// As given.
  const trainer_options& options() const {
    return options_;
  }
  /// Steps made, those of resumed runs included.
  index_t steps() const {
    return step_;
  }
  /// Images seen, likewise.
  double images_seen() const {
    return images_seen_;
  }
  /// A hash of the images and their classes, by which a resumed run knows that they are the
  /// same.
  const std::string& images_fingerprint() const {
    return images_fingerprint_;
  }
  /// Probability with which a row is drawn from each stage.
  const std::vector<double>& probabilities() const {
    return quotas_.probabilities();
  }
  /// Whether a stage has seen what stage_kimg gives it.
  bool done(int stage) const {
    return quotas_.done(stage);
  }
  /// Whether all stages have.
  bool done() const {
    return quotas_.done();
  }
  /// Images that each stage has seen.
  const std::vector<double>& stage_images() const {
    return quotas_.images();
  }

  /// One step on rows drawn from the data set. Whatever it throws (numeric_error,
  /// std::bad_alloc) nothing has changed then, and the step may be asked for again. @throws
  /// numeric_error, before anything is changed, when a value is not finite; value_error when
  /// all stages are done.
  step_report step() {
    const auto visit = model_.use();
    require<value_error>(
        !done(), "trainer: every stage has seen its stage_kimg; nothing is left to train");
    const auto rows = draws_.draw(options_.batch_size, quotas_.shares(), numbers());
    const auto found = evaluate(on_data(rows));
    const step_report report = apply(found);  // nothing may fail from here on
    draws_.record(found.rows, found.losses);
    return report;
  }

  /// The gradient of the loss, as `step` would take it, at given noise levels of rows drawn
  /// from the data set; it is left in gradient(), and nothing else changes. What it has for
  /// decoders that no row needs is not defined.
  step_report differentiate(std::span<const double> sigmas) {
    const auto visit = model_.use();
    std::vector<training_row> rows;
    for (const double s : sigmas)
      rows.push_back({.sigma = s});
    return report_of(evaluate(on_data(rows)));
  }

  /// One step on a batch given from outside. @throws as above, and for rows that are not in the
  /// order of their stages
  step_report step(const training_batch<Scalar>& batch) {
    const auto visit = model_.use();
    const index_t count = index_t(batch.sigmas.size());
    require<value_error>(count > 0,
                         "trainer: a batch without sigmas; give it one row at least");
    Backend& backend = model_.backend();
    const shape extents = model_.images(count);
    const tensor<Scalar, Backend> images(backend, extents, batch.images);
    const tensor<Scalar, Backend> noise(backend, extents, batch.noise);
    std::vector<training_row> rows;
    for (index_t r = 0; r < count; ++r)
      rows.push_back({.image = r, .sigma = batch.sigmas[std::size_t(r)]});
    return apply(evaluate({images.data(), rows, {}, noise.data(), batch.class_labels}));
  }

  /// Everything that a checkpoint must hold beside the model and the flat moments.
  struct state {
    index_t step = 0;                    ///< steps made
    double images_seen = 0;              ///< images seen
    std::vector<index_t> updates;        ///< of each segment
    std::vector<double> stage_images{};  ///< images that each stage has seen
    std::vector<double> importance{};    ///< what was learnt of levels' losses
    double rate_factor = 1;              ///< on the learning rate

    /// Images that each segment of the network has seen.
    std::vector<double> segment_images() const {
      std::vector<double> images{images_seen};
      images.insert(images.end(), stage_images.begin(), stage_images.end());
      return images;
    }
  };
  /// As it is now.
  state counters() const {
    return {step_,
            images_seen_,
            update_->updates(),
            quotas_.images(),
            draws_.importance().state(),
            update_->rate_factor()};
  }
  /// Multiplies the learning rate from now on, as a run does that goes back after a value that
  /// was not finite; checkpoints keep it. @throws value_error outside (0, 1]
  void set_rate_factor(double factor) {
    require<value_error>(factor > 0 && factor <= 1, "trainer: rate_factor = ", factor,
                         "; it is above 0 and at most 1");
    update_->set_rate_factor(factor);
  }
  /// Of the last evaluation; lies as the weights do.
  tensor<Scalar, Backend>& gradient() {
    return gradient_;
  }
  /// Adam's mean of gradients.
  tensor<Scalar, Backend>& first_moment() {
    return update_->first_moment();
  }
  /// Adam's mean of their squares.
  tensor<Scalar, Backend>& second_moment() {
    return update_->second_moment();
  }
  /// What the average that sampling uses is where ema_std says so; else it has a half-life.
  const std::optional<average_kind>& sampled_average() const {
    return update_->sampled_average();
  }
  /// The averages that options ask for beside the one that sampling uses.
  std::span<kept_average<Scalar, Backend>> averages() {
    return update_->averages();
  }
  /// Images that each segment of the network has seen.
  const std::vector<double>& segment_images() const {
    return update_->images();
  }
  /// @throws value_error when the state is not of this model's segments; nothing has changed
  /// then
  void restore(const state& s) {
    stage_quotas quotas = quotas_;
    row_draws draws = draws_;
    quotas.restore(s.stage_images);
    draws.importance().restore(s.importance);
    update_->restore(s.updates, s.segment_images());
    update_->set_rate_factor(s.rate_factor);
    quotas_ = std::move(quotas);
    draws_ = std::move(draws);
    step_ = s.step;
    images_seen_ = s.images_seen;
  }

 private:
  step_numbers numbers() const {
    return {options_.seed, step_};
  }
  /// Rows of the data set, whose images are drawn.
  objective_batch<Scalar> on_data(std::vector<training_row> rows) const {
    draw_images(rows, images_count_, numbers());
    return {images_.data(), std::move(rows), classes_};
  }
  /// Losses and gradient, all of them finite.
  evaluated_batch<Scalar> evaluate(objective_batch<Scalar> batch) {
    auto found = objective_.differentiate(std::move(batch), numbers(), gradient_);
    norm_ = update_->norm(gradient_, found.route, images_seen_);
    require_finite_losses(model_, found, step_ + 1);
    const auto moves = [&](int segment) {
      return update_->moves(found.route, segment, images_seen_);
    };
    require_finite_gradient(model_, gradient_, norm_, moves, step_ + 1);
    return found;
  }
  step_report report_of(const evaluated_batch<Scalar>& found) const {
    const std::vector<index_t>& rows = found.route.rows_by_stage;
    step_report report{step_ + 1, images_seen_ + double(found.rows.size()),
                       std::vector<double>(rows.size(), 0.0), rows, norm_};
    auto loss = found.losses.begin();
    for (std::size_t s = 0; s < rows.size(); ++s) {
      report.loss[s] = std::accumulate(loss, loss + rows[s], 0.0) / double(rows[s]);
      loss += rows[s];
    }
    return report;
  }
  step_report apply(const evaluated_batch<Scalar>& found) {
    step_report report = report_of(found);
    const index_t rows = index_t(found.rows.size());
    update_->apply(gradient_, found.route, norm_, images_seen_, rows);
    ++step_;
    images_seen_ += double(rows);
    quotas_.count(found.route.rows_by_stage);
    return report;
  }

  model_type& model_;
  trainer_options options_;
  stage_quotas quotas_;
  row_draws draws_;
  denoising_objective<Scalar, Backend> objective_;
  std::optional<averaged_adam<Scalar, Backend>> update_;  // made once the data are accepted
  index_t images_count_ = 0;
  std::string images_fingerprint_;
  std::vector<int> classes_;
  tensor<Scalar, Backend> images_;
  tensor<Scalar, Backend> gradient_;
  double norm_ = 0;  // of the gradient
  index_t step_ = 0;
  double images_seen_ = 0;
};

/// Of a model of any type.
template <class Model, class... Rest>
trainer(Model&, Rest&&...) -> trainer<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
