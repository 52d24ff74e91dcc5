// Vector quantisation (van den Oord, Vinyals, Kavukcuoglu, arXiv 1711.00937): each pixel of z
// becomes the code nearest to it by squared distance, the lowest index on a tie. Gradients pass
// straight through to z; the loss beside it,
//   L = beta mean |sg(zq) - z|^2 + mean |zq - sg(z)|^2,
// pulls pixels to their codes and codes to their pixels (means over all values).
//
// Straight through: the gradient of zq is taken for that of z, as if codes were z itself; what
// ties the two together is the loss. Distances are computed in double, so that the choice of a
// code hardly ever hangs on rounding.
#pragma once
#include <cmath>

#include "shape_rules.hpp"

namespace multistage::ops {

namespace functor {
/// The code nearest to a pixel; the first of several.
template <class T>
struct nearest_code {
  const T* z;
  const T* codes;
  index_t count;
  index_t channels;
  index_t* index;
  T* quantized;
  MULTISTAGE_HD void operator()(index_t pixel) const {
    const T* at = z + pixel * channels;
    index_t best = 0;
    double least = HUGE_VAL;
    for (index_t k = 0; k < count; ++k) {
      double sum = 0;
      for (index_t c = 0; c < channels; ++c) {
        const double d = double(at[c]) - double(codes[k * channels + c]);
        sum += d * d;
      }
      if (sum < least) {
        least = sum;
        best = k;
      }
    }
    index[pixel] = best;
    for (index_t c = 0; c < channels; ++c)
      quantized[pixel * channels + c] = codes[best * channels + c];
  }
};
/// dz = dzq + 2 beta / n (z - zq)
template <class T>
struct quantized_backward {
  const T* z;
  const T* quantized;
  const T* dquantized;
  T factor;
  T* dz;
  MULTISTAGE_HD void operator()(index_t i) const {
    dz[i] = dquantized[i] + factor * (z[i] - quantized[i]);
  }
};
/// dcode += 2 / n sum over the code's pixels of (code - z), in the order of the pixels.
template <class T>
struct codes_backward {
  const T* z;
  const T* codes;
  const index_t* index;
  index_t pixels;
  index_t channels;
  T factor;
  T* dcodes;
  MULTISTAGE_HD void operator()(index_t k) const {
    const T* const code = codes + k * channels;  // [channels]
    T* const dcode = dcodes + k * channels;      // [channels]
    for (index_t p = 0; p < pixels; ++p) {
      if (index[p] != k)
        continue;
      const T* const pixel = z + p * channels;  // [channels]
      for (index_t c = 0; c < channels; ++c)
        dcode[c] += factor * (code[c] - pixel[c]);
    }
  }
};
}  // namespace functor

/// quantized like z [rows, h, w, c] and index [rows h w] from codes [1, 1, n, c]. @throws
/// shape_error
template <class Backend, class T>
void quantize(Backend& b, input<T> z, input<T> codes, index_t* index, view<T> quantized) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  const index_t c = z.extents.channels;
  expect_packed("quantize", "z", z);
  require<value_error>(codes.extents.width >= 1, "quantize: no codes are given");
  expect("quantize", "codes", codes, shape{1, 1, codes.extents.width, c});
  expect("quantize", "quantized", quantized, z.extents);
  const index_t pixels = z.extents.rows * z.extents.pixels();
  const index_t count = codes.extents.width;
  const functor::nearest_code<T> nearest{z.data, codes.data, count, c, index, quantized.data};
  b.for_each_index(pixels, nearest, 64);
}

/// dz = the gradient straight through from dquantized and that of L; dcodes (empty: not wanted)
/// is added to. @param beta weight of the commitment.
template <class Backend, class T>
void quantize_backward(Backend& b,
                       input<T> z,
                       input<T> codes,
                       const index_t* index,
                       input<T> quantized,
                       input<T> dquantized,
                       double beta,
                       view<T> dz,
                       view<T> dcodes) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  const index_t c = z.extents.channels;
  const index_t n = z.extents.size();
  expect_packed("quantize_backward", "z", z);
  expect("quantize_backward", "codes", codes, shape{1, 1, codes.extents.width, c});
  expect("quantize_backward", "quantized", quantized, z.extents);
  expect("quantize_backward", "dquantized", dquantized, z.extents);
  expect("quantize_backward", "dz", dz, z.extents);
  expect_optional("quantize_backward", "dcodes", dcodes, codes.extents);
  const T by_pixel = T(2 * beta / double(n));
  const T by_code = T(2 / double(n));
  const functor::quantized_backward<T> of_pixels{z.data, quantized.data, dquantized.data,
                                                 by_pixel, dz.data};
  b.for_each_index(n, of_pixels);
  if (!dcodes)
    return;
  const functor::codes_backward<T> of_codes{
      .z = z.data,
      .codes = codes.data,
      .index = index,
      .pixels = n / c,
      .channels = c,
      .factor = by_code,
      .dcodes = dcodes.data,
  };
  b.for_each_index(codes.extents.width, of_codes, 16);
}

}  // namespace multistage::ops
