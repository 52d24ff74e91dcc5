// Copies between views of any strides, on one backend: NCHW import and export, transposition, gathering of rows; and conversion of
// scalars on the way.
#pragma once
#include "shape_rules.hpp"

namespace multistage::ops {
namespace functor {
template <class From, class To>
struct strided_copy {
  view<const From> from;
  view<To> to;
  MULTISTAGE_HD void operator()(index_t i) const {
    const shape& s = to.extents;
    const index_t c = i % s.channels, x = i / s.channels % s.width, y = i / (s.channels * s.width) % s.height, r = i / s.row_size();
    to.data[r * to.strides[0] + y * to.strides[1] + x * to.strides[2] + c * to.strides[3]] =
        To(from.data[r * from.strides[0] + y * from.strides[1] + x * from.strides[2] + c * from.strides[3]]);
  }
};
}  // namespace functor

/// to = from, element by element. @throws shape_error when the extents differ.
template <class Backend, class From, class To>
void copy(Backend& b, view<From> from, view<To> to) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, To);
  require<shape_error>(from.extents == to.extents, "copy: from ", from.extents, " to ", to.extents, "; extents must be equal");
  b.for_each_index(to.extents.size(), functor::strided_copy<std::remove_const_t<From>, To>{{from.data, from.extents, from.strides}, to});
}

}  // namespace multistage::ops
