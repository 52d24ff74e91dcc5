// The functions of libcudart that programs call, and those that nvcc's code calls.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "state.hpp"

using emu::device;
using emu::give;

namespace {

struct configuration {
  dim3 grid;
  dim3 block;
  std::size_t shared;
  void* stream;
};

std::vector<configuration>& configurations() {
  static thread_local std::vector<configuration> s;
  return s;
}

struct error_text {
  cudaError_t error;
  const char* name;
  const char* text;
};
constexpr error_text error_texts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction",
     "invalid device function"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout",
     "the launch timed out and was terminated"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"}};

const error_text& text_of(cudaError_t error) {
  static constexpr error_text unknown{cudaErrorUnknown, "cudaErrorUnknown", "unknown error"};
  for (const error_text& t : error_texts)
    if (t.error == error)
      return t;
  return unknown;
}

uint32_t most_shared() {
  return device().asked.architecture >= 90 ? 227 * 1024 : 163 * 1024;
}

/// Shared memory that a kernel declares by itself.
uint32_t static_shared(const emu::kernel& k) {
  uint32_t bytes = 0;
  for (int i = 0; i < k.entry->shared_variables; ++i)
    bytes += k.entry->shared[i].size;
  return bytes;
}

/// Whether the kernel can be launched so.
cudaError_t check_launch(const emu::kernel& k, dim3 grid, dim3 block, std::size_t shared) {
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  const int* most = k.entry->most_threads;
  const std::string name = emu::brief_name(k.entry->name);
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535 || !block.x || !block.y || !block.z || threads > 1024 || block.z > 64) {
    emu::find("INVALID CONFIGURATION of " + name,
              std::to_string(grid.x) + " x " + std::to_string(block.x));
    return cudaErrorInvalidConfiguration;
  }
  if (threads > uint64_t(most[0]) * most[1] * most[2]) {
    emu::find("MORE THREADS THAN maxntid in " + name, std::to_string(threads));
    return cudaErrorLaunchOutOfResources;
  }
  if (shared > k.most_dynamic_shared || shared + static_shared(k) > most_shared()) {
    emu::find("MORE SHARED MEMORY than allowed in " + name, std::to_string(shared) + " bytes");
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

/// Whether `kind` says what the two addresses are.
bool kind_fits(cudaMemcpyKind kind, bool to_device, bool from_device) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
      return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
      return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
      return to_device && from_device;
    default:
      return true;
  }
}

void copy_on_device(void* to, const void* from, std::size_t n) {
  const auto a = reinterpret_cast<uint64_t>(to);
  const auto b = reinterpret_cast<uint64_t>(from);
  if (a < b + n && b < a + n)
    emu::find("cudaMemcpyAsync: the regions OVERLAP", std::to_string(n));
  emu::enqueue([=] {
    if (emu::failed())
      return;
    if (std::memchr(emu::shadow(from), emu::uninitialised, n))
      emu::find("UNINITIALISED bytes copied from device to device", emu::whereabouts(b));
    std::memmove(emu::alias(to), emu::alias(from), n);
    std::memcpy(emu::shadow(to), emu::shadow(from), n);
  });
}

}  // namespace

