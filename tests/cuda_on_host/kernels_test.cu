// Kernels that use what a GPU has beyond threads that do not know of each other, each against
// values computed here: shared memory, barriers, shuffles, votes, atomic operations, wide
// accesses, approximations, copies that arrive later, matrix instructions. It runs on a GPU as
// well.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace {

int failures = 0;

void checked(cudaError_t e, const char* what) {
  if (e == cudaSuccess)
    return;
  std::printf("FAIL %s: %s\n", what, cudaGetErrorString(e));
  ++failures;
}

/// An array on the device.
template <class T>
class array {
 public:
  explicit array(const std::vector<T>& host) : size_(host.size()) {
    checked(cudaMalloc(&data_, size_ * sizeof(T)), "cudaMalloc");
    checked(cudaMemcpy(data_, host.data(), size_ * sizeof(T), cudaMemcpyHostToDevice),
            "upload");
  }
  explicit array(std::size_t n) : array(std::vector<T>(n, T(0))) {}
  array(const array&) = delete;
  ~array() {
    cudaFree(data_);
  }
  operator T*() const {
    return data_;
  }
  std::vector<T> host() const {
    std::vector<T> h(size_);
    checked(cudaMemcpy(h.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), "download");
    return h;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

/// Holds got[i] against want(i); `within` is relative to 1 + |want|.
template <class T>
void expect(const char* name,
            const std::vector<T>& got,
            const std::function<double(int)>& want,
            double within = 0) {
  for (int i = 0; i < int(got.size()); ++i) {
    const double w = want(i);
    if (!(std::abs(double(got[std::size_t(i)]) - w) <= within * (1 + std::abs(w)))) {
      std::printf("FAIL %s: element %d is %.9g, not %.9g\n", name, i,
                  double(got[std::size_t(i)]), w);
      ++failures;
      return;
    }
  }
  std::printf("ok   %s\n", name);
}

std::vector<float> reals(int n, int seed = 1) {
  std::vector<float> v(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i)
    v[std::size_t(i)] = float((i * 7919 + seed * 104729) % 1999) / 1000 - 1;
  return v;
}

// --- shared memory and barriers

__global__ void reverse(const float* x, float* y) {
  __shared__ float s[256];
  s[threadIdx.x] = x[blockIdx.x * 256 + threadIdx.x];
  __syncthreads();
  y[blockIdx.x * 256 + threadIdx.x] = s[255 - threadIdx.x];
}

__global__ void block_sums(const float* x, float* sums, int per) {
  extern __shared__ float partial[];
  int* counts = reinterpret_cast<int*>(partial + blockDim.x);
  float s = 0;
  int n = 0;
  for (int i = int(threadIdx.x); i < per; i += int(blockDim.x))
    s += x[blockIdx.x * per + i], ++n;
  partial[threadIdx.x] = s;
  counts[threadIdx.x] = n;
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      partial[threadIdx.x] += partial[threadIdx.x + half];
      counts[threadIdx.x] += counts[threadIdx.x + half];
    }
  }
  if (threadIdx.x == 0)
    sums[blockIdx.x] = partial[0] / float(counts[0]);
}

__global__ void large_shared(float* y) {
  extern __shared__ float s[];
  for (int i = int(threadIdx.x); i < 20000; i += 128)
    s[i] = float(i);
  __syncthreads();
  y[threadIdx.x] = s[19999 - threadIdx.x];
}

__global__ void transpose(const float* x, float* y, int n) {
  __shared__ float tile[16][17];
  const int i = int(blockIdx.y * 16 + threadIdx.y);
  const int j = int(blockIdx.x * 16 + threadIdx.x);
  tile[threadIdx.y][threadIdx.x] = x[i * n + j];
  __syncthreads();
  y[int(blockIdx.x * 16 + threadIdx.y) * n + int(blockIdx.y * 16 + threadIdx.x)] =
      tile[threadIdx.x][threadIdx.y];
}

