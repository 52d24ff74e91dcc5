// The objective (Karras et al., arXiv 2206.00364, eq. 8), and its gradient by the weights:
//   L = 1/B sum_n w(sigma_n) |D(y_n + sigma_n z_n; sigma_n) - y_n|^2.
//
// With F the network and D = c_skip x + c_out F, the gradient that goes into F is 2 w c_out (D
// - y) / B for each value: nothing else of the preconditioning is differentiated.
#pragma once
#include <algorithm>
#include <numeric>

#include "conditions.hpp"
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
  image_conditions conditions{};  ///< what else is known of the images
};

/// What an evaluation found. Rows are in the order of their stages.
template <class T>
struct evaluated_batch {
  routing route;                   ///< how many rows each stage has
  std::vector<training_row> rows;  ///< as they were evaluated
  std::vector<double> losses;      ///< of the rows, weighted; not all need be finite
  routing part;                    ///< of the rows that were evaluated last, at once
  network_inputs<T> inputs;        ///< what the network read of these, until the model's next
                                   ///< evaluation
};

/// The weighted denoising loss of a model. Memory grows to the largest batch and stays.
template <class Scalar, class Backend>
class denoising_objective {
 public:
  /// What is evaluated.
  using model_type = dynamic_model<Scalar, Backend>;

  /// By trainer_options: weight, augmented, label_dropout and micro_batch. @param trained must
  /// outlive this
  denoising_objective(model_type& trained, const trainer_options& o)
      : model_(trained),
        backend_(trained.backend()),
        weight_(o.weight ? o.weight
                         : loss_weight(edm_weight{trained.config().precond.sigma_data})),
        augmented_(o.augmented),
        conditions_(o.label_dropout),
        micro_batch_(o.micro_batch) {}

  /// Rows that are evaluated at once, a multiple of gradient_piece; 0: all. Losses and gradient
  /// are the same bits for all of them.
  void set_micro_batch(index_t rows) {
    micro_batch_ = rows;
  }

  /// Losses of the rows, and the gradient, which lies as the weights do; what it has for
  /// decoders that no row needs is not defined, nor is all of it behind a loss that is not
  /// finite. @throws shape_error, value_error for rows with given noise that are not in the
  /// order of their stages, and for labels that are missing
  evaluated_batch<Scalar> differentiate(objective_batch<Scalar> batch,
                                        const step_numbers& numbers,
                                        tensor<Scalar, Backend>& gradient) {
    const index_t rows = index_t(batch.rows.size());
    require<shape_error>(gradient.size() == model_.weights().size(),
                         "denoising_objective: the gradient has ", gradient.size(),
                         " values, the model ", model_.weights().size(), " weights");
    const index_t known = model_.label_dim(input_slot::class_labels);
    const index_t given = index_t(batch.one_hot.size());
    require<shape_error>(given == 0 || given == rows * known, "trainer: ", given,
                         " values of class labels for ", rows, " rows of ", known, " classes");
    const index_t at_once = micro_batch_ > 0 ? std::min(micro_batch_, rows) : rows;
    grow(at_once);
    evaluated_batch<Scalar> found;
    found.route = routed(batch);
    found.losses.assign(std::size_t(rows), 0.0);
    for_each_segment(
        model_.network(), gradient.data(),
        [&](int segment) { return reaches(found.route, segment); },
        [&](view<Scalar> g) { ops::fill<Backend, Scalar>(backend_, g, Scalar(0)); });
    bool finite = true;
    for (index_t first = 0; first < rows && finite; first += at_once) {
      found.part = part_of(found.route, first, std::min(at_once, rows - first));
      add_part(batch, first, numbers, found, gradient.data());
      const auto losses = found.losses.begin() + first;
      finite = std::all_of(losses, losses + std::ssize(found.part.order),
                           [](double loss) { return std::isfinite(loss); });
    }
    found.rows = std::move(batch.rows);
    return found;
  }

