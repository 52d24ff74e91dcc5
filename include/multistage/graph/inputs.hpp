// What a pass over a network is given, and what a differentiation is asked for.
//
//   network_inputs<float> in;
//   in[input_slot::image] = x.data();
//   in[input_slot::noise_level] = c_noise.data();
#pragma once
#include <functional>
#include <optional>
#include <span>

#include "../core/random.hpp"
#include "node.hpp"

namespace multistage {

/// What a network reads: one pointer a slot into the backend's memory, [rows, ...], null where
/// the network has no such input.
template <class T>
struct network_inputs {
  std::array<const T*, std::size_t(input_slot::count)> slots{};  ///< by slot; null for none
  /// The pointer of a slot, to be set.
  const T*& operator[](input_slot s) {
    return slots[std::size_t(s)];
  }
  /// The pointer of a slot.
  const T* operator[](input_slot s) const {
    return slots[std::size_t(s)];
  }
};

/// What a differentiation is asked for beside the gradients of the weights.
template <class T>
struct differentiation {
  /// The numbers of this step's masks; without them nothing is dropped.
  std::optional<random_stream> dropout{};
  /// Place of the first row in the batch that a step is on, for a step done in parts.
  index_t first_row = 0;
  /// The shards of that batch (shard_sums.hpp): gradients of parameters are chains of additions
  /// over the pieces of each, and a tree over them. Empty: one chain.
  std::span<const index_t> shards{};
  /// Called in the backward pass, where set: the gradients of a segment's parameters, from an
  /// element on, have all that these rows add to them. Segments come one after the other,
  /// decoders first; elements descend.
  std::function<void(int segment, index_t from)> complete{};
  /// Image and context: added to, like the inputs, in the order of the rows.
  std::array<T*, std::size_t(input_slot::count)> input_gradients{};
  /// Whether either of them is asked for.
  bool wants_input_gradients() const {
    return input_gradients[std::size_t(input_slot::image)] ||
           input_gradients[std::size_t(input_slot::context)];
  }
};

/// What a forward pass does with the features that the shared part makes of the image. keep:
/// they stay for a later pass over as many rows; take_over: they come from the last pass that
/// kept them, and only what depends on noise level and labels is computed anew (Li et al.,
/// arXiv 2312.09608).
enum class shared_features { compute, keep, take_over };

/// How many rows a pass over a network has. @param has_weights whether they are given.
/// @throws shape_error, value_error
MULTISTAGE_COLD inline index_t rows_of_pass(const graph& network,
                                            bool has_weights,
                                            const std::vector<index_t>& rows_by_stage) {
  require<shape_error>(int(rows_by_stage.size()) == network.stage_count(),
                       "network: rows are given for ", rows_by_stage.size(),
                       " stages, the network has ", network.stage_count());
  require<value_error>(has_weights || network.parameters.empty(),
                       "network: its weights are missing");
  index_t all = 0;
  for (const index_t rows : rows_by_stage) {
    require<shape_error>(rows >= 0, "network: a stage has ", rows, " rows");
    all += rows;
  }
  return all;
}

}  // namespace multistage
