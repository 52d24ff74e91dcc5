// Convolutions on a GPU: in float by implicit_gemm.hpp on the tensor cores, in double by patches and cuBLAS (../thrust/conv.hpp).
#pragma once
#include "../thrust/conv.hpp"
#include "implicit_gemm.hpp"
#include "reduce.hpp"
#include "system.hpp"

namespace multistage {
namespace cuda_kernel {

using large_tile = tile_shape<128, 128, 64, 32>;
using small_tile = tile_shape<64, 64, 32, 32>;

template <product Product, class Tile, int Width>
void run_implicit_gemm(const implicit_problem& p, dim3 blocks) {
  constexpr bool weights_gradient = Product == product::weight_gradient;
  constexpr std::size_t shared_bytes =
      sizeof(float) * Tile::steps_ahead *
      (operand_floats(weights_gradient, Tile::rows, Tile::depth) +
       operand_floats(Product != product::input_gradient, Tile::columns, Tile::depth));
  cuda_launch("implicit_gemm", implicit_gemm<Product, Tile, Width>, blocks, Tile::threads, shared_bytes, p);
}

template <product Product, class Tile>
void run_tiles(const implicit_problem& p, bool wide, index_t rows, index_t depths) {
  const dim3 blocks = grid(divide_up(rows, Tile::rows), divide_up(p.columns, Tile::columns), depths);
  wide ? run_implicit_gemm<Product, Tile, 4>(p, blocks) : run_implicit_gemm<Product, Tile, 1>(p, blocks);
}

/// @param rows of the result. @param depths blocks along the grid's third axis.
template <product Product>
void run_product(const implicit_problem& p, bool wide, index_t rows, index_t depths) {
  // Large tiles read less; small ones keep more of the GPU at work where there are few.
  const index_t tiles = divide_up(rows, large_tile::rows) * divide_up(p.columns, large_tile::columns) * depths;
  const bool wasteful = p.columns <= small_tile::columns || rows <= small_tile::rows;
  tiles < 128 || wasteful ? run_tiles<Product, small_tile>(p, wide, rows, depths) : run_tiles<Product, large_tile>(p, wide, rows, depths);
}

/// Whether sixteen bytes may be copied at a time.
inline bool wide_enough(std::initializer_list<const void*> pointers, std::initializer_list<index_t> channels) {
  for (const void* p : pointers)
    if (!aligned(p, 16)) return false;
  for (index_t c : channels)
    if (c % 4 != 0) return false;
  return true;
}

inline implicit_problem common(const cuda& b, const conv_problem<float>& p) {
  implicit_problem q;
  q.kernel = p.kernel;
  q.stride = p.stride;
  q.padding = p.padding;
  q.right_tap = (p.channels + p.channels2) * p.out_channels;
  q.right_step = int(p.out_channels);
  q.exact = b.products().precision() == product_precision::full;
  return q;
}

}  // namespace cuda_kernel

/// @see conv_problem.
inline void conv_forward(const cuda& b, const conv_problem<float>& p) {
  using namespace cuda_kernel;
  implicit_problem q = common(b, p);
  q.image = {p.x, p.x2, int(p.height), int(p.width), int(p.channels), int(p.channels2)};
  q.outer_height = int(p.out_height);
  q.outer_width = int(p.out_width);
  q.pixels = p.rows * p.out_pixels();
  q.right = p.weight;
  q.columns = int(p.out_channels);
  q.bias = p.bias;
  q.row_bias = p.row_bias;
  q.residual = p.residual;
  q.scale = p.scale;
  q.result = p.y;
  run_product<product::forward>(q, wide_enough({p.x, p.x2, p.weight}, {p.channels, p.channels2, p.out_channels}), q.pixels, 1);
}

/// dx (+)= gradient of x, dx2 (+)= gradient of x2 (either may be null).
inline void conv_backward_input(const cuda& b, const conv_problem<float>& p, const float* dy, float* dx, bool accumulate, float* dx2,
                                bool accumulate2) {
  using namespace cuda_kernel;
  implicit_problem q = common(b, p);
  q.image = {dy, nullptr, int(p.out_height), int(p.out_width), int(p.out_channels), 0};
  q.outer_height = int(p.height);
  q.outer_width = int(p.width);
  q.pixels = p.rows * p.height * p.width;
  const auto run = [&](const float* weight, index_t channels, float* to, bool add) {
    q.right = weight;
    q.columns = int(channels);
    q.result = to;
    q.accumulate = add;
    run_product<product::input_gradient>(q, wide_enough({dy, weight}, {p.out_channels}), q.pixels, 1);
  };
  if (dx) run(p.weight, p.channels, dx, accumulate);
  if (dx2) run(p.weight + p.channels * p.out_channels, p.channels2, dx2, accumulate2);
}

/// dweight += gradient of the weights.
inline void conv_backward_weight(const cuda& b, const conv_problem<float>& p, const float* dy, float* dweight) {
  using namespace cuda_kernel;
  const auto run = [&](const float* x, index_t channels, float* to) {
    implicit_problem q = common(b, p);
    q.image = {x, nullptr, int(p.height), int(p.width), int(channels), 0};
    q.outer_height = int(p.out_height);
    q.outer_width = int(p.out_width);
    q.pixels = p.rows * p.out_pixels();
    q.right = dy;
    q.columns = int(p.out_channels);
    // The pixels are shared out until there are some four hundred blocks, by extents alone: bits do not depend on the GPU.
    const index_t taps = p.kernel * p.kernel;
    const index_t blocks = divide_up(channels, 128) * divide_up(p.out_channels, 128) * taps;
    const index_t wanted = divide_up(400, blocks);
    const index_t most = divide_up(q.pixels, 512);
    const index_t shares = wanted < most ? wanted : most;
    q.share = round_up(divide_up(q.pixels, shares), 32);
    q.shares = int(divide_up(q.pixels, q.share));
    const index_t size = taps * channels * p.out_channels;
    q.accumulate = q.shares == 1;
    q.result = q.shares == 1 ? to : b.template workspace<float>(3, q.shares * size);
    run_product<product::weight_gradient>(q, wide_enough({x, dy}, {channels, p.out_channels}), channels, taps * q.shares);
    if (q.shares > 1) b.for_each_index(size, add_shares{q.result, size, q.shares, to});
  };
  run(p.x, p.channels, dweight);
  if (p.channels2) run(p.x2, p.channels2, dweight + p.channels * p.out_channels);
}

}  // namespace multistage
