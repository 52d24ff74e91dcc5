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

#include <algorithm>
#include <cstdlib>
#endif

#ifdef _OPENMP
#include "../../core/thread_pool.hpp"
#endif
#include "gemm.hpp"
#include "random.hpp"

namespace multistage {

/// What Thrust's host systems share. @tparam Policy Thrust's execution policy.
/// @tparam Vector its vector.
/// @tparam Ready called before anything runs.
template <class Policy, template <class> class Vector, void (*Ready)()>
struct thrust_host_system {
  static constexpr bool host = true;  ///< indices run on the host
  template <class T>
  using vector = Vector<T>;                       ///< memory with one owner
  using products = thrust_kernel::host_products;  ///< tiles of C, an index each
  using words = philox_words;                     ///< the library's own Philox

  /// n zeros.
  template <class T>
  static vector<T> zeros(std::size_t n) {
    Ready();
    return vector<T>(n, T(0));
  }
  /// Its first element, which may be written: who owns the vector decides that.
  template <class T>
  static T* pointer(const vector<T>& v) {
    return const_cast<T*>(thrust::raw_pointer_cast(v.data()));
  }
  /// n elements, which must not overlap.
  template <class T>
  static void copy(const T* from, T* to, index_t n) {
    Ready();
    thrust::copy(Policy(), from, from + n, to);
  }
  /// The same as a copy: it is all one memory.
  template <class T>
  static void upload(const T* from, T* to, index_t n) {
    copy(from, to, n);
  }
  /// The same as a copy: it is all one memory.
  template <class T>
  static void download(const T* from, T* to, index_t n) {
    copy(from, to, n);
  }
  /// f(i) for every i in [0, n), in Thrust's own order.
  template <class F>
  static void for_each_index(index_t n, const F& f) {
    Ready();
    thrust::for_each_n(Policy(), thrust::counting_iterator<index_t>(0), n, f);
  }
  /// Nothing: every call returns when its work is done.
  static void synchronize() {}
};

namespace thrust_kernel {
// the vectors have a second parameter, the allocator
template <class T>
using cpp_vector = thrust::cpp::vector<T>;
inline void caller_alone() {}
#ifdef _OPENMP
template <class T>
using omp_vector = thrust::omp::vector<T>;
/// OpenMP's threads compute in the mode in which they were started, and are not there in a
/// child of fork().
inline void ready_team() {
  thread_local const unsigned process = fork_depth();
  require<state_error>(
      process == fork_depth() || omp_get_max_threads() == 1,
      "thrust_omp: OpenMP's threads do not outlive fork; use the cpu backend or "
      "thrust_cpp in the child, or fork before anything is computed");
  thread_local std::uint64_t known = ~std::uint64_t{0};
  const std::uint64_t mode = floating_point_mode();
  if (mode == known)
    return;
#pragma omp parallel
  set_floating_point_mode(mode);
  known = mode;
}
#endif
}  // namespace thrust_kernel

/// Thrust's CPP system: one thread.
struct thrust_cpp_system : thrust_host_system<thrust::cpp::tag,
                                              thrust_kernel::cpp_vector,
                                              thrust_kernel::caller_alone> {
  static constexpr std::string_view name = "thrust_cpp";  ///< as command lines spell it
  /// Nothing: it has one thread.
  static void configure(int) {}
};
/// The backend on the calling thread alone, for comparing with.
using thrust_cpp = thrust_backend<thrust_cpp_system>;

#ifdef _OPENMP
/// Thrust's OMP system. Threads are OpenMP's; where neither the caller nor OMP_NUM_THREADS says
/// how many, usable_processors().
struct thrust_omp_system : thrust_host_system<thrust::omp::tag,
                                              thrust_kernel::omp_vector,
                                              thrust_kernel::ready_team> {
  static constexpr std::string_view name = "thrust_omp";
  /// @throws value_error, state_error as thread_pool does
  static void configure(int threads) {
    if (threads == 0) {
      threads = omp_get_max_threads();
      if (std::getenv("OMP_NUM_THREADS") == nullptr)
        threads = std::min(threads, usable_processors());
    }
    // OpenMP ends the program when it cannot start a thread, so it is tried before.
    const thread_pool as_many(threads);
    omp_set_num_threads(threads);
  }
};
using thrust_omp = thrust_backend<thrust_omp_system>;
/// The best of the host systems that this compilation has.
using thrust_host = thrust_omp;
#else
/// The best of the host systems that this compilation has.
using thrust_host = thrust_cpp;
#endif

}  // namespace multistage
