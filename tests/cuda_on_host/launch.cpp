// Kernels: found by name, run thread by thread or block by block, and what they may do wrong.
#include <cxxabi.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "state.hpp"
#include "warp.hpp"

namespace emu {
namespace {

std::string demangled(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string r = status == 0 ? text : name;
  std::free(text);
  return r;
}

std::string access_text(const thread& t, uint64_t a, int n) {
  char b[320];
  std::snprintf(b, sizeof b, "%d bytes at %#llx (%s), block %u thread %u of grid %u x block %u",
                n, (unsigned long long)a, whereabouts(a).c_str(), t.ctaid[0], t.tid[0],
                t.nctaid[0], t.ntid[0]);
  return b;
}

std::string running_at(int line) {
  const kernel* k = device().running;
  return kernel_place{k ? k->entry->name : "?", line}.text();
}

[[noreturn]] void end_kernel(const std::string& what,
                             const std::string& detail,
                             cudaError_t error) {
  find(what, detail);
  stick(error);
  throw fault{};
}

/// Order of `n` things: the k-th of them.
class sequence {
 public:
  sequence(uint64_t n, turns order) : n_(n), order_(order) {
    if (order == turns::shuffled)
      for (step_ = n * 5 / 8 | 1; std::gcd(step_, n) != 1;)
        step_ += 2;
  }
  uint64_t operator()(uint64_t k) const {
    if (order_ == turns::forward)
      return k;
    if (order_ == turns::backward)
      return n_ - 1 - k;
    return uint64_t((unsigned __int128)k * step_ % n_);
  }

 private:
  uint64_t n_;
  turns order_;
  uint64_t step_ = 1;
};

void place_block(thread& t, uint64_t index, dim3 grid) {
  t.ctaid[0] = uint32_t(index % grid.x);
  t.ctaid[1] = uint32_t(index / grid.x % grid.y);
  t.ctaid[2] = uint32_t(index / grid.x / grid.y);
}

/// Threads that never meet, one after the other, whatever their block.
void run_alone(const kernel_entry& k,
               const char* parameters,
               thread t,
               dim3 grid,
               dim3 threads,
               turns order) {
  const uint64_t per = uint64_t(threads.x) * threads.y * threads.z;
  const sequence at(per * grid.x * grid.y * grid.z, order);
  const uint64_t total = per * grid.x * grid.y * grid.z;
  for (uint64_t i = 0; i < total; ++i) {
    const uint64_t which = at(i);
    const uint64_t within = which % per;
    place_block(t, which / per, grid);
    t.tid[0] = uint32_t(within % threads.x);
    t.tid[1] = uint32_t(within / threads.x % threads.y);
    t.tid[2] = uint32_t(within / threads.x / threads.y);
    t.linear = uint32_t(within);
    t.now = t.block_start = t.barrier = t.warp_sync = tick();
    t.local_first = t.local_top = local_base;
    k.run(t, parameters);
  }
}

}  // namespace

std::string brief_name(const std::string& mangled) {
  const std::string all = demangled(mangled);
  const auto at = all.find("multistage::");
  if (at == std::string::npos)
    return all.substr(0, 160);
  std::string r;
  int depth = 0;
  for (std::size_t i = at; i < all.size(); ++i) {
    if (all[i] == '<')
      ++depth;
    if (all[i] == '>' && --depth < 0)
      break;
    if (all[i] == ',' && depth == 0)
      break;
    r += all[i];
  }
  return r;
}

std::string kernel_place::text() const {
  const kernel* k = device().running;
  return brief_name(name) + " (" + (k ? k->file : "?") + ":" + std::to_string(line) + ")";
}

void run_kernel(kernel& k,
                dim3 grid,
                dim3 threads,
                uint32_t dynamic_shared,
                const std::vector<char>& parameters) {
  state& s = device();
  if (failed())
    return;
  ++k.launches;
  if (++s.launches; due(s.failing.kernel))
    return stick(cudaErrorIllegalAddress);
  const auto before = std::chrono::steady_clock::now();
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  k.threads += blocks * threads.x * threads.y * threads.z;
  alignas(64) static char buffer[4096 * 8];
  std::memcpy(buffer, parameters.data(), parameters.size());
  thread t{};
  t.ntid[0] = threads.x, t.ntid[1] = threads.y, t.ntid[2] = threads.z;
  t.nctaid[0] = grid.x, t.nctaid[1] = grid.y, t.nctaid[2] = grid.z;
  t.dynamic_shared = dynamic_shared;
  t.shared_at = k.entry->shared_end;
  t.launch_start = tick();
  s.running = &k;
  try {
    if (k.entry->meets) {
      const sequence at(blocks, s.asked.order);
      for (uint64_t i = 0; i < blocks; ++i) {
        place_block(t, at(i), grid);
        block::run(*k.entry, buffer, t, s.asked.order);
      }
    } else {
      run_alone(*k.entry, buffer, t, grid, threads, s.asked.order);
    }
  } catch (const fault&) {  // it has been told
  }
  s.running = nullptr;
  k.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - before).count();
}

