// Expressions: what is written down with tensors and numbers, kept until it is assigned. A node
// knows the type of its values, its extents and its backend; a leaf is a view, an inner node a
// function of nodes. Functions are applied to one number of each operand and run on host and
// device.
//
//   0.5f * silu(x) + bias
//
// is an applied<add, applied<multiply, constant, applied<silu, leaf>>, leaf>: the type says
// all but the views and numbers at its leaves, so that a compiler sees the whole of it in one
// loop. Extents spread as in NumPy: they are aligned at the last axis, and 1 goes with any
// number. Types follow C++ (int / int is an int), except that a number beside a floating-point
// operand takes that operand's type, so that 0.5 * x of floats stays float.
#pragma once
#include <memory>

#include "../core/tensor.hpp"

namespace multistage {

/// What an element is computed as: itself, or a float where it is only stored (half, bfloat16).
template <class T>
using computed_t = std::conditional_t<std::is_arithmetic_v<T>, T, float>;

namespace lazy {

/// A tensor or view as operand. Expressions keep views of tensors that have names, and the
/// tensors themselves that have none.
template <class T, class Extents, class Backend>
struct leaf : expression_base {
  using value_type = computed_t<T>;  ///< what an element is computed as
  using element_type = T;            ///< what an element is stored as
  using extents_type = Extents;      ///< those of the view
  using backend_type = Backend;      ///< whose memory it is

  view<const T, Extents> elements;  ///< the elements as they lie
  Backend handle;                   ///< the backend that evaluates the expression
  /// Keeps the elements of a tensor without a name alive; null otherwise.
  std::shared_ptr<const void> owner;

  /// @param o keeps the elements alive as long as the expression lives
  leaf(const view<const T, Extents>& v,
       const Backend& b,
       std::shared_ptr<const void> o = nullptr)
      : elements(v),
        handle(b),
        owner(std::move(o)) {}
  /// Those of the view.
  const Extents& extents() const {
    return elements.extents;
  }
  /// The backend that evaluates the expression.
  const Backend& backend() const {
    return handle;
  }
};

/// A number as operand.
template <class T>
struct constant : expression_base {
  using value_type = T;                        ///< the number's own type
  using extents_type = multistage::extents<>;  ///< none: it spreads to any others
  using backend_type = void;                   ///< none: it goes with every backend

  T value;  ///< the same at every place

  /// Explicit, since numbers become operands only beside one.
  explicit constant(T v)
      : value(v) {}
  /// No axes.
  extents_type extents() const {
    return {};
  }
  /// The number, wherever.
  template <class Place>
  MULTISTAGE_HD T at(const Place&) const {
    return value;
  }
};

/// Operands of a node, one behind the other. (std::tuple is not for devices.)
template <class... Nodes>
struct arguments {};
/// The first operand and the rest, which is arguments again.
template <class Head, class... Tail>
struct arguments<Head, Tail...> {
  Head head;                ///< the first
  arguments<Tail...> tail;  ///< those behind it
};

namespace detail {
/// The extent of an axis that two operands share, -2 where they cannot.
constexpr index_t shared_extent(index_t a, index_t b) {
  if (a == 1)
    return b;
  if (b == 1 || a == b)
    return a;
  if (a == dynamic)
    return b;
  return b == dynamic ? a : -2;
}
/// The extent that E has along an axis of Rank, aligned at the last; 1 where E has no such
/// axis.
template <class E, int Rank>
constexpr index_t from_the_end(int axis) {
  const int own = axis - (Rank - E::rank());
  return own < 0 ? 1 : E::static_extent(own);
}
/// The extents of A and B spread over each other, what both know checked by the compiler.
template <class A, class B, class I>
struct spread_extents;
template <class A, class B, int... I>
struct spread_extents<A, B, std::integer_sequence<int, I...>> {
  static constexpr int most = int(sizeof...(I));
  static_assert(((shared_extent(from_the_end<A, most>(I), from_the_end<B, most>(I)) != -2) &&
                 ...),
                "multistage: these operands do not go together: seen from the last axis, "
                "extents must be equal or 1");
  using type = multistage::detail::canonical<shared_extent(from_the_end<A, most>(I),
                                                           from_the_end<B, most>(I))...>;
};
/// The same of any number of operands.
template <class A, class... Rest>
struct common_extents {
  using type = A;
};
template <class A, class B, class... Rest>
struct common_extents<A, B, Rest...> {
  static constexpr int most = A::rank() > B::rank() ? A::rank() : B::rank();
  using type = typename common_extents<
      typename spread_extents<A, B, std::make_integer_sequence<int, most>>::type,
      Rest...>::type;
};

/// The backend of some operands; numbers have none.
template <class... Backends>
struct common_backend {
  using type = void;
};
template <class A, class... Rest>
struct common_backend<A, Rest...> {
  using rest = typename common_backend<Rest...>::type;
  static_assert(std::is_void_v<A> || std::is_void_v<rest> || std::is_same_v<A, rest>,
                "multistage: the operands of an expression lie on different backends; bring "
                "them together by .to(backend)");
  using type = std::conditional_t<std::is_void_v<A>, rest, A>;
};

/// Joins `e` into the list of extents so far, whose last axes it meets.
template <int Rank, class E>
void join_extents(index_list<Rank>& all, const E& e) {
  for (int k = 0; k < E::rank(); ++k) {
    index_t& have = all[k + Rank - E::rank()];
    if (have == 1)
      have = e[k];
    else if (e[k] != 1 && e[k] != have)
      fail<shape_error>("expression: an operand of extents ", e, " meets others of ", have,
                        " along its axis ", k,
                        "; seen from the last axis, extents must be equal or 1");
  }
}
}  // namespace detail

/// f of one value of each operand.
template <class F, class... Nodes>
struct applied : expression_base {
  /// What the function returns for one value of each operand.
  using value_type = std::remove_cvref_t<decltype(std::declval<const F&>()(
      std::declval<typename Nodes::value_type>()...))>;
  /// Where each axis takes the extent that is not 1.
  using extents_type = typename detail::common_extents<typename Nodes::extents_type...>::type;
  /// The one that the operands agree on; void where all are numbers.
  using backend_type = typename detail::common_backend<typename Nodes::backend_type...>::type;

