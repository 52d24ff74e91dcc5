// A thread of a kernel: its place in the grid, and every access to memory it makes, checked.
#pragma once
#include <cstdint>
#include <cstring>

#include "memory.hpp"

namespace emu {

/// Thrown where a device would stop the kernel.
struct fault {};
class block;

/// The state spaces of PTX, as template arguments.
enum space { global_space, local_space, generic_space, shared_space };

/// When a thread touched memory, in one word: a clock that every launch, block and barrier
/// advances, and who: a thread of the block, or one of these.
struct race_tag {
  static constexpr int who_bits = 11;
  static constexpr uint64_t who_mask = (1 << who_bits) - 1;
  static constexpr uint64_t several_threads = 1024;
  static constexpr uint64_t several_blocks = 1025;
  static constexpr uint64_t by_atomic = 1026;
  static constexpr uint64_t several_of_warp = 1056;  ///< plus the warp
  static constexpr uint64_t make(uint64_t time, uint64_t who) {
    return time << who_bits | who;
  }
  static constexpr uint64_t time(uint64_t tag) {
    return tag >> who_bits;
  }
  static constexpr uint64_t who(uint64_t tag) {
    return tag & who_mask;
  }
};

struct thread {
  uint32_t tid[3];
  uint32_t ntid[3];
  uint32_t ctaid[3];
  uint32_t nctaid[3];
  uint32_t linear;          ///< of the thread in its block
  uint32_t dynamic_shared;  ///< bytes
  uint64_t shared_at;       ///< where dynamic shared memory starts, in the shared space
  block* team;              ///< null in kernels whose threads never meet

  // what is known to have happened before, for races
  uint64_t now;           ///< the thread's time
  uint64_t launch_start;  ///< what is older was done by an earlier kernel or copy
  uint64_t block_start;   ///< what is older was done by another block
  uint64_t barrier;       ///< what is older was done before the block's last barrier
  uint64_t warp_sync;     ///< likewise for the lanes of warp_mask
  uint32_t warp_mask;
  uint64_t warp_met;  ///< what the lanes of met_mask had read before they last did something
                      ///< together
  uint32_t met_mask;

  uint64_t local_first;
  uint64_t local_top;

  [[noreturn]] void trap(int line);
  [[noreturn]] void unsupported(int line);
  /// An illegal address: ends the kernel.
  [[noreturn, gnu::cold, gnu::noinline]] void bad(uint64_t a,
                                                  int n,
                                                  int line,
                                                  const char* what);
  [[noreturn, gnu::cold, gnu::noinline]] void misaligned(uint64_t a, int n, int line);
  /// These are reported and go on.
  [[gnu::cold, gnu::noinline]] void undefined(uint64_t a, int n, int line);
  [[gnu::cold, gnu::noinline]] void race(uint64_t a,
                                         int n,
                                         int line,
                                         const char* what,
                                         uint64_t other);
  [[gnu::cold, gnu::noinline]] void zero_division(int line);

  void check_parameter(const char* p, int size, uint64_t a, int n, int line) {
    if (a < uint64_t(p) || a + n > uint64_t(p) + size)
      bad(a, n, line, "parameter space");
  }

  uint32_t lane() const {
    return linear & 31;
  }
  uint32_t warp() const {
    return linear / 32;
  }

