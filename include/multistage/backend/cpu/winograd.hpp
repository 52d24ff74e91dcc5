// 3x3 convolutions of stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray,
// arXiv 1509.09308): a tile of 4x4 outputs
//   Y = A^T [ sum_c (G w_c G^T) . (B^T d_c B) ] A
// costs 36 multiplications a channel where the direct form costs 144. The sum over channels is
// 36 matrix products, one a position: M = V U, with V the transformed tiles and U the
// transformed weights. The gradient of the input is the same with the weights turned round; the
// gradient of the weights is the algorithm read backwards:
//   dw = G^T [ sum_tiles (B^T d B) . (A dY A^T) ] G.
// Rounding grows by about 10 over the direct form (tests/test_ops.cpp states the bound).
//
// U takes four times the memory of the weights, and V and M more than twice that of the images,
// so that what decides is where they lie:
//   by tiles    U is there as a whole; a task takes some tiles through all three steps, its V
//               and M in a cache of its own.
//   by panels   V is there as a whole; a task makes a panel of U piece by piece, multiplies all
//               tiles by it, and forgets it. For few tiles and a large U, which would otherwise
//               go to memory and come back.
#pragma once
#include "reduce.hpp"
#include "winograd_transforms.hpp"

namespace multistage::inline MULTISTAGE_ISA::winograd {

/// Beyond so many bytes U does not stay in a core's caches.
inline constexpr index_t large_u = index_t{4} << 20;
/// So many tiles pay for bringing a large U from memory.
inline constexpr index_t many_tiles = 64;
/// Tiles that a task transforms where transforms are tasks of their own.
inline constexpr index_t few_tiles = 4;
/// Rows of a block of the weights' gradient, at most.
inline constexpr index_t gradient_rows = 64;

/// Whether U is so large that it is streamed from memory rather than kept in a core's caches.
template <class T>
bool is_large(index_t in, index_t out) {
  return panels<T>(in, out).size() * index_t(sizeof(T)) > large_u;
}

/// Elements of U if it is worth keeping from one call to the next, else 0.
template <class T>
index_t kept_size(const tiling& t, index_t in, index_t out) {
  const bool worth_it = !is_large<T>(in, out) || t.count() >= many_tiles;
  return worth_it ? panels<T>(in, out).size() : 0;
}

/// How many of n rows of a product a task takes, at most `most`, so that threads end together
/// and tasks are few.
inline index_t rows_per_task(index_t n, index_t most, index_t threads) {
  constexpr index_t R = gemm_kernel::tile_rows;
  index_t best = 1;
  index_t least = 0;
  for (index_t per = 1; per <= std::min(most, n); ++per) {
    // What the busiest thread does, times the threads: rows, a last register tile half empty;
    // and each task fetches weights, which costs about a tile.
    const index_t tasks = divide_up(n, per);
    const index_t rows = per + (per % R ? R / 2 : 0);
    const index_t cost = divide_up(tasks, threads) * threads * rows + tasks * R;
    if (per == 1 || cost <= least) {
      best = per;
      least = cost;
    }
  }
  return best;
}

/// @see the file's head. At most `many_tiles` tiles.
template <class T>
void convolve_by_panels(const cpu& b,
                        const tiling& t,
                        const T* x,
                        const weights<T>& w,
                        T* y,
                        const epilogue<T>& e) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t R = gemm_kernel::tile_rows;
  constexpr index_t W = gemm_kernel::tile_columns<T>;
  constexpr index_t piece = 64;  // rows of U: the piece and M share the second-level cache
  const panels<T> layout(w.rows(), w.columns());
  const index_t in = w.rows();
  const index_t out = w.columns();
  const index_t padded_in = round_up(in, L);
  const index_t tiles = t.count();
  const index_t v_pitch = plane<T>(tiles * padded_in);
  scratch_frame scratch;
  T* v = scratch.take<T>(positions * v_pitch);
  b.pool().parallel_for(divide_up(tiles, few_tiles), [&](index_t task) {
    const index_t first = task * few_tiles;
    const index_t count = std::min(few_tiles, tiles - first);
    transform_input(t, x, in, first, count, v + first * padded_in, v_pitch);
  });
  // Where threads are more than panels they share a panel's tiles, each making the panel anew.
  const index_t wanted = 2 * b.threads() / layout.count;
  const index_t shares = std::clamp<index_t>(wanted, 1, divide_up(tiles, R));
  const index_t share = round_up(divide_up(tiles, shares), R);
  b.pool().parallel_for(layout.count * divide_up(tiles, share), [&](index_t task) {
    const index_t j = task % layout.count;
    const index_t column = layout.first(j);
    const index_t width = layout.width(j);
    const index_t first = task / layout.count * share;
    const index_t count = std::min(share, tiles - first);
    const index_t u_pitch = plane<T>(piece * width);
    const index_t m_pitch = plane<T>(count * width);
    scratch_frame of_task;
    T* u = of_task.take<T>(positions * plane<T>(piece * W));
    T* m = of_task.take<T>(positions * plane<T>(many_tiles * W));
    for (index_t row = 0; row < in; row += piece) {
      const index_t rows = std::min(piece, in - row);
      for (index_t r = 0; r < rows; r += L)
        transform_weight_rows(w, column, width, row + r, u + r * width, u_pitch);
      for (int p = 0; p < positions; ++p) {
        const T* from = v + p * v_pitch + first * padded_in + row;  // [count, rows]
        const T* weights_of_p = u + p * u_pitch;                    // [rows, width]
        const matrix_view<T> sums{m + p * m_pitch, count, width};
        gemm_kernel::multiply_packed({from, count, rows, padded_in}, weights_of_p, sums, 1,
                                     row == 0 ? 0 : 1);
      }
    }
    const index_t columns = std::min(width, out - column);
    transform_output(t, m, m_pitch, width, column, columns, out, first, count, y, e);
  });
}

