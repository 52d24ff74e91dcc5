// What every header stands on: the language that is needed, the library's integers, and what a
// functor needs so that the same source runs on the host and, under nvcc, on a device.
#pragma once

// An include that cannot be found ends the compilation at once; an #error alone would be
// followed by hundreds of lines.
#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 202002L
#error "multistage: C++20 is needed: compile with -std=c++20 (CMake: cxx_std_20)"
#include "compile with -std=c++20"
#endif
#if !defined(__cpp_exceptions) && !defined(__CUDACC__)
#error "multistage: exceptions are needed, they report errors: compile without -fno-exceptions"
#include "compile without -fno-exceptions"
#endif

#include <array>
#include <cstddef>
#include <cstdint>

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ && !defined(__CUDA_ARCH__)
// Compiled for finite numbers only (-ffast-math, -Ofast or -ffinite-math-only), NaN and
// infinity would go unnoticed.
#error "multistage: -ffast-math hides NaN and infinity: put -fno-finite-math-only behind it"
#endif

/// Marks what runs on the host and, where nvcc compiles it, on devices, too.
#if defined(__CUDACC__)
#define MULTISTAGE_HD __host__ __device__
#else
#define MULTISTAGE_HD
#endif

/// Marks a pointer whose elements no other pointer of the function reaches, where the compiler
/// has a word for that.
#if defined(__GNUC__) || defined(__clang__)
#define MULTISTAGE_RESTRICT __restrict__
#else
#define MULTISTAGE_RESTRICT
#endif

/// What runs once, when a model is made or an error is thrown: compiled for size, which saves a
/// user's compiler seconds.
#if defined(__GNUC__) || defined(__clang__)
#define MULTISTAGE_COLD [[gnu::cold]]
#else
#define MULTISTAGE_COLD
#endif

/// The instruction set that a unit is compiled for, as the name of the inline namespace of what
/// differs with it: the cpu backend, and so all that has it as a template argument. Without it
/// the linker would take one of two functions of one name, and vectors of the other's width.
#if defined(__AVX512F__)
#define MULTISTAGE_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define MULTISTAGE_ISA avx2
#elif defined(__AVX__)
#define MULTISTAGE_ISA avx
#elif defined(__SSE4_2__)
#define MULTISTAGE_ISA sse4
#elif defined(__SSE2__)
#define MULTISTAGE_ISA sse2
#elif defined(__ARM_FEATURE_SVE)
#define MULTISTAGE_ISA sve
#else
#define MULTISTAGE_ISA baseline
#endif

/// The library: tensors and operations, networks, their training and what is drawn from them.
namespace multistage {

/// The library's version, as CMake knows it.
inline constexpr const char* library_version = "0.1.0";

/// Extents, offsets and counts.
using index_t = std::int64_t;

/// Lists inside template arguments are arrays that end at their first zero; this is how many
/// entries that leaves.
template <class T, std::size_t N>
constexpr int length(const std::array<T, N>& list) {
  int n = 0;
  while (n < int(N) && list[n] != T{})
    ++n;
  return n;
}

/// Whether a zero-ended list holds `value`.
template <class T, std::size_t N>
constexpr bool contains(const std::array<T, N>& list, T value) {
  for (int i = 0; i < length(list); ++i)
    if (list[i] == value)
      return true;
  return false;
}

/// The quotient rounded towards more: how many pieces of b hold a things. For a >= 0 and b > 0.
MULTISTAGE_HD constexpr index_t divide_up(index_t a, index_t b) {
  return (a + b - 1) / b;
}
/// The smallest multiple of b that is not below a. For a >= 0 and b > 0.
MULTISTAGE_HD constexpr index_t round_up(index_t a, index_t b) {
  return divide_up(a, b) * b;
}

}  // namespace multistage
