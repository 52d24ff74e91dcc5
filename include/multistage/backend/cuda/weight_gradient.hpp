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

/// A step in shared memory: `depth` pixels of the image's channels, then of the gradient's
/// columns.
template <class Tile>
struct weight_gradient_layout {
  static constexpr int depth = Tile::depth;
  // floats of a pixel in shared memory: four pixels lie in different banks
  static constexpr int left_line = Tile::rows + 8;
  static constexpr int right_line = Tile::columns + 8;
  static constexpr int left_floats = depth * left_line;
  static constexpr int step_floats = left_floats + depth * right_line;
};

/// What a thread copies: every threads_a_pixel-th chunk of one pixel of each step. Where that
/// pixel is, it keeps up from step to step: dividing by extents takes longer than a step's
/// products.
template <class Tile, int Width>
struct weight_gradient_copies {
  using layout = weight_gradient_layout<Tile>;
  static constexpr int threads_a_pixel = Tile::threads / layout::depth;
  static_assert(Tile::threads % layout::depth == 0);

  const weight_gradient_problem& p;
  float* const memory;  // [steps][left, right]
  const int first_channel;
  const int first_column;
  const int own_pixel;
  const int own_chunk;
  const int tap_i;  // from a pixel of the result, times the stride, to one of the image
  const int tap_j;
  const index_t end;  // of the share
  index_t pixel;      // of the step, counted over the batch
  index_t row;        // the same as image, row and column
  int result_i;
  int result_j;

  __device__ weight_gradient_copies(const weight_gradient_problem& problem,
                                    float* shared,
                                    int channel,
                                    int column,
                                    int tap,
                                    int share)
      : p(problem),
        memory(shared),
        first_channel(channel),
        first_column(column),
        own_pixel(int(threadIdx.x) / threads_a_pixel),
        own_chunk(int(threadIdx.x) % threads_a_pixel * Width),
        tap_i(tap / p.kernel - p.padding),
        tap_j(tap % p.kernel - p.padding),
        end((share + 1) * p.share < p.pixels ? (share + 1) * p.share : p.pixels),
        pixel(share * p.share + own_pixel) {
    const index_t result_pixels = index_t(p.result_height) * p.result_width;
    row = pixel / result_pixels;
    result_i = int(pixel - row * result_pixels) / p.result_width;
    result_j = int(pixel - row * result_pixels) % p.result_width;
  }

  /// How many steps the share has; asked for before the first.
  __device__ int steps() const {
    return int((end - (pixel - own_pixel) + layout::depth - 1) / layout::depth);
  }
  /// Starts the copies of a step; steps are asked for in their order, once each.
  __device__ void operator()(int step) {
    float* const left =
        memory + step % Tile::steps * layout::step_floats + own_pixel * layout::left_line;
    float* const right = memory + step % Tile::steps * layout::step_floats +
                         layout::left_floats + own_pixel * layout::right_line;
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
    pixel += layout::depth;
    result_j += layout::depth;
    while (result_j >= p.result_width) {
      result_j -= p.result_width;
      if (++result_i < p.result_height)
        continue;
      result_i = 0;
      ++row;
    }
  }
};

/// sum += the product of a step's two sides, `left` being its place in shared memory.
template <class Tile>
__device__ void multiply_step(const float* left,
                              const thread_place<Tile>& place,
                              bool exact,
                              float (&sum)[Tile::tiles_down][Tile::tiles_across][4]) {
  using layout = weight_gradient_layout<Tile>;
  const float* const right = left + layout::left_floats;
#pragma unroll
  for (int k = 0; k < layout::depth; k += 8) {
    float b_high[Tile::tiles_across][2];
    float b_low[Tile::tiles_across][2];
#pragma unroll
    for (int across = 0; across < Tile::tiles_across; ++across)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float b = right[(k + place.lane + 4 * i) * layout::right_line + place.column +
                              8 * across + place.group];
        b_high[across][i] = to_tf32(b);
        if (exact)
          b_low[across][i] = to_tf32(b - b_high[across][i]);
      }
#pragma unroll
    for (int down = 0; down < Tile::tiles_down; ++down) {
      float a_high[4];
      float a_low[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float a = left[(k + place.lane + i / 2 * 4) * layout::left_line + place.row +
                             16 * down + place.group + i % 2 * 8];
        a_high[i] = to_tf32(a);
        if (exact)
          a_low[i] = to_tf32(a - a_high[i]);
      }
      if (exact)
        multiply_add_exactly<Tile::tiles_across>(sum[down], a_high, a_low, b_high, b_low);
      else
#pragma unroll
        for (int across = 0; across < Tile::tiles_across; ++across)
          multiply_add(sum[down][across], a_high, b_high[across][0], b_high[across][1]);
    }
  }
}

/// A tile's sums to `result`, [channels, columns] of the tap: added to where there is one
/// share.
template <class Tile>
__device__ void store_results(const weight_gradient_problem& p,
                              const thread_place<Tile>& place,
                              int first_channel,
                              int first_column,
                              const float (&sum)[Tile::tiles_down][Tile::tiles_across][4],
                              float* result) {
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

/// A block's tile of the gradient of one tap from one share. Grid: (tiles of channels, tiles of
/// columns, taps * shares).
template <class Tile, int Width>
__global__ void __launch_bounds__(Tile::threads, 512 / Tile::threads)
    weight_gradient(const weight_gradient_problem p) {
  extern __shared__ __align__(16) float memory[];
  const int first_channel = int(blockIdx.x) * Tile::rows;
  const int first_column = int(blockIdx.y) * Tile::columns;
  const int taps = p.kernel * p.kernel;
  const int tap = int(blockIdx.z) % taps;
  const int share = int(blockIdx.z) / taps;
  weight_gradient_copies<Tile, Width> load(p, memory, first_channel, first_column, tap, share);
  const thread_place<Tile> place;
  float sum[Tile::tiles_down][Tile::tiles_across][4] = {};
  const auto multiply = [&](int step) {
    constexpr int step_floats = weight_gradient_layout<Tile>::step_floats;
    multiply_step<Tile>(memory + step % Tile::steps * step_floats, place, p.exact, sum);
  };
  for_each_step<Tile>(load.steps(), load, multiply);
  const index_t which = (p.shares > 1 ? index_t(share) * taps : index_t{0}) + tap;
  store_results(p, place, first_channel, first_column, sum,
                p.result + which * p.channels * p.columns);
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
