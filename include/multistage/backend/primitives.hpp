// The arguments of the primitives that every backend implements, as plain values: extents and
// pointers into the backend's memory, contiguous NHWC. Null pointers stand for operands that
// are absent. Where a primitive writes gradients, `accumulate` tells whether it adds to what is
// there.
#pragma once
#include <type_traits>

#include "../core/config.hpp"

namespace multistage {

/// A matrix in the backend's memory. Strides are in elements and may be any: a matrix given by
/// data, rows and columns alone lies row after row; a transposed one is the same memory with
/// its strides exchanged.
template <class T>
struct matrix_view {
  T* data = nullptr;
  index_t rows = 0;
  index_t columns = 0;
  index_t row_stride = columns;
  index_t column_stride = 1;

  constexpr matrix_view transposed() const {
    return {data, columns, rows, column_stride, row_stride};
  }
  /// A mutable matrix reads as a const one.
  template <class U>
  requires(std::is_same_v<U, const T> && !std::is_const_v<T>) constexpr
  operator matrix_view<U>() const {
    return {data, rows, columns, row_stride, column_stride};
  }
};

/// The factors of a product, for deduction from the result alone: multiply(backend, a, b, c,
/// alpha, beta) is each backend's C = alpha A B + beta C, with any strides for all three; C
/// must not lie over A or B.
template <class T>
using factor = std::type_identity_t<matrix_view<const T>>;
template <class T>
using scalar = std::type_identity_t<T>;

/// A convolution y = scale (conv([x, x2], weight) + bias + row_bias + residual). The input's
/// channels may come from two tensors, so that a concatenation needs no buffer; the second is
/// allowed for 1x1 kernels of stride 1. Weights are [kernel, kernel, in, out].
template <class T>
struct conv_problem {
  index_t rows;
  index_t height;
  index_t width;
  index_t channels;
  index_t channels2;
  index_t out_height;
  index_t out_width;
  index_t out_channels;
  // zeros before the first row and column; those behind follow from the output's extents
  int kernel;
  int stride;
  int padding;
  const T* x;                   ///< [rows, height, width, channels]
  const T* x2 = nullptr;        ///< [rows, height, width, channels2]
  const T* weight = nullptr;    ///< [kernel, kernel, channels + channels2, out_channels]
  const T* bias = nullptr;      ///< [out_channels]
  const T* row_bias = nullptr;  ///< [rows, out_channels]
  const T* residual = nullptr;  ///< like y; may be y's own memory
  T scale = T(1);
  T* y = nullptr;  ///< [rows, out_height, out_width, out_channels]
  const T* prepared =
      nullptr;  ///< the backend's own form of the weights (conv_prepare), or null

  constexpr bool pointwise() const {
    return kernel == 1 && stride == 1 && padding == 0;
  }
  constexpr bool same3x3() const {
    return kernel == 3 && stride == 1 && padding == 1 && out_height == height &&
           out_width == width;
  }
  constexpr index_t out_pixels() const {
    return out_height * out_width;
  }
};

/// Group normalisation (Wu and He 2018) of [x, x2], then an optional modulation z (1 +
/// row_scale) + row_shift (FiLM), then an optional SiLU. A group may lie across the border
/// between x and x2.
template <class T>
struct norm_problem {
  index_t rows;
  index_t pixels;
  index_t channels;
  index_t channels2;
  index_t groups;
  T epsilon;
  bool silu;
  const T* x;                     ///< [rows, pixels, channels]
  const T* x2 = nullptr;          ///< [rows, pixels, channels2]
  const T* weight = nullptr;      ///< [channels + channels2]
  const T* bias = nullptr;        ///< [channels + channels2]
  const T* modulation = nullptr;  ///< [rows, 2 (channels + channels2)], scales first
  T* statistics = nullptr;        ///< [rows, groups, 2]: mean and reciprocal standard deviation
  T* y = nullptr;                 ///< [rows, pixels, channels + channels2]

  constexpr index_t all_channels() const {
    return channels + channels2;
  }
};

/// Where norm_backward puts its gradients.
template <class T>
struct norm_gradients {
  const T* dy;      ///< like y
  T* dx = nullptr;  ///< like x; null when not wanted
  bool accumulate = false;
  T* dx2 = nullptr;
  bool accumulate2 = false;
  T* dweight = nullptr;      ///< added to
  T* dbias = nullptr;        ///< added to
  T* dmodulation = nullptr;  ///< like modulation
  bool accumulate_modulation = false;
  T* partials = nullptr;  ///< scratch [rows, 2 (channels + channels2)]
};

/// Depthwise resampling by a rate of 1 or 2 with a separable filter f (its outer product, sum
/// 1), zeros outside. down: y[i] = gain sum_k f[k] x[rate i + k - padding]; up is its
/// transpose: y[rate i + k - padding] += gain f[k] x[i].
template <class T>
struct resample_problem {
  index_t rows;
  index_t height;
  index_t width;
  index_t channels;
  index_t out_height;
  index_t out_width;
  bool up;
  int rate;
  int taps;
  int padding;
  T filter[8];
  T gain;  ///< 1 for down, rate^2 for up: what keeps a constant image constant
  const T* x;
  T* y;
  bool accumulate = false;
};

/// Softmax attention softmax(scale q k^T) v for each row and head, with an element (row, token,
/// head, i) of q at q + row * q_row + token * q_token + head * head_dim + i, likewise for the
/// others. y is [rows, queries, heads, head_dim].
template <class T>
struct attention_problem {
  index_t rows;
  index_t heads;
  index_t queries;
  index_t keys;
  index_t head_dim;
  T scale;
  const T* q;
  const T* k;
  const T* v;
  index_t q_row;
  index_t q_token;
  index_t k_row;
  index_t k_token;
  index_t v_row;
  index_t v_token;
  T* y = nullptr;
  T* log_sum_exp = nullptr;  ///< [rows, heads, queries]; what backward needs, may be null
};

/// Gradients of attention, strided like q, k and v; written, not added to.
template <class T>
struct attention_gradients {
  const T* dy;
  T* dq;
  T* dk;
  T* dv;
};

}  // namespace multistage