/// @see the file's head. Where all tiles are one task threads share its panels.
template <class T>
void convolve_by_tiles(const cpu& b,
                       const tiling& t,
                       const T* x,
                       index_t in,
                       const T* u,
                       index_t out,
                       T* y,
                       const epilogue<T>& e) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t R = gemm_kernel::tile_rows;
  // V and M stay near the second-level cache, but a large U, which is streamed once a task,
  // should serve many tiles.
  constexpr index_t near = 1536 << 10;
  constexpr index_t far = index_t{6} << 20;
  const panels<T> layout(in, out);
  const index_t padded_in = round_up(in, L);
  const index_t padded_out = round_up(out, L);
  const index_t tiles = t.count();
  // How many tiles' V and M fit, and of these how many a task takes.
  const index_t cache = is_large<T>(in, out) ? far : near;
  const index_t tile_bytes = positions * index_t(sizeof(T)) * (padded_in + padded_out);
  const index_t fit = cache / tile_bytes;
  const index_t per_task = rows_per_task(tiles, std::max(fit, R), b.threads());
  const index_t v_pitch = plane<T>(per_task * padded_in);
  const auto multiply = [&](int p, index_t count, index_t j, const T* v, T* m, index_t m_row) {
    const T* const tiles_of_p = v + p * v_pitch;                       // [count, in]
    const T* const panel = u + p * layout.pitch() + layout.offset(j);  // [in, width]
    const matrix_view<T> sums{m, count, layout.width(j), m_row};
    gemm_kernel::multiply_packed({tiles_of_p, count, in, padded_in}, panel, sums);
  };
  // A panel a task; making V each time is cheaper than fetching it from another core.
  if (tiles <= per_task) {
    b.pool().parallel_for(layout.count, [&](index_t j) {
      const index_t column = layout.first(j);
      const index_t width = layout.width(j);
      const index_t pitch = plane<T>(tiles * width);
      scratch_frame scratch;
      T* v = scratch.take<T>(positions * v_pitch);
      T* m = scratch.take<T>(positions * pitch);
      transform_input(t, x, in, 0, tiles, v, v_pitch);
      for (int p = 0; p < positions; ++p)
        multiply(p, tiles, j, v, m + p * pitch, width);
      const index_t columns = std::min(width, out - column);
      transform_output(t, m, pitch, width, column, columns, out, 0, tiles, y, e);
    });
    return;
  }
  const index_t m_pitch = plane<T>(per_task * padded_out);
  b.pool().parallel_for(divide_up(tiles, per_task), [&](index_t task) {
    const index_t first = task * per_task;
    const index_t count = std::min(per_task, tiles - first);
    scratch_frame scratch;
    T* v = scratch.take<T>(positions * v_pitch);
    T* m = scratch.take<T>(positions * m_pitch);
    transform_input(t, x, in, first, count, v, v_pitch);
    for (int p = 0; p < positions; ++p) {
      T* const m_of_p = m + p * m_pitch;  // [count, out]
      for (index_t j = 0; j < layout.count; ++j)
        multiply(p, count, j, v, m_of_p + layout.first(j), padded_out);
    }
    transform_output(t, m, m_pitch, padded_out, 0, out, out, first, count, y, e);
  });
}