  /// Where N bytes at `a` can be read by the emulator.
  template <int Space, int Size, int Count>
  const char* load(uint64_t a, int line) {
    constexpr int n = Size * Count;
    if (a % n != 0) [[unlikely]]
      misaligned(a, n, line);
    const place at = find<Space>(a, n, line, "load");
    if (!all_are<n>(at.shadow, initialised)) [[unlikely]] {
      for (int i = 0; i < n; ++i)
        if (at.shadow[i] == not_allocated)
          bad(a, n, line, "load");
      undefined(a, n, line);
    }
#ifdef EMU_RACE
    if constexpr (Size >= 4)
      if (at.tags)
        for (int i = 0; i < n / 4; ++i)
          note_read(at.tags[i], at.of_block, a, n, line);
#endif
    return at.bytes;
  }
  /// The same for ld.global.nc, which may read what was there before the kernel.
  template <int Size, int Count>
  const char* load_constant(uint64_t a, int line) {
#ifdef EMU_RACE
    if (a - global_base < global_size) {
      const auto* tags = reinterpret_cast<access_tags*>(global_tags) + (a - global_base) / 4;
      for (int i = 0; i < (Size * Count + 3) / 4; ++i)
        if (race_tag::time(tags[i].writer) >= launch_start) [[unlikely]]
          race(a, Size * Count, line, "reads by ld.global.nc what this kernel wrote",
               tags[i].writer);
    }
#endif
    return load<global_space, Size, Count>(a, line);
  }
  /// Likewise for writing; the bytes count as initialised.
  template <int Space, int Size, int Count>
  char* store(uint64_t a, int line) {
    constexpr int n = Size * Count;
    if (a % n != 0) [[unlikely]]
      misaligned(a, n, line);
    const place at = find<Space>(a, n, line, "store");
    for (int i = 0; i < n; ++i)
      if (at.shadow[i] == not_allocated) [[unlikely]]
        bad(a, n, line, "store");
    std::memset(at.shadow, initialised, n);
#ifdef EMU_RACE
    if constexpr (Size >= 4)
      if (at.tags)
        for (int i = 0; i < n / 4; ++i)
          note_write(at.tags[i], at.of_block, a, n, line);
#endif
    return at.bytes;
  }
  /// For reading and writing by an atomic operation.
  template <int Space, int Size>
  char* atomic(uint64_t a, int line) {
    if (a % Size != 0) [[unlikely]]
      misaligned(a, Size, line);
    const place at = find<Space>(a, Size, line, "atomic operation");
    if (!all_are<Size>(at.shadow, initialised)) [[unlikely]] {
      for (int i = 0; i < Size; ++i)
        if (at.shadow[i] == not_allocated)
          bad(a, Size, line, "atomic operation");
      undefined(a, Size, line);
      std::memset(at.shadow, initialised, Size);
    }
#ifdef EMU_RACE
    if (at.tags)
      for (int i = 0; i < Size / 4; ++i) {
        access_tags& tags = at.tags[i];
        if (race_tag::who(tags.writer) != race_tag::by_atomic &&
            !ordered(tags.writer, at.of_block)) [[unlikely]]
          race(a, Size, line, "updates by an atomic operation what another thread wrote",
               tags.writer);
        if (!ordered(tags.reader, at.of_block)) [[unlikely]]
          race(a, Size, line, "updates by an atomic operation what another thread read",
               tags.reader);
        tags.writer = race_tag::make(now, race_tag::by_atomic);
      }
#endif
    return at.bytes;
  }
  /// Notes that this thread writes bytes it has checked, as far as races go (copies that arrive
  /// later).
  void note_writes([[maybe_unused]] uint64_t shared_offset,
                   [[maybe_unused]] int n,
                   [[maybe_unused]] int line) {
#ifdef EMU_RACE
    auto* tags = reinterpret_cast<access_tags*>(shared_tags) + shared_offset / 4;
    for (int i = 0; i < n / 4; ++i)
      note_write(tags[i], true, shared_offset, n, line);
#endif
  }

 private:
  struct place {
    char* bytes;
    unsigned char* shadow;
    access_tags* tags;  ///< null where no other thread can come
    bool of_block;      ///< memory that a block has for itself
  };

  template <int Space>
  place find(uint64_t a, int n, int line, const char* what) {
    if constexpr (Space == global_space || Space == generic_space)
      if (a - global_base < global_size) {
        const uint64_t at = a - global_base;
        return {reinterpret_cast<char*>(global_alias + at),
                reinterpret_cast<unsigned char*>(global_shadow + at),
                reinterpret_cast<access_tags*>(global_tags) + at / 4, false};
      }
    if constexpr (Space == shared_space || Space == generic_space) {
      const uint64_t at = Space == shared_space ? a : a - shared_base;
      if (at < shared_size) {
        if (!team)
          bad(a, n, line, "shared memory in a kernel that has none");
        return {reinterpret_cast<char*>(shared_base + at),
                reinterpret_cast<unsigned char*>(shared_shadow + at),
                reinterpret_cast<access_tags*>(shared_tags) + at / 4, true};
      }
    }
    if constexpr (Space == local_space || Space == generic_space)
      if (a >= local_first && a + n <= local_top)
        return {reinterpret_cast<char*>(a),
                reinterpret_cast<unsigned char*>(local_shadow + (a - local_base)), nullptr,
                true};
    bad(a, n, line, what);
  }

