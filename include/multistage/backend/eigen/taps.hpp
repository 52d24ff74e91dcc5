// Windows along one axis of an image, for convolutions and resampling.
//
//   forward      output i reads place stride i + tap - padding
//   transposed   place i is met by output (i + padding - tap) / stride, where that is whole
#pragma once
#include "../../core/config.hpp"

namespace multistage::eigen_kernel {

/// Which place of the input a tap of an output reads. Forward, output i reads stride i + tap -
/// padding. Transposed, it reads the places whose forward windows hold i: the gradient of the
/// one is the other.
struct axis {
  index_t extent;  // of what is read
  index_t stride;
  index_t padding;
  bool transposed = false;

  /// Below 0 where nothing is read: outside the image, or between the strides of a transposed
  /// window.
  index_t source(index_t i, index_t tap) const {
    const index_t place = transposed ? i + padding - tap : stride * i + tap - padding;
    if (place < 0 || (transposed && place % stride != 0))
      return -1;
    const index_t at = transposed ? place / stride : place;
    return at < extent ? at : -1;
  }
};

}  // namespace multistage::eigen_kernel
