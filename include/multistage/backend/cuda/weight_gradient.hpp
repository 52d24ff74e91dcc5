// The gradient of a convolution's weights as a product over pixels (implicit_gemm.hpp tells
// how):
//   dw[tap][c, o] = sum over pixels of x[pixel + tap, c] dy[pixel, o]
// The pixels are cut into shares, whose sums a functor adds in their order.
#pragma once
#include "implicit_gemm.hpp"

namespace multistage::cuda_kernel {

/// All that the kernel needs to know.
struct weight_gradient_problem {
  const float* image = nullptr;     // x [rows, height, width, channels]
  const float* gradient = nullptr;  // dy [rows, result_height, result_width, columns]
  int height = 1;
  int width = 1;
  int channels = 1;
  int result_height = 1;
  int result_width = 1;
  int columns = 1;
  int kernel = 1;
  int stride = 1;
  int padding = 0;
  index_t pixels = 0;  // rows * result_height * result_width
  index_t share = 0;   // pixels of a share
  int shares = 1;
  bool exact = true;        // product_precision::full
  float* result = nullptr;  // one share: [taps, channels, columns], added to; else [shares,
                            // taps, channels, columns]
};

/// A block's tile of the gradient of one tap from one share. Grid: (tiles of channels, tiles of
/// columns, taps * shares).
template <class Tile, int Width>
__global__ void __launch_bounds__(Tile::threads, 512 / Tile::threads)
    weight_gradient(const weight_gradient_problem p) {
  constexpr int depth = Tile::depth;
  // floats of a pixel in shared memory: four pixels lie in different banks
  constexpr int left_line = Tile::rows + 8;
  constexpr int right_line = Tile::columns + 8;
  constexpr int left_floats = depth * left_line;
  constexpr int right_floats = depth * right_line;
  constexpr int threads_a_pixel = Tile::threads / depth;
  static_assert(Tile::threads % depth == 0);
  extern __shared__ __align__(16) float memory[];  // [steps][left, right]

  const int thread = threadIdx.x;
  const int first_channel = int(blockIdx.x) * Tile::rows;
  const int first_column = int(blockIdx.y) * Tile::columns;
  const int taps = p.kernel * p.kernel;
  const int tap = int(blockIdx.z) % taps;
  const int share = int(blockIdx.z) / taps;
  const index_t begin = index_t(share) * p.share;
  const index_t end = begin + p.share < p.pixels ? begin + p.share : p.pixels;
  const int steps = int((end - begin + depth - 1) / depth);

  // This thread copies every threads_a_pixel-th chunk of pixel `own_pixel` of a step.
  const int own_pixel = thread / threads_a_pixel;
  const int own_chunk = thread % threads_a_pixel * Width;
  // Where it is, kept up from step to step: dividing by extents takes longer than a step's
  // products.
  const index_t result_pixels = index_t(p.result_height) * p.result_width;
  index_t pixel = begin + own_pixel;
  index_t row = pixel / result_pixels;
  int result_i = int(pixel - row * result_pixels) / p.result_width;
  int result_j = int(pixel - row * result_pixels) % p.result_width;
  const int tap_i = tap / p.kernel - p.padding;
  const int tap_j = tap % p.kernel - p.padding;
  const auto load = [&](int step) {
    float* const left =
        memory + step % Tile::steps * (left_floats + right_floats) + own_pixel * left_line;
    float* const right = memory + step % Tile::steps * (left_floats + right_floats) +
                         left_floats + own_pixel * right_line;
    const bool there = pixel < end;
    const int i = result_i * p.stride + tap_i;
    const int j = result_j * p.stride + tap_j;
    const bool inside =
        there && unsigned(i) < unsigned(p.height) && unsigned(j) < unsigned(p.width);
    const float* const from =
        p.image + ((row * p.height + i) * p.width + j) * p.channels + first_channel;
#pragma unroll
    for (int m = own_chunk; m < Tile::rows; m += threads_a_pixel * Width)
      copy_ahead<Width>(left + m, from + m, inside && first_channel + m < p.channels);
    const float* const gradient = p.gradient + pixel * p.columns + first_column;
#pragma unroll
    for (int n = own_chunk; n < Tile::columns; n += threads_a_pixel * Width)
      copy_ahead<Width>(right + n, gradient + n, there && first_column + n < p.columns);
    pixel += depth;
    result_j += depth;
    while (result_j >= p.result_width) {
      result_j -= p.result_width;
      if (++result_i < p.result_height)
        continue;
      result_i = 0;
      ++row;
    }
  };

  const thread_place<Tile> place;
  float sum[Tile::tiles_down][Tile::tiles_across][4] = {};
  const auto multiply = [&](int step) {
    const float* const left = memory + step % Tile::steps * (left_floats + right_floats);
    const float* const right = left + left_floats;
#pragma unroll
    for (int k = 0; k < depth; k += 8) {
      float b_high[Tile::tiles_across][2];
      float b_low[Tile::tiles_across][2];
#pragma unroll
      for (int across = 0; across < Tile::tiles_across; ++across)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float b = right[(k + place.lane + 4 * i) * right_line + place.column +
                                8 * across + place.group];
          b_high[across][i] = to_tf32(b);
          if (p.exact)
            b_low[across][i] = to_tf32(b - b_high[across][i]);
        }
#pragma unroll
      for (int down = 0; down < Tile::tiles_down; ++down) {
        float a_high[4];
        float a_low[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float a = left[(k + place.lane + i / 2 * 4) * left_line + place.row +
                               16 * down + place.group + i % 2 * 8];
          a_high[i] = to_tf32(a);
          if (p.exact)
            a_low[i] = to_tf32(a - a_high[i]);
        }
        if (p.exact)
          multiply_add_exactly<Tile::tiles_across>(sum[down], a_high, a_low, b_high, b_low);
        else
#pragma unroll
          for (int across = 0; across < Tile::tiles_across; ++across)
            multiply_add(sum[down][across], a_high, b_high[across][0], b_high[across][1]);
      }
    }
  };
  for_each_step<Tile>(steps, load, multiply);

  float* const result = p.result + ((p.shares > 1 ? index_t(share) * taps : index_t{0}) + tap) *
                                       p.channels * p.columns;
#pragma unroll
  for (int down = 0; down < Tile::tiles_down; ++down)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int channel = first_channel + place.row + 16 * down + place.group + 8 * half;
      if (channel >= p.channels)
        continue;
#pragma unroll
      for (int across = 0; across < Tile::tiles_across; ++across)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int column = first_column + place.column + 8 * across + 2 * place.lane + e;
          if (column >= p.columns)
            continue;
          float& to = result[index_t(channel) * p.columns + column];
          const float value = sum[down][across][2 * half + e];
          to = p.shares == 1 ? to + value : value;
        }
    }
}

/// dweight[i] += the shares' sums, in their order.
struct add_shares {
  const float* from;  // [shares, size]
  index_t size;
  int shares;
  float* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    float sum = to[i];
    for (int share = 0; share < shares; ++share)
      sum += from[share * size + i];
    to[i] = sum;
  }
};

}  // namespace multistage::cuda_kernel
