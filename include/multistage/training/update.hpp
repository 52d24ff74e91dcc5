// The update: Adam and the average of the weights (adam.hpp), with a rate and a half-life for
// each segment, and the gradient clipped to a largest norm; further averages behind it
// (kept_averages.hpp). A decoder without rows is left alone, its count of updates too.
//
// The norm of the gradient is one number for all segments, and so is the factor that clips it.
//
// Of several processes each updates all weights, or those of the decoders that it has
// (stage_begins), or, with shard_state, its share of these (parameter_share.hpp); it keeps
// moments and averages of nothing else.
#pragma once
#include <algorithm>

#include "../distributed/process_group.hpp"
#include "decaying_weights.hpp"
#include "kept_averages.hpp"
#include "placement.hpp"
#include "segments.hpp"

namespace multistage {

namespace functor {
/// The squares of a run of values.
template <class T>
struct squares_of_run {
  const T* x;
  index_t size;  // of all runs
  MULTISTAGE_HD double operator()(index_t run, index_t i) const {
    const index_t k = run * parameter_run + i;
    return k < size ? double(x[k]) * double(x[k]) : 0.0;
  }
};
}  // namespace functor

/// Moves a model's weights and their average.
template <class Scalar, class Backend>
class averaged_adam {
 public:
  /// What is moved.
  using model_type = dynamic_model<Scalar, Backend>;

  /// By trainer_options: all that its `update_fields` name, shard_state, stage_begins. @param
  /// trained must outlive this; where the state is not shared out it keeps an average
  /// (keep_average) from the first step on. @param processes that make the same updates
  MULTISTAGE_COLD averaged_adam(model_type& trained,
                                const trainer_options& o,
                                process_group processes = {});

  /// Whether a process keeps moments and averages of a part of the weights alone.
  bool is_shared_out() const {
    return group_.size() > 1 && (options_.shard_state || !options_.stage_begins.empty());
  }
  /// All that the processes have of a moment or an average; lies as the weights do. All
  /// processes call it. @param wanted whether this one wants it; else nothing is returned
  std::vector<Scalar> whole(const tensor<Scalar, Backend>& state, bool wanted = true);
  /// Sets a moment or an average. @param values as the weights lie
  void put(const std::vector<Scalar>& values, tensor<Scalar, Backend>& state);

