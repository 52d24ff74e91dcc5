// Normal numbers on Thrust systems; System::words makes the random words, the same ones everywhere.
#pragma once
#include "../../core/random.hpp"
#include "thrust_backend.hpp"

namespace multistage {
namespace thrust_kernel {

/// The host twin of cuRAND's generator.
struct philox_words {
  MULTISTAGE_HD static philox_block block(const random_stream& s, std::uint64_t i) { return s.block(i); }
};

template <class Words, class T>
struct normals {
  random_stream stream;
  index_t n;
  T* to;
  MULTISTAGE_HD void operator()(index_t block) const {
    const philox_block words = Words::block(stream, std::uint64_t(block));
    for (int pair = 0; pair < 4; pair += 2) {
      double sine = 0, cosine = 0;
      random_stream::normal_pair(words.word[pair], words.word[pair + 1], sine, cosine);
      const index_t i = 4 * block + pair;
      if (i < n) to[i] = T(sine);
      if (i + 1 < n) to[i + 1] = T(cosine);
    }
  }
};

}  // namespace thrust_kernel

/// to[i] = element i of the stream's standard normal numbers.
template <class System, class T>
void fill_normal(const thrust_backend<System>& b, const random_stream& stream, index_t n, T* to) {
  b.for_each_index(divide_up(n, 4), thrust_kernel::normals<typename System::words, T>{stream, n, to});
}

}  // namespace multistage
