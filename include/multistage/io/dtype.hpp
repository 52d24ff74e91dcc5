// Types of numbers in files: what safetensors call them, how wide they are, and how the halves
// become floats.
//
//   dtype_of<float>() == dtype::f32;
//   half_to_float(0x3c00) == 1;
//   is_value_of<std::uint8_t>(300) == false;   // asked before a number is converted
#pragma once
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "../core/finite.hpp"

namespace multistage::io {

/// Types of the format. The library reads values of all but `other`, which
/// may stand in a file beside what is needed.
enum class dtype { f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean, other };

/// A type's name in files, and its bits.
struct dtype_info {
  dtype type;        ///< what values are
  const char* name;  ///< as files spell it
  int bits;          ///< of one value

  /// Whether weights may have it.
  constexpr bool is_weight() const {
    return type <= dtype::bf16;
  }
};
/// All types that files may name.
inline constexpr dtype_info dtypes[] = {
    {dtype::f64, "F64", 64},          {dtype::f32, "F32", 32},
    {dtype::f16, "F16", 16},          {dtype::bf16, "BF16", 16},
    {dtype::i64, "I64", 64},          {dtype::i32, "I32", 32},
    {dtype::i16, "I16", 16},          {dtype::i8, "I8", 8},
    {dtype::u64, "U64", 64},          {dtype::u32, "U32", 32},
    {dtype::u16, "U16", 16},          {dtype::u8, "U8", 8},
    {dtype::boolean, "BOOL", 8},      {dtype::other, "C64", 64},
    {dtype::other, "F8_E4M3", 8},     {dtype::other, "F8_E5M2", 8},
    {dtype::other, "F8_E4M3FNUZ", 8}, {dtype::other, "F8_E5M2FNUZ", 8},
    {dtype::other, "F8_E8M0", 8},     {dtype::other, "F6_E2M3", 6},
    {dtype::other, "F6_E3M2", 6},     {dtype::other, "F4", 4}};
/// The type of files that values of T have.
template <class T>
constexpr dtype dtype_of() {
  static_assert(
      std::is_same_v<T, double> || std::is_same_v<T, float> ||
          (std::is_integral_v<T> && sizeof(T) <= 8),
      "multistage: safetensors files take double, float, integers of at most 8 bytes and bool");
  constexpr dtype with_sign[] = {dtype::i8, dtype::i16, dtype::i32, dtype::i64};
  constexpr dtype without[] = {dtype::u8, dtype::u16, dtype::u32, dtype::u64};
  // The logarithm of the size: 1, 2, 4 or 8 bytes.
  constexpr int size = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
  if constexpr (std::is_same_v<T, double>)
    return dtype::f64;
  else if constexpr (std::is_same_v<T, float>)
    return dtype::f32;
  else if constexpr (std::is_same_v<T, bool>)
    return dtype::boolean;
  else
    return std::is_signed_v<T> ? with_sign[size] : without[size];
}

/// Whether a value is one of T's: for an integer type it is whole and within T's ends, for a
/// floating type it stays finite.
template <class T, class From>
constexpr bool is_value_of(From v) {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<T> &&
                !std::is_same_v<T, bool>) {
    constexpr From end = From(std::uint64_t{1} << (std::numeric_limits<T>::digits - 1)) * 2;
    const bool within = v < end && (std::is_signed_v<T> ? v >= -end : v > -1);  // no NaN either
    return within && From(T(v)) == v;                                           // no fraction
  } else if constexpr (std::is_integral_v<From> && std::is_integral_v<T> &&
                       !std::is_same_v<T, bool>) {
    return From(T(v)) == v && (T(v) < T(0)) == (v < From(0));
  } else if constexpr (std::is_floating_point_v<T> && std::is_floating_point_v<From> &&
                       sizeof(From) > sizeof(T)) {
    constexpr double most = double(std::numeric_limits<T>::max());
    return !is_finite(v) || (double(v) <= most && double(v) >= -most);
  }
  return true;
}

/// Half precision to float.
inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t(h & 0x8000u) << 16;
  const std::uint32_t exponent = (h >> 10) & 31;
  const std::uint32_t mantissa = h & 1023;
  // Below the smallest normal half (and at 0) there is no hidden bit.
  if (exponent == 0) {
    const float v = float(mantissa) * 0x1p-24f;
    return sign ? -v : v;
  }
  std::uint32_t bits = sign | (mantissa << 13);
  // All ones are infinity and NaN; other exponents move from a bias of 15 to one of 127.
  if (exponent == 31)
    bits |= 0x7f800000u;
  else
    bits |= (exponent + 112) << 23;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

/// bfloat16 to float: its upper half.
inline float bfloat_to_float(std::uint16_t h) {
  const std::uint32_t bits = std::uint32_t(h) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

}  // namespace multistage::io
