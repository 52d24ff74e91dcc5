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
/// E with a new axis of one element before `Axis`.
template <class E, int Axis, class I = std::make_integer_sequence<int, E::rank() + 1>>
struct with_axis;
template <class E, int Axis, int... I>
struct with_axis<E, Axis, std::integer_sequence<int, I...>> {
  using type = canonical<(I == Axis ? 1
                                    : E::static_extent(I < Axis ? I
                                                       : I == 0 ? 0
                                                                : I - 1))...>;
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
  require<shape_error>(0 <= first && first <= last && last <= v.extents[Axis] && step >= 1,
                       "slice: [", first, ", ", last, ") by ", step, " of axis ", Axis, " of ",
                       v.extents,
                       "; 0 <= first <= last <= the axis' extent is needed, and a step from 1");
  using result = typename with_extent<E, Axis, dynamic>::type;
  index_list<E::rank()> extents;
  for (int k = 0; k < E::rank(); ++k)
    extents[k] = k == Axis ? divide_up(last - first, step) : v.extents[k];
  index_list<E::rank()> strides = v.strides;
  strides[Axis] *= step;
  return view<T, result>(v.data + first * v.strides[Axis], make_extents<result>(extents),
                         strides);
}

/// One place of an axis, which goes.
template <int Axis, class T, class E>
constexpr auto at(const view<T, E>& v, index_t place) {
  static_assert(Axis >= 0 && Axis < E::rank(),
                "multistage: at: there is no such axis; they count from 0");
  require<shape_error>(0 <= place && place < v.extents[Axis], "at: place ", place, " of axis ",
                       Axis, " of ", v.extents, "; places count from 0");
  auto rest = rearranged<typename without_axis<E, Axis>::type>(
      v, [](int k) { return k < Axis ? k : k + 1; });
  rest.data += place * v.strides[Axis];
  return rest;
}

/// A new axis of one element before `Axis`.
template <int Axis, class T, class E>
constexpr auto expand(const view<T, E>& v) {
  static_assert(Axis >= 0 && Axis <= E::rank(),
                "multistage: expand: there is no such place for an axis");
  return rearranged<typename with_axis<E, Axis>::type>(v, [](int k) {
    return k < Axis ? k : k == Axis ? -1 : k - 1;
  });
}

/// The axes in the order that `Axes` names.
template <int... Axes, class T, class E>
constexpr auto permute(const view<T, E>& v) {
  constexpr bool good = [] {
    if (sizeof...(Axes) != std::size_t(E::rank()))
      return false;
    bool seen[E::rank() > 0 ? E::rank() : 1] = {};
    bool all = true;
    ((Axes >= 0 && Axes < E::rank() && !seen[Axes] ? void(seen[Axes] = true)
                                                   : void(all = false)),
     ...);
    return all;
  }();
  static_assert(good, "multistage: permute names every axis once, e.g. permute<0, 3, 1, 2>()");
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
  if (v.extents[Axis] > 0)
    v.data += (v.extents[Axis] - 1) * v.strides[Axis];
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
  int at = E::rank() - 1;  // axes of v that are used up from the last one on
  int k = To::rank() - 1;
  bool good = true;
  while (k >= 0 && good) {
    if (to[k] == 1) {
      strides[k--] = 0;
      continue;
    }
    while (at >= 0 && v.extents[at] == 1)
      --at;
    // A run of v's axes that lie as one, and the axes of the result that cut it.
    index_t have = v.extents[at];
    const index_t step = v.strides[at];
    index_t want = to[k];
    index_t used = 1;
    strides[k--] = step;
    while (have != want && good) {
      // The run is too short: v's next axis joins it, if it lies as a continuation. Else the
      // result's next axis cuts it.
      if (have < want) {
        const int next = at - 1;
        int from = next;
        while (from >= 0 && v.extents[from] == 1)
          --from;
        good = from >= 0 && v.strides[from] == step * have;
        if (good) {
          have *= v.extents[from];
          at = from;
        }
      } else {
        used = want;
        good = k >= 0;
        if (good) {
          want *= to[k];
          strides[k--] = step * used;
        }
      }
    }
    --at;
  }
  require<shape_error>(good, "reshape: a view ", v.extents,
                       " whose elements do not lie one after the other cannot be seen as ", to,
                       "; copy() it first");
  return {v.data, to, strides};
}

}  // namespace detail
}  // namespace multistage
