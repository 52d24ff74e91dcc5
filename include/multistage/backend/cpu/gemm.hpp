// Matrix products on the CPU. A register tile of C, tile_rows x (vectors of columns), is kept
// in registers while k runs; B is packed into panels as wide as the tile, A is read in place
// with any strides. Every element of C is one chain of fused multiply-adds in the order of k,
// however k is cut into blocks, so a row's result depends neither on the rows beside it nor on
// the threads.
//
// The three levels, from the inside:
//
//   tile    R rows x V vectors of C in registers. A step of k loads V vectors of B and
//           broadcasts R numbers of A, for R V multiply-adds: 24 sums are more than enough to
//           keep the multipliers busy although each waits for the one before on its sum.
//   panel   a column of tiles. The panel of B, k x 3 vectors, is read again for each tile, and
//           so is packed: row after row, without gaps, at most 512 rows at a time, which the
//           second-level cache holds beside rows of A.
//   task    a block of C, as many rows as make the packing worth its while, and enough tasks
//           for the threads. A B that many tasks would pack is packed once for all.
//
// Edges are computed by smaller tiles and partial vectors, never by padding C.
#pragma once
#include <algorithm>

#include "../primitives.hpp"
#include "cpu.hpp"
#include "simd.hpp"

namespace multistage::inline MULTISTAGE_ISA {
namespace gemm_kernel {

// Sums take 24 of 32 registers, or 12 of 16; three vectors of B are used by all rows of A.
/// Rows of a register tile: with three vectors of columns, sums take 24 of 32 registers, or 12
/// of 16, and what is left holds three vectors of B and one number of A.
inline constexpr int tile_rows = simd::registers == 32 ? 8 : 4;
inline constexpr int tile_vectors = 3;
/// Columns of a register tile and so of a panel of B: 24 floats with AVX2, 48 with AVX-512.
template <class T>
inline constexpr index_t tile_columns = index_t{simd::lanes<T>} * tile_vectors;
/// Blocks of k: a panel of B stays in the second-level cache.
inline constexpr index_t block_k = 512;

/// Elements that a packed matrix of k x n takes.
template <class T>
constexpr index_t packed_size(index_t k, index_t n) {
  return k * round_up(n, simd::lanes<T>);
}

/// Packs one panel, `columns` wide: B [k, columns], element (p, j) at b[p * row + j * column],
/// to rows of whole vectors, zeros behind.
template <class T>
void pack_panel(index_t k,
                index_t columns,
                const T* b,
                index_t row,
                index_t column,
                T* MULTISTAGE_RESTRICT to) {
  constexpr index_t L = simd::lanes<T>;
  const index_t width = round_up(columns, L);
  if (column == 1) {
    for (index_t p = 0; p < k; ++p, to += width) {
      const T* from = b + p * row;
      std::copy_n(from, columns, to);
      std::fill(to + columns, to + width, T(0));
    }
  } else if (row == 1) {  // B lies transposed: blocks of L x L change sides
    for (index_t p = 0; p < k; p += L)
      for (index_t j = 0; j < width; j += L) {
        const index_t rows = std::min(L, k - p);
        simd::vec<T> block[L];
        for (index_t l = 0; l < L; ++l) {
          const T* from = b + (j + l) * column + p;
          if (j + l >= columns)
            block[l] = simd::vec<T>{};
          else
            block[l] = rows == L ? simd::load(from) : simd::load_partial(from, rows);
        }
        simd::transpose<T>(block);
        for (index_t l = 0; l < rows; ++l)
          simd::store(to + (p + l) * width + j, block[l]);
      }
  } else {
    for (index_t p = 0; p < k; ++p)
      for (index_t j = 0; j < width; ++j)
        to[p * width + j] = j < columns ? b[p * row + j * column] : T(0);
  }
}

/// Packs B [k, n] into panels [panel][p][column of the panel]. A task takes some rows of all
/// panels, since B lies by rows.
template <class T>
void pack(const cpu& backend,
          index_t k,
          index_t n,
          const T* b,
          index_t row,
          index_t column,
          T* to) {
  constexpr index_t W = tile_columns<T>;
  constexpr index_t some = 64;
  backend.pool().parallel_for(divide_up(k, some), [&](index_t task) {
    const index_t p = task * some;
    const index_t rows = std::min(some, k - p);
    for (index_t j = 0; j < n; j += W) {
      const index_t columns = std::min(W, n - j);
      const index_t width = round_up(columns, simd::lanes<T>);
      const T* const from = b + p * row + j * column;  // [rows, columns]
      T* const panel = to + j * k + p * width;         // [rows, width]
      pack_panel(rows, columns, from, row, column, panel);
    }
  });
}

/// C[0..R, 0..columns] = alpha A B + beta C for one register tile.
template <int R, int V, class T>
inline void tile(index_t k,
                 const T* a,
                 index_t a_row,
                 index_t a_step,
                 const T* b,
                 index_t b_step,
                 T alpha,
                 T beta,
                 T* c,
                 index_t ldc,
                 index_t columns) {
  using vec = simd::vec<T>;
  constexpr index_t L = simd::lanes<T>;
  // one chain of additions, however k is cut into blocks
  const bool goes_on = alpha == T(1) && beta == T(1);
  // columns of the last vector, the others are full
  const index_t last = columns - (V - 1) * L;
  const auto load_c = [&](int r, int v) {
    const T* from = c + r * ldc + v * L;
    return v < V - 1 || last >= L ? simd::load(from) : simd::load_partial(from, last);
  };
  // The tile of C, which stays in registers. Where the product goes on with an earlier block of
  // k, it begins with what is there.
  vec sum[R][V] = {};
  if (goes_on) {
    MULTISTAGE_UNROLL(8)
    for (int r = 0; r < R; ++r)
      MULTISTAGE_UNROLL(4)
    for (int v = 0; v < V; ++v)
      sum[r][v] = load_c(r, v);
  }
  // A step of k: a row of B's panel is loaded once and meets each of A's R numbers, R V
  // multiply-adds for V loads and R broadcasts.
  for (index_t p = 0; p < k; ++p) {
    vec right[V];
    MULTISTAGE_UNROLL(4)
    for (int v = 0; v < V; ++v)
      right[v] = simd::load(b + v * L);
    MULTISTAGE_UNROLL(8)
    for (int r = 0; r < R; ++r) {
      const vec left = simd::broadcast(a[r * a_row]);
      MULTISTAGE_UNROLL(4)
      for (int v = 0; v < V; ++v)
        sum[r][v] += left * right[v];
    }
    a += a_step;
    b += b_step;
  }
  MULTISTAGE_UNROLL(8)
  for (int r = 0; r < R; ++r)
    MULTISTAGE_UNROLL(4)
  for (int v = 0; v < V; ++v) {
    T* to = c + r * ldc + v * L;
    vec value = sum[r][v];
    if (!goes_on)
      value *= simd::broadcast(alpha);
    if (!goes_on && beta != T(0))
      value += simd::broadcast(beta) * load_c(r, v);
    if (v < V - 1 || last >= L)
      simd::store(to, value);
    else
      simd::store_partial(to, value, last);
  }
}

/// Tiles of R rows from row i on, as many as there are whole ones.
template <int R, int V, class T>
inline void tiles(index_t& i,
                  const matrix_view<const T>& a,
                  const T* b,
                  index_t b_step,
                  const matrix_view<T>& c,
                  T alpha,
                  T beta) {
  for (; i + R <= c.rows; i += R)
    tile<R, V>(a.columns, a.data + i * a.row_stride, a.row_stride, a.column_stride, b, b_step,
               alpha, beta, c.data + i * c.row_stride, c.row_stride, c.columns);
}

/// C = alpha A B + beta C for one panel of V vectors: whole tiles, then tiles of 4, 2 and 1
/// rows, so that no row is computed twice.
template <int V, class T>
inline void panel(const matrix_view<const T>& a,
                  const T* b,
                  index_t b_step,
                  const matrix_view<T>& c,
                  T alpha,
                  T beta) {
  index_t i = 0;
  tiles<tile_rows, V>(i, a, b, b_step, c, alpha, beta);
  tiles<4, V>(i, a, b, b_step, c, alpha, beta);
  tiles<2, V>(i, a, b, b_step, c, alpha, beta);
  tiles<1, V>(i, a, b, b_step, c, alpha, beta);
}

/// The same for a panel of at most tile_columns columns, of which B has at least
/// round_up(columns, lanes) that may be read.
template <class T>
inline void any_panel(const matrix_view<const T>& a,
                      const T* b,
                      index_t b_step,
                      const matrix_view<T>& c,
                      T alpha,
                      T beta) {
  switch (divide_up(c.columns, index_t(simd::lanes<T>))) {
    case 1:
      return panel<1>(a, b, b_step, c, alpha, beta);
    case 2:
      return panel<2>(a, b, b_step, c, alpha, beta);
    default:
      return panel<tile_vectors>(a, b, b_step, c, alpha, beta);
  }
}

/// C = alpha A B + beta C in the calling thread, B packed by `pack`, C by rows.
template <class T>
void multiply_packed(factor<T> a,
                     const T* packed,
                     matrix_view<T> c,
                     scalar<T> alpha = T(1),
                     scalar<T> beta = T(0)) {
  const index_t k = a.columns;
  for (index_t j = 0; j < c.columns; j += tile_columns<T>) {
    const index_t columns = std::min(c.columns - j, tile_columns<T>);
    const index_t width = round_up(columns, simd::lanes<T>);
    const matrix_view<T> to = c.middle_columns(j, columns);
    for (index_t p = 0; p < k; p += block_k) {
      const auto left = a.middle_columns(p, std::min(block_k, k - p));
      const T* const right = packed + p * width;  // [block_k, width]
      const T kept = p == 0 ? T(beta) : T(1);     // of what C holds
      any_panel(left, right, width, to, T(alpha), kept);
    }
    packed += k * width;
  }
}

/// Whether rows of B, a factor of m rows of A, are read as they are: few rows of A do not pay
/// for packing, and short rows of B lie nearly as if packed.
template <class T>
bool reads_in_place(index_t m, const matrix_view<const T>& b) {
  const bool few_rows = m <= 4 * tile_rows;
  const bool short_rows = b.row_stride <= 2 * tile_columns<T>;
  return b.column_stride == 1 && (few_rows || short_rows);
}

/// The same with a B of any strides, packed a panel at a time where that pays.
template <class T>
void multiply(factor<T> a,
              factor<T> b,
              matrix_view<T> c,
              scalar<T> alpha = T(1),
              scalar<T> beta = T(0)) {
  const index_t k = a.columns;
  if (k == 0) {
    for (index_t i = 0; i < c.rows; ++i)
      for (index_t j = 0; j < c.columns; ++j) {
        T& to = c.data[i * c.row_stride + j];
        to = beta == T(0) ? T(0) : beta * to;
      }
    return;
  }
  const bool direct = reads_in_place<T>(c.rows, b);
  scratch_frame scratch;
  T* packed = nullptr;  // taken when first needed
  for (index_t j = 0; j < c.columns; j += tile_columns<T>) {
    const index_t columns = std::min(c.columns - j, tile_columns<T>);
    const index_t width = round_up(columns, simd::lanes<T>);
    for (index_t p = 0; p < k; p += block_k) {
      const index_t some = std::min(block_k, k - p);
      const T* right = b.data + p * b.row_stride + j * b.column_stride;
      index_t step = b.row_stride;
      if (!direct || width != columns) {
        if (!packed)
          packed = scratch.take<T>(block_k * tile_columns<T>);
        pack_panel(some, columns, right, b.row_stride, b.column_stride, packed);
        right = packed;
        step = width;
      }
      const T kept = p == 0 ? T(beta) : T(1);  // of what C holds
      const auto left = a.middle_columns(p, some);
      const matrix_view<T> to = c.middle_columns(j, columns);
      any_panel(left, right, step, to, T(alpha), kept);
    }
  }
}

}  // namespace gemm_kernel

/// C = alpha A B + beta C, any strides. Tasks are blocks of C. @see matrix_view
template <class T>
void multiply(const cpu& backend,
              factor<T> a,
              factor<T> b,
              matrix_view<T> c,
              scalar<T> alpha = T(1),
              scalar<T> beta = T(0)) {
  // Kernels write rows of C: others are made as C^T = B^T A^T, or as a copy.
  if (c.column_stride != 1 && c.columns > 1) {
    if (c.row_stride == 1 || c.rows == 1)
      return multiply(backend, b.transposed(), a.transposed(), c.transposed(), alpha, beta);
    scratch_frame scratch;
    const matrix_view<T> packed{scratch.take<T>(c.rows * c.columns), c.rows, c.columns};
    const auto each = [&](auto&& f) {
      for (index_t i = 0; i < c.rows; ++i)
        for (index_t j = 0; j < c.columns; ++j)
          f(packed.data[i * c.columns + j], c.data[i * c.row_stride + j * c.column_stride]);
    };
    if (beta != T(0))
      each([](T& to, const T& from) { to = from; });
    multiply(backend, a, b, packed, alpha, beta);
    each([](const T& from, T& to) { to = from; });
    return;
  }
  // A task is a block of C: rows enough that a panel of B is used many times while it is in
  // cache, but eight tasks if there is work.
  constexpr index_t R = gemm_kernel::tile_rows;
  const index_t k = a.columns;
  const index_t wide = 2 * gemm_kernel::tile_columns<T>;  // columns of a task
  const index_t across = divide_up(c.columns, wide);
  const index_t tasks = divide_up(8, across);
  const index_t share = round_up(divide_up(c.rows, tasks), R);
  const index_t tall = std::clamp(share, R, 16 * R);  // rows of a task
  const index_t down = divide_up(c.rows, tall);
  // A B that every block of rows would pack again is packed once for all, unless it were too
  // large to stay near.
  constexpr index_t often = 4;
  constexpr index_t near = index_t{16} << 20;
  const index_t size = gemm_kernel::packed_size<T>(k, c.columns);
  scratch_frame scratch;
  const T* packed = nullptr;
  const bool packs = k > 0 && !gemm_kernel::reads_in_place<T>(tall, b);
  const bool stays_near = size * index_t(sizeof(T)) <= near;
  if (down >= often && packs && stays_near) {
    T* made = scratch.take<T>(size);
    gemm_kernel::pack(backend, k, c.columns, b.data, b.row_stride, b.column_stride, made);
    packed = made;
  }
  backend.pool().parallel_for(down * across, [&](index_t task) {
    const index_t i = task / across * tall;
    const index_t j = task % across * wide;
    const index_t rows = std::min(tall, c.rows - i);
    const index_t columns = std::min(wide, c.columns - j);
    const matrix_view<const T> left = a.middle_rows(i, rows);
    const matrix_view<T> to = c.middle_rows(i, rows).middle_columns(j, columns);
    if (packed)
      gemm_kernel::multiply_packed(left, packed + j * k, to, alpha, beta);
    else
      gemm_kernel::multiply(left, b.middle_columns(j, columns), to, alpha, beta);
  });
}

}  // namespace multistage::inline MULTISTAGE_ISA
