// A view: a pointer with extents and strides over memory that somebody else owns. It is what
// operations take and kernels read; views that know their backend, and so can be computed with,
// are in tensor.hpp.
//
// Element (i, j, k) of a view of three axes lies at data[i * strides[0] + j * strides[1] + k *
// strides[2]]. Strides are why slicing, permuting, reversing and spreading copy nothing: each
// is other numbers over the same memory. Kernels that go along memory ask contiguous() first.
//
//   float memory[6] = {1, 2, 3, 4, 5, 6};
//   view<float, rank<2>> rows(memory, {2, 3});     // row 1 begins at memory + 3
#pragma once
#include <type_traits>

#include "extents.hpp"

namespace multistage {

/// A view of elements in a backend's memory. `T` may be const; strides are in elements and may
/// be any, also 0 (the same element again) and negative. Copying it copies no element.
template <class T, class Extents = shape>
struct view {
  using element_type = T;                     ///< const where the elements are only read
  using value_type = std::remove_const_t<T>;  ///< what an element is, without const
  using extents_type = Extents;               ///< a `shape` or `extents<...>`
  /// How many axes there are.
  static constexpr int rank() {
    return Extents::rank();
  }

  T* data = nullptr;                      ///< the element at place 0 along every axis
  Extents extents{};                      ///< elements along each axis
  index_list<Extents::rank()> strides{};  ///< elements of memory from one place of an axis to
                                          ///< the next; 0 repeats, below 0 goes backwards

  constexpr view() = default;
  /// Elements that lie one after the other.
  constexpr view(T* data_, const Extents& e)
      : data(data_),
        extents(e),
        strides(packed_strides(e)) {}
  /// Any strides, in elements; the caller sees to it that all of them stay within its memory.
  constexpr view(T* data_, const Extents& e, const index_list<Extents::rank()>& s)
      : data(data_),
        extents(e),
        strides(s) {}
  /// A mutable view reads as a const one; extents may be known to one type and not to the
  /// other. @throws shape_error
  template <class U, class Other>
  requires(std::is_convertible_v<U (*)[], T (*)[]>&& Other::rank() == Extents::rank() &&
           !(std::is_same_v<U, T> &&
             std::is_same_v<Other, Extents>)) constexpr view(const view<U, Other>& v)
      : data(v.data),
        extents(convert_extents<Extents>(v.extents)),
        strides(v.strides) {}

  /// Whether the elements lie one after the other, the last axis fastest, as operations need
  /// them.
  constexpr bool contiguous() const {
    index_t step = 1;
    bool packed = true;
    for (int k = rank() - 1; k >= 0; --k) {
      if (extents[k] == 0)
        return true;
      if (extents[k] != 1 && strides[k] != step)
        packed = false;
      step *= extents[k];
    }
    return packed;
  }
  /// [first, first + count) of the first axis.
  constexpr view rows(index_t first, index_t count) const {
    index_list<rank()> list;
    for (int k = 0; k < rank(); ++k)
      list[k] = extents[k];
    list[0] = count;
    return {data + first * strides[0], make_extents<Extents>(list), strides};
  }
  /// Whether it shows anything at all: operands that may be left out are views of null.
  constexpr explicit operator bool() const {
    return data != nullptr;
  }
};

/// A view over memory in NCHW order, with NHWC extents `s`: copying from it imports, copying to
/// it exports.
template <class T>
constexpr view<T> nchw(T* data, shape s) {
  return {data, s, {s.row_size(), s.width, 1, s.height * s.width}};
}

}  // namespace multistage