extern "C" {

// --- what nvcc's code calls

void** __cudaRegisterFatBinary(void*) {
  static void* handle[4];
  return handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**,
                            const char* host,
                            char*,
                            const char* name,
                            int,
                            uint3*,
                            uint3*,
                            dim3*,
                            dim3*,
                            int*) {
  emu::device_unready().names[host] = name;
}

unsigned __cudaPushCallConfiguration(dim3 grid,
                                     dim3 block,
                                     size_t shared,
                                     struct CUstream_st* stream) {
  configurations().push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (configurations().empty())
    return cudaErrorMissingConfiguration;
  const configuration c = configurations().back();
  configurations().pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<void**>(stream) = c.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* k, const void* host) {
  const emu::lock guard;
  *k = reinterpret_cast<cudaKernel_t>(emu::kernel_of(host));
  return *k ? cudaSuccess : cudaErrorInvalidDeviceFunction;
}

// --- launches

cudaError_t __cudaLaunchKernel(cudaKernel_t handle,
                               dim3 grid,
                               dim3 block,
                               void** arguments,
                               size_t shared,
                               cudaStream_t) {
  const emu::lock guard;
  emu::state& s = device();
  const uint64_t number = ++s.calls["kernel launches"];
  if (emu::due(s.failing.launch) && !s.sticky)
    return give(cudaErrorLaunchOutOfResources);
  if (s.sticky)
    return give(s.sticky);
  auto* k = reinterpret_cast<emu::kernel*>(handle);
  if (!k)
    return give(cudaErrorInvalidDeviceFunction);
  if (k->first_launch == 0)
    k->first_launch = number;
  if (const cudaError_t e = check_launch(*k, grid, block, shared))
    return give(e);
  std::vector<char> parameters(std::size_t(k->entry->parameter_bytes));
  for (int i = 0; i < k->entry->parameters; ++i) {
    const emu::parameter_layout& at = k->entry->layout[i];
    std::memcpy(parameters.data() + at.offset, arguments[i], std::size_t(at.size));
  }
  if (s.asked.verbose)
    std::fprintf(stderr, "EMU: launch %s grid %u block %u\n",
                 emu::brief_name(k->entry->name).c_str(), grid.x, block.x);
  emu::enqueue([=, parameters = std::move(parameters)] {
    emu::run_kernel(*k, grid, block, uint32_t(shared), parameters);
  });
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t k,
                                    dim3 grid,
                                    dim3 block,
                                    void** arguments,
                                    size_t shared,
                                    cudaStream_t stream) {
  return __cudaLaunchKernel(k, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernel(const void* host,
                             dim3 grid,
                             dim3 block,
                             void** arguments,
                             size_t shared,
                             cudaStream_t stream) {
  cudaKernel_t k;
  if (const cudaError_t e = __cudaGetKernel(&k, host))
    return give(e);
  return __cudaLaunchKernel(k, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c,
                                const void* host,
                                void** arguments) {
  return cudaLaunchKernel(host, c->gridDim, c->blockDim, arguments, c->dynamicSmemBytes,
                          c->stream);
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* host) {
  const emu::lock guard;
  const emu::kernel* k = emu::kernel_of(host);
  if (!k)
    return give(cudaErrorInvalidDeviceFunction);
  *a = cudaFuncAttributes{};
  a->ptxVersion = a->binaryVersion = device().asked.architecture;
  a->maxThreadsPerBlock = k->entry->most_threads[0];
  a->numRegs = 32;
  a->sharedSizeBytes = static_shared(*k);
  a->maxDynamicSharedSizeBytes = int(k->most_dynamic_shared);
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  const emu::lock guard;
  emu::kernel* k = emu::kernel_of(host);
  if (!k)
    return give(cudaErrorInvalidDeviceFunction);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
    return cudaSuccess;
  if (value < 0 || uint32_t(value) + static_shared(*k) > most_shared())
    return give(cudaErrorInvalidValue);
  k->most_dynamic_shared = uint32_t(value);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks,
                                                                   const void*,
                                                                   int threads,
                                                                   size_t,
                                                                   unsigned) {
  *blocks = threads > 0 ? 2048 / threads : 0;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks,
                                                          const void* f,
                                                          int threads,
                                                          size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, f, threads, shared, 0);
}

// --- errors

cudaError_t cudaGetLastError() {
  const emu::lock guard;
  emu::state& s = device();
  const cudaError_t e = s.sticky ? s.sticky : s.last;
  s.last = cudaSuccess;
  return e;
}
cudaError_t cudaPeekAtLastError() {
  const emu::lock guard;
  return device().sticky ? device().sticky : device().last;
}
const char* cudaGetErrorString(cudaError_t e) {
  return text_of(e).text;
}
const char* cudaGetErrorName(cudaError_t e) {
  return text_of(e).name;
}

// --- the device, streams and events: one device, and one order of all work

cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* d) {
  *d = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int d) {
  return d == 0 ? cudaSuccess : give(cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const emu::lock guard;
  const int architecture = device().asked.architecture;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = architecture / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = architecture % 10;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = 108;
      break;
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      break;
    case cudaDevAttrWarpSize:
      *value = 32;
      break;
    case cudaDevAttrMaxGridDimX:
      *value = 0x7fffffff;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = 48 * 1024;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(most_shared());
      break;
    default:
      *value = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  const emu::lock guard;
  *p = cudaDeviceProp{};
  std::strcpy(p->name, "no GPU: a CPU that looks like one");
  p->major = device().asked.architecture / 10;
  p->minor = device().asked.architecture % 10;
  p->totalGlobalMem = device().asked.memory;
  p->sharedMemPerBlock = 48 * 1024;
  p->sharedMemPerBlockOptin = most_shared();
  p->sharedMemPerMultiprocessor = most_shared() + 1024;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->multiProcessorCount = 108;
  p->regsPerBlock = 65536;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  const emu::lock guard;
  ++device().calls["cudaDeviceSynchronize"];
  emu::flush();
  return emu::stuck_error();
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  const emu::lock guard;
  ++device().calls["cudaStreamSynchronize"];
  emu::flush();
  return emu::stuck_error();
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = static_cast<cudaStream_t>(std::malloc(1));
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, 0);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::free(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = static_cast<cudaEvent_t>(std::malloc(1));
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return cudaDeviceSynchronize();
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 0;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  std::free(event);
  return cudaSuccess;
}

// --- memory

cudaError_t cudaMemGetInfo(size_t* left, size_t* all) {
  const emu::lock guard;
  *all = device().asked.memory;
  *left = *all - device().used;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, size_t n) {
  const emu::lock guard;
  emu::state& s = device();
  ++s.calls["cudaMalloc"];
  const bool fails = emu::due(s.failing.allocation);
  if (s.sticky)
    return give(s.sticky);
  *p = nullptr;
  if (n == 0)
    return cudaSuccess;
  if (fails || n > s.asked.memory || s.used + n > s.asked.memory)
    return give(cudaErrorMemoryAllocation);
  *p = reinterpret_cast<void*>(emu::allocate(n, 256));
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  const emu::lock guard;
  emu::state& s = device();
  ++s.calls["cudaFree"];
  emu::flush();
  if (!p)
    return emu::stuck_error();
  const auto a = reinterpret_cast<uint64_t>(p);
  if (!s.live.count(a)) {
    emu::find("cudaFree of what is not allocated", emu::whereabouts(a));
    return give(cudaErrorInvalidValue);
  }
  emu::release(a);
  return emu::stuck_error();
}
cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t) {
  return cudaMalloc(p, n);
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t) {
  return cudaFree(p);
}
cudaError_t cudaMallocHost(void** p, size_t n) {
  *p = std::malloc(n);
  return *p ? cudaSuccess : give(cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void* p) {
  std::free(p);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to,
                            const void* from,
                            size_t n,
                            cudaMemcpyKind kind,
                            cudaStream_t) {
  const emu::lock guard;
  emu::state& s = device();
  ++s.calls["cudaMemcpyAsync kind " + std::to_string(int(kind))];
  if (s.sticky)
    return give(s.sticky);
  if (n == 0)
    return cudaSuccess;
  const bool to_device = emu::on_device(to);
  const bool from_device = emu::on_device(from);
  if (!kind_fits(kind, to_device, from_device) || (to_device && !emu::in_allocation(to, n)) ||
      (from_device && !emu::in_allocation(from, n))) {
    emu::find("cudaMemcpyAsync: INVALID VALUE",
              "kind " + std::to_string(int(kind)) + ", " + std::to_string(n) + " bytes, to " +
                  emu::whereabouts(reinterpret_cast<uint64_t>(to)) + ", from " +
                  emu::whereabouts(reinterpret_cast<uint64_t>(from)));
    return give(cudaErrorInvalidValue);
  }
  if (to_device && from_device)
    return copy_on_device(to, from, n), cudaSuccess;
  emu::flush();
  if (s.sticky)
    return give(s.sticky);
  if (to_device) {
    std::memcpy(emu::alias(to), from, n);
    std::memset(emu::shadow(to), emu::initialised, n);
  } else if (from_device) {
    if (std::memchr(emu::shadow(from), emu::uninitialised, n))
      emu::find("UNINITIALISED bytes copied to the host",
                emu::whereabouts(reinterpret_cast<uint64_t>(from)) + ", " + std::to_string(n) +
                    " bytes");
    std::memcpy(to, emu::alias(from), n);
  } else {
    std::memmove(to, from, n);
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind kind) {
  const emu::lock guard;
  const cudaError_t e = cudaMemcpyAsync(to, from, n, kind, nullptr);
  emu::flush();
  return e ? e : emu::stuck_error();
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t n, cudaStream_t) {
  const emu::lock guard;
  if (device().sticky)
    return give(device().sticky);
  if (n > 0 && !emu::in_allocation(p, n)) {
    emu::find(
        "cudaMemsetAsync: INVALID VALUE",
        std::to_string(n) + " bytes at " + emu::whereabouts(reinterpret_cast<uint64_t>(p)));
    return give(cudaErrorInvalidValue);
  }
  emu::enqueue([=] {
    if (emu::failed())
      return;
    std::memset(emu::alias(p), value, n);
    std::memset(emu::shadow(p), emu::initialised, n);
  });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* p, int value, size_t n) {
  return cudaMemsetAsync(p, value, n, nullptr);
}

}  // extern "C"
