// Dropout (Srivastava et al. 2014) with counter-based masks: y = x m / (1 - p), where element i
// of a stream is kept (m = 1) when its uniform number is at least p. The mask is a function of
// (seed, stream, element), so that backward makes it again instead of storing it, and every
// backend and number of threads drops the same values. Backward is the same operation on
// gradients.
//
// The scale 1 / (1 - p) keeps the expected value, so that nothing changes when dropout is off.
#pragma once
#include "../core/random.hpp"
#include "elementwise.hpp"
#include "operation.hpp"

namespace multistage::ops {

namespace functor {
/// y (+)= x m / (1 - share), with the mask m made of the element's number.
template <class T>
struct dropout {
  const T* x;
  random_stream numbers;
  index_t first;
  T share;
  T* y;
  bool accumulate;
  MULTISTAGE_HD void operator()(index_t i) const {
    const bool keep = numbers.uniform(std::uint64_t(first + i)) >= double(share);
    const T v = keep ? x[i] / (T(1) - share) : T(0);
    y[i] = accumulate ? y[i] + v : v;
  }
};
}  // namespace functor

/// @see the file's head. Without numbers in its pass nothing is dropped.
struct dropping {
  double share = 0;  ///< of the values that are dropped

  static constexpr operation needs = operation::elementwise;  ///< a backend must support it
  static constexpr const char* name = "dropout";              ///< for messages and profiles
  static constexpr operand_names operands{"x"};               ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    if (!(share >= 0 && share < 1))
      return refused(graph_problem::attributes, "the share that is dropped lies in [0, 1)");
    description d = elementwise(in[0]);
    d.kept = keeping::never;
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    drop(b, p, p.in[0].data, p.y.data, p.y.extents.size(), false);
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    drop<Backend, T>(b, p, p.dy.data, p.dx[0].data, p.dy.extents.size(), p.accumulate[0]);
  }

 private:
  /// Forward and backward alike.
  template <class Backend, class T>
  void drop(Backend& b,
            const forward_pass<T>& p,
            const T* from,
            T* to,
            index_t size,
            bool accumulate) const {
    if (!p.numbers)
      return add_to(b, to, from, T(1), accumulate, size);
    const functor::dropout<T> dropped{
        .x = from,
        .numbers = *p.numbers,
        .first = p.first_number,
        .share = T(share),
        .y = to,
        .accumulate = accumulate,
    };
    b.for_each_index(size, dropped, 256);
  }
};

/// y (+)= dropout(x), any extents; y may be x's own memory. @param share of values to drop, in
/// [0, 1). @param first the element of the stream that x's first value takes. @throws
/// value_error
template <class Backend, class T>
void dropout(Backend& b,
             input<T> x,
             view<T> y,
             double share,
             random_stream numbers,
             index_t first = 0,
             bool accumulate = false) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  require<value_error>(share >= 0 && share < 1, "dropout: share = ", share,
                       " is outside [0, 1)");
  expect_packed("dropout", "x", x);
  expect("dropout", "y", y, x.extents);
  const functor::dropout<T> dropped{x.data, numbers, first, T(share), y.data, accumulate};
  b.for_each_index(x.extents.size(), dropped, 256);
}

}  // namespace multistage::ops
