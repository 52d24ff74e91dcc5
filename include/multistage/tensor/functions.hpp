// Operators and elementary functions of expressions, element by element. Numbers take the type
// of a floating-point operand beside them; else C++'s own rules hold (uint8 + uint8 is an int).
//
// Each name is a function object in lazy::function, which host and device can call with
// numbers, and a function or operator of multistage that makes an expression of it. A function
// of one's own goes the same way through map(f, x...).
//
//   y = 0.5f * silu(x) + abs(x - 1.0f);
//   y = map([](float v) { return v * v * v; }, x);
#pragma once
#include <cmath>
#include <type_traits>

#include "expression.hpp"

namespace multistage {
namespace lazy::function {

/// X, or double for whole numbers: what smooth functions are computed in.
template <class X>
using real_of = std::conditional_t<std::is_integral_v<X>, double, X>;

/// A function as an object, so that trees of them have types and run on devices. Of this header
/// alone, like the macros below.
#define MULTISTAGE_UNARY(name, expression_of_x)          \
  struct name {                                          \
    template <class X>                                   \
    MULTISTAGE_HD constexpr auto operator()(X x) const { \
      return expression_of_x;                            \
    }                                                    \
  };
/// The same of two elements.
#define MULTISTAGE_BINARY(name, expression_of_x_and_y)        \
  struct name {                                               \
    template <class X, class Y>                               \
    MULTISTAGE_HD constexpr auto operator()(X x, Y y) const { \
      return expression_of_x_and_y;                           \
    }                                                         \
  };
// Of two elements, by C++'s own operators and <cmath>.
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
// Of one element.
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
// Of whole numbers, what they are of doubles.
MULTISTAGE_UNARY(sigmoid, real_of<X>(1) / (real_of<X>(1) + std::exp(-real_of<X>(x))))
MULTISTAGE_UNARY(relu, x < X(0) ? X(0) : x)
MULTISTAGE_UNARY(silu, real_of<X>(x) / (real_of<X>(1) + std::exp(-real_of<X>(x))))
MULTISTAGE_UNARY(gelu, real_of<X>(0.5 * x * (1 + std::erf(double(x) * 0.70710678118654752440))))
#undef MULTISTAGE_UNARY
#undef MULTISTAGE_BINARY

/// One of two values, brought to their common type.
struct select {
  /// Both are computed before one is chosen.
  template <class X, class Y>
  MULTISTAGE_HD constexpr std::common_type_t<X, Y> operator()(bool condition, X x, Y y) const {
    return condition ? x : y;
  }
};
/// A value as T, or as float where T is only for storing (half, bfloat16).
template <class T>
struct cast {
  /// As a static_cast does: towards 0 into integers.
  template <class X>
  MULTISTAGE_HD constexpr computed_t<T> operator()(X x) const {
    return computed_t<T>(x);
  }
};

}  // namespace lazy::function

/// An operator of expressions that applies the function of a name.
#define MULTISTAGE_OPERATOR(symbol, name)                                       \
  template <class X, class Y>                                                   \
  requires operands<X, Y>                                                       \
  auto operator symbol(X&& x, Y&& y) {                                          \
    return map(lazy::function::name(), std::forward<X>(x), std::forward<Y>(y)); \
  }
/// The sum, element by element; x + 1 adds the number to each.
MULTISTAGE_OPERATOR(+, add)
/// The difference.
MULTISTAGE_OPERATOR(-, subtract)
/// The product of the elements; `multiply` (ops/matmul.hpp) is that of matrices.
MULTISTAGE_OPERATOR(*, multiply)
/// The quotient; of integers it is cut off towards 0, as C++ does.
MULTISTAGE_OPERATOR(/, divide)
/// The remainder of integers, of the sign of x.
MULTISTAGE_OPERATOR(%, remainder)
/// Whether x is less, as bool; any comparison with NaN is false.
MULTISTAGE_OPERATOR(<, less)
/// Whether x is greater, as bool.
MULTISTAGE_OPERATOR(>, greater)
/// Whether x is at most y, as bool.
MULTISTAGE_OPERATOR(<=, less_equal)
/// Whether x is at least y, as bool.
MULTISTAGE_OPERATOR(>=, greater_equal)
/// Whether both hold. Both sides are computed, as always with operators of expressions.
MULTISTAGE_OPERATOR(&&, logical_and)
/// Whether one of them holds. Both sides are computed.
MULTISTAGE_OPERATOR(||, logical_or)
#undef MULTISTAGE_OPERATOR
/// The opposite number. Of unsigned integers below 32 bits it is a negative int.
template <operand X>
auto operator-(X&& x) {
  return map(lazy::function::negate(), std::forward<X>(x));
}
/// true where x is false or 0.
template <operand X>
auto operator!(X&& x) {
  return map(lazy::function::logical_not(), std::forward<X>(x));
}

/// A function of expressions that applies the one-element function `of`.
#define MULTISTAGE_FUNCTION(name, of)                     \
  template <operand X>                                    \
  auto name(X&& x) {                                      \
    return map(lazy::function::of(), std::forward<X>(x)); \
  }
/// |x|, of the type of x.
MULTISTAGE_FUNCTION(abs, absolute)
/// x x.
MULTISTAGE_FUNCTION(square, square)
/// e^x.
MULTISTAGE_FUNCTION(exp, exp)
/// The natural logarithm; NaN below 0, minus infinity at 0.
MULTISTAGE_FUNCTION(log, log)
/// The square root; NaN below 0.
MULTISTAGE_FUNCTION(sqrt, sqrt)
/// Of an angle in radians.
MULTISTAGE_FUNCTION(sin, sin)
/// Of an angle in radians.
MULTISTAGE_FUNCTION(cos, cos)
/// The hyperbolic tangent, within [-1, 1].
MULTISTAGE_FUNCTION(tanh, tanh)
/// The largest whole number that is not above x.
MULTISTAGE_FUNCTION(floor, floor)
/// The nearest whole number; halves go away from 0.
MULTISTAGE_FUNCTION(round, round)
/// Whether x is neither infinite nor NaN, as bool; integers always are.
MULTISTAGE_FUNCTION(isfinite, isfinite)
/// The logistic function, 1 / (1 + e^-x).
MULTISTAGE_FUNCTION(sigmoid, sigmoid)
/// max(x, 0); NaN stays.
MULTISTAGE_FUNCTION(relu, relu)
/// x sigmoid(x), the activation of all networks here (Elfwing, Uchibe, Doya, arXiv 1702.03118).
MULTISTAGE_FUNCTION(silu, silu)
/// x P(X <= x) of a standard normal X, by erf, not by its approximation with tanh (Hendrycks,
/// Gimpel, arXiv 1606.08415).
MULTISTAGE_FUNCTION(gelu, gelu)
#undef MULTISTAGE_FUNCTION

/// The same of two operands.
#define MULTISTAGE_FUNCTION(name, of)                                         \
  template <class X, class Y>                                                 \
  requires operands<X, Y>                                                     \
  auto name(X&& x, Y&& y) {                                                   \
    return map(lazy::function::of(), std::forward<X>(x), std::forward<Y>(y)); \
  }
/// Whether the elements are the same, as bool. A function, since x == y of tensors could also
/// ask whether all are.
MULTISTAGE_FUNCTION(equal, equal)
/// Whether the elements differ, as bool; NaN differs from itself.
MULTISTAGE_FUNCTION(not_equal, not_equal)
/// The smaller of both; NaN where either is. Over axes it is `min`.
MULTISTAGE_FUNCTION(minimum, minimum)
/// The larger of both; NaN where either is. Over axes it is `max`.
MULTISTAGE_FUNCTION(maximum, maximum)
/// x^y; NaN where x is below 0 and y is no whole number.
MULTISTAGE_FUNCTION(pow, power)
/// The angle of the point (y, x) in (-pi, pi], the first operand upwards, as std::atan2 has it.
MULTISTAGE_FUNCTION(atan2, atan2)
#undef MULTISTAGE_FUNCTION

/// x where `condition` holds, else y. Both are computed everywhere, so `where` does not keep a
/// division by 0 from being done, only from being seen.
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
