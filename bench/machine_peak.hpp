// What a machine can do at most: fused multiply-adds in registers, and reading and copying
// memory beyond any cache.
#pragma once
#include <chrono>
#include <multistage/backend/cpu/simd.hpp>
#include <multistage/multistage.hpp>

namespace bench {
namespace ms = multistage;

inline double seconds_of(int repeats, auto&& f) {
  double best = HUGE_VAL;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

/// Twelve independent chains of multiply-adds in registers.
inline float chains(ms::index_t rounds) {
  using namespace ms::simd;
  constexpr int n = 12;
  auto a = broadcast(1.0000001f);
  auto b = broadcast(1e-9f);
  decltype(a) x[n];
  for (int k = 0; k < n; ++k)
    x[k] = broadcast(float(k));
  for (ms::index_t i = 0; i < rounds; ++i)
    for (int k = 0; k < n; ++k)
      x[k] = x[k] * a + b;
  auto sum = x[0];
  for (int k = 1; k < n; ++k)
    sum = sum + x[k];
  float out[64] = {};
  store_up_to(out, sum, ms::index_t(1));
  return out[0];
}

struct machine_peak {
  int threads = 0;
  double fma_gflop_per_s = 0;
  double read_gb_per_s = 0;
  double copy_gb_per_s = 0;
};

/// Takes a second or two.
inline machine_peak measure_peak(ms::cpu b) {
  const int n = b.threads();
  const ms::index_t rounds = 20'000'000;
  const ms::index_t width = ms::index_t(sizeof(ms::simd::broadcast(1.0f)) / sizeof(float));
  std::vector<float> sink(std::size_t(n) * 16);
  const double fma = seconds_of(3, [&] {
    b.pool().parallel_for(n,
                          [&](ms::index_t k) { sink[std::size_t(k) * 16] = chains(rounds); });
  });
  const ms::index_t elements = ms::index_t{64} << 20;  // 256 MiB
  ms::tensor<float, ms::cpu> x(b, {1, 1, 1, elements}), y(b, {1, 1, 1, elements});
  ms::ops::fill<ms::cpu, float>(b, x.view(), 1.0f);
  const double read = seconds_of(
      5, [&] { sink[0] += float(ms::ops::sum<ms::cpu, float>(b, std::as_const(x).view())); });
  const double copy = seconds_of(5, [&] {
    ms::ops::linear_combination<ms::cpu, float>(b, elements, y.data(), {{1.0f, x.data()}});
  });
  return {n, 2e-9 * 12 * double(rounds * width) * n / fma, 4e-9 * double(elements) / read,
          8e-9 * double(elements) / copy};
}

}  // namespace bench
