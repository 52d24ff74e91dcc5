// The exact partition into N stages (arXiv 2312.09181, appendix on general N): of all ways to
// cut the nodes of a similarity matrix into N intervals, the one that maximises the sum over
// intervals of the mean similarity inside. A dynamic programme in O(N n^2) finds it; no
// mixed-integer solver is needed.
//
// A single node is perfectly like itself, so on a fine map the paper's sum is largest for one
// wide stage and slivers at an end. Weighed by how many nodes they have, stages maximise what
// a node has in common with its stage on average (kernel k-means over intervals), and a finer
// map gives the same cuts: stage_weight::nodes.
//
// With prefix sums over the matrix the mean of a block is four numbers, and best[s][j], the
// best sum for the first j nodes in s stages, is the maximum over i of best[s - 1][i] +
// mean(i, j).
//
//   const n_stage_result best = n_stage_partition(matrix, 3, stage_weight::nodes);
//   best.cuts;                      // {4, 11}: stages of nodes 0-3, 4-10, 11 and on
#pragma once
#include <cmath>
#include <vector>

#include "../core/config.hpp"
#include "../core/error.hpp"

namespace multistage {

/// What a stage counts in the sum that the exact partition maximises.
enum class stage_weight {
  one,   ///< each the same, as the paper has it; for maps of few nodes
  nodes  ///< as many as its nodes; for maps of any
};

/// A partition of nodes 0 to n - 1 into intervals.
struct n_stage_result {
  std::vector<index_t> cuts;  ///< first node of each later stage, ascending
  double objective = 0;       ///< sum over the stages of weight times mean similarity within
  double mean = 0;            ///< objective over the sum of weights: 1 for stages all alike
};

/// @param matrix [n, n], similarities. @param stages between 1 and n. @throws value_error
/// otherwise.
inline n_stage_result n_stage_partition(const std::vector<double>& matrix,
                                        int stages,
                                        stage_weight weight = stage_weight::one) {
  index_t n = 0;
  while (n * n < index_t(matrix.size()))
    ++n;
  require<value_error>(n > 0 && n * n == index_t(matrix.size()),
                       "n_stage_partition: ", matrix.size(), " values are no square matrix");
  for (std::size_t i = 0; i < matrix.size(); ++i)
    require<value_error>(std::isfinite(matrix[i]), "n_stage_partition: similarity ", i,
                         " (row ", i / std::size_t(n), ", column ", i % std::size_t(n), ") is ",
                         matrix[i], "; all must be finite");
  require<value_error>(stages >= 1 && stages <= n, "n_stage_partition: ", stages,
                       " stages for ", n, " nodes; give 1 to ", n);
  // sum[i][j] of the block of nodes < i and < j
  const index_t w = n + 1;
  std::vector<double> sum(static_cast<std::size_t>(w * w));
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j)
      sum[(i + 1) * w + j + 1] =
          matrix[i * n + j] + sum[i * w + j + 1] + sum[(i + 1) * w + j] - sum[i * w + j];
  const auto worth = [&](index_t i, index_t j) {  // of a stage of nodes i to j - 1
    const double length = double(j - i);
    const double mean =
        (sum[j * w + j] - sum[i * w + j] - sum[j * w + i] + sum[i * w + i]) / (length * length);
    return weight == stage_weight::nodes ? length * mean : mean;
  };
  // best[s][j]: the first j nodes in s stages; from[s][j]: where the last of them begins.
  constexpr double impossible = -1e300;
  std::vector<double> best(static_cast<std::size_t>((stages + 1) * w), impossible);
  std::vector<index_t> from(static_cast<std::size_t>((stages + 1) * w), 0);
  best[0] = 0;
  for (index_t s = 1; s <= stages; ++s)
    for (index_t j = s; j <= n; ++j)
      for (index_t i = s - 1; i < j; ++i) {
        const double before = best[(s - 1) * w + i];
        if (before == impossible)
          continue;
        if (const double value = before + worth(i, j); value > best[s * w + j]) {
          best[s * w + j] = value;
          from[s * w + j] = i;
        }
      }
  // Back along the cuts that led to the best sum.
  const double objective = best[stages * w + n];
  n_stage_result r{
      .cuts = std::vector<index_t>(static_cast<std::size_t>(stages - 1)),
      .objective = objective,
      .mean = objective / (weight == stage_weight::nodes ? double(n) : double(stages))};
  index_t j = n;
  for (index_t s = stages; s > 1; --s)
    r.cuts[s - 2] = j = from[s * w + j];
  return r;
}

/// The best objective for each number of stages from 1 to `most`, so that the gain of one more
/// can be weighed against its cost.
struct stage_count_choice {
  int stages;                 ///< how many stages
  double objective;           ///< the best sum for so many
  double mean;                ///< how alike denoisers are inside a stage, 1 at most
  std::vector<index_t> cuts;  ///< as in n_stage_result
};
/// @throws value_error unless 1 <= most <= nodes and all similarities are finite
inline std::vector<stage_count_choice> choose_stage_count(
    const std::vector<double>& matrix,
    int most,
    stage_weight weight = stage_weight::one) {
  require<value_error>(most >= 1, "choose_stage_count: at most ", most,
                       " stages; give 1 or more");
  std::vector<stage_count_choice> list;
  for (int n = 1; n <= most; ++n) {
    n_stage_result r = n_stage_partition(matrix, n, weight);
    list.push_back({n, r.objective, r.mean, std::move(r.cuts)});
  }
  return list;
}

}  // namespace multistage
