// The memory of the emulated device: where its spaces lie, and what is known of each byte.
#pragma once
#include <cstdint>
#include <cstring>

namespace emu {

/// Addresses of the device. The host has no rights there, so that a host read of one ends the
/// program; `alias` is the same memory for the emulator.
constexpr uint64_t global_base = 0x100000000000ull;
constexpr uint64_t global_size = 1ull << 42;
constexpr uint64_t global_alias = 0x180000000000ull;
constexpr uint64_t global_shadow = 0x200000000000ull;
constexpr uint64_t global_tags = 0x300000000000ull;

/// Local memory: a stack a thread of the running block.
constexpr uint64_t local_base = 0x480000000000ull;
constexpr uint64_t local_per_thread = 1 << 16;
constexpr uint64_t local_size = 1024 * local_per_thread;
constexpr uint64_t local_shadow = 0x490000000000ull;

/// Shared memory of the running block. An address of the shared space is an offset from here.
constexpr uint64_t shared_base = 0x4a0000000000ull;
constexpr uint64_t shared_size = 1 << 20;
constexpr uint64_t shared_shadow = 0x4b0000000000ull;
constexpr uint64_t shared_tags = 0x4c0000000000ull;

/// What the shadow says of a byte.
enum byte_state : unsigned char { not_allocated = 0, uninitialised = 1, initialised = 2 };

/// Who touched four bytes last (race_tag.hpp).
struct access_tags {
  uint64_t writer;
  uint64_t reader;
};

/// Whether N bytes of a shadow are all `state`.
template <int N>
inline bool all_are(const unsigned char* shadow, unsigned char state) {
  if constexpr (N == 1) {
    return shadow[0] == state;
  } else if constexpr (N == 2) {
    uint16_t word;
    std::memcpy(&word, shadow, 2);
    return word == 0x0101u * state;
  } else if constexpr (N == 4) {
    uint32_t word;
    std::memcpy(&word, shadow, 4);
    return word == 0x01010101u * state;
  } else if constexpr (N == 8) {
    uint64_t word;
    std::memcpy(&word, shadow, 8);
    return word == 0x0101010101010101ull * state;
  } else {
    return all_are<8>(shadow, state) && all_are<N - 8>(shadow + 8, state);
  }
}

}  // namespace emu
