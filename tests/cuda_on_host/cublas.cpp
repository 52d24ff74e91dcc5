// cuBLAS's sgemm and dgemm on the host: its checks of arguments, and every element of the
// operands checked. Products are Eigen's, or sums in a fixed order where the environment asks
// for them.
#include <cublas_v2.h>

#include <Eigen/Core>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "state.hpp"

namespace {

/// A column-major operand.
template <class T>
struct operand {
  const char* name;
  const T* data;
  int rows;
  int columns;
  int stride;

  uint64_t bytes() const {
    return rows > 0 && columns > 0 ? (uint64_t(columns - 1) * stride + rows) * sizeof(T) : 0;
  }
  const T* column(int j) const {
    return data + uint64_t(j) * stride;
  }

  /// Whether it can be accessed; also reports what is not initialised where it is read.
  bool check(bool read) const {
    const auto at = reinterpret_cast<uint64_t>(data);
    if (bytes() == 0)
      return true;
    if (at % sizeof(T) != 0) {
      emu::find(std::string("cublas gemm: MISALIGNED ") + name, emu::whereabouts(at));
      emu::stick(cudaErrorMisalignedAddress);
      return false;
    }
    if (!emu::in_allocation(data, bytes())) {
      emu::find(std::string("cublas gemm: OUT OF BOUNDS, operand ") + name,
                emu::whereabouts(at) + ", needs " + std::to_string(bytes()) + " bytes");
      emu::stick(cudaErrorIllegalAddress);
      return false;
    }
    for (int j = 0; read && j < columns; ++j)
      if (std::memchr(emu::shadow(column(j)), emu::uninitialised,
                      std::size_t(rows) * sizeof(T))) {
        emu::find(std::string("cublas gemm: UNINITIALISED operand ") + name,
                  emu::whereabouts(reinterpret_cast<uint64_t>(column(j))));
        break;
      }
    return true;
  }
  bool overlaps(const operand& other) const {
    const auto a = reinterpret_cast<uint64_t>(data);
    const auto b = reinterpret_cast<uint64_t>(other.data);
    return a < b + other.bytes() && b < a + bytes();
  }
};

template <class T>
void multiply(bool transpose_a,
              bool transpose_b,
              T alpha,
              const operand<T>& a,
              const operand<T>& b,
              T beta,
              const operand<T>& c) {
  using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;
  using stride = Eigen::OuterStride<>;
  using map = Eigen::Map<const matrix, 0, stride>;
  const auto host = [](const T* p) {
    return reinterpret_cast<T*>(emu::alias(p));
  };
  const map left(host(a.data), a.rows, a.columns, stride(a.stride));
  const map right(host(b.data), b.rows, b.columns, stride(b.stride));
  Eigen::Map<matrix, 0, stride> to(host(c.data), c.rows, c.columns, stride(c.stride));
  const int k = transpose_a ? a.rows : a.columns;
  if (emu::device().asked.naive_products) {
    for (int j = 0; j < c.columns; ++j)
      for (int i = 0; i < c.rows; ++i) {
        T sum = 0;
        for (int p = 0; p < k; ++p)
          sum = std::fma(transpose_a ? left(p, i) : left(i, p),
                         transpose_b ? right(j, p) : right(p, j), sum);
        to(i, j) = beta == T(0) ? alpha * sum : alpha * sum + beta * to(i, j);
      }
    return;
  }
  if (beta == T(0))
    to.setZero();
  else if (beta != T(1))
    to *= beta;
  if (k == 0)
    return;
  if (!transpose_a && !transpose_b)
    to.noalias() += alpha * (left * right);
  else if (!transpose_a)
    to.noalias() += alpha * (left * right.transpose());
  else if (!transpose_b)
    to.noalias() += alpha * (left.transpose() * right);
  else
    to.noalias() += alpha * (left.transpose() * right.transpose());
}

template <class T>
cublasStatus_t gemm(cublasHandle_t handle,
                    cublasOperation_t with_a,
                    cublasOperation_t with_b,
                    int m,
                    int n,
                    int k,
                    const T* alpha,
                    const T* a_data,
                    int lda,
                    const T* b_data,
                    int ldb,
                    const T* beta,
                    T* c_data,
                    int ldc) {
  const emu::lock guard;
  if (!handle)
    return CUBLAS_STATUS_NOT_INITIALIZED;
  if (emu::failed())
    return CUBLAS_STATUS_EXECUTION_FAILED;
  const bool ta = with_a != CUBLAS_OP_N;
  const bool tb = with_b != CUBLAS_OP_N;
  const operand<T> a{"A", a_data, ta ? k : m, ta ? m : k, lda};
  const operand<T> b{"B", b_data, tb ? n : k, tb ? k : n, ldb};
  const operand<T> c{"C", c_data, m, n, ldc};
  const auto too_small = [](const operand<T>& o) {
    return o.stride < std::max(1, o.rows);
  };
  if (m < 0 || n < 0 || k < 0 || too_small(a) || too_small(b) || too_small(c) || !alpha ||
      !beta) {
    emu::find("cublas gemm: INVALID VALUE",
              "m n k " + std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k) +
                  ", strides " + std::to_string(lda) + " " + std::to_string(ldb) + " " +
                  std::to_string(ldc));
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (m == 0 || n == 0)
    return CUBLAS_STATUS_SUCCESS;
  emu::enqueue([=, al = *alpha, be = *beta] {
    if (emu::failed())
      return;
    const auto before = std::chrono::steady_clock::now();
    if (!a.check(true) || !b.check(true) || !c.check(be != T(0)))
      return;
    if (c.overlaps(a) || c.overlaps(b))
      emu::find("cublas gemm: C OVERLAPS an operand", "");
    multiply(ta, tb, al, a, b, be, c);
    for (int j = 0; j < n; ++j)
      std::memset(emu::shadow(c.column(j)), emu::initialised, std::size_t(m) * sizeof(T));
    emu::state& s = emu::device();
    ++s.products;
    s.product_flop += 2.0 * m * n * k;
    s.product_seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
  });
  return CUBLAS_STATUS_SUCCESS;
}

/// One product after the other, each `stride` elements further on in each operand.
template <class T>
cublasStatus_t gemm_batch(cublasHandle_t handle,
                          cublasOperation_t with_a,
                          cublasOperation_t with_b,
                          int m,
                          int n,
                          int k,
                          const T* alpha,
                          const T* a,
                          int lda,
                          long long stride_a,
                          const T* b,
                          int ldb,
                          long long stride_b,
                          const T* beta,
                          T* c,
                          int ldc,
                          long long stride_c,
                          int count) {
  for (int i = 0; i < count; ++i) {
    const cublasStatus_t s = gemm(handle, with_a, with_b, m, n, k, alpha, a + i * stride_a, lda,
                                  b + i * stride_b, ldb, beta, c + i * stride_c, ldc);
    if (s != CUBLAS_STATUS_SUCCESS)
      return s;
  }
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  const emu::lock guard;
  ++emu::device().calls["cublasCreate"];
  if (emu::failed())
    return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = static_cast<cublasHandle_t>(std::malloc(1));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  std::free(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasGetStatusString(cublasStatus_t s) {
  switch (s) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "the library was not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "the GPU program failed to execute";
    default:
      return "unknown";
  }
}
cublasStatus_t cublasSgemm_v2(cublasHandle_t handle,
                              cublasOperation_t with_a,
                              cublasOperation_t with_b,
                              int m,
                              int n,
                              int k,
                              const float* alpha,
                              const float* a,
                              int lda,
                              const float* b,
                              int ldb,
                              const float* beta,
                              float* c,
                              int ldc) {
  return gemm(handle, with_a, with_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t handle,
                              cublasOperation_t with_a,
                              cublasOperation_t with_b,
                              int m,
                              int n,
                              int k,
                              const double* alpha,
                              const double* a,
                              int lda,
                              const double* b,
                              int ldb,
                              const double* beta,
                              double* c,
                              int ldc) {
  return gemm(handle, with_a, with_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle,
                                         cublasOperation_t with_a,
                                         cublasOperation_t with_b,
                                         int m,
                                         int n,
                                         int k,
                                         const float* alpha,
                                         const float* a,
                                         int lda,
                                         long long stride_a,
                                         const float* b,
                                         int ldb,
                                         long long stride_b,
                                         const float* beta,
                                         float* c,
                                         int ldc,
                                         long long stride_c,
                                         int count) {
  return gemm_batch(handle, with_a, with_b, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b,
                    beta, c, ldc, stride_c, count);
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle,
                                         cublasOperation_t with_a,
                                         cublasOperation_t with_b,
                                         int m,
                                         int n,
                                         int k,
                                         const double* alpha,
                                         const double* a,
                                         int lda,
                                         long long stride_a,
                                         const double* b,
                                         int ldb,
                                         long long stride_b,
                                         const double* beta,
                                         double* c,
                                         int ldc,
                                         long long stride_c,
                                         int count) {
  return gemm_batch(handle, with_a, with_b, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b,
                    beta, c, ldc, stride_c, count);
}

}  // extern "C"
