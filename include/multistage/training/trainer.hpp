// Training of all stages in one run (arXiv 2312.09181, section 4 and algorithm 2; Karras et
// al., arXiv 2206.00364, table 1): a batch mixes stages; each row's noise level is drawn inside
// its stage. A step is
//   shares of the stages (quotas.hpp) -> rows (rows.hpp) -> loss and gradient (objective.hpp)
//   -> nothing that is not finite (non_finite.hpp) -> weights and average (update.hpp).
// Every draw is a function of (seed, step), so a run that was stopped and resumed equals one
// that was not, bit by bit. Each part can be used alone, in a loop of one's own
// (docs/own-parts.md).
//
//   ms::trainer trainer{net, images, {.batch_size = 512}, mpi.world()};
//
// Several processes share the rows of each step (step_shards.hpp): all make the same calls and
// have the same weights after each, which are those of one process, bit by bit.
#pragma once
#include "../core/build_advice.hpp"
#include "memory.hpp"
#include "non_finite.hpp"
#include "quotas.hpp"
#include "same_run.hpp"
#include "training_data.hpp"
#include "update.hpp"
#include "warnings.hpp"

namespace multistage {

/// Trains a model on images of any source. One thread at a time, as the model.
template <class Scalar, class Backend>
class trainer {
 public:
  /// What is trained.
  using model_type = dynamic_model<Scalar, Backend>;

  /// @param model is trained in place and must outlive this object. @param images are read when
  /// they are needed, those of the next step while a step is computed. Models with classes read
  /// their labels, models with a context their context. @param transform what happens to an
  /// image before it is shown, e.g. mirror{}
  /// @throws value_error for data that cannot train, or options out of range; shape_error when
  /// images do not fit the model.
  MULTISTAGE_COLD trainer(model_type& model,
                          image_source images,
                          trainer_options options,
                          image_transform transform = {});
  /// With other processes. @param processes that train together: all make a trainer of the same
  /// model, images and options, and then the same calls. @throws as above, and value_error for
  /// more processes than shards, or where one has something else than the others
  MULTISTAGE_COLD trainer(model_type& model,
                          image_source images,
                          trainer_options options,
                          process_group processes,
                          image_transform transform = {});
  /// Of images in memory, which are copied. @param images host memory [n, h, w, c] in [-1, 1].
  /// @param classes the class of each image, for models with labels. @throws as above
  MULTISTAGE_COLD trainer(model_type& model,
                          std::span<const float> images,
                          shape extents,
                          trainer_options options,
                          std::span<const int> classes = {},
                          process_group processes = {});

