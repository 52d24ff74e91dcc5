// Convolutions on Thrust systems: patches are gathered (im2col) a block of output pixels at a
// time and multiplied; 1x1 kernels multiply the image as it lies. Functors surround the
// products.
//
// Patches of whole images would take nine times the memory of the image for 3x3 kernels; so
// they are made for some 16 MiB at a time, in memory that the handle keeps. On a GPU float
// convolutions have kernels of their own (../cuda/conv.hpp), and this is the way of doubles.
#pragma once
#include "gemm.hpp"
#include "reduce.hpp"

namespace multistage {
namespace thrust_kernel {

/// im2col, patches [pixel - first, kernel, kernel, channels]: `span` neighbouring channels of
/// one tap of one pixel, zeros outside the image.
template <class T>
struct gather_patches {
  conv_problem<T> p;
  index_t first;
  index_t span;
  T* to;
  MULTISTAGE_HD void operator()(index_t k) const {
    const index_t element = k * span;
    const index_t c0 = element % p.channels;
    const index_t tap = element / p.channels % p.taps();
    const index_t pixel = first + element / p.patch_size();
    const index_t row = pixel / p.out_pixels();
    const index_t in_image = pixel % p.out_pixels();
    const index_t i = p.top(in_image) + tap / p.kernel_width;
    const index_t j = p.left(in_image) + tap % p.kernel_width;
    const bool inside = p.inside(i, j);
    const T* from = p.x + ((row * p.height + i) * p.width + j) * p.channels + c0;
    for (index_t c = 0; c < span; ++c)
      to[element + c] = inside ? from[c] : T(0);
  }
};

/// dx at one input pixel: the sum over the patches that hold it, from the patches of whole
/// images [first row, ...).
/// This is col2im, the transpose of im2col, turned round: an index gathers for its pixel
/// instead of scattering, so that no two indices write the same place and the order of
/// additions is that of the taps.
template <class T>
struct scatter_patches {
  conv_problem<T> p;
  index_t first_row;
  index_t span;
  const T* patches;
  T* dx;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t k) const {
    const index_t element = k * span;
    const index_t c0 = element % p.channels;
    const index_t pixel = element / p.channels;
    const index_t j = pixel % p.width;
    const index_t i = pixel / p.width % p.height;
    const index_t row = pixel / (p.width * p.height);
    T* const first_image = dx + first_row * p.height * p.width * p.channels;
    T* to = first_image + element;  // [span]
    if (!accumulate)
      for (index_t c = 0; c < span; ++c)
        to[c] = T(0);
    for (int u = 0; u < p.kernel; ++u)
      for (int v = 0; v < p.kernel_width; ++v) {
        // The output pixel whose tap (u, v) lies here, where there is one.
        const index_t down = i + p.padding - u;
        const index_t across = j + p.padding_width - v;
        if (down < 0 || down % p.stride != 0)
          continue;
        if (across < 0 || across % p.stride_width != 0)
          continue;
        const index_t oi = down / p.stride;
        const index_t oj = across / p.stride_width;
        if (oi >= p.out_height || oj >= p.out_width)
          continue;
        const index_t out = (row * p.out_height + oi) * p.out_width + oj;
        const index_t tap = index_t{u} * p.kernel_width + v;
        const T* from = patches + (out * p.taps() + tap) * p.channels + c0;  // [span]
        for (index_t c = 0; c < span; ++c)
          to[c] += from[c];
      }
  }
};

/// What surrounds the product, of `span` neighbouring channels of a pixel:
/// y = scale (y + bias + row_bias + residual).
template <class T>
struct conv_finish {
  conv_problem<T> p;
  index_t span;
  MULTISTAGE_HD void operator()(index_t k) const {
    const index_t first = k * span;
    const index_t o0 = first % p.out_channels;
    const index_t row = first / (p.out_channels * p.out_pixels());
    for (index_t i = 0; i < span; ++i) {
      T v = p.y[first + i];
      if (p.bias)
        v += p.bias[o0 + i];
      if (p.row_bias)
        v += p.row_bias[row * p.out_channels + o0 + i];
      if (p.residual)
        v += p.residual[first + i];
      p.y[first + i] = v * p.scale;
    }
  }
};

/// How many output pixels a block of patches holds, about 16 MiB of them.
inline index_t patch_block(index_t pixels, index_t patch) {
  const index_t fit = (index_t{4} << 20) / patch;
  return fit < 1 ? 1 : fit < pixels ? fit : pixels;
}

}  // namespace thrust_kernel

