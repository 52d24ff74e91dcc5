// Memory of the CPU backend.
//
// Small pieces come from the allocator. From 4 MiB on, pages are asked of the system, which
// gives zeros for nothing; huge pages (2 MiB) save the processor most of its look-ups of
// addresses.
//
//   aligned_storage<float> memory(1 << 20);   // a million zeros, pages that are zero already
//   memory.data()[0] = 1;                     // the first page is touched, and so taken
#pragma once
#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

#include "../../core/config.hpp"

namespace multistage::inline MULTISTAGE_ISA {

/// Zero-initialised memory aligned to cache lines. Large pieces are pages of their own, taken
/// from the system when they are first touched (by the thread that touches them, and not at all
/// where nothing does), huge ones where it can.
template <class T>
class aligned_storage {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  aligned_storage() = default;
  /// n zeros; of 0 there is no memory at all. @throws std::bad_alloc
  explicit aligned_storage(index_t n)
      : memory_(n > 0 ? take(std::size_t(n) * sizeof(T)) : nullptr,
                release{n > 0 ? std::size_t(n) * sizeof(T) : 0}) {}
  /// The first element, on a cache line; null where there are none.
  T* data() const {
    return memory_.get();
  }

 private:
  static constexpr std::size_t large = std::size_t{4} << 20;
  /// Zeros: from the allocator, or as pages from the system.
  static T* take(std::size_t bytes) {
    if (bytes < large) {
      void* p = ::operator new (bytes, std::align_val_t{64});
      return static_cast<T*>(std::memset(p, 0, bytes));
    }
    void* p =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
      throw std::bad_alloc();
    ::madvise(p, bytes, MADV_HUGEPAGE);
    return static_cast<T*>(p);
  }
  /// Gives either kind back.
  struct release {
    std::size_t bytes = 0;
    void operator()(T* p) const {
      if (bytes < large)
        ::operator delete (p, std::align_val_t{64});
      else
        ::munmap(p, bytes);
    }
  };
  std::unique_ptr<T, release> memory_;
};

}  // namespace multistage::inline MULTISTAGE_ISA
