// Embeddings of a noise level into n channels: positional (Vaswani et al. 2017) angles v
// 10000^(-j / d), j = 0 .. n/2 - 1, or Fourier (Tancik et al. 2020) angles 2 pi f_j v with
// fixed random frequencies; then sine and cosine halves.
//
// Neighbouring frequencies have a fixed ratio, so that some pair tells any two noise levels
// apart; the layers behind it make of it what they need. There is no gradient: levels are not
// trained.
//
//   ops::embedding(backend, levels, y, {.sine_first = false});     // [rows, 1, 1, channels]
#pragma once
#include <cmath>

#include "operation.hpp"

namespace multistage::ops {

/// How angles become channels.
struct embedding_form {
  bool sine_first = true;  ///< [sin, cos] or [cos, sin]
  bool endpoint = true;    ///< d = n/2 - 1 (the last angle is v / 10000) or d = n/2
  bool logarithm = false;  ///< embed ln v
};

namespace functor {
/// One channel of one level.
template <class T>
struct embedding {
  index_t channels;
  const T* values;
  const T* frequencies;  ///< null: positional
  embedding_form form;
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t half = channels / 2;
    const index_t row = i / channels;
    const index_t c = i % channels;
    const index_t j = c % half;
    T v = values[row];
    if (form.logarithm)
      v = T(::log(double(v)));
    double angle;
    if (frequencies) {
      angle = double(v) * 6.283185307179586 * double(frequencies[j]);
    } else {
      const index_t last = form.endpoint ? half - 1 : half;
      angle = double(v) * ::pow(10000.0, -double(j) / double(last));
    }
    const bool sine = (c < half) == form.sine_first;
    y[i] = T(sine ? ::sin(angle) : ::cos(angle));
  }
};
}  // namespace functor

/// @see the file's head. Operand: one number a row. Parameter: for Fourier angles the
/// frequencies [1, 1, 1, channels / 2]. Noise levels get no gradient.
struct noise_embedding {
  int channels = 0;       ///< of the result, half sines and half cosines
  embedding_form form{};  ///< which frequencies, and in which order

  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "embedding";            ///< for messages and profiles
  static constexpr operand_names operands{"values"};          ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list&) const {
    if (channels < 4 || channels % 2 != 0)
      return refused(graph_problem::attributes, "an even number of channels from 4 is needed");
    description d;
    d.in[0] = {1, 1, 1};
    d.out = {channels, 1, 1};
    d.weight = {1, 1, 1, channels / 2};
    d.weight_needed = false;  // Fourier angles alone have frequencies
    d.by_row = 0b0001;
    d.stops_gradient = 0b0001;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    const functor::embedding<T> embedded{
        .channels = channels,
        .values = p.in[0].data,
        .frequencies = p.weight.data,
        .form = form,
        .y = p.y.data,
    };
    b.for_each_index(p.y.extents.size(), embedded);
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend&, const backward_pass<T>&) const {}
};

/// y [rows, 1, 1, n] from values [rows, 1, 1, 1] and, for Fourier, frequencies [1, 1, 1, n /
/// 2].
template <class Backend, class T>
void embedding(Backend& b,
               input<T> values,
               view<T> y,
               embedding_form form = {},
               input<T> frequencies = {}) {
  const index_t n = y.extents.channels;
  expect_optional("embedding", "frequencies", frequencies, shape{1, 1, 1, n / 2});
  run(b, noise_embedding{int(n), form},
      forward_pass<T>{.in = {values}, .weight = frequencies, .y = y});
}

}  // namespace multistage::ops