/// y [rows, height, width, w.columns()] from x [rows, height, width, w.rows()]. @param kept U
/// as transform_weights makes it, or null
template <class T>
void convolve(const cpu& b,
              const tiling& t,
              const T* x,
              const weights<T>& w,
              const T* kept,
              T* y,
              const epilogue<T>& e) {
  scratch_frame scratch;
  if (!kept) {
    if (is_large<T>(w.rows(), w.columns()) && t.count() <= many_tiles)
      return convolve_by_panels(b, t, x, w, y, e);
    T* made = scratch.take<T>(panels<T>(w.rows(), w.columns()).size());
    transform_weights(b, w, made);
    kept = made;
  }
  convolve_by_tiles(b, t, x, w.rows(), kept, w.columns(), y, e);
}

/// V and D of some tiles.
template <class T>
struct gradient_planes {
  /// v_row, d_row: elements a tile
  index_t tiles;
  index_t v_row;    ///< elements a tile takes in a plane of V
  index_t d_row;    ///< elements a tile takes in a plane of D
  index_t v_pitch;  ///< from one plane of V to the next
  index_t d_pitch;  ///< from one plane of D to the next
  T* v;             ///< [position][tile][channel of the input]
  T* d;             ///< [position][tile][channel of the result]

  /// In a frame of the calling thread, room for `most` tiles, none there yet.
  gradient_planes(scratch_frame& scratch, index_t most, index_t in, index_t out)
      : tiles(0),
        v_row(round_up(in, simd::lanes<T>)),
        d_row(round_up(out, simd::lanes<T>)),
        v_pitch(plane<T>(most * v_row)),
        d_pitch(plane<T>(most * d_row)),
        v(scratch.take<T>(positions * v_pitch)),
        d(scratch.take<T>(positions * d_pitch)) {}
  /// How much memory a tile takes in all planes, for deciding how many to make at a time.
  static index_t bytes_a_tile(index_t in, index_t out) {
    const index_t padded_in = round_up(in, simd::lanes<T>);
    const index_t padded_out = round_up(out, simd::lanes<T>);
    return positions * index_t(sizeof(T)) * (padded_in + padded_out);
  }
  /// Tiles [first, first + count) of the images, to [at, at + count) here.
  void transform(const tiling& t,
                 const T* x,
                 index_t in,
                 const T* dy,
                 index_t out,
                 index_t first,
                 index_t count,
                 index_t at) const {
    transform_input(t, x, in, first, count, v + at * v_row, v_pitch);
    transform_gradient(t, dy, out, first, count, d + at * d_row, d_pitch);
  }
};
/// dw += the gradient of `rows` rows from `row` on and of panel j, from some tiles. Its dU
/// stays in the second-level cache.
template <class T>
void add_weight_gradient(const gradient_planes<T>& g,
                         index_t row,
                         index_t rows,
                         const panels<T>& layout,
                         index_t j,
                         index_t out,
                         T* dw) {
  constexpr index_t W = gemm_kernel::tile_columns<T>;
  constexpr index_t pitch = plane<T>(gradient_rows * W);
  const index_t column = layout.first(j);
  const index_t padded = layout.width(j);
  const index_t width = std::min(padded, out - column);
  scratch_frame scratch;
  T* du = scratch.take<T>(positions * pitch);
  for (int p = 0; p < positions; ++p) {
    const matrix_view<const T> v{g.v + p * g.v_pitch + row, g.tiles, rows, g.v_row};
    const matrix_view<const T> d{g.d + p * g.d_pitch + column, g.tiles, padded, g.d_row};
    const matrix_view<T> du_of_p{du + p * pitch, rows, padded};
    gemm_kernel::multiply(v.transposed(), d, du_of_p);
  }
  for (index_t i = 0; i < rows; ++i)
    transform_weight_gradient(du + i * padded, pitch, row + i, column, width, layout.rows, out,
                              dw);
}

