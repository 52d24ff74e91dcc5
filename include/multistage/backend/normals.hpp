// Standard normal numbers, a Philox block (four of them) at an index: one functor for every
// backend's loop over indices.
//
// By Box and Muller two uniform numbers make two normal ones without rejecting any, so element
// i of a stream needs nothing of the elements before it.
//
//   const random_stream stream(seed, purpose::churn, step);
//   backend.for_each_index(divide_up(n, 4), normals<philox_words, float>{stream, n, to});
#pragma once
#include "../core/random.hpp"

namespace multistage {

/// Makes the random words by the library's own Philox.
struct philox_words {
  /// Block i of the stream.
  MULTISTAGE_HD static philox_block block(const random_stream& s, std::uint64_t i) {
    return s.block(i);
  }
};

/// to[i] = element i of the stream's standard normal numbers, for the four i of a block, below
/// n.
/// @tparam Words makes the words of a block.
template <class Words, class T>
struct normals {
  random_stream stream;  ///< whose numbers they are
  index_t n;             ///< how many are wanted; the last block may give fewer than four
  T* to;                 ///< where they go
  /// One block: two pairs by Box and Muller's transform, in double, then rounded to T.
  MULTISTAGE_HD void operator()(index_t block) const {
    const philox_block words = Words::block(stream, std::uint64_t(block));
    for (int pair = 0; pair < 4; pair += 2) {
      double sine = 0;
      double cosine = 0;
      random_stream::normal_pair(words.word[pair], words.word[pair + 1], sine, cosine);
      const index_t i = 4 * block + pair;
      if (i < n)
        to[i] = T(sine);
      if (i + 1 < n)
        to[i + 1] = T(cosine);
    }
  }
};

}  // namespace multistage
