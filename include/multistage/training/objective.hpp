// The objective (Karras et al., arXiv 2206.00364, eq. 8), and its gradient by the weights:
//   L = 1/B sum_n w(sigma_n) |D(y_n + sigma_n z_n; sigma_n) - y_n|^2.
//
// With F the network and D = c_skip x + c_out F, the gradient that goes into F is 2 w c_out (D
// - y) / B for each value: nothing else of the preconditioning is differentiated.
#pragma once
#include <algorithm>
#include <numeric>

#include "noisy_rows.hpp"
#include "segments.hpp"

namespace multistage {

namespace functor {
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

/// What an objective is evaluated on.
template <class T>
struct objective_batch {
  const T* images;                 ///< on the backend, [n, h, w, c]
  std::vector<training_row> rows;  ///< of them
  std::span<const int> classes{};  ///< of the images, for models with labels
  const T* noise = nullptr;  ///< by row, on the backend; null: drawn. Rows are in order then
  std::vector<T> one_hot{};  ///< labels [rows, label_dim] in the place of classes
};

/// What an evaluation found. Rows are in the order of their stages.
template <class T>
struct evaluated_batch {
  routing route;                   ///< how many rows each stage has
  std::vector<training_row> rows;  ///< as they were evaluated
  std::vector<double> losses;      ///< of the rows, weighted; not all need be finite
  network_inputs<T> inputs;        ///< what the network read, until the model's next evaluation
};

/// The weighted denoising loss of a model. Memory grows to the largest batch and stays.
template <class Scalar, class Backend>
class denoising_objective {
 public:
  /// What is evaluated.
  using model_type = dynamic_model<Scalar, Backend>;

  /// By trainer_options: weight, augmented and label_dropout. @param trained must outlive this
  denoising_objective(model_type& trained, const trainer_options& o)
      : model_(trained),
        backend_(trained.backend()),
        weight_(o.weight ? o.weight
                         : loss_weight(edm_weight{trained.config().precond.sigma_data})),
        augmented_(o.augmented),
        label_dropout_(o.label_dropout) {}

  /// Losses of the rows, and the gradient, which lies as the weights do; what it has for
  /// decoders that no row needs is not defined. @throws shape_error, value_error for rows with
  /// given noise that are not in the order of their stages, and for labels that are missing
  evaluated_batch<Scalar> differentiate(objective_batch<Scalar> batch,
                                        const step_numbers& numbers,
                                        tensor<Scalar, Backend>& gradient) {
    const index_t rows = index_t(batch.rows.size());
    const index_t size = model_.images(1).row_size();
    require<shape_error>(gradient.size() == model_.weights().size(),
                         "denoising_objective: the gradient has ", gradient.size(),
                         " values, the model ", model_.weights().size(), " weights");
    grow(rows);
    evaluated_batch<Scalar> found;
    found.route = routed(batch);
    const std::vector<double> sigmas = sigmas_of(batch.rows);
    make_noisy(batch, sigmas, numbers);
    upload_labels(batch, numbers);
    conditioning<Scalar> labels;
    labels.class_labels = labels_.size() > 0 ? labels_.data() : nullptr;
    const auto prepared = model_.prepare(x_.data(), sigmas, found.route, labels);

    for_each_segment(
        model_.network(), gradient.data(),
        [&](int segment) { return reaches(found.route, segment); },
        [&](view<Scalar> g) { ops::fill<Backend, Scalar>(backend_, g, Scalar(0)); });
    const double* weight = row_values_.data() + rows;
    double* loss = row_values_.data() + 2 * rows;
    const auto loss_and_gradient = [&](int, index_t first, index_t n, const Scalar* f,
                                       Scalar* df) {
      const functor::denoising_loss<Scalar> term{x_.data() + first * size,
                                                 target_.data() + first * size,
                                                 f,
                                                 prepared.skip + first,
                                                 prepared.out + first,
                                                 weight + first,
                                                 size,
                                                 1.0 / double(rows),
                                                 df};
      sum_by_row(backend_, n, size, term, loss + first);
    };
    model_.engine().differentiate(model_.weights().data(), gradient.data(), prepared.inputs,
                                  found.route.rows_by_stage, loss_and_gradient,
                                  {.dropout = numbers.of(purpose::dropout)});

    found.inputs = prepared.inputs;
    found.rows = std::move(batch.rows);
    found.losses.resize(std::size_t(rows));
    backend_.download(loss, found.losses.data(), rows);
    return found;
  }

