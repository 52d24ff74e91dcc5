// Who shares the rows of a batch among the stages (arXiv 2312.09181, section 4): each stage has
// a probability, none less than a least share; a stage that has seen its images is done and
// leaves its share to the others.
#pragma once
#include <numeric>
#include <span>

#include "options.hpp"

namespace multistage {

/// The stages' shares of the rows, and how many images each has seen.
class stage_quotas {
 public:
  /// By trainer_options: stage_probabilities (or those of `levels`), least_stage_share,
  /// stage_kimg and one_after_the_other. @throws value_error for options out of range
  stage_quotas(const trainer_options& o, const partition& stages)
      : kimg_(o.stage_kimg),
        one_after_the_other_(o.one_after_the_other),
        images_(std::size_t(stages.stage_count()), 0.0) {
    check(o, stages.stage_count());
    probabilities_ = lifted(o.stage_probabilities.empty() ? o.levels.stage_probabilities(stages)
                                                          : o.stage_probabilities,
                            o.least_stage_share);
  }

  /// Probability with which a row is drawn from each stage while none is done.
  const std::vector<double>& probabilities() const {
    return probabilities_;
  }
  /// The stages' probabilities now: those of stages that are done go to the others.
  std::vector<double> shares() const {
    std::vector<double> p = probabilities_;
    double sum = 0;
    for (std::size_t s = 0; s < p.size(); ++s) {
      if (done(int(s)) || (one_after_the_other_ && sum > 0))
        p[s] = 0;
      sum += p[s];
    }
    for (double& share : p)
      share /= sum;
    return p;
  }
  /// Whether a stage has seen what stage_kimg gives it.
  bool done(int stage) const {
    const std::size_t s = std::size_t(stage);
    return !kimg_.empty() && kimg_[s] > 0 && images_[s] >= kimg_[s] * 1000;
  }
  /// Whether all have that get rows at all.
  bool done() const {
    for (std::size_t s = 0; s < images_.size(); ++s)
      if (!done(int(s)) && probabilities_[s] > 0)
        return false;
    return true;
  }
  /// Counts the rows of a step.
  void count(std::span<const index_t> rows_by_stage) {
    for (std::size_t s = 0; s < images_.size(); ++s)
      images_[s] += double(rows_by_stage[s]);
  }
  /// Images that each stage has seen.
  const std::vector<double>& images() const {
    return images_;
  }
  /// Goes on from such a count. @throws value_error when it is not of these stages
  void restore(const std::vector<double>& images) {
    require<value_error>(images.size() == images_.size(), "trainer: a state of ", images.size(),
                         " stages cannot be resumed by a model of ", images_.size());
    images_ = images;
  }

 private:
  /// Stages below the least share get it, the others share the rest in proportion.
  static std::vector<double> lifted(std::vector<double> p, double least) {
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    require<value_error>(sum > 0, "trainer: all stage_probabilities are 0");
    double given = 0;
    double rest = 0;
    for (double& share : p) {
      share /= sum;
      if (share < least)
        given += least;
      else
        rest += share;
    }
    for (double& share : p)
      share = share < least ? least : share * (1 - given) / rest;
    return p;
  }

  std::vector<double> kimg_;
  bool one_after_the_other_;
  std::vector<double> images_;
  std::vector<double> probabilities_;
};

}  // namespace multistage
