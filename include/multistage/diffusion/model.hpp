// A model at work: a network with weights, its preconditioning and its partition into stages.
// D(x; sigma) routes every row to the decoder of its own sigma.
//
//   dynamic_model<float, cpu> model(cpu(), config, stages, seed);
//   model.denoise(x, sigmas, d);                     // rows of any stages, in any order
//
// Rows are sorted by stage once a call; the shared segment runs over all of them, each decoder
// over its own, and the results go back to the places of their rows.
#pragma once
#include <algorithm>
#include <functional>
#include <numeric>
#include <optional>
#include <span>

#include "../core/one_user.hpp"
#include "../core/scratch.hpp"
#include "../graph/cost.hpp"
#include "../graph/executor.hpp"
#include "../graph/parameters.hpp"
#include "../stages/partition.hpp"
#include "configuration.hpp"
#include "routing.hpp"

namespace multistage {

/// What a model was trained with, as far as it is known, where sampling must match it.
struct training_facts {
  std::optional<double> label_dropout{};   ///< how often its labels were left out
  std::optional<int> augmented{};          ///< dimensions of Poisson flow's noise; 0: Gaussian
  std::vector<std::string> class_names{};  ///< of its labels, in their order
  /// What its images are: "pictures", "latents", or "latents of " and the fingerprint of the
  /// autoencoder's file (io/file_fingerprint.hpp).
  std::optional<std::string> images{};
};

/// The model of a configuration known at run time, in `Scalar` arithmetic on `Backend`. Owns
/// the weights (what training moves) and their average (what sampling uses; the weights
/// themselves until a trainer keeps one). One thread at a time: a second one gets a
/// state_error.
template <class Scalar, class Backend>
class dynamic_model {
 public:
  /// In which the network computes.
  using scalar = Scalar;
  /// Where it computes.
  using backend_type = Backend;

  /// @throws value_error when the configuration does not fit together, or its decoders are not
  /// as many as the partition's stages.
  /// @param seed of the initial weights; none leaves them zero, for weights that come from a
  /// file.
  MULTISTAGE_COLD dynamic_model(Backend backend,
                                const configuration& c,
                                partition stages,
                                std::optional<std::uint64_t> seed)
      : dynamic_model(std::move(backend), c, record(c), std::move(stages), seed) {}

  /// Network, decoders and preconditioning.
  const configuration& config() const {
    return config_;
  }
  /// Which noise levels each stage has.
  const partition& stages() const {
    return stages_;
  }
  /// What is computed.
  const graph& network() const {
    return executor_.network();
  }
  /// Upstream's names of the parameters, in the graph's order.
  const std::vector<std::string>& parameter_names() const {
    return names_;
  }
  /// As many as there are decoders.
  int stage_count() const {
    return stages_.stage_count();
  }
  /// Extents of a batch.
  shape images(index_t rows) const {
    return image_shape(config_, rows);
  }
  /// How many values an input has in a row; 0 where the model has none.
  index_t label_dim(input_slot slot) const;
  /// Of all stages and what they share.
  index_t parameter_count() const {
    return parameters_of(network());
  }
  /// What it was trained with; unknown to a model that no trainer of this library saw.
  const training_facts& trained() const {
    return trained_;
  }
  /// Said by a trainer, or by whoever brings weights from elsewhere.
  void set_trained(const training_facts& facts) {
    trained_ = facts;
  }
  /// What computes the network.
  executor<Scalar, Backend>& engine() {
    return executor_;
  }
  /// As above.
  const executor<Scalar, Backend>& engine() const {
    return executor_;
  }
  /// Where it computes.
  Backend& backend() {
    return backend_;
  }
  /// Takes the model for the calling thread until the value goes, as every evaluation does for
  /// its own time.
  /// @throws state_error while another thread has it
  one_user::visit use() const {
    return user_.enter("model");
  }

