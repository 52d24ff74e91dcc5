// How the rows of a step are shared out. The batch belongs to the run, not to how many
// processes there are: its rows, sorted by stage, are cut into shards (trainer_options::shards)
// of one stage each, whose gradients are added up as a tree (graph/shard_sums.hpp); each
// process takes some that follow one another.
//
//   128 rows of 3 stages, 8 shards, on 3 processes
//     stage 0, 66 rows   shards 0 1 2 3   of 17, 16, 17, 16   process 0 has 0 1 2: 0-1 and 2
//     stage 1, 44 rows          4 5 6        15, 14, 15               1     3 4 5: 3 and 4-5
//     stage 2, 18 rows          7            18                       2     6 7:   6-7
#pragma once
#include <cmath>
#include <vector>

#include "../graph/shard_sums.hpp"

namespace multistage {

/// The rows of a step, sorted by stage, their shards, and who has which.
class step_shards {
 public:
  /// No rows.
  step_shards() = default;
  /// All shards are the first process's. @param shards of the batch, about: a stage with rows
  /// has one at least. @param piece rows that one has at least, where its stage has as many
  step_shards(std::span<const index_t> rows_by_stage, index_t shards, index_t piece) {
    index_t rows = 0;
    for (const index_t n : rows_by_stage)
      rows += n;
    shards = std::min(shards, divide_up(rows, piece));
    for (std::size_t s = 0; s < rows_by_stage.size(); ++s) {
      const index_t n = rows_by_stage[s];
      if (n == 0)
        continue;
      const index_t share = std::llround(double(n) * double(shards) / double(rows));
      const index_t own = std::clamp(share, index_t{1}, divide_up(n, piece));
      for (index_t k = 0; k < own; ++k) {
        begins_.push_back(begins_.back() + n * (k + 1) / own - n * k / own);
        middles_.push_back(double(s) + (double(k) + 0.5) / double(own));
      }
    }
    of_process_ = {0, count()};
  }
  /// Gives each process its shards. @param work of a row, by stage; all processes get about as
  /// much
  void share_out(int processes, std::span<const double> work) {
    std::vector<double> done(1, 0.0);
    for (index_t k = 0; k < count(); ++k)
      done.push_back(done.back() + work[std::size_t(middles_[std::size_t(k)])] *
                                       double(rows_of({k, k + 1}).size()));
    give(processes,
         [&](std::size_t k) { return (done[k] + done[k + 1]) / 2 / done.back() * processes; });
  }
  /// The same by places in the stages. @param begins of each process but the first
  /// (placement.hpp)
  void share_out(std::span<const double> begins) {
    give(int(begins.size()) + 1, [&](std::size_t k) {
      return double(std::upper_bound(begins.begin(), begins.end(), middles_[k]) -
                    begins.begin());
    });
  }

  /// How many shards there are.
  index_t count() const {
    return std::ssize(begins_) - 1;
  }
  /// Where they begin.
  shard_begins begins() const {
    return begins_;
  }
  /// The rows of some.
  index_range rows_of(const index_range& shards) const {
    return {begins_[std::size_t(shards.begin)], begins_[std::size_t(shards.end)]};
  }
  /// The shards of a process.
  index_range of_process(int rank) const {
    return {of_process_[std::size_t(rank)], of_process_[std::size_t(rank) + 1]};
  }
  /// Its rows.
  index_range rows_of_process(int rank) const {
    return rows_of(of_process(rank));
  }
  /// The largest parts of the tree that lie whole in its shards, in order.
  std::vector<index_range> blocks_of_process(int rank) const {
    std::vector<index_range> blocks;
    if (count() > 0)
      take_blocks({0, count()}, of_process(rank), blocks);
    return blocks;
  }

 private:
  /// @param place of a shard, which is that of the process that gets it; it ascends
  template <class F>
  void give(int processes, F&& place) {
    of_process_.assign(1, 0);
    for (int rank = 0; rank < processes; ++rank) {
      index_t end = of_process_.back();
      while (end < count() && (rank + 1 == processes || place(std::size_t(end)) < rank + 1))
        ++end;
      of_process_.push_back(end);
    }
  }
  static void take_blocks(const index_range& of,
                          const index_range& own,
                          std::vector<index_range>& blocks) {
    if (common(of, own).size() == 0)
      return;
    if (own.contains(of))
      return blocks.push_back(of);
    const index_t cut = tree_cut(of);
    take_blocks({of.begin, cut}, own, blocks);
    take_blocks({cut, of.end}, own, blocks);
  }

  std::vector<index_t> begins_{0};         // and the end
  std::vector<double> middles_;            // stage, and how far in its rows
  std::vector<index_t> of_process_{0, 0};  // where the shards of each begin, and the end
};

}  // namespace multistage
