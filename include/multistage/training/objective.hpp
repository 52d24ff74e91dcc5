// The objective (Karras et al., arXiv 2206.00364, eq. 8), and its gradient by the weights:
//   L = 1/B sum_n w(sigma_n) |D(y_n + sigma_n z_n; sigma_n) - y_n|^2.
//
// With F the network and D = c_skip x + c_out F, the gradient that goes into F is 2 w c_out (D
// - y) / B for each value: nothing else of the preconditioning is differentiated.
#pragma once
#include <algorithm>
#include <numeric>

#include "../distributed/together.hpp"
#include "../graph/cost.hpp"
#include "conditions.hpp"
#include "gradient_exchange.hpp"
#include "noisy_rows.hpp"

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
  step_shards cut;                 ///< of the rows, in whose order gradients are added up
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

  /// By trainer_options: weight, augmented, label_dropout, shards, stage_begins and
  /// micro_batch. @param trained must outlive this. @param processes that share the rows of
  /// each batch; all are given the same
  denoising_objective(model_type& trained,
                      const trainer_options& o,
                      process_group processes = {});

  /// Rows that are evaluated at once, a multiple of gradient_piece; 0: all. Losses and gradient
  /// are the same bits for all of them.
  void set_micro_batch(index_t rows) {
    micro_batch_ = rows;
  }

  /// Losses of the rows, and the gradient, which lies as the weights do; what it has for
  /// decoders that no row needs is not defined, nor is any of it where a loss is not finite.
  /// Several processes each evaluate their rows and have all losses then; `wanted_by` says who
  /// has how much of the gradient. @throws shape_error, value_error for rows with given noise
  /// that are not in the order of their stages, and for labels that are missing
  evaluated_batch<Scalar> differentiate(objective_batch<Scalar> batch,
                                        const step_numbers& numbers,
                                        tensor<Scalar, Backend>& gradient,
                                        gradient_for wanted_by = gradient_for::all);

  /// How a batch is cut, and who evaluates which of its rows, sorted by stage.
  step_shards shards_of_step(const routing& route) const;
  /// Between the processes.
  gradient_exchange<Scalar, Backend>& exchange() {
    return exchange_;
  }

 private:
  /// A process by itself has all decoders.
  static stage_placement placement_of(const trainer_options& o, const process_group& group) {
    return {group.size() > 1 ? o.stage_begins : std::vector<double>()};
  }
  /// Multiply-accumulates of a row.
  static std::vector<double> work_by_stage(const graph& network);
  /// The rows that fall to this process, up to a loss that is not finite.
  void evaluate_own(const objective_batch<Scalar>& batch,
                    const step_numbers& numbers,
                    evaluated_batch<Scalar>& found,
                    tensor<Scalar, Backend>& gradient);
  /// Adds the gradient of the rows of whole shards to `sum`, where it is 0. Returns whether
  /// their losses are finite.
  bool add_rows(const objective_batch<Scalar>& batch,
                const index_range& rows,
                const step_numbers& numbers,
                evaluated_batch<Scalar>& found,
                Scalar* sum,
                std::size_t level = 0);
  /// Sets the segments to 0 that some rows reach: of others a process has no gradient.
  void clear(const routing& route, const index_range& rows, Scalar* gradient);
  /// Adds what rows on the right have of each segment to what those on the left have.
  void add_segments(const routing& route,
                    const index_range& rows_left,
                    Scalar* left,
                    const index_range& rows_right,
                    const Scalar* right);
  /// Gives all processes the losses of all rows.
  void share_losses(evaluated_batch<Scalar>& found);
  static std::vector<double> sigmas_of(std::span<const training_row> rows);
  /// Rows [first, first + count) of a batch that lies in the order of its stages.
  static routing part_of(const routing& whole, index_t first, index_t count);
  /// Adds the gradient of the part of the batch at `first` that `found` says, and writes its
  /// losses. @param to_block whether it is added to what the other processes get, which are
  /// told of what is complete
  void add_part(const objective_batch<Scalar>& batch,
                index_t first,
                const step_numbers& numbers,
                evaluated_batch<Scalar>& found,
                Scalar* gradient,
                bool to_block);
  void grow(index_t rows);
  /// Puts rows in the order of their stages; noise given from outside stays with its row.
  routing routed(objective_batch<Scalar>& batch) const;
  /// Fills x and target, and the rows' values: noise, weights.
  void make_noisy(const objective_batch<Scalar>& batch,
                  index_t first,
                  const std::vector<double>& sigmas,
                  const step_numbers& numbers);
  model_type& model_;
  Backend backend_;
  loss_weight weight_;
  int augmented_;
  row_conditions<Scalar, Backend> conditions_;
  index_t micro_batch_;
  index_t shards_;
  std::vector<double> work_;  // of a row, by stage
  index_t at_once_ = 0;       // rows, in the batch at hand
  index_range block_;         // of them, whose sum is at work
  stage_placement placement_;
  process_group group_;
  gradient_exchange<Scalar, Backend> exchange_;
  std::vector<tensor<Scalar, Backend>> waiting_;  // sums whose left side is there
  tensor<Scalar, Backend> x_;
  tensor<Scalar, Backend> target_;
  tensor<index_t, Backend> which_;
  tensor<double, Backend> row_values_;  // [3, rows]: noise, weights, losses
};

