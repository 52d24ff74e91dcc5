// 3x3 convolutions of stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308): a tile of 4x4 outputs
//   Y = A^T [ sum_c (G w_c G^T) . (B^T d_c B) ] A
// costs 36 multiplications a channel where the direct form costs 144. The sum over channels is 36 matrix products, one a position.
// The gradient of the weights is the same algorithm read backwards: dw = G^T [ sum_tiles (B^T d B) . (A dY A^T) ] G.
// Interpolation points 0, +-1, +-2, infinity: rounding grows by about 10 over the direct form (tests/test_conv.cpp states the bound).
#pragma once
#include "gemm.hpp"

namespace multistage::winograd {

inline constexpr int positions = 36;

// One-dimensional transforms; Stride walks a row or a column of a 6x6 (or 4x4, 3x3) block.
template <class V>
inline void input_transform(const V* d, int s, V* t, int q) {  // B^T
  const V a = d[4 * s] - 4 * d[2 * s], b = d[3 * s] - 4 * d[s], c = d[4 * s] - d[2 * s], e = 2 * (d[3 * s] - d[s]);
  t[0] = 4 * d[0] - 5 * d[2 * s] + d[4 * s];
  t[q] = a + b;
  t[2 * q] = a - b;
  t[3 * q] = c + e;
  t[4 * q] = c - e;
  t[5 * q] = 4 * d[s] - 5 * d[3 * s] + d[5 * s];
}
template <class V>
inline void output_transform(const V* m, int s, V* y, int q) {  // A^T
  const V p = m[s] + m[2 * s], n = m[s] - m[2 * s], u = m[3 * s] + m[4 * s], v = m[3 * s] - m[4 * s];
  y[0] = m[0] + p + u;
  y[q] = n + 2 * v;
  y[2 * q] = p + 4 * u;
  y[3 * q] = n + 8 * v + m[5 * s];
}
template <class V>
inline void output_transposed(const V* y, int s, V* m, int q) {  // A
  const V even = y[0] + y[2 * s], odd = y[s] + y[3 * s], even2 = y[0] + 4 * y[2 * s], odd2 = 2 * y[s] + 8 * y[3 * s];
  m[0] = y[0];
  m[q] = even + odd;
  m[2 * q] = even - odd;
  m[3 * q] = even2 + odd2;
  m[4 * q] = even2 - odd2;
  m[5 * q] = y[3 * s];
}
template <class V, class T>
inline void filter_transform(const V* g, int s, V* t, int q, T) {  // G
  const V a = (g[0] + g[2 * s]) * T(-1.0 / 6), b = g[s] * T(1.0 / 6), c = g[0] * T(1.0 / 24) + g[2 * s] * T(1.0 / 6), e = g[s] * T(1.0 / 12);
  t[0] = g[0] * T(0.25);
  t[q] = a - b;
  t[2 * q] = a + b;
  t[3 * q] = c + e;
  t[4 * q] = c - e;
  t[5 * q] = g[2 * s];
}
template <class V, class T>
inline void filter_transposed(const V* m, int s, V* g, int q, T) {  // G^T
  const V p = (m[s] + m[2 * s]) * T(-1.0 / 6), u = m[3 * s] + m[4 * s], v = m[3 * s] - m[4 * s];
  g[0] = m[0] * T(0.25) + p + u * T(1.0 / 24);
  g[q] = (m[2 * s] - m[s]) * T(1.0 / 6) + v * T(1.0 / 12);
  g[2 * q] = p + u * T(1.0 / 6) + m[5 * s];
}

/// Distance between the planes of two positions: `n` elements and one cache line, so that the 36 planes, which are written side by side,
/// do not all fall into the same cache set when n is a power of two.
template <class T>
constexpr index_t plane(index_t n) {
  return n + 64 / index_t(sizeof(T));
}

/// The tiles of a batch of images.
struct tiling {
  index_t rows, height, width;
  index_t across() const { return divide_up(width, 4); }
  index_t per_image() const { return divide_up(height, 4) * across(); }
  index_t count() const { return rows * per_image(); }
  struct place {
    index_t row, top, left;
  };
  place at(index_t tile) const {
    const index_t in_image = tile % per_image();
    return {tile / per_image(), in_image / across() * 4, in_image % across() * 4};
  }
};

/// V[position][tile - first][channel, padded to whole vectors] = B^T d B for tiles [first, first + count).
template <class T>
void transform_input(const tiling& t, const T* x, index_t channels, index_t first, index_t count, T* v, index_t pitch) {
  using vec = simd::vec<T>;
  constexpr index_t L = simd::lanes<T>;
  const index_t padded = round_up(channels, L);
  for (index_t k = 0; k < count; ++k) {
    const auto [row, top, left] = t.at(first + k);
    const T* image = x + row * t.height * t.width * channels;
    T* to = v + k * padded;
    for (index_t c = 0; c < channels; c += L) {
      const index_t have = std::min(L, channels - c);
      vec d[36], half[36];
      for (int i = 0; i < 6; ++i)
        for (int j = 0; j < 6; ++j) {
          const index_t y = top + i - 1, z = left + j - 1;
          const bool inside = y >= 0 && y < t.height && z >= 0 && z < t.width;
          const T* from = image + (y * t.width + z) * channels + c;
          d[i * 6 + j] = !inside ? vec{} : have == L ? simd::load(from) : simd::load_partial(from, have);
        }
      for (int j = 0; j < 6; ++j) input_transform(d + j, 6, half + j, 6);
      for (int i = 0; i < 6; ++i) input_transform(half + i * 6, 1, d + i * 6, 1);
      for (int p = 0; p < positions; ++p) simd::store(to + p * pitch + c, d[p]);
    }
  }
}

/// D[position][tile - first][channel] = A dY A^T.
template <class T>
void transform_gradient(const tiling& t, const T* dy, index_t channels, index_t first, index_t count, T* d, index_t pitch) {
  using vec = simd::vec<T>;
  constexpr index_t L = simd::lanes<T>;
  const index_t padded = round_up(channels, L);
  for (index_t k = 0; k < count; ++k) {
    const auto [row, top, left] = t.at(first + k);
    const T* image = dy + row * t.height * t.width * channels;
    T* to = d + k * padded;
    for (index_t c = 0; c < channels; c += L) {
      const index_t have = std::min(L, channels - c);
      vec y[16], half[24], m[36];
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
          const bool inside = top + i < t.height && left + j < t.width;
          const T* from = image + ((top + i) * t.width + left + j) * channels + c;
          y[i * 4 + j] = !inside ? vec{} : have == L ? simd::load(from) : simd::load_partial(from, have);
        }
      for (int j = 0; j < 4; ++j) output_transposed(y + j, 4, half + j, 4);
      for (int i = 0; i < 6; ++i) output_transposed(half + i * 4, 1, m + i * 6, 1);
      for (int p = 0; p < positions; ++p) simd::store(to + p * pitch + c, m[p]);
    }
  }
}