/// @see conv_problem.
template <class System, class T>
void conv_forward(const thrust_backend<System>& b, const conv_problem<T>& p) {
  using namespace thrust_kernel;
  const index_t n = p.out_channels;
  const index_t pixels = p.all_out_pixels();
  const index_t patch = p.patch_size();
  const matrix_view<const T> weight{p.weight, patch, n};
  const matrix_view<T> y{p.y, pixels, n};
  conv_problem<T> rest = p;  // what the product leaves to do
  T beta = T(0);
  // A residual that lies where the sum goes is there already.
  if (p.residual && p.residual == p.y) {
    beta = T(1);
    rest.residual = nullptr;
  }
  if (p.pointwise()) {
    multiply(b, {p.x, pixels, p.channels}, weight, y, 1, beta);
  } else {
    const index_t block = patch_block(pixels, patch);
    const index_t span = thrust_kernel::span<System>(p.channels);
    T* patches = b.template workspace<T>(3, block * patch);
    for (index_t first = 0; first < pixels; first += block) {
      const index_t count = first + block < pixels ? block : pixels - first;
      b.for_each_index(count * patch / span, gather_patches<T>{p, first, span, patches});
      multiply(b, {patches, count, patch}, weight, y.middle_rows(first, count), 1, beta);
    }
  }
  if (p.channels2) {
    const matrix_view<const T> weight2{p.weight + p.channels * n, p.channels2, n};
    multiply(b, {p.x2, pixels, p.channels2}, weight2, y, 1, 1);
  }
  if (rest.bias || rest.row_bias || rest.residual || rest.scale != T(1)) {
    const index_t span = thrust_kernel::span<System>(n);
    b.for_each_index(pixels * n / span, conv_finish<T>{rest, span});
  }
}

/// dx (+)= gradient of x, dx2 (+)= gradient of x2 (either may be null).
template <class System, class T>
void conv_backward_input(const thrust_backend<System>& b,
                         const conv_problem<T>& p,
                         const T* dy,
                         T* dx,
                         bool accumulate,
                         T* dx2,
                         bool accumulate2) {
  using namespace thrust_kernel;
  const index_t n = p.out_channels;
  const index_t patch = p.patch_size();
  if (p.pointwise()) {
    const index_t pixels = p.all_out_pixels();
    const auto one = [&](index_t c, const T* w, T* to, bool add) {
      const matrix_view<const T> weight{w, c, n};
      const matrix_view<T> gradient{to, pixels, c};
      if (to)
        multiply(b, {dy, pixels, n}, weight.transposed(), gradient, 1, add ? 1 : 0);
    };
    one(p.channels, p.weight, dx, accumulate);
    one(p.channels2, p.weight + p.channels * n, dx2, accumulate2);
    return;
  }
  if (!dx)
    return;
  const index_t per_row = p.out_pixels();
  // Whole images at a time, since a pixel of dx gathers from patches of all around it.
  const index_t fit = patch_block(p.rows * per_row, patch) / per_row;
  const index_t block = fit < 1 ? 1 : fit;
  const index_t span = thrust_kernel::span<System>(p.channels);
  const matrix_view<const T> weight{p.weight, patch, n};
  T* patches = b.template workspace<T>(3, block * per_row * patch);
  for (index_t row = 0; row < p.rows; row += block) {
    const index_t rows = row + block < p.rows ? block : p.rows - row;
    const index_t pixels = rows * per_row;
    const index_t values = rows * p.height * p.width * p.channels;  // of dx
    multiply(b, {dy + row * per_row * n, pixels, n}, weight.transposed(),
             matrix_view<T>{patches, pixels, patch});
    b.for_each_index(values / span, scatter_patches<T>{p, row, span, patches, dx, accumulate});
  }
}

/// dweight += gradient of the weights.
template <class System, class T>
void conv_backward_weight(const thrust_backend<System>& b,
                          const conv_problem<T>& p,
                          const T* dy,
                          T* dweight) {
  using namespace thrust_kernel;
  const index_t n = p.out_channels;
  const index_t pixels = p.all_out_pixels();
  const index_t patch = p.patch_size();
  if (p.pointwise()) {
    const auto one = [&](index_t c, const T* x, T* to) {
      const matrix_view<const T> image{x, pixels, c};
      const matrix_view<T> gradient{to, c, n};
      multiply(b, image.transposed(), {dy, pixels, n}, gradient, 1, 1);
    };
    one(p.channels, p.x, dweight);
    if (p.channels2)
      one(p.channels2, p.x2, dweight + p.channels * n);
    return;
  }
  const index_t block = patch_block(pixels, patch);
  const index_t span = thrust_kernel::span<System>(p.channels);
  T* patches = b.template workspace<T>(3, block * patch);
  for (index_t first = 0; first < pixels; first += block) {
    const index_t count = first + block < pixels ? block : pixels - first;
    b.for_each_index(count * patch / span, gather_patches<T>{p, first, span, patches});
    const matrix_view<const T> rows{patches, count, patch};
    const matrix_view<T> gradient{dweight, patch, n};
    multiply(b, rows.transposed(), {dy + first * n, count, n}, gradient, 1, 1);
  }
}

}  // namespace multistage
