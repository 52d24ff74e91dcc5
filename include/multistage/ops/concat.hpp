// Concatenation of channels, and its inverse. Networks mostly do without a copy: norms and
// pointwise convolutions read two inputs (graph/fuse.hpp).
//
//   y[pixel] = [x[pixel], x2[pixel], ...],   [dx[pixel], dx2[pixel], ...] = dy[pixel]
#pragma once
#include "operation.hpp"

namespace multistage::ops {

namespace functor {
/// Channels [first, first + channels) of pixels that are `all` wide, from packed ones.
template <class T>
struct place {
  const T* from;
  index_t channels;
  index_t first;
  index_t all;
  T* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    to[i / channels * all + first + i % channels] = from[i];
  }
};
/// Takes one operand's channels out of the gradient of all.
template <class T>
struct split {
  const T* from;
  index_t all;
  index_t first;
  index_t channels;
  T* to;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const T v = from[i / channels * all + first + i % channels];
    to[i] = accumulate ? to[i] + v : v;
  }
};
}  // namespace functor

/// The channels of up to four features of one height and width, one behind the other.
struct concatenation {
  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "concat";               ///< for messages and profiles
  static constexpr operand_names operands{"x", "x2", "x3", "x4"};  ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    description d;
    d.needed = 0b0011;
    d.out = {0, in[0].height, in[0].width};
    for (int k = 0; k < most_operands; ++k)
      if (in[k].there()) {
        d.in[k] = {in[k].channels, in[0].height, in[0].width};
        d.out.channels += in[k].channels;
      }
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    index_t first = 0;
    for (const view<const T>& x : p.in)
      if (x) {
        const index_t channels = x.extents.channels;
        const functor::place<T> placed{x.data, channels, first, p.y.extents.channels, p.y.data};
        b.for_each_index(x.extents.size(), placed);
        first += channels;
      }
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    index_t first = 0;
    for (int k = 0; k < most_operands; ++k)
      if (p.in[k]) {
        const index_t channels = p.in[k].extents.channels;
        if (p.dx[k]) {
          const functor::split<T> own{
              .from = p.dy.data,
              .all = p.dy.extents.channels,
              .first = first,
              .channels = channels,
              .to = p.dx[k].data,
              .accumulate = p.accumulate[k],
          };
          b.for_each_index(p.in[k].extents.size(), own);
        }
        first += channels;
      }
  }
};

/// y [rows, h, w, c + c2] = [x, x2].
template <class Backend, class T>
void concat(Backend& b, input<T> x, input<T> x2, view<T> y) {
  run(b, concatenation{}, forward_pass<T>{.in = {x, x2}, .y = y});
}
/// to [rows, h, w, c] (+)= channels [first, first + c) of from: the backward of concat, once
/// for each input.
template <class Backend, class T>
void split(Backend& b, input<T> from, index_t first, view<T> to, bool accumulate = false) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  require<shape_error>(first >= 0 && first + to.extents.channels <= from.extents.channels,
                       "split: channels [", first, ", ", first + to.extents.channels, ") of ",
                       from.extents);
  shape s = to.extents;
  s.channels = from.extents.channels;
  expect("split", "from", from, s);
  expect("split", "to", to, to.extents);
  const functor::split<T> own{
      .from = from.data,
      .all = s.channels,
      .first = first,
      .channels = to.extents.channels,
      .to = to.data,
      .accumulate = accumulate,
  };
  b.for_each_index(to.extents.size(), own);
}

}  // namespace multistage::ops
