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

/// Which of the two: they differ in which pixel of the image a tap of a pixel of the result is.
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

/// A step in shared memory: rows of the left side (pixels), then of the right side (columns of
/// the result), then of the right side's low part; a row is `depth` channels of one tap. Each
/// thread copies chunks of `Width` floats, one of every `rows_at_once`-th row.
template <class Tile, int Width>
struct gathered_layout {
  static constexpr int depth = Tile::depth;
  // floats of a row in shared memory: eight rows lie in different banks
  static constexpr int line = depth + 4;
  static constexpr int left_floats = Tile::rows * line;
  static constexpr int right_floats = Tile::columns * line;
  static constexpr int step_floats = left_floats + 2 * right_floats;
  static constexpr int chunks = depth / Width;  // of a row
  static constexpr int rows_at_once = Tile::threads / chunks;
  static constexpr int row_turns = Tile::rows / rows_at_once;
  static constexpr int column_turns = Tile::columns / rows_at_once;
  static_assert(Tile::rows % rows_at_once == 0 && Tile::columns % rows_at_once == 0);
};

/// What a thread copies, kept up from step to step. The sum goes over all taps of `depth`
/// channels after the other, so that the taps find the image in the cache; then over the second
/// image's channels. What is outside is copied as zeros, and its address never read.
template <direction Direction, class Tile, int Width>
struct gathered_copies {
  using layout = gathered_layout<Tile, Width>;
  static constexpr bool forward = Direction == direction::forward;

  const gathered_problem& p;
  float* const memory;  // [steps][left, right, right's low part]
  const int first_pixel;
  // This thread copies chunk `own_chunk` of rows own_row, own_row + rows_at_once, ... of both
  // sides.
  const int own_chunk;
  const int own_row;
  const int own_column;
  const int right_from;
  // Offset of the chunk under tap (0, 0); 32 bits, since registers are what limits this kernel.
  int left_from[layout::row_turns];
  int left_i[layout::row_turns];  // where in its image that is
  int left_j[layout::row_turns];
  const float* image;
  int u = 0;  // the tap
  int v = 0;
  int channel = 0;
  int channels;
  int first_channel = 0;  // of the image at hand, in the weights
  int left_offset = 0;    // of the step from left_from
  int right_offset = 0;   // of the step from right_from

  __device__ gathered_copies(const gathered_problem& problem,
                             float* shared,
                             int pixel,
                             int column)
      : p(problem),
        memory(shared),
        first_pixel(pixel),
        own_chunk(int(threadIdx.x) % layout::chunks * Width),
        own_row(int(threadIdx.x) / layout::chunks),
        own_column(column + own_row),
        right_from(own_column * all_channels() + own_chunk),
        image(p.image),
        channels(p.channels) {
    start_image();
  }

  /// How many steps the sum has.
  __device__ int steps() const {
    constexpr int depth = layout::depth;
    return p.kernel * p.kernel * ((p.channels + depth - 1) / depth) +
           (p.channels2 + depth - 1) / depth;
  }
  /// Starts the copies of a step; steps are asked for in their order, once each.
  __device__ void operator()(int step) {
    float* const left =
        memory + step % Tile::steps * layout::step_floats + own_row * layout::line + own_chunk;
    const bool inside = channel + own_chunk < channels;
    copy_image(left, inside);
    copy_weights(left + layout::left_floats, inside);
    advance();
  }

 private:
  __device__ int all_channels() const {
    return p.channels + p.channels2;
  }
  /// Finds this thread's chunks of an image that the sum comes to.
  __device__ void start_image() {
    const int result_pixels = p.result_height * p.result_width;
#pragma unroll
    for (int turn = 0; turn < layout::row_turns; ++turn) {
      const int pixel = first_pixel + own_row + turn * layout::rows_at_once;
      const int row = pixel / result_pixels;
      const int in_row = pixel - row * result_pixels;
      const int i = in_row / p.result_width;
      const int j = in_row - i * p.result_width;
      left_i[turn] = forward ? i * p.stride - p.padding : i + p.padding;
      left_j[turn] = forward ? j * p.stride - p.padding : j + p.padding;
      // With strides the gradient finds its pixel anew for each tap (copy_image).
      const int in_image = forward || p.stride == 1 ? left_i[turn] * p.width + left_j[turn] : 0;
      left_from[turn] = (row * p.height * p.width + in_image) * channels + own_chunk;
      if (pixel >= p.pixels)
        left_i[turn] = -(1 << 24);  // outside for any tap
    }
  }
  __device__ void copy_image(float* left, bool inside) const {
#pragma unroll
    for (int turn = 0; turn < layout::row_turns; ++turn) {
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
      copy_ahead<Width>(left + turn * layout::rows_at_once * layout::line, image + from, there);
    }
  }
  __device__ void copy_weights(float* right, bool inside) const {
    const bool exact = p.weights_low != nullptr;
    const index_t low = p.weights_low - p.weights;
#pragma unroll
    for (int turn = 0; turn < layout::column_turns; ++turn) {
      const int row = turn * layout::rows_at_once;
      const bool there = inside && own_column + row < p.columns;
      const float* const from = p.weights + (right_from + right_offset + row * all_channels());
      copy_ahead<Width>(right + row * layout::line, from, there);
      if (exact)
        copy_ahead<Width>(right + layout::right_floats + row * layout::line, from + low, there);
    }
  }
  /// On to the next tap, or the next channels.
  __device__ void advance() {
    right_offset += p.columns * all_channels();
    left_offset += forward ? channels : -channels;
    if (++v < p.kernel)
      return;
    v = 0;
    left_offset += (forward ? 1 : -1) * (p.width - p.kernel) * channels;
    if (++u < p.kernel)
      return;
    u = 0;
    channel += layout::depth;
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
    start_image();
  }
};

