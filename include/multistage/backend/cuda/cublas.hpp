// Matrix products on the GPU by cuBLAS. cuBLAS is column-major: a row-major C = A B is its C^T
// = B^T A^T.
#pragma once
#include <cublas_v2.h>

#include <algorithm>

#include "../../core/error.hpp"
#include "../thrust/thrust_backend.hpp"
#include "memory.hpp"

namespace multistage {

/// How exact products of float matrices are: `full` like float arithmetic; `tf32` rounds their
/// operands to 11 significant bits, as PyTorch's convolutions on a GPU do by default, and is
/// nearly twice as fast.
enum class product_precision { full, tf32 };

/// Equal products of matrices at regular distances: of product i, A lies at a + i stride_a, and
/// so on.
struct product_batch {
  index_t count = 1;     ///< how many
  index_t stride_a = 0;  ///< from one A to the next, in elements
  index_t stride_b = 0;  ///< from one B to the next
  index_t stride_c = 0;  ///< from one C to the next
};

/// The `products` of the CUDA system; owns a cuBLAS handle.
class cublas_products {
 public:
  /// @throws error with cuBLAS's message where there is no device
  cublas_products() {
    check(cublasCreate(&handle_), "cublasCreate");
  }
  ~cublas_products() {
    cublasDestroy(handle_);
  }
  cublas_products(const cublas_products&) = delete;
  cublas_products& operator=(const cublas_products&) = delete;

  /// Of all products in float from now on.
  void set_precision(product_precision precision) {
    const bool tf32 = precision == product_precision::tf32;
    check(cublasSetMathMode(handle_, tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH),
          "cublasSetMathMode");
    precision_ = precision;
  }
  /// What set_precision set.
  product_precision precision() const {
    return precision_;
  }

  /// What `multiply(backend, ...)` calls: one product, C = alpha A B + beta C.
  template <class System, class T>
  void operator()(const thrust_backend<System>&,
                  matrix_view<const T> a,
                  matrix_view<const T> b,
                  matrix_view<T> c,
                  T alpha,
                  T beta) {
    multiply(a, b, c, alpha, beta, {});
  }

  /// C = alpha A B + beta C, `batch.count` times; A and B have a stride of 1, C lies by rows.
  /// @throws error with cuBLAS's message.
  template <class T>
  void multiply(factor<T> a,
                factor<T> b,
                matrix_view<T> c,
                T alpha,
                T beta,
                const product_batch& batch) {
    // Row-major C = A B is column-major C^T = B^T A^T: the factors change places.
    const cublasOperation_t left = operation_of(a);
    const cublasOperation_t right = operation_of(b);
    const int m = int(c.rows);
    const int n = int(c.columns);
    const int k = int(a.columns);
    const int count = int(batch.count);
    if (count == 1) {
      if constexpr (sizeof(T) == 4)
        check(cublasSgemm(handle_, right, left, n, m, k, &alpha, b.data, leading(b), a.data,
                          leading(a), &beta, c.data, leading(c)),
              "cublasSgemm");
      else
        check(cublasDgemm(handle_, right, left, n, m, k, &alpha, b.data, leading(b), a.data,
                          leading(a), &beta, c.data, leading(c)),
              "cublasDgemm");
    } else {
      if constexpr (sizeof(T) == 4)
        check(
            cublasSgemmStridedBatched(handle_, right, left, n, m, k, &alpha, b.data, leading(b),
                                      batch.stride_b, a.data, leading(a), batch.stride_a, &beta,
                                      c.data, leading(c), batch.stride_c, count),
            "cublasSgemmStridedBatched");
      else
        check(
            cublasDgemmStridedBatched(handle_, right, left, n, m, k, &alpha, b.data, leading(b),
                                      batch.stride_b, a.data, leading(a), batch.stride_a, &beta,
                                      c.data, leading(c), batch.stride_c, count),
            "cublasDgemmStridedBatched");
    }
  }

 private:
  template <class T>
  static bool by_rows(const matrix_view<T>& x) {
    return x.column_stride == 1 && x.row_stride >= x.columns;
  }
  template <class T>
  static cublasOperation_t operation_of(const matrix_view<T>& x) {
    return by_rows(x) ? CUBLAS_OP_N : CUBLAS_OP_T;
  }
  template <class T>
  static int leading(const matrix_view<T>& x) {
    return int(std::max<index_t>(1, by_rows(x) ? x.row_stride : x.column_stride));
  }
  static void check(cublasStatus_t status, const char* what) {
    if (status == CUBLAS_STATUS_SUCCESS)
      return;
    cuda_check(cudaDeviceSynchronize(), what);  // a device that is lost says more than cuBLAS
    fail<error>(what, ": ", cublasGetStatusString(status),
                "; is a CUDA device present and its memory free?");
  }
  cublasHandle_t handle_ = nullptr;
  product_precision precision_ = product_precision::full;
};

}  // namespace multistage
