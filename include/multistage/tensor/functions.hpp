// Operators and elementary functions of expressions, element by element. Numbers take the type
// of a floating-point operand beside them; else C++'s own rules hold (uint8 + uint8 is an int).
#pragma once
#include <cmath>

#include "expression.hpp"

namespace multistage {
namespace lazy::function {

#define MULTISTAGE_UNARY(name, expression_of_x)          \
  struct name {                                          \
    template <class X>                                   \
    MULTISTAGE_HD constexpr auto operator()(X x) const { \
      return expression_of_x;                            \
    }                                                    \
  };
#define MULTISTAGE_BINARY(name, expression_of_x_and_y)        \
  struct name {                                               \
    template <class X, class Y>                               \
    MULTISTAGE_HD constexpr auto operator()(X x, Y y) const { \
      return expression_of_x_and_y;                           \
    }                                                         \
  };
MULTISTAGE_BINARY(add, x + y)
MULTISTAGE_BINARY(subtract, x - y)
MULTISTAGE_BINARY(multiply, x* y)
MULTISTAGE_BINARY(divide, x / y)
MULTISTAGE_BINARY(remainder, x % y)
MULTISTAGE_BINARY(less, x < y)
MULTISTAGE_BINARY(greater, x > y)
MULTISTAGE_BINARY(less_equal, x <= y)
MULTISTAGE_BINARY(greater_equal, x >= y)
MULTISTAGE_BINARY(equal, x == y)
MULTISTAGE_BINARY(not_equal, x != y)
MULTISTAGE_BINARY(logical_and, x&& y)
MULTISTAGE_BINARY(logical_or, x || y)
// NaN stays, whichever side it is on.
MULTISTAGE_BINARY(minimum, (x < y || x != x) ? x : y)
MULTISTAGE_BINARY(maximum, (x > y || x != x) ? x : y)
MULTISTAGE_BINARY(power, std::pow(x, y))
MULTISTAGE_BINARY(atan2, std::atan2(x, y))
MULTISTAGE_UNARY(negate, -x)
MULTISTAGE_UNARY(logical_not, !x)
MULTISTAGE_UNARY(absolute, x < X(0) ? X(-x) : x)
MULTISTAGE_UNARY(square, x* x)
MULTISTAGE_UNARY(exp, std::exp(x))
MULTISTAGE_UNARY(log, std::log(x))
MULTISTAGE_UNARY(sqrt, std::sqrt(x))
MULTISTAGE_UNARY(sin, std::sin(x))
MULTISTAGE_UNARY(cos, std::cos(x))
MULTISTAGE_UNARY(tanh, std::tanh(x))
MULTISTAGE_UNARY(floor, std::floor(x))
MULTISTAGE_UNARY(round, std::round(x))
MULTISTAGE_UNARY(isfinite, x - x == X(0))
MULTISTAGE_UNARY(sigmoid, X(1) / (X(1) + std::exp(-x)))
MULTISTAGE_UNARY(silu, x / (X(1) + std::exp(-x)))
MULTISTAGE_UNARY(gelu, X(0.5 * x * (1 + std::erf(double(x) * 0.70710678118654752440))))
#undef MULTISTAGE_UNARY
#undef MULTISTAGE_BINARY

struct select {
  template <class X, class Y>
  MULTISTAGE_HD constexpr std::common_type_t<X, Y> operator()(bool condition, X x, Y y) const {
    return condition ? x : y;
  }
};
template <class T>
struct cast {
  template <class X>
  MULTISTAGE_HD constexpr computed_t<T> operator()(X x) const {
    return computed_t<T>(x);
  }
};

}  // namespace lazy::function

#define MULTISTAGE_OPERATOR(symbol, name)                                       \
  template <class X, class Y>                                                   \
  requires operands<X, Y>                                                       \
  auto operator symbol(X&& x, Y&& y) {                                          \
    return map(lazy::function::name(), std::forward<X>(x), std::forward<Y>(y)); \
  }
MULTISTAGE_OPERATOR(+, add)
MULTISTAGE_OPERATOR(-, subtract)
MULTISTAGE_OPERATOR(*, multiply)
MULTISTAGE_OPERATOR(/, divide)
MULTISTAGE_OPERATOR(%, remainder)
MULTISTAGE_OPERATOR(<, less)
MULTISTAGE_OPERATOR(>, greater)
MULTISTAGE_OPERATOR(<=, less_equal)
MULTISTAGE_OPERATOR(>=, greater_equal)
MULTISTAGE_OPERATOR(&&, logical_and)
MULTISTAGE_OPERATOR(||, logical_or)
#undef MULTISTAGE_OPERATOR
template <operand X>
auto operator-(X&& x) {
  return map(lazy::function::negate(), std::forward<X>(x));
}
template <operand X>
auto operator!(X&& x) {
  return map(lazy::function::logical_not(), std::forward<X>(x));
}

#define MULTISTAGE_FUNCTION(name, of)                     \
  template <operand X>                                    \
  auto name(X&& x) {                                      \
    return map(lazy::function::of(), std::forward<X>(x)); \
  }
MULTISTAGE_FUNCTION(abs, absolute)
MULTISTAGE_FUNCTION(square, square)
MULTISTAGE_FUNCTION(exp, exp)
MULTISTAGE_FUNCTION(log, log)
MULTISTAGE_FUNCTION(sqrt, sqrt)
MULTISTAGE_FUNCTION(sin, sin)
MULTISTAGE_FUNCTION(cos, cos)
MULTISTAGE_FUNCTION(tanh, tanh)
MULTISTAGE_FUNCTION(floor, floor)
MULTISTAGE_FUNCTION(round, round)
MULTISTAGE_FUNCTION(isfinite, isfinite)
MULTISTAGE_FUNCTION(sigmoid, sigmoid)
MULTISTAGE_FUNCTION(silu, silu)
MULTISTAGE_FUNCTION(gelu, gelu)
#undef MULTISTAGE_FUNCTION

#define MULTISTAGE_FUNCTION(name, of)                                         \
  template <class X, class Y>                                                 \
  requires operands<X, Y>                                                     \
  auto name(X&& x, Y&& y) {                                                   \
    return map(lazy::function::of(), std::forward<X>(x), std::forward<Y>(y)); \
  }
MULTISTAGE_FUNCTION(equal, equal)
MULTISTAGE_FUNCTION(not_equal, not_equal)
MULTISTAGE_FUNCTION(minimum, minimum)
MULTISTAGE_FUNCTION(maximum, maximum)
MULTISTAGE_FUNCTION(pow, power)
MULTISTAGE_FUNCTION(atan2, atan2)
#undef MULTISTAGE_FUNCTION

/// x where `condition` holds, else y.
template <class C, class X, class Y>
requires operands<C, X, Y>
auto where(C&& condition, X&& x, Y&& y) {
  using value = typename lazy::detail::first_value<X, Y>::type;
  auto nodes = lazy::arguments_of(lazy::node_of(std::forward<C>(condition)),
                                  lazy::detail::node_beside<value>(std::forward<X>(x)),
                                  lazy::detail::node_beside<value>(std::forward<Y>(y)));
  return [&]<class... Nodes>(lazy::arguments<Nodes...>& n) {
    return lazy::applied<lazy::function::select, Nodes...>({}, std::move(n));
  }(nodes);
}
/// x between `least` and `most`; NaN stays.
template <operand X, class L, class M>
auto clamp(X&& x, L&& least, M&& most) {
  return minimum(maximum(std::forward<X>(x), std::forward<L>(least)), std::forward<M>(most));
}
/// The values as T, converted as C++ does.
template <class T, operand X>
auto cast(X&& x) {
  return map(lazy::function::cast<T>(), std::forward<X>(x));
}

}  // namespace multistage