__global__ void counting_barriers(int* y) {
  const int i = int(threadIdx.x);
  const int count = __syncthreads_count(i % 3 == 0);
  const int all = __syncthreads_and(i < 96);
  const int any = __syncthreads_or(i == 7);
  y[i] = count * 100 + all * 10 + any;
}

// warps 0 and 1 make, warps 2 and 3 take; they meet at named barriers
__global__ void named_barriers(int* y) {
  __shared__ int s[64];
  const int i = int(threadIdx.x);
  if (i < 64) {
    s[i] = i * i;
    asm volatile("bar.arrive 1, 128;" ::: "memory");
    y[i] = 1;
  } else {
    asm volatile("bar.sync 1, 128;" ::: "memory");
    asm volatile("bar.sync 2, 64;" ::: "memory");
    y[i] = s[127 - i];
  }
}

__global__ void local_arrays(const int* which, int* y) {
  int mine[32];
  for (int i = 0; i < 32; ++i)
    mine[i] = i * int(threadIdx.x);
  __syncthreads();
  const int at = which[threadIdx.x];
  mine[at] += 1;
  __syncthreads();
  y[threadIdx.x] = mine[at] + mine[(at + 1) & 31];
}

// --- warps

__global__ void shuffles(const int* x, int* y) {
  const int i = int(threadIdx.x);
  const int v = x[i];
  const int n = int(blockDim.x);
  y[0 * n + i] = __shfl_sync(0xffffffffu, v, (i * 5) & 31);
  y[1 * n + i] = __shfl_up_sync(0xffffffffu, v, 3);
  y[2 * n + i] = __shfl_down_sync(0xffffffffu, v, 5);
  y[3 * n + i] = __shfl_xor_sync(0xffffffffu, v, 9);
  y[4 * n + i] = __shfl_sync(0xffffffffu, v, 2, 8);
  y[5 * n + i] = __shfl_up_sync(0xffffffffu, v, 1, 8);
  y[6 * n + i] = __shfl_down_sync(0xffffffffu, v, 1, 8);
  y[7 * n + i] = __shfl_xor_sync(0xffffffffu, v, 1, 8);
}

__global__ void double_sums(const double* x, double* y) {
  double v = x[threadIdx.x];
  for (int step = 16; step > 0; step /= 2)
    v += __shfl_xor_sync(0xffffffffu, v, step);
  y[threadIdx.x] = v;
}

// half a warp shuffles, the other half does something else
__global__ void half_warps(const int* x, int* y) {
  const int i = int(threadIdx.x);
  int v = x[i];
  if ((i & 31) < 16)
    for (int step = 8; step > 0; step /= 2)
      v += __shfl_xor_sync(0x0000ffffu, v, step);
  else
    v = int(__ballot_sync(0xffff0000u, v % 2 == 0));
  y[i] = v;
}

// every lane reads what lane 0 then writes: the shuffles stand between
__global__ void softmax(float* x) {
  float* const row = x + threadIdx.x / 32 * 32;
  const int lane = int(threadIdx.x % 32);
  float most = row[0];
  if (row[lane] > most)
    most = row[lane];
  for (int step = 16; step > 0; step /= 2)
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
  float sum = expf(row[lane] - most);
  for (int step = 16; step > 0; step /= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, step);
  row[lane] = expf(row[lane] - most) / sum;
}

__global__ void votes(const int* x, int* y) {
  const int i = int(threadIdx.x);
  const int v = x[i];
  const int n = int(blockDim.x);
  y[0 * n + i] = int(__ballot_sync(0xffffffffu, v > 10));
  y[1 * n + i] = __any_sync(0xffffffffu, v == 3) + 2 * __all_sync(0xffffffffu, v >= 0);
  y[2 * n + i] = int(__match_any_sync(0xffffffffu, v % 4));
  y[3 * n + i] = int(__reduce_add_sync(0xffffffffu, unsigned(v)));
  y[4 * n + i] = __reduce_max_sync(0xffffffffu, v);
}

