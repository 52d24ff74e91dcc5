// A model as a denoiser: all rows at one noise level, with their labels and contexts; how often
// it was evaluated; and the shared encoder's features taken over from evaluation to evaluation.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "../diffusion/denoiser.hpp"
#include "../diffusion/guidance.hpp"
#include "../diffusion/model.hpp"

namespace multistage {

/// How often networks were evaluated: rows count as one.
struct evaluation_counter {
  partition stages{};              ///< by whose stages evaluations are counted
  std::vector<index_t> by_stage =  ///< stage 0 (lowest noise) first
      std::vector<index_t>(std::size_t(stages.stage_count()), 0);
  index_t encoder = 0;  ///< evaluations that ran the encoder

  /// Adds one. @param with_encoder whether it ran the shared encoder
  void note(double sigma, bool with_encoder) {
    ++by_stage[std::size_t(stages.stage(sigma))];
    encoder += with_encoder;
  }
};

/// Labels and contexts of a batch on the backend; empty where there are none.
template <class Scalar, class Backend>
struct row_labels {
  tensor<Scalar, Backend> class_labels{};  ///< [rows, 1, 1, label_dim], one-hot
  tensor<Scalar, Backend> context{};       ///< [rows, 1, 1, context_tokens context_dim]

  /// What the model takes; valid as long as this is.
  conditioning<Scalar> pointers() const {
    conditioning<Scalar> given;
    if (class_labels.size() > 0)
      given.class_labels = class_labels.data();
    if (context.size() > 0)
      given.context = context.data();
    return given;
  }
};

/// @param size of a model's contexts. @param contexts of one row or several; empty: none.
/// @throws shape_error for a number of values that is no multiple of the size
MULTISTAGE_COLD inline void check_contexts(index_t size, const std::vector<double>& contexts) {
  require<shape_error>(
      contexts.empty() || (size > 0 && index_t(contexts.size()) % size == 0),
      "sample: a context of ", contexts.size(), " values, the model takes ", size,
      "; give as many for all pictures, or a multiple for one picture after the other");
}

/// Labels and contexts of a batch's rows.
/// @param classes of each row, -1: none
/// @param contexts [any number, context size], from the beginning again where there are fewer
/// than pictures; empty: none. @param first which picture the batch's first row is
/// @throws value_error for a class that the model does not know, shape_error for contexts of
/// another size than the model's
template <class Scalar, class Backend>
MULTISTAGE_COLD row_labels<Scalar, Backend> labels_of_rows(
    dynamic_model<Scalar, Backend>& model,
    std::span<const int> classes,
    const std::vector<double>& contexts = {},
    index_t first = 0) {
  check_contexts(model.label_dim(input_slot::context), contexts);
  const index_t rows = index_t(classes.size());
  const index_t known = model.label_dim(input_slot::class_labels);
  row_labels<Scalar, Backend> labels;
  std::vector<Scalar> one_hot(std::size_t(rows * known), Scalar(0));
  bool any = false;
  for (index_t r = 0; r < rows; ++r) {
    const int label = classes[std::size_t(r)];
    require<value_error>(label >= -1 && label < known, "sample: class_label = ", label,
                         ", the model knows ", known, " classes");
    if (label >= 0)
      one_hot[std::size_t(r * known + label)] = Scalar(1);
    any = any || label >= 0;
  }
  if (any)
    labels.class_labels = {model.backend(), {rows, 1, 1, known}, one_hot};
  if (contexts.empty())
    return labels;
  const index_t size = model.label_dim(input_slot::context);
  std::vector<Scalar> of_rows;  // [rows, size]
  for (index_t r = 0; r < rows; ++r) {
    const index_t at = (first + r) * size % index_t(contexts.size());
    of_rows.insert(of_rows.end(), contexts.begin() + at, contexts.begin() + at + size);
  }
  labels.context = {model.backend(), {rows, 1, 1, size}, of_rows};
  return labels;
}

/// One label and one context for all of a batch's rows. @see labels_of_rows
template <class Scalar, class Backend>
MULTISTAGE_COLD row_labels<Scalar, Backend> same_labels(
    dynamic_model<Scalar, Backend>& model,
    index_t rows,
    int class_label,
    const std::vector<double>& context = {}) {
  return labels_of_rows(model, std::vector<int>(std::size_t(rows), class_label), context);
}

/// D of a model for batches of rows at one noise level; each evaluation is routed to the stage
/// of its sigma. Refers to the model.
template <class Scalar, class Backend>
class model_denoiser {
 public:
  /// @param labels of as many rows as batches will have; none for a model without
  /// @param counter told of every evaluation; null: nobody is
  explicit model_denoiser(dynamic_model<Scalar, Backend>& of,
                          row_labels<Scalar, Backend> labels = {},
                          evaluation_counter* counter = nullptr)
      : model_(&of),
        labels_(std::make_shared<const row_labels<Scalar, Backend>>(std::move(labels))),
        counter_(counter) {}

