// One vector register of T, by the compilers' vector extension: the same kernel source serves
// SSE, AVX2 and AVX-512; `-march` decides.
//
//   vec<float> a = load(p), b = broadcast(0.5f);
//   store(p, a * b + a);            // operators go lane by lane
//
// Arrays of registers must be indexed by constants, or the compiler puts them into memory:
// loops over them are marked MULTISTAGE_UNROLL.
#pragma once
#include <cstring>
#include <utility>

#include "../../core/config.hpp"

/// A pragma whose text is made by a macro.
#define MULTISTAGE_PRAGMA(text) _Pragma(#text)
/// Loops over registers must be unrolled whole, or the registers become memory.
#if defined(__CUDACC__)
#define MULTISTAGE_UNROLL(n)
#elif defined(__clang__)
#define MULTISTAGE_UNROLL(n) MULTISTAGE_PRAGMA(unroll)
#else
#define MULTISTAGE_UNROLL(n) MULTISTAGE_PRAGMA(GCC unroll n)
#endif

namespace multistage::inline MULTISTAGE_ISA::simd {

#if defined(__AVX512F__)
inline constexpr int register_bytes = 64;  ///< width of a vector register
inline constexpr int registers = 32;       ///< how many there are for tiles to fill
#elif defined(__AVX__)
inline constexpr int register_bytes = 32;  ///< width of a vector register
inline constexpr int registers = 16;       ///< how many there are for tiles to fill
#else
inline constexpr int register_bytes = 16;  ///< width of a vector register
inline constexpr int registers = 16;       ///< how many there are for tiles to fill
#endif

/// How many T a register holds: 8 floats of AVX2, 16 of AVX-512.
template <class T>
inline constexpr int lanes = register_bytes / int(sizeof(T));

/// A register of T as the compilers' vector extension has it; operators go lane by lane.
template <class T>
struct vector_of {
  /// The register.
  typedef T type __attribute__((vector_size(register_bytes)));
};
template <class T>
using vec = typename vector_of<T>::type;

/// A register from memory of any alignment; by memcpy, so that the types need not agree.
template <class T>
inline vec<T> load(const T* p) {
  vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
/// A register to memory of any alignment.
template <class T>
inline void store(T* p, vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
/// x in every lane.
template <class T>
inline vec<T> broadcast(T x) {
  return x - vec<T>{};  // x + 0 would not be x for -0, and so an addition
}
/// Hides where v comes from, at no cost. Without it a compiler that may treat additions as
/// associative (-fassociative-math) would take (v + c) - c for v.
template <class V>
inline void hide(V& v) {
#if defined(__CUDACC__)
  asm("" : "+m"(v));
#elif defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__SSE2__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#else
  asm("" : "+m"(v));
#endif
}
/// Brings a cache line into the second-level cache; any address will do.
template <class T>
inline void prefetch(const T* p) {
  __builtin_prefetch(p, 0, 2);
}
/// The first n lanes of memory, zeros behind.
template <class T>
inline vec<T> load_partial(const T* p, index_t n) {
  vec<T> v{};
  std::memcpy(&v, p, std::size_t(n) * sizeof(T));
  return v;
}
/// The first n lanes to memory, which is written no further.
template <class T>
inline void store_partial(T* p, vec<T> v, index_t n) {
  std::memcpy(p, &v, std::size_t(n) * sizeof(T));
}

namespace detail {
// Lanes of a and b for one step of a transposition: those whose number lacks the bit s stay,
// the others change sides.
template <bool High, int S, class V, std::size_t... I>
inline V exchange(const V& a, const V& b, std::index_sequence<I...>) {
#if defined(__CUDACC__)
  return V{(int(I) & S ? (High ? b[I] : b[I - S]) : (High ? a[I + S] : a[I]))...};
#else
  constexpr int n = sizeof...(I);
  return __builtin_shufflevector(
      a, b, (int(I) & S ? n + (High ? int(I) : int(I) - S) : (High ? int(I) + S : int(I)))...);
#endif
}
/// One of the log2(lanes) steps of a transposition: blocks change places across the diagonal.
template <int S, class T>
inline void transpose_step(vec<T>* rows) {
  constexpr int L = lanes<T>;
  for (int i = 0; i < L; ++i)
    if (!(i & S)) {
      const vec<T> a = rows[i];
      const vec<T> b = rows[i + S];
      rows[i] = exchange<false, S>(a, b, std::make_index_sequence<L>());
      rows[i + S] = exchange<true, S>(a, b, std::make_index_sequence<L>());
    }
}
}  // namespace detail

/// Transposes L x L values, L the lanes of a register.
template <class T>
inline void transpose(vec<T>* rows) {
  constexpr int L = lanes<T>;
  if constexpr (L > 1)
    detail::transpose_step<1, T>(rows);
  if constexpr (L > 2)
    detail::transpose_step<2, T>(rows);
  if constexpr (L > 4)
    detail::transpose_step<4, T>(rows);
  if constexpr (L > 8)
    detail::transpose_step<8, T>(rows);
}

}  // namespace multistage::inline MULTISTAGE_ISA::simd
