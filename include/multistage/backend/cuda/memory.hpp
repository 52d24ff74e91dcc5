// Memory of the device with one owner, and CUDA's errors as multistage::error. Nothing here
// throws from a destructor, so that an error reaches the caller while the stack unwinds,
// whatever state the device is in.
//
// Copies between host and device wait for what was asked before; those on the device, and
// kernels, are asked for and go on by themselves.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <limits>
#include <utility>

#include "../../core/error.hpp"

namespace multistage {

/// Throws unless `status` is success. CUDA reports what a kernel did at a later call, so `call`
/// names where the error was met, not always where it arose. An error that leaves the device
/// usable (no memory, a launch refused) is forgotten by CUDA's own record too, so that the
/// caller may try again; after a fault of a kernel the message says that the context is lost.
/// @param call what was asked of CUDA.
/// @param more appended to the message where given: what the caller can do.
/// @throws error
template <class... More>
void cuda_check(cudaError_t status, const char* call, const More&... more) {
  if (status == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();  // what can be forgotten is
  // A device that still fails after its record is cleared is lost to this process.
  const bool lost = cudaDeviceSynchronize() != cudaSuccess;
  fail<error>(
      "CUDA: ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ", met at ", call,
      ")",
      lost ? "; the device's context is lost: nothing runs on it in this process any more; "
             "start again from the last checkpoint"
           : "",
      more...);
}

/// An array of `T` in the device's memory; movable, and copied only by the backend's `copy`.
/// Its owner may be destroyed at any time, after a fault of the device and at the end of the
/// process too: what CUDA says to that is not looked at.
/// @tparam T a type of plain bytes: nothing is constructed in it.
template <class T>
class device_storage {
 public:
  using value_type = T;  ///< as containers name it
  device_storage() = default;
  /// `n` elements whose values are undefined. @throws error when the device has not that much
  /// memory.
  explicit device_storage(std::size_t n)
      : size_(n) {
    if (n == 0)
      return;
    require<error>(n <= std::numeric_limits<std::size_t>::max() / sizeof(T), "CUDA: ", n,
                   " elements of ", sizeof(T), " bytes are more than any memory holds");
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, n * sizeof(T));
    if (status == cudaErrorMemoryAllocation) {
      std::size_t left = 0;
      std::size_t all = 0;
      cudaMemGetInfo(&left, &all);
      cuda_check(status, "cudaMalloc", ": ", n * sizeof(T), " bytes asked, ", left, " free of ",
                 all,
                 "; a smaller batch needs less, and so does a network with a memory budget");
    }
    cuda_check(status, "cudaMalloc");
    data_ = static_cast<T*>(memory);
  }
  /// `n` elements of zero. @throws error as above.
  static device_storage zeros(std::size_t n) {
    device_storage made(n);
    if (n > 0)
      cuda_check(cudaMemsetAsync(made.data_, 0, n * sizeof(T)), "cudaMemsetAsync");
    return made;
  }
  /// Leaves `other` empty.
  device_storage(device_storage&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  /// What was here is destroyed with `other`.
  device_storage& operator=(device_storage&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~device_storage() {
    if (data_)
      cudaFree(data_);
  }

  /// An address on the device; null where there are no elements.
  T* data() const {
    return data_;
  }
  /// How many elements there are.
  std::size_t size() const {
    return size_;
  }
  /// Whether there are none.
  bool empty() const {
    return size_ == 0;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace multistage
