// Normal numbers on Thrust systems; System::words makes the random words, the same ones
// everywhere.
#pragma once
#include "../normals.hpp"
#include "thrust_backend.hpp"

namespace multistage {

/// to[i] = element i of the stream's standard normal numbers.
template <class System, class T>
void fill_normal(const thrust_backend<System>& b,
                 const random_stream& stream,
                 index_t n,
                 T* to) {
  b.for_each_index(divide_up(n, 4), normals<typename System::words, T>{stream, n, to});
}

}  // namespace multistage