 private:
  static std::vector<double> sigmas_of(std::span<const training_row> rows) {
    std::vector<double> sigmas;
    for (const training_row& r : rows)
      sigmas.push_back(r.sigma);
    return sigmas;
  }
  /// Rows [first, first + count) of a batch that lies in the order of its stages.
  static routing part_of(const routing& whole, index_t first, index_t count) {
    routing part{std::vector<index_t>(std::size_t(count)), {}};
    std::iota(part.order.begin(), part.order.end(), index_t{0});
    index_t begin = 0;
    for (const index_t rows : whole.rows_by_stage) {
      const index_t end = std::min(begin + rows, first + count);
      part.rows_by_stage.push_back(std::max(end - std::max(begin, first), index_t{0}));
      begin += rows;
    }
    return part;
  }
  /// Adds the gradient of the part of the batch at `first` that `found` says, and writes its
  /// losses.
  void add_part(const objective_batch<Scalar>& batch,
                index_t first,
                const step_numbers& numbers,
                evaluated_batch<Scalar>& found,
                Scalar* gradient) {
    const index_t rows = index_t(found.part.order.size());
    const index_t size = model_.images(1).row_size();
    const std::span<const training_row> part(batch.rows.data() + first, std::size_t(rows));
    const std::vector<double> sigmas = sigmas_of(part);
    make_noisy(batch, first, sigmas, numbers);
    image_conditions given = batch.conditions;
    given.classes = batch.classes;
    const auto labels = conditions_.of(model_, part, first, given, batch.one_hot, numbers);
    const auto prepared = model_.prepare(x_.data(), sigmas, found.part, labels);
    const double* weight = row_values_.data() + rows;
    double* loss = row_values_.data() + 2 * rows;
    const auto loss_and_gradient = [&](int, index_t at, index_t n, const Scalar* f,
                                       Scalar* df) {
      const functor::denoising_loss<Scalar> term{x_.data() + at * size,
                                                 target_.data() + at * size,
                                                 f,
                                                 prepared.skip + at,
                                                 prepared.out + at,
                                                 weight + at,
                                                 size,
                                                 1.0 / double(batch.rows.size()),
                                                 df};
      sum_by_row(backend_, n, size, term, loss + at);
    };
    model_.engine().differentiate(
        model_.weights().data(), gradient, prepared.inputs, found.part.rows_by_stage,
        loss_and_gradient, {.dropout = numbers.of(purpose::dropout), .first_row = first});
    found.inputs = prepared.inputs;
    backend_.download(loss, found.losses.data() + first, rows);
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
                  index_t first,
                  const std::vector<double>& sigmas,
                  const step_numbers& numbers) {
    const std::size_t rows = sigmas.size();
    const index_t size = model_.images(1).row_size();
    std::vector<index_t> which;
    std::vector<double> values(2 * rows, 0.0);
    for (std::size_t i = 0; i < rows; ++i) {
      const training_row& row = batch.rows[std::size_t(first) + i];
      which.push_back(row.image);
      values[i] = batch.noise
                      ? sigmas[i]
                      : sigmas[i] * student_factor(augmented_, first + index_t(i), numbers);
      values[rows + i] = row.weight * weight_(sigmas[i]);
    }
    backend_.upload(values.data(), row_values_.data(), index_t(values.size()));
    backend_.upload(which.data(), which_.data(), index_t(rows));
    backend_.for_each_index(
        index_t(rows) * size,
        functor::noisy_rows<Scalar>{batch.images, which_.data(), row_values_.data(),
                                    batch.noise ? batch.noise + first * size : nullptr,
                                    numbers.of(purpose::training_noise), first * size, size,
                                    target_.data(), x_.data()},
        256);
  }
  model_type& model_;
  Backend backend_;
  loss_weight weight_;
  int augmented_;
  row_conditions<Scalar, Backend> conditions_;
  index_t micro_batch_;
  tensor<Scalar, Backend> x_;
  tensor<Scalar, Backend> target_;
  tensor<index_t, Backend> which_;
  tensor<double, Backend> row_values_;  // [3, rows]: noise, weights, losses
};

/// Of a model of any type.
template <class Model>
denoising_objective(Model&, const trainer_options&)
    -> denoising_objective<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
