// Convolutions on a GPU's tensor cores as matrix products whose left side is never stored: a block computes a tile of the result,
// gathering patches of the image into shared memory as it goes (implicit GEMM), three steps ahead of the arithmetic. Three products
// share the kernel:
//   forward          y[pixel, o]       = sum over (tap, c) of x[pixel + tap, c] w[tap, c, o]
//   input gradient   dx[pixel, c]      = sum over (tap, o) of dy[pixel - tap, o] w[tap, c, o]
//   weight gradient  dw[tap][c, o]     = sum over pixels of x[pixel + tap, c] dy[pixel, o]
// Tensor cores multiply numbers of 11 significant bits (tf32). With `product_precision::full` each number is split into two such,
// a = a1 + a2, and a b = a1 b1 + a1 b2 + a2 b1, which is as exact as float arithmetic to a bit or two (Markidis et al.,
// arXiv 1803.04014; Ootomo and Yokota, arXiv 2203.03341). Each result is one chain of additions in the order of (tap, channel), or
// of the pixels of a share: its bits depend neither on the tile nor on the batch.
#pragma once
#include <cuda_runtime.h>

#include "block.hpp"

namespace multistage::cuda_kernel {

/// Which of the three products.
enum class product { forward, input_gradient, weight_gradient };

/// A gather of pixels [rows, height, width, channels]; `second` has more channels, behind those of the first.
struct gathered {
  const float* from = nullptr;
  const float* second = nullptr;  // [rows, height, width, channels2]
  int height = 1;
  int width = 1;
  int channels = 1;
  int channels2 = 0;
};

/// All that a kernel needs to know. "Outer" pixels are those of the product's other tensor: the output's in the forward pass and
/// for the weights' gradient, the input's for the input's gradient.
struct implicit_problem {
  gathered image;              // what is gathered: x, or dy for the input's gradient
  int outer_height = 1;
  int outer_width = 1;
  int kernel = 1;
  int stride = 1;
  int padding = 0;
  index_t pixels = 0;          // rows * outer_height * outer_width
  const float* right = nullptr;  // the weights [taps, in, out]; dy for the weights' gradient
  int columns = 0;             // of the result
  index_t right_tap = 0;       // elements of the weights from one tap to the next
  int right_step = 0;          // elements from one channel `in` of the weights to the next
  const float* bias = nullptr;
  const float* row_bias = nullptr;
  const float* residual = nullptr;
  float scale = 1;
  bool accumulate = false;     // the result is added to
  bool exact = true;           // product_precision::full
  float* result = nullptr;
  index_t share = 0;           // weights' gradient: pixels of one share
  int shares = 1;              // weights' gradient: how many; with several, results go to [shares, taps, in, out]
};

/// A tile of the result: rows x columns by warps of 32-row or 64-row tiles of their own.
template <int Rows, int Columns, int WarpRows, int WarpColumns>
struct tile_shape {
  static constexpr int rows = Rows;
  static constexpr int columns = Columns;
  static constexpr int warp_rows = WarpRows;
  static constexpr int warp_columns = WarpColumns;
  static constexpr int depth = 32;  // of the sum, a step
  static constexpr int threads = (Rows / WarpRows) * (Columns / WarpColumns) * warp_size;
  static constexpr int steps_ahead = 3;
};

/// Floats of shared memory of one operand's step. Rows are padded so that the threads of a warp meet no bank twice.
MULTISTAGE_HD constexpr int operand_floats(bool depth_first, int extent, int depth) {
  return depth_first ? depth * (extent + 8) : extent * (depth + 4);
}

__device__ inline unsigned shared_address(const void* pointer) { return unsigned(__cvta_generic_to_shared(pointer)); }

/// Starts a copy of `Width` floats to shared memory, or zeros where `there` is false.
template <int Width>
__device__ void copy_ahead(float* to, const float* from, bool there) {
  const int bytes = there ? 4 * Width : 0;
  if constexpr (Width == 4)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void end_of_step() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `Steps` of the started steps are still on their way.
template <int Steps>
__device__ void wait_for_steps() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Steps) : "memory");
}

