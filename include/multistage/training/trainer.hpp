// Training of all stages in one run (arXiv 2312.09181, section 4 and algorithm 2; Karras et al., arXiv 2206.00364, eq. 8 and table 1):
// a batch mixes stages; each row's noise level is drawn inside its stage; the loss is
//   L = 1/B sum_n w(sigma_n) |D(y_n + sigma_n z_n; sigma_n) - y_n|^2.
// Every draw is a function of (seed, step), so a run that was stopped and resumed equals one that was not, bit by bit.
#pragma once
#include <chrono>
#include <functional>
#include <optional>

#include "../diffusion/loss_weighting.hpp"
#include "../diffusion/model.hpp"
#include "../diffusion/noise_levels.hpp"
#include "../stages/optimal_denoiser_clustering.hpp"
#include "adam.hpp"

namespace multistage {

struct trainer_options {
  double learning_rate = 1e-3;
  adam_options adam{};
  double lr_rampup_kimg = 10;      // the rate grows linearly over so many thousand images; 0: none
  double ema_halflife_kimg = 500;  // of the average of the weights, in thousand images
  double ema_rampup_ratio = 0.05;  // the half-life is at most this share of the images seen; 0: no such limit
  index_t batch_size = 64;
  double gradient_clip = 0;  // largest norm of the gradient over all parameters; 0: no clipping
  noise_level_draws levels{};
  std::optional<loss_weight> weight{};        // of the squared error of D; none: EDM's, with the model's sigma_data
  bool stratified = false;                    // rows of a stage take equal shares of its distribution instead of independent draws
  std::vector<double> stage_probabilities{};  // empty: by P(sigma)
  double shared_rate = 1;                     // factor on the learning rate of what stages share; 0 freezes it
  std::vector<double> stage_rates{};          // of each stage's decoder; empty: 1
  double least_stage_share = 0;               // no stage gets fewer than this share of rows
  bool checkpoint_activations = false;        // keep only what blocks hand on: less memory for one more forward pass
  index_t memory_budget = 0;                  // bytes for activations; 0: no limit. What does not fit is checkpointed
  std::uint64_t seed = 0;
};

/// What one step did, by stage.
struct step_report {
  index_t step = 0;
  double images_seen = 0;
  std::vector<double> loss;  // mean over the stage's rows; NaN where it had none
  std::vector<index_t> rows;
  double gradient_norm = 0;
};

/// A batch given from outside; host memory, NHWC, noise standard normal, class labels one-hot [rows, label_dim] where the model has them.
template <class T>
struct training_batch {
  std::vector<T> images, noise;
  std::vector<double> sigmas;
  std::vector<T> class_labels{};
};

namespace functor {
template <class T>
struct noisy_rows {
  const T* images;
  const index_t* which;  // row -> image
  const double* sigma;
  const T* noise;  // null: drawn from `numbers`
  random_stream numbers;
  index_t size;
  T *target, *x;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t row = i / size;
    const T y = images[which[row] * size + i % size], z = noise ? noise[i] : T(numbers.normal(std::uint64_t(i)));
    target[i] = y;
    x[i] = y + T(sigma[row]) * z;
  }
};
/// Gradient of the loss with respect to F, and the rows' losses.
template <class T>
struct denoising_loss {
  const T *x, *target, *f;
  const double *skip, *out, *weight;
  index_t size;
  double per_batch;
  T* gradient;
  double* loss;
  MULTISTAGE_HD void operator()(index_t row) const {
    double sum = 0;
    for (index_t i = row * size; i < (row + 1) * size; ++i) {
      const double e = skip[row] * double(x[i]) + out[row] * double(f[i]) - double(target[i]);
      sum += e * e;
      gradient[i] = T(2 * weight[row] * out[row] * e * per_batch);
    }
    loss[row] = weight[row] * sum;
  }
};
}  // namespace functor

template <class Scalar, class Backend>
class trainer {
 public:
  using model_type = dynamic_model<Scalar, Backend>;

