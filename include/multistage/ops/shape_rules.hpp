// What operations share in checking their arguments.
#pragma once
#include "../backend/concept.hpp"
#include "../backend/primitives.hpp"
#include "../core/tensor.hpp"

namespace multistage::ops {

/// An operand that is read: a tensor, a view, const or not. The element type follows from the
/// results, which are given as views (y.view()), since they are what changes.
template <class T>
using input = std::type_identity_t<view<const T>>;

/// @throws shape_error unless `v` is contiguous with the extents `expected`; `where` and `what`
/// name it.
template <class T>
void expect(const char* where, const char* what, const view<T>& v, const shape& expected) {
  require<shape_error>(v.data != nullptr || expected.size() == 0, where, ": ", what,
                       " is missing; it has extents ", expected);
  require<shape_error>(v.extents == expected, where, ": ", what, " has extents ", v.extents,
                       ", expected ", expected);
  require<shape_error>(v.contiguous(), where, ": ", what, " ", v.extents,
                       " is not contiguous NHWC; copy it into a tensor first");
}
/// @throws shape_error unless `v` is there and contiguous, whatever its extents.
template <class T>
void expect_packed(const char* where, const char* what, const view<T>& v) {
  expect(where, what, v, v.extents);
}
/// The same for an operand that may be absent.
template <class T>
void expect_optional(const char* where,
                     const char* what,
                     const view<T>& v,
                     const shape& expected) {
  if (v)
    expect(where, what, v, expected);
}

}  // namespace multistage::ops