/// The nearest tf32 of a float, as its bits.
__device__ inline unsigned to_tf32(float value) {
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}
/// c += a b for a [16, 8], b [8, 8]: the threads of a warp hold the elements as PTX's mma.m16n8k8 has them.
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Where an outer pixel looks in the gathered image: its row, and the place of tap (0, 0).
struct pixel_place {
  int row;
  int i;
  int j;
};

template <product Product>
__device__ pixel_place place_of(const implicit_problem& p, index_t pixel) {
  const unsigned in_row = unsigned(p.outer_height) * unsigned(p.outer_width);
  const unsigned row = pixel < (index_t{1} << 32) ? unsigned(pixel) / in_row : unsigned(pixel / in_row);
  const unsigned at = unsigned(pixel - index_t(row) * in_row);
  const int i = int(at / unsigned(p.outer_width));
  const int j = int(at % unsigned(p.outer_width));
  if constexpr (Product == product::input_gradient) return {int(row), i + p.padding, j + p.padding};
  return {int(row), i * p.stride - p.padding, j * p.stride - p.padding};
}

/// The offset in pixels of tap (u, v) of a place, and whether it lies inside the image.
template <product Product>
__device__ bool pixel_at(const implicit_problem& p, const pixel_place& place, int u, int v, index_t& pixel) {
  int i = place.i + u;
  int j = place.j + v;
  bool inside = true;
  if constexpr (Product == product::input_gradient) {
    i = place.i - u;
    j = place.j - v;
    if (p.stride > 1) {
      inside = i >= 0 && j >= 0 && i % p.stride == 0 && j % p.stride == 0;
      i /= p.stride;
      j /= p.stride;
    }
  }
  inside = inside && unsigned(i) < unsigned(p.image.height) && unsigned(j) < unsigned(p.image.width);
  pixel = inside ? (index_t(place.row) * p.image.height + i) * p.image.width + j : 0;
  return inside;
}

