// What a network is handed: an operation without operands, whose value is the caller's memory.
#pragma once
#include "operation.hpp"

namespace multistage {

/// What a caller hands to a network, in this order. The noise level is the preconditioning's
/// c_noise.
enum class input_slot { image, noise_level, class_labels, augment_labels, context, count };
/// The name of a slot, for messages.
constexpr const char* to_string(input_slot s) {
  constexpr const char* names[] = {"image", "noise_level", "class_labels", "augment_labels",
                                   "context"};
  return names[int(s)];
}

namespace ops {

/// @see the file's head.
struct network_input {
  input_slot slot = input_slot::image;  ///< which of the network's inputs
  extent extents{};                     ///< of one row

  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "input";                ///< for messages and profiles
  static constexpr operand_names operands{};                  ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list&) const {
    description d;
    d.needed = 0;
    d.out = extents;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend&, const forward_pass<T>&) const {}
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend&, const backward_pass<T>&) const {}
};

}  // namespace ops
}  // namespace multistage
