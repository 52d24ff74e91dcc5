// Reductions over all elements or over some axes: sum, mean, largest and smallest with their
// places, Euclidean norm. The order of additions follows from the extents alone, so that
// results are the same bits for any number of threads. Floating-point values are added in
// double, integers and bool in 64 bits.
//
//   sum(x)                              a number
//   mean(x, axes{1, 2})                 a tensor of two axes less
//   x - max(x, axes{3}, keep)           `keep` leaves one element along the axis, which spreads
//
// The elements that a result is made of are cut into parts of 4,096, a number that does not
// depend on the machine. A part is added in eight lanes that are then joined, the parts in
// their order. Where a kept axis lies innermost, up to 64 results are made side by side
// instead, so that memory is read along its lines.
#pragma once
#include <cmath>

#include "evaluate.hpp"

namespace multistage {

/// Some axes of a tensor, counted from 0 or, below 0, from behind: mean(y, axes{0, 1, 2}).
template <int N>
struct axes {
  int value[std::size_t(N)];  ///< in any order, each once
};
/// axes{0, 1} are axes<2>.
template <class... Axes>
axes(Axes...) -> axes<int(sizeof...(Axes))>;

/// Given behind the axes: they stay, with one element each, so that the result spreads over
/// what it came from.
struct keep_axes {};
/// The one value of keep_axes: mean(y, axes{3}, keep).
inline constexpr keep_axes keep{};

namespace lazy::reducing {

/// What values are added in.
template <class T>
using wide = std::conditional_t<std::is_floating_point_v<computed_t<T>>, double, std::int64_t>;
/// What sums and means over axes are: of the operand's own type where it is floating-point.
template <class T>
using narrow =
    std::conditional_t<std::is_floating_point_v<computed_t<T>>, computed_t<T>, std::int64_t>;
/// What means and norms over axes are: also of integers a number with a fraction.
template <class T>
using fraction =
    std::conditional_t<std::is_floating_point_v<computed_t<T>>, computed_t<T>, double>;

/// The sum. Like every reduction it has an `accumulator`, how it takes in a value and another
/// accumulator, and how it ends. `ordered`: places count. `of_nothing`: it has a value even
/// where there are no elements.
template <class T>
struct sum {
  using accumulator = wide<T>;
  using result = narrow<T>;
  static constexpr bool ordered = false;
  static constexpr bool of_nothing = true;
  /// Nothing added yet.
  MULTISTAGE_HD static accumulator start() {
    return 0;
  }
  /// Adds a value; its place does not matter.
  MULTISTAGE_HD static void take(accumulator& a, computed_t<T> value, index_t) {
    a += accumulator(value);
  }
  /// Adds what another part has summed up.
  MULTISTAGE_HD static void merge(accumulator& a, const accumulator& b) {
    a += b;
  }
  /// The result of so many elements.
  MULTISTAGE_HD static accumulator end(const accumulator& a, index_t) {
    return a;
  }
};
/// The arithmetic mean: the sum, divided once at the end.
template <class T>
struct mean : sum<T> {
  using result = fraction<T>;
  static constexpr bool of_nothing = false;
  /// Divides by the number of elements.
  MULTISTAGE_HD static double end(const wide<T>& a, index_t n) {
    return double(a) / double(n);
  }
};
/// The Euclidean norm: the root of the sum of squares, without scaling, so squares beyond
/// double's range are infinite.
template <class T>
struct norm {
  using accumulator = double;
  using result = fraction<T>;
  static constexpr bool ordered = false;
  static constexpr bool of_nothing = true;
  /// Nothing added yet.
  MULTISTAGE_HD static double start() {
    return 0;
  }
  /// Adds the square of a value.
  MULTISTAGE_HD static void take(double& a, computed_t<T> value, index_t) {
    a += double(value) * double(value);
  }
  /// Adds the squares of another part.
  MULTISTAGE_HD static void merge(double& a, const double& b) {
    a += b;
  }
  /// The root.
  MULTISTAGE_HD static double end(const double& a, index_t) {
    return ::sqrt(a);
  }
};
/// The largest (or smallest) value and its place, the first of equals; NaN is beyond all.
template <class T, bool Largest>
struct extreme {
  /// The best value so far with its place.
  struct accumulator {
    computed_t<T> value;
    index_t place;
    /// @param p -1 before the first value
    MULTISTAGE_HD constexpr accumulator(computed_t<T> v = computed_t<T>(0), index_t p = -1)
        : value(v),
          place(p) {}
  };
  using result = computed_t<T>;
  static constexpr bool ordered = true;
  static constexpr bool of_nothing = false;
  /// No value yet.
  MULTISTAGE_HD static accumulator start() {
    return {};
  }
  /// Whether a is more extreme than b: NaN above all, then by size.
  MULTISTAGE_HD static bool beyond(computed_t<T> a, computed_t<T> b) {
    const bool nan_a = a != a;
    const bool nan_b = b != b;
    if (nan_a || nan_b)
      return nan_a && !nan_b;
    return Largest ? a > b : a < b;
  }
  /// Looks at one value at its place.
  MULTISTAGE_HD static void take(accumulator& a, computed_t<T> value, index_t place) {
    merge(a, {value, place});
  }
  /// The better of two; of equals the one with the lower place, so that the order in which
  /// parts come does not matter.
  MULTISTAGE_HD static void merge(accumulator& a, const accumulator& b) {
    if (b.place < 0)
      return;
    if (a.place < 0 || beyond(b.value, a.value) ||
        (!beyond(a.value, b.value) && b.place < a.place))
      a = b;
  }
  /// The value without its place.
  MULTISTAGE_HD static result end(const accumulator& a, index_t) {
    return a.value;
  }
};
/// The place of the extreme, counted along the reduced axes in their order.
template <class T, bool Largest>
struct extreme_place : extreme<T, Largest> {
  using result = index_t;
  /// The place without its value.
  MULTISTAGE_HD static index_t end(const typename extreme<T, Largest>::accumulator& a,
                                   index_t) {
    return a.place;
  }
};

/// The work: kept axes, reduced axes, and parts of the reduced ones, of a number of elements
/// that the extents alone decide.
template <class Op, class T, int Rank>
struct parts {
  using accumulator = typename Op::accumulator;
  /// Elements of a part: enough to be worth a task, and a fixed number.
  static constexpr index_t part = 4096;
  static constexpr int lanes = 8;  ///< chains of additions side by side within a part
  static constexpr int most = 64;  ///< results of a group

