// The mode in which a thread computes: rounding, flush-to-zero, and which exceptions trap.
// Every thread has its own, so whoever hands work to other threads hands on the mode with it.
//
// The bits are in a register of each thread, MXCSR on x86 and FPCR on ARM. Who turns on
// flush-to-zero for speed, or traps to find the first NaN, expects that of the library's
// threads, too.
//
//   const std::uint64_t mode = floating_point_mode();    // who hands out work
//   set_floating_point_mode(mode);                       // who takes it, in its own thread
#pragma once
#include <cstdint>
#if defined(__SSE2__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

namespace multistage {

/// The calling thread's mode, without the flags of what has happened so far. (x86: MXCSR; the
/// x87 unit's own word, which only long double uses, is not part of it.)
inline std::uint64_t floating_point_mode() {
#if defined(__SSE2__)
  return _mm_getcsr() & ~0x3fu;
#elif defined(__aarch64__)
  std::uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
#else
  return std::uint64_t(std::fegetround());
#endif
}

/// Makes `mode`, another thread's, the calling thread's; costs next to nothing when it is
/// already.
inline void set_floating_point_mode(std::uint64_t mode) {
  if (mode == floating_point_mode())
    return;
#if defined(__SSE2__)
  _mm_setcsr(unsigned(mode) | (_mm_getcsr() & 0x3fu));
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" : : "r"(mode));
#else
  std::fesetround(int(mode));
#endif
}

}  // namespace multistage