  /// All weights, to read or to change; those not read from their file yet are read now. Ask
  /// again after each evaluation before changing them: asking is what tells the model that what
  /// it prepared from them is stale.
  tensor<Scalar, Backend>& weights();
  /// The weights that sampling uses, likewise.
  tensor<Scalar, Backend>& averaged_weights();
  /// Weights are read when a segment (0: shared, 1 + s: stage s) is first used. `read(segment,
  /// host memory of its parameter_range)`.
  void read_weights_on_demand(std::function<void(int, Scalar*)> read) {
    read_segment_ = std::move(read);
    unread_.assign(std::size_t(network().segments), 1);
  }
  /// Whether a segment's weights are in memory.
  bool has_segment(int segment) const {
    return unread_.empty() || !unread_[std::size_t(segment)];
  }
  /// Whether an average of the weights is kept.
  bool has_average() const {
    return average_.size() > 0;
  }
  /// Starts an average as a copy of the weights, unless there is one.
  void keep_average();

  /// Gives it up: sampling uses the weights themselves then.
  void drop_average();

  /// Bytes of activations for a batch: what the arena will take at most, known before anything
  /// runs.
  index_t activation_bytes(index_t rows, bool training) const;

  /// Stages of noise levels, and the rows sorted by them (in order within a stage).
  routing route(std::span<const double> sigmas) const;

  /// d [rows, h, w, c] = D(x; sigma), each row at its own noise level. x and d are in double on
  /// the backend; the network computes in Scalar. Rows are taken `batch` at a time; a row's
  /// result does not depend on the others. @param features lets an evaluation take over what an
  /// earlier one of the same rows, in one batch, kept of the shared encoder. @throws
  /// shape_error, value_error
  void denoise(view<const double> x,
               std::span<const double> sigmas,
               view<double> d,
               const conditioning<Scalar>& labels = {},
               index_t batch = 128,
               shared_features features = shared_features::compute);

  /// jv [rows, ...] = (dD/dx)^T v at x, each row at its own noise level: what likelihoods and
  /// guidance by gradients need. Extents like denoise.
  void denoise_transposed(view<const double> x,
                          std::span<const double> sigmas,
                          view<const double> v,
                          view<double> jv,
                          const conditioning<Scalar>& labels = {});

  /// A batch as the network reads it: c_in x and c_noise in the order of stages, labels
  /// gathered alike, and the factors that make D of its result.
  template <class From>
  prepared_batch<Scalar> prepare(const From* x,
                                 std::span<const double> sigmas,
                                 const routing& r,
                                 const conditioning<Scalar>& labels = {}) {
    const auto visit = use();
    const index_t rows = index_t(sigmas.size());
    const index_t size = images(1).row_size();
    grow(rows);
    std::vector<double> factors(std::size_t(3 * rows));
    std::vector<Scalar> noise(std::size_t{0} + rows);
    for (index_t i = 0; i < rows; ++i) {
      const preconditioning_factors f = config_.precond.at(sigmas[r.order[i]]);
      factors[i] = f.in;
      factors[rows + i] = f.skip;
      factors[2 * rows + i] = f.out;
      noise[i] = Scalar(f.noise);
    }
    backend_.upload(r.order.data(), order_.data(), rows);
    backend_.upload(factors.data(), factors_.data(), 3 * rows);
    backend_.upload(noise.data(), noise_.data(), rows);
    backend_.for_each_index(
        rows * size, functor::gather_scaled<From, Scalar>{x, order_.data(), factors_.data(),
                                                          size, x_.data()});
    prepared_batch<Scalar> batch{.inputs = {},
                                 .order = order_.data(),
                                 .in = factors_.data(),
                                 .skip = factors_.data() + rows,
                                 .out = factors_.data() + 2 * rows};
    batch.inputs[input_slot::image] = x_.data();
    batch.inputs[input_slot::noise_level] = noise_.data();
    const auto gather = [&](input_slot slot, const Scalar* from, tensor<Scalar, Backend>& to) {
      const index_t n = label_dim(slot);
      if (n == 0)
        return;
      grown(to, backend_, rows * n);
      if (from)
        backend_.for_each_index(rows * n, functor::gather_scaled<Scalar, Scalar>{
                                              from, order_.data(), nullptr, n, to.data()});
      else
        backend_.for_each_index(rows * n, ops::functor::set<Scalar>{Scalar(0), to.data()});
      batch.inputs[slot] = to.data();
    };
    gather(input_slot::class_labels, labels.class_labels, class_labels_);
    gather(input_slot::augment_labels, labels.augment_labels, augment_labels_);
    gather(input_slot::context, labels.context, context_);
    return batch;
  }