/// A task takes a share of the tiles and has a dw of its own: no plane travels between cores.
template <class T>
void weight_gradient_by_tiles(const cpu& b,
                              const tiling& t,
                              const T* x,
                              index_t in,
                              const T* dy,
                              index_t out,
                              index_t shares,
                              T* dw) {
  constexpr index_t near = 1 << 20;
  const panels<T> layout(in, out);
  const index_t size = 9 * in * out;
  const index_t share = divide_up(t.count(), shares);
  const index_t fit = near / gradient_planes<T>::bytes_a_tile(in, out);
  const index_t most = std::clamp<index_t>(fit, gemm_kernel::tile_rows, share);
  scratch_frame scratch;
  T* parts = scratch.take<T>(shares * size);
  b.pool().parallel_for(shares, [&](index_t s) {
    T* part = parts + s * size;
    std::fill_n(part, size, T(0));
    scratch_frame of_task;
    gradient_planes<T> g(of_task, most, in, out);
    const index_t end = std::min(t.count(), (s + 1) * share);
    for (index_t first = s * share; first < end; first += most) {
      g.tiles = std::min(most, end - first);
      g.transform(t, x, in, dy, out, first, g.tiles, 0);
      for (index_t j = 0; j < layout.count; ++j)
        for (index_t row = 0; row < in; row += gradient_rows) {
          const index_t rows = std::min(gradient_rows, in - row);
          add_weight_gradient(g, row, rows, layout, j, out, part);
        }
    }
  });
  column_sums(b, shares, size, parts, dw, true);
}

/// V and D are made for all, as many tiles at a time as caches hold between them, and a task
/// takes a block of dw.
template <class T>
void weight_gradient_by_blocks(const cpu& b,
                               const tiling& t,
                               const T* x,
                               index_t in,
                               const T* dy,
                               index_t out,
                               T* dw) {
  constexpr index_t shared_cache = index_t{16} << 20;
  constexpr index_t least = 32;
  const panels<T> layout(in, out);
  const index_t tiles = t.count();
  const index_t fit = shared_cache / gradient_planes<T>::bytes_a_tile(in, out);
  const index_t chunks = divide_up(tiles, std::max(least, fit));
  const index_t chunk = divide_up(tiles, chunks);
  const index_t rows = rows_per_task(in, gradient_rows, b.threads());
  const index_t blocks = divide_up(in, rows);
  scratch_frame scratch;
  gradient_planes<T> g(scratch, chunk, in, out);
  for (index_t first = 0; first < tiles; first += chunk) {
    g.tiles = std::min(chunk, tiles - first);
    b.pool().parallel_for(divide_up(g.tiles, few_tiles), [&](index_t task) {
      const index_t at = task * few_tiles;
      const index_t count = std::min(few_tiles, g.tiles - at);
      g.transform(t, x, in, dy, out, first + at, count, at);
    });
    b.pool().parallel_for(blocks * layout.count, [&](index_t task) {
      const index_t row = task % blocks * rows;
      const index_t panel = task / blocks;
      add_weight_gradient(g, row, std::min(rows, in - row), layout, panel, out, dw);
    });
  }
}

/// dw [3, 3, in, out] += the gradient of the weights.
template <class T>
void weight_gradient(const cpu& b,
                     const tiling& t,
                     const T* x,
                     index_t in,
                     const T* dy,
                     index_t out,
                     T* dw) {
  // Shares of tiles decide the order of additions, and so depend on the extents alone, not on
  // the threads.
  constexpr index_t least = 32;
  constexpr index_t most_shares = 16;
  constexpr index_t small = index_t{4} << 20;
  const index_t shares = std::clamp<index_t>(t.count() / least, 1, most_shares);
  const index_t bytes = shares * 9 * in * out * index_t(sizeof(T));
  if (shares > 1 && bytes <= small)
    weight_gradient_by_tiles(b, t, x, in, dy, out, shares, dw);
  else
    weight_gradient_by_blocks(b, t, x, in, dy, out, dw);
}

}  // namespace multistage::inline MULTISTAGE_ISA::winograd
