// Findings, the queue and the report at the end.
#include "state.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace emu {
namespace {

std::recursive_mutex& mutex() {
  static auto* m = new std::recursive_mutex;  // lives to the end: programs end in any order
  return *m;
}

uint64_t number(const char* variable, uint64_t otherwise = 0) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

options read_options() {
  options o;
  o.eager = std::getenv("EMU_EAGER");
  o.verbose = std::getenv("EMU_VERBOSE");
  o.naive_products = std::getenv("EMU_GEMM");
  if (const char* order = std::getenv("EMU_ORDER"))
    o.order = std::strcmp(order, "rev") == 0       ? turns::backward
              : std::strcmp(order, "shuffle") == 0 ? turns::shuffled
                                                   : turns::forward;
  o.architecture = int(number("EMU_SM", 80));
  o.memory = number("EMU_MEM", 12 << 10) << 20;
  return o;
}

void report_kernels(const state& s) {
  for (const auto& [name, k] : s.kernels)
    std::fprintf(stderr, "EMU: %8llu launches %12llu threads %7.2f s  %s\n",
                 (unsigned long long)k.launches, (unsigned long long)k.threads, k.seconds,
                 brief_name(name).c_str());
  for (const auto& [name, count] : s.calls)
    std::fprintf(stderr, "EMU: %8llu calls of %s\n", (unsigned long long)count, name.c_str());
}

void report() {
  const lock guard;
  flush();
  const state& s = device();
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - s.start;
  std::size_t used = 0;
  uint64_t threads = 0;
  double seconds = 0;
  for (const auto& [name, k] : s.kernels) {
    used += k.launches > 0;
    threads += k.threads;
    seconds += k.seconds;
  }
#ifdef EMU_RACE
  const char* const races = ", races checked";
#else
  const char* const races = "";
#endif
  std::fprintf(stderr,
               "EMU: %llu launches of %zu of %zu kernels, %llu threads, %.1f s; %llu products, "
               "%.2f GFLOP, %.1f s; wall %.1f s; %llu allocations, peak %.1f MiB; %s%s\n",
               (unsigned long long)s.launches, used, s.kernels.size(),
               (unsigned long long)threads, seconds, (unsigned long long)s.products,
               s.product_flop * 1e-9, s.product_seconds, wall.count(),
               (unsigned long long)s.allocations, double(s.peak) / 1048576,
               s.asked.eager ? "eager" : "lazy", races);
  if (s.used)
    std::fprintf(stderr, "EMU: %llu bytes of device memory not freed at exit\n",
                 (unsigned long long)s.used);
  if (std::getenv("EMU_KERNELS"))
    report_kernels(s);
  std::fprintf(stderr, "EMU: %zu findings\n", s.findings.size());
  for (const auto& [what, count] : s.findings)
    std::fprintf(stderr, "EMU: %10llu x %s\n", (unsigned long long)count, what.c_str());
  if (s.findings.empty())
    return;
  std::fflush(nullptr);
  std::_Exit(86);  // whatever the program says of itself
}

void place_variables(state& s) {
  for (const auto& [variables, count] : s.globals)
    for (int i = 0; i < count; ++i) {
      const global_entry& g = variables[i];
      const uint64_t a = allocate(g.size, std::max<uint64_t>(g.alignment, 16));
      void* const p = reinterpret_cast<void*>(a);
      *g.address = a;
      if (g.data)
        std::memcpy(alias(p), g.data, g.size);
      else
        std::memset(alias(p), 0, g.size);
      std::memset(shadow(p), initialised, g.size);
    }
  s.allocations = s.used = s.peak = 0;
}

}  // namespace

state& device_unready() {
  static auto* s = new state;
  return *s;
}

state& device() {
  state& s = device_unready();
  if (s.ready)
    return s;
  s.ready = true;
  s.asked = read_options();
  map_memory();
  place_variables(s);
  std::atexit(report);
  return s;
}

lock::lock() : guard_(mutex()) {}

void find(const std::string& what, const std::string& detail) {
  uint64_t& n = device().findings[what];
  if (++n == 1)
    std::fprintf(stderr, "EMU: %s: %s\n", what.c_str(), detail.c_str());
}

void stick(cudaError_t error) {
  device().sticky = error;
}
bool failed() {
  return device().sticky != cudaSuccess;
}

cudaError_t give(cudaError_t error) {
  if (error != cudaSuccess)
    device().last = error;
  return error;
}
cudaError_t stuck_error() {
  return give(device().sticky);
}

void enqueue(std::function<void()> work) {
  state& s = device();
  s.queue.push_back(std::move(work));
  if (s.asked.eager)
    flush();
}

void flush() {
  auto& queue = device().queue;
  while (!queue.empty()) {
    const auto work = std::move(queue.front());
    queue.pop_front();
    work();
  }
}

extern "C" unsigned emu_findings() {
  const lock guard;
  flush();
  return unsigned(device().findings.size());
}

extern "C" void emu_fail(const char* what, unsigned long n) {
  const lock guard;
  flush();
  failures& next = device().failing;
  next = {};
  (std::strcmp(what, "allocation") == 0 ? next.allocation
   : std::strcmp(what, "launch") == 0   ? next.launch
                                        : next.kernel) = n;
}

extern "C" unsigned emu_first_launches(unsigned long* numbers, unsigned most) {
  const lock guard;
  state& s = device();
  unsigned count = 0;
  for (auto& [name, k] : s.kernels)
    if (const uint64_t number = std::exchange(k.first_launch, 0); number > 0 && count < most)
      numbers[count++] = number - s.counted_from;
  s.counted_from = s.calls["kernel launches"];
  return count;
}

uint64_t tick() {
  static uint64_t time = 1;
  return ++time;
}

}  // namespace emu
