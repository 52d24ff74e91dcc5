// Mathematics that descriptions need at compile time.
#pragma once
#include <limits>

namespace multistage {

/// sqrt by Newton's iteration, for x >= 0.
constexpr double constexpr_sqrt(double x) {
  if (x == 0)
    return 0;
  double y = x > 1 ? x : 1;
  double before = 0;
  while (y != before) {
    before = y;
    y = 0.5 * (y + x / y);
    if (y >= before)
      break;
  }
  return before < y ? before : y;
}

}  // namespace multistage
