// Convolutions on a GPU: in float on the tensor cores (gathered_product.hpp,
// weight_gradient.hpp), in double by patches and cuBLAS
// (../thrust/conv.hpp).
//
// What is left to choose here are tiles. Large tiles read each element of the image and of the
// weights fewer times; small ones make more blocks, and a GPU with a hundred multiprocessors
// idles with fewer blocks than that. Copies of 16 bytes need channels in fours and addresses
// to match; others go four bytes at a time.
#pragma once
#include "../thrust/conv.hpp"
#include "gathered_product.hpp"
#include "reduce.hpp"
#include "system.hpp"
#include "weight_gradient.hpp"

namespace multistage {
namespace cuda_kernel {

/// A block's tile of pixels x columns: 128 threads of which a warp has 32 x 64 results, and
/// steps of 16 channels of which two are in shared memory.
using large_tile = tile_shape<128, 128, 32, 64, 16, 2>;
/// The same for small results, of which a warp has 32 x 32.
using small_tile = tile_shape<64, 64, 32, 32, 16, 2>;
/// A block's tile of channels x columns of the weights' gradient; steps of 32 pixels.
using large_gradient_tile = tile_shape<128, 128, 64, 32, 32, 2>;
/// The same for few channels; steps of 16 pixels, three of them in shared memory.
using small_gradient_tile = tile_shape<64, 64, 32, 32, 16, 3>;

/// Whether large tiles pay: they read less, small ones keep more of the GPU at work.
inline bool takes_large_tiles(index_t rows, index_t columns, index_t times) {
  const index_t blocks = divide_up(rows, 128) * divide_up(columns, 128) * times;
  return rows > 64 && columns > 64 && blocks >= 100;
}

/// Launches the kernel with as many blocks as tiles.
template <direction Direction, class Tile, int Width>
void run_gathered_product(const gathered_problem& p) {
  constexpr std::size_t shared_bytes =
      sizeof(float) * Tile::steps * (Tile::rows + 2 * Tile::columns) * (Tile::depth + 4);
  const index_t tiles_down = divide_up(p.pixels, Tile::rows);
  const index_t tiles_across = divide_up(p.columns, Tile::columns);
  cuda_launch("gathered_product", gathered_product<Direction, Tile, Width>,
              grid(tiles_down, tiles_across), Tile::threads, shared_bytes, p);
}
/// Chooses tile and width of copies: 16 bytes at a time where channels and addresses allow it.
template <direction Direction>
void run(const gathered_problem& p) {
  if (p.pixels == 0 || p.columns == 0)
    return;
  const bool wide = p.channels % 4 == 0 && p.channels2 % 4 == 0 && aligned(p.image, 16) &&
                    aligned(p.image2, 16);
  if (!wide)
    run_gathered_product<Direction, small_tile, 1>(p);
  else if (takes_large_tiles(p.pixels, p.columns, 1))
    run_gathered_product<Direction, large_tile, 4>(p);
  else
    run_gathered_product<Direction, small_tile, 4>(p);
}

/// Launches the kernel with as many blocks as tiles, taps and shares.
template <class Tile, int Width>
void run_weight_gradient(const weight_gradient_problem& p) {
  constexpr std::size_t shared_bytes =
      sizeof(float) * Tile::steps * Tile::depth * (Tile::rows + Tile::columns + 16);
  const index_t tiles_down = divide_up(p.channels, Tile::rows);
  const index_t tiles_across = divide_up(p.columns, Tile::columns);
  const index_t taps_and_shares = index_t(p.kernel) * p.kernel * p.shares;
  cuda_launch("weight_gradient", weight_gradient<Tile, Width>,
              grid(tiles_down, tiles_across, taps_and_shares), Tile::threads, shared_bytes, p);
}
/// Chooses tile and width of copies, as above.
inline void run(const weight_gradient_problem& p) {
  const bool wide = p.channels % 4 == 0 && p.columns % 4 == 0 && aligned(p.image, 16) &&
                    aligned(p.gradient, 16);
  if (!wide)
    run_weight_gradient<small_gradient_tile, 1>(p);
  else if (takes_large_tiles(p.channels, p.columns, index_t(p.kernel) * p.kernel * p.shares))
    run_weight_gradient<large_gradient_tile, 4>(p);
  else
    run_weight_gradient<small_gradient_tile, 4>(p);
}

/// Elements of a problem's weights.
template <class T>
index_t weight_elements(const conv_problem<T>& p) {
  return p.taps() * (p.channels + p.channels2) * p.out_channels;
}
/// Weights in the order that the kernels read, in two parts. @param to 2 weight_elements(p)
/// floats @see split_weights
inline void split(const cuda& b, const conv_problem<float>& p, bool turned, float* to) {
  const index_t size = weight_elements(p);
  b.for_each_index(size, split_weights{p.weight, p.channels + p.channels2, p.out_channels,
                                       turned, to, to + size});
}
/// Calls f(first row, rows) for parts of the batch in which no tensor has more than 2^30
/// elements.
template <class T, class F>
void for_each_part(const conv_problem<T>& p, F&& f) {
  constexpr index_t elements = index_t{1} << 30;
  const index_t channels = p.channels > p.channels2 ? p.channels : p.channels2;
  const index_t in = p.height * p.width * channels;
  const index_t out = p.out_pixels() * p.out_channels;
  const index_t row = in > out ? in : out;  // elements of the larger one
  const index_t most = elements / row;
  require<shape_error>(most > 0 && weight_elements(p) <= elements, "conv: a row of ", row,
                       " elements; at most 2^30 on this backend");
  for (index_t first = 0; first < p.rows; first += most) {
    const index_t left = p.rows - first;
    f(first, left < most ? left : most);
  }
}
/// Whether products are to be as exact as those of floats.
inline bool exact(const cuda& b) {
  return b.products().precision() == product_precision::full;
}

}  // namespace cuda_kernel

/// What the forward pass would rather have: weights turned, and split into two parts of eleven
/// bits.
inline index_t conv_prepared_size(const cuda&, const conv_problem<float>& p) {
  return p.square() ? 2 * cuda_kernel::weight_elements(p) : 0;
}
/// Fills what conv_prepared_size counts. @see cuda_kernel::split
inline void conv_prepare(const cuda& b, const conv_problem<float>& p, float* to) {
  cuda_kernel::split(b, p, true, to);
}

/// @see conv_problem.
inline void conv_forward(const cuda& b, const conv_problem<float>& p) {
  using namespace cuda_kernel;
  if (!p.square())
    return conv_forward<cuda_system, float>(b, p);  // by patches
  const float* weights = p.prepared;
  if (!weights) {
    float* const made = b.template workspace<float>(3, conv_prepared_size(b, p));
    conv_prepare(b, p, made);
    weights = made;
  }
  for_each_part(p, [&](index_t first, index_t rows) {
    gathered_problem q;
    q.image = p.x + first * p.height * p.width * p.channels;
    q.image2 = p.x2 ? p.x2 + first * p.height * p.width * p.channels2 : nullptr;
    q.height = int(p.height);
    q.width = int(p.width);
    q.channels = int(p.channels);
    q.channels2 = int(p.channels2);
    q.result_height = int(p.out_height);
    q.result_width = int(p.out_width);
    q.pixels = int(rows * p.out_pixels());
    q.columns = int(p.out_channels);
    q.kernel = p.kernel;
    q.stride = p.stride;
    q.padding = p.padding;
    q.weights = weights;
    q.weights_low = exact(b) ? weights + weight_elements(p) : nullptr;
    q.bias = p.bias;
    q.row_bias = p.row_bias ? p.row_bias + first * p.out_channels : nullptr;
    q.residual = p.residual ? p.residual + first * p.out_pixels() * p.out_channels : nullptr;
    q.scale = p.scale;
    q.result = p.y + first * p.out_pixels() * p.out_channels;
    run<direction::forward>(q);
  });
}

/// dx (+)= gradient of x, dx2 (+)= gradient of x2 (either may be null).
inline void conv_backward_input(const cuda& b,
                                const conv_problem<float>& p,
                                const float* dy,
                                float* dx,
                                bool accumulate,
                                float* dx2,
                                bool accumulate2) {
  using namespace cuda_kernel;
  if (!p.square())
    return conv_backward_input<cuda_system, float>(b, p, dy, dx, accumulate, dx2, accumulate2);
  float* const weights = b.template workspace<float>(3, conv_prepared_size(b, p));
  split(b, p, false, weights);
  const auto run_part = [&](index_t first_channel, index_t channels, float* to, bool add) {
    for_each_part(p, [&](index_t first, index_t rows) {
      gathered_problem q;
      q.image = dy + first * p.out_pixels() * p.out_channels;
      q.height = int(p.out_height);
      q.width = int(p.out_width);
      q.channels = int(p.out_channels);
      q.result_height = int(p.height);
      q.result_width = int(p.width);
      q.pixels = int(rows * p.height * p.width);
      q.columns = int(channels);
      q.kernel = p.kernel;
      q.stride = p.stride;
      q.padding = p.padding;
      q.weights = weights + first_channel * p.out_channels;
      q.weights_low = exact(b) ? q.weights + weight_elements(p) : nullptr;
      q.result = to + first * p.height * p.width * channels;
      q.accumulate = add;
      run<direction::input_gradient>(q);
    });
  };
  if (dx)
    run_part(0, p.channels, dx, accumulate);
  if (dx2)
    run_part(p.channels, p.channels2, dx2, accumulate2);
}

/// dweight += gradient of the weights.
inline void conv_backward_weight(const cuda& b,
                                 const conv_problem<float>& p,
                                 const float* dy,
                                 float* dweight) {
  using namespace cuda_kernel;
  if (!p.square())
    return conv_backward_weight<cuda_system, float>(b, p, dy, dweight);
  const auto run_part = [&](const float* x, index_t channels, float* to) {
    weight_gradient_problem q;
    q.image = x;
    q.gradient = dy;
    q.height = int(p.height);
    q.width = int(p.width);
    q.channels = int(channels);
    q.result_height = int(p.out_height);
    q.result_width = int(p.out_width);
    q.columns = int(p.out_channels);
    q.kernel = p.kernel;
    q.stride = p.stride;
    q.padding = p.padding;
    q.pixels = p.rows * p.out_pixels();
    q.exact = exact(b);
    // The pixels are shared out until there are some six hundred blocks; by extents alone, so
    // that bits do not depend on the GPU.
    const index_t taps = index_t(p.kernel) * p.kernel;
    const index_t tiles = divide_up(channels, 128) * divide_up(p.out_channels, 128);
    const index_t wanted = divide_up(600, tiles * taps);
    const index_t most = divide_up(q.pixels, 256);
    const index_t shares = wanted < most ? wanted : most;
    q.share = round_up(divide_up(q.pixels, shares), 32);
    q.shares = int(divide_up(q.pixels, q.share));
    const index_t size = taps * channels * p.out_channels;
    q.result = q.shares == 1 ? to : b.template workspace<float>(3, q.shares * size);
    run(q);
    if (q.shares > 1)
      b.for_each_index(size, add_shares{q.result, size, q.shares, to});
  };
  if (p.rows == 0)
    return;
  run_part(p.x, p.channels, dweight);
  if (p.channels2)
    run_part(p.x2, p.channels2, dweight + p.channels * p.out_channels);
}

}  // namespace multistage