  F function;                    ///< called with one value of each operand, on host or device
  arguments<Nodes...> operands;  ///< kept by value: views and numbers are small

  /// @param f a function object that the backend's compiler can call: a plain lambda on the
  /// host, an object with MULTISTAGE_HD on a device
  applied(const F& f, arguments<Nodes...> nodes)
      : function(f),
        operands(std::move(nodes)) {}
  /// @throws shape_error where the operands' extents do not go together
  extents_type extents() const {
    index_list<extents_type::rank()> all;
    for (int k = 0; k < extents_type::rank(); ++k)
      all[k] = 1;
    join(all, operands);
    return make_extents<extents_type>(all);
  }
  /// The handle of the first operand that has one.
  backend_type backend() const {
    return first_backend(operands);
  }

 private:
  template <int Rank>
  static void join(index_list<Rank>&, const arguments<>&) {}
  template <int Rank, class Head, class... Tail>
  static void join(index_list<Rank>& all, const arguments<Head, Tail...>& nodes) {
    detail::join_extents(all, nodes.head.extents());
    join(all, nodes.tail);
  }
  template <class Head, class... Tail>
  static backend_type first_backend(const arguments<Head, Tail...>& nodes) {
    if constexpr (std::is_void_v<typename Head::backend_type>)
      return first_backend(nodes.tail);
    else
      return nodes.head.backend();
  }
};

/// A node of an expression from what a user wrote.
template <tensor_like X>
auto node_of(X&& x) {
  using tensor_type = std::remove_cvref_t<X>;
  using node = leaf<typename tensor_type::value_type, typename tensor_type::extents_type,
                    typename tensor_type::backend_type>;
  if constexpr (!owning<tensor_type>) {
    return node(x.cview(), x.backend(), x.owner());
  } else if constexpr (!std::is_lvalue_reference_v<X> && !std::is_const_v<X>) {
    const auto kept = std::make_shared<tensor_type>(std::move(x));
    return node(std::as_const(*kept).view(), kept->backend(), kept);
  } else {
    return node(x.cview(), x.backend());
  }
}
/// An expression is a node already.
template <expression X>
std::remove_cvref_t<X> node_of(X&& x) {
  return std::forward<X>(x);
}
/// Nodes as a list that device code can hold.
template <class... Nodes>
arguments<Nodes...> arguments_of(Nodes... nodes) {
  if constexpr (sizeof...(Nodes) == 0)
    return {};
  else
    return [](auto head, auto... tail) -> arguments<Nodes...> {
      return {std::move(head), arguments_of(std::move(tail)...)};
    }(std::move(nodes)...);
}

}  // namespace lazy

/// What a number beside operands is: of their type where they are floating-point, else as it
/// is.
template <class S, class Value>
using beside = std::conditional_t<std::is_floating_point_v<Value>, Value, S>;

namespace lazy::detail {
/// The type of an operand's values; void for a number.
template <class X>
struct value_of {
  using type = void;
};
template <tensor_like X>
struct value_of<X> {
  using type = computed_t<typename std::remove_cvref_t<X>::value_type>;
};
template <expression X>
struct value_of<X> {
  using type = typename std::remove_cvref_t<X>::value_type;
};
/// The first operand's values among some arguments.
template <class X, class... Rest>
struct first_value {
  using own = typename value_of<X>::type;
  using type = own;
};
template <class X, class Y, class... Rest>
struct first_value<X, Y, Rest...> {
  using own = typename value_of<X>::type;
  using type =
      std::conditional_t<std::is_void_v<own>, typename first_value<Y, Rest...>::type, own>;
};
/// A node of an operand, or of a number in the type that numbers take beside Value.
template <class Value, class X>
auto node_beside(X&& x) {
  if constexpr (operand<X>)
    return node_of(std::forward<X>(x));
  else
    return constant<beside<std::remove_cvref_t<X>, Value>>(x);
}
}  // namespace lazy::detail

/// Operands and numbers, at least one of them an operand.
template <class... X>
concept operands = (operand<X> || ...) &&
                   ((operand<X> || std::is_arithmetic_v<std::remove_cvref_t<X>>)&&...);

/// f applied to the elements of operands (and numbers), as an expression: map([](float a, float
/// b) { ... }, x, y). For a device f is an object whose call is MULTISTAGE_HD.
template <class F, class... X>
requires operands<X...>
auto map(const F& f, X&&... x) {
  using value = typename lazy::detail::first_value<X...>::type;
  auto nodes = lazy::arguments_of(lazy::detail::node_beside<value>(std::forward<X>(x))...);
  return [&]<class... Nodes>(lazy::arguments<Nodes...>& n) {
    return lazy::applied<F, Nodes...>(f, std::move(n));
  }(nodes);
}

}  // namespace multistage
