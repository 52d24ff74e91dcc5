// Printing: nested brackets, the last axis inside; of long axes the first and last three
// elements.
//
//   std::cout << x.at<0>(0) << y;
//
// A device's elements are copied to the host first.
#pragma once
#include "evaluate.hpp"

namespace multistage {
namespace detail {

/// A tensor of more elements is printed in part.
inline constexpr index_t printed_whole = 1000;
/// Elements that are shown of each end of a long axis.
inline constexpr index_t printed_ends = 3;

/// A number; bytes as numbers, not as characters.
template <class T>
void print_element(std::ostream& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>)
    out << (value ? "true" : "false");
  else if constexpr (sizeof(T) == 1 && std::is_integral_v<T>)
    out << int(value);
  else
    out << computed_t<T>(value);
}
/// The elements of axes from `axis` on, inside brackets. @param at of the next element in
/// `values`, counted on
template <class Values, class E>
void print_axis(std::ostream& out,
                const Values& values,
                const E& extents,
                int axis,
                index_t& at) {
  if (axis == E::rank())
    return print_element(out, typename Values::value_type(values[std::size_t(at++)]));
  index_t inner = 1;
  for (int k = axis + 1; k < E::rank(); ++k)
    inner *= extents[k];
  out << '[';
  for (index_t i = 0; i < extents[axis]; ++i) {
    if (i > 0) {
      out << ',';
      const int below =
          E::rank() - axis -
          1;  // axes inside: so many line breaks, and a space a bracket that is open
      for (int k = 0; k < below; ++k)
        out << '\n';
      for (int k = 0; k < (below > 0 ? axis + 1 : 1); ++k)
        out << ' ';
    }
    if (values.size() > std::size_t(printed_whole) && extents[axis] > 2 * printed_ends + 1 &&
        i == printed_ends) {
      const index_t skipped = extents[axis] - 2 * printed_ends;
      out << "...";
      at += skipped * inner;
      i += skipped - 1;
      continue;
    }
    print_axis(out, values, extents, axis + 1, at);
  }
  out << ']';
}

}  // namespace detail

/// The values, copied to the host first where they are not there: [[1, 2], [3, 4]]. Beyond
/// 1,000 elements each long axis shows its first and last three.
template <tensor_like X>
std::ostream& operator<<(std::ostream& out, const X& x) {
  index_t at = 0;
  detail::print_axis(out, x.to_host(), x.extents(), 0, at);
  return out;
}
/// The values, evaluated for the print alone.
template <expression X>
std::ostream& operator<<(std::ostream& out, const X& x) {
  return out << eval(x);
}

}  // namespace multistage