/// U[position] = G w G^T for each pair of channels, packed for gemm_kernel::multiply_packed. With `rotated` the weights are those of the
/// gradient with respect to the input: turned by half a turn, in and out exchanged. w is [3, 3, in, out]; U is [36][plane(packed(k, n))].
template <class T>
void transform_weights(const cpu& b, const T* w, index_t in, index_t out, bool rotated, T* u) {
  using vec = simd::vec<T>;
  constexpr index_t L = simd::lanes<T>, W = gemm_kernel::tile_columns<T>;
  const index_t k = rotated ? out : in, n = rotated ? in : out, pitch = plane<T>(gemm_kernel::packed_size<T>(k, n));
  constexpr index_t few = 16;
  const index_t blocks = divide_up(k, few);
  b.pool().parallel_for(divide_up(n, W) * blocks, [&](index_t task) {
    const index_t j0 = task / blocks * W, width = round_up(std::min(n - j0, W), L), end = std::min(k, (task % blocks + 1) * few);
    T lane[L];
    for (index_t p = task % blocks * few; p < end; ++p)
      for (index_t j = 0; j < width; j += L) {
        const index_t have = std::min(L, n - j0 - j);
        vec g[9], half[18], t[36];
        for (int tap = 0; tap < 9; ++tap) {
          if (!rotated) {
            const T* from = w + (tap * in + p) * out + j0 + j;
            g[tap] = have == L ? simd::load(from) : simd::load_partial(from, have);
          } else {
            for (index_t l = 0; l < L; ++l) lane[l] = l < have ? w[((8 - tap) * in + j0 + j + l) * out + p] : T(0);
            g[tap] = simd::load(lane);
          }
        }
        for (int q = 0; q < 3; ++q) filter_transform(g + q, 3, half + q, 3, T());
        for (int i = 0; i < 6; ++i) filter_transform(half + i * 3, 1, t + i * 6, 1, T());
        for (int q = 0; q < positions; ++q) simd::store(u + q * pitch + j0 * k + p * width + j, t[q]);
      }
  });
}

