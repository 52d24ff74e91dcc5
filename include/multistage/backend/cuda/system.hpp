// CUDA as a system of the backend of functors over indices, with cuBLAS and cuRAND. All work is
// given to one stream, CUDA's default, and runs in the order given.
//
// Work is given in order to one stream, so nothing waits but copies to the host and
// synchronize().
#pragma once
#include "cublas.hpp"
#include "curand.hpp"
#include "launch.hpp"
#include "memory.hpp"

namespace multistage {

/// The policy of `cuda`. @see thrust_backend
struct cuda_system {
  static constexpr std::string_view name = "cuda";  ///< as command lines spell it
  static constexpr bool host = false;               ///< indices run on the device
  /// Memory with one owner.
  template <class T>
  using vector = device_storage<T>;
  using products = cublas_products;  ///< cuBLAS
  using words = curand_words;        ///< cuRAND's words, the same as the library's

  /// Nothing: a device has no threads to choose.
  static void configure(int) {}
  /// n zeros on the device. @throws error
  template <class T>
  static vector<T> zeros(std::size_t n) {
    return vector<T>::zeros(n);
  }
  /// Its address on the device.
  template <class T>
  static T* pointer(const vector<T>& v) {
    return v.data();
  }
  /// From the host; returns when it is done. @throws error
  template <class T>
  static void upload(const T* host, T* device, index_t n) {
    cuda_check(cudaMemcpy(device, host, std::size_t(n) * sizeof(T), cudaMemcpyHostToDevice),
               "a copy to the device");
  }
  /// To the host, after all that was asked before. @throws error
  template <class T>
  static void download(const T* device, T* host, index_t n) {
    cuda_check(cudaMemcpy(host, device, std::size_t(n) * sizeof(T), cudaMemcpyDeviceToHost),
               "a copy from the device");
  }
  /// On the device; returns at once. @throws error
  template <class T>
  static void copy(const T* from, T* to, index_t n) {
    cuda_check(cudaMemcpyAsync(to, from, std::size_t(n) * sizeof(T), cudaMemcpyDeviceToDevice),
               "a copy on the device");
  }
  /// f(i) a thread, each taking several i where there are more than threads. @throws error for
  /// a launch that is refused
  template <class F>
  static void for_each_index(index_t n, const F& f) {
    constexpr index_t threads = 256;
    constexpr index_t most_blocks = 0x7fffffff;
    cuda_launch("a loop over indices", cuda_kernel::each_index<F>,
                dim3(unsigned(std::min(divide_up(n, threads), most_blocks))), dim3(threads), 0,
                n, f);
  }
  /// @throws error with CUDA's message when something that ran before failed.
  static void synchronize() {
    cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
};
/// The backend of a GPU, for sources that nvcc compiles.
using cuda = thrust_backend<cuda_system>;
/// Larger than elsewhere: a piece is launches of its own.
template <>
inline constexpr index_t gradient_piece<cuda> = 32;

/// How exact the backend's products of floats are from now on, its copies' too. `full` until
/// set.
inline void set_precision(const cuda& backend, product_precision precision) {
  backend.products().set_precision(precision);
}

}  // namespace multistage
