// Says once when the compiler's options make a program many times slower than it could be:
// without optimisation 60 times, for x86-64's baseline (no AVX2) 5 times or more.
//
//   detail::advise_on_build();      // a trainer asks for it; nothing is said of a good build
#pragma once
#include "warning.hpp"

namespace multistage::detail {

/// Warns about the options this unit was compiled with, where training would suffer; called
/// when a trainer is made.
MULTISTAGE_COLD inline void advise_on_build() {
#if defined(__GNUC__) && !defined(__OPTIMIZE__)
  warn(
      "multistage is compiled without optimisation, and trains some 60 times slower than it "
      "could: compile with -O3 -march=native "
      "(CMake: -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS=-march=native)");
#elif defined(__x86_64__) && !defined(__AVX2__)
  warn(
      "multistage is compiled for the oldest x86-64 processors, and trains several times "
      "slower than it could: compile with -march=native, "
      "or with -march=x86-64-v3 for any processor from 2013 on (CMake: "
      "-DCMAKE_CXX_FLAGS=-march=native)");
#endif
}

}  // namespace multistage::detail
