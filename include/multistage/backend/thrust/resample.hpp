// Depthwise resampling on Thrust systems: a functor over output pixels (host) or values
// (device).
//
// Going up is the transpose of going down, but both gather: an index finds which pixels of the
// input its pixel depends on, so that no two indices write to the same place.
#pragma once
#include "thrust_backend.hpp"

namespace multistage {
namespace thrust_kernel {

/// `span` neighbouring channels of one pixel of the result, gathered tap by tap.
template <class T>
struct resampled {
  resample_problem<T> p;
  index_t span;
  /// Whether tap `tap` of output place i reads a place of the input, and which, `s`.
  MULTISTAGE_HD static bool
  source(bool up, int rate, index_t i, int tap, int padding, index_t extent, index_t& s) {
    if (up) {
      const index_t place = i - tap + padding;
      if (place % rate != 0)
        return false;
      s = place / rate;
    } else
      s = rate * i + tap - padding;
    return s >= 0 && s < extent;
  }
  MULTISTAGE_HD void operator()(index_t k) const {
    const index_t first = k * span;
    const index_t pixel = first / p.channels;
    const index_t c0 = first % p.channels;
    const index_t j = pixel % p.out_width;
    const index_t i = pixel / p.out_width % p.out_height;
    const index_t row = pixel / (p.out_width * p.out_height);
    T* to = p.y + first;
    if (!p.accumulate)
      for (index_t c = 0; c < span; ++c)
        to[c] = T(0);
    for (int u = 0; u < p.taps; ++u)
      for (int v = 0; v < p.taps; ++v) {
        index_t si = 0;
        index_t sj = 0;
        if (!source(p.up, p.rate, i, u, p.padding, p.height, si) ||
            !source(p.up, p.rate, j, v, p.padding, p.width, sj))
          continue;
        const T f = p.gain * p.filter[u] * p.filter[v];
        const T* from = p.x + ((row * p.height + si) * p.width + sj) * p.channels + c0;
        for (index_t c = 0; c < span; ++c)
          to[c] += f * from[c];
      }
  }
};

}  // namespace thrust_kernel

/// @see resample_problem.
template <class System, class T>
void resample_run(const thrust_backend<System>& b, const resample_problem<T>& p) {
  const index_t span = thrust_kernel::span<System>(p.channels);
  b.for_each_index(p.rows * p.out_height * p.out_width * p.channels / span,
                   thrust_kernel::resampled<T>{p, span});
}

}  // namespace multistage
