// The arithmetic of PTX on registers that hold bits.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "thread.hpp"

namespace emu {

// registers
template <class T, class R>
inline T rd(R r) {
  if constexpr (std::is_same_v<T, R>)
    return r;
  else if constexpr (sizeof(T) == sizeof(R))
    return std::bit_cast<T>(r);
  else {
    static_assert(sizeof(T) < sizeof(R) && std::is_integral_v<T>);
    return (T)r;
  }
}
template <class R, class T>
inline void wr(R& r, T v) {
  if constexpr (std::is_same_v<T, R>)
    r = v;
  else if constexpr (sizeof(T) == sizeof(R))
    r = std::bit_cast<R>(v);
  else {
    static_assert(sizeof(T) < sizeof(R) && std::is_integral_v<T>);
    if constexpr (std::is_signed_v<T>)
      r = (R)(std::make_signed_t<R>)v;
    else
      r = (R)v;
  }
}
template <class T, class U>
inline T bits(U u) {
  if constexpr (sizeof(T) == sizeof(U))
    return std::bit_cast<T>(u);
  else {
    static_assert(sizeof(T) == sizeof(U));
  }
}
template <class T>
inline T ldp(uint64_t a) {
  T v;
  std::memcpy(&v, (const void*)a, sizeof v);
  return v;
}
template <class T>
inline T ldh(const char* a) {
  T v;
  std::memcpy(&v, a, sizeof v);
  return v;
}
template <class T>
inline void sth(char* a, T v) {
  std::memcpy(a, &v, sizeof v);
}

// integers
template <class T>
using uns = std::make_unsigned_t<T>;
template <class T>
inline T wrap_add(T a, T b) {
  return T(uns<T>(a) + uns<T>(b));
}
template <class T>
inline T wrap_sub(T a, T b) {
  return T(uns<T>(a) - uns<T>(b));
}
template <class T>
struct wider;
template <>
struct wider<uint16_t> {
  using t = uint32_t;
};
template <>
struct wider<int16_t> {
  using t = int32_t;
};
template <>
struct wider<uint32_t> {
  using t = uint64_t;
};
template <>
struct wider<int32_t> {
  using t = int64_t;
};
template <>
struct wider<uint64_t> {
  using t = unsigned __int128;
};
template <>
struct wider<int64_t> {
  using t = __int128;
};
template <class T>
inline T mul_lo(T a, T b) {
  return T(uint64_t(a) * uint64_t(b));
}
template <class T>
inline T mul_hi(T a, T b) {
  using W = typename wider<T>::t;
  return T((W(a) * W(b)) >> (8 * sizeof(T)));
}
template <class T>
inline typename wider<T>::t mul_wide(T a, T b) {
  using W = typename wider<T>::t;
  return W(a) * W(b);
}
template <class T, bool In, bool Out>
inline T add_carry(uint64_t& cc, T a, T b) {
  using U = uns<T>;
  const unsigned __int128 s = (unsigned __int128)(U)a + (U)b + (In ? cc : 0);
  if (Out)
    cc = uint64_t(s >> (8 * sizeof(T))) & 1;
  return T(U(s));
}
template <class T>
inline T add_cc(uint64_t& cc, T a, T b) {
  return add_carry<T, false, true>(cc, a, b);
}
template <class T, bool Out>
inline T addc(uint64_t& cc, T a, T b) {
  return add_carry<T, true, Out>(cc, a, b);
}
template <class T, bool In, bool Out>
inline T sub_borrow(uint64_t& cc, T a, T b) {
  using U = uns<T>;
  const unsigned __int128 s = (unsigned __int128)(U)a - (U)b - (In ? cc : 0);
  if (Out)
    cc = uint64_t(s >> (8 * sizeof(T))) & 1;
  return T(U(s));
}
template <class T>
inline T sub_cc(uint64_t& cc, T a, T b) {
  return sub_borrow<T, false, true>(cc, a, b);
}
template <class T, bool Out>
inline T subc(uint64_t& cc, T a, T b) {
  return sub_borrow<T, true, Out>(cc, a, b);
}
template <class T>
inline T int_div(thread& t, int line, T a, T b) {
  if (b == 0) {
    t.zero_division(line);
    return T(-1);
  }
  if constexpr (std::is_signed_v<T>)
    if (b == T(-1))
      return T(-uns<T>(a));
  return T(a / b);
}
template <class T>
inline T int_rem(thread& t, int line, T a, T b) {
  if (b == 0) {
    t.zero_division(line);
    return a;
  }
  if constexpr (std::is_signed_v<T>)
    if (b == T(-1))
      return 0;
  return T(a % b);
}
template <class T>
inline T imin_(T a, T b) {
  return a < b ? a : b;
}
template <class T>
inline T imax_(T a, T b) {
  return a > b ? a : b;
}
template <class T>
inline T abs_(T a) {
  if constexpr (std::is_floating_point_v<T>)
    return std::fabs(a);
  else
    return a < 0 ? T(-uns<T>(a)) : a;
}
template <class T>
inline T neg_(T a) {
  if constexpr (std::is_floating_point_v<T>)
    return -a;
  else
    return T(-uns<T>(a));
}
template <class T>
inline T shl_(T a, uint32_t n) {
  return n >= 8 * sizeof(T) ? T(0) : T(uns<T>(a) << n);
}
template <class T>
inline T shr_(T a, uint32_t n) {
  if (n >= 8 * sizeof(T))
    return std::is_signed_v<T> && a < 0 ? T(-1) : T(0);
  return T(a >> n);
}
template <class T>
inline int clz_(T a) {
  return std::countl_zero(a);
}
template <class T>
inline T bfi_(T a, T b, uint32_t pos, uint32_t len) {
  pos &= 255;
  len &= 255;
  for (uint32_t i = 0; i < len && pos + i < 8 * sizeof(T); ++i) {
    const T bit = (a >> i) & 1;
    b = (b & ~(T(1) << (pos + i))) | (bit << (pos + i));
  }
  return b;
}
template <class T>
inline T bfe_(T a, uint32_t pos, uint32_t len) {
  pos &= 255;
  len &= 255;
  constexpr uint32_t most = 8 * sizeof(T) - 1;
  T sign = 0;
  if constexpr (std::is_signed_v<T>)
    sign = len == 0 ? T(0) : T(a >> std::min(pos + len - 1, most) & 1);
  T d = 0;
  for (uint32_t i = 0; i <= most; ++i)
    d |= T(uns<T>(i < len && pos + i <= most ? (a >> (pos + i)) & 1 : sign) << i);
  return d;
}
template <class T>
inline T brev_(T a) {
  T r = 0;
  for (uint32_t i = 0; i < 8 * sizeof(T); ++i)
    r |= T((a >> i & 1) << (8 * sizeof(T) - 1 - i));
  return r;
}
inline uint32_t shf_l_clamp(uint32_t a, uint32_t b, uint32_t n) {
  return n >= 32 ? a : n ? (b << n) | (a >> (32 - n)) : b;
}
inline uint32_t shf_r_clamp(uint32_t a, uint32_t b, uint32_t n) {
  return n >= 32 ? b : n ? (b << (32 - n)) | (a >> n) : a;
}
inline uint32_t shf_l_wrap(uint32_t a, uint32_t b, uint32_t n) {
  n &= 31;
  return n ? (b << n) | (a >> (32 - n)) : b;
}
inline uint32_t shf_r_wrap(uint32_t a, uint32_t b, uint32_t n) {
  n &= 31;
  return n ? (b << (32 - n)) | (a >> n) : a;
}
inline uint32_t lop3_(uint32_t a, uint32_t b, uint32_t c, uint32_t t) {
  uint32_t r = 0;
  for (int i = 0; i < 8; ++i)
    if (t >> i & 1)
      r |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return r;
}
inline uint32_t prmt_(uint32_t a, uint32_t b, uint32_t c) {
  const uint64_t v = uint64_t(b) << 32 | a;
  uint32_t r = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t s = c >> (4 * i) & 15;
    uint32_t x = v >> (8 * (s & 7)) & 255;
    if (s & 8)
      x = x & 128 ? 255 : 0;
    r |= x << (8 * i);
  }
  return r;
}

