// What this machine can do at most, on one thread and on all. The lines of a roofline.
//   machine   prints a JSON line a number of threads: {"threads", "fma_gflop_per_s",
//   "read_gb_per_s", "copy_gb_per_s"}
#include <cstdio>

#include "machine_peak.hpp"

int main() {
  for (const int threads : {1, 0}) {
    const bench::machine_peak p = bench::measure_peak(multistage::cpu(threads));
    std::printf(
        "{\"threads\": %d, \"fma_gflop_per_s\": %.1f, \"read_gb_per_s\": %.1f, "
        "\"copy_gb_per_s\": %.1f}\n",
        p.threads, p.fma_gflop_per_s, p.read_gb_per_s, p.copy_gb_per_s);
  }
}
