// Thrust's host systems as policies: sequential C++, and OpenMP where the compiler has it on.
#pragma once
#include <thrust/copy.h>
#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/memory.h>
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

/// What Thrust's host systems share. @tparam Policy Thrust's execution policy. @tparam Vector its vector.
template <class Policy, template <class> class Vector>
struct thrust_host_system {
  static constexpr bool host = true;
  template <class T>
  using vector = Vector<T>;
  using products = thrust_kernel::host_products;
  using words = philox_words;

  template <class T>
  static vector<T> zeros(std::size_t n) {
    return vector<T>(n, T(0));
  }
  template <class T>
  static T* pointer(const vector<T>& v) {
    return const_cast<T*>(thrust::raw_pointer_cast(v.data()));
  }
  template <class T>
  static void copy(const T* from, T* to, index_t n) {
    thrust::copy(Policy(), from, from + n, to);
  }
  template <class T>
  static void upload(const T* from, T* to, index_t n) {
    copy(from, to, n);
  }
  template <class T>
  static void download(const T* from, T* to, index_t n) {
    copy(from, to, n);
  }
  template <class F>
  static void for_each_index(index_t n, const F& f) {
    thrust::for_each_n(Policy(), thrust::counting_iterator<index_t>(0), n, f);
  }
  static void synchronize() {}
};

namespace thrust_kernel {
// the vectors have a second parameter, the allocator
template <class T>
using cpp_vector = thrust::cpp::vector<T>;
#ifdef _OPENMP
template <class T>
using omp_vector = thrust::omp::vector<T>;
#endif
}  // namespace thrust_kernel

/// Thrust's CPP system: one thread.
struct thrust_cpp_system : thrust_host_system<thrust::cpp::tag, thrust_kernel::cpp_vector> {
  static constexpr std::string_view name = "thrust_cpp";
  static void configure(int) {}
};
using thrust_cpp = thrust_backend<thrust_cpp_system>;

#ifdef _OPENMP
/// Thrust's OMP system. Threads are OpenMP's, and so is their number.
struct thrust_omp_system : thrust_host_system<thrust::omp::tag, thrust_kernel::omp_vector> {
  static constexpr std::string_view name = "thrust_omp";
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
