// Views of views: part of an axis, axes in another order, other extents over the same elements.
// No element is copied.
//
// Each function here makes the extents and strides of the new view from those of the old one:
//
//   slice      strides[axis] * step, and data moved to the first element
//   at         the axis left out, data moved to the place
//   expand     an axis of one element, whose stride does not matter
//   permute    extents and strides in another order
//   reverse    the stride negated, data moved to the last element
//   broadcast  stride 0 where one element stands for many
//   reshape    axes split or joined where the elements lie so that strides can say it
//
// What a view's type knows of its extents, the new view's type knows, too.
#pragma once
#include <cstddef>
#include <initializer_list>
#include <utility>

#include "view.hpp"

namespace multistage {
namespace detail {

/// E with another extent along one axis; without that axis; with a new axis of one element
/// before it.
template <class E, int Axis, index_t New, class I = std::make_integer_sequence<int, E::rank()>>
struct with_extent;
template <class E, int Axis, index_t New, int... I>
struct with_extent<E, Axis, New, std::integer_sequence<int, I...>> {
  using type = canonical<(I == Axis ? New : E::static_extent(I))...>;
};
/// E without the axis `Axis`.
template <class E, int Axis, class I = std::make_integer_sequence<int, E::rank() - 1>>
struct without_axis;
template <class E, int Axis, int... I>
struct without_axis<E, Axis, std::integer_sequence<int, I...>> {
  using type = canonical<E::static_extent(I < Axis ? I : I + 1)...>;
};
/// The extent of axis k of E with a new axis of one element before `Axis`.
template <class E, int Axis>
constexpr index_t extent_with_axis(int k) {
  if (k == Axis)
    return 1;
  return E::static_extent(k < Axis ? k : k - 1);
}
/// E with a new axis of one element before `Axis`.
template <class E, int Axis, class I = std::make_integer_sequence<int, E::rank() + 1>>
struct with_axis;
template <class E, int Axis, int... I>
struct with_axis<E, Axis, std::integer_sequence<int, I...>> {
  using type = canonical<extent_with_axis<E, Axis>(I)...>;
};

/// From the extents and strides of `v`, axis by axis: take(axis of the result) gives the axis
/// of v, or -1 for a new one.
template <class E, class T, class Old, class Take>
constexpr view<T, E> rearranged(const view<T, Old>& v, Take&& take) {
  index_list<E::rank()> extents;
  index_list<E::rank()> strides;
  for (int k = 0; k < E::rank(); ++k) {
    const int from = take(k);
    extents[k] = from < 0 ? 1 : v.extents[from];
    strides[k] = from < 0 ? 0 : v.strides[from];
  }
  return {v.data, make_extents<E>(extents), strides};
}

/// Every step-th element of [first, last) of one axis.
template <int Axis, class T, class E>
constexpr auto slice(const view<T, E>& v, index_t first, index_t last, index_t step) {
  static_assert(Axis >= 0 && Axis < E::rank(),
                "multistage: slice: there is no such axis; they count from 0");
  const bool within = 0 <= first && first <= last && last <= v.extents[Axis];
  require<shape_error>(within && step >= 1, "slice: [", first, ", ", last, ") by ", step,
                       " of axis ", Axis, " of ", v.extents,
                       "; 0 <= first <= last <= the axis' extent is needed, and a step from 1");
  using result = typename with_extent<E, Axis, dynamic>::type;
  index_list<E::rank()> extents;
  for (int k = 0; k < E::rank(); ++k)
    extents[k] = k == Axis ? divide_up(last - first, step) : v.extents[k];
  index_list<E::rank()> strides = v.strides;
  strides[Axis] *= step;
  T* const begin = v.data + first * v.strides[Axis];
  return view<T, result>(begin, make_extents<result>(extents), strides);
}

/// One place of an axis, which goes.
template <int Axis, class T, class E>
constexpr auto at(const view<T, E>& v, index_t place) {
  static_assert(Axis >= 0 && Axis < E::rank(),
                "multistage: at: there is no such axis; they count from 0");
  require<shape_error>(0 <= place && place < v.extents[Axis], "at: place ", place, " of axis ",
                       Axis, " of ", v.extents, "; places count from 0");
  using result = typename without_axis<E, Axis>::type;
  auto rest = rearranged<result>(v, [](int k) { return k < Axis ? k : k + 1; });
  rest.data += place * v.strides[Axis];
  return rest;
}

/// A new axis of one element before `Axis`.
template <int Axis, class T, class E>
constexpr auto expand(const view<T, E>& v) {
  static_assert(Axis >= 0 && Axis <= E::rank(),
                "multistage: expand: there is no such place for an axis");
  using result = typename with_axis<E, Axis>::type;
  return rearranged<result>(v, [](int k) {
    if (k == Axis)
      return -1;  // the new one
    return k < Axis ? k : k - 1;
  });
}

/// Whether each of 0, ..., n - 1 is among n axes.
template <int... Axes>
constexpr bool each_axis_once() {
  constexpr int count = int(sizeof...(Axes));
  bool seen[count > 0 ? count : 1] = {};
  for (const int axis : std::initializer_list<int>{Axes...}) {
    if (axis < 0 || axis >= count || seen[axis])
      return false;
    seen[axis] = true;
  }
  return true;
}

/// The axes in the order that `Axes` names.
template <int... Axes, class T, class E>
constexpr auto permute(const view<T, E>& v) {
  static_assert(int(sizeof...(Axes)) == E::rank() && each_axis_once<Axes...>(),
                "multistage: permute names every axis once, e.g. permute<0, 3, 1, 2>()");
  constexpr int order[sizeof...(Axes) > 0 ? sizeof...(Axes) : 1] = {Axes...};
  return rearranged<canonical<E::static_extent(Axes)...>>(v, [&](int k) { return order[k]; });
}

/// The axes in the opposite order; a matrix's rows become its columns.
template <class T, class E, int... I>
constexpr auto transpose(const view<T, E>& v, std::integer_sequence<int, I...>) {
  return permute<(E::rank() - 1 - I)...>(v);
}

/// One axis from its end, by a stride below 0.
template <int Axis, class T, class E>
constexpr view<T, E> reverse(view<T, E> v) {
  static_assert(Axis >= 0 && Axis < E::rank(),
                "multistage: reverse: there is no such axis; they count from 0");
  const index_t last = v.extents[Axis] - 1;
  if (last > 0)
    v.data += last * v.strides[Axis];
  v.strides[Axis] = -v.strides[Axis];
  return v;
}

/// Whether extents `from` spread to `to`: axes aligned at the last one, each equal or 1.
template <class From, class To>
constexpr bool spreads(const From& from, const To& to) {
  const int skip = To::rank() - From::rank();
  if (skip < 0)
    return false;
  for (int k = 0; k < From::rank(); ++k)
    if (from[k] != 1 && from[k] != to[k + skip])
      return false;
  return true;
}
/// The strides of v spread to `to`.
template <class T, class E, class To>
constexpr index_list<To::rank()> spread_strides(const view<T, E>& v, const To& to) {
  constexpr int skip = To::rank() - E::rank();
  index_list<To::rank()> strides;
  for (int k = 0; k < E::rank(); ++k) {
    const bool repeated = v.extents[k] == 1 && to[k + skip] != 1;
    strides[k + skip] = repeated ? 0 : v.strides[k];
  }
  return strides;
}
/// v repeated to the extents `to`, by strides of 0. @throws shape_error where it does not
/// spread
template <class To, class T, class E>
constexpr view<T, To> broadcast(const view<T, E>& v, const To& to) {
  require<shape_error>(spreads(v.extents, to), "broadcast: ", v.extents, " does not spread to ",
                       to, "; seen from the last axis, extents must be equal or 1");
  return {v.data, to, spread_strides(v, to)};
}

/// Strides that give the same elements in the same order other extents. @throws shape_error
/// where there are none
template <class To, class T, class E>
constexpr view<T, To> reshape(const view<T, E>& v, const To& to) {
  require<shape_error>(v.extents.size() == to.size(), "reshape: ", v.extents, " has ",
                       v.extents.size(), " elements, ", to, " has ", to.size());
  if (v.contiguous())
    return {v.data, to};
  index_list<To::rank()> strides;
  const auto before = [&](int axis) {  // the last axis in front of it that has steps
    do
      --axis;
    while (axis >= 0 && v.extents[axis] == 1);
    return axis;
  };
  int from = before(E::rank());  // axes of v that are used up from the last one on
  int k = To::rank() - 1;        // likewise of the result
  bool good = true;
  while (k >= 0 && good) {
    if (to[k] == 1) {
      strides[k--] = 0;
      continue;
    }
    // A run of v's axes that lie as one, and the axes of the result that cut it.
    const index_t step = v.strides[from];
    index_t have = v.extents[from];
    index_t want = to[k];
    strides[k--] = step;
    while (have != want && good) {
      if (have < want) {
        // The run is too short: v's next axis joins it, if it lies as a continuation.
        const int next = before(from);
        good = next >= 0 && v.strides[next] == step * have;
        if (good) {
          have *= v.extents[next];
          from = next;
        }
      } else {
        // It is longer than what the result has of it: the result's next axis cuts it.
        good = k >= 0;
        if (good) {
          strides[k] = step * want;
          want *= to[k];
          --k;
        }
      }
    }
    from = before(from);
  }
  require<shape_error>(good, "reshape: a view ", v.extents,
                       " whose elements do not lie one after the other cannot be seen as ", to,
                       "; copy() it first");
  return {v.data, to, strides};
}

}  // namespace detail
}  // namespace multistage
