// Programs with a fault each, all of which the emulator must find: self_test NUMBER. Each
// states what must be found (self_test.sh reads it); the number 0 has none.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

// --- threads that know nothing of each other

__global__ void beyond(float* x, int n) {
  x[blockIdx.x * blockDim.x + threadIdx.x] = float(n);
}
__global__ void plus_one(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x] + 1;
}
__global__ void two_write(float* x) {
  x[threadIdx.x / 2] = float(threadIdx.x);
}
__global__ void write_what_is_read(float* x, float* y) {
  y[threadIdx.x] = x[(threadIdx.x + 1) % blockDim.x];
  x[threadIdx.x] = 2;
}
__global__ void misaligned(const float* x, float* y) {
  const float4 v = *reinterpret_cast<const float4*>(x + threadIdx.x);
  y[threadIdx.x] = v.x + v.w;
}
__global__ void copy(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
}

__global__ void constant_that_changes(float* y) {
  y[threadIdx.x] = 1;
  y[threadIdx.x] = __ldg(y + threadIdx.x) + 1;
}

// --- blocks

template <bool Barrier>
__global__ void reverse(const float* x, float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  if (Barrier)
    __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}
__global__ void barrier_for_some(const float* x, float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 32)
    __syncthreads();
  y[threadIdx.x] = s[threadIdx.x] + 1;
}
__global__ void two_barriers(const float* x, float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 32) {
    __syncthreads();
    y[threadIdx.x] = s[63 - threadIdx.x];
  } else {
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x - 32] * 2;
  }
}
__global__ void beyond_shared(float* y, int at) {
  __shared__ float s[64];
  __shared__ float t[64];
  s[threadIdx.x] = 1;
  t[threadIdx.x] = 2;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x + at] + t[63 - threadIdx.x];
}
__global__ void undefined_shared(float* y) {
  __shared__ float s[64];
  if (threadIdx.x != 5)
    s[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}
// the barrier at the loop's end is missing: the next round writes what others still read
__global__ void rounds(const float* x, float* y) {
  __shared__ float s[64];
  float sum = 0;
  for (int k = 0; k < 4; ++k) {
    s[threadIdx.x] = x[threadIdx.x] * float(k);
    __syncthreads();
    sum += s[63 - threadIdx.x];
  }
  y[threadIdx.x] = sum;
}
__global__ void beyond_dynamic(float* y) {
  extern __shared__ float d[];
  d[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = d[63 - threadIdx.x];
}
__global__ void blocks_meet(float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = y[0];
  __syncthreads();
  if (threadIdx.x == 0)
    y[0] = s[31] + 1;
}
__global__ void atomic_and_plain(int* y) {
  atomicAdd(y, 1);
  if (threadIdx.x == 3)
    y[1] = y[0];
}

// --- warps

__global__ void warp_without_sync(const float* x, float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = s[threadIdx.x ^ 1];
}
// a shuffle tells what was read, but nothing of what was written
__global__ void warp_by_shuffle(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
  const int there = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 1);
  y[threadIdx.x] += y[there];
}
__global__ void shuffle_for_some(const float* x, float* y) {
  float v = x[threadIdx.x];
  if (threadIdx.x % 32 < 16)
    v += __shfl_xor_sync(0xffffffffu, v, 1);
  __syncthreads();
  y[threadIdx.x] = v;
}
__global__ void shuffle_from_nobody(const float* x, float* y) {
  float v = x[threadIdx.x];
  if (threadIdx.x % 32 < 16)
    v += __shfl_xor_sync(0x0000ffffu, v, 16);
  y[threadIdx.x] = v;
}

// --- copies that arrive later

template <bool Wait>
__global__ void late(const float* x, float* y) {
  __shared__ alignas(16) float s[256];
  s[threadIdx.x] = 0;
  const unsigned at = unsigned(__cvta_generic_to_shared(s + 4 * threadIdx.x));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(x) : "memory");
  asm volatile("cp.async.commit_group;" ::: "memory");
  if (Wait)
    asm volatile("cp.async.wait_group 0;" ::: "memory");
  y[threadIdx.x] = s[4 * threadIdx.x];
}
__global__ void late_for_others(const float* x, float* y) {
  __shared__ alignas(16) float s[256];
  const unsigned at = unsigned(__cvta_generic_to_shared(s + 4 * threadIdx.x));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(x) : "memory");
  asm volatile("cp.async.wait_all;" ::: "memory");
  y[threadIdx.x] = s[252 - 4 * threadIdx.x];  // no barrier
}