__global__ void warp_exchange(const int* x, int* y) {
  __shared__ int s[64];
  const int i = int(threadIdx.x);
  int v = x[i];
  for (int k = 0; k < 3; ++k) {
    s[i] = v;
    __syncwarp();
    v = s[i ^ 1] + 1;
    __syncwarp();
  }
  y[i] = v;
}

// --- atomic operations

__global__ void atomics(const int* x,
                        int* counts,
                        float* sum,
                        double* wide,
                        int* most,
                        int* least,
                        unsigned* ring,
                        unsigned long long* large,
                        int* bits) {
  __shared__ int local[8];
  if (threadIdx.x < 8)
    local[threadIdx.x] = 0;
  __syncthreads();
  const int v = x[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(&local[v & 7], 1);
  atomicAdd(sum, float(v));
  atomicAdd(wide, double(v) / 2);
  atomicMax(most, v);
  atomicMin(least, v);
  atomicInc(ring, 9);
  atomicAdd(large, 1ull << 33);
  atomicOr(bits, 1 << (v & 15));
  __syncthreads();
  if (threadIdx.x < 8)
    atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
}

// the greatest float by compare and swap; the last to arrive is told by atomicExch
__global__ void swaps(const float* x, unsigned* greatest, int* last) {
  const float v = x[threadIdx.x];
  unsigned old = atomicAdd(greatest, 0u);
  while (__uint_as_float(old) < v) {
    const unsigned seen = atomicCAS(greatest, old, __float_as_uint(v));
    if (seen == old)
      break;
    old = seen;
  }
  atomicExch(last, 5);
}

// --- wide accesses

__global__ void wide(const float4* a,
                     const double2* b,
                     const uint4* c,
                     float4* x,
                     double2* y,
                     uint2* z) {
  const int i = int(threadIdx.x);
  const float4 f = __ldg(a + i);
  const double2 d = __ldcs(b + i);
  const uint4 u = __ldcg(c + i);
  asm volatile("prefetch.global.L2 [%0];" ::"l"(a + i));
  __stcs(x + i, make_float4(f.w, f.z, f.y, f.x));
  y[i] = make_double2(d.y, d.x + 1);
  z[i] = make_uint2(u.x ^ u.y, u.z + u.w);
}

// --- approximations

#define MULTISTAGE_TEST_APPROXIMATION(name, instruction) \
  __device__ float name(float v) {                       \
    float r;                                             \
    asm(instruction ".f32 %0, %1;" : "=f"(r) : "f"(v));  \
    return r;                                            \
  }
MULTISTAGE_TEST_APPROXIMATION(ex2, "ex2.approx.ftz")
MULTISTAGE_TEST_APPROXIMATION(lg2, "lg2.approx.ftz")
MULTISTAGE_TEST_APPROXIMATION(rcp, "rcp.approx.ftz")
MULTISTAGE_TEST_APPROXIMATION(rsq, "rsqrt.approx.ftz")
MULTISTAGE_TEST_APPROXIMATION(root, "sqrt.approx.ftz")
MULTISTAGE_TEST_APPROXIMATION(th, "tanh.approx")

__global__ void approximations(const float* x, float* y, int n) {
  const int i = int(threadIdx.x);
  const float v = x[i];
  y[0 * n + i] = ex2(v);
  y[1 * n + i] = lg2(v + 2);
  y[2 * n + i] = rcp(v + 2);
  y[3 * n + i] = rsq(v + 2);
  y[4 * n + i] = root(v + 2);
  y[5 * n + i] = th(v);
  y[6 * n + i] = __expf(v);
  y[7 * n + i] = __fdividef(v, v + 2);
  y[8 * n + i] = __sinf(v) + __cosf(v);
  y[9 * n + i] = fmaf(v, v, 1.0f);
  y[10 * n + i] = __saturatef(v);
}

// --- copies that arrive later

template <int Bytes>
__device__ void copy_async(void* to, const void* from, int given) {
  const unsigned at = unsigned(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(Bytes),
               "r"(given)
               : "memory");
}

// three tiles on their way while one is summed
__global__ void pipeline(const float* x, float* y, int tiles) {
  __shared__ alignas(16) float s[4][128];
  const int i = int(threadIdx.x);
  const auto fetch = [&](int tile) {
    if (tile < tiles)
      copy_async<16>(&s[tile % 4][4 * i], x + tile * 128 + 4 * i, 16);
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  for (int tile = 0; tile < 3; ++tile)
    fetch(tile);
  float sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    asm volatile("cp.async.wait_group 2;" ::: "memory");
    __syncthreads();
    for (int k = 0; k < 4; ++k)
      sum += s[tile % 4][(4 * i + k + 37) % 128];
    fetch(tile + 3);
  }
  y[i] = sum;
}

__global__ void padded_copies(const float* x, float* y) {
  __shared__ alignas(16) float s[32][7];
  __shared__ alignas(16) float wide[32][4];
  const int i = int(threadIdx.x);
  copy_async<4>(&s[i][0], x + i, i % 2 ? 4 : 0);
  copy_async<16>(&wide[i][0], x + 4 * i, 4 * (i % 5));
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
  float sum = s[31 - i][0];
  for (int k = 0; k < 4; ++k)
    sum = 3 * sum + wide[31 - i][k];
  y[i] = sum;
}

// --- matrices

__device__ unsigned tf32(float v) {
  unsigned r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
  return r;
}

// c [16, 8] = a [16, 8] b [8, 8] + c
__global__ void multiply_tf32(const float* a, const float* b, const float* c, float* d) {
  const int lane = int(threadIdx.x);
  const int g = lane / 4;
  const int t = lane % 4;
  const unsigned a0 = tf32(a[g * 8 + t]);
  const unsigned a1 = tf32(a[(g + 8) * 8 + t]);
  const unsigned a2 = tf32(a[g * 8 + t + 4]);
  const unsigned a3 = tf32(a[(g + 8) * 8 + t + 4]);
  const unsigned b0 = tf32(b[t * 8 + g]);
  const unsigned b1 = tf32(b[(t + 4) * 8 + g]);
  float s[4] = {c[g * 8 + 2 * t], c[g * 8 + 2 * t + 1], c[(g + 8) * 8 + 2 * t],
                c[(g + 8) * 8 + 2 * t + 1]};
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  d[g * 8 + 2 * t] = s[0];
  d[g * 8 + 2 * t + 1] = s[1];
  d[(g + 8) * 8 + 2 * t] = s[2];
  d[(g + 8) * 8 + 2 * t + 1] = s[3];
}

// the same with a [16, 16] and b [16, 8] of bfloat16, fetched by ldmatrix
__global__ void multiply_bf16(const float* a, const float* b, float* d) {
  __shared__ alignas(16) unsigned short left[16][16], right[16][8];
  const int lane = int(threadIdx.x);
  const int g = lane / 4;
  const int t = lane % 4;
  const auto narrow = [](float v) {
    unsigned short r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(v));
    return r;
  };
  for (int i = lane; i < 256; i += 32)
    left[i / 16][i % 16] = narrow(a[i]);
  for (int i = lane; i < 128; i += 32)
    right[i / 8][i % 8] = narrow(b[i]);
  __syncwarp();
  unsigned x[4];
  unsigned y[2];
  const unsigned at = unsigned(__cvta_generic_to_shared(&left[lane % 16][lane / 16 * 8]));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(at));
  const unsigned from = unsigned(__cvta_generic_to_shared(&right[lane % 16][0]));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(y[0]), "=r"(y[1])
               : "r"(from));
  float s[4] = {};
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
  for (int k = 0; k < 4; ++k)
    d[(g + 8 * (k / 2)) * 8 + 2 * t + k % 2] = s[k];
}