template <class Scalar, class Backend>
denoising_objective<Scalar, Backend>::denoising_objective(model_type& trained,
                                                          const trainer_options& o,
                                                          process_group processes)
    : model_(trained),
      backend_(trained.backend()),
      weight_(o.weight ? o.weight
                       : loss_weight(edm_weight{trained.config().precond.sigma_data})),
      augmented_(o.augmented),
      conditions_(o.label_dropout),
      micro_batch_(o.micro_batch),
      shards_(o.shards),
      work_(work_by_stage(trained.network())),
      placement_(placement_of(o, processes)),
      group_(processes),
      exchange_(trained, processes, placement_) {}

template <class Scalar, class Backend>
evaluated_batch<Scalar> denoising_objective<Scalar, Backend>::differentiate(
    objective_batch<Scalar> batch,
    const step_numbers& numbers,
    tensor<Scalar, Backend>& gradient,
    gradient_for wanted_by) {
  const index_t rows = index_t(batch.rows.size());
  require<shape_error>(gradient.size() == model_.weights().size(),
                       "denoising_objective: the gradient has ", gradient.size(),
                       " values, the model ", model_.weights().size(), " weights");
  const index_t known = model_.label_dim(input_slot::class_labels);
  const index_t given = index_t(batch.one_hot.size());
  require<shape_error>(given == 0 || given == rows * known, "trainer: ", given,
                       " values of class labels for ", rows, " rows of ", known, " classes");
  evaluated_batch<Scalar> found;
  found.route = routed(batch);
  found.losses.assign(std::size_t(rows), 0.0);
  found.cut = shards_of_step(found.route);
  std::exception_ptr failed;
  try {
    exchange_.begin(gradient, found.cut, found.route, wanted_by);
    evaluate_own(batch, numbers, found, gradient);
  } catch (...) {
    failed = std::current_exception();
  }
  exchange_.finish();  // the others are in it already
  together(group_, [&] {
    if (failed)
      std::rethrow_exception(failed);
  });
  share_losses(found);
  found.rows = std::move(batch.rows);
  return found;
}

template <class Scalar, class Backend>
step_shards denoising_objective<Scalar, Backend>::shards_of_step(const routing& route) const {
  step_shards cut(route.rows_by_stage, shards_, gradient_piece<Backend>);
  if (placement_.everywhere())
    cut.share_out(group_.size(), work_);
  else
    cut.share_out(placement_.begins);
  return cut;
}

template <class Scalar, class Backend>
std::vector<double> denoising_objective<Scalar, Backend>::work_by_stage(const graph& network) {
  std::vector<double> work;
  for (int stage = 0; stage < network.stage_count(); ++stage)
    work.push_back(double(std::max(cost_of_stage(network, stage).macs, index_t{1})));
  return work;
}

template <class Scalar, class Backend>
void denoising_objective<Scalar, Backend>::evaluate_own(const objective_batch<Scalar>& batch,
                                                        const step_numbers& numbers,
                                                        evaluated_batch<Scalar>& found,
                                                        tensor<Scalar, Backend>& gradient) {
  const index_t own = found.cut.rows_of_process(group_.rank()).size();
  at_once_ = micro_batch_ > 0 ? std::min(micro_batch_, own) : own;
  grow(at_once_);
  const auto blocks = found.cut.blocks_of_process(group_.rank());
  for (std::size_t k = 0; k < blocks.size(); ++k) {
    Scalar* const sum = exchange_.block(k, gradient);
    block_ = found.cut.rows_of(blocks[k]);
    clear(found.route, block_, sum);
    if (!add_rows(batch, block_, numbers, found, sum))
      return;
  }
}

template <class Scalar, class Backend>
bool denoising_objective<Scalar, Backend>::add_rows(const objective_batch<Scalar>& batch,
                                                    const index_range& rows,
                                                    const step_numbers& numbers,
                                                    evaluated_batch<Scalar>& found,
                                                    Scalar* sum,
                                                    std::size_t level) {
  const index_range shards = shards_of(rows, found.cut.begins());
  if (rows.size() <= at_once_ || shards.size() < 2) {
    for (index_t first = rows.begin; first < rows.end; first += at_once_) {
      found.part = part_of(found.route, first, std::min(at_once_, rows.end - first));
      add_part(batch, first, numbers, found, sum, rows.size() == block_.size());
      const auto losses = found.losses.begin() + first;
      if (!std::all_of(losses, losses + std::ssize(found.part.order),
                       [](double loss) { return std::isfinite(loss); }))
        return false;
    }
    return true;
  }
  const index_t middle = found.cut.rows_of({0, tree_cut(shards)}).end;
  if (!add_rows(batch, {rows.begin, middle}, numbers, found, sum, level))
    return false;
  while (waiting_.size() <= level)
    waiting_.emplace_back(backend_, model_.weights().extents());
  Scalar* const right = waiting_[level].data();
  clear(found.route, {middle, rows.end}, right);
  if (!add_rows(batch, {middle, rows.end}, numbers, found, right, level + 1))
    return false;
  add_segments(found.route, {rows.begin, middle}, sum, {middle, rows.end}, right);
  return true;
}

