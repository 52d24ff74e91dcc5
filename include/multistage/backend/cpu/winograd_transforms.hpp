// Winograd's transforms of tiles: of images, of weights, of what comes out of the products, and
// of the weights' gradient. Each applies a matrix (winograd_matrices.hpp) to the columns and
// then to the rows of a block of pixels, for some vectors of channels at a time, and puts the
// results, one a position, into planes [position][tile or row][channel] as the products read
// them.
#pragma once
#include "gemm.hpp"
#include "winograd_matrices.hpp"

namespace multistage::inline MULTISTAGE_ISA::winograd {

/// Distance between the planes of two positions: `n` elements and one cache line, so that the
/// 36 planes, which are written side by side, do not all fall into the same cache set when n is
/// a power of two.
template <class T>
constexpr index_t plane(index_t n) {
  return n + 64 / index_t(sizeof(T));
}

/// The tiles of a batch of images.
struct tiling {
  index_t rows;    ///< images
  index_t height;  ///< of an image, in pixels
  index_t width;   ///< of an image, in pixels
  /// Tiles from left to right; the last may reach beyond the image.
  index_t across() const {
    return divide_up(width, 4);
  }
  /// Tiles of one image.
  index_t per_image() const {
    return divide_up(height, 4) * across();
  }
  /// Tiles of the batch, numbered image after image, row after row.
  index_t count() const {
    return rows * per_image();
  }
  /// Which image a tile lies in, and its upper left pixel there.
  struct place {
    index_t row;   ///< image
    index_t top;   ///< pixels from the top
    index_t left;  ///< pixels from the left
  };
  /// The place of a tile by its number.
  place at(index_t tile) const {
    const index_t in_image = tile % per_image();
    return {tile / per_image(), in_image / across() * 4, in_image % across() * 4};
  }
};

// Blocks are transformed in two passes, columns then rows, over a few vectors of channels at a
// time: what lies between stays in the first-level cache, no more than a dozen registers are
// live, and each pass reads and writes a handful of streams.

/// Vectors of channels that go through both passes together.
inline constexpr int stretch = 4;
/// The channels of a stretch, in whole registers.
template <class T>
inline constexpr index_t stretch_channels = index_t(simd::lanes<T>) * stretch;

/// What lies outside an image.
template <class T>
inline const T* nothing() {
  alignas(64) static const T zeros[stretch_channels<T>] = {};
  return zeros;
}

/// f(first channel, channels, vectors, whole) for stretches of channels; `whole` is a constant:
/// whether all vectors are full.
template <class T, class F>
inline void for_each_stretch(index_t channels, F&& f) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t S = stretch_channels<T>;
  for (index_t c = 0; c < channels; c += S) {
    const index_t have = std::min(S, channels - c);
    if (have % L == 0)
      f(c, have, int(have / L), std::true_type());
    else
      f(c, have, int(divide_up(have, L)), std::false_type());
  }
}
/// Vector v of a stretch of `have` channels, which may end inside it unless it is whole.
template <bool Whole, class T>
inline simd::vec<T> load_of(const T* p, int v, index_t have) {
  constexpr index_t L = simd::lanes<T>;
  return Whole || have >= (v + 1) * L ? simd::load(p + v * L)
                                      : simd::load_partial(p + v * L, have - v * L);
}
/// The counterpart of load_of: lanes beyond the stretch's channels are not written.
template <bool Whole, class T>
inline void store_of(T* p, int v, index_t have, simd::vec<T> value) {
  constexpr index_t L = simd::lanes<T>;
  if (Whole || have >= (v + 1) * L)
    simd::store(p + v * L, value);
  else
    simd::store_partial(p + v * L, value, have - v * L);
}

