// The device's memory: one file mapped twice, at addresses that the host may not touch and at
// those of the emulator; no address is given out twice.
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "state.hpp"

namespace emu {
namespace {

void reserve(uint64_t at, uint64_t bytes, int rights, int flags, int file) {
  void* const want = reinterpret_cast<void*>(at);
  void* got = mmap(want, bytes, rights, flags | MAP_FIXED_NOREPLACE | MAP_NORESERVE, file, 0);
  if (got != want)
    std::perror("emu: mmap"), std::abort();
}

int new_file() {
  const int file = memfd_create("device", 0);
  if (file < 0 || ftruncate(file, off_t(global_size)) != 0)
    std::perror("emu: memory"), std::abort();
  return file;
}

/// A child of fork() goes on with a device of its own, in the state of its parent's.
void copy_for_child() {
  state& s = device_unready();
  const int file = new_file();
  for (const auto& [a, bytes] : s.live) {
    const char* const from = alias(reinterpret_cast<const void*>(a));
    if (pwrite(file, from, bytes, off_t(a - global_base)) != ssize_t(bytes))
      std::perror("emu: pwrite"), std::abort();
  }
  void* const seen = reinterpret_cast<void*>(global_base);
  void* const own = reinterpret_cast<void*>(global_alias);
  constexpr int flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
  if (mmap(seen, global_size, PROT_NONE, flags, file, 0) == MAP_FAILED ||
      mmap(own, global_size, PROT_READ | PROT_WRITE, flags, file, 0) == MAP_FAILED)
    std::perror("emu: mmap"), std::abort();
  close(s.file);
  s.file = file;
}

void reserve_private(uint64_t at, uint64_t bytes) {
  reserve(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

}  // namespace

void map_memory() {
  state& s = device_unready();
  s.file = new_file();
  pthread_atfork(nullptr, nullptr, copy_for_child);
  reserve(global_base, global_size, PROT_NONE, MAP_SHARED, s.file);
  reserve(global_alias, global_size, PROT_READ | PROT_WRITE, MAP_SHARED, s.file);
  reserve_private(global_shadow, global_size);
  reserve_private(global_tags, global_size / 4 * sizeof(access_tags));
  reserve_private(local_base, local_size);
  reserve_private(local_shadow, local_size);
  reserve_private(shared_base, shared_size);
  reserve_private(shared_shadow, shared_size);
  reserve_private(shared_tags, shared_size / 4 * sizeof(access_tags));
}

uint64_t allocate(uint64_t bytes, uint64_t alignment) {
  constexpr uint64_t guard = 4096;  // at least so many bytes lie between any two
  state& s = device_unready();
  const uint64_t a = (s.next_address + alignment - 1) / alignment * alignment;
  s.next_address = (a + bytes + guard + 255) / 256 * 256;
  if (s.next_address > global_base + global_size)
    std::fprintf(stderr, "emu: out of addresses\n"), std::abort();
  void* const p = reinterpret_cast<void*>(a);
  std::memset(shadow(p), uninitialised, bytes);
  std::memset(alias(p), 0xff, bytes);
  s.live[a] = bytes;
  s.used += bytes;
  s.peak = std::max(s.peak, s.used);
  ++s.allocations;
  return a;
}

void release(uint64_t a) {
  constexpr uint64_t page = 4096;
  state& s = device();
  const auto it = s.live.find(a);
  const uint64_t bytes = it->second;
  s.freed[a] = bytes;
  s.live.erase(it);
  s.used -= bytes;
  std::memset(shadow(reinterpret_cast<void*>(a)), not_allocated, bytes);
  const uint64_t first = (a - global_base + page - 1) / page * page;
  const uint64_t last = (a - global_base + bytes) / page * page;
  if (last <= first)
    return;
  const uint64_t n = last - first;
  fallocate(s.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off_t(first), off_t(n));
  madvise(reinterpret_cast<void*>(global_shadow + first), n, MADV_DONTNEED);
  madvise(reinterpret_cast<void*>(global_tags + 4 * first), 4 * n, MADV_DONTNEED);
}

bool on_device(const void* p) {
  return reinterpret_cast<uint64_t>(p) - global_base < global_size;
}

bool in_allocation(const void* p, uint64_t bytes) {
  const state& s = device();
  const uint64_t a = reinterpret_cast<uint64_t>(p);
  auto it = s.live.upper_bound(a);
  if (!on_device(p) || it == s.live.begin())
    return false;
  --it;
  return a + bytes <= it->first + it->second;
}

std::string whereabouts(uint64_t a) {
  const state& s = device();
  if (a - shared_base < shared_size)
    return "byte " + std::to_string(a - shared_base) + " of shared memory";
  if (a - local_base < local_size)
    return "local memory of a thread";
  const auto in = [&](const std::map<uint64_t, uint64_t>& m, const char* kind) -> std::string {
    auto it = m.upper_bound(a);
    if (it == m.begin())
      return "";
    --it;
    if (a >= it->first + it->second + 4096)
      return "";
    return std::string(kind) + " allocation of " + std::to_string(it->second) +
           " bytes, at byte " + std::to_string(a - it->first);
  };
  std::string r = in(s.live, "live");
  if (r.empty())
    r = in(s.freed, "freed");
  if (!r.empty())
    return r;
  return on_device(reinterpret_cast<void*>(a)) ? "no allocation" : "not a device address";
}

}  // namespace emu
