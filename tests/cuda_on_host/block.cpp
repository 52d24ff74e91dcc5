// Fibers, barriers and what warps do together; see block.hpp.
#include "block.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>

#include "state.hpp"

// Saves what a function must preserve on the stack, leaves the stack pointer in *save, and goes
// on where `load` was saved.
extern "C" void emu_switch(void** save, void* load);
asm(R"(
.text
.globl emu_switch
.type emu_switch, @function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch, .-emu_switch
)");

namespace emu {
namespace {

constexpr uint64_t stack_bytes = 256 << 10;
constexpr uint32_t most_threads = 1024;

/// Stacks for a block's threads, taken once; the lowest page of each is a guard.
char* stacks() {
  static char* const memory = [] {
    void* p = mmap(nullptr, stack_bytes * most_threads, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
      std::perror("emu: stacks"), std::abort();
    for (uint32_t i = 0; i < most_threads; ++i)
      mprotect(static_cast<char*>(p) + i * stack_bytes, 4096, PROT_NONE);
    return static_cast<char*>(p);
  }();
  return memory;
}

block* entering_block;
uint32_t entering_index;

/// Shared memory as a block finds it: undefined, with gaps between its variables.
void make_shared_memory(const kernel_entry& k, const thread& t) {
  static std::vector<unsigned char> shadow;
  const uint64_t end = t.shared_at + t.dynamic_shared;
  static uint64_t used = 0;
  shadow.assign(std::max(end, used) + 256, not_allocated);
  used = end;
  for (int i = 0; i < k.shared_variables; ++i)
    std::memset(shadow.data() + k.shared[i].offset, uninitialised, k.shared[i].size);
  std::memset(shadow.data() + t.shared_at, uninitialised, t.dynamic_shared);
  std::memcpy(reinterpret_cast<void*>(shared_shadow), shadow.data(), shadow.size());
  std::memset(reinterpret_cast<void*>(shared_base), 0xff, end);
}

}  // namespace

void block::run(const kernel_entry& kernel,
                const char* parameters,
                const thread& like,
                turns order) {
  static block b;  // keeps its memory
  b.kernel_ = &kernel;
  b.parameters_ = parameters;
  b.failed_ = false;
  b.alive_ = like.ntid[0] * like.ntid[1] * like.ntid[2];
  for (waiting& w : b.barriers_)
    w = waiting{};
  make_shared_memory(kernel, like);
  b.fibers_.resize(b.alive_);
  const uint64_t time = tick();
  for (uint32_t warp = 0; warp < 32; ++warp)
    b.living_lanes_[warp] = b.waiting_lanes_[warp] = 0;
  for (uint32_t i = 0; i < b.alive_; ++i) {
    b.living_lanes_[i / 32] |= 1u << (i % 32);
    fiber& f = b.fibers_[i];
    f.self = like;
    f.self.team = &b;
    f.self.linear = i;
    f.self.tid[0] = i % like.ntid[0];
    f.self.tid[1] = i / like.ntid[0] % like.ntid[1];
    f.self.tid[2] = i / like.ntid[0] / like.ntid[1];
    f.self.now = f.self.block_start = f.self.barrier = f.self.warp_sync = time;
    f.self.warp_met = time;
    f.self.warp_mask = f.self.met_mask = 0;
    f.self.local_first = f.self.local_top = local_base + i * local_per_thread;
    f.now = state::ready;
    f.passed = 0;
    f.copies.clear();
    f.groups.clear();
    b.start(i);
  }
  b.loop(order);
}

/// A stack that emu_switch returns from into enter().
void block::start(uint32_t index) {
  char* top = stacks() + (index + 1) * stack_bytes;
  void** p = reinterpret_cast<void**>(top) - 1;  // at enter() the stack is as after a call
  *p = nullptr;
  *--p = reinterpret_cast<void*>(&block::enter);
  for (int i = 0; i < 6; ++i)
    *--p = nullptr;
  fibers_[index].stack_pointer = p;
}

void block::enter() {
  block& b = *entering_block;
  fiber& f = b.fibers_[entering_index];
  try {
    b.kernel_->run(f.self, b.parameters_);
    b.ended(f);
  } catch (const fault&) {
    b.failed_ = true;
    f.now = state::ended;
  }
  b.yield(f);
  std::abort();  // an ended thread is not run
}

void block::yield(fiber& f) {
  emu_switch(&f.stack_pointer, scheduler_);
}

void block::loop(turns order) {
  const uint32_t n = alive_;
  uint32_t step = 1;
  if (order == turns::shuffled)
    for (step = n * 5 / 8 | 1; std::gcd(step, n) != 1;)
      step += 2;
  while (alive_ > 0) {
    bool any = false;
    for (uint32_t k = 0; k < n && !failed_; ++k) {
      const uint32_t i =
          order == turns::backward ? n - 1 - k : uint32_t(uint64_t(k) * step % n);
      if (fibers_[i].now != state::ready)
        continue;
      any = true;
      entering_block = this;
      entering_index = i;
      emu_switch(&scheduler_, fibers_[i].stack_pointer);
    }
    if (failed_)
      throw fault{};
    if (!any && !try_release_all())
      stuck();
  }
}

void block::ended(fiber& f) {
  f.now = state::ended;
  living_lanes_[f.self.warp()] &= ~(1u << f.self.lane());
  --alive_;
  perform(f.self, f.copies);
  for (const auto& g : f.groups)
    perform(f.self, g);
  // those who waited for this thread alone
  for (fiber& other : fibers_)
    if (other.now == state::in_warp && other.self.warp() == f.self.warp() &&
        try_meet(f.self.warp(), other))
      break;
}

void block::barrier(thread& t, int line, uint32_t id, uint32_t count, bool waits) {
  arrive(t, line, id, count, false, waits);
}

void block::barrier_reduce(thread& t,
                           int line,
                           uint32_t id,
                           uint32_t count,
                           bool value,
                           uint32_t& trues,
                           uint32_t& all) {
  arrive(t, line, id, count, value, true);
  trues = barriers_[id].last_trues;
  all = barriers_[id].last_all;
}

void block::arrive(thread& t, int line, uint32_t id, uint32_t count, bool value, bool waits) {
  fiber& f = fibers_[t.linear];
  if (id >= 16)
    t.bad(id, 0, line, "number of a barrier");
  waiting& w = barriers_[id];
  if (w.arrived > 0 && w.line != line && count == 0)
    w.differ = true;
  if (w.arrived == 0)
    w.line = line;
  ++w.arrived;
  w.trues += value;
  f.line = line;
  f.id = id;
  if (waits)
    f.now = state::at_barrier;
  if (w.arrived == (count ? count : uint32_t(fibers_.size()))) {
    release(id, w);
    return;  // the last one goes on at once
  }
  if (waits)
    yield(f);
}

void block::release(uint32_t id, waiting& w) {
  const kernel_place where{kernel_->name, w.line};
  if (w.differ)
    find("DIVERGENT BARRIER: threads of a block meet at different ones, " + where.text(), "");
  const uint64_t time = tick();
  for (fiber& f : fibers_)
    if (f.now == state::at_barrier && f.id == id) {
      f.now = state::ready;
      f.self.now = f.self.barrier = time;
      ++f.passed;
    }
  w = waiting{0, 0, w.trues, w.arrived, 0, false};
}

/// Nothing runs any more: a barrier waits for threads that have ended. A device goes on; it is
/// a fault of the program all the same.
bool block::try_release_all() {
  for (uint32_t id = 0; id < 16; ++id) {
    waiting& w = barriers_[id];
    if (w.arrived == 0 || w.arrived != alive_)
      continue;
    find("DIVERGENT BARRIER: some threads of the block have ended, " +
             kernel_place{kernel_->name, w.line}.text(),
         std::to_string(fibers_.size() - alive_) + " of " + std::to_string(fibers_.size()) +
             " have");
    release(id, w);
    return true;
  }
  return false;
}

void block::meet(thread& t, int line, uint32_t mask, exchange& mine, void (*together)(lanes&)) {
  fiber& f = fibers_[t.linear];
  if (!(mask >> t.lane() & 1)) {
    find("WARP: a lane's mask lacks itself, " + kernel_place{kernel_->name, line}.text(), "");
    mask |= 1u << t.lane();
  }
  f.now = state::in_warp;
  f.line = line;
  f.mask = mask;
  f.mine = &mine;
  f.together = together;
  waiting_lanes_[t.warp()] |= 1u << t.lane();
  if (!try_meet(t.warp(), f))
    yield(f);
}

/// Does what the lanes of `f`'s mask came for, if all of them are there.
bool block::try_meet(uint32_t warp, fiber& f) {
  if (f.mask & living_lanes_[warp] & ~waiting_lanes_[warp])
    return false;
  lanes all{};
  all.line = f.line;
  all.asked = f.mask;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint32_t i = warp * 32 + lane;
    if (!(f.mask >> lane & 1) || i >= fibers_.size() || fibers_[i].now == state::ended)
      continue;
    fiber& other = fibers_[i];
    if (other.now != state::in_warp || other.line != f.line || other.mask != f.mask)
      return false;
    all.of[lane] = other.mine;
    all.threads[lane] = &other.self;
    all.mask |= 1u << lane;
  }
  f.together(all);
  const uint64_t time = tick();
  for (uint32_t lane = 0; lane < 32; ++lane)
    if (all.of[lane]) {
      fiber& other = fibers_[warp * 32 + lane];
      other.now = state::ready;
      waiting_lanes_[warp] &= ~(1u << lane);
      other.self.now = other.self.warp_met = time;
      other.self.met_mask = all.asked;
    }
  return true;
}

void block::warp_sync(thread& t, int line, uint32_t mask) {
  exchange mine{};
  meet(t, line, mask, mine, [](lanes& all) {
    const uint64_t time = tick();
    for (thread* other : all.threads)
      if (other) {
        other->now = other->warp_sync = time;
        other->warp_mask = all.asked;
      }
  });
}

void block::stuck() {
  std::string text;
  const char* const names[] = {"", "a barrier", "a warp's operation", ""};
  for (const state s : {state::at_barrier, state::in_warp}) {
    uint32_t count = 0;
    const fiber* first = nullptr;
    for (const fiber& f : fibers_)
      if (f.now == s && ++count && !first)
        first = &f;
    if (first)
      text += std::to_string(count) + " threads wait at " + names[int(s)] + ", the first, " +
              std::to_string(first->self.linear) + ", at " +
              kernel_place{kernel_->name, first->line}.text() + "; ";
  }
  find("DEADLOCK, divergent threads of a block wait for each other", text);
  stick(cudaErrorLaunchTimeout);
  throw fault{};
}

void block::copy_later(thread& t, int line, uint64_t to, uint64_t from, int bytes, int given) {
  const auto allocated = [&](int n) {
    for (int i = 0; i < n; ++i)
      if (reinterpret_cast<unsigned char*>(shared_shadow)[to + i] == not_allocated)
        return false;
    return true;
  };
  if (to % bytes != 0)
    t.misaligned(to, bytes, line);
  if (given > 0 && from % bytes != 0)
    t.misaligned(from, bytes, line);
  if (to + bytes > shared_size || !allocated(bytes))
    t.bad(to, bytes, line, "cp.async, to");
  t.note_writes(to, bytes, line);
  std::memset(reinterpret_cast<void*>(shared_shadow + to), uninitialised, std::size_t(bytes));
  std::memset(reinterpret_cast<void*>(shared_base + to), 0xff, std::size_t(bytes));
  fibers_[t.linear].copies.push_back({to, from, bytes, given < bytes ? given : bytes, line});
}

void block::perform(thread& t, const std::vector<copy>& copies) {
  for (const copy& c : copies) {
    char* to = reinterpret_cast<char*>(shared_base + c.to);
    std::memset(to, 0, std::size_t(c.bytes));
    if (c.given == 16)
      std::memcpy(to, t.load<global_space, 4, 4>(c.from, c.line), 16);
    else
      for (int i = 0; i < c.given; i += 4)  // sizes that are no multiple of 4 are not copied so
        std::memcpy(to + i, t.load<global_space, 4, 1>(c.from + i, c.line), 4);
    std::memset(reinterpret_cast<void*>(shared_shadow + c.to), initialised,
                std::size_t(c.bytes));
    t.note_writes(c.to, c.bytes, c.line);
  }
}

void block::commit_copies(thread& t) {
  fiber& f = fibers_[t.linear];
  f.groups.push_back(std::move(f.copies));
  f.copies.clear();
}

void block::wait_copies(thread& t, int pending) {
  fiber& f = fibers_[t.linear];
  while (int(f.groups.size()) > pending) {
    perform(t, f.groups.front());
    f.groups.pop_front();
  }
}

void block::wait_all_copies(thread& t) {
  commit_copies(t);
  wait_copies(t, 0);
}

}  // namespace emu