 private:
  static std::vector<double> sigmas_of(const std::vector<training_row>& rows) {
    std::vector<double> sigmas;
    for (const training_row& r : rows)
      sigmas.push_back(r.sigma);
    return sigmas;
  }
  void grow(index_t rows) {
    grown(x_, backend_, model_.images(rows).size());
    grown(target_, backend_, model_.images(rows).size());
    grown(which_, backend_, rows);
    grown(row_values_, backend_, 3 * rows);
  }
  /// Puts rows in the order of their stages; noise given from outside stays with its row.
  routing routed(objective_batch<Scalar>& batch) const {
    routing route = model_.route(sigmas_of(batch.rows));
    if (batch.noise != nullptr) {
      require<value_error>(std::is_sorted(route.order.begin(), route.order.end()),
                           "trainer: rows of a given batch must be in the order of their "
                           "stages, lowest noise first");
      return route;
    }
    const std::vector<training_row> drawn = batch.rows;
    for (std::size_t i = 0; i < drawn.size(); ++i)
      batch.rows[i] = drawn[std::size_t(route.order[i])];
    std::iota(route.order.begin(), route.order.end(), index_t{0});
    return route;
  }
  /// Fills x and target, and the rows' values: noise, weights.
  void make_noisy(const objective_batch<Scalar>& batch,
                  const std::vector<double>& sigmas,
                  const step_numbers& numbers) {
    const std::size_t rows = batch.rows.size();
    const index_t size = model_.images(1).row_size();
    std::vector<index_t> which;
    std::vector<double> values(2 * rows, 0.0);
    for (std::size_t i = 0; i < rows; ++i) {
      which.push_back(batch.rows[i].image);
      values[i] =
          batch.noise ? sigmas[i] : sigmas[i] * student_factor(augmented_, index_t(i), numbers);
      values[rows + i] = batch.rows[i].weight * weight_(sigmas[i]);
    }
    backend_.upload(values.data(), row_values_.data(), index_t(values.size()));
    backend_.upload(which.data(), which_.data(), index_t(rows));
    backend_.for_each_index(
        index_t(rows) * size,
        functor::noisy_rows<Scalar>{batch.images, which_.data(), row_values_.data(),
                                    batch.noise, numbers.of(purpose::training_noise), size,
                                    target_.data(), x_.data()},
        256);
  }
  /// Labels, some left out: a row without its label learns what guidance compares with.
  void upload_labels(objective_batch<Scalar>& batch, const step_numbers& numbers) {
    const index_t known = model_.label_dim(input_slot::class_labels);
    if (known == 0)
      return;
    const std::size_t rows = batch.rows.size();
    require<value_error>(!batch.one_hot.empty() || !batch.classes.empty(),
                         "trainer: a batch without class labels for a model of ", known,
                         " classes; give one label a row");
    if (batch.one_hot.empty()) {
      batch.one_hot.assign(rows * std::size_t(known), Scalar(0));
      const random_stream dropped = numbers.of(purpose::label_dropout);
      for (std::size_t i = 0; i < rows; ++i) {
        const int label = batch.classes[std::size_t(batch.rows[i].image)];
        if (label_dropout_ == 0 || dropped.uniform(i) >= label_dropout_)
          batch.one_hot[i * std::size_t(known) + std::size_t(label)] = Scalar(1);
      }
    }
    labels_ = tensor<Scalar, Backend>(backend_, {index_t(rows), 1, 1, known}, batch.one_hot);
  }

  model_type& model_;
  Backend backend_;
  loss_weight weight_;
  int augmented_;
  double label_dropout_;
  tensor<Scalar, Backend> x_;
  tensor<Scalar, Backend> target_;
  tensor<Scalar, Backend> labels_;
  tensor<index_t, Backend> which_;
  tensor<double, Backend> row_values_;  // [3, rows]: noise, weights, losses
};

/// Of a model of any type.
template <class Model>
denoising_objective(Model&, const trainer_options&)
    -> denoising_objective<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
