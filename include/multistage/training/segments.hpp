// Which segments of a network a batch reaches: what stages share, and the decoders of stages
// that have rows. Parameters of a segment lie together.
#pragma once
#include "../diffusion/model.hpp"

namespace multistage {

/// Whether a batch has a gradient for a segment.
inline bool reaches(const routing& route, int segment) {
  return segment == 0 || route.rows_by_stage[std::size_t(segment) - 1] > 0;
}

/// Calls f with the part of `flat`, which lies as a network's weights do, of each segment for
/// which `wanted(segment)`.
template <class Scalar, class Wanted, class F>
void for_each_segment(const graph& network, Scalar* flat, Wanted&& wanted, F&& f) {
  for (int segment = 0; segment < network.segments; ++segment) {
    const auto [begin, end] = network.parameter_range(segment);
    if (end > begin && wanted(segment))
      f(view<Scalar>(flat + begin, {1, 1, 1, end - begin}));
  }
}

}  // namespace multistage
