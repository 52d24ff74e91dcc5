// How large a tensor is along each of its axes, as std::mdspan has it: extents known at compile
// time are part of the type and checked there, others are `dynamic` and checked at run time.
//
//   extents<2, dynamic, 8>   three axes, two of them known
//   rank<3>                  three axes, all known at run time
//   shape                    four axes, known at run time, with names: rank<4> is the same type
//
// Two extents go together where what both know is equal; that is asked at compile time, the
// rest at run time. Numbers are 64 bits and signed, so that differences and loops downwards
// need no care.
#pragma once
#include <concepts>
#include <ostream>
#include <type_traits>
#include <utility>

#include "config.hpp"
#include "error.hpp"

namespace multistage {

/// An extent that is known at run time only.
inline constexpr index_t dynamic = -1;

/// N numbers: extents, strides or places along N axes. A std::array that device code can read.
template <int N>
struct index_list {
  /// One an axis; a list for no axes keeps one that nobody reads.
  index_t value[N > 0 ? std::size_t(N) : 1] = {};

  constexpr index_list() = default;
  /// One number an axis; an index_list<3> takes three.
  template <std::convertible_to<index_t>... Values>
  requires(sizeof...(Values) == N && N > 0) MULTISTAGE_HD constexpr index_list(Values... values)
      : value{index_t(values)...} {}

  /// How many numbers there are, N.
  static constexpr int size() {
    return N;
  }
  /// The number of an axis, counted from 0 and not checked.
  MULTISTAGE_HD constexpr index_t& operator[](int axis) {
    return value[axis];
  }
  /// The number of an axis, counted from 0 and not checked.
  MULTISTAGE_HD constexpr const index_t& operator[](int axis) const {
    return value[axis];
  }
  /// For loops over the axes, the slowest one first.
  constexpr const index_t* begin() const {
    return value;
  }
  /// Behind the last axis.
  constexpr const index_t* end() const {
    return value + N;
  }
  /// Equal along every axis.
  MULTISTAGE_HD friend constexpr bool operator==(const index_list& a, const index_list& b) {
    for (int k = 0; k < N; ++k)
      if (a.value[k] != b.value[k])
        return false;
    return true;
  }
};

/// What serves as extents: a fixed number of axes, each with an extent that may be known to the
/// compiler.
template <class E>
concept extents_like = requires(const E& e) {
  { E::rank() } -> std::convertible_to<int>;
  { E::static_extent(0) } -> std::convertible_to<index_t>;
  { e[0] } -> std::convertible_to<index_t>;
  { e.size() } -> std::convertible_to<index_t>;
};

namespace detail {
/// Elements in all.
template <class E>
MULTISTAGE_HD constexpr index_t product(const E& e) {
  index_t n = 1;
  for (int k = 0; k < E::rank(); ++k)
    n *= e[k];
  return n;
}
/// As "[2, 32, 32, 3]".
template <class E>
void print_extents(std::ostream& out, const E& e) {
  out << '[';
  for (int k = 0; k < E::rank(); ++k)
    out << (k ? ", " : "") << e[k];
  out << ']';
}
}  // namespace detail

/// Extents along sizeof...(Extents) axes, the last one varying fastest: extents<2, dynamic, 8>.
template <index_t... Extents>
struct extents {
  static_assert(((Extents >= dynamic) && ...),
                "multistage: an extent is at least 0, or multistage::dynamic");

  /// How many axes there are.
  MULTISTAGE_HD static constexpr int rank() {
    return int(sizeof...(Extents));
  }
  /// The extent where the compiler knows it, else `dynamic`.
  MULTISTAGE_HD static constexpr index_t static_extent(int axis) {
    constexpr index_t known[sizeof...(Extents) > 0 ? sizeof...(Extents) : 1] = {Extents...};
    return known[axis];
  }

  /// Known extents as they are, the others 0.
  constexpr extents()
      : value_(index_list<rank()>((Extents == dynamic ? 0 : Extents)...)) {}
  /// One number an axis. @throws shape_error where one differs from what the type says
  template <std::convertible_to<index_t>... Values>
  requires(sizeof...(Values) == sizeof...(Extents) &&
           sizeof...(Values) > 0) constexpr extents(Values... values)
      : extents(index_list<rank()>(values...)) {}
  /// From a list with one number an axis. @throws shape_error where one differs from what the
  /// type says
  constexpr explicit extents(const index_list<rank()>& values)
      : value_(values) {
    for (int k = 0; k < rank(); ++k)
      if (static_extent(k) != dynamic && value_[k] != static_extent(k))
        fail<shape_error>("extents: axis ", k, " has ", value_[k], ", its type says ",
                          static_extent(k));
  }
  /// From others of as many axes. What both types know is compared at compile time. @throws
  /// shape_error
  template <extents_like Other>
  requires(Other::rank() == int(sizeof...(Extents)) &&
           !std::is_same_v<Other, extents>) constexpr extents(const Other& other)
      : extents(list_of(other)) {
    static_assert(fits<Other>(),
                  "multistage: these extents differ from those of the type; see the template "
                  "arguments of both");
  }

  /// The extent of an axis, counted from 0; a constant where the type knows it.
  MULTISTAGE_HD constexpr index_t operator[](int axis) const {
    return static_extent(axis) == dynamic ? value_[axis] : static_extent(axis);
  }
  /// Elements in all.
  MULTISTAGE_HD constexpr index_t size() const {
    return detail::product(*this);
  }

