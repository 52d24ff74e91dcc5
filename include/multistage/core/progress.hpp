// A progress line on stderr: redrawn in place on a terminal, a plain line every few seconds
// elsewhere.
//
//   progress bar("training");
//   for (int i = 0; i < n; ++i)
//     bar.show(double(i) / n, "step " + std::to_string(i));
#pragma once
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <string>

#include "stopwatch.hpp"

namespace multistage {

/// Shows how far a long piece of work is and how long the rest may take, judged by the time so
/// far. It writes to stderr alone, so that a program's results on stdout stay clean.
class progress {
 public:
  /// @param every seconds between plain lines.
  explicit progress(std::string label, double every = 10)
      : label_(std::move(label)),
        every_(every),
        terminal_(::isatty(2) != 0) {
    std::fflush(stdout);  // what was said before stands before
  }
  ~progress() {
    end();
  }
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;

  /// From now on no line of this process shows: where several work together, one speaks.
  static void silence() {
    silent_ = true;
  }
  /// @param share in [0, 1]. @param text what to say beside it.
  void show(double share, const std::string& text) {
    if (silent_)
      return;
    const double now = since_begin_.seconds();
    const double left = share > 0 ? now * (1 - share) / share : 0;
    char times[64];
    std::snprintf(times, sizeof times, "%3.0f %%  %.0f s left", 100 * share, left);
    if (terminal_) {
      constexpr int width = 24;
      std::string bar(width, ' ');
      for (int i = 0; i < int(share * width); ++i)
        bar[i] = '#';
      std::fprintf(stderr, "\r\x1b[K%s [%s] %s  %s", label_.c_str(), bar.c_str(), times,
                   text.c_str());
      std::fflush(stderr);
      open_ = true;
    } else if (now - last_ >= every_ || share >= 1) {
      std::fprintf(stderr, "%s %s  %s\n", label_.c_str(), times, text.c_str());
      last_ = now;
    }
  }
  /// Leaves the last state standing.
  void end() {
    if (open_)
      std::fputc('\n', stderr);
    open_ = false;
  }

 private:
  static inline std::atomic<bool> silent_ = false;
  std::string label_;
  double every_;
  double last_ = -1e9;
  bool terminal_;
  bool open_ = false;
  stopwatch since_begin_;
};

}  // namespace multistage
