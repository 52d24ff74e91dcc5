// What every header stands on: the language that is needed, the library's integers, and what a functor needs
// so that the same source runs on the host and, under nvcc, on a device.
#pragma once

// An include that cannot be found ends the compilation at once; an #error alone would be followed by hundreds of lines.
#if (defined(_MSVC_LANG) ? _MSVC_LANG : __cplusplus) < 202002L
#error "multistage: C++20 is needed: compile with -std=c++20 (CMake: target_compile_features(PROGRAM PRIVATE cxx_std_20))"
#include "compile with -std=c++20"
#endif
#if !defined(__cpp_exceptions) && !defined(__CUDACC__)
#error "multistage: exceptions are needed, errors are reported by them: compile without -fno-exceptions"
#include "compile without -fno-exceptions"
#endif

#include <array>
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define MULTISTAGE_HD __host__ __device__
#else
#define MULTISTAGE_HD
#endif

#if defined(__GNUC__) || defined(__clang__)
#define MULTISTAGE_RESTRICT __restrict__
#else
#define MULTISTAGE_RESTRICT
#endif

// What runs once, when a model is made or an error is thrown: compiled for size, which saves a user's compiler seconds.
#if defined(__GNUC__) || defined(__clang__)
#define MULTISTAGE_COLD [[gnu::cold]]
#else
#define MULTISTAGE_COLD
#endif

namespace multistage {

/// Extents, offsets and counts.
using index_t = std::int64_t;

/// Lists inside template arguments are arrays that end at their first zero; this is how many entries that leaves.
template <class T, std::size_t N>
constexpr int length(const std::array<T, N>& list) {
  int n = 0;
  while (n < int(N) && list[n] != T{}) ++n;
  return n;
}

/// Whether a zero-ended list holds `value`.
template <class T, std::size_t N>
constexpr bool contains(const std::array<T, N>& list, T value) {
  for (int i = 0; i < length(list); ++i)
    if (list[i] == value) return true;
  return false;
}

MULTISTAGE_HD constexpr index_t divide_up(index_t a, index_t b) { return (a + b - 1) / b; }
MULTISTAGE_HD constexpr index_t round_up(index_t a, index_t b) { return divide_up(a, b) * b; }

}  // namespace multistage