  /// As "[2, 3, 8]".
  friend std::ostream& operator<<(std::ostream& out, const extents& e) {
    detail::print_extents(out, e);
    return out;
  }

 private:
  template <class Other>
  static constexpr index_list<rank()> list_of(const Other& other) {
    index_list<rank()> list;
    for (int k = 0; k < rank(); ++k)
      list[k] = other[k];
    return list;
  }
  /// Whether extents of another type may be these: as many axes, no two numbers that differ.
  template <class Other>
  static constexpr bool fits() {
    for (int k = 0; k < rank(); ++k)
      if (static_extent(k) != dynamic && Other::static_extent(k) != dynamic &&
          static_extent(k) != Other::static_extent(k))
        return false;
    return true;
  }
  index_list<rank()> value_;
};
/// extents{2, n, 8} are extents<dynamic, dynamic, dynamic>: numbers in parentheses are run-time
/// ones.
template <class... Values>
extents(Values...) -> extents<(sizeof(Values) > 0 ? dynamic : dynamic)...>;

/// Extents of images, [rows, height, width, channels] (NHWC), all known at run time: the
/// extents of four axes, with names.
struct shape {
  index_t rows = 1;      ///< images of a batch
  index_t height = 1;    ///< pixels from top to bottom
  index_t width = 1;     ///< pixels from left to right
  index_t channels = 1;  ///< values a pixel, which vary fastest

  /// Four axes.
  MULTISTAGE_HD static constexpr int rank() {
    return 4;
  }
  /// All four are known at run time only.
  MULTISTAGE_HD static constexpr index_t static_extent(int) {
    return dynamic;
  }
  /// rows, height, width and channels by number, as kernels for any extents ask for them.
  MULTISTAGE_HD constexpr index_t operator[](int axis) const {
    return axis == 0 ? rows : axis == 1 ? height : axis == 2 ? width : channels;
  }
  /// Pixels of one image.
  MULTISTAGE_HD constexpr index_t pixels() const {
    return height * width;
  }
  /// Elements of one row.
  MULTISTAGE_HD constexpr index_t row_size() const {
    return height * width * channels;
  }
  /// Elements in all.
  MULTISTAGE_HD constexpr index_t size() const {
    return rows * height * width * channels;
  }
  /// Equal along every axis.
  friend constexpr bool operator==(const shape&, const shape&) = default;
  /// As "[2, 32, 32, 3]".
  friend std::ostream& operator<<(std::ostream& out, const shape& s) {
    detail::print_extents(out, s);
    return out;
  }
};

/// Whether extents are at least 0 and their product, with some bytes an element, is a number at
/// all: 2^40 x 2^20 x 8 is none.
template <extents_like E>
constexpr bool countable(const E& e) {
  index_t product = 1;
  for (int k = 0; k < E::rank(); ++k)
    if (e[k] < 0 || __builtin_mul_overflow(product, e[k] > 0 ? e[k] : 1, &product))
      return false;
  return product <= index_t{1} << 56;
}

/// Whether two extents are equal, whatever their types.
template <extents_like A, extents_like B>
constexpr bool same_extents(const A& a, const B& b) {
  if (A::rank() != B::rank())
    return false;
  for (int k = 0; k < A::rank(); ++k)
    if (a[k] != b[k])
      return false;
  return true;
}
/// Whether extents are equal, whatever their types.
template <index_t... A, extents_like B>
constexpr bool operator==(const extents<A...>& a, const B& b) {
  return same_extents(a, b);
}

namespace detail {
/// Extents under the one name that their type has: four known at run time are a `shape`.
template <index_t... E>
using canonical =
    std::conditional_t<sizeof...(E) == 4 && ((E == dynamic) && ...), shape, extents<E...>>;

template <class Axes>
struct dynamic_extents;
template <int... Axis>
struct dynamic_extents<std::integer_sequence<int, Axis...>> {
  using type = canonical<(Axis < 0 ? 0 : dynamic)...>;
};
}  // namespace detail

/// Extents of N axes, all known at run time. For four axes they are a `shape`.
template <int N>
using rank = typename detail::dynamic_extents<std::make_integer_sequence<int, N>>::type;

/// Extents of type E from a list.
template <extents_like E>
constexpr E make_extents(const index_list<E::rank()>& list) {
  if constexpr (std::is_same_v<E, shape>)
    return {list[0], list[1], list[2], list[3]};
  else
    return E(list);
}
/// Extents of type E from others with as many axes. @throws shape_error where they differ from
/// what E knows
template <extents_like E, extents_like Other>
constexpr E convert_extents(const Other& other) {
  if constexpr (std::is_same_v<E, shape>)
    return {other[0], other[1], other[2], other[3]};
  else
    return E(other);
}

/// Strides of elements that lie one after the other, the last axis fastest.
template <extents_like E>
constexpr index_list<E::rank()> packed_strides(const E& e) {
  index_list<E::rank()> strides;
  index_t step = 1;
  for (int k = E::rank() - 1; k >= 0; --k) {
    strides[k] = step;
    step *= e[k];
  }
  return strides;
}

}  // namespace multistage