/// Elements of transformed weights.
template <class T>
constexpr index_t weights_size(index_t in, index_t out) {
  return positions * plane<T>(gemm_kernel::packed_size<T>(in, out));
}

/// What surrounds the product: y = scale (A^T M A + bias + row_bias + residual), or y += A^T M A when `accumulate`.
template <class T>
struct epilogue {
  const T *bias = nullptr, *row_bias = nullptr, *residual = nullptr;
  T scale = T(1);
  bool accumulate = false;
};

template <class T>
void transform_output(const tiling& t, const T* m, index_t pitch, index_t channels, index_t first, index_t count, T* y, const epilogue<T>& e) {
  using vec = simd::vec<T>;
  constexpr index_t L = simd::lanes<T>;
  const index_t padded = round_up(channels, L);
  for (index_t k = 0; k < count; ++k) {
    const auto [row, top, left] = t.at(first + k);
    const index_t image = row * t.height * t.width * channels;
    for (index_t c = 0; c < channels; c += L) {
      const index_t have = std::min(L, channels - c);
      const auto read = [&](const T* p) { return have == L ? simd::load(p) : simd::load_partial(p, have); };
      vec d[36], half[24], out[16];
      for (int p = 0; p < positions; ++p) d[p] = simd::load(m + p * pitch + k * padded + c);
      for (int j = 0; j < 6; ++j) output_transform(d + j, 6, half + j, 6);
      for (int i = 0; i < 4; ++i) output_transform(half + i * 6, 1, out + i * 4, 1);
      vec shift{};
      if (e.bias) shift += read(e.bias + c);
      if (e.row_bias) shift += read(e.row_bias + row * channels + c);
      const vec scale = simd::broadcast(e.scale);
      for (int i = 0; i < 4 && top + i < t.height; ++i)
        for (int j = 0; j < 4 && left + j < t.width; ++j) {
          const index_t at = image + ((top + i) * t.width + left + j) * channels + c;
          vec value = out[i * 4 + j] + shift;
          if (e.residual) value += read(e.residual + at);
          value *= scale;
          if (e.accumulate) value += read(y + at);
          if (have == L)
            simd::store(y + at, value);
          else
            simd::store_partial(y + at, value, have);
        }
    }
  }
}