  /// Whether a batch moves a segment. @param images_seen before it
  bool moves(const routing& route, int segment, double images_seen) const {
    return rate_of(segment, images_seen) > 0 && reaches(route, segment);
  }
  /// The gradient's norm over all segments that the batch moves, of which each process has its
  /// shares at least. All processes call it.
  double norm(tensor<Scalar, Backend>& gradient, const routing& route, double images_seen);
  /// Moves the weights against the gradient, and the average after them. Nothing fails.
  /// @param norm of the gradient, as above. @param rows of the batch
  void apply(const tensor<Scalar, Backend>& gradient,
             const routing& route,
             double norm,
             double images_seen,
             index_t rows);

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
  void restore(const std::vector<index_t>& updates, const std::vector<double>& images);
  /// Adam's mean of gradients, which lies as the weights do.
  tensor<Scalar, Backend>& first_moment() {
    return first_;
  }
  /// Adam's mean of their squares, likewise.
  tensor<Scalar, Backend>& second_moment() {
    return second_;
  }
  /// The average that sampling uses, where it is shared out: this process's share.
  tensor<Scalar, Backend>& average() {
    return average_;
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
  /// What a process speaks for of a bucket.
  index_range slice(int segment, const index_range& bucket, int rank) const {
    return share_of_bucket(bucket, hosts_[std::size_t(segment)], rank);
  }
  void take_share(const Scalar* of, tensor<Scalar, Backend>& state);
  /// Adds the sums of squares of runs.
  void add_squares(const Scalar* x, index_t size, std::vector<double>& sums);
  /// What each process has, on all.
  std::vector<std::vector<double>> by_rank(const std::vector<double>& own);
  /// Moves a part of a segment. @param beta of the average
  void move(const tensor<Scalar, Backend>& gradient,
            int segment,
            const parameter_share::part& part,
            double rate,
            double clip,
            double beta,
            bool moving);
  /// The factor on a segment's learning rate.
  double rate_of(int segment, double images_seen) const;
  /// What the average keeps of itself in a step.
  double keep(int segment, double images_seen, index_t rows) const;

  model_type& model_;
  trainer_options options_;
  process_group group_;
  std::vector<index_range> hosts_;  // the processes that have each segment
  parameter_share share_;
  double rate_factor_ = 1;
  tensor<Scalar, Backend> first_;
  tensor<Scalar, Backend> second_;
  tensor<Scalar, Backend> average_;  // where the state is shared out
  tensor<double, Backend> squares_;  // sums of runs
  tensor<std::uint8_t, Backend> decays_;
  std::vector<index_t> updates_;  // by segment
  std::vector<double> images_;    // by segment
  std::vector<char> settled_;     // by segment: its average is its weights, which never moved
  std::optional<average_kind> by_std_;  // what sampling's average is, where no half-life
  kept_averages<Scalar, Backend> averages_;
};

template <class Scalar, class Backend>
MULTISTAGE_COLD averaged_adam<Scalar, Backend>::averaged_adam(model_type& trained,
                                                              const trainer_options& o,
                                                              process_group processes)
    : model_(trained),
      options_(o),
      group_(std::move(processes)),
      hosts_(stage_placement{group_.size() > 1 ? o.stage_begins : std::vector<double>()}
                 .hosts_of_segments(trained.network().segments, group_.size())),
      share_(is_shared_out()
                 ? parameter_share(trained.network(), hosts_, group_.rank(), o.shard_state)
                 : parameter_share(trained.network())),
      first_(trained.backend(), {1, 1, 1, share_.size()}),
      second_(trained.backend(), {1, 1, 1, share_.size()}),
      decays_(decaying_weights(trained.backend(), trained.network(), o.adam)),
      updates_(std::size_t(trained.network().segments), 0),
      images_(updates_.size(), 0.0),
      settled_(updates_.size(), !trained.has_average()),
      averages_(trained, share_, o) {
  if (o.ema_std > 0)
    by_std_ = average_of_std(o.ema_std);
  if (!is_shared_out())
    return;
  average_ = tensor<Scalar, Backend>(trained.backend(), {1, 1, 1, share_.size()});
  take_share(trained.averaged_weights().data(), average_);
}

template <class Scalar, class Backend>
std::vector<Scalar> averaged_adam<Scalar, Backend>::whole(const tensor<Scalar, Backend>& state,
                                                          bool wanted) {
  if (!is_shared_out())
    return wanted ? state.to_host() : std::vector<Scalar>();
  std::vector<Scalar> all(wanted ? std::size_t(model_.network().parameter_elements) : 0);
  const std::vector<Scalar> own = state.to_host();
  std::vector<Scalar> values;
  for (int segment = 0; segment < model_.network().segments; ++segment)
    for_each_bucket(model_.network(), segment, [&](const index_range& bucket) {
      std::vector<std::size_t> bytes;
      for (int rank = 0; rank < group_.size(); ++rank)
        bytes.push_back(std::size_t(slice(segment, bucket, rank).size()) * sizeof(Scalar));
      const index_range mine = slice(segment, bucket, group_.rank());
      std::span<const Scalar> from;
      if (mine.size() > 0)
        from = std::span(own).subspan(std::size_t(share_.place_of(segment, mine.begin)),
                                      std::size_t(mine.size()));
      values.resize(std::size_t(bucket.size()));
      group_.all_gather(std::as_bytes(from), std::as_writable_bytes(std::span(values)), bytes);
      if (wanted)
        std::copy(values.begin(), values.end(), all.begin() + bucket.begin);
    });
  return all;
}

template <class Scalar, class Backend>
void averaged_adam<Scalar, Backend>::put(const std::vector<Scalar>& values,
                                         tensor<Scalar, Backend>& state) {
  share_.each([&](const parameter_share::part& p) {
    model_.backend().upload(values.data() + p.elements.begin, state.data() + p.at,
                            p.elements.size());
  });
}

template <class Scalar, class Backend>
double averaged_adam<Scalar, Backend>::norm(tensor<Scalar, Backend>& gradient,
                                            const routing& route,
                                            double images_seen) {
  const auto each_slice = [&](auto&& f) {
    for (int segment = 0; segment < model_.network().segments; ++segment)
      if (moves(route, segment, images_seen))
        for_each_bucket(model_.network(), segment, [&](const index_range& bucket) {
          for (int rank = 0; rank < group_.size(); ++rank)
            f(rank, slice(segment, bucket, rank));
        });
  };
  std::vector<double> own;  // sums of runs
  each_slice([&](int rank, const index_range& part) {
    if (rank == group_.rank() && part.size() > 0)
      add_squares(gradient.data() + part.begin, part.size(), own);
  });
  const std::vector<std::vector<double>> sums = by_rank(own);
  // In the order of the parameters, as one process has them.
  std::vector<std::size_t> next(sums.size(), 0);
  double squares = 0;
  each_slice([&](int rank, const index_range& part) {
    for (index_t run = 0; run < divide_up(part.size(), parameter_run); ++run)
      squares += sums[std::size_t(rank)][next[std::size_t(rank)]++];
  });
  return std::sqrt(squares);
}

template <class Scalar, class Backend>
void averaged_adam<Scalar, Backend>::apply(const tensor<Scalar, Backend>& gradient,
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
    const double own_rate = rate * rate_of(segment, images_seen);
    for (const parameter_share::part& part : share_.of_segment(segment)) {
      move(gradient, segment, part, own_rate, clip, beta, moving);
      averages_.follow(part, images_[s], own_rows);
    }
  }
}

template <class Scalar, class Backend>
void averaged_adam<Scalar, Backend>::restore(const std::vector<index_t>& updates,
                                             const std::vector<double>& images) {
  require<value_error>(updates.size() == updates_.size() && images.size() == images_.size(),
                       "trainer: a state of ", updates.size(), " and ", images.size(),
                       " segments cannot be resumed by a model of ", updates_.size());
  updates_ = updates;
  images_ = images;
  std::fill(settled_.begin(), settled_.end(), char(0));  // the average may be another
}

template <class Scalar, class Backend>
void averaged_adam<Scalar, Backend>::take_share(const Scalar* of,
                                                tensor<Scalar, Backend>& state) {
  share_.each([&](const parameter_share::part& p) {
    model_.backend().copy(of + p.elements.begin, state.data() + p.at, p.elements.size());
  });
}

template <class Scalar, class Backend>
void averaged_adam<Scalar, Backend>::add_squares(const Scalar* x,
                                                 index_t size,
                                                 std::vector<double>& sums) {
  const index_t runs = divide_up(size, parameter_run);
  double* const to = grown(squares_, model_.backend(), runs);
  sum_by_row(model_.backend(), runs, parameter_run, functor::squares_of_run<Scalar>{x, size},
             to);
  sums.resize(sums.size() + std::size_t(runs));
  model_.backend().download(to, sums.data() + sums.size() - runs, runs);
}

template <class Scalar, class Backend>
std::vector<std::vector<double>> averaged_adam<Scalar, Backend>::by_rank(
    const std::vector<double>& own) {
  const std::vector<std::size_t> sizes = values_of_all(group_, own.size());
  const std::vector<double> all = all_gather(group_, std::span<const double>(own));
  std::vector<std::vector<double>> lists;
  auto at = all.begin();
  for (const std::size_t n : sizes) {
    lists.emplace_back(at, at + std::ptrdiff_t(n));
    at += std::ptrdiff_t(n);
  }
  return lists;
}

template <class Scalar, class Backend>
void averaged_adam<Scalar, Backend>::move(const tensor<Scalar, Backend>& gradient,
                                          int segment,
                                          const parameter_share::part& part,
                                          double rate,
                                          double clip,
                                          double beta,
                                          bool moving) {
  const index_t begin = part.elements.begin;
  Scalar* const average =
      is_shared_out() ? average_.data() + part.at : model_.averaged_weights().data() + begin;
  adam_pass<Scalar>(
      model_.backend(), options_.adam,
      {part.elements.size(), gradient.data() + begin, model_.weights().data() + begin,
       first_.data() + part.at, second_.data() + part.at, average,
       decays_.size() > 0 ? decays_.data() + begin : nullptr},
      {updates_[std::size_t(segment)], rate, clip, beta, moving});
}

template <class Scalar, class Backend>
double averaged_adam<Scalar, Backend>::rate_of(int segment, double images_seen) const {
  if (segment > 0)
    return options_.stage_rates.empty() ? 1 : options_.stage_rates[std::size_t(segment) - 1];
  const bool frozen = options_.shared_kimg > 0 && images_seen >= options_.shared_kimg * 1000;
  return frozen ? 0 : options_.shared_rate;
}

template <class Scalar, class Backend>
double averaged_adam<Scalar, Backend>::keep(int segment,
                                            double images_seen,
                                            index_t rows) const {
  const trainer_options& o = options_;
  const double kimg = segment == 0 || o.stage_ema_halflife_kimg.empty()
                          ? o.ema_halflife_kimg
                          : o.stage_ema_halflife_kimg[std::size_t(segment) - 1];
  return halflife_rule{kimg * 1000, o.ema_rampup_ratio}.keep(images_seen, double(rows));
}

/// Of a model of any type.
template <class Model, class... Rest>
averaged_adam(Model&, const trainer_options&, Rest&&...)
    -> averaged_adam<typename Model::scalar, typename Model::backend_type>;

}  // namespace multistage
