// Matrix products on Thrust systems: System::products decides. The host twin of cuBLAS is a functor over tiles of C.
#pragma once
#include "thrust_backend.hpp"

namespace multistage {
namespace thrust_kernel {

template <class T>
struct transpose {
  const T* from;
  index_t rows, columns, lda;
  T* to;
  MULTISTAGE_HD void operator()(index_t i) const { to[i] = from[i % rows * lda + i / rows]; }
};

/// One tile of C = alpha A B + beta C with B's rows contiguous.
template <class T>
struct product_tile {
  static constexpr index_t tile_rows = 4, tile_columns = 32;
  index_t m, n, k;
  T alpha;
  const T* a;
  index_t a_row, a_step;
  const T* b;
  index_t ldb;
  T beta;
  T* c;
  index_t ldc;
  MULTISTAGE_HD void operator()(index_t tile) const {
    const index_t across = divide_up(n, tile_columns), i0 = tile / across * tile_rows, j0 = tile % across * tile_columns;
    const index_t rows = m - i0 < tile_rows ? m - i0 : tile_rows, columns = n - j0 < tile_columns ? n - j0 : tile_columns;
    T sum[tile_rows][tile_columns] = {};
    if (rows == tile_rows && columns == tile_columns) {
      for (index_t p = 0; p < k; ++p)
        for (index_t r = 0; r < tile_rows; ++r) {
          const T left = a[(i0 + r) * a_row + p * a_step];
          for (index_t j = 0; j < tile_columns; ++j) sum[r][j] += left * b[p * ldb + j0 + j];
        }
    } else {
      for (index_t p = 0; p < k; ++p)
        for (index_t r = 0; r < rows; ++r) {
          const T left = a[(i0 + r) * a_row + p * a_step];
          for (index_t j = 0; j < columns; ++j) sum[r][j] += left * b[p * ldb + j0 + j];
        }
    }
    for (index_t r = 0; r < rows; ++r)
      for (index_t j = 0; j < columns; ++j) {
        T& to = c[(i0 + r) * ldc + j0 + j];
        to = beta == T(0) ? alpha * sum[r][j] : alpha * sum[r][j] + beta * to;
      }
  }
};

/// The host twin of cuBLAS.
struct host_products {
  template <class System, class T>
  void operator()(const thrust_backend<System>& b, gemm_problem<T> p) const {
    if (p.transpose_b) {
      T* transposed = b.template workspace<T>(0, p.k * p.n);
      b.for_each_index(p.k * p.n, transpose<T>{p.b, p.n, p.k, p.ldb, transposed});
      p.b = transposed;
      p.ldb = p.n;
    }
    using tile = product_tile<T>;
    b.for_each_index(divide_up(p.m, tile::tile_rows) * divide_up(p.n, tile::tile_columns),
                     tile{p.m, p.n, p.k, p.alpha, p.a, p.transpose_a ? 1 : p.lda, p.transpose_a ? p.lda : 1, p.b, p.ldb, p.beta, p.c, p.ldc});
  }
};

}  // namespace thrust_kernel

/// @see gemm_problem.
template <class System, class T>
void gemm(const thrust_backend<System>& b, const gemm_problem<T>& p) {
  b.products()(b, p);
}

}  // namespace multistage
