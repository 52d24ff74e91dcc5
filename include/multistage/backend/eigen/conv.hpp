// Convolutions by Eigen: the patches of 32 output pixels are the rows of a matrix, and times
// the weights they are the output. The gradient by the input is a convolution of dy with
// transposed windows and turned weights; that by the weights is patches^T dy.
//
//   patches [32, kernel kernel in] x weights [kernel kernel in, out] = result [32, out]
//
// Gathering a patch is one row copy a tap. The gradient by the input gathers from dy, where a
// pixel is met by those outputs whose windows hold it (taps.hpp, `transposed`), so that no
// task adds to another's pixels.
#pragma once
#include "gemm.hpp"
#include "reduce.hpp"
#include "taps.hpp"

namespace multistage {
namespace eigen_kernel {

/// The patches of the pixels of an output [rows, height, width] in an image [rows,
/// vertical.extent, horizontal.extent, channels].
template <class T>
struct patches {
  index_t height;
  index_t width;
  axis vertical;
  axis horizontal;
  index_t kernel;
  index_t kernel_width;
  index_t channels;
  const T* image;

  /// Values of a patch.
  index_t size() const {
    return kernel * kernel_width * channels;
  }

  /// to.row(i) = the patch [kernel, kernel_width, channels] of pixel first + i, for i < count;
  /// zeros outside the image.
  template <class To>
  void gather(index_t first, index_t count, To& to) const {
    const index_t tall = vertical.extent;
    const index_t wide = horizontal.extent;
    for (index_t i = 0; i < count; ++i) {
      const index_t pixel = first + i;
      const index_t row = pixel / (height * width);
      const auto x = as_matrix(image + row * tall * wide * channels, tall * wide, channels);
      for (index_t u = 0; u < kernel; ++u)
        for (index_t v = 0; v < kernel_width; ++v) {
          const index_t y_at = vertical.source(pixel / width % height, u);
          const index_t x_at = horizontal.source(pixel % width, v);
          auto tap = to.row(i).segment((u * kernel_width + v) * channels, channels);
          if (y_at >= 0 && x_at >= 0)
            tap = x.row(y_at * wide + x_at);
          else
            tap.setZero();
        }
    }
  }
  /// Those of a tile, [32, taps channels].
  tile<T> operator()(index_t first, index_t count) const {
    tile<T> to = tile<T>::Zero(tile_rows, size());
    gather(first, count, to);
    return to;
  }
};

/// What y's pixels read of x.
template <class T>
patches<T> forward_patches(const conv_problem<T>& p) {
  const axis vertical{p.height, p.stride, p.padding};
  const axis horizontal{p.width, p.stride_width, p.padding_width};
  return {p.out_height, p.out_width,    vertical,   horizontal,
          p.kernel,     p.kernel_width, p.channels, p.x};
}
/// What dx's pixels read of dy.
template <class T>
patches<T> backward_patches(const conv_problem<T>& p, const T* dy) {
  const axis vertical{p.out_height, p.stride, p.padding, true};
  const axis horizontal{p.out_width, p.stride_width, p.padding_width, true};
  return {p.height, p.width,        vertical,       horizontal,
          p.kernel, p.kernel_width, p.out_channels, dy};
}

}  // namespace eigen_kernel

/// @see conv_problem. A task is a tile of output pixels.
template <class T>
void conv_forward(const eigen& b, const conv_problem<T>& p) {
  using namespace eigen_kernel;
  const index_t n = p.out_channels;
  const patches<T> x = forward_patches(p);
  const auto weight = as_matrix(p.weight, x.size(), n);                     // [patch, out]
  const auto weight2 = as_matrix(p.weight + x.size() * n, p.channels2, n);  // [channels2, out]
  const index_t pixels = p.rows * p.out_pixels();
  b.for_each_piece(pixels, tile_rows, [&](index_t first, index_t count) {
    tile<T> sum = product(x(first, count), weight);  // [32, out]
    if (p.channels2) {
      const auto x2 = as_matrix(p.x2 + first * p.channels2, count, p.channels2);
      add_product(sum, padded<T>(x2), weight2);
    }
    for (index_t r = 0; r < count; ++r) {
      const index_t pixel = first + r;
      row_array<T> value = sum.row(r).array();  // [out]
      if (p.bias)
        value += as_row(p.bias, n);
      if (p.row_bias)
        value += as_row(p.row_bias + pixel / p.out_pixels() * n, n);
      if (p.residual)
        value += as_row(p.residual + pixel * n, n);
      value *= p.scale;
      as_row(p.y + pixel * n, n) = value;
    }
  });
}

/// dx (+)= gradient of x, dx2 (+)= gradient of x2 (either may be null), from dy. A task is a
/// tile of input pixels.
template <class T>
void conv_backward_input(const eigen& b,
                         const conv_problem<T>& p,
                         const T* dy,
                         T* dx,
                         bool accumulate,
                         T* dx2,
                         bool accumulate2) {
  using namespace eigen_kernel;
  const index_t n = p.out_channels;
  const index_t pixels = p.rows * p.height * p.width;
  if (dx) {
    const patches<T> reader = backward_patches(p, dy);
    // Weights for the way back: of each tap [out, in] instead of [in, out].
    matrix<T> turned(reader.size(), p.channels);  // [taps out, channels]
    for (index_t tap = 0; tap < p.taps(); ++tap) {
      const auto weight = as_matrix(p.weight + tap * p.channels * n, p.channels, n);
      turned.middleRows(tap * n, n) = weight.transpose();
    }
    b.for_each_piece(pixels, tile_rows, [&](index_t first, index_t count) {
      const tile<T> sum = product(reader(first, count), turned);  // [32, channels]
      auto to = as_matrix(dx + first * p.channels, count, p.channels);
      if (accumulate)
        to += sum.topRows(count);
      else
        to = sum.topRows(count);
    });
  }
  if (dx2) {  // 1x1 kernels alone have a second input
    const matrix_view<const T> weight2{p.weight + p.channels * n, p.channels2, n};
    const matrix_view<T> to{dx2, pixels, p.channels2};
    const T beta = accumulate2 ? T(1) : T(0);
    multiply(b, {dy, pixels, n}, weight2.transposed(), to, 1, beta);
  }
}

/// dweight [kernel, kernel, channels + channels2, out] += gradient of the weights, some pixels
/// after the other.
template <class T>
void conv_backward_weight(const eigen& b, const conv_problem<T>& p, const T* dy, T* dweight) {
  using namespace eigen_kernel;
  const index_t n = p.out_channels;
  const index_t pixels = p.rows * p.out_pixels();
  const patches<T> reader = forward_patches(p);
  const index_t patch = reader.size();
  constexpr index_t some = 1024;
  // Patches of some pixels at a time, so that memory does not grow with the image.
  matrix<T> x(std::min(some, pixels), patch);  // [pixels, patch]
  for (index_t first = 0; first < pixels; first += some) {
    const index_t count = std::min(some, pixels - first);
    b.for_each_piece(count, tile_rows, [&](index_t i, index_t rows) {
      auto to = x.middleRows(i, rows);
      reader.gather(first + i, rows, to);
    });
    const matrix_view<const T> rows{x.data(), count, patch};
    const matrix_view<T> gradient{dweight, patch, n};
    multiply(b, rows.transposed(), {dy + first * n, count, n}, gradient, 1, 1);
  }
  if (p.channels2) {
    const matrix_view<const T> rows{p.x2, pixels, p.channels2};
    const matrix_view<T> gradient{dweight + patch * n, p.channels2, n};
    multiply(b, rows.transposed(), {dy, pixels, n}, gradient, 1, 1);
  }
}

}  // namespace multistage