  const T* data;
  loop_axes<Rank> kept;
  index_list<Rank> kept_strides;
  loop_axes<Rank> reduced;
  index_list<Rank> reduced_strides;
  index_t length;  ///< elements that a result is made of
  index_t count;   ///< parts of them
  int group;  ///< results side by side that one index makes, so that neighbours in memory are
              ///< read together
  accumulator* made;

  /// Index i: some results (a group), one part of their elements.
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t first_result = i / count * group;
    const index_t which = i % count;
    const index_t first = which * part;
    const index_t n = length - first < part ? length - first : part;
    const T* const from = data + kept.offset(kept.place(first_result), kept_strides);
    if (group == 1)
      made[i] = along(from, first, n);
    else
      side_by_side(from, first, n, made + first_result * count + which);
  }

 private:
  /// Elements that lie one after the other, in several chains.
  MULTISTAGE_HD accumulator along(const T* from, index_t first, index_t n) const {
    accumulator lane[lanes];
    for (int l = 0; l < lanes; ++l)
      lane[l] = Op::start();
    index_t place = first;
    reduced.for_each_run(
        first, n, reduced_strides, [&](index_t offset, index_t run, index_t stride) {
          const T* const p = from + offset;
          index_t i = 0;
          if (stride == 1)
            for (; i + lanes <= run; i += lanes)
              for (int l = 0; l < lanes; ++l)
                Op::take(lane[l], static_cast<computed_t<T>>(p[i + l]), place + i + l);
          for (; i < run; ++i)
            Op::take(lane[0], static_cast<computed_t<T>>(p[i * stride]), place + i);
          place += run;
        });
    for (int step = lanes / 2; step > 0; step /= 2)
      for (int l = 0; l < step; ++l)
        Op::merge(lane[l], lane[l + step]);
    return lane[0];
  }
  /// Reductions beside each other, so that memory is read along its lines.
  MULTISTAGE_HD void side_by_side(const T* from,
                                  index_t first,
                                  index_t n,
                                  accumulator* to) const {
    accumulator side[most];
    for (int g = 0; g < group; ++g)
      side[g] = Op::start();
    index_t place = first;
    reduced.for_each_run(first, n, reduced_strides,
                         [&](index_t offset, index_t run, index_t stride) {
                           for (index_t i = 0; i < run; ++i, ++place) {
                             const T* const p = from + offset + i * stride;
                             for (int g = 0; g < group; ++g)
                               Op::take(side[g], static_cast<computed_t<T>>(p[g]), place);
                           }
                         });
    for (int g = 0; g < group; ++g)
      to[g * count] = side[g];
  }
};
/// A result from its parts, in their order.
template <class Op>
struct finish {
  const typename Op::accumulator* made;
  index_t count;
  index_t length;
  typename Op::result* to;
  /// Result i: its parts merged one after the other.
  MULTISTAGE_HD void operator()(index_t i) const {
    typename Op::accumulator a = made[i * count];
    for (index_t k = 1; k < count; ++k)
      Op::merge(a, made[i * count + k]);
    to[i] = static_cast<typename Op::result>(Op::end(a, length));
  }
};

/// The parts of every result, and how many there are of each; results in the order of the kept
/// axes.
template <class Op, class Backend, class T, class E>
auto reduce_parts(const Backend& b,
                  const view<const T, E>& x,
                  const bool* is_reduced,
                  index_t& results,
                  index_t& length,
                  index_t& count) {
  constexpr int axes = E::rank() > 0 ? E::rank() : 1;
  parts<Op, T, axes> p{};
  p.data = x.data;
  const auto append = [](loop_axes<axes>& loop, index_list<axes>& strides, index_t extent,
                         index_t stride) {
    loop.extents[loop.count] = extent;
    strides[loop.count++] = stride;
  };
  for (int k = 0; k < E::rank(); ++k)
    if (is_reduced[k])
      append(p.reduced, p.reduced_strides, x.extents[k], x.strides[k]);
    else
      append(p.kept, p.kept_strides, x.extents[k], x.strides[k]);
  length = p.length = p.reduced.size();
  results = p.kept.size();
  join_axes(p.kept, p.kept_strides);
  join_axes(p.reduced, p.reduced_strides);
  count = p.count = length == 0 ? 1 : divide_up(length, p.part);
  p.group = 1;
  const int last = p.kept.count - 1;
  if (Backend::on_host && last >= 0 && p.kept_strides[last] == 1)
    for (int g = p.most; g > 1; --g)
      if (p.kept.extents[last] % g == 0) {
        p.group = g;
        break;
      }
  auto memory = b.template allocate<typename Op::accumulator>(results * count);
  p.made = b.pointer(memory);
  const index_t work = (length < p.part ? length : p.part) * p.group;
  const index_t grain = work >= 8192 ? 1 : 8192 / (work + 1) + 1;
  b.for_each_index(results / p.group * count, p, grain);
  return memory;
}

/// Notes which axes are named. @throws value_error for one that is not there or named twice
template <class E, int N>
void mark(const axes<N>& which, bool* is_reduced, const E& extents) {
  for (int k = 0; k < E::rank(); ++k)
    is_reduced[k] = false;
  for (const int named : which.value) {
    const int axis = named < 0 ? named + E::rank() : named;
    require<value_error>(axis >= 0 && axis < E::rank() && !is_reduced[axis], "reduction: axis ",
                         named, " of ", extents, " is not there or named twice");
    is_reduced[axis] = true;
  }
}

/// A view of what an expression makes, and the memory that holds it.
template <class X>
auto evaluated(const X& x) {
  if constexpr (tensor_like<X>)
    return node_of(x);
  else
    return node_of(eval(x));
}

/// Over some axes, to a tensor on the backend of x; waits for it. @throws shape_error where
/// nothing is left to take an extreme or a mean of, value_error for axes that x has not
template <template <class> class Op, class X, int N, bool Keep>
auto reduce(const X& x, const axes<N>& which, std::bool_constant<Keep>) {
  const auto l = evaluated(x);
  using leaf_type = std::remove_const_t<decltype(l)>;
  using E = typename leaf_type::extents_type;
  using op = Op<typename leaf_type::element_type>;
  static_assert(N <= E::rank(), "multistage: a reduction names more axes than there are");
  bool is_reduced[E::rank() + 1];
  mark(which, is_reduced, l.extents());
  using result_extents = rank<Keep ? E::rank() : E::rank() - N>;
  index_list<result_extents::rank()> list;
  int n = 0;
  for (int k = 0; k < E::rank(); ++k) {
    if (Keep)
      list[k] = is_reduced[k] ? 1 : l.extents()[k];
    else if (!is_reduced[k])
      list[n++] = l.extents()[k];
  }
  basic_tensor<typename op::result, result_extents, typename leaf_type::backend_type> y(
      l.backend(), make_extents<result_extents>(list));
  index_t results = 0;
  index_t length = 0;
  index_t count = 0;
  if (y.size() == 0)
    return y;
  const auto memory =
      reduce_parts<op>(y.backend(), l.elements, is_reduced, results, length, count);
  require<shape_error>(op::of_nothing || length > 0, "reduction: ", l.extents(),
                       " leaves nothing to take a mean or an extreme of");
  y.backend().for_each_index(
      results, finish<op>{y.backend().pointer(memory), count, length, y.data()}, 1024);
  y.backend().synchronize();
  return y;
}
/// Over all elements, to a number of the host. Its result is what Op::end returns, not
/// narrowed.
template <template <class> class Op, class X>
auto reduce_all(const X& x) {
  const auto l = evaluated(x);
  using leaf_type = std::remove_const_t<decltype(l)>;
  using E = typename leaf_type::extents_type;
  using op = Op<typename leaf_type::element_type>;
  bool is_reduced[E::rank() + 1];
  for (bool& r : is_reduced)
    r = true;
  index_t results = 0;
  index_t length = 0;
  index_t count = 0;
  require<shape_error>(op::of_nothing || l.extents().size() > 0, "reduction: ", l.extents(),
                       " leaves nothing to take a mean or an extreme of");
  const auto memory =
      reduce_parts<op>(l.backend(), l.elements, is_reduced, results, length, count);
  std::vector<typename op::accumulator> host(static_cast<std::size_t>(count));
  l.backend().download(l.backend().pointer(memory), host.data(), count);
  for (index_t k = 1; k < count; ++k)
    op::merge(host[0], host[std::size_t(k)]);
  return op::end(host[0], length);
}

template <class T>
using largest = extreme<T, true>;
template <class T>
using smallest = extreme<T, false>;
template <class T>
using largest_place = extreme_place<T, true>;
template <class T>
using smallest_place = extreme_place<T, false>;

}  // namespace lazy::reducing

