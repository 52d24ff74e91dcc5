// Sums on Thrust systems, in an order fixed by the extents.
//
// A sum over n rows is cut into blocks by extents alone, an index each; a second loop adds the
// blocks in their order. So results are the same bits on every run and with any number of
// threads, unlike with atomic additions, whose order is whoever comes first.
#pragma once
#include <vector>

#include "thrust_backend.hpp"

namespace multistage {
namespace thrust_kernel {

/// y[block, c] (+)= sum over the block's rows of x[block * height + r, c], of at most `rows`
/// rows in all.
template <class T>
struct sum_rows {
  const T* x;
  index_t rows;
  index_t height;
  index_t channels;
  T* y;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t block = i / channels;
    const index_t c = i % channels;
    const index_t end = (block + 1) * height < rows ? (block + 1) * height : rows;
    T s = accumulate ? y[i] : T(0);
    for (index_t r = block * height; r < end; ++r)
      s += x[r * channels + c];
    y[i] = s;
  }
};
/// partial[block] = the sum of a run of x or x^2, in double.
template <class T>
struct sum_block {
  static constexpr index_t size = 4096;
  const T* x;
  index_t n;
  bool squares;
  double* partial;
  MULTISTAGE_HD void operator()(index_t block) const {
    const index_t end = (block + 1) * size < n ? (block + 1) * size : n;
    double s = 0;
    for (index_t i = block * size; i < end; ++i)
      s += squares ? double(x[i]) * double(x[i]) : double(x[i]);
    partial[block] = s;
  }
};

}  // namespace thrust_kernel

/// y[c] (+)= sum of x [rows, channels] over rows.
template <class System, class T>
void column_sums(const thrust_backend<System>& b,
                 index_t rows,
                 index_t channels,
                 const T* x,
                 T* y,
                 bool accumulate) {
  using thrust_kernel::sum_rows;
  // Blocks of rows first, then the blocks: enough indices for a device's threads, and an order
  // that only the extents decide.
  constexpr index_t height = 128;
  const index_t blocks = divide_up(rows, height);
  if (blocks <= 1)
    return b.for_each_index(channels, sum_rows<T>{x, rows, rows, channels, y, accumulate});
  T* partial = b.template workspace<T>(1, blocks * channels);
  b.for_each_index(blocks * channels, sum_rows<T>{x, rows, height, channels, partial, false});
  b.for_each_index(channels, sum_rows<T>{partial, blocks, blocks, channels, y, accumulate});
}

/// y [rows, channels] (+)= sum of x [rows, pixels, channels] over pixels.
template <class System, class T>
void row_sums(const thrust_backend<System>& b,
              index_t rows,
              index_t pixels,
              index_t channels,
              const T* x,
              T* y,
              bool accumulate) {
  b.for_each_index(rows * channels, thrust_kernel::sum_rows<T>{x, rows * pixels, pixels,
                                                               channels, y, accumulate});
}

/// The sum of blocks' sums, on the host, in their order.
template <class System>
double total_of(const thrust_backend<System>& b, const double* partial, index_t blocks) {
  std::vector<double> host(static_cast<std::size_t>(blocks));
  b.download(partial, host.data(), blocks);
  double total = 0;
  for (const double sum : host)
    total += sum;
  return total;
}

/// Sum of x or of x^2, in double.
template <class System, class T>
double reduce_sum(const thrust_backend<System>& b, index_t n, const T* x, bool squares) {
  using block = thrust_kernel::sum_block<T>;
  const index_t blocks = divide_up(n, block::size);
  if (blocks == 0)
    return 0;
  double* partial = b.template workspace<double>(1, blocks);
  b.for_each_index(blocks, block{x, n, squares, partial});
  return total_of(b, partial, blocks);
}

}  // namespace multistage