/// Rows of shared memory whose addresses a lane gives to load_blocks: of the left side the
/// blocks are (rows 0 to 7, first four of the depth), (rows 8 to 15, first four), and the same
/// of the next four; of the right side two tiles of columns likewise.
template <class Tile, int Width>
struct gathered_rows {
  using layout = gathered_layout<Tile, Width>;
  int left;   // offset in a step
  int right;  // likewise

  __device__ explicit gathered_rows(const thread_place<Tile>& place) {
    const int lane = int(threadIdx.x) % warp_size;
    left = (place.row + lane % 16) * layout::line + lane / 16 * 4;
    right = layout::left_floats + (place.column + lane / 16 * 8 + lane % 8) * layout::line +
            lane / 8 % 2 * 4;
  }
};

/// sum += the product of a step's two sides, `step` being its place in shared memory. @param
/// exact whether the right side has a low part
template <class Tile, int Width>
__device__ void multiply_step(const float* step,
                              const gathered_rows<Tile, Width>& rows,
                              bool exact,
                              float (&sum)[Tile::tiles_down][Tile::tiles_across][4]) {
  using layout = gathered_layout<Tile, Width>;
  const float* const left = step + rows.left;
  const float* const right = step + rows.right;
#pragma unroll
  for (int k = 0; k < layout::depth; k += 8) {
    float a_high[Tile::tiles_down][4];
    float a_low[Tile::tiles_down][4];
#pragma unroll
    for (int down = 0; down < Tile::tiles_down; ++down) {
      float a[4];
      load_blocks(a, left + 16 * down * layout::line + k);
      for (int i = 0; i < 4; ++i)
        a_high[down][i] = to_tf32(a[i]);
      if (exact)
        for (int i = 0; i < 4; ++i)
          a_low[down][i] = to_tf32(a[i] - a_high[down][i]);
    }
#pragma unroll
    for (int across = 0; across < Tile::tiles_across; across += 2) {
      float b_high[4];  // two of a tile, two of the next
      load_blocks(b_high, right + 8 * across * layout::line + k);
      if (exact) {
        float b_low[4];
        load_blocks(b_low, right + layout::right_floats + 8 * across * layout::line + k);
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
}

/// The results with what is added to them, two neighbouring columns a thread and row.
template <class Tile>
__device__ void store_results(const gathered_problem& p,
                              const thread_place<Tile>& place,
                              int first_pixel,
                              int first_column,
                              const float (&sum)[Tile::tiles_down][Tile::tiles_across][4]) {
  const int result_pixels = p.result_height * p.result_width;
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

/// A block's tile of the result. Grid: (tiles of pixels, tiles of columns). `Width`: floats
/// copied at a time, 4 or 1.
template <direction Direction, class Tile, int Width>
__global__ void __launch_bounds__(Tile::threads, 512 / Tile::threads)
    gathered_product(const gathered_problem p) {
  extern __shared__ __align__(16) float memory[];
  const int first_pixel = int(blockIdx.x) * Tile::rows;
  const int first_column = int(blockIdx.y) * Tile::columns;
  const bool exact = p.weights_low != nullptr;
  gathered_copies<Direction, Tile, Width> load(p, memory, first_pixel, first_column);
  const thread_place<Tile> place;
  const gathered_rows<Tile, Width> rows(place);
  float sum[Tile::tiles_down][Tile::tiles_across][4] = {};
  const auto multiply = [&](int step) {
    constexpr int step_floats = gathered_layout<Tile, Width>::step_floats;
    multiply_step<Tile, Width>(memory + step % Tile::steps * step_floats, rows, exact, sum);
  };
  for_each_step<Tile>(load.steps(), load, multiply);
  store_results(p, place, first_pixel, first_column, sum);
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