 protected:
  MULTISTAGE_COLD dynamic_model(Backend backend,
                                const configuration& c,
                                described_network d,
                                partition stages,
                                std::optional<std::uint64_t> seed);

 private:
  /// What the network reads and returns must be as large as the images it gets. @throws
  /// value_error
  void check_image_extents() const;
  void grow(index_t rows);
  void need_segment(int segment);
  void denoise_batch(const double* x,
                     std::span<const double> sigmas,
                     double* d,
                     const conditioning<Scalar>& labels,
                     shared_features features);

  Backend backend_;
  configuration config_;
  partition stages_;
  std::vector<std::string> names_;
  training_facts trained_;
  executor<Scalar, Backend> executor_;
  tensor<Scalar, Backend> weights_;
  tensor<Scalar, Backend> average_;
  tensor<Scalar, Backend> x_;
  tensor<Scalar, Backend> f_;
  tensor<Scalar, Backend> noise_;
  tensor<Scalar, Backend> class_labels_;
  tensor<Scalar, Backend> augment_labels_;
  tensor<Scalar, Backend> context_;
  std::function<void(int, Scalar*)> read_segment_;
  std::vector<index_t> kept_order_;  // of the rows whose shared features were kept
  std::vector<char> unread_;         // by segment
  std::uint64_t version_ = 1;        // of the weights
  tensor<double, Backend> factors_;
  tensor<index_t, Backend> order_;
  one_user user_;
};

template <class Scalar, class Backend>
index_t dynamic_model<Scalar, Backend>::label_dim(input_slot slot) const {
  for (const node& n : network().nodes)
    if (const auto* input = n.template as<ops::network_input>(); input && input->slot == slot)
      return n.out().size();
  return 0;
}

template <class Scalar, class Backend>
tensor<Scalar, Backend>& dynamic_model<Scalar, Backend>::weights() {
  const auto visit = use();
  ++version_;
  for (int s = 0; s < network().segments; ++s)
    need_segment(s);
  return weights_;
}

template <class Scalar, class Backend>
tensor<Scalar, Backend>& dynamic_model<Scalar, Backend>::averaged_weights() {
  const auto visit = use();
  ++version_;
  return has_average() ? average_ : weights();
}

template <class Scalar, class Backend>
void dynamic_model<Scalar, Backend>::keep_average() {
  if (has_average())
    return;
  tensor<Scalar, Backend> average(backend_, weights_.extents());
  backend_.copy(weights_.data(), average.data(), weights_.size());
  average_ = std::move(average);
}

template <class Scalar, class Backend>
void dynamic_model<Scalar, Backend>::drop_average() {
  const auto visit = use();
  ++version_;
  average_ = tensor<Scalar, Backend>();
}

template <class Scalar, class Backend>
index_t dynamic_model<Scalar, Backend>::activation_bytes(index_t rows, bool training) const {
  return (training ? executor_.training_plan() : executor_.inference_plan())
             .arena_elements(rows) *
         index_t(sizeof(Scalar));
}

template <class Scalar, class Backend>
routing dynamic_model<Scalar, Backend>::route(std::span<const double> sigmas) const {
  routing r{std::vector<index_t>(sigmas.size()),
            std::vector<index_t>(std::size_t(stage_count()))};
  std::vector<int> stage(sigmas.size());
  for (std::size_t i = 0; i < sigmas.size(); ++i) {
    require<value_error>(sigmas[i] > 0 && std::isfinite(sigmas[i]), "model: sigma of row ", i,
                         " is ", sigmas[i], "; noise levels are finite and above 0");
    ++r.rows_by_stage[stage[i] = stages_.stage(sigmas[i])];
  }
  std::vector<index_t> next(r.rows_by_stage.size());  // of each stage, where its next row goes
  std::exclusive_scan(r.rows_by_stage.begin(), r.rows_by_stage.end(), next.begin(), index_t{0});
  for (std::size_t i = 0; i < sigmas.size(); ++i)
    r.order[next[stage[i]]++] = index_t(i);
  return r;
}

template <class Scalar, class Backend>
void dynamic_model<Scalar, Backend>::denoise(view<const double> x,
                                             std::span<const double> sigmas,
                                             view<double> d,
                                             const conditioning<Scalar>& labels,
                                             index_t batch,
                                             shared_features features) {
  const auto visit = use();
  const shape expected = images(x.extents.rows);
  ops::expect("denoise", "x", x, expected);
  ops::expect("denoise", "d", d, expected);
  require<shape_error>(index_t(sigmas.size()) == expected.rows, "denoise: ", sigmas.size(),
                       " noise levels for ", expected.rows, " rows");
  require<value_error>(features == shared_features::compute ||
                           (config_.stages.shared_encoder && expected.rows <= batch),
                       "denoise: features of ", expected.rows, " rows in batches of ", batch,
                       " cannot be taken over, ",
                       config_.stages.shared_encoder ? "they must fit one batch"
                                                     : "this model's stages share no encoder");
  for (index_t first = 0; first < expected.rows; first += batch) {
    const index_t rows = std::min(batch, expected.rows - first);
    const index_t size = expected.row_size();
    conditioning<Scalar> part = labels;
    if (part.class_labels)
      part.class_labels += first * label_dim(input_slot::class_labels);
    if (part.augment_labels)
      part.augment_labels += first * label_dim(input_slot::augment_labels);
    if (part.context)
      part.context += first * label_dim(input_slot::context);
    denoise_batch(x.data + first * size, sigmas.subspan(first, rows), d.data + first * size,
                  part, features);
  }
}

template <class Scalar, class Backend>
void dynamic_model<Scalar, Backend>::denoise_transposed(view<const double> x,
                                                        std::span<const double> sigmas,
                                                        view<const double> v,
                                                        view<double> jv,
                                                        const conditioning<Scalar>& labels) {
  const auto visit = use();
  const shape expected = images(x.extents.rows);
  ops::expect("denoise_transposed", "x", x, expected);
  ops::expect("denoise_transposed", "v", v, expected);
  ops::expect("denoise_transposed", "jv", jv, expected);
  require<shape_error>(index_t(sigmas.size()) == expected.rows,
                       "denoise_transposed: ", sigmas.size(), " noise levels for ",
                       expected.rows, " rows");
  for (int s = 0; s < network().segments; ++s)
    need_segment(s);
  const index_t rows = expected.rows;
  const index_t size = expected.row_size();
  const routing r = route(sigmas);
  const prepared_batch<Scalar> batch = prepare(x.data, sigmas, r, labels);
  tensor<Scalar, Backend> dx(backend_, expected);
  differentiation<Scalar> asked;
  asked.input_gradients[std::size_t(input_slot::image)] = dx.data();
  const Scalar* weights = (has_average() ? average_ : weights_).data();
  const auto pull_back = [&](int, index_t first, index_t n, const Scalar*, Scalar* df) {
    backend_.for_each_index(
        n * size, functor::gather_scaled<double, Scalar>{v.data, batch.order + first,
                                                         batch.out + first, size, df});
  };
  executor_.differentiate(weights, static_cast<Scalar*>(nullptr), batch.inputs, r.rows_by_stage,
                          pull_back, asked);
  backend_.for_each_index(
      rows * size, functor::scatter_mixed<Scalar>{v.data, dx.data(), batch.order, batch.skip,
                                                  batch.in, size, jv.data});
}

template <class Scalar, class Backend>
MULTISTAGE_COLD dynamic_model<Scalar, Backend>::dynamic_model(Backend backend,
                                                              const configuration& c,
                                                              described_network d,
                                                              partition stages,
                                                              std::optional<std::uint64_t> seed)
    : backend_(std::move(backend)),
      config_(c),
      stages_(std::move(stages)),
      names_(std::move(d.names)),
      executor_(backend_, std::move(d.structure)),
      weights_(backend_, {1, 1, 1, executor_.network().parameter_elements}) {
  check(config_.precond);
  require<value_error>(
      config_.stages.stage_count() == stages_.stage_count(),
      "model: ", config_.stages.stage_count(), " decoders for a partition of ",
      stages_.stage_count(),
      " stages; give one decoder width a stage (stage 0, lowest noise, first)");
  check_image_extents();
  if (!seed)
    return;
  std::vector<Scalar> host;
  initialize(network(), *seed, host);
  backend_.upload(host.data(), weights_.data(), index_t(host.size()));
}

template <class Scalar, class Backend>
void dynamic_model<Scalar, Backend>::check_image_extents() const {
  const shape s = images(1);
  const extent image{int(s.channels), int(s.height), int(s.width)};
  const auto same = [&](const char* what, const extent& e) {
    require<value_error>(e == image, "model: the network's ", what, " is [", e.height, ", ",
                         e.width, ", ", e.channels, "], its settings say [", s.height, ", ",
                         s.width, ", ", s.channels, "] (resolution, width(), channels)");
  };
  for (const node& n : network().nodes) {
    const auto* input = n.template as<ops::network_input>();
    if (!input)
      continue;
    if (input->slot == input_slot::image)
      same("input image", n.out());
    require<value_error>(input->slot != input_slot::noise_level || n.out().size() == 1,
                         "model: the network reads ", n.out().size(),
                         " numbers as noise level; there is one a row");
  }
  for (const int v : network().outputs)
    same("result", network().nodes[std::size_t(v)].out());
}

template <class Scalar, class Backend>
void dynamic_model<Scalar, Backend>::grow(index_t rows) {
  grown(x_, backend_, images(rows).size());
  grown(f_, backend_, images(rows).size());
  grown(noise_, backend_, rows);
  grown(factors_, backend_, 3 * rows);
  grown(order_, backend_, rows);
}

template <class Scalar, class Backend>
void dynamic_model<Scalar, Backend>::need_segment(int segment) {
  if (has_segment(segment))
    return;
  const auto [begin, end] = network().parameter_range(segment);
  if constexpr (Backend::on_host) {
    read_segment_(segment, weights_.data() + begin);
  } else {
    std::vector<Scalar> host(std::size_t(end - begin), Scalar(0));
    read_segment_(segment, host.data());
    backend_.upload(host.data(), weights_.data() + begin, end - begin);
  }
  unread_[std::size_t(segment)] = 0;
}

template <class Scalar, class Backend>
void dynamic_model<Scalar, Backend>::denoise_batch(const double* x,
                                                   std::span<const double> sigmas,
                                                   double* d,
                                                   const conditioning<Scalar>& labels,
                                                   shared_features features) {
  const index_t rows = index_t(sigmas.size());
  const index_t size = images(1).row_size();
  routing r = route(sigmas);
  require<value_error>(
      features != shared_features::take_over || kept_order_ == r.order,
      "denoise: no features of rows in this order of stages were kept; keep them first");
  const prepared_batch<Scalar> batch = prepare(x, sigmas, r, labels);
  need_segment(0);
  for (int s = 0; s < stage_count(); ++s)
    if (r.rows_by_stage[std::size_t(s)] > 0)
      need_segment(1 + s);
  executor_.forward((has_average() ? average_ : weights_).data(), batch.inputs, r.rows_by_stage,
                    f_.data(), version_, features);
  backend_.for_each_index(rows * size,
                          functor::scatter_mixed<Scalar>{x, f_.data(), batch.order, batch.skip,
                                                         batch.out, size, d});
  if (features == shared_features::keep)
    kept_order_ = std::move(r.order);
}

}  // namespace multistage
