// Random words on the GPU by cuRAND's Philox4x32-10. At curand_init(seed, stream, 4 i) its
// state stands at block i of random_stream (seed, stream): the words are those of every other
// backend.
#pragma once
#include <curand_kernel.h>

#include "../../core/random.hpp"

namespace multistage {

/// The `words` of the CUDA system.
struct curand_words {
  /// On a device by cuRAND; the same words on the host by the library's own Philox.
  MULTISTAGE_HD static philox_block block(const random_stream& s, std::uint64_t i) {
#ifdef __CUDA_ARCH__
    curandStatePhilox4_32_10_t state;
    curand_init(s.seed, s.stream, 4 * i, &state);
    const uint4 w = curand4(&state);
    return {{w.x, w.y, w.z, w.w}};
#else
    return s.block(i);
#endif
  }
};

}  // namespace multistage
