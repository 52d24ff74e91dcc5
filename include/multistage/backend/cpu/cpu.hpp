// The CPU backend's handle: the tuned kernels' memory and threads.
//
//   cpu here;                 // a thread per processor, in a pool that all such handles share
//   cpu two(2);               // a pool of its own, of two threads
//   tensor<float> x(two, {1, 4, 4, 3});
#pragma once
#include <algorithm>
#include <string_view>

#include "../../core/tensor.hpp"
#include "../concept.hpp"
#include "../host.hpp"
#include "aligned_storage.hpp"
#include "scratch.hpp"

namespace multistage::inline MULTISTAGE_ISA {

/// The tuned backend: memory aligned to cache lines, kernels in vector registers. @see
/// backend/concept.hpp
class cpu : public host_backend {
 public:
  static constexpr std::string_view name = "cpu";  ///< as command lines spell it
  /// Memory of one owner.
  template <class T>
  using storage = aligned_storage<T>;

  /// One thread per processor that the process may use, in a pool that all default handles
  /// share.
  cpu() = default;
  /// @param threads that work together; 0 takes usable_processors(). @throws as thread_pool
  /// does
  explicit cpu(int threads)
      : host_backend(threads) {}

  /// n zeros. @throws std::bad_alloc
  template <class T>
  storage<T> allocate(index_t n) const {
    return storage<T>(n);
  }
  /// The first element, which may be written: who owns the storage decides that.
  template <class T>
  static T* pointer(const storage<T>& s) {
    return s.data();
  }

  /// f(row) for every row, in tasks of as many rows as make `work` elements.
  template <class F>
  void for_each_row(index_t rows, index_t row_size, F&& f, index_t work = 4096) const {
    const index_t few = std::max<index_t>(1, work / std::max<index_t>(row_size, 1));
    for_each_piece(rows, few, [&](index_t first, index_t count) {
      for (index_t row = first; row < first + count; ++row)
        f(row);
    });
  }
};

}  // namespace multistage::inline MULTISTAGE_ISA

namespace multistage {

/// Tensors that name no backend lie here. @see core/tensor.hpp
template <class T>
struct default_backend {
  using type = cpu;  ///< the tuned backend
};

/// Every operation in float...
template <operation Op>
inline constexpr bool supports<cpu, Op, float> = true;
/// ...and in double, whose registers hold half as many numbers.
template <operation Op>
inline constexpr bool supports<cpu, Op, double> = true;

}  // namespace multistage