  /// What is trained.
  model_type& model() {
    return model_;
  }
  /// As given.
  const trainer_options& options() const {
    return options_;
  }
  /// Who trains together.
  process_group& processes() {
    return processes_;
  }
  /// How a step is done, and the memory that the run takes.
  const memory_plan& memory() const {
    return memory_;
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
  step_report step();

  /// The gradient of the loss, as `step` would take it, at given noise levels of rows drawn
  /// from the data set; it is left in gradient(), and nothing else changes. What it has for
  /// decoders that no row needs is not defined.
  step_report differentiate(std::span<const double> sigmas);

  /// One step on a batch given from outside. @throws as above, and for rows that are not in the
  /// order of their stages
  step_report step(const training_batch<Scalar>& batch);

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
  state counters() const;
  /// What multiplies the learning rate.
  double rate_factor() const {
    return update_->rate_factor();
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
  /// Gives the model on all processes all weights, where each has some decoders alone
  /// (stage_begins). All processes call it.
  void complete_weights() {
    for (int s = 0; s < model_.network().segments; ++s)
      if (objective_.exchange().hosts(s).size() < processes_.size())
        objective_.exchange().hand_round(model_.weights(), s, true);
  }
  /// The same, and the average that sampling uses, where each has some of it (shard_state too),
  /// until the next step. All processes call it; does nothing where it is there.
  void complete_average();
  /// How weights move, and what it keeps of them.
  averaged_adam<Scalar, Backend>& update() {
    return *update_;
  }
  /// Adam's mean of gradients; of this process's share where shard_state says so.
  tensor<Scalar, Backend>& first_moment() {
    return update_->first_moment();
  }
  /// Adam's mean of their squares, likewise.
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
  void restore(const state& s);

 private:
  /// Gives up what other processes have of the model, until `complete_weights`: their weights
  /// where the backend gives memory back.
  void keep_own();
  step_numbers numbers() const {
    return {options_.seed, step_};
  }
  /// Losses and gradient, all of them finite; of the latter what the update needs, or all.
  evaluated_batch<Scalar> evaluate(objective_batch<Scalar> batch) {
    return evaluate(std::move(batch),
                    options_.shard_state ? gradient_for::shares : gradient_for::hosts);
  }
  evaluated_batch<Scalar> evaluate(objective_batch<Scalar> batch, gradient_for wanted_by);
  /// The numbers of the rows of a batch that this process evaluates.
  std::vector<index_t> rows_to_read(const std::vector<training_row>& rows) const;
  routing route_of(const std::vector<training_row>& rows) const;
  /// Begins to read what the next step needs. @param rows of this one
  void read_ahead(const std::vector<training_row>& rows);
  /// Rows of a batch, of which those that were read have the images. @param read their numbers
  objective_batch<Scalar> on_backend(const image_batch& batch,
                                     std::vector<training_row> rows,
                                     const std::vector<index_t>& read);
  step_report report_of(const evaluated_batch<Scalar>& found) const;
  step_report apply(const evaluated_batch<Scalar>& found);

  model_type& model_;
  trainer_options options_;
  process_group processes_;
  stage_quotas quotas_;
  row_draws draws_;
  denoising_objective<Scalar, Backend> objective_;
  batch_reader data_;
  image_batch spare_;  // of the last step: its memory is used again
  std::optional<averaged_adam<Scalar, Backend>> update_;  // made once the data are accepted
  memory_plan memory_;
  std::string images_fingerprint_;
  tensor<Scalar, Backend> images_;
  tensor<Scalar, Backend> gradient_;
  double norm_ = 0;  // of the gradient
  index_t step_ = 0;
  double images_seen_ = 0;
};

template <class Scalar, class Backend>
MULTISTAGE_COLD trainer<Scalar, Backend>::trainer(model_type& model,
                                                  image_source images,
                                                  trainer_options options,
                                                  image_transform transform)
    : trainer(model,
              std::move(images),
              std::move(options),
              process_group(),
              std::move(transform)) {}

template <class Scalar, class Backend>
MULTISTAGE_COLD trainer<Scalar, Backend>::trainer(model_type& model,
                                                  image_source images,
                                                  trainer_options options,
                                                  process_group processes,
                                                  image_transform transform)
    : model_(model),
      options_(std::move(options)),
      processes_(std::move(processes)),
      quotas_(options_, model.stages()),
      draws_(options_, model.stages()),
      objective_(model, options_, processes_),
      data_(images,
            std::move(transform),
            detail::parts_for(model, images, options_.label_dropout)) {
  if constexpr (Backend::on_host)
    detail::advise_on_build();
  Backend& backend = model.backend();
  images_fingerprint_ = detail::check_data(model, data_);
  require_same_run(processes_, model, options_, images_fingerprint_);
  const index_t shards =
      std::min(options_.shards, divide_up(options_.batch_size, gradient_piece<Backend>));
  if (processes_.size() > shards)
    say_once<value_error>(processes_, "trainer: ", processes_.size(), " processes for the ",
                          shards, " shards of a batch of ", options_.batch_size,
                          " rows; give a larger batch_size or more shards, or start fewer");
  if (processes_.size() > 1)
    check(stage_placement{options_.stage_begins}, processes_.size(), model.stage_count());
  detail::warn_of_stages(quotas_.probabilities(), model_.stages(), options_);
  memory_ = plan_memory(model, options_, processes_);
  if (options_.memory > 0 || options_.micro_batch > 0)
    objective_.set_micro_batch(memory_.micro_batch);
  gradient_ = tensor<Scalar, Backend>(backend, model_.weights().extents());
  update_.emplace(model, options_, processes_);
  model.engine().reserve_for_training(memory_.micro_batch, shards + model.stage_count());
  training_facts facts = model_.trained();
  facts.label_dropout = std::max(facts.label_dropout.value_or(0), options_.label_dropout);
  facts.augmented = options_.augmented;
  facts.class_names = data_.images().class_names;
  model_.set_trained(facts);
  // Last: when something fails before, the model's weights are as they were.
  if (update_->is_shared_out())
    keep_own();
  else
    model_.keep_average();
}

template <class Scalar, class Backend>
MULTISTAGE_COLD trainer<Scalar, Backend>::trainer(model_type& model,
                                                  std::span<const float> images,
                                                  shape extents,
                                                  trainer_options options,
                                                  std::span<const int> classes,
                                                  process_group processes)
    : trainer(model,
              detail::kept_in_memory(model, images, extents, classes),
              std::move(options),
              std::move(processes)) {}

template <class Scalar, class Backend>
step_report trainer<Scalar, Backend>::step() {
  const auto visit = model_.use();
  require<value_error>(
      !done(), "trainer: every stage has seen its stage_kimg; nothing is left to train");
  const group_traffic before = processes_.traffic();
  auto rows = draws_.draw(options_.batch_size, quotas_.shares(), numbers());
  const std::vector<index_t> own = rows_to_read(rows);
  image_batch batch;
  together(processes_, [&] { batch = data_.take(numbers(), own); });
  read_ahead(rows);
  const auto found = evaluate(on_backend(batch, std::move(rows), own));
  spare_ = std::move(batch);
  step_report report = apply(found);  // nothing may fail from here on
  report.traffic = processes_.traffic().since(before);
  draws_.record(found.rows, found.losses);
  return report;
}

template <class Scalar, class Backend>
step_report trainer<Scalar, Backend>::differentiate(std::span<const double> sigmas) {
  const auto visit = model_.use();
  std::vector<training_row> rows;
  for (const double s : sigmas)
    rows.push_back({.sigma = s});
  const image_batch batch = data_.read(numbers(), std::ssize(rows));
  const std::vector<index_t> all = batch_reader::first_rows(std::ssize(rows));
  return report_of(evaluate(on_backend(batch, std::move(rows), all), gradient_for::all));
}

template <class Scalar, class Backend>
step_report trainer<Scalar, Backend>::step(const training_batch<Scalar>& batch) {
  const auto visit = model_.use();
  const index_t count = index_t(batch.sigmas.size());
  require<value_error>(count > 0, "trainer: a batch without sigmas; give it one row at least");
  Backend& backend = model_.backend();
  const shape extents = model_.images(count);
  const tensor<Scalar, Backend> images(backend, extents, batch.images);
  const tensor<Scalar, Backend> noise(backend, extents, batch.noise);
  std::vector<training_row> rows;
  for (index_t r = 0; r < count; ++r)
    rows.push_back({.image = r, .sigma = batch.sigmas[std::size_t(r)]});
  objective_batch<Scalar> given{images.data(), rows, {}, noise.data(), batch.class_labels};
  given.conditions.augment_labels = batch.augment_labels;
  given.conditions.context = batch.context;
  return apply(evaluate(std::move(given)));
}

template <class Scalar, class Backend>
auto trainer<Scalar, Backend>::counters() const -> state {
  return {step_,
          images_seen_,
          update_->updates(),
          quotas_.images(),
          draws_.importance().state(),
          update_->rate_factor()};
}

template <class Scalar, class Backend>
void trainer<Scalar, Backend>::complete_average() {
  if (!update_->is_shared_out() || model_.has_average())
    return;
  complete_weights();
  const std::vector<Scalar> all = update_->whole(update_->average());
  model_.keep_average();
  model_.backend().upload(all.data(), model_.averaged_weights().data(), index_t(all.size()));
}

template <class Scalar, class Backend>
void trainer<Scalar, Backend>::restore(const state& s) {
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

template <class Scalar, class Backend>
void trainer<Scalar, Backend>::keep_own() {
  model_.drop_average();
  Backend& backend = model_.backend();
  Scalar* const weights = model_.weights().data();
  const index_range here{processes_.rank(), processes_.rank() + 1};
  for (int s = 0; s < model_.network().segments; ++s) {
    const auto [begin, end] = model_.network().parameter_range(s);
    if constexpr (requires { backend.give_back(weights, index_t(0)); })
      if (!objective_.exchange().hosts(s).contains(here))
        backend.give_back(weights + begin, end - begin);
  }
}

template <class Scalar, class Backend>
evaluated_batch<Scalar> trainer<Scalar, Backend>::evaluate(objective_batch<Scalar> batch,
                                                           gradient_for wanted_by) {
  auto found = objective_.differentiate(std::move(batch), numbers(), gradient_, wanted_by);
  norm_ = update_->norm(gradient_, found.route, images_seen_);
  require_finite_losses(model_, found, step_ + 1, processes_);
  const auto moves = [&](int segment) {
    return update_->moves(found.route, segment, images_seen_);
  };
  require_finite_gradient(model_, gradient_, norm_, moves, step_ + 1, processes_);
  return found;
}

template <class Scalar, class Backend>
std::vector<index_t> trainer<Scalar, Backend>::rows_to_read(
    const std::vector<training_row>& rows) const {
  if (processes_.size() == 1)
    return batch_reader::first_rows(std::ssize(rows));
  const routing route = route_of(rows);
  const index_range own = objective_.shards_of_step(route).rows_of_process(processes_.rank());
  return {route.order.begin() + own.begin, route.order.begin() + own.end};
}

template <class Scalar, class Backend>
routing trainer<Scalar, Backend>::route_of(const std::vector<training_row>& rows) const {
  std::vector<double> sigmas;
  for (const training_row& r : rows)
    sigmas.push_back(r.sigma);
  return model_.route(sigmas);
}

template <class Scalar, class Backend>
void trainer<Scalar, Backend>::read_ahead(const std::vector<training_row>& rows) {
  const step_numbers next{options_.seed, step_ + 1};
  if (processes_.size() == 1)
    return data_.prepare(next, options_.batch_size, std::move(spare_));
  if (draws_.importance().active())
    return;  // whose rows they are hangs on this step's losses
  stage_quotas after = quotas_;
  after.count(route_of(rows).rows_by_stage);
  if (!after.done())
    data_.prepare(next, rows_to_read(draws_.draw(std::ssize(rows), after.shares(), next)),
                  std::move(spare_));
}

template <class Scalar, class Backend>
objective_batch<Scalar> trainer<Scalar, Backend>::on_backend(const image_batch& batch,
                                                             std::vector<training_row> rows,
                                                             const std::vector<index_t>& read) {
  const index_t values = index_t(batch.images.size());
  grown(images_, model_.backend(), values);
  if constexpr (std::is_same_v<Scalar, float>) {
    model_.backend().upload(batch.images.data(), images_.data(), values);
  } else {
    const std::vector<Scalar> as_scalars(batch.images.begin(), batch.images.end());
    model_.backend().upload(as_scalars.data(), images_.data(), values);
  }
  for (std::size_t k = 0; k < read.size(); ++k)
    rows[std::size_t(read[k])].image = index_t(k);
  objective_batch<Scalar> made{images_.data(), std::move(rows), batch.classes};
  made.conditions.augment_labels = batch.augment_labels;
  made.conditions.context = batch.context;
  made.conditions.null_context = data_.images().null_context;
  return made;
}

template <class Scalar, class Backend>
step_report trainer<Scalar, Backend>::report_of(const evaluated_batch<Scalar>& found) const {
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

template <class Scalar, class Backend>
step_report trainer<Scalar, Backend>::apply(const evaluated_batch<Scalar>& found) {
  step_report report = report_of(found);
  const index_t rows = index_t(found.rows.size());
  if (update_->is_shared_out())
    keep_own();
  update_->apply(gradient_, found.route, norm_, images_seen_, rows);
  for (int s = 0; s < model_.network().segments && processes_.size() > 1; ++s)
    if (options_.shard_state && update_->moves(found.route, s, images_seen_))
      objective_.exchange().hand_round(model_.weights(), s, false);
  ++step_;
  images_seen_ += double(rows);
  quotas_.count(found.route.rows_by_stage);
  return report;
}

/// Of a model of any type.
template <class Model, class... Rest>
trainer(Model&, Rest&&...) -> trainer<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
