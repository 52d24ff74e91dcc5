// Scratch of kernels: a stack of each thread's own. A frame owns what it takes and gives it
// back at the end of its scope, so that two users can never meet, and memory is asked of the
// system once.
//
// A kernel's memory is needed for microseconds and asked for thousands of times a second,
// which is what allocators are worst at. Each thread has a stack of blocks that grows to what
// its largest kernel needed and stays; taking and giving back is moving a mark. Frames nest as
// calls do.
#pragma once
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include "aligned_storage.hpp"

namespace multistage::inline MULTISTAGE_ISA {

/// Memory for the time of a scope: `scratch_frame scratch; float* tile =
/// scratch.take<float>(n);`. A frame belongs to the thread that makes it; tasks may use what
/// their caller took, and take frames of their own. Kernels size their tiles so that a task's
/// frame stays within a second-level cache.
class scratch_frame {
 public:
  /// Begins where the thread's stack stands.
  scratch_frame()
      : stack_(of_thread()),
        block_(stack_.block),
        used_(stack_.used) {}
  ~scratch_frame() {
    stack_.block = block_;
    stack_.used = used_;
    if (block_ == 0 && used_ == 0)
      stack_.merge();
  }
  scratch_frame(const scratch_frame&) = delete;
  scratch_frame& operator=(const scratch_frame&) = delete;

  /// n elements, aligned to cache lines, of any content. @throws std::bad_alloc, with the frame
  /// as it was
  template <class T>
  T* take(index_t n) {
    static_assert(std::is_trivially_copyable_v<T>);
    return reinterpret_cast<T*>(stack_.take(round_up(n * index_t(sizeof(T)), 64)));
  }

 private:
  /// Blocks are used in order; only the last one in use has room left to give.
  struct stack {
    /// Memory of one block.
    struct piece {
      aligned_storage<std::byte> memory;  ///< where it is
      index_t size = 0;                   ///< bytes of it
    };
    std::vector<piece> blocks;
    std::size_t block = 0;  // in use
    index_t used = 0;       // bytes of it

    std::byte* take(index_t bytes) {
      std::size_t at = block;
      index_t from = used;
      while (at < blocks.size() && blocks[at].size - from < bytes) {
        ++at;
        from = 0;
      }
      if (at == blocks.size())
        blocks.push_back(fresh(bytes));
      block = at;
      used = from + bytes;
      return blocks[at].memory.data() + from;
    }
    static piece fresh(index_t bytes) {
      constexpr index_t least = index_t{64} << 10;
      const index_t size = bytes < least ? least : bytes;
      return {aligned_storage<std::byte>(size), size};
    }
    /// When nothing is in use: what took several blocks finds one that holds it all the next
    /// time.
    void merge() {
      if (blocks.size() < 2)
        return;
      index_t all = 0;
      for (const piece& p : blocks)
        all += p.size;
      blocks.clear();
      try {
        blocks.push_back(fresh(all));
      } catch (const std::bad_alloc&) {  // the next frame asks again
      }
    }
  };
  /// The calling thread's own.
  static stack& of_thread() {
    thread_local stack value;
    return value;
  }

  stack& stack_;
  std::size_t block_;
  index_t used_;
};

}  // namespace multistage::inline MULTISTAGE_ISA
