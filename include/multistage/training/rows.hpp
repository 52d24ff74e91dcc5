// Who draws the rows of a batch: which stage, which noise level inside it, which image. Every
// draw is a function of (seed, step), so a run that was stopped and resumed equals one that was
// not, bit by bit.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "../data/batch_reader.hpp"
#include "options.hpp"

namespace multistage {

/// A row of a batch.
struct training_row {
  index_t image = 0;  ///< which image
  double sigma = 0;   ///< at which noise level
  double weight = 1;  ///< a factor on its loss
  int bin = -1;       ///< of its stage, where levels are drawn by importance
};

/// Draws stages and noise levels of rows.
class row_draws {
 public:
  /// By trainer_options: levels, stratified, one_stage_a_batch and importance.
  row_draws(const trainer_options& o, partition stages)
      : stages_(std::move(stages)),
        levels_(o.levels),
        stratified_(o.stratified),
        one_stage_(o.one_stage_a_batch),
        importance_(o.importance, stages_.stage_count()) {}

  /// Rows with stages by their shares, and noise levels inside the stages. Images are to be
  /// drawn yet.
  std::vector<training_row> draw(index_t count,
                                 std::span<const double> all_shares,
                                 const step_numbers& numbers) const {
    const random_stream level = numbers.of(purpose::noise_level);
    std::vector<double> shares(all_shares.begin(), all_shares.end());
    if (one_stage_) {
      double u = level.uniform(2 * std::uint64_t(count));  // behind those of the rows
      const int stage = take_stage(all_shares, u);
      std::fill(shares.begin(), shares.end(), 0.0);
      shares[std::size_t(stage)] = 1;
    }
    std::vector<training_row> rows(static_cast<std::size_t>(count));
    for (index_t r = 0; r < count; ++r) {
      // Stratified: row r takes its turn among the rows, shifted by one number a step; what is
      // left of it after choosing the stage places it inside.
      double u = stratified_ ? std::fmod((double(r) + level.uniform(0)) / double(count), 1.0)
                             : level.uniform(2 * r);
      const int stage = take_stage(shares, u);
      double inside = stratified_ ? std::clamp(u / shares[std::size_t(stage)], 1e-12, 1 - 1e-12)
                                  : level.uniform(2 * r + 1);
      training_row& row = rows[std::size_t(r)];
      if (importance_.active()) {
        const auto placed = importance_.place(stage, inside);
        inside = placed.u;
        row.bin = placed.bin;
        row.weight = placed.weight;
      }
      row.sigma = levels_.draw(stages_, stage, inside);
    }
    return rows;
  }
  /// Learns from the losses of rows that were drawn, where levels are drawn by importance.
  void record(std::span<const training_row> rows, std::span<const double> losses) {
    if (!importance_.active())
      return;
    for (std::size_t i = 0; i < rows.size(); ++i)
      importance_.record(stages_.stage(rows[i].sigma), rows[i].bin, losses[i] / rows[i].weight);
  }
  /// What was learnt, for checkpoints.
  importance_sampler& importance() {
    return importance_;
  }
  /// As above.
  const importance_sampler& importance() const {
    return importance_;
  }

 private:
  /// The stage of a uniform number, from which the shares below it are taken.
  static int take_stage(std::span<const double> shares, double& u) {
    int stage = 0;
    while (stage + 1 < int(shares.size()) && u >= shares[std::size_t(stage)])
      u -= shares[std::size_t(stage++)];
    while (shares[std::size_t(stage)] == 0)
      --stage;  // rounding may leave u at the end of the last stage that has a share
    return stage;
  }

  partition stages_;
  noise_level_draws levels_;
  bool stratified_;
  bool one_stage_;
  importance_sampler importance_;
};

/// Draws the rows' images, out of so many.
inline void draw_images(std::span<training_row> rows,
                        index_t images,
                        const step_numbers& numbers) {
  for (std::size_t r = 0; r < rows.size(); ++r)
    rows[r].image = image_of_row(numbers, index_t(r), images);
}

}  // namespace multistage