  /// @param model is trained in place and must outlive this object. @param images host memory [n, h, w, c] in [-1, 1].
  /// @param classes the class of each image, for models with labels.
  /// @throws value_error for data that cannot train, or options out of range; shape_error when images do not fit the model.
  trainer(model_type& model, std::span<const float> images, shape extents, trainer_options options, std::span<const int> classes = {})
      : model_(model), backend_(model.backend()), options_(std::move(options)), images_count_(extents.rows), classes_(classes.begin(), classes.end()) {
    check(options_);
    check_images(images, extents);
    require<shape_error>(extents == model.images(extents.rows), "trainer: images are ", extents, ", the model takes ", model.images(extents.rows),
                         "; resize the images or choose resolution and channels to match");
    const index_t known = model.label_dim(input_slot::class_labels);
    require<value_error>(index_t(classes_.size()) == (known > 0 ? extents.rows : 0), "trainer: ", classes_.size(), " class labels for ", extents.rows,
                         " images and a model of ", known, " classes; give one label an image if the model has classes, else none");
    for (std::size_t i = 0; i < classes_.size(); ++i)
      require<value_error>(classes_[i] >= 0 && classes_[i] < known, "trainer: image ", i, " is of class ", classes_[i], ", the model knows 0..", known - 1);
    images_ = tensor<Scalar, Backend>(backend_, extents, std::vector<Scalar>(images.begin(), images.end()));
    probabilities_ = stage_probabilities();
    require<value_error>(options_.stage_rates.empty() || int(options_.stage_rates.size()) == model_.stage_count(), "trainer: ", options_.stage_rates.size(),
                         " stage_rates for ", model_.stage_count(), " stages");
    fit_memory();
    model_.keep_average();
    const shape flat = model_.weights().extents();
    gradient_ = tensor<Scalar, Backend>(backend_, flat);
    first_ = tensor<Scalar, Backend>(backend_, flat);
    second_ = tensor<Scalar, Backend>(backend_, flat);
    updates_.assign(std::size_t(model_.network().segments), 0);
  }

  model_type& model() { return model_; }
  const trainer_options& options() const { return options_; }
  index_t steps() const { return step_; }
  double images_seen() const { return images_seen_; }
  /// Probability with which a row is drawn from each stage.
  const std::vector<double>& probabilities() const { return probabilities_; }

  /// One step on rows drawn from the data set. @throws numeric_error, before anything is changed, when a value is not finite.
  step_report step() {
    const index_t rows = options_.batch_size;
    std::vector<index_t> which(std::size_t(rows), 0);
    std::vector<double> sigmas(std::size_t(rows), 0.0);
    const random_stream order(options_.seed, purpose::data_order, std::uint64_t(step_)), level(options_.seed, purpose::noise_level, std::uint64_t(step_));
    for (index_t r = 0; r < rows; ++r) {
      which[r] = order.below(r, std::uint32_t(images_count_));
      // Stratified: row r takes its turn among the rows, shifted by one number a step; what is left of it after choosing the stage places it inside.
      double u = options_.stratified ? std::fmod((double(r) + level.uniform(0)) / double(rows), 1.0) : level.uniform(2 * r);
      int s = 0;
      while (s + 1 < model_.stage_count() && u >= probabilities_[s]) u -= probabilities_[s++];
      const double inside = options_.stratified ? std::clamp(u / probabilities_[s], 1e-12, 1 - 1e-12) : level.uniform(2 * r + 1);
      sigmas[r] = options_.levels.draw(model_.stages(), s, inside);
    }
    return step(images_.data(), which, sigmas, nullptr, {});
  }

  /// One step on a batch given from outside.
  step_report step(const training_batch<Scalar>& batch) {
    const index_t rows = index_t(batch.sigmas.size());
    const tensor<Scalar, Backend> images(backend_, model_.images(rows), batch.images), noise(backend_, model_.images(rows), batch.noise);
    std::vector<index_t> which(std::size_t(rows), 0);
    std::iota(which.begin(), which.end(), index_t{0});
    return step(images.data(), which, batch.sigmas, noise.data(), batch.class_labels);
  }

  /// Everything that a checkpoint must hold beside the model: flat moments, and counters.
  struct state {
    index_t step = 0;
    double images_seen = 0;
    std::vector<index_t> updates;  // of each segment
  };
  state counters() const { return {step_, images_seen_, updates_}; }
  tensor<Scalar, Backend>& gradient() { return gradient_; }
  tensor<Scalar, Backend>& first_moment() { return first_; }
  tensor<Scalar, Backend>& second_moment() { return second_; }
  /// @throws value_error when the state is not of this model's segments.
  void restore(const state& s) {
    require<value_error>(s.updates.size() == updates_.size(), "trainer: a state of ", s.updates.size(), " segments cannot be resumed by a model of ",
                         updates_.size());
    step_ = s.step;
    images_seen_ = s.images_seen;
    updates_ = s.updates;
  }

