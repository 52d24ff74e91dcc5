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
  T* data = nullptr;             ///< element (0, 0)
  index_t rows = 0;              ///< from top to bottom
  index_t columns = 0;           ///< from left to right
  index_t row_stride = columns;  ///< elements from a row to the next
  index_t column_stride = 1;     ///< elements from a column to the next

  /// The same memory with rows and columns exchanged.
  constexpr matrix_view transposed() const {
    return {data, columns, rows, column_stride, row_stride};
  }
  /// Rows [first, first + count).
  constexpr matrix_view middle_rows(index_t first, index_t count) const {
    return {data + first * row_stride, count, columns, row_stride, column_stride};
  }
  /// Columns [first, first + count).
  constexpr matrix_view middle_columns(index_t first, index_t count) const {
    return {data + first * column_stride, rows, count, row_stride, column_stride};
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
/// A number beside such factors, which takes no part in deduction either.
template <class T>
using scalar = std::type_identity_t<T>;

/// A convolution y = scale (conv([x, x2], weight) + bias + row_bias + residual). The input's
/// channels may come from two tensors, so that a concatenation needs no buffer; the second is
/// allowed for 1x1 kernels of stride 1. Weights are [kernel, kernel_width, in, out].
template <class T>
struct conv_problem {
  index_t rows;          ///< images
  index_t height;        ///< of the input
  index_t width;         ///< of the input
  index_t channels;      ///< of x
  index_t channels2;     ///< of x2; 0 without it
  index_t out_height;    ///< of the result
  index_t out_width;     ///< of the result
  index_t out_channels;  ///< of the result
  int kernel;            ///< rows of the filter
  int stride;            ///< pixels from one row of outputs to the next
  /// Of zeros before the first row; what is behind the last follows from the result's extents.
  int padding;
  int kernel_width = kernel;    ///< columns of the filter
  int stride_width = stride;    ///< pixels from one column of outputs to the next
  int padding_width = padding;  ///< of zeros before the first column
  const T* x;                   ///< [rows, height, width, channels]
  const T* x2 = nullptr;        ///< [rows, height, width, channels2]
  const T* weight = nullptr;    ///< [kernel, kernel_width, channels + channels2, out]
  const T* bias = nullptr;      ///< [out_channels]
  const T* row_bias = nullptr;  ///< [rows, out_channels]
  const T* residual = nullptr;  ///< like y; may be y's own memory
  T scale = T(1);               ///< of the whole sum
  T* y = nullptr;               ///< [rows, out_height, out_width, out_channels]
  /// The backend's own form of the weights (conv_prepare), or null.
  const T* prepared = nullptr;

  /// Whether it is a matrix product of pixels and channels.
  MULTISTAGE_HD constexpr bool pointwise() const {
    return taps() == 1 && stride == 1 && stride_width == 1 && padding == 0 &&
           padding_width == 0 && out_height == height && out_width == width;
  }
  /// Whether it is of the kind that Winograd's algorithm serves.
  MULTISTAGE_HD constexpr bool same3x3() const {
    return square() && kernel == 3 && stride == 1 && padding == 1 && out_height == height &&
           out_width == width;
  }
  /// Whether all is along the width as along the height.
  MULTISTAGE_HD constexpr bool square() const {
    return kernel_width == kernel && stride_width == stride && padding_width == padding;
  }
  /// Pixels that the filter covers.
  MULTISTAGE_HD constexpr index_t taps() const {
    return index_t{kernel} * kernel_width;
  }
  /// Pixels of one image of the result.
  MULTISTAGE_HD constexpr index_t out_pixels() const {
    return out_height * out_width;
  }
  /// Pixels of all images of the result.
  MULTISTAGE_HD constexpr index_t all_out_pixels() const {
    return rows * out_pixels();
  }
  /// Values of a patch: what an output pixel reads of x, [kernel, kernel_width, channels].
  MULTISTAGE_HD constexpr index_t patch_size() const {
    return taps() * channels;
  }
  /// The first row of x that output pixel `pixel` of an image reads; below 0 in the padding.
  MULTISTAGE_HD constexpr index_t top(index_t pixel) const {
    return pixel / out_width * stride - padding;
  }
  /// The first column of x that output pixel `pixel` of an image reads.
  MULTISTAGE_HD constexpr index_t left(index_t pixel) const {
    return pixel % out_width * stride_width - padding_width;
  }
  /// Whether a place is one of x, not of the padding around it.
  MULTISTAGE_HD constexpr bool inside(index_t i, index_t j) const {
    return i >= 0 && i < height && j >= 0 && j < width;
  }
};

/// Group normalisation (Wu and He 2018) of [x, x2], then an optional modulation z (1 +
/// row_scale) + row_shift (FiLM), then an optional SiLU. A group may lie across the border
/// between x and x2.
template <class T>
struct norm_problem {
  index_t rows;       ///< images
  index_t pixels;     ///< of one image
  index_t channels;   ///< of x
  index_t channels2;  ///< of x2; 0 without it
  index_t groups;     ///< of neighbouring channels; their number divides that of the channels
  T epsilon;          ///< added to the variance
  bool silu;          ///< whether SiLU follows
  const T* x;         ///< [rows, pixels, channels]
  const T* x2 = nullptr;          ///< [rows, pixels, channels2]
  const T* weight = nullptr;      ///< [channels + channels2]
  const T* bias = nullptr;        ///< [channels + channels2]
  const T* modulation = nullptr;  ///< [rows, 2 (channels + channels2)], scales first
  T* statistics = nullptr;        ///< [rows, groups, 2]: mean and reciprocal standard deviation
  T* y = nullptr;                 ///< [rows, pixels, channels + channels2]

  /// Channels of x and x2 together.
  constexpr index_t all_channels() const {
    return channels + channels2;
  }
  /// Channels of a group.
  constexpr index_t group_channels() const {
    return all_channels() / groups;
  }
  /// Values of a row of y.
  constexpr index_t row_size() const {
    return pixels * all_channels();
  }
  /// One row of x, [pixels, channels].
  constexpr const T* x_of(index_t row) const {
    return x + row * pixels * channels;
  }
  /// One row of x2, [pixels, channels2]; null without it.
  constexpr const T* x2_of(index_t row) const {
    return channels2 > 0 ? x2 + row * pixels * channels2 : nullptr;
  }
  /// One row of the modulation, scales [all_channels] then shifts; null without it.
  constexpr const T* modulation_of(index_t row) const {
    return modulation ? modulation + row * 2 * all_channels() : nullptr;
  }
  /// One row of the statistics, [groups, 2].
  constexpr T* statistics_of(index_t row) const {
    return statistics + row * groups * 2;
  }
  /// One row of y, [pixels, all_channels].
  constexpr T* y_of(index_t row) const {
    return y + row * row_size();
  }
};

/// How rows are cut where gradients of parameters are sums over them: at multiples of `size`
/// rows, counted from the first row of the batch that a step is on. The gradient is a chain of
/// additions over such pieces, so that a step done in several parts, cut there, adds up the
/// same numbers in the same order as the step done at once. (What several processes do at once
/// is no chain: a step's rows are cut into shards besides, graph/shard_sums.hpp.)
struct row_pieces {
  index_t size = 0;   ///< rows of a piece; 0: all of them
  index_t first = 0;  ///< place in that batch of the first of the rows at hand

  /// Calls f(first, count) for the pieces of `rows` rows, counted from 0.
  template <class F>
  constexpr void each(index_t rows, F&& f) const {
    for (index_t begin = 0; begin < rows;) {
      const index_t room = size > 0 ? size - (first + begin) % size : rows;
      const index_t count = room < rows - begin ? room : rows - begin;
      f(begin, count);
      begin += count;
    }
  }
  /// The same where each row is `many`.
  constexpr row_pieces times(index_t many) const {
    return {size * many, first * many};
  }
};

/// Where norm_backward puts its gradients.
template <class T>
struct norm_gradients {
  const T* dy;                         ///< like y
  T* dx = nullptr;                     ///< like x; null when not wanted
  bool accumulate = false;             ///< whether dx is added to
  T* dx2 = nullptr;                    ///< like x2; null when not wanted
  bool accumulate2 = false;            ///< whether dx2 is added to
  T* dweight = nullptr;                ///< added to
  T* dbias = nullptr;                  ///< added to
  T* dmodulation = nullptr;            ///< like modulation
  bool accumulate_modulation = false;  ///< whether dmodulation is added to
  T* partials = nullptr;               ///< scratch [rows, 2 (channels + channels2)]
  row_pieces pieces{};                 ///< over which dweight and dbias are summed
};

/// Depthwise resampling by a rate of 1 or 2 with a separable filter f (its outer product, sum
/// 1), zeros outside. down: y[i] = gain sum_k f[k] x[rate i + k - padding]; up is its
/// transpose: y[rate i + k - padding] += gain f[k] x[i].
template <class T>
struct resample_problem {
  index_t rows;             ///< images
  index_t height;           ///< of x
  index_t width;            ///< of x
  index_t channels;         ///< of both
  index_t out_height;       ///< of y
  index_t out_width;        ///< of y
  bool up;                  ///< to more pixels, else to fewer
  int rate;                 ///< 1 or 2
  int taps;                 ///< length of the filter, at most 8
  int padding;              ///< of zeros before the first row and column, as above
  T filter[8];              ///< f, of which the first `taps` count
  T gain;                   ///< 1 for down, rate^2 for up: what keeps a constant image constant
  const T* x;               ///< [rows, height, width, channels]
  T* y;                     ///< [rows, out_height, out_width, channels]
  bool accumulate = false;  ///< whether y is added to
};

/// Softmax attention softmax(scale q k^T) v for each row and head, with an element (row, token,
/// head, i) of q at q + row * q_row + token * q_token + head * head_dim + i, likewise for the
/// others. y is [rows, queries, heads, head_dim].
template <class T>
struct attention_problem {
  index_t rows;              ///< images
  index_t heads;             ///< parts of the channels that attend by themselves
  index_t queries;           ///< tokens that ask: those of y
  index_t keys;              ///< tokens that are asked
  index_t head_dim;          ///< channels of a head
  T scale;                   ///< of the scores, usually 1 / sqrt(head_dim)
  const T* q;                ///< queries
  const T* k;                ///< keys
  const T* v;                ///< values
  index_t q_row;             ///< elements from a row of q to the next
  index_t q_token;           ///< elements from a token of q to the next
  index_t k_row;             ///< of k
  index_t k_token;           ///< of k
  index_t v_row;             ///< of v
  index_t v_token;           ///< of v
  T* y = nullptr;            ///< [rows, queries, heads, head_dim]
  T* log_sum_exp = nullptr;  ///< [rows, heads, queries]; what backward needs, may be null

  /// Where in q a token's vector [head_dim] of a head begins.
  MULTISTAGE_HD constexpr index_t q_at(index_t row, index_t head, index_t token = 0) const {
    return row * q_row + token * q_token + head * head_dim;
  }
  /// The same of k.
  MULTISTAGE_HD constexpr index_t k_at(index_t row, index_t head, index_t token = 0) const {
    return row * k_row + token * k_token + head * head_dim;
  }
  /// The same of v.
  MULTISTAGE_HD constexpr index_t v_at(index_t row, index_t head, index_t token = 0) const {
    return row * v_row + token * v_token + head * head_dim;
  }
  /// The same of y.
  MULTISTAGE_HD constexpr index_t y_at(index_t row, index_t head, index_t token = 0) const {
    return ((row * queries + token) * heads + head) * head_dim;
  }
  /// Elements from a token of y to the next.
  MULTISTAGE_HD constexpr index_t y_token() const {
    return heads * head_dim;
  }
  /// One row and head's log-sum-exps, [queries]; null where they are not kept.
  MULTISTAGE_HD constexpr T* log_sum_exp_of(index_t row, index_t head) const {
    return log_sum_exp ? log_sum_exp + (row * heads + head) * queries : nullptr;
  }
};

/// Gradients of attention, strided like q, k and v; written, not added to.
template <class T>
struct attention_gradients {
  const T* dy;  ///< like y
  T* dq;        ///< strided like q
  T* dk;        ///< strided like k
  T* dv;        ///< strided like v
};

}  // namespace multistage