/// Blocks of Size x Size pixels whose first lies at (top, left) + offset, transformed to 6 x 6
/// positions: V[position][tile - first][channel, padded to whole vectors] for tiles [first,
/// first + count). `transform` is one-dimensional, from Size to 6.
template <int Size, class T, class Transform>
void transform_tiles(const tiling& t,
                     const T* x,
                     int offset,
                     index_t channels,
                     index_t first,
                     index_t count,
                     T* to_planes,
                     index_t pitch,
                     Transform&& transform) {
  using vec = simd::vec<T>;
  constexpr int L = simd::lanes<T>;
  const index_t padded = round_up(channels, L);
  vec half[6][Size][stretch];
  for (index_t k = 0; k < count; ++k) {
    const tiling::place at = t.at(first + k);
    const T* image = x + at.row * t.height * t.width * channels;
    T* to = to_planes + k * padded;
    for_each_stretch<T>(channels, [&](index_t c, index_t have, int vectors, auto whole) {
      for (int j = 0; j < Size; ++j) {
        const T* from[Size];
        for (int i = 0; i < Size; ++i) {
          const index_t y = at.top + offset + i;
          const index_t z = at.left + offset + j;
          from[i] = y >= 0 && y < t.height && z >= 0 && z < t.width
                        ? image + (y * t.width + z) * channels + c
                        : nothing<T>();
        }
        for (int v = 0; v < vectors; ++v) {
          vec d[Size];
          vec e[6];
          MULTISTAGE_UNROLL(6)
          for (int i = 0; i < Size; ++i)
            d[i] = load_of<whole>(from[i], v, have);
          transform(d, 1, e, 1);
          MULTISTAGE_UNROLL(6)
          for (int i = 0; i < 6; ++i)
            half[i][j][v] = e[i];
        }
      }
      for (int i = 0; i < 6; ++i)
        for (int v = 0; v < vectors; ++v) {
          vec d[Size];
          vec e[6];
          MULTISTAGE_UNROLL(6)
          for (int j = 0; j < Size; ++j)
            d[j] = half[i][j][v];
          transform(d, 1, e, 1);
          MULTISTAGE_UNROLL(6)
          for (int j = 0; j < 6; ++j)
            simd::store(to + (i * 6 + j) * pitch + c + v * L, e[j]);
        }
    });
  }
}
/// B^T d B of the input's tiles.
template <class T>
void transform_input(const tiling& t,
                     const T* x,
                     index_t channels,
                     index_t first,
                     index_t count,
                     T* v,
                     index_t pitch) {
  transform_tiles<6>(t, x, -1, channels, first, count, v, pitch,
                     [](const auto* d, int s, auto* e, int q) { input_transform(d, s, e, q); });
}
/// A dY A^T of the result's gradient.
template <class T>
void transform_gradient(const tiling& t,
                        const T* dy,
                        index_t channels,
                        index_t first,
                        index_t count,
                        T* d,
                        index_t pitch) {
  transform_tiles<4>(
      t, dy, 0, channels, first, count, d, pitch,
      [](const auto* y, int s, auto* m, int q) { output_transposed(y, s, m, q); });
}

/// Weights [3, 3, in, out] as a convolution sees them: for the gradient of its input they are
/// turned by half a turn, in and out exchanged.
template <class T>
struct weights {
  const T* w;   ///< [3, 3, in, out] in memory
  index_t in;   ///< channels of the input of the convolution that the weights belong to
  index_t out;  ///< channels of its result
  bool rotated = false;  ///< for the gradient of the input
  /// Channels that are summed over.
  index_t rows() const {
    return rotated ? out : in;
  }
  /// Channels that come out.
  index_t columns() const {
    return rotated ? in : out;
  }
};

/// How U, the transformed weights, lies: [position][panel][row][column of the panel]. Panels
/// are as wide as a register tile or a little less, so that their number is even and threads
/// that take them in turn end together.
template <class T>
struct panels {
  index_t rows;     ///< channels that are summed over
  index_t vectors;  ///< registers that a row of all columns takes
  index_t count;    ///< how many panels there are
  /// @param k rows of U. @param n its columns, filled up to whole registers
  panels(index_t k, index_t n)
      : rows(k),
        vectors(divide_up(n, index_t(simd::lanes<T>))),
        count(divide_up(vectors, index_t(gemm_kernel::tile_vectors))) {
    if (vectors > 1)
      count = round_up(count, 2);
  }
  /// The first column of panel j.
  index_t first(index_t j) const {
    return vectors * j / count * simd::lanes<T>;
  }
  /// Columns of panel j, whole registers.
  index_t width(index_t j) const {
    return first(j + 1) - first(j);
  }
  /// Where panel j begins in its position, and how far positions are apart.
  index_t offset(index_t j) const {
    return rows * first(j);
  }
  /// Elements from one position to the next.
  index_t pitch() const {
    return plane<T>(offset(count));
  }
  /// Elements of U in all.
  index_t size() const {
    return positions * pitch();
  }
};

