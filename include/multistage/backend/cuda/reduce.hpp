// Sums on a GPU, in orders fixed by the extents: by pixels of each row (a block takes 32
// channels and cuts the pixels among its warps), and of everything (a block takes a run of
// elements).
//
// A warp's 32 threads add 32 neighbouring channels, so that a load of all of them is one line
// of memory; the eight warps of a block share the pixels and meet in shared memory at the end.
#pragma once

#include "../thrust/reduce.hpp"
#include "block.hpp"
#include "system.hpp"

namespace multistage {
namespace cuda_kernel {

/// How many warps share the pixels of 32 channels.
inline constexpr int pixel_warps = 8;

/// y[row, c] (+)= sum over pixels of x[row, pixel, c]; blocks (groups of 32 channels, rows).
template <class T>
__global__ void sum_pixels(index_t pixels,
                           index_t channels,
                           const T* x,
                           T* y,
                           bool accumulate) {
  __shared__ T partial[pixel_warps][warp_size];
  const int lane = threadIdx.x % warp_size;
  const int warp = threadIdx.x / warp_size;
  const index_t channel = index_t(blockIdx.x) * warp_size + lane;
  const index_t row = blockIdx.y;
  T sum = 0;
  if (channel < channels)
    for (index_t pixel = warp; pixel < pixels; pixel += pixel_warps)
      sum += x[(row * pixels + pixel) * channels + channel];
  partial[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || channel >= channels)
    return;
  for (int other = 1; other < pixel_warps; ++other)
    sum += partial[other][lane];
  T& to = y[row * channels + channel];
  to = accumulate ? to + sum : sum;
}

/// partial[block] = sum of x or x^2 over the block's run of `run` elements, in double.
template <class T>
__global__ void sum_run(const T* x, index_t n, index_t run, bool squares, double* partial) {
  __shared__ double shared[warp_size];
  const index_t begin = index_t(blockIdx.x) * run;
  const index_t end = begin + run < n ? begin + run : n;
  double sum = 0;
  for (index_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    const double value = x[i];
    sum += squares ? value * value : value;
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0)
    partial[blockIdx.x] = sum;
}

/// out[row] = sum over i of f(row, i); a block a row.
template <class F>
__global__ void sum_functor_by_row(F f, index_t size, double* out) {
  __shared__ double shared[warp_size];
  const index_t row = blockIdx.x;
  double sum = 0;
  for (index_t i = threadIdx.x; i < size; i += blockDim.x)
    sum += f(row, i);
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0)
    out[row] = sum;
}

}  // namespace cuda_kernel

/// @see backend/concept.hpp
template <class F>
void sum_by_row(const cuda&, index_t rows, index_t size, const F& f, double* out) {
  if (rows > 0)
    cuda_launch("sum_by_row", cuda_kernel::sum_functor_by_row<F>, cuda_kernel::grid(rows), 256,
                0, f, size, out);
}

/// y [rows, channels] (+)= sum of x [rows, pixels, channels] over pixels.
template <class T>
void row_sums(const cuda& b,
              index_t rows,
              index_t pixels,
              index_t channels,
              const T* x,
              T* y,
              bool accumulate) {
  using namespace cuda_kernel;
  for (index_t first = 0; first < rows; first += most_blocks) {
    const index_t count = rows - first < most_blocks ? rows - first : most_blocks;
    cuda_launch("sum_pixels", sum_pixels<T>, grid(divide_up(channels, warp_size), count),
                pixel_warps * warp_size, 0, pixels, channels, x + first * pixels * channels,
                y + first * channels, accumulate);
  }
}

/// Sum of x or of x^2, in double.
template <class T>
double reduce_sum(const cuda& b, index_t n, const T* x, bool squares) {
  constexpr index_t run = 1 << 15;
  const index_t blocks = divide_up(n, run);
  if (blocks == 0)
    return 0;
  double* partial = b.template workspace<double>(1, blocks);
  cuda_launch("sum_run", cuda_kernel::sum_run<T>, cuda_kernel::grid(blocks), 256, 0, x, n, run,
              squares, partial);
  return total_of(b, partial, blocks);
}

}  // namespace multistage
