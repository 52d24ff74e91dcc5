// Depthwise resampling on the CPU, output rows as tasks; channels are the vector direction.
//
// Filters have few taps (2, 4, 6), and rows of channels are long, so for each pixel of the
// result the pixels under the taps are added up, a multiply-add a channel. The filter is not
// split into rows and columns: for 2 x 2 taps, the commonest, an image in between would cost
// more than it saves.
#pragma once
#include "../primitives.hpp"
#include "cpu.hpp"

namespace multistage::inline MULTISTAGE_ISA {

/// @see resample_problem.
template <class T>
void resample_run(const cpu& b, const resample_problem<T>& p) {
  const index_t c = p.channels;
  b.pool().parallel_for(p.rows * p.out_height, [&](index_t task) {
    const index_t row = task / p.out_height;
    const index_t i = task % p.out_height;
    // Row i of the result: each of its pixels gathers the taps that exist. Going up, only every
    // rate-th tap meets a pixel of the input.
    const T* x = p.x + row * p.height * p.width * c;
    T* out = p.y + task * p.out_width * c;
    for (index_t j = 0; j < p.out_width; ++j, out += c) {
      if (!p.accumulate)
        std::fill_n(out, c, T(0));
      for (int u = 0; u < p.taps; ++u) {
        index_t si;
        if (p.up) {
          if ((i - u + p.padding) % p.rate != 0)
            continue;
          si = (i - u + p.padding) / p.rate;
        } else
          si = p.rate * i + u - p.padding;
        if (si < 0 || si >= p.height)
          continue;
        for (int v = 0; v < p.taps; ++v) {
          index_t sj;
          if (p.up) {
            if ((j - v + p.padding) % p.rate != 0)
              continue;
            sj = (j - v + p.padding) / p.rate;
          } else
            sj = p.rate * j + v - p.padding;
          if (sj < 0 || sj >= p.width)
            continue;
          const T f = p.gain * p.filter[u] * p.filter[v];
          const T* MULTISTAGE_RESTRICT from = x + (si * p.width + sj) * c;
          T* MULTISTAGE_RESTRICT to = out;
          for (index_t k = 0; k < c; ++k)
            to[k] += f * from[k];
        }
      }
    }
  });
}

}  // namespace multistage::inline MULTISTAGE_ISA
