// Convolutions on the CPU, three ways: 1x1 kernels are matrix products on the image as it lies;
// 3x3 kernels of stride 1 go by Winograd; everything else gathers blocks of patches (im2col)
// that stay in cache and multiplies those.
//
//   1x1        y [pixels, out] = x [pixels, in] w [in, out]: the image is the matrix
//   3x3        Winograd's algorithm, 4 times fewer multiplications (winograd.hpp)
//   others     patches [pixels, kernel kernel in] of some pixels are gathered, then multiplied
//
// The few pixels of a linear layer are the first way without packing. What surrounds the sum
// (bias, bias by row, residual, scale) is done while a task's results are in cache. A residual
// that lies where the result goes is taken as the C of the product.
#pragma once
#include "reduce.hpp"
#include "winograd.hpp"

namespace multistage::inline MULTISTAGE_ISA {
namespace conv_kernel {

/// Below this many input channels a vector register would stay mostly empty in the transforms.
inline constexpr index_t winograd_channels = 8;
/// Whether a forward pass goes by Winograd's algorithm; what conv_prepare makes depends on it.
template <class T>
bool use_winograd(const conv_problem<T>& p) {
  return p.same3x3() && p.channels >= winograd_channels;
}

/// A linear layer of few rows, or a small image: packing the weights would cost more than the
/// product.
template <class T>
bool few_pixels(const conv_problem<T>& p) {
  return p.pointwise() && p.all_out_pixels() <= 4 * gemm_kernel::tile_rows;
}
/// The weights in panels, those of x2 behind those of x.
template <class T>
index_t packed_size(const conv_problem<T>& p) {
  const index_t n = p.out_channels;
  return gemm_kernel::packed_size<T>(p.patch_size(), n) +
         gemm_kernel::packed_size<T>(p.channels2, n);
}
/// Both in panels, one behind the other.
template <class T>
void pack(const cpu& b, const conv_problem<T>& p, T* to) {
  const index_t patch = p.patch_size();
  const index_t n = p.out_channels;
  gemm_kernel::pack(b, patch, n, p.weight, n, index_t(1), to);
  if (p.channels2) {
    const T* weight2 = p.weight + patch * n;  // [channels2, out]
    T* const behind = to + gemm_kernel::packed_size<T>(patch, n);
    gemm_kernel::pack(b, p.channels2, n, weight2, n, index_t(1), behind);
  }
}

/// Output pixels a task takes, from the length of a patch: whole register tiles, at least eight
/// tasks if there is work.
inline index_t pixels_per_task(index_t pixels, index_t patch) {
  constexpr index_t R = gemm_kernel::tile_rows;
  constexpr index_t values = index_t{64} << 10;  // of patches that stay in a task's cache
  const index_t in_cache = values / std::max<index_t>(patch, 1);
  const index_t whole_tiles = std::clamp<index_t>(in_cache, 2 * R, 256) / R * R;
  const index_t for_eight_tasks = round_up(divide_up(pixels, 8), R);
  return std::max(R, std::min(whole_tiles, for_eight_tasks));
}

/// patches [count, kernel, kernel, channels] of the output pixels [first, first + count)
/// counted over the batch.
template <class T>
void gather(const conv_problem<T>& p, index_t first, index_t count, T* to) {
  const index_t c = p.channels;
  for (index_t k = 0; k < count; ++k) {
    const index_t pixel = (first + k) % p.out_pixels();
    const index_t row = (first + k) / p.out_pixels();
    const index_t top = p.top(pixel);
    const index_t left = p.left(pixel);
    const T* image = p.x + row * p.height * p.width * c;  // [height, width, channels]
    for (int u = 0; u < p.kernel; ++u)
      for (int v = 0; v < p.kernel_width; ++v, to += c) {
        const index_t i = top + u;
        const index_t j = left + v;
        if (p.inside(i, j))
          std::copy_n(image + (i * p.width + j) * c, c, to);
        else
          std::fill_n(to, c, T(0));
      }
  }
}

/// y = scale (y + bias + row_bias + residual) over output pixels [first, first + count).
template <class T>
void finish(const conv_problem<T>& p, index_t first, index_t count) {
  const index_t n = p.out_channels;
  for (index_t k = first; k < first + count; ++k) {
    T* MULTISTAGE_RESTRICT y = p.y + k * n;
    if (p.bias)
      for (index_t o = 0; o < n; ++o)
        y[o] += p.bias[o];
    if (p.row_bias) {
      const index_t row = k / p.out_pixels();
      const T* MULTISTAGE_RESTRICT r = p.row_bias + row * n;
      for (index_t o = 0; o < n; ++o)
        y[o] += r[o];
    }
    if (p.residual) {
      const T* r = p.residual + k * n;
      for (index_t o = 0; o < n; ++o)
        y[o] += r[o];
    }
    if (p.scale != T(1))
      for (index_t o = 0; o < n; ++o)
        y[o] *= p.scale;
  }
}

/// The problem without its residual, which lies where the sum goes and is there already when
/// the sum is added to it.
template <class T>
conv_problem<T> without_residual(const conv_problem<T>& p) {
  conv_problem<T> q = p;
  q.residual = nullptr;
  return q;
}
/// Whether the residual lies where the sum goes.
template <class T>
bool adds_in_place(const conv_problem<T>& p) {
  return p.residual == p.y && p.residual != nullptr;
}

/// y [pixels, out] = x [pixels, in] w [in, out] where the pixels are few: a task is a register
/// tile's columns, and the weights are read as they lie.
template <class T>
void multiply_few_pixels(const cpu& b, const conv_problem<T>& p) {
  constexpr index_t columns = gemm_kernel::tile_columns<T>;
  const bool in_place = adds_in_place(p);
  const index_t pixels = p.all_out_pixels();
  const index_t n = p.out_channels;
  b.pool().parallel_for(divide_up(n, columns), [&](index_t task) {
    const index_t j = task * columns;
    const index_t width = std::min(columns, n - j);
    const matrix_view<T> y{p.y + j, pixels, width, n};
    const auto add = [&](const T* x, index_t channels, const T* w, T beta) {
      const matrix_view<const T> weights{w + j, channels, width, n};
      gemm_kernel::multiply({x, pixels, channels}, weights, y, 1, beta);
    };
    add(p.x, p.channels, p.weight, in_place ? T(1) : T(0));
    if (p.channels2)
      add(p.x2, p.channels2, p.weight + p.channels * n, T(1));
  });
  finish(in_place ? without_residual(p) : p, 0, pixels);
}

/// y [pixels, out] = patches [pixels, patch] w [patch, out] with the weights in panels: a task
/// gathers the patches of some pixels, which stay in its cache, and multiplies them. The
/// patches of a 1x1 kernel are the image as it lies.
template <class T>
void multiply_patches(const cpu& b, const conv_problem<T>& p) {
  const bool in_place = adds_in_place(p);
  const conv_problem<T> rest = in_place ? without_residual(p) : p;
  const index_t patch = p.patch_size();
  const index_t pixels = p.all_out_pixels();
  const index_t n = p.out_channels;
  const index_t block = pixels_per_task(pixels, patch + p.channels2);
  scratch_frame scratch;
  const T* packed = p.prepared;
  if (!packed) {
    T* made = scratch.take<T>(packed_size(p));
    pack(b, p, made);
    packed = made;
  }
  const T* packed2 = packed + gemm_kernel::packed_size<T>(patch, n);
  b.pool().parallel_for(divide_up(pixels, block), [&](index_t task) {
    const index_t first = task * block;
    const index_t count = std::min(block, pixels - first);
    const T* a = p.x + first * patch;  // [count, patch]
    scratch_frame of_task;
    if (!p.pointwise()) {
      T* patches = of_task.take<T>(block * patch);
      gather(p, first, count, patches);
      a = patches;
    }
    const matrix_view<T> y{p.y + first * n, count, n};
    gemm_kernel::multiply_packed({a, count, patch}, packed, y, 1, in_place ? 1 : 0);
    if (p.channels2) {
      const T* a2 = p.x2 + first * p.channels2;  // [count, channels2]
      gemm_kernel::multiply_packed({a2, count, p.channels2}, packed2, y, 1, 1);
    }
    finish(rest, first, count);
  });
}

/// image += the patches of output pixels [first, first + count) of one image: what of their
/// gradient belongs to each pixel of x. @param from [count, kernel, kernel_width, channels]
template <class T>
void scatter(const conv_problem<T>& p, index_t first, index_t count, const T* from, T* image) {
  const index_t c = p.channels;
  for (index_t pixel = first; pixel < first + count; ++pixel)
    for (int u = 0; u < p.kernel; ++u)
      for (int v = 0; v < p.kernel_width; ++v, from += c) {
        const index_t i = p.top(pixel) + u;
        const index_t j = p.left(pixel) + v;
        if (!p.inside(i, j))
          continue;
        T* to = image + (i * p.width + j) * c;
        for (index_t q = 0; q < c; ++q)
          to[q] += from[q];
      }
}

/// A problem's weights as winograd.hpp takes them.
template <class T>
winograd::weights<T> winograd_weights(const conv_problem<T>& p) {
  return {p.weight, p.channels, p.out_channels};
}

}  // namespace conv_kernel

/// What is worth keeping between calls: Winograd's transformed weights, panels of others.
template <class T>
index_t conv_prepared_size(const cpu&, const conv_problem<T>& p) {
  using namespace conv_kernel;
  if (use_winograd(p))
    return winograd::kept_size<T>({p.rows, p.height, p.width}, p.channels, p.out_channels);
  return few_pixels(p) ? 0 : packed_size(p);
}
/// Fills what conv_prepared_size counts: U of Winograd's transform, or the weights in panels as
/// gemm.hpp packs them. @param to memory of conv_prepared_size(b, p) elements
template <class T>
void conv_prepare(const cpu& b, const conv_problem<T>& p, T* to) {
  using namespace conv_kernel;
  if (use_winograd(p))
    winograd::transform_weights(b, winograd_weights(p), to);
  else
    pack(b, p, to);
}

/// @see conv_problem.
template <class T>
void conv_forward(const cpu& b, const conv_problem<T>& p) {
  using namespace conv_kernel;
  if (use_winograd(p)) {
    const winograd::epilogue<T> behind{p.bias, p.row_bias, p.residual, p.scale, false};
    winograd::convolve(b, {p.rows, p.height, p.width}, p.x, winograd_weights(p), p.prepared,
                       p.y, behind);
  } else if (few_pixels(p)) {
    multiply_few_pixels(b, p);
  } else {
    multiply_patches(b, p);
  }
}

/// dx (+)= gradient of x, dx2 (+)= gradient of x2 (either may be null), from dy; p.y, bias and
/// residual play no part.
template <class T>
void conv_backward_input(const cpu& b,
                         const conv_problem<T>& p,
                         const T* dy,
                         T* dx,
                         bool accumulate,
                         T* dx2,
                         bool accumulate2) {
  using namespace conv_kernel;
  const index_t n = p.out_channels;
  const index_t pixels = p.all_out_pixels();
  if (p.pointwise()) {
    const auto one = [&](index_t c, const T* w, T* to, bool add) {
      const matrix_view<const T> weights{w, c, n};
      const matrix_view<T> gradient{to, pixels, c};
      if (to)
        multiply(b, {dy, pixels, n}, weights.transposed(), gradient, 1, add ? 1 : 0);
    };
    one(p.channels, p.weight, dx, accumulate);
    if (p.channels2)
      one(p.channels2, p.weight + p.channels * n, dx2, accumulate2);
    return;
  }
  if (!dx)
    return;
  if (p.same3x3() && n >= winograd_channels) {
    const winograd::weights<T> turned{p.weight, p.channels, n, true};
    const T* const none_prepared = nullptr;
    return winograd::convolve(b, {p.rows, p.height, p.width}, dy, turned, none_prepared, dx,
                              winograd::epilogue<T>{.accumulate = accumulate});
  }
  // Patches of neighbouring outputs overlap: one task an image keeps the order of additions.
  const index_t c = p.channels;
  const index_t patch = p.patch_size();
  const matrix_view<const T> weights{p.weight, patch, n};
  const index_t block = pixels_per_task(p.out_pixels(), patch);
  b.pool().parallel_for(p.rows, [&](index_t row) {
    T* image = dx + row * p.height * p.width * c;
    if (!accumulate)
      std::fill_n(image, p.height * p.width * c, T(0));
    scratch_frame scratch;
    T* patches = scratch.take<T>(block * patch);
    for (index_t first = 0; first < p.out_pixels(); first += block) {
      const index_t count = std::min(block, p.out_pixels() - first);
      const T* dy_here = dy + (row * p.out_pixels() + first) * n;  // [count, out]
      gemm_kernel::multiply({dy_here, count, n}, weights.transposed(),
                            matrix_view<T>{patches, count, patch});
      scatter<T>(p, first, count, patches, image);
    }
  });
}

/// dweight [kernel, kernel, channels + channels2, out] += gradient of the weights.
template <class T>
void conv_backward_weight(const cpu& b, const conv_problem<T>& p, const T* dy, T* dweight) {
  using namespace conv_kernel;
  const index_t n = p.out_channels;
  const index_t pixels = p.all_out_pixels();
  if (use_winograd(p))
    return winograd::weight_gradient(b, {p.rows, p.height, p.width}, p.x, p.channels, dy, n,
                                     dweight);
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
  const index_t patch = p.patch_size();
  // About a million values of patches are made at a time, so that memory does not grow with
  // the image; tasks gather 64 of them each.
  const index_t few = 64;
  const index_t fit = (index_t{1} << 20) / patch;
  const index_t chunk = std::clamp(fit, few, std::max(pixels, few));
  const matrix_view<T> gradient{dweight, patch, n};
  scratch_frame scratch;
  T* patches = scratch.take<T>(chunk * patch);
  for (index_t first = 0; first < pixels; first += chunk) {
    const index_t count = std::min(chunk, pixels - first);
    b.pool().parallel_for(divide_up(count, few), [&](index_t task) {
      const index_t begin = task * few;
      const index_t own = std::min(few, count - begin);
      gather(p, first + begin, own, patches + begin * patch);
    });
    const matrix_view<const T> rows{patches, count, patch};
    multiply(b, rows.transposed(), {dy + first * n, count, n}, gradient, 1, 1);
  }
}

}  // namespace multistage::inline MULTISTAGE_ISA
