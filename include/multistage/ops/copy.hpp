// Copies between views of any strides, on one backend: NCHW import and export, transposition,
// gathering of rows; and conversion of scalars on the way.
//
//   copy(backend, nchw(theirs, s), view<float>(ours, s));   // NCHW to NHWC
#pragma once
#include "shape_rules.hpp"

namespace multistage::ops {
namespace functor {
/// to = from, element by element, between views of any strides.
template <class From, class To>
struct strided_copy {
  const From* from;
  To* to;
  index_t height;
  index_t width;
  index_t channels;
  index_t from_stride[4];
  index_t to_stride[4];
  strided_copy(const view<const From>& f, const view<To>& t)
      : from(f.data),
        to(t.data),
        height(t.extents.height),
        width(t.extents.width),
        channels(t.extents.channels) {
    for (int k = 0; k < 4; ++k)
      from_stride[k] = f.strides[k], to_stride[k] = t.strides[k];
  }
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t at[4] = {i / (channels * width * height), i / (channels * width) % height,
                           i / channels % width, i % channels};
    index_t f = 0;
    index_t t = 0;
    for (int k = 0; k < 4; ++k) {
      f += at[k] * from_stride[k];
      t += at[k] * to_stride[k];
    }
    to[t] = To(from[f]);
  }
};
}  // namespace functor

/// to = from, element by element. @throws shape_error when the extents differ.
template <class Backend, class From, class To>
void copy(Backend& b, view<From> from, view<To> to) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, To);
  require<shape_error>(from.extents == to.extents, "copy: from ", from.extents, " to ",
                       to.extents, "; extents must be equal");
  b.for_each_index(
      to.extents.size(),
      functor::strided_copy<std::remove_const_t<From>, To>(
          view<const std::remove_const_t<From>>{from.data, from.extents, from.strides}, to));
}

}  // namespace multistage::ops
