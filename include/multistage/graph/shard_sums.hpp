// Gradients of parameters over the rows of a step, in an order that processes can share: a
// step's batch is cut into shards; within one the gradient is a chain of additions, over
// several a tree over their numbers (tree_cut).
//
//   shards   0   1   2   3   4       a process that has shards 0 and 1 has 0-1 of the tree, one
//             \ /     \ /    |       that has 2 to 4 has 2-3 and 4: what is left to be added is
//             0-1     2-3    4       the same additions, wherever the shards were computed
//                \   /       |
//                 0-3 ------ 0-4
//
// A shard's rows are of one stage. So a decoder has whole shards, those of its stage, and what
// is left of the tree where the others are nothing.
#pragma once
#include <algorithm>
#include <span>

#include "../core/index_range.hpp"
#include "../core/scratch.hpp"
#include "../ops/elementwise.hpp"

namespace multistage {

/// Where a node's gradients of parameters are added to.
template <class T>
struct parameter_gradients {
  T* weight = nullptr;      ///< null where not wanted
  index_t weight_size = 0;  ///< elements
  T* bias = nullptr;        ///< null where not wanted
  index_t bias_size = 0;    ///< elements
};

/// The rows of a step's batch at which its shards begin, and behind them their number.
using shard_begins = std::span<const index_t>;

/// The shards that have some of these rows, of which there is one at least.
inline index_range shards_of(const index_range& rows, shard_begins begins) {
  const auto behind = std::upper_bound(begins.begin(), begins.end(), rows.begin);
  const auto end = std::lower_bound(behind, begins.end(), rows.end);
  return {behind - begins.begin() - 1, end - begins.begin()};
}

/// Adds up the gradients of one node at a time. Keeps memory for a sum a level of the tree.
template <class T, class Backend>
class shard_sums {
 public:
  /// Where it computes.
  explicit shard_sums(Backend backend)
      : backend_(std::move(backend)) {}

  /// Takes the memory that so many shards need at once. @param largest elements of a node's
  /// parameters
  void reserve(index_t shards, index_t largest) {
    largest_ = largest;
    grown(sums_, backend_, levels_of(shards) * largest_);
  }
  /// How many sums wait for their right side at most, where so many shards are added up.
  static constexpr index_t levels_of(index_t shards) {
    return std::bit_width(std::uint64_t(std::max(shards, index_t{1}) - 1));
  }
  /// Elements that it keeps.
  index_t size() const {
    return sums_.size();
  }
  /// Adds the gradients of rows to `to`. `of_shard(rows, shard, weight, bias)` adds those of
  /// rows of one shard.
  template <class F>
  void add(const index_range& rows,
           shard_begins begins,
           const parameter_gradients<T>& to,
           F&& of_shard,
           index_t level = 0) {
    const index_range shards = shards_of(rows, begins);
    if (shards.size() < 2)
      return of_shard(rows, shards.begin, to.weight, to.bias);
    const index_t cut = begins[std::size_t(tree_cut(shards))];
    add({rows.begin, cut}, begins, to, of_shard, level);
    T* const sums = sums_.data() + level * largest_;
    parameter_gradients<T> right = to;
    right.weight = to.weight ? sums : nullptr;
    right.bias = to.bias ? sums + to.weight_size : nullptr;
    backend_.for_each_index(to.weight_size + to.bias_size, ops::functor::set<T>{T(0), sums});
    add({cut, rows.end}, begins, right, of_shard, level + 1);
    ops::add_to<Backend, T>(backend_, to.weight, right.weight, T(1), true, to.weight_size);
    ops::add_to<Backend, T>(backend_, to.bias, right.bias, T(1), true, to.bias_size);
  }

 private:
  Backend backend_;
  tensor<T, Backend> sums_;  // [levels, largest_]
  index_t largest_ = 0;
};

}  // namespace multistage
