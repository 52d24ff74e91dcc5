// Matrix products on the GPU by cuBLAS. cuBLAS is column-major: a row-major C = A B is its C^T = B^T A^T.
#pragma once
#include <cublas_v2.h>

#include "../../core/error.hpp"
#include "../thrust/thrust_backend.hpp"
#include "memory.hpp"

namespace multistage {

/// The `products` of the CUDA system; owns a cuBLAS handle.
class cublas_products {
 public:
  cublas_products() { check(cublasCreate(&handle_), "cublasCreate"); }
  ~cublas_products() { cublasDestroy(handle_); }
  cublas_products(const cublas_products&) = delete;
  cublas_products& operator=(const cublas_products&) = delete;

  template <class System, class T>
  void operator()(const thrust_backend<System>&, const gemm_problem<T>& p) {
    const auto of = [](bool transpose) { return transpose ? CUBLAS_OP_T : CUBLAS_OP_N; };
    if constexpr (sizeof(T) == 4)
      check(cublasSgemm(handle_, of(p.transpose_b), of(p.transpose_a), int(p.n), int(p.m), int(p.k), &p.alpha, p.b, int(p.ldb), p.a, int(p.lda), &p.beta, p.c,
                        int(p.ldc)),
            "cublasSgemm");
    else
      check(cublasDgemm(handle_, of(p.transpose_b), of(p.transpose_a), int(p.n), int(p.m), int(p.k), &p.alpha, p.b, int(p.ldb), p.a, int(p.lda), &p.beta, p.c,
                        int(p.ldc)),
            "cublasDgemm");
  }

 private:
  static void check(cublasStatus_t status, const char* what) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    cuda_check(cudaDeviceSynchronize(), what);  // a device that is lost says more than cuBLAS
    fail<error>(what, ": ", cublasGetStatusString(status),
                "; is a CUDA device present and its memory free?");
  }
  cublasHandle_t handle_ = nullptr;
};

}  // namespace multistage
