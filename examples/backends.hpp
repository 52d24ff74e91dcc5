// The backends that a program was built with, by the names that command lines know them by:
// cpu, and those of CMake's MULTISTAGE_PROGRAM_BACKENDS; on a GPU cuda, where nvcc compiles.
#pragma once
#ifdef MULTISTAGE_WITH_EIGEN
#include <multistage/eigen.hpp>
#endif
#ifdef MULTISTAGE_WITH_THRUST
#include <multistage/thrust.hpp>
#endif
#ifdef __CUDACC__
#include <multistage/cuda.hpp>
#endif
#include <multistage/multistage.hpp>
#include <string>
#include <variant>
#ifdef MULTISTAGE_COMPILED_HOSTS  // the library compiled_hosts has these
namespace multistage {
#ifdef MULTISTAGE_WITH_EIGEN
MULTISTAGE_NETWORKS(extern template, float, eigen)
MULTISTAGE_TRAINING(extern template, float, eigen)
#endif
#ifdef MULTISTAGE_WITH_THRUST
MULTISTAGE_NETWORKS(extern template, float, thrust_host)
MULTISTAGE_TRAINING(extern template, float, thrust_host)
#endif
}  // namespace multistage
#endif

/// One of them, for std::visit.
using any_backend = std::variant<multistage::cpu
#ifdef MULTISTAGE_WITH_EIGEN
                                 ,
                                 multistage::eigen
#endif
#ifdef MULTISTAGE_WITH_THRUST
                                 ,
                                 multistage::thrust_host
#endif
#ifdef __CUDACC__
                                 ,
                                 multistage::cuda
#endif
                                 >;

/// The backend of a name. @param threads of one on the host; 0: one a processor that may be
/// used
inline any_backend backend_of([[maybe_unused]] const std::string& name, int threads) {
#ifdef MULTISTAGE_WITH_EIGEN
  if (name == "eigen")
    return multistage::eigen(threads);
#endif
#ifdef MULTISTAGE_WITH_THRUST
  if (name == "thrust")
    return multistage::thrust_host(threads);
#endif
#ifdef __CUDACC__
  if (name == "cuda")
    return multistage::cuda();
#endif
  return multistage::cpu(threads);
}