// reals
inline float fma_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline double fma_rn(double a, double b, double c) {
  return std::fma(a, b, c);
}
inline float fma_rm(float a, float b, float c) {  // towards minus infinity
  const double p = double(a) * double(b);
  const double s = p + double(c);
  const double bb = s - p;
  const double e = (p - (s - bb)) + (double(c) - bb);
  float f = float(s);
  if (std::isfinite(f) && (double(f) > s || (double(f) == s && e < 0)))
    f = std::nextafter(f, -std::numeric_limits<float>::infinity());
  return f;
}
inline double rcp_approx_f64(double x) {
  const double r = 1.0 / x;
  if (!std::isfinite(r) || r == 0)
    return r;
  return std::bit_cast<double>(std::bit_cast<uint64_t>(r) & 0xffffffff00000000ull);
}
inline double flush(double x) {
  return x;
}
inline float flush(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}
template <class T>
inline T saturate(T x) {
  return x >= 0 ? (x <= 1 ? x : T(1)) : T(0);  // NaN becomes 0
}
// The approximations of a device, here as exact as the host's: what depends on their errors
// does not show.
inline float ex2_(float x) {
  return std::exp2(x);
}
inline float lg2_(float x) {
  return std::log2(x);
}
inline float sin_(float x) {
  return std::sin(x);
}
inline float cos_(float x) {
  return std::cos(x);
}
inline float tanh_(float x) {
  return std::tanh(x);
}
// Reals of 16 bits, in registers of 16 bits.
inline float from_half(uint16_t h) {
  _Float16 v;
  std::memcpy(&v, &h, 2);
  return float(v);
}
inline uint16_t to_half(float x) {
  const _Float16 v = _Float16(x);
  uint16_t h;
  std::memcpy(&h, &v, 2);
  return h;
}
inline float from_bfloat(uint16_t h) {
  return std::bit_cast<float>(uint32_t(h) << 16);
}
inline uint16_t to_bfloat(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if (std::isnan(x))
    return 0x7fff;
  return uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
// tf32: ten bits of fraction; .rna rounds ties away from zero.
inline uint32_t to_tf32(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if (!std::isfinite(x))
    return u;
  return (u + 0x1000u) & 0xffffe000u;
}
template <class T>
inline T fmin_(T a, T b) {
  return std::fmin(a, b);
}
template <class T>
inline T fmax_(T a, T b) {
  return std::fmax(a, b);
}
template <class T>
inline bool fne(T a, T b) {
  return a < b || a > b;
}  // .ne is false with a NaN

enum class mode { none, rn, rz, rm, rp, rni, rzi, rmi, rpi };
template <class D, class S, mode M, bool Sat>
inline D cvt(S x) {
  if constexpr (std::is_integral_v<S> && std::is_integral_v<D>) {
    if constexpr (Sat) {
      const __int128 v = x;
      const __int128 lo = std::numeric_limits<D>::min();
      const __int128 hi = std::numeric_limits<D>::max();
      return D(v < lo ? lo : v > hi ? hi : v);
    }
    return D(x);
  } else if constexpr (std::is_integral_v<S>) {
    static_assert(M == mode::rn && !Sat);
    return D(x);
  } else if constexpr (std::is_integral_v<D>) {
    S r = x;
    if constexpr (M == mode::rni)
      r = std::nearbyint(x);
    else if constexpr (M == mode::rzi)
      r = std::trunc(x);
    else if constexpr (M == mode::rmi)
      r = std::floor(x);
    else {
      static_assert(M == mode::rpi);
      r = std::ceil(x);
    }
    if (std::isnan(r))
      return sizeof(D) == 8 ? D(0x8000000000000000ull) : D(0);
    const long double v = r;
    if (v <= (long double)std::numeric_limits<D>::min())
      return std::numeric_limits<D>::min();
    if (v >= (long double)std::numeric_limits<D>::max())
      return std::numeric_limits<D>::max();
    return D(r);
  } else {
    D r;
    if constexpr (M == mode::rni)
      r = D(std::nearbyint(x));
    else if constexpr (M == mode::rzi)
      r = D(std::trunc(x));
    else if constexpr (M == mode::rmi)
      r = D(std::floor(x));
    else if constexpr (M == mode::rpi)
      r = D(std::ceil(x));
    else {
      static_assert(M == mode::rn || M == mode::none);
      r = D(x);
    }
    if constexpr (Sat)
      r = std::isnan(r) || r <= 0 ? D(0) : r >= 1 ? D(1) : r;
    return r;
  }
}

}  // namespace emu
