// Launches of kernels: checked, in the order they are given.
//
// A kernel reports its faults at a later call. A launch that is refused (too many threads, too
// much shared memory) is an error here, where the kernel's name is still known.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "../../core/config.hpp"
#include "memory.hpp"

namespace multistage {

/// Runs `kernel` on the backend's stream, after all that was given to it before; returns at
/// once. More than 48 KiB of dynamic shared memory are asked for here. @param name the
/// kernel's, for the message.
/// @param shared_bytes of dynamic shared memory a block.
/// @param arguments the kernel's own, converted to its parameters.
/// @throws error when the launch is refused, or when something that ran before failed.
template <class... Parameters, class... Arguments>
void cuda_launch(const char* name,
                 void (*kernel)(Parameters...),
                 dim3 grid,
                 dim3 block,
                 std::size_t shared_bytes,
                 Arguments&&... arguments) {
  constexpr std::size_t without_asking = 48 * 1024;
  const void* entry = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > without_asking)
    cuda_check(cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    int(shared_bytes)),
               name);
  std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {static_cast<void*>(&value)..., nullptr};
        cuda_check(cudaLaunchKernel(entry, grid, block, pointers, shared_bytes, nullptr), name);
      },
      values);
}

namespace cuda_kernel {

/// f(i) for every i in [0, n).
template <class F>
__global__ void __launch_bounds__(256) each_index(index_t n, F f) {
  const index_t step = index_t(gridDim.x) * blockDim.x;
  for (index_t i = index_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step)
    f(i);
}

}  // namespace cuda_kernel
}  // namespace multistage
