// Operations that bring two tensors together: a row vector added to all pixels, and
// concatenation of channels with its inverse. Networks mostly do without the latter: norms and
// 1x1 convolutions read two inputs (conv_extras::x2, norm_options::x2).
#pragma once
#include "shape_rules.hpp"

namespace multistage {
namespace ops::functor {
template <class T>
struct add_row {
  const T* x;
  const T* row;
  index_t channels;
  index_t pixels;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    y[i] = x[i] + row[i / (channels * pixels) * channels + i % channels];
  }
};
template <class T>
struct concat {
  const T* x;
  const T* x2;
  index_t channels;
  index_t channels2;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t pixel = i / (channels + channels2);
    const index_t c = i % (channels + channels2);
    y[i] = c < channels ? x[pixel * channels + c] : x2[pixel * channels2 + c - channels];
  }
};
template <class T>
struct split {
  const T* from;
  index_t all;
  index_t first;
  index_t channels;
  T* to;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const T v = from[i / channels * all + first + i % channels];
    to[i] = accumulate ? to[i] + v : v;
  }
};
}  // namespace ops::functor

namespace ops {

/// y [rows, h, w, c] = x + row, row [rows, 1, 1, c].
template <class Backend, class T>
void add_row(Backend& b, input<T> x, input<T> row, view<T> y) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  expect("add_row", "x", x, x.extents);
  expect("add_row", "row", row, shape{x.extents.rows, 1, 1, x.extents.channels});
  expect("add_row", "y", y, x.extents);
  b.for_each_index(x.extents.size(), functor::add_row<T>{x.data, row.data, x.extents.channels,
                                                         x.extents.pixels(), y.data});
}
/// y [rows, h, w, c + c2] = [x, x2].
template <class Backend, class T>
void concat(Backend& b, input<T> x, input<T> x2, view<T> y) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  shape s = x.extents;
  expect_packed("concat", "x", x);
  expect("concat", "x2", x2, shape{s.rows, s.height, s.width, x2.extents.channels});
  s.channels += x2.extents.channels;
  expect("concat", "y", y, s);
  b.for_each_index(s.size(), functor::concat<T>{x.data, x2.data, x.extents.channels,
                                                x2.extents.channels, y.data});
}
/// to [rows, h, w, c] (+)= channels [first, first + c) of from: the backward of concat, once
/// for each input.
template <class Backend, class T>
void split(Backend& b, input<T> from, index_t first, view<T> to, bool accumulate = false) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  require<shape_error>(first >= 0 && first + to.extents.channels <= from.extents.channels,
                       "split: channels [", first, ", ", first + to.extents.channels, ") of ",
                       from.extents);
  shape s = to.extents;
  s.channels = from.extents.channels;
  expect("split", "from", from, s);
  expect("split", "to", to, to.extents);
  b.for_each_index(to.extents.size(),
                   functor::split<T>{from.data, s.channels, first, to.extents.channels, to.data,
                                     accumulate});
}

}  // namespace ops
}  // namespace multistage
