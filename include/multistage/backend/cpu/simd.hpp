// One vector register of T, by the compilers' vector extension: the same kernel source serves SSE, AVX2 and AVX-512; `-march` decides.
#pragma once
#include <cstring>

#include "../../core/config.hpp"

// Loops over registers must be unrolled whole, or the registers become memory.
#define MULTISTAGE_PRAGMA(text) _Pragma(#text)
#if defined(__CUDACC__)
#define MULTISTAGE_UNROLL(n)
#elif defined(__clang__)
#define MULTISTAGE_UNROLL(n) MULTISTAGE_PRAGMA(unroll)
#else
#define MULTISTAGE_UNROLL(n) MULTISTAGE_PRAGMA(GCC unroll n)
#endif

namespace multistage::simd {

#if defined(__AVX512F__)
inline constexpr int register_bytes = 64;
inline constexpr int registers = 32;
#elif defined(__AVX__)
inline constexpr int register_bytes = 32;
inline constexpr int registers = 16;
#else
inline constexpr int register_bytes = 16;
inline constexpr int registers = 16;
#endif

template <class T>
inline constexpr int lanes = register_bytes / int(sizeof(T));

template <class T>
struct vector_of {
  typedef T type __attribute__((vector_size(register_bytes)));
};
template <class T>
using vec = typename vector_of<T>::type;

template <class T>
inline vec<T> load(const T* p) {
  vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(T* p, vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
template <class T>
inline vec<T> broadcast(T x) {
  return vec<T>{} + x;
}
/// The first n lanes of memory, zeros behind.
template <class T>
inline vec<T> load_partial(const T* p, index_t n) {
  vec<T> v{};
  std::memcpy(&v, p, std::size_t(n) * sizeof(T));
  return v;
}
template <class T>
inline void store_partial(T* p, vec<T> v, index_t n) {
  std::memcpy(p, &v, std::size_t(n) * sizeof(T));
}

}  // namespace multistage::simd
