// Thrust's host systems as policies: sequential C++, and OpenMP where the compiler has it on.
#pragma once
#include <thrust/system/cpp/execution_policy.h>
#include <thrust/system/cpp/vector.h>
#ifdef _OPENMP
#include <omp.h>
#include <thrust/system/omp/execution_policy.h>
#include <thrust/system/omp/vector.h>
#endif

#include "gemm.hpp"
#include "random.hpp"

namespace multistage {

/// Thrust's CPP system: one thread.
struct thrust_cpp_system {
  static constexpr std::string_view name = "thrust_cpp";
  static constexpr bool host = true;
  using tag = thrust::cpp::tag;
  template <class T>
  using vector = thrust::cpp::vector<T>;
  using products = thrust_kernel::host_products;
  using words = thrust_kernel::philox_words;
  static auto policy() { return thrust::cpp::par; }
  static void configure(int) {}
  static void synchronize() {}
};
using thrust_cpp = thrust_backend<thrust_cpp_system>;

#ifdef _OPENMP
/// Thrust's OMP system. Threads are OpenMP's, and so is their number.
struct thrust_omp_system : thrust_cpp_system {
  static constexpr std::string_view name = "thrust_omp";
  using tag = thrust::omp::tag;
  template <class T>
  using vector = thrust::omp::vector<T>;
  static auto policy() { return thrust::omp::par; }
  static void configure(int threads) {
    if (threads > 0) omp_set_num_threads(threads);
  }
};
using thrust_omp = thrust_backend<thrust_omp_system>;
/// The best of the host systems that this compilation has.
using thrust_host = thrust_omp;
#else
using thrust_host = thrust_cpp;
#endif

}  // namespace multistage