template <class Scalar, class Backend>
void denoising_objective<Scalar, Backend>::clear(const routing& route,
                                                 const index_range& rows,
                                                 Scalar* gradient) {
  const auto reached = [&](int segment) {
    return common(rows_of_segment(route, segment), rows).size() > 0;
  };
  for_each_segment(model_.network(), gradient, reached,
                   [&](view<Scalar> g) { ops::fill<Backend, Scalar>(backend_, g, Scalar(0)); });
}

template <class Scalar, class Backend>
void denoising_objective<Scalar, Backend>::add_segments(const routing& route,
                                                        const index_range& rows_left,
                                                        Scalar* left,
                                                        const index_range& rows_right,
                                                        const Scalar* right) {
  for (int segment = 0; segment < model_.network().segments; ++segment) {
    const index_range rows = rows_of_segment(route, segment);
    const auto [begin, end] = model_.network().parameter_range(segment);
    if (common(rows, rows_right).size() > 0)
      ops::add_to<Backend, Scalar>(backend_, left + begin, right + begin, Scalar(1),
                                   common(rows, rows_left).size() > 0, end - begin);
  }
}

template <class Scalar, class Backend>
void denoising_objective<Scalar, Backend>::share_losses(evaluated_batch<Scalar>& found) {
  if (group_.size() == 1)
    return;
  std::vector<std::size_t> bytes;
  for (int rank = 0; rank < group_.size(); ++rank)
    bytes.push_back(std::size_t(found.cut.rows_of_process(rank).size()) * sizeof(double));
  const index_range mine = found.cut.rows_of_process(group_.rank());
  const std::vector<double> own(found.losses.begin() + mine.begin,
                                found.losses.begin() + mine.end);
  group_.all_gather(std::as_bytes(std::span(own)),
                    std::as_writable_bytes(std::span(found.losses)), bytes);
}

template <class Scalar, class Backend>
std::vector<double> denoising_objective<Scalar, Backend>::sigmas_of(
    std::span<const training_row> rows) {
  std::vector<double> sigmas;
  for (const training_row& r : rows)
    sigmas.push_back(r.sigma);
  return sigmas;
}

template <class Scalar, class Backend>
routing denoising_objective<Scalar, Backend>::part_of(const routing& whole,
                                                      index_t first,
                                                      index_t count) {
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

template <class Scalar, class Backend>
void denoising_objective<Scalar, Backend>::add_part(const objective_batch<Scalar>& batch,
                                                    index_t first,
                                                    const step_numbers& numbers,
                                                    evaluated_batch<Scalar>& found,
                                                    Scalar* gradient,
                                                    bool to_block) {
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
  const auto loss_and_gradient = [&](int, index_t at, index_t n, const Scalar* f, Scalar* df) {
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
  differentiation<Scalar> asked{.dropout = numbers.of(purpose::dropout),
                                .first_row = first,
                                .shards = found.cut.begins()};
  if (to_block && group_.size() > 1)
    asked.complete = [&](int segment, index_t from) {
      const index_range own = found.cut.rows_of_process(group_.rank());
      if (common(rows_of_segment(found.route, segment), own).end <= first + rows)
        exchange_.complete(segment, from);
    };
  model_.engine().differentiate(model_.weights().data(), gradient, prepared.inputs,
                                found.part.rows_by_stage, loss_and_gradient, asked);
  found.inputs = prepared.inputs;
  backend_.download(loss, found.losses.data() + first, rows);
}

template <class Scalar, class Backend>
void denoising_objective<Scalar, Backend>::grow(index_t rows) {
  grown(x_, backend_, model_.images(rows).size());
  grown(target_, backend_, model_.images(rows).size());
  grown(which_, backend_, rows);
  grown(row_values_, backend_, 3 * rows);
}

template <class Scalar, class Backend>
routing denoising_objective<Scalar, Backend>::routed(objective_batch<Scalar>& batch) const {
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

template <class Scalar, class Backend>
void denoising_objective<Scalar, Backend>::make_noisy(const objective_batch<Scalar>& batch,
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

/// Of a model of any type.
template <class Model, class... Rest>
denoising_objective(Model&, Rest&&...)
    -> denoising_objective<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
