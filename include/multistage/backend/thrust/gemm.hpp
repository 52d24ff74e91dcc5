// Matrix products on Thrust systems: System::products decides. The host twin of cuBLAS is a
// functor over tiles of C.
//
// On a GPU System::products is cuBLAS, which wants one stride of 1 in each matrix and rows
// that do not overlap; multiply() brings any other matrix into that form by a copy. On a host
// it is host_products below: tiles of 4 x 32 elements of C whose inner loop runs along B's
// rows, so that compilers make vectors of it.
#pragma once
#include "thrust_backend.hpp"

namespace multistage {
namespace thrust_kernel {

/// To row after row, and back.
template <class T>
struct pack {
  matrix_view<const T> from;
  T* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    to[i] =
        from.data[i / from.columns * from.row_stride + i % from.columns * from.column_stride];
  }
};
/// From row after row to a matrix of any strides.
template <class T>
struct unpack {
  const T* from;
  matrix_view<T> to;
  MULTISTAGE_HD void operator()(index_t i) const {
    to.data[i / to.columns * to.row_stride + i % to.columns * to.column_stride] = from[i];
  }
};

/// One tile of C = alpha A B + beta C with B's rows contiguous.
template <class T>
struct product_tile {
  static constexpr index_t tile_rows = 4;
  static constexpr index_t tile_columns = 32;
  index_t m;
  index_t n;
  index_t k;
  T alpha;
  const T* a;
  index_t a_row;
  index_t a_step;
  const T* b;
  index_t ldb;
  T beta;
  T* c;
  index_t ldc;
  MULTISTAGE_HD void operator()(index_t tile) const {
    const index_t across = divide_up(n, tile_columns);
    const index_t i0 = tile / across * tile_rows;
    const index_t j0 = tile % across * tile_columns;
    const index_t rows = m - i0 < tile_rows ? m - i0 : tile_rows;
    const index_t columns = n - j0 < tile_columns ? n - j0 : tile_columns;
    T sum[tile_rows][tile_columns] = {};
    if (rows == tile_rows && columns == tile_columns) {
      for (index_t p = 0; p < k; ++p)
        for (index_t r = 0; r < tile_rows; ++r) {
          const T left = a[(i0 + r) * a_row + p * a_step];
          for (index_t j = 0; j < tile_columns; ++j)
            sum[r][j] += left * b[p * ldb + j0 + j];
        }
    } else {
      for (index_t p = 0; p < k; ++p)
        for (index_t r = 0; r < rows; ++r) {
          const T left = a[(i0 + r) * a_row + p * a_step];
          for (index_t j = 0; j < columns; ++j)
            sum[r][j] += left * b[p * ldb + j0 + j];
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
  /// C = alpha A B + beta C, tiles of C as indices. A is read with any strides; a B whose rows
  /// have steps is packed first, since the inner loop goes along them.
  template <class System, class T>
  void operator()(const thrust_backend<System>& backend,
                  matrix_view<const T> a,
                  matrix_view<const T> b,
                  matrix_view<T> c,
                  T alpha,
                  T beta) const {
    if (b.column_stride != 1 && b.columns > 1) {
      T* packed = backend.template workspace<T>(0, b.rows * b.columns);
      backend.for_each_index(b.rows * b.columns, pack<T>{b, packed});
      b = {packed, b.rows, b.columns};
    }
    using tile = product_tile<T>;
    backend.for_each_index(
        divide_up(c.rows, tile::tile_rows) * divide_up(c.columns, tile::tile_columns),
        tile{c.rows, c.columns, a.columns, alpha, a.data, a.row_stride, a.column_stride, b.data,
             b.row_stride, beta, c.data, c.row_stride});
  }
};

/// Whether BLAS can name this matrix: one of its strides is 1, and lines do not lie over each
/// other.
template <class T>
bool has_leading_dimension(const matrix_view<T>& a) {
  return (a.column_stride == 1 && a.row_stride >= a.columns) ||
         (a.row_stride == 1 && a.column_stride >= a.rows);
}
/// `a`, or a copy of it in `memory` that has.
template <class System, class T>
matrix_view<const T> with_leading_dimension(
    const thrust_backend<System>& b,
    matrix_view<const T> a,
    typename thrust_backend<System>::template storage<T>& memory) {
  if (has_leading_dimension(a))
    return a;
  memory = b.template allocate<T>(a.rows * a.columns);
  T* packed = b.pointer(memory);
  b.for_each_index(a.rows * a.columns, pack<T>{a, packed});
  return {packed, a.rows, a.columns};
}

}  // namespace thrust_kernel

/// C = alpha A B + beta C, any strides. System::products gets matrices that BLAS can name, C by
/// rows. @see matrix_view
template <class System, class T>
void multiply(const thrust_backend<System>& backend,
              factor<T> a,
              factor<T> b,
              matrix_view<T> c,
              scalar<T> alpha = T(1),
              scalar<T> beta = T(0)) {
  using namespace thrust_kernel;
  // BLAS writes C by rows here: C by columns is the transposed product, any other C a copy that
  // is written back.
  const bool by_rows = c.column_stride == 1 && c.row_stride >= c.columns;
  if (!by_rows && has_leading_dimension(c))
    return multiply(backend, b.transposed(), a.transposed(), c.transposed(), alpha, beta);
  typename thrust_backend<System>::template storage<T> of_a, of_b, of_c;
  a = with_leading_dimension<System, T>(backend, a, of_a);
  b = with_leading_dimension<System, T>(backend, b, of_b);
  if (by_rows)
    return backend.products()(backend, a, b, c, alpha, beta);
  of_c = backend.template allocate<T>(c.rows * c.columns);
  const matrix_view<T> packed{backend.pointer(of_c), c.rows, c.columns};
  if (beta != T(0))
    backend.for_each_index(c.rows * c.columns, pack<T>{c, packed.data});
  backend.products()(backend, a, b, packed, alpha, beta);
  backend.for_each_index(c.rows * c.columns, unpack<T>{packed.data, c});
  backend.synchronize();  // before the copies go
}

}  // namespace multistage
