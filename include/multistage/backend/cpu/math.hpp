// Elementary functions of a whole vector register.
//
// Exactness is what float has, not what the processor's approximations give: results must not
// depend on which instruction set a program was compiled for by more than rounding.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace multistage::inline MULTISTAGE_ISA::simd {

/// e^x: x = n ln 2 + r with n whole, then a polynomial in r (Cephes' coefficients); relative
/// error below 2e-7. Doubles go to the library.
template <class T>
inline vec<T> exp(vec<T> x) {
  if constexpr (sizeof(T) == 4) {
    typedef std::int32_t ints __attribute__((vector_size(register_bytes)));
    const vec<T> low = broadcast(-87.0f);
    const vec<T> high = broadcast(88.0f);
    x = x < low ? low : x;  // NaN stays
    x = x > high ? high : x;
    // 1.5 * 2^23: adding it rounds to a whole number in the low bits
    const vec<T> magic = broadcast(12582912.0f);
    vec<T> shifted = x * 1.44269504f + magic;
    hide(shifted);
    const vec<T> n = shifted - magic;
    vec<T> r = x - n * 0.693359375f;  // exact; then the rest of ln 2
    hide(r);
    r -= n * -2.12194440e-4f;
    vec<T> y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    ints bits;
    ints power;
    std::memcpy(&bits, &y, sizeof bits);
    std::memcpy(&power, &shifted, sizeof power);
    bits += power << 23;
    std::memcpy(&y, &bits, sizeof bits);
    return y;
  } else {
    for (int l = 0; l < lanes<T>; ++l)
      x[l] = std::exp(x[l]);
    return x;
  }
}

/// x / (1 + e^-x)
template <class T>
inline vec<T> silu(vec<T> x) {
  return x / (exp<T>(-x) + T(1));
}

/// Derivative of silu.
template <class T>
inline vec<T> silu_derivative(vec<T> x) {
  const vec<T> s = T(1) / (exp<T>(-x) + T(1));
  return s * (x * (T(1) - s) + T(1));
}

/// Calls f(i, have) for i = 0, L, 2 L, ... below n, with `have` of the L lanes in use.
template <class T, class F>
inline void for_each_vector(index_t n, F&& f) {
  index_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>)
    f(i, index_t(lanes<T>));
  if (i < n)
    f(i, n - i);
}
/// `have` of the lanes from memory, which ends there; zeros in the others.
template <class T>
inline vec<T> load_up_to(const T* p, index_t have) {
  return have == lanes<T> ? load(p) : load_partial(p, have);
}
/// The first `have` lanes to memory, which ends there.
template <class T>
inline void store_up_to(T* p, vec<T> v, index_t have) {
  if (have == lanes<T>)
    store(p, v);
  else
    store_partial(p, v, have);
}

}  // namespace multistage::inline MULTISTAGE_ISA::simd