  /// @see denoiser. @param features whether the shared encoder runs, and whether its features
  /// are kept or taken over (graph/inputs.hpp)
  void operator()(view<const double> x,
                  double sigma,
                  view<double> denoised,
                  shared_features features = shared_features::compute) {
    const index_t rows = x.extents.rows;
    sigmas_.assign(std::size_t(rows), sigma);
    model_->denoise(x, sigmas_, denoised, labels_->pointers(), rows, features);
    if (counter_)
      counter_->note(sigma, features != shared_features::take_over);
  }

 private:
  dynamic_model<Scalar, Backend>* model_;
  std::shared_ptr<const row_labels<Scalar, Backend>> labels_;
  evaluation_counter* counter_;
  std::vector<double> sigmas_;  // [rows], all the same
};

/// The shared encoder's features taken over from step to step (Faster Diffusion: Li et al.,
/// arXiv 2312.09608): of `every` evaluations in a row the first runs the encoder, the others
/// the stage's decoder alone, on features that are then a little old. Cheaper the larger the
/// encoder's part; its error grows with the distance between levels, so it may be limited to an
/// interval of them. Off by default.
struct encoder_reuse {
  int every = 1;                 ///< of so many evaluations in a row one runs the encoder
  double sigma_low = 0;          ///< acts for sigma in (sigma_low, sigma_high]
  double sigma_high = HUGE_VAL;  ///< the interval's upper end, inside it

  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"encoder_every",
                 "of so many evaluations in a row one runs the shared encoder, the others "
                 "reuse its features; 1: all do",
                 between(1, 1'000'000)},
          s.every);
    visit(option{"encoder_low", "no reuse at or below this noise level", at_least(0)},
          s.sigma_low);
    visit(option{"encoder_high", "no reuse above this noise level", or_infinite(0)},
          s.sigma_high);
  }
  /// @throws value_error where it acts and no noise level lies in its interval
  void check(const char* owner) const {
    if (every > 1)
      detail::check_interval(owner, "encoder", sigma_low, sigma_high);
  }
  /// Whether features are reused at a noise level.
  bool at(double sigma) const {
    return every > 1 && sigma > sigma_low && sigma <= sigma_high;
  }
};

/// A denoiser whose encoder's features are reused, for one walk of one batch: make a new one
/// for the next, whose first evaluation must not find another batch's features.
/// @tparam Denoise takes a fourth argument, `shared_features`, as a model_denoiser does
template <class Denoise>
class reusing {
 public:
  /// @param interrupted says at which noise levels the same network is used in between, as by
  /// guidance with its own weak side, so that features are lost; none: nowhere
  reusing(Denoise denoise, encoder_reuse reuse, std::function<bool(double)> interrupted = {})
      : denoise_(std::move(denoise)),
        reuse_(reuse),
        interrupted_(std::move(interrupted)) {
    reuse_.check("reusing");
  }

  /// @see denoiser. @throws value_error when the model's stages share no encoder
  void operator()(view<const double> x, double sigma, view<double> denoised) {
    shared_features features = shared_features::compute;
    if (!reuse_.at(sigma) || (interrupted_ && interrupted_(sigma)))
      age_ = 0;
    else
      features =
          age_++ % reuse_.every == 0 ? shared_features::keep : shared_features::take_over;
    denoise_(x, sigma, denoised, features);
  }

 private:
  Denoise denoise_;
  encoder_reuse reuse_;
  std::function<bool(double)> interrupted_;
  int age_ = 0;  // of the kept features, in evaluations
};

}  // namespace multistage
