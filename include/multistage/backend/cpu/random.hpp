// Normal numbers on the CPU, a Philox block (four numbers) at a time.
#pragma once
#include "../normals.hpp"
#include "cpu.hpp"

namespace multistage::inline MULTISTAGE_ISA {

/// to[i] = element i of the stream's standard normal numbers.
template <class T>
void fill_normal(const cpu& b, const random_stream& stream, index_t n, T* to) {
  b.for_each_index(divide_up(n, 4), normals<philox_words, T>{stream, n, to}, 256);
}

}  // namespace multistage::inline MULTISTAGE_ISA
