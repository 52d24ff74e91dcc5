// Parameters between upstream's layout and the library's: conv [out, in, k, k] <-> [k, k, in,
// out], linear [out, in] or [in, out] <-> [in, out], the outputs of query-key-value layers in
// the order [q, k, v]; and their initial values.
//
// By layout (in: as files have it, out: as the library has it):
//
//   conv_oihw   out[u, v, c, o] = in[o, c, u, v]
//   linear_oi   out[c, o] = in[o, c]
//   linear_io   out[c, o] = in[c, o]
//
// Query-key-value layers are reordered from upstream's interleaving on the way.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/random.hpp"
#include "node.hpp"

namespace multistage {

/// Upstream's extents of a parameter.
inline std::vector<index_t> upstream_extents(const parameter& p) {
  switch (p.layout) {
    case parameter_layout::conv_oihw:
      return {p.out, p.in, p.kernel, p.columns()};
    case parameter_layout::linear_oi:
      return {p.out, p.in};
    case parameter_layout::linear_io:
      return {p.in, p.out};
    case parameter_layout::conv_oi1:
      return {p.out, p.in, 1};
    default:
      return {p.out};
  }
}

/// Calls f(upstream position, own position) for every element, in an order that is kind to
/// caches on both sides.
template <class F>
void for_each_element(const parameter& p, F&& f) {
  const index_t taps = p.taps();
  const index_t third = p.out / 3;
  const index_t head = p.qkv == qkv_order::by_head ? third / p.heads : 0;
  const auto place = [&](index_t o) {
    if (p.qkv == qkv_order::interleaved)
      return o % 3 * third + o / 3;
    if (p.qkv == qkv_order::by_head)
      return o % (3 * head) / head * third + o / (3 * head) * head + o % head;
    return o;
  };
  constexpr index_t line = 16;
  for (index_t first = 0; first < p.out; first += line) {
    const index_t n = std::min(line, index_t{p.out} - first);
    index_t own[line] = {};
    for (index_t k = 0; k < n; ++k)
      own[k] = place(first + k);
    for (index_t i = 0; i < p.in; ++i)
      for (index_t t = 0; t < taps; ++t)
        for (index_t k = 0; k < n; ++k)
          f(p.layout == parameter_layout::linear_io ? i * p.out + first + k
                                                    : ((first + k) * p.in + i) * taps + t,
            (t * p.in + i) * p.out + own[k]);
  }
}

/// Fills `own`, a host copy of the flat parameter memory, with initial values: a pure function
/// of the seed and the parameter's number.
template <class T>
void initialize(const graph& g, std::uint64_t seed, std::vector<T>& own) {
  own.assign(std::size_t(g.parameter_elements), T(0));
  double fan_in = 1;
  double fan_out = 1;
  for (std::size_t k = 0; k < g.parameters.size(); ++k) {
    const parameter& p = g.parameters[k];
    if (p.layout !=
        parameter_layout::vector) {  // a bias follows its weight and shares its fans
      fan_in = double(p.in) * double(p.taps());
      fan_out = double(p.out) * double(p.taps());
    }
    const random_stream numbers(seed, purpose::weights, k);
    const double bound = p.init == initialization::xavier_uniform
                             ? std::sqrt(6 / (fan_in + fan_out))
                             : std::sqrt(3 / fan_in);
    for_each_element(p, [&](index_t upstream, index_t position) {
      double v = p.gain;
      if (p.init == initialization::normal)
        v *= numbers.normal(upstream);
      else if (p.init != initialization::constant)
        v *= bound * (2 * numbers.uniform(upstream) - 1);
      own[p.offset + position] = T(v);
    });
  }
}

}  // namespace multistage