/// Each reduction has three forms. name(x): of all elements, a number of the host (sums and
/// means in double, or in 64 bits for integers). name(x, axes{...}): along these axes, a tensor
/// without them; name(x, axes{...}, keep): a tensor with one element along each.
#define MULTISTAGE_REDUCTION(name, op)                                              \
  template <operand X>                                                              \
  auto name(const X& x) {                                                           \
    return lazy::reducing::reduce_all<lazy::reducing::op>(x);                       \
  }                                                                                 \
  template <operand X, int N>                                                       \
  auto name(const X& x, const axes<N>& which) {                                     \
    return lazy::reducing::reduce<lazy::reducing::op>(x, which, std::false_type()); \
  }                                                                                 \
  template <operand X, int N>                                                       \
  auto name(const X& x, const axes<N>& which, keep_axes) {                          \
    return lazy::reducing::reduce<lazy::reducing::op>(x, which, std::true_type());  \
  }
/// The sum of all elements, or along axes; 0 of nothing.
MULTISTAGE_REDUCTION(sum, sum)
/// The arithmetic mean. @throws shape_error of nothing
MULTISTAGE_REDUCTION(mean, mean)
/// The Euclidean norm, the root of the sum of squares.
MULTISTAGE_REDUCTION(norm, norm)
/// The largest element; NaN where there is one. @throws shape_error of nothing
MULTISTAGE_REDUCTION(max, largest)
/// The smallest element; NaN where there is one. @throws shape_error of nothing
MULTISTAGE_REDUCTION(min, smallest)
/// Where the largest element is, counted along the reduced axes, the last one fastest; the
/// first of equals. @throws shape_error of nothing
MULTISTAGE_REDUCTION(argmax, largest_place)
/// Where the smallest element is, counted as argmax does. @throws shape_error of nothing
MULTISTAGE_REDUCTION(argmin, smallest_place)
#undef MULTISTAGE_REDUCTION

}  // namespace multistage
