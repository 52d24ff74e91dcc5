// Sums on the CPU in an order fixed by the extents.
//
// Sums over rows go down the rows with channels in the lanes of registers, so that memory is
// read along its lines, and each channel is one chain of additions. Where rows are many they
// are cut into blocks of a fixed number, which are tasks; the blocks' sums are added in their
// order. Threads only decide who makes a block, never where it is cut.
//
//   column_sums(b, rows, channels, x, y, false);          // y [channels], over the rows of x
//   row_sums(b, rows, pixels, channels, x, y, false);     // y [rows, channels], over pixels
#pragma once
#include <vector>

#include "cpu.hpp"
#include "simd.hpp"

namespace multistage::inline MULTISTAGE_ISA {
namespace reduce_kernel {

/// to[c] = sum over `count` rows of x[row * stride + c], added to what is there if
/// `accumulate`.
template <class T>
void add_rows(index_t count,
              index_t channels,
              const T* x,
              index_t stride,
              T* to,
              bool accumulate) {
  constexpr index_t L = simd::lanes<T>;
  index_t c = 0;
  // Four vectors of channels at a time: four chains of additions hide each other's latency.
  for (; c + 4 * L <= channels; c += 4 * L) {
    simd::vec<T> s[4];
    for (int v = 0; v < 4; ++v)
      s[v] = accumulate ? simd::load(to + c + v * L) : simd::vec<T>{};
    for (index_t r = 0; r < count; ++r)
      for (int v = 0; v < 4; ++v)
        s[v] += simd::load(x + r * stride + c + v * L);
    for (int v = 0; v < 4; ++v)
      simd::store(to + c + v * L, s[v]);
  }
  for (; c < channels; c += L) {
    const index_t n = std::min(L, channels - c);
    simd::vec<T> s = accumulate ? simd::load_partial(to + c, n) : simd::vec<T>{};
    if (n == L)
      for (index_t r = 0; r < count; ++r)
        s += simd::load(x + r * stride + c);
    else
      for (index_t r = 0; r < count; ++r)
        s += simd::load_partial(x + r * stride + c, n);
    simd::store_partial(to + c, s, n);
  }
}

}  // namespace reduce_kernel

/// y[c] (+)= sum of x [rows, channels] over rows.
template <class T>
void column_sums(const cpu& b,
                 index_t rows,
                 index_t channels,
                 const T* x,
                 T* y,
                 bool accumulate) {
  // Rows in blocks of a fixed size, then the blocks' sums in their order: the same additions
  // for any number of threads.
  constexpr index_t block = 1024;
  const index_t blocks = divide_up(rows, block);
  if (blocks <= 1) {
    constexpr index_t columns = 4096;
    b.pool().parallel_for(divide_up(channels, columns), [&](index_t k) {
      const index_t c = k * columns;
      reduce_kernel::add_rows(rows, std::min(columns, channels - c), x + c, channels, y + c,
                              accumulate);
    });
    return;
  }
  std::vector<T> partial(std::size_t(blocks * channels));
  b.pool().parallel_for(blocks, [&](index_t k) {
    reduce_kernel::add_rows(std::min(block, rows - k * block), channels,
                            x + k * block * channels, channels, partial.data() + k * channels,
                            false);
  });
  reduce_kernel::add_rows(blocks, channels, partial.data(), channels, y, accumulate);
}

/// y [rows, channels] (+)= sum of x [rows, pixels, channels] over pixels.
template <class T>
void row_sums(const cpu& b,
              index_t rows,
              index_t pixels,
              index_t channels,
              const T* x,
              T* y,
              bool accumulate) {
  b.for_each_row(rows, pixels * channels, [&](index_t r) {
    reduce_kernel::add_rows(pixels, channels, x + r * pixels * channels, channels,
                            y + r * channels, accumulate);
  });
}

/// Sum of x or of x^2, in double.
template <class T>
double reduce_sum(const cpu& b, index_t n, const T* x, bool squares) {
  constexpr index_t block = 8192;
  const index_t blocks = divide_up(n, block);
  std::vector<double> partial(std::size_t(std::max<index_t>(blocks, 1)));
  b.pool().parallel_for(blocks, [&](index_t k) {
    // Eight sums side by side within a block, joined as a tree.
    constexpr index_t lanes = 8;
    double s[lanes] = {};
    const index_t end = std::min(n, (k + 1) * block);
    index_t i = k * block;
    for (; i + lanes <= end; i += lanes)
      for (index_t l = 0; l < lanes; ++l)
        s[l] += squares ? double(x[i + l]) * double(x[i + l]) : double(x[i + l]);
    for (; i < end; ++i)
      s[0] += squares ? double(x[i]) * double(x[i]) : double(x[i]);
    partial[k] = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  });
  double total = 0;
  for (double p : partial)
    total += p;
  return total;
}

}  // namespace multistage::inline MULTISTAGE_ISA
