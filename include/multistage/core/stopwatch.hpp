// Seconds since a moment, by a clock that never goes back.
//
//   const stopwatch since_begin;
//   ...
//   since_begin.seconds();
#pragma once
#include <chrono>

namespace multistage {

/// Runs from its making on.
class stopwatch {
 public:
  /// Since it was made, or since the last restart.
  double seconds() const {
    return std::chrono::duration<double>(clock::now() - begin_).count();
  }
  /// Begins anew.
  void restart() {
    begin_ = clock::now();
  }

 private:
  using clock = std::chrono::steady_clock;
  clock::time_point begin_ = clock::now();
};

}  // namespace multistage