/// Rounded to `bits` of fraction, ties away from zero.
double rounded(float v, int bits) {
  int e = 0;
  const double f = std::frexp(double(v), &e);
  return std::ldexp(std::round(std::ldexp(f, bits + 1)), e - bits - 1);
}

void test_shared() {
  const auto x = reals(4096);
  array<float> in(x), out(4096), sums(4), large(128);
  reverse<<<16, 256>>>(in, out);
  expect("a block reversed in shared memory", out.host(),
         [&](int i) { return x[std::size_t(i / 256 * 256 + 255 - i % 256)]; });
  block_sums<<<4, 128, 128 * 8>>>(in, sums, 1024);
  expect(
      "averages by a tree of barriers", sums.host(),
      [&](int b) {
        double s = 0;
        for (int i = 0; i < 1024; ++i)
          s += x[std::size_t(b * 1024 + i)];
        return s / 1024;
      },
      1e-6);
  checked(
      cudaFuncSetAttribute(large_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 80000),
      "cudaFuncSetAttribute");
  large_shared<<<1, 128, 80000>>>(large);
  expect("80000 bytes of dynamic shared memory", large.host(), [](int i) { return 19999 - i; });
  transpose<<<dim3(4, 4), dim3(16, 16)>>>(in, out, 64);
  expect("a transpose by padded tiles", out.host(),
         [&](int i) { return x[std::size_t(i % 64 * 64 + i / 64)]; });
  array<int> counted(128), named(128), local(64);
  counting_barriers<<<1, 128>>>(counted);
  expect("barriers that count", counted.host(), [](int) { return 43 * 100 + 0 + 1; });
  named_barriers<<<1, 128>>>(named);
  expect("named barriers", named.host(),
         [](int i) { return i < 64 ? 1 : (127 - i) * (127 - i); });
  std::vector<int> which(64);
  for (int i = 0; i < 64; ++i)
    which[std::size_t(i)] = i * 11 % 32;
  local_arrays<<<1, 64>>>(array<int>(which), local);
  expect("arrays of a thread across barriers", local.host(), [&](int i) {
    const int at = which[std::size_t(i)];
    return at * i + 1 + (at + 1) % 32 * i;
  });
}