/// U = G w G^T for L rows from `row` on (or up to the last) and `width` columns from `column`
/// on, a panel's or fewer; `u` is where the first row goes, positions lie `pitch` apart.
template <class T>
void transform_weight_rows(const weights<T>& w,
                           index_t column,
                           index_t width,
                           index_t row,
                           T* u,
                           index_t pitch) {
  using vec = simd::vec<T>;
  constexpr index_t L = simd::lanes<T>;
  constexpr int V = gemm_kernel::tile_vectors;
  const index_t have = std::min(width, w.columns() - column);
  const index_t rows = std::min(L, w.rows() - row);
  const int vectors = int(width / L);
  // A panel's rows are short pieces far apart, which no cache foresees: each load asks for what
  // a later one will want.
  constexpr index_t rows_ahead = 8;
  // L rows of the weights at a time, of all nine taps; `half` holds what the columns' transform
  // has made of one row.
  vec turned[9][L][V];
  vec half[6][3][V];
  if (w.rotated)  // rows of w are columns here: blocks of L x L change sides
    for (int tap = 0; tap < 9; ++tap)
      for (int v = 0; v < vectors; ++v) {
        vec block[L];
        for (index_t l = 0; l < L; ++l) {
          const T* from = w.w + ((8 - tap) * w.in + column + v * L + l) * w.out + row;
          simd::prefetch(from + L);
          block[l] = v * L + l < have ? load_of<false>(from, 0, rows) : vec{};
        }
        simd::transpose<T>(block);
        for (index_t p = 0; p < L; ++p)
          turned[tap][p][v] = block[p];
      }
  for (index_t p = 0; p < rows; ++p) {
    for (int k = 0; k < 3; ++k)
      for (int v = 0; v < vectors; ++v) {
        vec g[3];
        vec t[6];
        for (int i = 0; i < 3; ++i)
          if (w.rotated)
            g[i] = turned[i * 3 + k][p][v];
          else {
            const T* from = w.w + ((i * 3 + k) * w.in + row + p) * w.out + column;
            simd::prefetch(from + rows_ahead * w.out + v * L);
            g[i] = load_of<false>(from, v, have);
          }
        filter_transform(g, 1, t, 1, T());
        MULTISTAGE_UNROLL(6)
        for (int i = 0; i < 6; ++i)
          half[i][k][v] = t[i];
      }
    for (int i = 0; i < 6; ++i)
      for (int v = 0; v < vectors; ++v) {
        vec g[3];
        vec t[6];
        for (int k = 0; k < 3; ++k)
          g[k] = half[i][k][v];
        filter_transform(g, 1, t, 1, T());
        MULTISTAGE_UNROLL(6)
        for (int k = 0; k < 6; ++k)
          simd::store(u + (i * 6 + k) * pitch + p * width + v * L, t[k]);
      }
  }
}
/// All of U.
template <class T>
void transform_weights(const cpu& b, const weights<T>& w, T* u) {
  constexpr index_t L = simd::lanes<T>;
  const panels<T> layout(w.rows(), w.columns());
  const index_t blocks = divide_up(layout.rows, L);
  b.pool().parallel_for(layout.count * blocks, [&](index_t task) {
    const index_t j = task / blocks;
    const index_t row = task % blocks * L;
    const index_t width = layout.width(j);
    transform_weight_rows(w, layout.first(j), width, row, u + layout.offset(j) + row * width,
                          layout.pitch());
  });
}

/// What surrounds the product: y = scale (A^T M A + bias + row_bias + residual), or y += A^T M
/// A when `accumulate`.
template <class T>
struct epilogue {
  const T* bias = nullptr;      ///< [channels of y]; null for none
  const T* row_bias = nullptr;  ///< [rows, channels of y]; null for none
  const T* residual = nullptr;  ///< like y, may be y itself; null for none
  T scale = T(1);               ///< of the whole sum
  bool accumulate = false;      ///< in place of all of these: add to y
};

