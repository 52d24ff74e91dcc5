// Ranges of numbers: how they are shared out, and where a tree of additions cuts them.
#pragma once
#include <bit>

#include "config.hpp"

namespace multistage {

/// Numbers [begin, end) of a list.
struct index_range {
  index_t begin = 0;  ///< the first
  index_t end = 0;    ///< behind the last
  /// How many there are.
  constexpr index_t size() const {
    return end - begin;
  }
  /// Whether all of another's are among them.
  constexpr bool contains(const index_range& other) const {
    return begin <= other.begin && other.end <= end;
  }
};
/// Those that both have; of size 0 where there are none.
constexpr index_range common(const index_range& a, const index_range& b) {
  const index_t begin = a.begin > b.begin ? a.begin : b.begin;
  const index_t end = a.end < b.end ? a.end : b.end;
  return {begin, end > begin ? end : begin};
}
/// What falls to a rank of `count` things that are shared out evenly, in order; sizes differ by
/// one at most, and rank 0 has one where there is any.
constexpr index_range share_of(index_t count, int rank, int size) {
  return {(count * rank + size - 1) / size, (count * (rank + 1) + size - 1) / size};
}

/// Where a tree of additions cuts numbers [begin, end), of which there are two at least: at the
/// one behind the first that the largest power of two divides. So a part of a list is cut where
/// the list is, and of [0, n) the left side is the largest power of two below n.
constexpr index_t tree_cut(const index_range& numbers) {
  const auto last = std::uint64_t(numbers.end - 1);
  const int bit = std::bit_width(std::uint64_t(numbers.begin) ^ last) - 1;
  return index_t(last >> bit << bit);
}

}  // namespace multistage
