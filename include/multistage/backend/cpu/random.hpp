// Normal numbers on the CPU, a Philox block (four numbers) at a time.
#pragma once
#include "../../core/random.hpp"
#include "cpu.hpp"

namespace multistage {

/// to[i] = element i of the stream's standard normal numbers.
template <class T>
void fill_normal(const cpu& b, const random_stream& stream, index_t n, T* to) {
  const auto block = [=](index_t k) {
    const philox_block words = stream.block(std::uint64_t(k));
    for (int pair = 0; pair < 4; pair += 2) {
      double sine, cosine;
      random_stream::normal_pair(words.word[pair], words.word[pair + 1], sine, cosine);
      const index_t i = 4 * k + pair;
      if (i < n) to[i] = T(sine);
      if (i + 1 < n) to[i + 1] = T(cosine);
    }
  };
  b.for_each_index(divide_up(n, 4), block, 256);
}

}  // namespace multistage