 private:
  static void check(const trainer_options& o) {
    const auto positive = [](const char* name, double v) { require<value_error>(v > 0 && std::isfinite(v), "trainer: ", name, " = ", v, " must be above 0"); };
    const auto not_negative = [](const char* name, double v) {
      require<value_error>(v >= 0 && std::isfinite(v), "trainer: ", name, " = ", v, " must not be negative");
    };
    positive("learning_rate", o.learning_rate);
    positive("batch_size", double(o.batch_size));
    positive("levels.p_std", o.levels.p_std);
    require<value_error>(o.levels.sigma_min > 0 && o.levels.sigma_min < o.levels.sigma_max, "trainer: levels from sigma ", o.levels.sigma_min, " to ",
                         o.levels.sigma_max, "; they must ascend and be above 0");
    positive("adam.epsilon", o.adam.epsilon);
    not_negative("lr_rampup_kimg", o.lr_rampup_kimg);
    not_negative("ema_halflife_kimg", o.ema_halflife_kimg);
    not_negative("ema_rampup_ratio", o.ema_rampup_ratio);
    not_negative("gradient_clip", o.gradient_clip);
    not_negative("shared_rate", o.shared_rate);
    for (const double r : o.stage_rates) not_negative("a stage's rate", r);
    for (double b : {o.adam.beta1, o.adam.beta2}) require<value_error>(b >= 0 && b < 1, "trainer: adam's beta = ", b, " is outside [0, 1)");
  }

  std::vector<double> stage_probabilities() const {
    const int n = model_.stage_count();
    std::vector<double> p = options_.stage_probabilities.empty() ? options_.levels.stage_probabilities(model_.stages()) : options_.stage_probabilities;
    require<value_error>(int(p.size()) == n, "trainer: ", p.size(), " stage_probabilities for ", n, " stages");
    require<value_error>(options_.least_stage_share >= 0 && options_.least_stage_share * n <= 1, "trainer: least_stage_share = ", options_.least_stage_share,
                         " is outside [0, 1/", n, "]");
    double sum = 0;
    for (double v : p) {
      require<value_error>(v >= 0 && std::isfinite(v), "trainer: a stage probability is ", v, "; they must not be negative");
      sum += v;
    }
    require<value_error>(sum > 0, "trainer: all stage_probabilities are 0");
    // Stages below the least share get it, the others share the rest in proportion.
    double lifted = 0, rest = 0;
    for (double& v : p) (v /= sum) < options_.least_stage_share ? lifted += options_.least_stage_share : rest += v;
    for (double& v : p) v = v < options_.least_stage_share ? options_.least_stage_share : v * (1 - lifted) / rest;
    return p;
  }

  void fit_memory() {
    const auto needed = [&](bool checkpoint) {
      model_.engine().set_checkpointing(checkpoint);
      return model_.activation_bytes(options_.batch_size, true);
    };
    if (options_.checkpoint_activations || (options_.memory_budget > 0 && needed(false) > options_.memory_budget))
      require<value_error>(needed(true) <= options_.memory_budget || options_.memory_budget == 0, "trainer: a batch of ", options_.batch_size, " takes ",
                           needed(true), " bytes of activations even when they are checkpointed, memory_budget is ", options_.memory_budget,
                           "; a smaller batch_size or a larger budget is needed");
  }

  void grow(index_t rows) {
    if (rows <= capacity_) return;
    capacity_ = rows;
    x_ = tensor<Scalar, Backend>(backend_, model_.images(rows));
    target_ = tensor<Scalar, Backend>(backend_, model_.images(rows));
    which_ = tensor<index_t, Backend>(backend_, {rows, 1, 1, 1});
    row_values_ = tensor<double, Backend>(backend_, {3 * rows, 1, 1, 1});
  }

