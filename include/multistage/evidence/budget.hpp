// Training to a budget of compute: the multiply-accumulates of the forward passes of all images
// that were shown, each by the network of its own stage, as the library counts them. What a
// backward pass takes beside it is about twice as much for every arrangement alike.
//
//   budgeted_trainer run(t);
//   run.set_limit(0.5 * budget);
//   multistage::run(run, {.seconds = 1e9}, {.path = "cell.safetensors"}, observe);
//
// It ends behind the step that reaches the limit, so that the end is a function of the run's
// configuration alone and not of the clock.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "../graph/cost.hpp"
#include "../training/checkpoint.hpp"
#include "../training/trainer.hpp"
#include "statistics.hpp"

namespace multistage {

/// Multiply-accumulates of one image by stage. @param network of a model
inline std::vector<double> macs_by_stage(const graph& network) {
  std::vector<double> macs;
  for (int s = 0; s + 1 < network.segments; ++s)
    macs.push_back(double(cost_of_stage(network, s).macs));
  return macs;
}

/// A trainer that is done once it has spent a budget. It is what `run` drives, and its
/// checkpoints are the trainer's.
template <class Scalar, class Backend>
class budgeted_trainer {
 public:
  /// @param t must outlive it
  explicit budgeted_trainer(trainer<Scalar, Backend>& t)
      : trainer_(t),
        macs_(macs_by_stage(t.model().network())) {}

  /// Ends behind so many multiply-accumulates, counted over the whole training.
  void set_limit(double macs) {
    limit_ = macs;
  }
  /// Multiply-accumulates spent.
  double spent() const {
    return weighted_sum(trainer_.stage_images(), macs_);
  }
  /// Of one image, by stage.
  const std::vector<double>& macs() const {
    return macs_;
  }

  /// What `run` asks of it (training/run.hpp).
  step_report step() {
    return trainer_.step();
  }
  /// Steps made.
  index_t steps() const {
    return trainer_.steps();
  }
  /// Images seen.
  double images_seen() const {
    return trainer_.images_seen();
  }
  /// Whether the limit is reached, or every stage has seen what it is given.
  bool done() const {
    return trainer_.done() || spent() >= limit_;
  }
  /// Who trains together.
  process_group& processes() {
    return trainer_.processes();
  }
  /// @see trainer::complete_average
  void complete_average() {
    trainer_.complete_average();
  }
  /// Writes the trainer's checkpoint. @throws as the trainer's own
  friend void save(const std::string& path, budgeted_trainer& t, const std::string& run) {
    save(path, t.trainer_, run);
  }
  /// Goes on from the trainer's checkpoint. @throws as the trainer's own
  friend void resume(const std::string& path, budgeted_trainer& t, const resume_options& o) {
    resume(path, t.trainer_, o);
  }

 private:
  trainer<Scalar, Backend>& trainer_;
  std::vector<double> macs_;
  double limit_ = 0;
};

}  // namespace multistage
