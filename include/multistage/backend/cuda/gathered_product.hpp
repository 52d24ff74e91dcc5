// The forward pass of a convolution and the gradient of its input, as one product: for each
// pixel of the result, the sum over taps and channels of an image around it (implicit_gemm.hpp
// tells how):
//   forward          y[pixel, o]  = sum over (tap, c) of x[pixel + tap, c]  w[tap, c, o]
//   input gradient   dx[pixel, c] = sum over (tap, o) of dy[pixel - tap, o] w[tap, c, o]
// The weights come as [tap, column of the result, channel], rounded to tf32, with what rounding
// took behind them (split_weights).
#pragma once
#include "implicit_gemm.hpp"

namespace multistage::cuda_kernel {

enum class direction { forward, input_gradient };

/// All that the kernel needs to know. The image is x, or dy for the input's gradient. No tensor
/// has more than 2^30 elements.
struct gathered_problem {
  const float* image = nullptr;  // [rows, height, width, channels]
  // [rows, height, width, channels2]: more channels, for 1x1 kernels
  const float* image2 = nullptr;
  int height = 1;
  int width = 1;
  int channels = 1;
  int channels2 = 0;
  int result_height = 1;
  int result_width = 1;
  int pixels = 0;   // of the result: rows * result_height * result_width
  int columns = 0;  // of the result
  int kernel = 1;
  int stride = 1;
  int padding = 0;
  const float* weights = nullptr;      // [taps, columns, channels + channels2], tf32
  const float* weights_low = nullptr;  // likewise, what is missing in them; null: tf32 alone
  const float* bias = nullptr;
  const float* row_bias = nullptr;
  const float* residual = nullptr;
  float scale = 1;
  bool accumulate = false;
  float* result = nullptr;
};

/// A block's tile of the result. Grid: (tiles of pixels, tiles of columns). `Width`: floats
/// copied at a time, 4 or 1.
template <direction Direction, class Tile, int Width>
__global__ void __launch_bounds__(Tile::threads, 512 / Tile::threads)
    gathered_product(const gathered_problem p) {
  constexpr bool forward = Direction == direction::forward;
  constexpr int depth = Tile::depth;
  // floats of a row in shared memory: eight rows lie in different banks
  constexpr int line = depth + 4;
  constexpr int left_floats = Tile::rows * line;
  constexpr int right_floats = Tile::columns * line;
  constexpr int step_floats = left_floats + 2 * right_floats;
  constexpr int chunks = depth / Width;  // of a row
  constexpr int rows_at_once = Tile::threads / chunks;
  constexpr int row_turns = Tile::rows / rows_at_once;
  constexpr int column_turns = Tile::columns / rows_at_once;
  static_assert(Tile::rows % rows_at_once == 0 && Tile::columns % rows_at_once == 0);
  extern __shared__ __align__(16) float memory[];  // [steps][left, right, right's low part]

  const int thread = threadIdx.x;
  const int first_pixel = int(blockIdx.x) * Tile::rows;
  const int first_column = int(blockIdx.y) * Tile::columns;
  const bool exact = p.weights_low != nullptr;

  // This thread copies chunk `own_chunk` of rows own_row, own_row + rows_at_once, ... of both
  // sides. What is outside is copied as zeros, and its address never read.
  const int own_chunk = thread % chunks * Width;
  const int own_row = thread / chunks;
  const int result_pixels = p.result_height * p.result_width;
  int left_from[row_turns];  // offset of the chunk under tap (0, 0); 32 bits, since registers
                             // are what limits this kernel
  int left_i[row_turns];     // where in its image that is
  int left_j[row_turns];
  const float* image = p.image;
  const auto start_image = [&](int channels) {
#pragma unroll
    for (int turn = 0; turn < row_turns; ++turn) {
      const int pixel = first_pixel + own_row + turn * rows_at_once;
      const int row = pixel / result_pixels;
      const int in_row = pixel - row * result_pixels;
      const int i = in_row / p.result_width;
      const int j = in_row - i * p.result_width;
      left_i[turn] = forward ? i * p.stride - p.padding : i + p.padding;
      left_j[turn] = forward ? j * p.stride - p.padding : j + p.padding;
      // With strides the gradient finds its pixel anew for each tap (below).
      const int in_image = forward || p.stride == 1 ? left_i[turn] * p.width + left_j[turn] : 0;
      left_from[turn] = (row * p.height * p.width + in_image) * channels + own_chunk;
      if (pixel >= p.pixels)
        left_i[turn] = -(1 << 24);  // outside for any tap
    }
  };
  start_image(p.channels);
  const int all_channels = p.channels + p.channels2;
  const int own_column = first_column + own_row;
  const int right_from = own_column * all_channels + own_chunk;

  // The sum in steps: all taps of `depth` channels after the other, so that the taps find the
  // image in the cache; then the second image's channels.
  const int taps = p.kernel * p.kernel;
  const int steps =
      taps * ((p.channels + depth - 1) / depth) + (p.channels2 + depth - 1) / depth;
  const int tap_floats = p.columns * all_channels;
  const index_t low = p.weights_low - p.weights;
  int u = 0;
  int v = 0;
  int channel = 0;
  int channels = p.channels;
  int first_channel = 0;  // of the image at hand, in the weights
  int left_offset = 0;    // of the step from left_from
  int right_offset = 0;   // of the step from right_from
  const auto load = [&](int step) {
    float* const left = memory + step % Tile::steps * step_floats + own_row * line + own_chunk;
    float* const right = left + left_floats;
    const bool inside = channel + own_chunk < channels;
#pragma unroll
    for (int turn = 0; turn < row_turns; ++turn) {
      int i = forward ? left_i[turn] + u : left_i[turn] - u;
      int j = forward ? left_j[turn] + v : left_j[turn] - v;
      int from = left_from[turn] + left_offset;
      bool there = inside;
      if (!forward && p.stride > 1) {
        there = there && i >= 0 && j >= 0 && i % p.stride == 0 && j % p.stride == 0;
        i /= p.stride;
        j /= p.stride;
        from = left_from[turn] + (i * p.width + j) * channels + channel;
      }
      there = there && unsigned(i) < unsigned(p.height) && unsigned(j) < unsigned(p.width);
      copy_ahead<Width>(left + turn * rows_at_once * line, image + from, there);
    }
#pragma unroll
    for (int turn = 0; turn < column_turns; ++turn) {
      const bool there = inside && own_column + turn * rows_at_once < p.columns;
      const float* const from =
          p.weights + (right_from + right_offset + turn * rows_at_once * all_channels);
      copy_ahead<Width>(right + turn * rows_at_once * line, from, there);
      if (exact)
        copy_ahead<Width>(right + right_floats + turn * rows_at_once * line, from + low, there);
    }
    // On to the next tap, or the next channels.
    right_offset += tap_floats;
    left_offset += forward ? channels : -channels;
    if (++v < p.kernel)
      return;
    v = 0;
    left_offset += (forward ? 1 : -1) * (p.width - p.kernel) * channels;
    if (++u < p.kernel)
      return;
    u = 0;
    channel += depth;
    left_offset = channel;
    right_offset = first_channel + channel;
    if (channel < channels || p.channels2 == 0)
      return;
    first_channel = p.channels;  // on to the second image
    right_offset = first_channel;
    left_offset = 0;
    channel = 0;
    channels = p.channels2;
    image = p.image2;
    start_image(p.channels2);
  };

  const thread_place<Tile> place;
  // Rows of shared memory whose addresses this lane gives to load_blocks: of the left side the
  // blocks are (rows 0 to 7, first four of the depth), (rows 8 to 15, first four), and the same
  // of the next four; of the right side two tiles of columns likewise.
  const int lane = thread % warp_size;
  const int left_row = place.row + lane % 16;
  const int left_depth = lane / 16 * 4;
  const int right_row = place.column + lane / 16 * 8 + lane % 8;
  const int right_depth = lane / 8 % 2 * 4;
  float sum[Tile::tiles_down][Tile::tiles_across][4] = {};

  const auto multiply = [&](int step) {
    const float* const left =
        memory + step % Tile::steps * step_floats + left_row * line + left_depth;
    const float* const right = memory + step % Tile::steps * step_floats + left_floats +
                               right_row * line + right_depth;
#pragma unroll
    for (int k = 0; k < depth; k += 8) {
      float a_high[Tile::tiles_down][4];
      float a_low[Tile::tiles_down][4];
#pragma unroll
      for (int down = 0; down < Tile::tiles_down; ++down) {
        float a[4];
        load_blocks(a, left + 16 * down * line + k);
        for (int i = 0; i < 4; ++i)
          a_high[down][i] = to_tf32(a[i]);
        if (exact)
          for (int i = 0; i < 4; ++i)
            a_low[down][i] = to_tf32(a[i] - a_high[down][i]);
      }
#pragma unroll
      for (int across = 0; across < Tile::tiles_across; across += 2) {
        float b_high[4];  // two of a tile, two of the next
        load_blocks(b_high, right + 8 * across * line + k);
        if (exact) {
          float b_low[4];
          load_blocks(b_low, right + right_floats + 8 * across * line + k);
          const float high[2][2] = {{b_high[0], b_high[1]}, {b_high[2], b_high[3]}};
          const float rest[2][2] = {{b_low[0], b_low[1]}, {b_low[2], b_low[3]}};
#pragma unroll
          for (int down = 0; down < Tile::tiles_down; ++down)
            multiply_add_exactly<2>(&sum[down][across], a_high[down], a_low[down], high, rest);
        } else {
#pragma unroll
          for (int down = 0; down < Tile::tiles_down; ++down) {
            multiply_add(sum[down][across], a_high[down], b_high[0], b_high[1]);
            multiply_add(sum[down][across + 1], a_high[down], b_high[2], b_high[3]);
          }
        }
      }
    }
  };
  for_each_step<Tile>(steps, load, multiply);

  // The results, two neighbouring columns a thread and row.
#pragma unroll
  for (int down = 0; down < Tile::tiles_down; ++down)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int pixel = first_pixel + place.row + 16 * down + place.group + 8 * half;
      if (pixel >= p.pixels)
        continue;
      const float* const row_bias =
          p.row_bias ? p.row_bias + pixel / result_pixels * p.columns : nullptr;
#pragma unroll
      for (int across = 0; across < Tile::tiles_across; ++across)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int column = first_column + place.column + 8 * across + 2 * place.lane + e;
          if (column >= p.columns)
            continue;
          const int at = pixel * p.columns + column;
          float value = sum[down][across][2 * half + e];
          if (p.bias)
            value += p.bias[column];
          if (row_bias)
            value += row_bias[column];
          if (p.residual)
            value += p.residual[at];
          value *= p.scale;
          p.result[at] = p.accumulate ? p.result[at] + value : value;
        }
    }
}

/// The weights [taps, in, out] as the kernel reads them: [taps, out, in] for the forward pass,
/// [taps, in, out] for the gradient; `high` rounded to tf32, `low` the rest.
struct split_weights {
  const float* weights;
  index_t in;
  index_t out;
  bool turned;
  float* high;
  float* low;
  __device__ void operator()(index_t i) const {
    index_t from = i;
    if (turned) {
      const index_t channel = i % in;
      const index_t column = i / in % out;
      from = (i / (in * out) * in + channel) * out + column;
    }
    const float weight = weights[from];
    high[i] = to_tf32(weight);
    low[i] = to_tf32(weight - high[i]);
  }
};

}  // namespace multistage::cuda_kernel