int main(int, char** argv) {
  const int number = std::atoi(argv[1]);
  float* x = nullptr;
  float* y = nullptr;
  float host[64] = {};
  cudaMalloc(&x, sizeof host);
  cudaMalloc(&y, sizeof host);
  if (number != 2)
    cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice);
  cudaMemset(y, 0, sizeof host);
  switch (number) {
    case 0:
      reverse<true><<<1, 64>>>(x, y);
      break;
    case 1:  // finds: ILLEGAL ADDRESS, store in beyond
      beyond<<<1, 65>>>(x, 3);
      break;
    case 2:  // finds: UNINITIALISED load in plus_one
      plus_one<<<1, 64>>>(x, y);
      break;
    case 3:  // finds: RACE: writes what another thread of this kernel wrote, two_write
      two_write<<<1, 64>>>(x);
      break;
    case 4:  // finds: RACE: writes what another thread of this kernel read, write_what_is_read
      write_what_is_read<<<1, 64>>>(x, y);
      break;
    case 5:  // finds: MISALIGNED ADDRESS in misaligned
      misaligned<<<1, 2>>>(x, y);
      break;
    case 6:  // finds: ILLEGAL ADDRESS, load in copy
      copy<<<1, 64>>>(host, y);
      break;
    case 7:  // finds: ILLEGAL ADDRESS, load in copy
      cudaFree(x);
      copy<<<1, 64>>>(x, y);
      break;
    case 8:  // finds: INVALID CONFIGURATION of beyond
      beyond<<<1, 1025>>>(x, 1);
      break;
    case 9:  // finds: Segmentation fault
      std::printf("%f\n", x[0]);
      break;
    case 10:  // finds: RACE: reads what another thread of this kernel wrote, void reverse
      reverse<false><<<1, 64>>>(x, y);
      break;
    case 11:  // finds: DIVERGENT BARRIER: some threads of the block have ended,
              // barrier_for_some
      barrier_for_some<<<1, 64>>>(x, y);
      break;
    case 12:  // finds: DIVERGENT BARRIER: threads of a block meet at different ones,
              // two_barriers
      two_barriers<<<1, 64>>>(x, y);
      break;
    case 13:  // finds: ILLEGAL ADDRESS, load in beyond_shared
      beyond_shared<<<1, 64>>>(y, 4);
      break;
    case 14:  // finds: UNINITIALISED load in undefined_shared
      undefined_shared<<<1, 64>>>(y);
      break;
    case 15:  // finds: RACE: writes what another thread of this kernel read, rounds
      rounds<<<1, 64>>>(x, y);
      break;
    case 16:  // finds: ILLEGAL ADDRESS, store in beyond_dynamic
      beyond_dynamic<<<1, 64, 63 * 4>>>(y);
      break;
    case 17:  // finds: MORE SHARED MEMORY than allowed in beyond_dynamic
      beyond_dynamic<<<1, 64, 50000>>>(y);
      break;
    case 18:  // finds: RACE: reads what another thread of this kernel wrote, blocks_meet
      blocks_meet<<<2, 32>>>(y);
      break;
    case 19:  // finds: RACE: reads what another thread of this kernel wrote, atomic_and_plain
      atomic_and_plain<<<1, 64>>>(reinterpret_cast<int*>(y));
      break;
    case 20:  // finds: RACE: reads what another thread of this kernel wrote, warp_without_sync
      warp_without_sync<<<1, 64>>>(x, y);
      break;
    case 21:  // finds: DEADLOCK, divergent threads of a block wait for each other
      shuffle_for_some<<<1, 64>>>(x, y);
      break;
    case 22:  // finds: WARP: a lane takes part alone, or reads one that is not there
      shuffle_from_nobody<<<1, 64>>>(x, y);
      break;
    case 23:  // finds: UNINITIALISED load in void late
      late<false><<<1, 32>>>(x, y);
      break;
    case 24:  // finds: RACE: writes what another thread of this kernel wrote, void late
      late<true><<<1, 32>>>(x, y);
      break;
    case 25:  // finds: RACE: reads what another thread of this kernel wrote, late_for_others
      late_for_others<<<1, 64>>>(x, y);
      break;
    case 26:  // finds: RACE: reads by ld.global.nc what this kernel wrote,
              // constant_that_changes
      constant_that_changes<<<1, 64>>>(y);
      break;
    case 27:  // finds: RACE: reads what another thread of this kernel wrote, warp_by_shuffle
      warp_by_shuffle<<<1, 64>>>(x, y);
      break;
    default:
      return 1;
  }
  std::printf("%d: launch %s\n", number, cudaGetErrorName(cudaPeekAtLastError()));
  std::printf("%d: end %s\n", number, cudaGetErrorName(cudaDeviceSynchronize()));
  std::fflush(stdout);
}
