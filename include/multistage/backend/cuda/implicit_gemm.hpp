// Convolutions on a GPU's tensor cores as matrix products whose left side is never stored: a
// block of threads computes a tile of the result, gathering patches of the image into shared
// memory as it goes, some steps ahead of the arithmetic (implicit GEMM). gathered_product.hpp
// and weight_gradient.hpp hold the two kernels; this is what they share.
//
// Tensor cores multiply numbers of 11 significant bits (tf32). With `product_precision::full`
// each number is split into two such, a = a1 + a2, and a b = a1 b1 + a1 b2 + a2 b1 (Markidis et
// al., arXiv 1803.04014). They add by cutting digits off, whose errors all go one way; so each
// eight products are added by themselves and then to the sum in float arithmetic, which rounds
// (Ootomo and Yokota, arXiv 2203.03341). The result is as exact as that of float multiply-adds.
// Each result is one chain of such additions in the order of (tap, channel), or of the pixels
// of a share: its bits depend neither on the tile nor on the batch.
#pragma once
#include <cuda_runtime.h>

#include "block.hpp"

namespace multistage::cuda_kernel {

/// A tile of the result, by warps of smaller tiles.
/// @tparam Depth how much of the sum a step takes. @tparam Steps how many steps have room in
/// shared memory.
template <int Rows, int Columns, int WarpRows, int WarpColumns, int Depth, int Steps>
struct tile_shape {
  static constexpr int rows = Rows;
  static constexpr int columns = Columns;
  static constexpr int depth = Depth;
  static constexpr int steps = Steps;
  static constexpr int warps_down = Rows / WarpRows;
  static constexpr int threads = warps_down * (Columns / WarpColumns) * warp_size;
  // The products [16, 8] x [8, 8] of a warp
  static constexpr int warp_rows = WarpRows;
  static constexpr int warp_columns = WarpColumns;
  static constexpr int tiles_down = WarpRows / 16;
  static constexpr int tiles_across = WarpColumns / 8;
};

/// Where in its block's tile a thread's part of the results lies, as PTX's mma.m16n8k8 hands
/// them out.
template <class Tile>
struct thread_place {
  int row;     // first row of the warp
  int column;  // first column of the warp
  int group;   // lane / 4: row of the tile, and of its lower half
  int lane;    // lane % 4: pair of columns

  __device__ thread_place() {
    const int warp = int(threadIdx.x) / warp_size;
    row = warp % Tile::warps_down * Tile::warp_rows;
    column = warp / Tile::warps_down * Tile::warp_columns;
    group = int(threadIdx.x) % warp_size / 4;
    lane = int(threadIdx.x) % 4;
  }
};

/// An address of shared memory as PTX's instructions take it, 32 bits.
__device__ inline unsigned shared_address(const void* pointer) {
  return unsigned(__cvta_generic_to_shared(pointer));
}

/// Starts a copy of `Width` floats to shared memory, of zeros where `there` is false.
template <int Width>
__device__ void copy_ahead(float* to, const float* from, bool there) {
  const int bytes = there ? 4 * Width : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)),
               "l"(from), "n"(4 * Width), "r"(bytes)
               : "memory");
}
/// The copies started since the last call are one step.
__device__ inline void end_of_step() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most `Steps` steps are still on their way.
template <int Steps>
__device__ void wait_for_steps() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Steps) : "memory");
}

/// The nearest tf32 of a float.
__device__ inline float to_tf32(float value) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return __uint_as_float(bits);
}

/// Four 8 x 4 blocks of floats from shared memory, one element of each a thread: lanes 8 i to 8
/// i + 7 give the addresses of the rows of block i (16 bytes each); a thread gets element (lane
/// / 4, lane % 4).
__device__ inline void load_blocks(float (&to)[4], const float* row) {
  unsigned bits[4];
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(bits[0]), "=r"(bits[1]), "=r"(bits[2]), "=r"(bits[3])
               : "r"(shared_address(row))
               : "memory");
  for (int i = 0; i < 4; ++i)
    to[i] = __uint_as_float(bits[i]);
}

/// c += a b for a [16, 8], b [8, 8] of tf32 numbers on the tensor cores.
__device__ inline void multiply_add(float (&c)[4], const float (&a)[4], float b0, float b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, "
      "%9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

/// sum[n] += a b[n] to float's precision for N tiles of b, from the parts of both. What is
/// independent stands together, since a product waits for the one before it on the same sum.
template <int N>
__device__ void multiply_add_exactly(float (*sum)[4],
                                     const float (&a_high)[4],
                                     const float (&a_low)[4],
                                     const float (*b_high)[2],
                                     const float (*b_low)[2]) {
  float part[N][4] = {};
#pragma unroll
  for (int n = 0; n < N; ++n)
    multiply_add(part[n], a_low, b_high[n][0], b_high[n][1]);
#pragma unroll
  for (int n = 0; n < N; ++n)
    multiply_add(part[n], a_high, b_low[n][0], b_low[n][1]);
#pragma unroll
  for (int n = 0; n < N; ++n)
    multiply_add(part[n], a_high, b_high[n][0], b_high[n][1]);
#pragma unroll
  for (int n = 0; n < N; ++n)
    for (int i = 0; i < 4; ++i)
      sum[n][i] += part[n][i];
}

/// The steps of a product: `load(step)` starts a step's copies, Tile::steps - 1 steps ahead of
/// `multiply(step)`, which finds them arrived. A step's place in shared memory is step %
/// Tile::steps.
template <class Tile, class Load, class Multiply>
__device__ void for_each_step(int steps, Load& load, const Multiply& multiply) {
#pragma unroll
  for (int step = 0; step < Tile::steps - 1; ++step) {
    if (step < steps)
      load(step);
    end_of_step();
  }
  for (int step = 0; step < steps; ++step) {
    wait_for_steps<Tile::steps - 2>();
    __syncthreads();  // the step has arrived for all, and all are done with the one whose
                      // memory is filled next
    if (step + Tile::steps - 1 < steps)
      load(step + Tile::steps - 1);
    end_of_step();
    multiply(step);
  }
}

}  // namespace multistage::cuda_kernel
