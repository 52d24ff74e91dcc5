// Training of all stages in one run (arXiv 2312.09181, section 4 and algorithm 2; Karras et
// al., arXiv 2206.00364, eq. 8 and table 1): a batch mixes stages; each row's noise level is
// drawn inside its stage; the loss is
//   L = 1/B sum_n w(sigma_n) |D(y_n + sigma_n z_n; sigma_n) - y_n|^2.
// Every draw is a function of (seed, step), so a run that was stopped and resumed equals one
// that was not, bit by bit.
#pragma once
#include <chrono>
#include <functional>

#include "../core/build_advice.hpp"
#include "../core/fingerprint.hpp"
#include "../diffusion/model.hpp"
#include "../stages/optimal_denoiser_clustering.hpp"
#include "options.hpp"
#include "warnings.hpp"

namespace multistage {

namespace functor {
template <class T>
struct noisy_rows {
  const T* images;
  const index_t* which;  // row -> image
  const double* sigma;
  const T* noise;  // null: drawn from `numbers`
  random_stream numbers;
  index_t size;
  T* target;
  T* x;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t row = i / size;
    const T y = images[which[row] * size + i % size];
    const T z = noise ? noise[i] : T(numbers.normal(std::uint64_t(i)));
    target[i] = y;
    x[i] = y + T(sigma[row]) * z;
  }
};
/// A value's share of its row's loss; writes the gradient of the loss with respect to F.
template <class T>
struct denoising_loss {
  const T* x;
  const T* target;
  const T* f;
  const double* skip;
  const double* out;
  const double* weight;
  index_t size;
  double per_batch;
  T* gradient;
  MULTISTAGE_HD double operator()(index_t row, index_t column) const {
    const index_t i = row * size + column;
    const double e = skip[row] * double(x[i]) + out[row] * double(f[i]) - double(target[i]);
    gradient[i] = T(2 * weight[row] * out[row] * e * per_batch);
    return weight[row] * (e * e);
  }
};
}  // namespace functor

template <class Scalar, class Backend>
class trainer {
 public:
  using model_type = dynamic_model<Scalar, Backend>;

  /// @param model is trained in place and must outlive this object. @param images host memory
  /// [n, h, w, c] in [-1, 1].
  /// @param classes the class of each image, for models with labels.
  /// @throws value_error for data that cannot train, or options out of range; shape_error when
  /// images do not fit the model.
  trainer(model_type& model,
          std::span<const float> images,
          shape extents,
          trainer_options options,
          std::span<const int> classes = {})
      : model_(model),
        backend_(model.backend()),
        options_(std::move(options)),
        images_count_(extents.rows),
        classes_(classes.begin(), classes.end()) {
    if constexpr (Backend::on_host)
      detail::advise_on_build();
    check(options_, model.stage_count());
    check_images(images, extents);
    require<shape_error>(extents == model.images(extents.rows), "trainer: images are ", extents,
                         ", the model takes ", model.images(extents.rows),
                         "; resize the images or choose resolution and channels to match");
    const index_t known = model.label_dim(input_slot::class_labels);
    require<value_error>(
        index_t(classes_.size()) == (known > 0 ? extents.rows : 0),
        "trainer: ", classes_.size(), " class labels for ", extents.rows,
        " images and a model of ", known,
        " classes; give one label an image if the model has classes, else none");
    require<value_error>(options_.label_dropout == 0 || known > 0,
                         "trainer: label_dropout = ", options_.label_dropout,
                         " for a model without labels; leave it 0");
    for (std::size_t i = 0; i < classes_.size(); ++i)
      require<value_error>(classes_[i] >= 0 && classes_[i] < known, "trainer: image ", i,
                           " is of class ", classes_[i], ", the model knows 0..", known - 1);
    images_ = tensor<Scalar, Backend>(backend_, extents,
                                      std::vector<Scalar>(images.begin(), images.end()));
    const index_t sides[] = {extents.rows, extents.height, extents.width, extents.channels};
    const std::string parts = fingerprint_of(images) +
                              fingerprint_of(std::span<const index_t>(sides)) +
                              fingerprint_of(classes);
    images_fingerprint_ = fingerprint_of(std::span<const char>(parts));
    probabilities_ = stage_probabilities();
    detail::warn_of_images(images);
    detail::warn_of_stages(probabilities_, model_.stages(), options_);
    const training_facts before = model_.trained();
    model_.set_trained({std::max(before.label_dropout.value_or(0), options_.label_dropout),
                        options_.augmented});
    importance_ = importance_sampler(options_.importance, model_.stage_count());
    stage_images_.assign(std::size_t(model_.stage_count()), 0.0);
    settled_.assign(std::size_t(model_.network().segments), !model_.has_average());
    const shape flat = model_.weights().extents();
    gradient_ = tensor<Scalar, Backend>(backend_, flat);
    first_ = tensor<Scalar, Backend>(backend_, flat);
    second_ = tensor<Scalar, Backend>(backend_, flat);
    updates_.assign(std::size_t(model_.network().segments), 0);
    fit_memory();
    model_.keep_average();  // last: when something fails before, the model's weights are as
                            // they were
  }

