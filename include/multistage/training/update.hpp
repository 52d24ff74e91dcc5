// The update: Adam and the average of the weights (adam.hpp), with a rate and a half-life for
// each segment, and the gradient clipped to a largest norm; further averages behind it
// (kept_averages.hpp). A decoder without rows is left alone, its count of updates too.
//
// The norm of the gradient is one number for all segments, and so is the factor that clips it.
#pragma once
#include <algorithm>

#include "../ops/reduce.hpp"
#include "adam.hpp"
#include "kept_averages.hpp"
#include "segments.hpp"

namespace multistage {

/// Moves a model's weights and their average.
template <class Scalar, class Backend>
class averaged_adam {
 public:
  /// What is moved.
  using model_type = dynamic_model<Scalar, Backend>;

  /// By trainer_options: all that its `update_fields` name. @param trained must outlive this;
  /// it keeps an average (keep_average) from the first step on
  MULTISTAGE_COLD averaged_adam(model_type& trained, const trainer_options& o)
      : model_(trained),
        options_(o),
        first_(trained.backend(), trained.weights().extents()),
        second_(trained.backend(), trained.weights().extents()),
        decays_(decaying(trained, o)),
        updates_(std::size_t(trained.network().segments), 0),
        images_(updates_.size(), 0.0),
        settled_(updates_.size(), !trained.has_average()),
        averages_(trained, o) {
    if (o.ema_std > 0)
      by_std_ = average_of_std(o.ema_std);
  }

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
    const double rate =
        rate_factor_ * o.schedule.rate(o.learning_rate, o.lr_rampup_kimg, images_seen);
    const double clip =
        o.gradient_clip > 0 && norm > o.gradient_clip ? o.gradient_clip / norm : 1.0;
    for (int segment = 0; segment < model_.network().segments; ++segment) {
      const auto [begin, end] = model_.network().parameter_range(segment);
      const std::size_t s = std::size_t(segment);
      const double own_rows =
          double(segment == 0 ? rows : route.rows_by_stage[std::size_t(segment) - 1]);
      images_[s] += own_rows;
      const bool moving = moves(route, segment, images_seen);
      if (end == begin || (!moving && settled_[s]))
        continue;
      settled_[s] = false;
      updates_[s] += moving ? 1 : 0;
      const double beta =
          by_std_ ? by_std_->keep(images_[s], own_rows) : keep(segment, images_seen, rows);
      if (decays_.size() > 0)
        move<true>(gradient, segment, rate * rate_of(segment, images_seen), clip, beta, moving);
      else
        move<false>(gradient, segment, rate * rate_of(segment, images_seen), clip, beta,
                    moving);
      averages_.follow(begin, end, images_[s], own_rows);
    }
  }

  /// On the learning rate; 1 until it is set.
  double rate_factor() const {
    return rate_factor_;
  }
  /// Sets it.
  void set_rate_factor(double factor) {
    rate_factor_ = factor;
  }
  /// How often each segment was moved.
  const std::vector<index_t>& updates() const {
    return updates_;
  }
  /// Images that each segment has seen: those of all stages, or of its own.
  const std::vector<double>& images() const {
    return images_;
  }
  /// Goes on from such counts; the moments and averages are the caller's to fill. @throws
  /// value_error when they are not of this model's segments
  void restore(const std::vector<index_t>& updates, const std::vector<double>& images) {
    require<value_error>(updates.size() == updates_.size() && images.size() == images_.size(),
                         "trainer: a state of ", updates.size(), " and ", images.size(),
                         " segments cannot be resumed by a model of ", updates_.size());
    updates_ = updates;
    images_ = images;
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
  /// What sampling's average is where ema_std says so; else it has a half-life.
  const std::optional<average_kind>& sampled_average() const {
    return by_std_;
  }
  /// The averages beside the one that sampling uses.
  std::span<kept_average<Scalar, Backend>> averages() {
    return averages_.list();
  }

 private:
  /// Which weights decay, a byte each: all trained ones but vectors (biases and norms). Empty
  /// where none does.
  MULTISTAGE_COLD static tensor<std::uint8_t, Backend> decaying(model_type& trained,
                                                                const trainer_options& o) {
    if (o.adam.weight_decay == 0)
      return {};
    std::vector<std::uint8_t> flags(std::size_t(trained.weights().size()), 0);
    for (const parameter& p : trained.network().parameters)
      if (p.trainable && p.layout != parameter_layout::vector)
        std::fill_n(flags.begin() + p.offset, p.size(), std::uint8_t{1});
    return {trained.backend(), trained.weights().extents(), flags};
  }
  /// Moves a segment. @param beta of the average
  template <bool Decays>
  void move(const tensor<Scalar, Backend>& gradient,
            int segment,
            double rate,
            double clip,
            double beta,
            bool moving) {
    const adam_options& o = options_.adam;
    const auto [begin, end] = model_.network().parameter_range(segment);
    const double k = double(updates_[std::size_t(segment)]);
    const auto correction = [&](double decay) {
      return Scalar(moving ? 1 / (1 - std::pow(decay, k)) : 0);
    };
    functor::adam_and_average<Scalar, Decays> step{gradient.data() + begin,
                                                   model_.weights().data() + begin,
                                                   first_.data() + begin,
                                                   second_.data() + begin,
                                                   model_.averaged_weights().data() + begin,
                                                   Scalar(o.beta1),
                                                   Scalar(o.beta2),
                                                   Scalar(o.epsilon),
                                                   Scalar(rate),
                                                   correction(o.beta1),
                                                   correction(o.beta2),
                                                   Scalar(clip),
                                                   Scalar(beta),
                                                   moving};
    if constexpr (Decays) {
      step.kept = Scalar(1 - rate * o.weight_decay);
      step.decays = decays_.data() + begin;
    }
    model_.backend().for_each_index(end - begin, step);
  }
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
  double rate_factor_ = 1;
  tensor<Scalar, Backend> first_;
  tensor<Scalar, Backend> second_;
  tensor<std::uint8_t, Backend> decays_;
  std::vector<index_t> updates_;  // by segment
  std::vector<double> images_;    // by segment
  std::vector<char> settled_;     // by segment: its average is its weights, which never moved
  std::optional<average_kind> by_std_;  // what sampling's average is, where no half-life
  kept_averages<Scalar, Backend> averages_;
};

/// Of a model of any type.
template <class Model>
averaged_adam(Model&, const trainer_options&)
    -> averaged_adam<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