/// One block's tile of a product. Grid: (tiles of rows, tiles of columns, taps * shares for the weights' gradient, else 1).
template <product Product, class Tile, int Width>
__global__ void __launch_bounds__(Tile::threads) implicit_gemm(const implicit_problem p) {
  constexpr bool weights_gradient = Product == product::weight_gradient;
  constexpr bool left_depth_first = weights_gradient;                   // x [pixel, c]: the sum runs over pixels
  constexpr bool right_depth_first = Product != product::input_gradient;  // w [c, o] and dy [pixel, o]; else w [c, o] by o
  constexpr int depth = Tile::depth;
  constexpr int left_floats = operand_floats(left_depth_first, Tile::rows, depth);
  constexpr int right_floats = operand_floats(right_depth_first, Tile::columns, depth);
  constexpr int left_line = left_depth_first ? Tile::rows + 8 : depth + 4;
  constexpr int right_line = right_depth_first ? Tile::columns + 8 : depth + 4;
  extern __shared__ float memory[];
  __shared__ pixel_place places[Tile::rows];

  const int thread = threadIdx.x;
  const index_t first_row = index_t(blockIdx.x) * Tile::rows;  // of the result: pixels, or channels of x for the weights' gradient
  const int first_column = int(blockIdx.y) * Tile::columns;
  const int taps = p.kernel * p.kernel;

  // The sum in steps: (tap, 32 channels) of the image and then of the second image, or 32 pixels of this block's share.
  const int channels = p.image.channels;
  const int steps_by_tap = (channels + depth - 1) / depth;
  const int tap_of_block = weights_gradient ? int(blockIdx.z) % taps : 0;
  const index_t first_pixel = weights_gradient ? index_t(blockIdx.z) / taps * p.share : 0;
  const index_t end_pixel = weights_gradient ? (first_pixel + p.share < p.pixels ? first_pixel + p.share : p.pixels) : 0;
  const int steps = weights_gradient ? int((end_pixel - first_pixel + depth - 1) / depth)
                                     : taps * steps_by_tap + (p.image.channels2 + depth - 1) / depth;

  if constexpr (!weights_gradient) {
    for (int r = thread; r < Tile::rows; r += Tile::threads)
      places[r] = first_row + r < p.pixels ? place_of<Product>(p, first_row + r) : pixel_place{-1, 0, 0};
    __syncthreads();
  }

  // Starts the copies of step `step` into its third of the memory.
  int tap_ahead = 0;
  int channel_ahead = 0;
  const auto load = [&](int step) {
    float* const left = memory + step % Tile::steps_ahead * (left_floats + right_floats);
    float* const right = left + left_floats;
    if constexpr (weights_gradient) {
      const index_t from_pixel = first_pixel + index_t(step) * depth;
      const int u = tap_of_block / p.kernel;
      const int v = tap_of_block % p.kernel;
      constexpr int left_chunks = Tile::rows / Width;
      for (int chunk = thread; chunk < depth * left_chunks; chunk += Tile::threads) {
        const int k = chunk / left_chunks;
        const int m = chunk % left_chunks * Width;
        const int channel = int(first_row) + m;
        index_t pixel = 0;
        bool there = from_pixel + k < end_pixel && channel < channels;
        if (there) there = pixel_at<Product>(p, place_of<Product>(p, from_pixel + k), u, v, pixel);
        copy_ahead<Width>(left + k * left_line + m, p.image.from + (there ? pixel * channels + channel : 0), there);
      }
      constexpr int right_chunks = Tile::columns / Width;
      for (int chunk = thread; chunk < depth * right_chunks; chunk += Tile::threads) {
        const int k = chunk / right_chunks;
        const int n = chunk % right_chunks * Width;
        const bool there = from_pixel + k < end_pixel && first_column + n < p.columns;
        copy_ahead<Width>(right + k * right_line + n, p.right + (there ? (from_pixel + k) * p.columns + first_column + n : 0), there);
      }
    } else {
      const bool second = tap_ahead == taps;
      const float* const from = second ? p.image.second : p.image.from;
      const int all = second ? p.image.channels2 : channels;
      const int u = tap_ahead / p.kernel;
      const int v = tap_ahead % p.kernel;
      constexpr int left_chunks = depth / Width;
      for (int chunk = thread; chunk < Tile::rows * left_chunks; chunk += Tile::threads) {
        const int m = chunk / left_chunks;
        const int k = chunk % left_chunks * Width;
        const pixel_place place = places[m];
        index_t pixel = 0;
        bool there = place.row >= 0 && channel_ahead + k < all;
        if (there) there = second ? pixel_at<Product>(p, place, 0, 0, pixel) : pixel_at<Product>(p, place, u, v, pixel);
        copy_ahead<Width>(left + m * left_line + k, from + (there ? pixel * all + channel_ahead + k : 0), there);
      }
      const float* const weights = p.right + (second ? index_t(channels) * p.right_step : tap_ahead * p.right_tap);
      if constexpr (Product == product::forward) {
        constexpr int right_chunks = Tile::columns / Width;
        for (int chunk = thread; chunk < depth * right_chunks; chunk += Tile::threads) {
          const int k = chunk / right_chunks;
          const int n = chunk % right_chunks * Width;
          const bool there = channel_ahead + k < all && first_column + n < p.columns;
          copy_ahead<Width>(right + k * right_line + n,
                            weights + (there ? index_t(channel_ahead + k) * p.right_step + first_column + n : 0), there);
        }
      } else {
        constexpr int right_chunks = depth / Width;
        for (int chunk = thread; chunk < Tile::columns * right_chunks; chunk += Tile::threads) {
          const int n = chunk / right_chunks;
          const int k = chunk % right_chunks * Width;
          const bool there = channel_ahead + k < all && first_column + n < p.columns;
          copy_ahead<Width>(right + n * right_line + k,
                            weights + (there ? index_t(first_column + n) * p.right_step + channel_ahead + k : 0), there);
        }
      }
      channel_ahead += depth;
      if (channel_ahead >= all) {
        channel_ahead = 0;
        ++tap_ahead;
      }
    }
  };

  constexpr int tiles_down = Tile::warp_rows / 16;
  constexpr int tiles_across = Tile::warp_columns / 8;
  constexpr int warps_down = Tile::rows / Tile::warp_rows;
  const int warp = thread / warp_size;
  const int group = thread % warp_size / 4;  // PTX's names for the parts of a lane's number
  const int lane = thread % 4;
  const int warp_row = warp % warps_down * Tile::warp_rows;
  const int warp_column = warp / warps_down * Tile::warp_columns;
  float sum[tiles_down][tiles_across][4] = {};

  for (int step = 0; step < Tile::steps_ahead - 1; ++step) {
    if (step < steps) load(step);
    end_of_step();
  }
  for (int step = 0; step < steps; ++step) {
    wait_for_steps<Tile::steps_ahead - 2>();
    __syncthreads();  // the step has arrived for all, and all are done with the one whose memory is filled next
    if (step + Tile::steps_ahead - 1 < steps) load(step + Tile::steps_ahead - 1);
    end_of_step();
    const float* const left = memory + step % Tile::steps_ahead * (left_floats + right_floats);
    const float* const right = left + left_floats;
    const auto left_at = [&](int m, int k) { return left_depth_first ? left[k * left_line + m] : left[m * left_line + k]; };
    const auto right_at = [&](int k, int n) { return right_depth_first ? right[k * right_line + n] : right[n * right_line + k]; };
#pragma unroll
    for (int k = 0; k < depth; k += 8) {
      float b[tiles_across][2];
#pragma unroll
      for (int t = 0; t < tiles_across; ++t) {
        const int n = warp_column + 8 * t + group;
        b[t][0] = right_at(k + lane, n);
        b[t][1] = right_at(k + lane + 4, n);
      }
      unsigned b_high[tiles_across][2];
      unsigned b_low[tiles_across][2];
#pragma unroll
      for (int t = 0; t < tiles_across; ++t)
        for (int e = 0; e < 2; ++e) {
          b_high[t][e] = to_tf32(b[t][e]);
          b_low[t][e] = to_tf32(b[t][e] - __uint_as_float(b_high[t][e]));
        }
#pragma unroll
      for (int d = 0; d < tiles_down; ++d) {
        const int m = warp_row + 16 * d + group;
        const float a[4] = {left_at(m, k + lane), left_at(m + 8, k + lane), left_at(m, k + lane + 4), left_at(m + 8, k + lane + 4)};
        unsigned a_high[4];
        for (int e = 0; e < 4; ++e) a_high[e] = to_tf32(a[e]);
        if (p.exact) {
          unsigned a_low[4];
          for (int e = 0; e < 4; ++e) a_low[e] = to_tf32(a[e] - __uint_as_float(a_high[e]));
#pragma unroll
          for (int t = 0; t < tiles_across; ++t) {
            multiply_add(sum[d][t], a_low, b_high[t]);
            multiply_add(sum[d][t], a_high, b_low[t]);
          }
        }
#pragma unroll
        for (int t = 0; t < tiles_across; ++t) multiply_add(sum[d][t], a_high, b_high[t]);
      }
    }
  }

  // The results, two neighbouring columns a thread and row.
  const index_t result_rows = weights_gradient ? index_t(channels) : p.pixels;
  float* result = p.result;
  if constexpr (weights_gradient) {
    const index_t share = index_t(blockIdx.z) / taps;
    result += ((p.shares > 1 ? share * taps : index_t{0}) + tap_of_block) * channels * p.columns;
  }
#pragma unroll
  for (int d = 0; d < tiles_down; ++d)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int m = warp_row + 16 * d + group + 8 * half;
      const index_t row = first_row + m;
      if (row >= result_rows) continue;
      int image_row = 0;
      if constexpr (!weights_gradient) image_row = places[m].row;
#pragma unroll
      for (int t = 0; t < tiles_across; ++t)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int column = first_column + warp_column + 8 * t + 2 * lane + e;
          if (column >= p.columns) continue;
          const index_t at = row * p.columns + column;
          float value = sum[d][t][2 * half + e];
          if constexpr (Product == product::forward) {
            if (p.bias) value += p.bias[column];
            if (p.row_bias) value += p.row_bias[index_t(image_row) * p.columns + column];
            if (p.residual) value += p.residual[at];
            value *= p.scale;
          }
          result[at] = p.accumulate ? result[at] + value : value;
        }
    }
}

/// dweight[i] += the shares' sums, in their order.
struct add_shares {
  const float* from;
  index_t size;
  int shares;
  float* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    float sum = to[i];
    for (int s = 0; s < shares; ++s) sum += from[s * size + i];
    to[i] = sum;
  }
};

}  // namespace multistage::cuda_kernel