void test_warps() {
  constexpr int n = 64;
  std::vector<int> x(n);
  for (int i = 0; i < n; ++i)
    x[std::size_t(i)] = i * 17 % 41;
  array<int> in(x), out(8 * n), voted(5 * n), halves(n), exchanged(n);
  shuffles<<<1, n>>>(in, out);
  expect("shuffles", out.host(), [&](int at) {
    const int i = at % n;
    const int lane = i & 31;
    const int base = i - lane;
    const int l8 = lane & 7;
    const int b8 = i - l8;
    const int from[] = {base + (i * 5 & 31),
                        lane < 3 ? i : i - 3,
                        lane > 26 ? i : i + 5,
                        base + (lane ^ 9),
                        b8 + 2,
                        l8 < 1 ? i : i - 1,
                        l8 > 6 ? i : i + 1,
                        b8 + (l8 ^ 1)};
    return x[std::size_t(from[at / n])];
  });
  votes<<<1, n>>>(in, voted);
  expect("votes", voted.host(), [&](int at) {
    const int i = at % n;
    const int base = i & ~31;
    unsigned ballot = 0;
    unsigned match = 0;
    unsigned sum = 0;
    int any = 0;
    int all = 1;
    int most = 0;
    for (int l = 0; l < 32; ++l) {
      const int v = x[std::size_t(base + l)];
      ballot |= unsigned(v > 10) << l;
      match |= unsigned(v % 4 == x[std::size_t(i)] % 4) << l;
      sum += unsigned(v);
      any |= v == 3;
      all &= v >= 0;
      most = std::max(most, v);
    }
    const int want[] = {int(ballot), any + 2 * all, int(match), int(sum), most};
    return want[at / n];
  });
  half_warps<<<1, n>>>(in, halves);
  expect("halves of a warp", halves.host(), [&](int i) {
    const int base = i & ~31;
    int sum = 0;
    unsigned even = 0;
    for (int l = 0; l < 16; ++l)
      sum += x[std::size_t(base + l)];
    for (int l = 16; l < 32; ++l)
      even |= unsigned(x[std::size_t(base + l)] % 2 == 0) << l;
    return (i & 31) < 16 ? sum : int(even);
  });
  warp_exchange<<<1, n>>>(in, exchanged);
  expect("__syncwarp", exchanged.host(), [&](int i) { return x[std::size_t(i ^ 1)] + 3; });
  const auto scores = reals(n);
  array<float> weights(scores);
  softmax<<<1, n>>>(weights);
  expect(
      "softmax by shuffles", weights.host(),
      [&](int i) {
        double s = 0;
        for (int l = 0; l < 32; ++l)
          s += std::exp(scores[std::size_t((i & ~31) + l)]);
        return std::exp(scores[std::size_t(i)]) / s;
      },
      1e-6);
  std::vector<double> d(32);
  for (int i = 0; i < 32; ++i)
    d[std::size_t(i)] = 1.0 / (i + 1);
  array<double> sums(32);
  double_sums<<<1, 32>>>(array<double>(d), sums);
  double all = 0;
  for (const double v : d)
    all += v;
  expect(
      "shuffled doubles", sums.host(), [&](int) { return all; }, 1e-15);
}

