// The update: Adam and the average of the weights (adam.hpp), with a rate and a half-life for
// each segment, and the gradient clipped to a largest norm. A decoder without rows is left
// alone, its count of updates too.
//
// The norm of the gradient is one number for all segments, and so is the factor that clips it.
#pragma once
#include <algorithm>

#include "../ops/reduce.hpp"
#include "adam.hpp"
#include "moving_average.hpp"
#include "options.hpp"
#include "segments.hpp"

namespace multistage {

/// Moves a model's weights and their average.
template <class Scalar, class Backend>
class averaged_adam {
 public:
  /// What is moved.
  using model_type = dynamic_model<Scalar, Backend>;

  /// By trainer_options: learning_rate, adam, lr_rampup_kimg, ema_halflife_kimg,
  /// ema_rampup_ratio, gradient_clip, shared_rate, stage_rates, stage_ema_halflife_kimg and
  /// shared_kimg. @param trained must outlive this; it keeps an average (keep_average) from the
  /// first step on
  MULTISTAGE_COLD averaged_adam(model_type& trained, const trainer_options& o)
      : model_(trained),
        options_(o),
        first_(trained.backend(), trained.weights().extents()),
        second_(trained.backend(), trained.weights().extents()),
        updates_(std::size_t(trained.network().segments), 0),
        settled_(updates_.size(), !trained.has_average()) {}

  /// Whether a batch moves a segment. @param images_seen before it
  bool moves(const routing& route, int segment, double images_seen) const {
    return rate_of(segment, images_seen) > 0 && reaches(route, segment);
  }
  /// The gradient's norm over all segments that the batch moves.
  double norm(tensor<Scalar, Backend>& gradient,
              const routing& route,
              double images_seen) const {
    double squares = 0;
    for_each_segment(
        model_.network(), gradient.data(),
        [&](int segment) { return moves(route, segment, images_seen); },
        [&](view<Scalar> g) {
          squares +=
              ops::sum_of_squares<Backend, Scalar>(model_.backend(), view<const Scalar>(g));
        });
    return std::sqrt(squares);
  }
  /// Moves the weights against the gradient, and the average after them. Nothing fails.
  /// @param norm of the gradient, as above. @param rows of the batch
  void apply(const tensor<Scalar, Backend>& gradient,
             const routing& route,
             double norm,
             double images_seen,
             index_t rows) {
    const trainer_options& o = options_;
    const double rate = o.schedule.rate(o.learning_rate, o.lr_rampup_kimg, images_seen);
    const double clip =
        o.gradient_clip > 0 && norm > o.gradient_clip ? o.gradient_clip / norm : 1.0;
    for (int segment = 0; segment < model_.network().segments; ++segment) {
      const auto [begin, end] = model_.network().parameter_range(segment);
      const std::size_t s = std::size_t(segment);
      const bool moving = moves(route, segment, images_seen);
      if (end == begin || (!moving && settled_[s]))
        continue;
      settled_[s] = false;
      const double k = double(updates_[s] += moving ? 1 : 0);
      const auto correction = [&](double beta) {
        return Scalar(moving ? 1 / (1 - std::pow(beta, k)) : 0);
      };
      model_.backend().for_each_index(
          end - begin,
          functor::adam_and_average<Scalar>{
              gradient.data() + begin, model_.weights().data() + begin, first_.data() + begin,
              second_.data() + begin, model_.averaged_weights().data() + begin,
              Scalar(o.adam.beta1), Scalar(o.adam.beta2), Scalar(o.adam.epsilon),
              Scalar(rate * rate_of(segment, images_seen)), correction(o.adam.beta1),
              correction(o.adam.beta2), Scalar(clip), Scalar(keep(segment, images_seen, rows)),
              moving});
    }
  }

  /// How often each segment was moved.
  const std::vector<index_t>& updates() const {
    return updates_;
  }
  /// Goes on from such counts; the moments are the caller's to fill. @throws value_error when
  /// they are not of this model's segments
  void restore(const std::vector<index_t>& updates) {
    require<value_error>(updates.size() == updates_.size(), "trainer: a state of ",
                         updates.size(), " segments cannot be resumed by a model of ",
                         updates_.size());
    updates_ = updates;
    std::fill(settled_.begin(), settled_.end(), char(0));  // the average may be another
  }
  /// Adam's mean of gradients, which lies as the weights do.
  tensor<Scalar, Backend>& first_moment() {
    return first_;
  }
  /// Adam's mean of their squares, likewise.
  tensor<Scalar, Backend>& second_moment() {
    return second_;
  }

 private:
  /// The factor on a segment's learning rate.
  double rate_of(int segment, double images_seen) const {
    if (segment > 0)
      return options_.stage_rates.empty() ? 1 : options_.stage_rates[std::size_t(segment) - 1];
    const bool frozen = options_.shared_kimg > 0 && images_seen >= options_.shared_kimg * 1000;
    return frozen ? 0 : options_.shared_rate;
  }
  /// What the average keeps of itself in a step.
  double keep(int segment, double images_seen, index_t rows) const {
    const trainer_options& o = options_;
    const double kimg = segment == 0 || o.stage_ema_halflife_kimg.empty()
                            ? o.ema_halflife_kimg
                            : o.stage_ema_halflife_kimg[std::size_t(segment) - 1];
    return halflife_rule{kimg * 1000, o.ema_rampup_ratio}.keep(images_seen, double(rows));
  }

  model_type& model_;
  trainer_options options_;
  tensor<Scalar, Backend> first_;
  tensor<Scalar, Backend> second_;
  std::vector<index_t> updates_;  // by segment
  std::vector<char> settled_;     // by segment: its average is its weights, which never moved
};

/// Of a model of any type.
template <class Model>
averaged_adam(Model&, const trainer_options&)
    -> averaged_adam<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
