// Embeddings of a noise level into n channels: positional (Vaswani et al. 2017) angles v
// 10000^(-j / d), j = 0 .. n/2 - 1, or Fourier (Tancik et al. 2020) angles 2 pi f_j v with
// fixed random frequencies; then sine and cosine halves.
#pragma once
#include <cmath>

#include "shape_rules.hpp"

namespace multistage::ops {

/// How angles become channels.
struct embedding_form {
  bool sine_first = true;  ///< [sin, cos] or [cos, sin]
  bool endpoint = true;    ///< d = n/2 - 1 (the last angle is v / 10000) or d = n/2
  bool logarithm = false;  ///< embed ln v
};

namespace functor {
template <class T>
struct embedding {
  index_t channels;
  const T* values;
  const T* frequencies;  // null: positional
  embedding_form form;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t half = channels / 2;
    const index_t row = i / channels;
    const index_t c = i % channels;
    const index_t j = c % half;
    T v = values[row];
    if (form.logarithm)
      v = T(::log(double(v)));
    double angle;
    if (frequencies)
      angle = double(v) * 6.283185307179586 * double(frequencies[j]);
    else
      angle = double(v) * ::pow(10000.0, -double(j) / double(form.endpoint ? half - 1 : half));
    y[i] = T((c < half) == form.sine_first ? ::sin(angle) : ::cos(angle));
  }
};
}  // namespace functor

/// y [rows, 1, 1, n] from values [rows, 1, 1, 1] and, for Fourier, frequencies [1, 1, 1, n /
/// 2]. Noise levels get no gradient.
template <class Backend, class T>
void embedding(Backend& b,
               input<T> values,
               view<T> y,
               embedding_form form = {},
               input<T> frequencies = {}) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  const index_t n = y.extents.channels;
  require<value_error>(n >= 4 && n % 2 == 0, "embedding: ", n,
                       " channels; an even number from 4 is needed");
  expect("embedding", "y", y, shape{y.extents.rows, 1, 1, n});
  expect("embedding", "values", values, shape{y.extents.rows, 1, 1, 1});
  expect_optional("embedding", "frequencies", frequencies, shape{1, 1, 1, n / 2});
  b.for_each_index(y.extents.size(),
                   functor::embedding<T>{n, values.data, frequencies.data, form, y.data});
}

}  // namespace multistage::ops
