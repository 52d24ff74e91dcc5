// Matrix products on the GPU by cuBLAS. cuBLAS is column-major: a row-major C = A B is its C^T = B^T A^T.
#pragma once
#include <cublas_v2.h>

#include <algorithm>

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

  /// C = alpha A B + beta C; A and B have a stride of 1, C lies by rows.
  template <class System, class T>
  void operator()(const thrust_backend<System>&, matrix_view<const T> a, matrix_view<const T> b, matrix_view<T> c, T alpha, T beta) {
    const auto by_rows = [](const auto& x) { return x.column_stride == 1 && x.row_stride >= x.columns; };
    const auto of = [&](const auto& x) { return by_rows(x) ? CUBLAS_OP_N : CUBLAS_OP_T; };
    const auto leading = [&](const auto& x) { return int(std::max<index_t>(1, by_rows(x) ? x.row_stride : x.column_stride)); };
    const int m = int(c.rows);
    const int n = int(c.columns);
    const int k = int(a.columns);
    if constexpr (sizeof(T) == 4)
      check(cublasSgemm(handle_, of(b), of(a), n, m, k, &alpha, b.data, leading(b), a.data, leading(a), &beta, c.data, leading(c)),
            "cublasSgemm");
    else
      check(cublasDgemm(handle_, of(b), of(a), n, m, k, &alpha, b.data, leading(b), a.data, leading(a), &beta, c.data, leading(c)),
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
