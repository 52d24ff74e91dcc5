// What a network is handed: an operation without operands, whose value is the caller's memory.
#pragma once
#include "operation.hpp"

namespace multistage {

/// What a caller hands to a network, in this order. The noise level is the preconditioning's
/// c_noise.
enum class input_slot { image, noise_level, class_labels, augment_labels, context, count };
constexpr const char* to_string(input_slot s) {
  constexpr const char* names[] = {"image", "noise_level", "class_labels", "augment_labels",
                                   "context"};
  return names[int(s)];
}

namespace ops {

/// @see the file's head.
struct network_input {
  input_slot slot = input_slot::image;
  extent extents{};

  static constexpr operation needs = operation::elementwise;
  static constexpr const char* name = "input";
  static constexpr operand_names operands{};

  constexpr description describe(const operand_list&) const {
    description d;
    d.needed = 0;
    d.out = extents;
    return d;
  }
  template <class Backend, class T>
  void forward(Backend&, const forward_pass<T>&) const {}
  template <class Backend, class T>
  void backward(Backend&, const backward_pass<T>&) const {}
};

}  // namespace ops
}  // namespace multistage
