// Memory that an object keeps from call to call and that grows with what is asked of it.
//
// It is never given back before its owner goes: after a few calls of a run nothing is asked of
// the system any more.
//
//   tensor<float, Backend> held_;                      // a member
//   float* const memory = grown(held_, backend, n);    // more only where that is too small
#pragma once
#include "config.hpp"

namespace multistage {

/// `elements` of memory in `held`, which keeps what it has when that is enough. How much there
/// is is read from `held` itself and noted nowhere else, so that a failed allocation leaves no
/// promise behind: `held` is empty then, and the next call asks anew. Contents are lost when it
/// grows.
/// @throws what the backend throws when it has no memory
template <class Tensor, class Backend>
auto* grown(Tensor& held, const Backend& backend, index_t elements) {
  if (held.size() < elements) {
    held = Tensor();  // first, so that both are never there at once
    held = Tensor(backend, {1, 1, 1, elements});
  }
  return held.data();
}

}  // namespace multistage