/// Y = A^T M A of tiles [first, first + count) with its epilogue, for `width` of y's channels
/// from `channel` on. M is [position][tile][channel], `m_row` elements a tile.
template <class T>
void transform_output(const tiling& t,
                      const T* m,
                      index_t pitch,
                      index_t m_row,
                      index_t channel,
                      index_t width,
                      index_t channels,
                      index_t first,
                      index_t count,
                      T* y,
                      const epilogue<T>& e) {
  using vec = simd::vec<T>;
  constexpr int L = simd::lanes<T>;
  const vec scale = simd::broadcast(e.scale);
  vec half[4][6][stretch];
  for (index_t k = 0; k < count; ++k) {
    const tiling::place place = t.at(first + k);
    const index_t corner =
        ((place.row * t.height + place.top) * t.width + place.left) * channels + channel;
    const int down = int(std::min<index_t>(4, t.height - place.top));
    const int across = int(std::min<index_t>(4, t.width - place.left));
    for_each_stretch<T>(width, [&](index_t c, index_t have, int vectors, auto whole) {
      for (int j = 0; j < 6; ++j)
        for (int v = 0; v < vectors; ++v) {
          vec d[6];
          vec o[4];
          MULTISTAGE_UNROLL(6)
          for (int i = 0; i < 6; ++i)
            d[i] = simd::load(m + (i * 6 + j) * pitch + k * m_row + c + v * L);
          output_transform(d, 1, o, 1);
          MULTISTAGE_UNROLL(4)
          for (int i = 0; i < 4; ++i)
            half[i][j][v] = o[i];
        }
      for (int v = 0; v < vectors; ++v) {
        vec shift{};
        if (e.bias)
          shift += load_of<whole>(e.bias + channel + c, v, have);
        if (e.row_bias)
          shift += load_of<whole>(e.row_bias + place.row * channels + channel + c, v, have);
        for (int i = 0; i < down; ++i) {
          vec d[6];
          vec o[4];
          MULTISTAGE_UNROLL(6)
          for (int j = 0; j < 6; ++j)
            d[j] = half[i][j][v];
          output_transform(d, 1, o, 1);
          const index_t at = corner + i * t.width * channels + c;
          const auto finish = [&](int j) {
            vec value = o[j] + shift;
            if (e.residual)
              value += load_of<whole>(e.residual + at + j * channels, v, have);
            value *= scale;
            if (e.accumulate)
              value += load_of<whole>(y + at + j * channels, v, have);
            store_of<whole>(y + at + j * channels, v, have, value);
          };
          if (across == 4) {
            MULTISTAGE_UNROLL(4)
            for (int j = 0; j < 4; ++j)
              finish(j);
          } else
            for (int j = 0; j < across; ++j)
              finish(j);
        }
      }
    });
  }
}

/// dw [3, 3, in, out] += G^T dU G for one row of in and `width` columns from `column` on; dU is
/// [position], a row of `width` padded to whole vectors each.
template <class T>
void transform_weight_gradient(const T* du,
                               index_t pitch,
                               index_t row,
                               index_t column,
                               index_t width,
                               index_t in,
                               index_t out,
                               T* dw) {
  using vec = simd::vec<T>;
  constexpr index_t L = simd::lanes<T>;
  vec half[3][6][stretch];
  for_each_stretch<T>(width, [&](index_t o, index_t have, int vectors, auto whole) {
    for (int j = 0; j < 6; ++j)
      for (int v = 0; v < vectors; ++v) {
        vec m[6];
        vec g[3];
        MULTISTAGE_UNROLL(6)
        for (int i = 0; i < 6; ++i)
          m[i] = simd::load(du + (i * 6 + j) * pitch + o + v * L);
        filter_transposed(m, 1, g, 1, T());
        for (int i = 0; i < 3; ++i)
          half[i][j][v] = g[i];
      }
    for (int i = 0; i < 3; ++i)
      for (int v = 0; v < vectors; ++v) {
        vec m[6];
        vec g[3];
        MULTISTAGE_UNROLL(6)
        for (int j = 0; j < 6; ++j)
          m[j] = half[i][j][v];
        filter_transposed(m, 1, g, 1, T());
        for (int j = 0; j < 3; ++j) {
          T* to = dw + ((i * 3 + j) * in + row) * out + column + o;
          store_of<whole>(to, v, have, load_of<whole>(to, v, have) + g[j]);
        }
      }
  });
}

}  // namespace multistage::inline MULTISTAGE_ISA::winograd
