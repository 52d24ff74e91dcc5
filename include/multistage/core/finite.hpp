// Whether numbers are finite, read off their bits: a compiler that is told that there is
// neither infinity nor NaN (-ffast-math, -ffinite-math-only) turns std::isfinite into `true`.
//
//   is_finite(0.0 / zero);                               // false, with -ffast-math, too
//   first_not_finite(std::span<const float>(values));      // or how many there are
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace multistage {

/// Whether `value` is neither infinite nor NaN, whatever the compiler's flags say of them.
template <class T>
constexpr bool is_finite(T value) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>,
                "multistage: is_finite takes float or double");
  if constexpr (std::is_same_v<T, float>)
    return (std::bit_cast<std::uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
  else
    return (std::bit_cast<std::uint64_t>(value) & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}

/// The place of the first value that is not finite; the number of values where all are.
template <class T>
std::size_t first_not_finite(std::span<const T> values) {
  std::size_t i = 0;
  while (i < values.size() && is_finite(values[i]))
    ++i;
  return i;
}

}  // namespace multistage
