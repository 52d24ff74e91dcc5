// The emulated device: what is allocated, what is queued, what was found.
#pragma once
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "block.hpp"
#include "thread.hpp"

namespace emu {

struct kernel {
  const kernel_entry* entry = nullptr;
  const char* file = "";
  uint64_t launches = 0;
  uint64_t first_launch = 0;  ///< its number among the launches of all kernels
  uint64_t threads = 0;
  double seconds = 0;
  uint32_t most_dynamic_shared = 48 * 1024;
};

/// What the environment asks for (README.md), read when the device is first used.
struct options {
  bool eager = false;
  bool verbose = false;
  bool naive_products = false;
  turns order = turns::forward;
  int architecture = 80;
  uint64_t memory = 12ull << 30;
};

/// What is to fail, counted from the moment it was asked for (emu_fail); 0 is never.
struct failures {
  uint64_t allocation = 0;
  uint64_t launch = 0;  ///< is refused
  uint64_t kernel = 0;  ///< faults as it runs, which loses the device
};
/// Whether it is the turn of a failure.
inline bool due(uint64_t& countdown) {
  return countdown > 0 && --countdown == 0;
}

struct state {
  std::map<std::string, kernel> kernels;
  std::vector<std::pair<const global_entry*, int>> globals;
  std::map<const void*, std::string> names;  ///< of kernels by the host's function
  std::map<uint64_t, uint64_t> live;         ///< address and bytes
  std::map<uint64_t, uint64_t> freed;
  std::deque<std::function<void()>> queue;
  std::map<std::string, uint64_t> findings;
  std::map<std::string, uint64_t> calls;
  options asked;
  failures failing;
  bool ready = false;
  int file = -1;  ///< the memory, mapped twice
  uint64_t next_address = global_base + 4096;
  uint64_t used = 0;
  uint64_t peak = 0;
  uint64_t allocations = 0;
  uint64_t launches = 0;
  uint64_t counted_from = 0;  ///< launches before emu_first_launches was called last
  cudaError_t sticky = cudaSuccess;
  cudaError_t last = cudaSuccess;
  const kernel* running = nullptr;
  uint64_t products = 0;
  double product_seconds = 0;
  double product_flop = 0;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
};

/// The one device, ready to be used. `device_unready` is for what runs before main.
state& device();
state& device_unready();

/// All of the runtime runs under one lock.
class lock {
 public:
  lock();

 private:
  std::lock_guard<std::recursive_mutex> guard_;
};

/// Counts a fault of the program, and prints it when it is the first of its kind.
void find(const std::string& what, const std::string& detail);
/// An error that stays, as those of a kernel do.
void stick(cudaError_t error);
bool failed();
/// Remembers an error as the last one, and returns it.
cudaError_t give(cudaError_t error);
/// What has stuck, given.
cudaError_t stuck_error();

/// Queues what the device does; it is done as late as the runtime allows.
void enqueue(std::function<void()> work);
void flush();

// memory.cpp
uint64_t allocate(uint64_t bytes, uint64_t alignment);
void release(uint64_t address);
void map_memory();
bool on_device(const void* p);
bool in_allocation(const void* p, uint64_t bytes);
std::string whereabouts(uint64_t address);
inline char* alias(const void* p) {
  return reinterpret_cast<char*>(global_alias + reinterpret_cast<uint64_t>(p) - global_base);
}
inline unsigned char* shadow(const void* p) {
  return reinterpret_cast<unsigned char*>(global_shadow + reinterpret_cast<uint64_t>(p) -
                                          global_base);
}

// launch.cpp
struct kernel_place {
  const char* name;
  int line;
  std::string text() const;
};
std::string brief_name(const std::string& mangled);
void run_kernel(kernel& k,
                dim3 grid,
                dim3 threads,
                uint32_t dynamic_shared,
                const std::vector<char>& parameters);
kernel* kernel_of(const void* host_function);

}  // namespace emu