void test_atomics() {
  std::vector<int> x(512);
  for (int i = 0; i < 512; ++i)
    x[std::size_t(i)] = (i * 37 + 11) % 503 - 100;
  array<int> in(x), counts(8), most(std::vector<int>{-1000}), least(std::vector<int>{1000}),
      bits(1);
  array<float> sum(1);
  array<double> half(1);
  array<unsigned> ring(1);
  array<unsigned long long> large(1);
  atomics<<<4, 128>>>(in, counts, sum, half, most, least, ring, large, bits);
  int want_counts[8] = {};
  int total = 0;
  int want_bits = 0;
  for (const int v : x)
    ++want_counts[v & 7], total += v, want_bits |= 1 << (v & 15);
  expect("atomicAdd in shared and global memory", counts.host(),
         [&](int i) { return want_counts[i]; });
  expect("atomicAdd of float", sum.host(), [&](int) { return total; });
  expect("atomicAdd of double", half.host(), [&](int) { return total / 2.0; });
  expect("atomicMax", most.host(), [&](int) { return *std::max_element(x.begin(), x.end()); });
  expect("atomicMin", least.host(), [&](int) { return *std::min_element(x.begin(), x.end()); });
  expect("atomicInc", ring.host(), [](int) { return 512 % 10; });
  expect("atomicAdd of 64 bits", large.host(), [](int) { return 512.0 * 8589934592.0; });
  expect("atomicOr", bits.host(), [&](int) { return want_bits; });
  const auto f = reals(256);
  array<unsigned> greatest(1);
  array<int> last(1);
  swaps<<<1, 256>>>(array<float>(f), greatest, last);
  const unsigned word = greatest.host()[0];
  float got;
  std::memcpy(&got, &word, 4);
  expect("atomicCAS", std::vector<float>{got},
         [&](int) { return *std::max_element(f.begin(), f.end()); });
  expect("atomicExch", last.host(), [](int) { return 5; });
}