  step_report step(const Scalar* images, std::vector<index_t> which, std::vector<double> sigmas, const Scalar* noise, std::vector<Scalar> one_hot) {
    const index_t rows = index_t(sigmas.size()), size = model_.images(1).row_size();
    grow(rows);
    // Rows in the order of their stages from here on; noise given from outside stays with its row.
    routing r = model_.route(sigmas);
    if (noise == nullptr) {
      std::vector<index_t> sorted_which = which;
      std::vector<double> sorted = sigmas;
      for (index_t i = 0; i < rows; ++i) sorted_which[i] = which[r.order[i]], sorted[i] = sigmas[r.order[i]];
      which = std::move(sorted_which);
      sigmas = std::move(sorted);
      std::iota(r.order.begin(), r.order.end(), index_t{0});
    } else
      require<value_error>(std::is_sorted(r.order.begin(), r.order.end()),
                           "trainer: rows of a given batch must be in the order of their stages, lowest noise first");
    std::vector<double> values(std::size_t(2 * rows), 0.0);
    for (index_t i = 0; i < rows; ++i) {
      values[i] = sigmas[i];
      values[rows + i] = options_.weight ? options_.weight->on_sample(sigmas[i]) : model_.config().precond.loss_weight(sigmas[i]);
    }
    backend_.upload(values.data(), row_values_.data(), 2 * rows);
    backend_.upload(which.data(), which_.data(), rows);
    const double *sigma = row_values_.data(), *weight = sigma + rows;
    double* loss = row_values_.data() + 2 * rows;
    backend_.for_each_index(
        rows * size,
        functor::noisy_rows<Scalar>{images, which_.data(), sigma, noise, random_stream(options_.seed, purpose::training_noise, std::uint64_t(step_)), size,
                                    target_.data(), x_.data()},
        256);

    conditioning<Scalar> labels;
    if (const index_t known = model_.label_dim(input_slot::class_labels); known > 0) {
      if (one_hot.empty()) {
        one_hot.assign(std::size_t(rows * known), Scalar(0));
        for (index_t i = 0; i < rows; ++i) one_hot[i * known + classes_[which[i]]] = Scalar(1);
      }
      labels_ = tensor<Scalar, Backend>(backend_, {rows, 1, 1, known}, one_hot);
      labels.class_labels = labels_.data();
    }
    const network_inputs<Scalar> in = model_.prepare(x_.data(), sigmas, r, labels);
    const double *skip = model_.prepared_factors() + rows, *out = skip + rows;
    for_each_moving(r, [&](view<Scalar> g) { ops::fill<Backend, Scalar>(backend_, g, Scalar(0)); });
    model_.engine().differentiate(model_.weights().data(), gradient_.data(), in, r.rows_by_stage,
                                  [&](int, index_t first, index_t n, const Scalar* f, Scalar* df) {
                                    backend_.for_each_index(
                                        n,
                                        functor::denoising_loss<Scalar>{x_.data() + first * size, target_.data() + first * size, f, skip + first, out + first,
                                                                        weight + first, size, 1.0 / double(rows), df, loss + first},
                                        1);
                                  },
                                  {.dropout = random_stream(options_.seed, purpose::dropout, std::uint64_t(step_))});

    step_report report{step_ + 1, images_seen_ + double(rows), std::vector<double>(r.rows_by_stage.size(), 0.0), r.rows_by_stage, 0};
    std::vector<double> losses(std::size_t(rows), 0.0);
    backend_.download(loss, losses.data(), rows);
    double squares = 0;
    for_each_moving(r, [&](view<Scalar> g) { squares += ops::sum_of_squares<Backend, Scalar>(backend_, view<const Scalar>(g)); });
    report.gradient_norm = std::sqrt(squares);
    index_t row = 0;
    for (std::size_t s = 0; s < r.rows_by_stage.size(); ++s) {
      double sum = 0;
      for (index_t k = 0; k < r.rows_by_stage[s]; ++k, ++row) {
        if (!std::isfinite(losses[row])) stop_on(row, int(s), sigmas[row], in, r);
        sum += losses[row];
      }
      report.loss[s] = sum / double(r.rows_by_stage[s]);
    }
    if (!std::isfinite(report.gradient_norm)) stop_on(-1, -1, 0, in, r);
    update(r, rows, report.gradient_norm);
    return report;
  }

  /// The factor on a segment's learning rate.
  double rate_of(int segment) const {
    if (segment == 0) return options_.shared_rate;
    return options_.stage_rates.empty() ? 1 : options_.stage_rates[std::size_t(segment) - 1];
  }
  bool moves(const routing& r, int segment) const { return rate_of(segment) > 0 && (segment == 0 || r.rows_by_stage[std::size_t(segment) - 1] > 0); }
  /// Calls f with the gradient of each segment that this batch moves; what the others hold is old and never read.
  template <class F>
  void for_each_moving(const routing& r, F&& f) {
    for (int segment = 0; segment < model_.network().segments; ++segment) {
      const auto [begin, end] = model_.network().parameter_range(segment);
      if (end > begin && moves(r, segment)) f(view<Scalar>(gradient_.data() + begin, {1, 1, 1, end - begin}));
    }
  }