  model_type& model() {
    return model_;
  }
  const trainer_options& options() const {
    return options_;
  }
  index_t steps() const {
    return step_;
  }
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
    return probabilities_;
  }

  /// Whether a stage has seen what stage_kimg gives it, and whether all have.
  bool done(int stage) const {
    return !options_.stage_kimg.empty() && options_.stage_kimg[std::size_t(stage)] > 0 &&
           stage_images_[std::size_t(stage)] >= options_.stage_kimg[std::size_t(stage)] * 1000;
  }
  bool done() const {
    for (int s = 0; s < model_.stage_count(); ++s)
      if (!done(s) && probabilities_[std::size_t(s)] > 0)
        return false;
    return true;
  }
  /// Images that each stage has seen.
  const std::vector<double>& stage_images() const {
    return stage_images_;
  }

  /// One step on rows drawn from the data set. Whatever it throws (numeric_error,
  /// std::bad_alloc) nothing has changed then, and the step may be asked for again. @throws
  /// numeric_error, before anything is changed, when a value is not finite; value_error when
  /// all stages are done.
  step_report step() {
    const auto visit = model_.use();
    require<value_error>(
        !done(), "trainer: every stage has seen its stage_kimg; nothing is left to train");
    const std::vector<double> share = shares();
    const random_stream level(options_.seed, purpose::noise_level, std::uint64_t(step_));
    std::vector<row> rows(std::size_t(options_.batch_size));
    for (index_t r = 0; r < options_.batch_size; ++r) {
      // Stratified: row r takes its turn among the rows, shifted by one number a step; what is
      // left of it after choosing the stage places it inside.
      double u = options_.stratified
                     ? std::fmod((double(r) + level.uniform(0)) / double(rows.size()), 1.0)
                     : level.uniform(2 * r);
      int s = 0;
      while (s + 1 < model_.stage_count() && u >= share[std::size_t(s)])
        u -= share[std::size_t(s++)];
      while (share[std::size_t(s)] == 0)
        --s;  // rounding may leave u at the end of the last stage that has a share
      double inside = options_.stratified
                          ? std::clamp(u / share[std::size_t(s)], 1e-12, 1 - 1e-12)
                          : level.uniform(2 * r + 1);
      row& at = rows[std::size_t(r)];
      if (importance_.active()) {
        const auto placed = importance_.place(s, inside);
        inside = placed.u, at.bin = placed.bin, at.weight = placed.weight;
      }
      at.sigma = options_.levels.draw(model_.stages(), s, inside);
    }
    draw_images(rows);
    auto [r, report] = differentiate(images_.data(), rows, nullptr, {});
    update(r, options_.batch_size, report.gradient_norm);  // nothing may fail from here on
    if (importance_.active())
      for (std::size_t i = 0; i < rows.size(); ++i)
        importance_.record(model_.stages().stage(rows[i].sigma), rows[i].bin,
                           losses_[i] / rows[i].weight);
    return std::move(report);  // a name of a structured binding is not moved by itself
  }

  /// The gradient of the loss, as `step` would take it, at given noise levels of rows drawn
  /// from the data set; it is left in gradient(), and nothing else changes. What it has for
  /// decoders that no row needs is not defined.
  step_report differentiate(std::span<const double> sigmas) {
    const auto visit = model_.use();
    std::vector<row> rows;
    for (const double s : sigmas)
      rows.push_back({.sigma = s});
    draw_images(rows);
    return differentiate(images_.data(), rows, nullptr, {}).second;
  }

  /// One step on a batch given from outside.
  step_report step(const training_batch<Scalar>& batch) {
    const auto visit = model_.use();
    const index_t count = index_t(batch.sigmas.size());
    require<value_error>(count > 0,
                         "trainer: a batch without sigmas; give it one row at least");
    const tensor<Scalar, Backend> images(backend_, model_.images(count), batch.images),
        noise(backend_, model_.images(count), batch.noise);
    std::vector<row> rows;
    for (index_t r = 0; r < count; ++r)
      rows.push_back({.image = r, .sigma = batch.sigmas[std::size_t(r)]});
    auto [r, report] = differentiate(images.data(), rows, noise.data(), batch.class_labels);
    update(r, count, report.gradient_norm);
    return std::move(report);
  }

  /// Everything that a checkpoint must hold beside the model: flat moments, and counters.
  struct state {
    index_t step = 0;
    double images_seen = 0;
    std::vector<index_t> updates;  ///< of each segment
    std::vector<double> stage_images{};
    std::vector<double> importance{};
  };
  state counters() const {
    return {step_, images_seen_, updates_, stage_images_, importance_.state()};
  }
  tensor<Scalar, Backend>& gradient() {
    return gradient_;
  }
  tensor<Scalar, Backend>& first_moment() {
    return first_;
  }
  tensor<Scalar, Backend>& second_moment() {
    return second_;
  }
  /// @throws value_error when the state is not of this model's segments.
  void restore(const state& s) {
    require<value_error>(s.updates.size() == updates_.size(), "trainer: a state of ",
                         s.updates.size(), " segments cannot be resumed by a model of ",
                         updates_.size());
    require<value_error>(s.stage_images.size() == stage_images_.size(), "trainer: a state of ",
                         s.stage_images.size(), " stages cannot be resumed by a model of ",
                         stage_images_.size());
    std::fill(settled_.begin(), settled_.end(),
              char(0));  // the file's average may be another than its weights
    importance_.restore(s.importance);
    step_ = s.step;
    images_seen_ = s.images_seen;
    updates_ = s.updates;
    stage_images_ = s.stage_images;
  }

 private:
  /// A row of a batch: which image, at which noise level; the factor on its loss, and its bin
  /// where levels are drawn by importance.
  struct row {
    index_t image = 0;
    double sigma = 0;
    double weight = 1;
    int bin = -1;
  };
  std::vector<double> stage_probabilities() const {
    std::vector<double> p = options_.stage_probabilities.empty()
                                ? options_.levels.stage_probabilities(model_.stages())
                                : options_.stage_probabilities;
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    require<value_error>(sum > 0, "trainer: all stage_probabilities are 0");
    // Stages below the least share get it, the others share the rest in proportion.
    double lifted = 0;
    double rest = 0;
    for (double& v : p)
      (v /= sum) < options_.least_stage_share ? lifted += options_.least_stage_share
                                              : rest += v;
    for (double& v : p)
      v = v < options_.least_stage_share ? options_.least_stage_share : v * (1 - lifted) / rest;
    return p;
  }

  /// The stages' probabilities at this step: those of stages that are done go to the others.
  std::vector<double> shares() const {
    std::vector<double> p = probabilities_;
    double sum = 0;
    for (int s = 0; s < model_.stage_count(); ++s) {
      if (done(s) || (options_.one_after_the_other && sum > 0))
        p[std::size_t(s)] = 0;
      sum += p[std::size_t(s)];
    }
    for (double& v : p)
      v /= sum;
    return p;
  }
  void draw_images(std::vector<row>& rows) const {
    const random_stream order(options_.seed, purpose::data_order, std::uint64_t(step_));
    for (std::size_t r = 0; r < rows.size(); ++r)
      rows[r].image = order.below(r, std::uint32_t(images_count_));
  }

  void fit_memory() {
    const auto needed = [&](bool checkpoint) {
      model_.engine().set_checkpointing(checkpoint);
      return model_.activation_bytes(options_.batch_size, true);
    };
    if (options_.checkpoint_activations ||
        (options_.memory_budget > 0 && needed(false) > options_.memory_budget))
      require<value_error>(
          needed(true) <= options_.memory_budget || options_.memory_budget == 0,
          "trainer: a batch of ", options_.batch_size, " takes ", needed(true),
          " bytes of activations even when they are checkpointed, memory_budget is ",
          options_.memory_budget, "; a smaller batch_size or a larger budget is needed");
    model_.engine().reserve_for_training(options_.batch_size);
  }

  void grow(index_t rows) {
    grown(x_, backend_, model_.images(rows).size());
    grown(target_, backend_, model_.images(rows).size());
    grown(which_, backend_, rows);
    grown(row_values_, backend_, 3 * rows);
  }

  /// Factors on the noise of the rows: 1, or with augmented dimensions Student's t (see
  /// samplers/pfgm.hpp).
  double noise_scale(index_t number) const {
    const index_t a = options_.augmented;
    if (a == 0)
      return 1;
    const random_stream numbers(options_.seed, purpose::augmented_noise, std::uint64_t(step_));
    double squares = 0;
    for (index_t k = 0; k < a; ++k)
      squares += std::pow(numbers.normal(std::uint64_t(number * a + k)), 2);
    return std::sqrt(double(a) / squares);
  }

  /// Losses of the rows and the gradient, which goes to gradient_. Rows are put in the order of
  /// their stages; noise given from outside stays with its row.
  std::pair<routing, step_report> differentiate(const Scalar* images,
                                                std::vector<row>& batch,
                                                const Scalar* noise,
                                                std::vector<Scalar> one_hot) {
    const index_t rows = index_t(batch.size());
    const index_t size = model_.images(1).row_size();
    grow(rows);
    std::vector<double> sigmas;
    for (const row& r : batch)
      sigmas.push_back(r.sigma);
    routing r = model_.route(sigmas);
    if (noise == nullptr) {
      const std::vector<row> drawn = batch;
      for (index_t i = 0; i < rows; ++i)
        batch[i] = drawn[r.order[i]], sigmas[i] = batch[i].sigma;
      std::iota(r.order.begin(), r.order.end(), index_t{0});
    } else
      require<value_error>(std::is_sorted(r.order.begin(), r.order.end()),
                           "trainer: rows of a given batch must be in the order of their "
                           "stages, lowest noise first");
    std::vector<index_t> which;
    std::vector<double> values(std::size_t(2 * rows), 0.0);
    for (index_t i = 0; i < rows; ++i) {
      which.push_back(batch[i].image);
      values[i] = noise ? sigmas[i] : sigmas[i] * noise_scale(i);
      values[rows + i] =
          batch[i].weight * (options_.weight ? options_.weight->on_sample(sigmas[i])
                                             : model_.config().precond.loss_weight(sigmas[i]));
    }
    backend_.upload(values.data(), row_values_.data(), 2 * rows);
    backend_.upload(which.data(), which_.data(), rows);
    const double* sigma = row_values_.data();
    const double* weight = sigma + rows;
    double* loss = row_values_.data() + 2 * rows;
    backend_.for_each_index(
        rows * size,
        functor::noisy_rows<Scalar>{
            images, which_.data(), sigma, noise,
            random_stream(options_.seed, purpose::training_noise, std::uint64_t(step_)), size,
            target_.data(), x_.data()},
        256);

    conditioning<Scalar> labels;
    if (const index_t known = model_.label_dim(input_slot::class_labels); known > 0) {
      if (one_hot.empty()) {
        one_hot.assign(std::size_t(rows * known), Scalar(0));
        const random_stream dropped(options_.seed, purpose::label_dropout,
                                    std::uint64_t(step_));
        for (index_t i = 0; i < rows;
             ++i)  // a row without its label learns what guidance compares with
          if (options_.label_dropout == 0 ||
              dropped.uniform(std::uint64_t(i)) >= options_.label_dropout)
            one_hot[i * known + classes_[which[i]]] = Scalar(1);
      }
      labels_ = tensor<Scalar, Backend>(backend_, {rows, 1, 1, known}, one_hot);
      labels.class_labels = labels_.data();
    }
    const network_inputs<Scalar> in = model_.prepare(x_.data(), sigmas, r, labels);
    const double* skip = model_.prepared_factors() + rows;
    const double* out = skip + rows;
    for_each_segment(
        [&](int segment) { return reached(r, segment); },
        [&](view<Scalar> g) { ops::fill<Backend, Scalar>(backend_, g, Scalar(0)); });
    model_.engine().differentiate(
        model_.weights().data(), gradient_.data(), in, r.rows_by_stage,
        [&](int, index_t first, index_t n, const Scalar* f, Scalar* df) {
          const functor::denoising_loss<Scalar> term{x_.data() + first * size,
                                                     target_.data() + first * size,
                                                     f,
                                                     skip + first,
                                                     out + first,
                                                     weight + first,
                                                     size,
                                                     1.0 / double(rows),
                                                     df};
          sum_by_row(backend_, n, size, term, loss + first);
        },
        {.dropout = random_stream(options_.seed, purpose::dropout, std::uint64_t(step_))});

    step_report report{step_ + 1, images_seen_ + double(rows),
                       std::vector<double>(r.rows_by_stage.size(), 0.0), r.rows_by_stage, 0};
    losses_.resize(std::size_t(rows));
    backend_.download(loss, losses_.data(), rows);
    double squares = 0;
    for_each_segment([&](int segment) { return moves(r, segment); },
                     [&](view<Scalar> g) {
                       squares += ops::sum_of_squares<Backend, Scalar>(backend_,
                                                                       view<const Scalar>(g));
                     });
    report.gradient_norm = std::sqrt(squares);
    index_t at = 0;
    for (std::size_t s = 0; s < r.rows_by_stage.size(); ++s) {
      double sum = 0;
      for (index_t k = 0; k < r.rows_by_stage[s]; ++k, ++at) {
        if (!std::isfinite(losses_[std::size_t(at)]))
          stop_on(at, int(s), sigmas[at], in, r);
        sum += losses_[std::size_t(at)];
      }
      report.loss[s] = sum / double(r.rows_by_stage[s]);
    }
    if (!std::isfinite(report.gradient_norm))
      stop_on(-1, -1, 0, in, r);
    return {std::move(r), std::move(report)};
  }

  /// The factor on a segment's learning rate.
  double rate_of(int segment) const {
    if (segment == 0)
      return options_.shared_kimg > 0 && images_seen_ >= options_.shared_kimg * 1000
                 ? 0
                 : options_.shared_rate;
    return options_.stage_rates.empty() ? 1 : options_.stage_rates[std::size_t(segment) - 1];
  }
  /// Whether this batch has a gradient for a segment, and whether that moves it.
  bool reached(const routing& r, int segment) const {
    return segment == 0 || r.rows_by_stage[std::size_t(segment) - 1] > 0;
  }
  bool moves(const routing& r, int segment) const {
    return rate_of(segment) > 0 && reached(r, segment);
  }
  /// Calls f with the gradient of each segment for which `wanted(segment)`.
  template <class Wanted, class F>
  void for_each_segment(Wanted&& wanted, F&& f) {
    for (int segment = 0; segment < model_.network().segments; ++segment) {
      const auto [begin, end] = model_.network().parameter_range(segment);
      if (end > begin && wanted(segment))
        f(view<Scalar>(gradient_.data() + begin, {1, 1, 1, end - begin}));
    }
  }

  /// Finds out where a value stopped being finite and says so.
  [[noreturn]] void stop_on(index_t bad_row,
                            int stage,
                            double sigma,
                            const network_inputs<Scalar>& in,
                            const routing& r) {
    const auto layer_of = [&](int node) {
      const int w = model_.network().nodes[node].weight;
      return w >= 0 ? model_.parameter_names()[w] : std::string("node ") + std::to_string(node);
    };
    const char* const advice =
        "; nothing was updated and the last checkpoint is good: lower the learning rate, set "
        "gradient_clip, or look at the images";
    if (bad_row >= 0) {
      const auto t =
          model_.engine().first_non_finite(model_.weights().data(), in, r.rows_by_stage);
      fail<numeric_error>(
          "training: the loss is not finite at step ", step_ + 1, ", stage ", stage, ", sigma ",
          sigma, ", layer ",
          t.node >= 0 ? layer_of(t.node) : std::string("none (the loss itself)"), advice);
    }
    const std::vector<Scalar> g = gradient_.to_host();
    const auto& parameters = model_.network().parameters;
    for (std::size_t k = 0; k < parameters.size(); ++k)
      for (index_t i = moves(r, parameters[k].segment) ? 0 : parameters[k].size();
           i < parameters[k].size(); ++i)
        if (!std::isfinite(g[parameters[k].offset + i]))
          fail<numeric_error>("training: the gradient is not finite at step ", step_ + 1,
                              ", stage ", parameters[k].segment - 1, " (-1: shared), layer ",
                              model_.parameter_names()[k], advice);
    fail<numeric_error>("training: the gradient's norm overflows at step ", step_ + 1, advice);
  }

  void update(const routing& r, index_t rows, double norm) {
    const trainer_options& o = options_;
    const double rate =
        o.learning_rate *
        (o.lr_rampup_kimg > 0 ? std::min(images_seen_ / (o.lr_rampup_kimg * 1000), 1.0) : 1.0);
    const auto keep = [&](int segment) {
      double halflife = (segment == 0 || o.stage_ema_halflife_kimg.empty()
                             ? o.ema_halflife_kimg
                             : o.stage_ema_halflife_kimg[std::size_t(segment) - 1]) *
                        1000;
      if (o.ema_rampup_ratio > 0)
        halflife = std::min(halflife, images_seen_ * o.ema_rampup_ratio);
      return std::pow(0.5, double(rows) / std::max(halflife, 1e-8));
    };
    const double clip =
        o.gradient_clip > 0 && norm > o.gradient_clip ? o.gradient_clip / norm : 1.0;
    const graph& g = model_.network();
    // Parameters of a segment lie together. A decoder without rows is left alone, its counters
    // too.
    for (int segment = 0; segment < g.segments; ++segment) {
      const auto [begin, end] = g.parameter_range(segment);
      if (end == begin)
        continue;
      const bool moving = moves(r, segment);
      if (!moving && settled_[std::size_t(segment)])
        continue;  // an average of what never moved
      settled_[std::size_t(segment)] = false;
      const double k = double(updates_[segment] += moving ? 1 : 0);
      backend_.for_each_index(
          end - begin,
          functor::adam_and_average<Scalar>{
              gradient_.data() + begin, model_.weights().data() + begin, first_.data() + begin,
              second_.data() + begin, model_.averaged_weights().data() + begin,
              Scalar(o.adam.beta1), Scalar(o.adam.beta2), Scalar(o.adam.epsilon),
              Scalar(rate * rate_of(segment)),
              Scalar(moving ? 1 / (1 - std::pow(o.adam.beta1, k)) : 0),
              Scalar(moving ? 1 / (1 - std::pow(o.adam.beta2, k)) : 0), Scalar(clip),
              Scalar(keep(segment)), moving});
    }
    ++step_;
    images_seen_ += double(rows);
    for (std::size_t s = 0; s < stage_images_.size(); ++s)
      stage_images_[s] += double(r.rows_by_stage[s]);
  }

  model_type& model_;
  Backend backend_;
  trainer_options options_;
  index_t images_count_;
  std::string images_fingerprint_;
  std::vector<int> classes_;
  std::vector<double> probabilities_;
  tensor<Scalar, Backend> images_;
  tensor<Scalar, Backend> gradient_;
  tensor<Scalar, Backend> first_;
  tensor<Scalar, Backend> second_;
  tensor<Scalar, Backend> x_;
  tensor<Scalar, Backend> target_;
  tensor<Scalar, Backend> labels_;
  tensor<index_t, Backend> which_;
  tensor<double, Backend> row_values_;
  index_t step_ = 0;
  double images_seen_ = 0;
  std::vector<index_t> updates_;
  // losses: of the last batch's rows
  std::vector<double> stage_images_;
  std::vector<double> losses_;
  importance_sampler importance_;
  std::vector<char> settled_;  // by segment: its average is its weights
};

template <class Model, class... Rest>
trainer(Model&, Rest&&...) -> trainer<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
