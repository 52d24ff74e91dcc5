// What tests share: tensors of random numbers, comparisons, numerical gradients, and the list
// of backends.
#pragma once
#include <functional>
#include <multistage/eigen.hpp>
#include <multistage/multistage.hpp>
#include <multistage/thrust.hpp>

#include "catch.hpp"
#include "compiled.hpp"
#include "directory.hpp"

namespace ms = multistage;

#if defined(MULTISTAGE_TEST_CPU_ALONE)  // tests/run.sh --quick
#define BACKENDS ms::cpu
#elif defined(_OPENMP) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#ifdef MULTISTAGE_CI  // the golden data are run on thrust_cpp, and the operations by the
                      // sanitizers
#define BACKENDS ms::cpu, ms::eigen, ms::thrust_omp
#else
#define BACKENDS ms::cpu, ms::eigen, ms::thrust_cpp, ms::thrust_omp
#endif
#else
// ThreadSanitizer does not see OpenMP's barriers; for AddressSanitizer both of Thrust's systems
// run the same functors.
#define BACKENDS ms::cpu, ms::eigen, ms::thrust_cpp
#endif

namespace test {

/// Standard normal numbers, a function of `key` alone.
template <class T>
std::vector<T> normals(ms::index_t n, std::uint64_t key) {
  std::vector<T> v(std::size_t(n), T(0));
  const ms::random_stream r(99, key);
  for (ms::index_t i = 0; i < n; ++i)
    v[i] = T(r.normal(std::uint64_t(i)));
  return v;
}
template <class T, class Backend>
ms::tensor<T, Backend> random_tensor(const Backend& b, ms::shape s, std::uint64_t key) {
  return {b, s, normals<T>(s.size(), key)};
}

/// Largest difference as a share of the largest wanted value.
template <class A, class B>
double distance(const std::vector<A>& got, const std::vector<B>& want) {
  REQUIRE(got.size() == want.size());
  double worst = 0;
  double scale = 1e-30;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!(std::fabs(double(got[i]) - double(want[i])) <= 1e30))
      return HUGE_VAL;
    worst = std::max(worst, std::fabs(double(got[i]) - double(want[i])));
    scale = std::max(scale, std::fabs(double(want[i])));
  }
  return worst / scale;
}

/// Central differences of a scalar function at some elements of `at` (all if few), against an
/// analytic gradient. Returns the worst error as a share of the largest gradient.
inline double gradient_error(std::vector<double> at,
                             const std::function<double(const std::vector<double>&)>& f,
                             const std::vector<double>& gradient,
                             std::size_t most = 40) {
  REQUIRE(at.size() == gradient.size());
  double scale = 1e-30;
  double worst = 0;
  for (double g : gradient)
    scale = std::max(scale, std::fabs(g));
  const std::size_t step = std::max<std::size_t>(1, at.size() / most);
  for (std::size_t i = 0; i < at.size(); i += step) {
    const double keep = at[i];
    const double h = 1e-5;
    at[i] = keep + h;
    const double above = f(at);
    at[i] = keep - h;
    const double below = f(at);
    at[i] = keep;
    worst = std::max(worst, std::fabs((above - below) / (2 * h) - gradient[i]));
  }
  return worst / scale;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double s = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    s += a[i] * b[i];
  return s;
}

}  // namespace test
