// A block whose threads meet: each thread is a fiber that runs until it waits; barriers release
// the block, and what a warp does together is done when its last lane arrives.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

#include "thread.hpp"

namespace emu {

/// What a lane brings to something its warp does together, and takes from it.
struct exchange {
  uint32_t in[12];
  uint32_t out[8];
  bool flag_in;
  bool flag;
};

/// The lanes of one warp that meet: `of[lane]` is null for those that do not.
struct lanes {
  exchange* of[32];
  thread* threads[32];
  uint32_t asked;  ///< the mask that they gave
  uint32_t mask;   ///< of those that are there
  int line;
};

/// How the threads of a kernel, and of a block, take turns.
enum class turns { forward, backward, shuffled };

class block {
 public:
  /// Runs all threads of one block. @param like what its threads have in common. @throws fault
  static void run(const kernel_entry& kernel,
                  const char* parameters,
                  const thread& like,
                  turns order);

  /// bar.sync, or bar.arrive with `waits` false. @param count threads that take part; 0 for
  /// all.
  void barrier(thread& t, int line, uint32_t id, uint32_t count, bool waits);
  /// bar.red: the number of threads whose `value` is true, and how many there were.
  void barrier_reduce(thread& t,
                      int line,
                      uint32_t id,
                      uint32_t count,
                      bool value,
                      uint32_t& trues,
                      uint32_t& all);
  /// Waits for all lanes of `mask` that have not ended; the last to arrive runs `together`.
  void meet(thread& t, int line, uint32_t mask, exchange& mine, void (*together)(lanes&));
  /// bar.warp.sync
  void warp_sync(thread& t, int line, uint32_t mask);

  /// cp.async: `bytes` to shared memory, of which `given` come from global memory and the rest
  /// are zeros. They arrive when something waits for them, and are undefined until then.
  void copy_later(thread& t, int line, uint64_t to, uint64_t from, int bytes, int given);
  void commit_copies(thread& t);
  /// cp.async.wait_group. @param pending how many of the latest groups may still be on their
  /// way.
  void wait_copies(thread& t, int pending);
  /// cp.async.wait_all
  void wait_all_copies(thread& t);

 private:
  enum class state { ready, at_barrier, in_warp, ended };
  struct copy {
    uint64_t to;
    uint64_t from;
    int bytes;
    int given;
    int line;
  };
  struct fiber {
    thread self;
    void* stack_pointer;
    state now;
    int line;
    uint32_t id;    ///< of the barrier
    uint32_t mask;  ///< of the lanes
    exchange* mine;
    void (*together)(lanes&);
    uint32_t passed;  ///< barriers 0
    std::vector<copy> copies;
    std::deque<std::vector<copy>> groups;
  };
  struct waiting {
    uint32_t arrived = 0;
    uint32_t trues = 0;
    uint32_t last_trues = 0;
    uint32_t last_all = 0;
    int line = 0;
    bool differ = false;
  };

  void start(uint32_t index);
  void loop(turns order);
  void yield(fiber& f);
  void arrive(thread& t, int line, uint32_t id, uint32_t count, bool value, bool waits);
  void release(uint32_t id, waiting& w);
  bool try_release_all();
  bool try_meet(uint32_t warp, fiber& last);
  void ended(fiber& f);
  void perform(thread& t, const std::vector<copy>& copies);
  [[noreturn]] void stuck();
  static void enter();

  std::vector<fiber> fibers_;
  waiting barriers_[16];
  uint32_t living_lanes_[32] = {};   ///< of each warp
  uint32_t waiting_lanes_[32] = {};  ///< those that are in_warp
  uint32_t alive_ = 0;
  void* scheduler_ = nullptr;
  const kernel_entry* kernel_ = nullptr;
  const char* parameters_ = nullptr;
  bool failed_ = false;
};

/// The clock that orders accesses (race_tag); each call is a later time.
uint64_t tick();

}  // namespace emu