kernel* kernel_of(const void* host_function) {
  state& s = device();
  const auto name = s.names.find(host_function);
  if (name == s.names.end())
    return nullptr;
  const auto k = s.kernels.find(name->second);
  if (k == s.kernels.end())
    return std::fprintf(stderr, "EMU: kernel without PTX: %s\n", name->second.c_str()), nullptr;
  return &k->second;
}

registrar::registrar(const char* file,
                     const kernel_entry* kernels,
                     int count,
                     const global_entry* globals,
                     int variables) {
  const char* slash = std::strrchr(file, '/');
  state& s = device_unready();
  for (int i = 0; i < count; ++i) {
    kernel& k = s.kernels[kernels[i].name];
    k.entry = kernels + i;
    k.file = slash ? slash + 1 : file;
  }
  s.globals.push_back({globals, variables});
}

void report_absent_lane(int line, uint32_t lane, uint32_t from) {
  find("WARP: a lane takes part alone, or reads one that is not there, " + running_at(line),
       "lane " + std::to_string(lane) + " reads lane " + std::to_string(from));
}

void thread::trap(int line) {
  end_kernel("TRAP in " + running_at(line), access_text(*this, 0, 0), cudaErrorLaunchFailure);
}
void thread::unsupported(int line) {
  end_kernel("the emulator lacks an instruction of " + running_at(line), "", cudaErrorUnknown);
}
void thread::bad(uint64_t a, int n, int line, const char* what) {
  end_kernel(std::string("ILLEGAL ADDRESS, ") + what + " in " + running_at(line),
             access_text(*this, a, n), cudaErrorIllegalAddress);
}
void thread::misaligned(uint64_t a, int n, int line) {
  end_kernel("MISALIGNED ADDRESS in " + running_at(line), access_text(*this, a, n),
             cudaErrorMisalignedAddress);
}
void thread::undefined(uint64_t a, int n, int line) {
  emu::find("UNINITIALISED load in " + running_at(line), access_text(*this, a, n));
}
void thread::race(uint64_t a, int n, int line, const char* what, uint64_t other) {
  const uint64_t who = race_tag::who(other);
  std::string name = "several threads";
  if (who < 1024)
    name = "thread " + std::to_string(who);
  if (who == race_tag::by_atomic)
    name = "an atomic operation";
  if (team && race_tag::time(other) < block_start)
    name += " of another block";
  emu::find(std::string("RACE: ") + what + ", " + running_at(line),
            access_text(*this, a, n) + "; the other: " + name);
}
void thread::zero_division(int line) {
  emu::find("INTEGER DIVISION BY ZERO in " + running_at(line), access_text(*this, 0, 0));
}

}  // namespace emu
