// Sums. The order of additions is fixed by the extents alone, so results are the same bits for
// any number of threads.
//
//   sum(backend, x)                 of all elements, in double
//   sum_of_squares(backend, x)      for norms of gradients
//   sum_over_pixels(backend, x, y)  [rows, h, w, c] to [1, 1, 1, c]: what a bias's gradient is
#pragma once
#include "shape_rules.hpp"

namespace multistage::ops {

/// Sum of x[i] over all elements, accumulated in double.
template <class Backend, class T>
double sum(Backend& b, view<const T> x) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, reduce, T);
  expect_packed("sum", "x", x);
  return reduce_sum(b, x.extents.size(), x.data, false);
}
/// Sum of x[i]^2 over all elements, accumulated in double. NaN and infinity pass through, which
/// makes it the check for both.
template <class Backend, class T>
double sum_of_squares(Backend& b, view<const T> x) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, reduce, T);
  expect_packed("sum_of_squares", "x", x);
  return reduce_sum(b, x.extents.size(), x.data, true);
}
/// y[c] (+)= sum of x over rows and pixels, for x [rows, h, w, c] and y [1, 1, 1, c].
template <class Backend, class T>
void sum_over_pixels(Backend& b, input<T> x, view<T> y, bool accumulate = false) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, reduce, T);
  expect_packed("sum_over_pixels", "x", x);
  expect("sum_over_pixels", "y", y, shape{1, 1, 1, x.extents.channels});
  column_sums(b, x.extents.rows * x.extents.pixels(), x.extents.channels, x.data, y.data,
              accumulate);
}

}  // namespace multistage::ops
