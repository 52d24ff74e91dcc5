// Calling a function with what a variant holds.
//
//   std::variant<int, double> v = 2.5;
//   as_it_is(v, [](const auto& held) { return double(held) + 1; });     // 3.5
#pragma once
#include <utility>
#include <variant>

namespace multistage {

/// f(alternative as what it is), from the first whose turn it is. All calls return one type.
/// A chain of comparisons: much lighter for compilers than std::visit and its tables, and as
/// fast for a dozen alternatives. @param v holds one of them, as any variant that nothing threw
/// into does
template <std::size_t I = 0, class Variant, class F>
constexpr auto as_it_is(const Variant& v, F&& f) {
  if constexpr (I + 1 < std::variant_size_v<Variant>)
    if (v.index() != I)
      return as_it_is<I + 1>(v, f);
  return f(*std::get_if<I>(&v));
}

}  // namespace multistage
