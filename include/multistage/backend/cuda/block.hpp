// What kernels of our own share: the extents of their grids, and sums over the threads of a
// warp or a block.
//
// A warp's threads exchange values through registers (shuffles); a block's warps through
// shared memory. Both sums below are trees of a fixed shape, so that their bits never change.
#pragma once
#include "../../core/error.hpp"
#include "launch.hpp"

namespace multistage::cuda_kernel {

/// Threads that run in step.
inline constexpr int warp_size = 32;
/// Every thread of a warp.
inline constexpr unsigned whole_warp = 0xffffffffu;

/// The most blocks along the second and third axis of a grid.
inline constexpr index_t most_blocks = 65535;

/// A grid of x * y * z blocks. @throws shape_error when a GPU has no such grid.
inline dim3 grid(index_t x, index_t y = 1, index_t z = 1) {
  require<shape_error>(x < (index_t{1} << 31) && y <= most_blocks && z <= most_blocks,
                       "CUDA: a grid of ", x, " x ", y, " x ", z,
                       " blocks; use a smaller batch");
  return dim3(unsigned(x), unsigned(y), unsigned(z));
}

/// Whether `pointer` may be read in chunks of `bytes`.
inline bool aligned(const void* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

/// The sum of `value` over the threads of a warp, in all of them, in a fixed order.
template <class T>
__device__ T warp_sum(T value) {
  for (int distance = warp_size / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(whole_warp, value, distance);
  return value;
}
/// The largest `value` of a warp, in all of its threads.
template <class T>
__device__ T warp_maximum(T value) {
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    const T other = __shfl_xor_sync(whole_warp, value, distance);
    value = other > value ? other : value;
  }
  return value;
}
/// The sum of `value` over a block of whole warps, in all of its threads, in a fixed order.
/// `shared` holds a T a warp; calls that share it need no barrier between them.
template <class T>
__device__ T block_sum(T value, T* shared) {
  value = warp_sum(value);
  __syncthreads();  // whoever read `shared` before is done
  if (threadIdx.x % warp_size == 0)
    shared[threadIdx.x / warp_size] = value;
  __syncthreads();
  T sum = 0;
  for (unsigned warp = 0; warp < blockDim.x / warp_size; ++warp)
    sum += shared[warp];
  return sum;
}

}  // namespace multistage::cuda_kernel
