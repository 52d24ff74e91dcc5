// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011). A number is a pure function of (seed, stream,
// element): the same words on every backend, for any batch size and any number of threads. The
// words equal cuRAND's Philox generator at curand_init(seed, stream, element).
//
//   random_stream noise(seed, purpose::latents, 0);
//   double z = noise.normal(12);              // always the same number, whoever asks and when
//
// There is no state to hand on, to lock or to save: a run that resumes asks for the numbers of
// its next step, and a picture depends on its seed alone. Four elements share a block; whoever
// wants many takes a block at a time (backend/normals.hpp).
#pragma once
#include <cmath>
#include <cstdint>

#include "config.hpp"

namespace multistage {

/// One block of four random words.
struct philox_block {
  std::uint32_t word[4];  ///< each uniform over all 2^32 values
};

/// The bijection of ten rounds: four words, the lowest first, are mixed under a key of two. A
/// round multiplies two of the words by odd constants to 64 bits, swaps the halves and adds
/// (xor) the key, which grows by the golden ratio and by sqrt(3) - 1 in units of 2^-32. Each
/// counter gives a block of its own, so that blocks can be made in any order.
/// @param counter which block
/// @param key0 low word of the key
/// @param key1 high word of the key
MULTISTAGE_HD constexpr philox_block philox4x32_10(philox_block counter,
                                                   std::uint32_t key0,
                                                   std::uint32_t key1) {
  std::uint32_t c0 = counter.word[0];
  std::uint32_t c1 = counter.word[1];
  std::uint32_t c2 = counter.word[2];
  std::uint32_t c3 = counter.word[3];
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
    const std::uint32_t n0 = std::uint32_t(p1 >> 32) ^ c1 ^ key0;
    const std::uint32_t n2 = std::uint32_t(p0 >> 32) ^ c3 ^ key1;
    c1 = std::uint32_t(p1);
    c3 = std::uint32_t(p0);
    c0 = n0;
    c2 = n2;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// What a stream of numbers is for; keeps the streams of different uses apart.
enum class purpose : std::uint64_t {
  weights = 1,
  latents,
  churn,
  data_order,
  noise_level,
  training_noise,
  dropout,
  clustering,
  split,
  augmented_noise,
  label_dropout,
  augmentation,
  mirroring,
  crop,
  codes,
  moments,
  label
};

/// The numbers of one (seed, stream). An immutable value; elements are read in any order.
struct random_stream {
  std::uint64_t seed = 0;    ///< a picture's own, or a run's
  std::uint64_t stream = 0;  ///< what the numbers are for, and which draw

  /// @param stream_ any number; streams of one seed are independent of each other
  MULTISTAGE_HD constexpr random_stream(std::uint64_t seed_, std::uint64_t stream_ = 0)
      : seed(seed_),
        stream(stream_) {}
  /// @param step tells apart the draws of one purpose; below 2^48.
  MULTISTAGE_HD constexpr random_stream(std::uint64_t seed_, purpose use, std::uint64_t step)
      : seed(seed_),
        stream((std::uint64_t(use) << 48) | step) {}

  /// The four words of elements 4i to 4i + 3: Philox at counter (i, stream) under key `seed`.
  MULTISTAGE_HD constexpr philox_block block(std::uint64_t i) const {
    return philox4x32_10({{std::uint32_t(i), std::uint32_t(i >> 32), std::uint32_t(stream),
                           std::uint32_t(stream >> 32)}},
                         std::uint32_t(seed), std::uint32_t(seed >> 32));
  }
  /// A uniform word.
  MULTISTAGE_HD constexpr std::uint32_t word(std::uint64_t element) const {
    return block(element / 4).word[element % 4];
  }

  /// Maps a word into the open interval (0, 1).
  MULTISTAGE_HD static constexpr double to_uniform(std::uint32_t word) {
    return (word + 0.5) * 0x1p-32;
  }
  /// Uniform in (0, 1).
  MULTISTAGE_HD constexpr double uniform(std::uint64_t element) const {
    return to_uniform(word(element));
  }
  /// Uniform integer in [0, bound), for bound < 2^32 (bias below bound / 2^32).
  MULTISTAGE_HD constexpr std::uint32_t below(std::uint64_t element,
                                              std::uint32_t bound) const {
    return std::uint32_t((std::uint64_t(word(element)) * bound) >> 32);
  }
  /// Two standard normals of two words by Box-Muller, in double.
  MULTISTAGE_HD static void normal_pair(std::uint32_t word0,
                                        std::uint32_t word1,
                                        double& sine,
                                        double& cosine) {
    const double radius = ::sqrt(-2.0 * ::log(to_uniform(word0)));
    const double angle = 6.283185307179586476925286766559 * to_uniform(word1);
    sine = radius * ::sin(angle);
    cosine = radius * ::cos(angle);
  }
  /// Standard normal: elements 2k and 2k + 1 share a radius; even ones are its sine, odd ones
  /// its cosine.
  MULTISTAGE_HD double normal(std::uint64_t element) const {
    const philox_block b = block(element / 4);
    const unsigned pair = unsigned(element % 4) / 2 * 2;
    double sine = 0;
    double cosine = 0;
    normal_pair(b.word[pair], b.word[pair + 1], sine, cosine);
    return element % 2 == 0 ? sine : cosine;
  }
};

/// The random numbers of one step of a run: a stream for each use.
struct step_numbers {
  std::uint64_t seed = 0;  ///< of the run
  index_t step = 0;        ///< counted from 0
  /// The numbers for a use.
  random_stream of(purpose use) const {
    return random_stream(seed, use, std::uint64_t(step));
  }
};

}  // namespace multistage