/// y [rows, height, width, out] from x [rows, height, width, in] and U. A task takes some tiles through all three steps, as many as keep
/// their planes near the second-level cache, and at least one register tile.
template <class T>
void convolve(const cpu& b, const tiling& t, const T* x, index_t in, const T* u, index_t out, T* y, const epilogue<T>& e) {
  constexpr index_t budget = 1536 << 10, L = simd::lanes<T>, R = gemm_kernel::tile_rows;
  const index_t padded_in = round_up(in, L), padded_out = round_up(out, L), u_pitch = plane<T>(gemm_kernel::packed_size<T>(in, out));
  const index_t fit = budget / (positions * index_t(sizeof(T)) * (padded_in + padded_out)),
                per_task = std::max<index_t>(R, std::min(fit, divide_up(t.count(), 8)) / R * R);
  const index_t v_pitch = plane<T>(per_task * padded_in), m_pitch = plane<T>(per_task * padded_out);
  b.pool().parallel_for(divide_up(t.count(), per_task), [&](index_t task) {
    const index_t first = task * per_task, count = std::min(per_task, t.count() - first);
    T *v = thread_scratch<T>(1, positions * v_pitch), *m = thread_scratch<T>(2, positions * m_pitch);
    transform_input(t, x, in, first, count, v, v_pitch);
    for (int p = 0; p < positions; ++p)
      gemm_kernel::multiply_packed(count, padded_out, in, v + p * v_pitch, padded_in, index_t(1), u + p * u_pitch, T(1), T(0), m + p * m_pitch, padded_out);
    transform_output(t, m, m_pitch, out, first, count, y, e);
  });
}

/// dw [3, 3, in, out] += the gradient of the weights.
template <class T>
void weight_gradient(const cpu& b, const tiling& t, const T* x, index_t in, const T* dy, index_t out, T* dw) {
  using vec = simd::vec<T>;
  constexpr index_t L = simd::lanes<T>;
  const index_t padded_in = round_up(in, L), padded_out = round_up(out, L);
  const index_t chunk = std::clamp<index_t>((index_t{2} << 20) / (positions * (padded_in + padded_out)), 32, std::max<index_t>(t.count(), 32));
  const index_t v_pitch = plane<T>(chunk * padded_in), d_pitch = plane<T>(chunk * padded_out), u_pitch = plane<T>(in * padded_out);
  T *v = thread_scratch<T>(5, positions * v_pitch), *d = thread_scratch<T>(6, positions * d_pitch), *du = thread_scratch<T>(7, positions * u_pitch);
  constexpr index_t in_block = 64, few = 4;
  const index_t blocks = divide_up(in, in_block);
  for (index_t first = 0; first < t.count(); first += chunk) {
    const index_t count = std::min(chunk, t.count() - first);
    b.pool().parallel_for(divide_up(count, few), [&](index_t task) {
      const index_t k = task * few, n = std::min(few, count - k);
      transform_input(t, x, in, first + k, n, v + k * padded_in, v_pitch);
      transform_gradient(t, dy, out, first + k, n, d + k * padded_out, d_pitch);
    });
    b.pool().parallel_for(positions * blocks, [&](index_t task) {
      const index_t p = task / blocks, c = task % blocks * in_block;
      gemm_kernel::multiply(std::min(in_block, in - c), padded_out, count, v + p * v_pitch + c, index_t(1), padded_in, d + p * d_pitch, padded_out, index_t(1),
                            T(1), first == 0 ? T(0) : T(1), du + p * u_pitch + c * padded_out, padded_out);
    });
  }
  b.pool().parallel_for(in, [&](index_t c) {
    for (index_t o = 0; o < out; o += L) {
      const index_t have = std::min(L, out - o);
      vec m[36], half[18], g[9];
      for (int p = 0; p < positions; ++p) m[p] = simd::load(du + p * u_pitch + c * padded_out + o);
      for (int j = 0; j < 6; ++j) filter_transposed(m + j, 6, half + j, 6, T());
      for (int i = 0; i < 3; ++i) filter_transposed(half + i * 6, 1, g + i * 3, 1, T());
      for (int tap = 0; tap < 9; ++tap) {
        T* to = dw + (tap * in + c) * out + o;
        if (have == L)
          simd::store(to, simd::load(to) + g[tap]);
        else
          simd::store_partial(to, simd::load_partial(to, have) + g[tap], have);
      }
    }
  });
}

}  // namespace multistage::winograd