  /// Finds out where a value stopped being finite and says so.
  [[noreturn]] void stop_on(index_t row, int stage, double sigma, const network_inputs<Scalar>& in, const routing& r) {
    const auto layer_of = [&](int node) {
      const int w = model_.network().nodes[node].weight;
      return w >= 0 ? model_.parameter_names()[w] : std::string("node ") + std::to_string(node);
    };
    const char* const advice = "; nothing was updated and the last checkpoint is good: lower the learning rate, set gradient_clip, or look at the images";
    if (row >= 0) {
      const auto t = model_.engine().first_non_finite(model_.weights().data(), in, r.rows_by_stage);
      fail<numeric_error>("training: the loss is not finite at step ", step_ + 1, ", stage ", stage, ", sigma ", sigma, ", layer ",
                          t.node >= 0 ? layer_of(t.node) : std::string("none (the loss itself)"), advice);
    }
    const std::vector<Scalar> g = gradient_.to_host();
    const auto& parameters = model_.network().parameters;
    for (std::size_t k = 0; k < parameters.size(); ++k)
      for (index_t i = moves(r, parameters[k].segment) ? 0 : parameters[k].size(); i < parameters[k].size(); ++i)
        if (!std::isfinite(g[parameters[k].offset + i]))
          fail<numeric_error>("training: the gradient is not finite at step ", step_ + 1, ", stage ", parameters[k].segment - 1, " (-1: shared), layer ",
                              model_.parameter_names()[k], advice);
    fail<numeric_error>("training: the gradient's norm overflows at step ", step_ + 1, advice);
  }

  void update(const routing& r, index_t rows, double norm) {
    const trainer_options& o = options_;
    const double rate = o.learning_rate * (o.lr_rampup_kimg > 0 ? std::min(images_seen_ / (o.lr_rampup_kimg * 1000), 1.0) : 1.0);
    double halflife = o.ema_halflife_kimg * 1000;
    if (o.ema_rampup_ratio > 0) halflife = std::min(halflife, images_seen_ * o.ema_rampup_ratio);
    const double keep = std::pow(0.5, double(rows) / std::max(halflife, 1e-8)),
                 clip = o.gradient_clip > 0 && norm > o.gradient_clip ? o.gradient_clip / norm : 1.0;
    const graph& g = model_.network();
    // Parameters of a segment lie together. A decoder without rows is left alone, its counters too.
    for (int segment = 0; segment < g.segments; ++segment) {
      const auto [begin, end] = g.parameter_range(segment);
      if (end == begin) continue;
      const bool moving = moves(r, segment);
      const double k = double(updates_[segment] += moving ? 1 : 0);
      backend_.for_each_index(end - begin, functor::adam_and_average<Scalar>{
                                               gradient_.data() + begin, model_.weights().data() + begin, first_.data() + begin, second_.data() + begin,
                                               model_.averaged_weights().data() + begin, Scalar(o.adam.beta1), Scalar(o.adam.beta2), Scalar(o.adam.epsilon),
                                               Scalar(rate * rate_of(segment)), Scalar(moving ? 1 / (1 - std::pow(o.adam.beta1, k)) : 0),
                                               Scalar(moving ? 1 / (1 - std::pow(o.adam.beta2, k)) : 0), Scalar(clip), Scalar(keep), moving});
    }
    ++step_;
    images_seen_ += double(rows);
  }

  model_type& model_;
  Backend backend_;
  trainer_options options_;
  index_t images_count_;
  std::vector<int> classes_;
  std::vector<double> probabilities_;
  tensor<Scalar, Backend> images_, gradient_, first_, second_, x_, target_, labels_;
  tensor<index_t, Backend> which_;
  tensor<double, Backend> row_values_;
  index_t capacity_ = 0, step_ = 0;
  double images_seen_ = 0;
  std::vector<index_t> updates_;
};

template <class Model, class... Rest>
trainer(Model&, Rest&&...) -> trainer<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