void test_arithmetic() {
  std::vector<float4> a(32);
  std::vector<double2> b(32);
  std::vector<uint4> c(32);
  for (int i = 0; i < 32; ++i) {
    a[std::size_t(i)] = make_float4(float(i), float(i) + 0.5f, float(-i), 2);
    b[std::size_t(i)] = make_double2(i / 3.0, i * 7.0);
    c[std::size_t(i)] = make_uint4(unsigned(i), 0xf0u, unsigned(i * i), 9);
  }
  array<float4> x(a);
  array<double2> y(b);
  array<uint2> z(32);
  wide<<<1, 32>>>(array<float4>(a), array<double2>(b), array<uint4>(c), x, y, z);
  std::vector<double> got;
  for (int i = 0; i < 32; ++i) {
    const auto at = std::size_t(i);
    for (double v : {double(x.host()[at].x), double(x.host()[at].y), y.host()[at].x,
                     y.host()[at].y, double(z.host()[at].x), double(z.host()[at].y)})
      got.push_back(v);
  }
  expect("wide loads and stores", got, [](int at) {
    const int i = at / 6;
    const double want[] = {2,           double(-i),       i * 7.0,
                           i / 3.0 + 1, double(i ^ 0xf0), double(i * i + 9)};
    return want[at % 6];
  });
  constexpr int n = 128;
  const auto v = reals(n);
  array<float> out(11 * n);
  approximations<<<1, n>>>(array<float>(v), out, n);
  expect(
      "approximations", out.host(),
      [&](int at) {
        const double u = v[std::size_t(at % n)];
        const double want[] = {std::exp2(u),
                               std::log2(u + 2),
                               1 / (u + 2),
                               1 / std::sqrt(u + 2),
                               std::sqrt(u + 2),
                               std::tanh(u),
                               std::exp(u),
                               u / (u + 2),
                               std::sin(u) + std::cos(u),
                               u * u + 1,
                               std::clamp(u, 0.0, 1.0)};
        return want[at / n];
      },
      6e-4);  // tanh.approx has 11 bits on a GPU
}

void test_copies() {
  constexpr int tiles = 9;
  const auto x = reals(tiles * 128);
  array<float> in(x), out(32), padded(32);
  pipeline<<<1, 32>>>(in, out, tiles);
  expect(
      "a pipeline of copies", out.host(),
      [&](int i) {
        double s = 0;
        for (int t = 0; t < tiles; ++t)
          for (int k = 0; k < 4; ++k)
            s += x[std::size_t(t * 128 + (4 * i + k + 37) % 128)];
        return s;
      },
      1e-5);
  padded_copies<<<1, 32>>>(in, padded);
  expect(
      "copies filled up with zeros", padded.host(),
      [&](int i) {
        const int o = 31 - i;
        double s = o % 2 ? x[std::size_t(o)] : 0;
        for (int k = 0; k < 4; ++k)
          s = 3 * s + (k < o % 5 ? x[std::size_t(4 * o + k)] : 0);
        return s;
      },
      1e-5);
}

void test_matrices() {
  const auto a = reals(256, 2);
  const auto b = reals(128, 3);
  const auto c = reals(128, 4);
  array<float> left(a), right(b), add(c), d(128), e(128);
  multiply_tf32<<<1, 32>>>(left, right, add, d);
  expect(
      "mma of tf32", d.host(),
      [&](int at) {
        double s = c[std::size_t(at)];
        for (int k = 0; k < 8; ++k)
          s += rounded(a[std::size_t(at / 8 * 8 + k)], 10) *
               rounded(b[std::size_t(k * 8 + at % 8)], 10);
        return s;
      },
      1e-6);
  multiply_bf16<<<1, 32>>>(left, right, e);
  expect(
      "ldmatrix, and mma of bfloat16", e.host(),
      [&](int at) {
        double s = 0;
        for (int k = 0; k < 16; ++k)
          s += rounded(a[std::size_t(at / 8 * 16 + k)], 7) *
               rounded(b[std::size_t(k * 8 + at % 8)], 7);
        return s;
      },
      1e-6);
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU here");
    return 77;
  }
  test_shared();
  test_warps();
  test_atomics();
  test_arithmetic();
  test_copies();
  test_matrices();
  checked(cudaDeviceSynchronize(), "at the end");
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
