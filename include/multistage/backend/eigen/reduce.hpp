// Sums by Eigen, in an order fixed by the extents: blocks of rows first, then the blocks.
//
// Eigen's own sums cut at the first aligned element and by the width of registers; on arrays
// that start aligned and have a fixed size that is always the same place.
//
//   column_sums(b, rows, channels, x, y, false);          // y [channels], over the rows of x
//   row_sums(b, rows, pixels, channels, x, y, false);     // y [rows, channels], over pixels
#pragma once
#include "eigen.hpp"

namespace multistage {

/// y[c] (+)= sum of x [rows, channels] over rows.
template <class T>
void column_sums(const eigen& b,
                 index_t rows,
                 index_t channels,
                 const T* x,
                 T* y,
                 bool accumulate) {
  using namespace eigen_kernel;
  constexpr index_t block = 1024;
  array<T> partial = array<T>::Zero(divide_up(rows, block), channels);  // [blocks, channels]
  b.for_each_piece(rows, block, [&](index_t first, index_t count) {
    const row_array<T> sum = as_array(x + first * channels, count, channels).colwise().sum();
    partial.row(first / block) = sum;
  });
  row_array<T> sum = row_array<T>::Zero(channels);
  if (accumulate)
    sum = as_row(y, channels);
  for (index_t k = 0; k < partial.rows(); ++k)
    sum += partial.row(k);
  as_row(y, channels) = sum;
}

/// y [rows, channels] (+)= sum of x [rows, pixels, channels] over pixels.
template <class T>
void row_sums(const eigen& b,
              index_t rows,
              index_t pixels,
              index_t channels,
              const T* x,
              T* y,
              bool accumulate) {
  using namespace eigen_kernel;
  b.for_each_piece(rows, 1, [&](index_t row, index_t) {
    const row_array<T> sum =
        as_array(x + row * pixels * channels, pixels, channels).colwise().sum();
    auto to = as_row(y + row * channels, channels);
    if (accumulate)
      to += sum;
    else
      to = sum;
  });
}

/// Sum of x or of x^2, in double.
template <class T>
double reduce_sum(const eigen& b, index_t n, const T* x, bool squares) {
  using namespace eigen_kernel;
  constexpr index_t block = 4096;
  row_array<double> partial = row_array<double>::Zero(divide_up(n, block));
  b.for_each_piece(n, block, [&](index_t first, index_t count) {
    const row_array<double> values = as_row(x + first, count).template cast<double>();
    partial[first / block] = squares ? values.square().sum() : values.sum();
  });
  return partial.sum();
}

}  // namespace multistage
