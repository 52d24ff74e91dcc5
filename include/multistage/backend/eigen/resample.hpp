// Depthwise resampling by Eigen: the filter is separable, so that rows of the image are summed
// first, columns then. A task is an image.
#pragma once
#include "eigen.hpp"
#include "taps.hpp"

namespace multistage {

/// @see resample_problem.
template <class T>
void resample_run(const eigen& b, const resample_problem<T>& p) {
  using namespace eigen_kernel;
  const axis vertical{p.height, p.rate, p.padding, p.up};
  const axis horizontal{p.width, p.rate, p.padding, p.up};
  const index_t c = p.channels;
  const index_t line = p.width * c;  // values of a row of x
  b.for_each_piece(p.rows, 1, [&](index_t row, index_t) {
    const auto x = as_array(p.x + row * p.height * line, p.height, line);
    // Rows: [out_height, width channels], a row of the image at a time.
    array<T> tall = array<T>::Zero(p.out_height, line);
    for (index_t i = 0; i < p.out_height; ++i)
      for (index_t u = 0; u < p.taps; ++u) {
        const index_t from = vertical.source(i, u);
        if (from >= 0)
          tall.row(i) += p.filter[u] * x.row(from);
      }
    const auto pixels = as_array(tall.data(), p.out_height * p.width, c);
    // Columns: [out_height out_width, channels], a pixel at a time.
    array<T> y = array<T>::Zero(p.out_height * p.out_width, c);
    for (index_t i = 0; i < p.out_height; ++i)
      for (index_t j = 0; j < p.out_width; ++j)
        for (index_t v = 0; v < p.taps; ++v) {
          const index_t from = horizontal.source(j, v);
          if (from < 0)
            continue;
          const auto pixel = pixels.row(i * p.width + from);  // [channels]
          y.row(i * p.out_width + j) += p.filter[v] * pixel;
        }
    y *= p.gain;
    auto to = as_array(p.y + row * y.size(), y.rows(), c);
    if (p.accumulate)
      to += y;
    else
      to = y;
  });
}

}  // namespace multistage
