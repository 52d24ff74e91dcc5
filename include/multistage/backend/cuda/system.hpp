// Thrust's CUDA system as a policy, with cuBLAS and cuRAND.
#pragma once
#include <thrust/system/cuda/execution_policy.h>
#include <thrust/system/cuda/vector.h>

#include "cublas.hpp"
#include "curand.hpp"

namespace multistage {

struct cuda_system {
  static constexpr std::string_view name = "cuda";
  static constexpr bool host = false;
  using tag = thrust::cuda::tag;
  template <class T>
  using vector = thrust::cuda::vector<T>;
  using products = cublas_products;
  using words = curand_words;
  static auto policy() { return thrust::cuda::par_nosync; }
  static void configure(int) {}
  /// @throws error with CUDA's message when something that ran before failed.
  static void synchronize() {
    const cudaError_t status = cudaDeviceSynchronize();
    require<error>(status == cudaSuccess, "CUDA: ", cudaGetErrorString(status));
  }
};
using cuda = thrust_backend<cuda_system>;

}  // namespace multistage