  /// Whether what a tag records happened before anything this thread does now.
  bool ordered(uint64_t tag, bool of_block) const {
    const uint64_t time = race_tag::time(tag);
    if (time < launch_start)
      return true;
    const uint64_t who = race_tag::who(tag);
    if (time < block_start)
      return of_block;
    if (!of_block && who == race_tag::several_blocks)
      return false;
    if (time < barrier || who == linear)
      return true;
    return time < warp_sync && among(who, warp_mask);
  }
  /// Whether a tag names lanes of this warp that are all in `mask`.
  bool among(uint64_t who, uint32_t mask) const {
    if (who < 1024)
      return who / 32 == warp() && (mask >> (who & 31) & 1);
    return who == race_tag::several_of_warp + warp() && mask == 0xffffffffu;
  }
  /// Whether what a reader's tag records is over: ordered, or read before the lanes last met,
  /// since a lane's shuffle takes what it has read. (A shuffle orders nothing else.)
  bool read_before(uint64_t tag, bool of_block) const {
    const uint64_t time = race_tag::time(tag);
    return ordered(tag, of_block) ||
           (time >= block_start && time < warp_met && among(race_tag::who(tag), met_mask));
  }
  void note_read(access_tags& tags, bool of_block, uint64_t a, int n, int line) {
    if (!ordered(tags.writer, of_block)) [[unlikely]]
      race(a, n, line, "reads what another thread of this kernel wrote", tags.writer);
    const uint64_t time = race_tag::time(tags.reader);
    const uint64_t who = race_tag::who(tags.reader);
    uint64_t reader = linear;
    if (!of_block && time >= launch_start &&
        (time < block_start || who == race_tag::several_blocks))
      reader = race_tag::several_blocks;
    else if (!read_before(tags.reader, of_block))
      reader = (who < 1024 && who / 32 == warp()) || who == race_tag::several_of_warp + warp()
                   ? race_tag::several_of_warp + warp()
                   : race_tag::several_threads;
    tags.reader = race_tag::make(now, reader);
  }
  void note_write(access_tags& tags, bool of_block, uint64_t a, int n, int line) {
    if (!ordered(tags.writer, of_block)) [[unlikely]]
      race(a, n, line, "writes what another thread of this kernel wrote", tags.writer);
    if (!read_before(tags.reader, of_block)) [[unlikely]]
      race(a, n, line, "writes what another thread of this kernel read", tags.reader);
    tags.writer = race_tag::make(now, linear);
  }
};

/// An array of a thread's local memory while a function runs.
class frame {
 public:
  uint64_t base;
  frame(thread& t, int n)
      : base((t.local_top + 15) / 16 * 16), thread_(t), before_(t.local_top) {
    if (base + n > t.local_first + local_per_thread)
      t.bad(base, n, 0, "local memory is full");
    t.local_top = base + n;
    std::memset(reinterpret_cast<void*>(local_shadow + (base - local_base)), uninitialised, n);
    std::memset(reinterpret_cast<void*>(base), 0xff, n);
  }
  ~frame() {
    thread_.local_top = before_;
  }

 private:
  thread& thread_;
  uint64_t before_;
};

// What a translated file hands to the runtime.
struct parameter_layout {
  int offset;
  int size;
};
struct shared_variable {
  uint32_t offset;  ///< in the shared space
  uint32_t size;    ///< 0 for the dynamic one
};
struct kernel_entry {
  const char* name;
  void (*run)(thread&, const char*);
  int parameter_bytes;
  int parameters;
  const parameter_layout* layout;
  int most_threads[3];
  int line;
  bool meets;  ///< whether its threads share memory or wait for each other
  const shared_variable* shared;
  int shared_variables;
  uint32_t shared_end;  ///< where dynamic shared memory may start
};
struct global_entry {
  const char* name;
  uint64_t size;
  uint64_t alignment;
  const unsigned char* data;
  uint64_t* address;
};
struct registrar {
  registrar(const char* file, const kernel_entry*, int, const global_entry*, int);
};

}  // namespace emu
