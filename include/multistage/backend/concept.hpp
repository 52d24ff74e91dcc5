// What a backend is: a copyable handle with memory, copies between host and device, one loop
// over indices, and the primitives that ops/ calls. A primitive is a free function whose first
// argument is the backend, found by overload: multiply, conv_forward, conv_backward_input,
// conv_backward_weight, norm_forward, norm_backward, resample, attention_forward,
// attention_backward, column_sums, row_sums. Operations own the mathematics, backends the
// speed.
//
//   static_assert(backend<cpu> && supports<cpu, operation::gemm, float>);
//   const cpu b;
//   b.for_each_index(n, functor);      // one loop, whatever the backend
#pragma once
#include <concepts>
#include <string_view>

#include "../core/config.hpp"

namespace multistage {

/// The operations a backend may support; see `supports`.
enum class operation { gemm, conv, norm, resample, attention, reduce, elementwise };

/// Whether `Backend` runs `Op` on `Scalar`. Backends specialise it; operations check it first
/// and say what to do.
template <class Backend, operation Op, class Scalar>
inline constexpr bool supports = false;

/// Rows of a piece, over which a step's gradients of parameters are summed (row_pieces): of
/// what a step done in parts is a multiple. Sums over 16 rows cost the cpu backend nothing: of
/// 13 layers of EDM's and of small networks, with batches of 64, 9 were faster than in one sum,
/// 1x1 convolutions on 16x16 pixels by 1.9; 4x4 pixels and linear layers took 1.0 to 1.3 times
/// as long. With 8 rows these took 1.3 to 1.7 times.
template <class Backend>
inline constexpr index_t gradient_piece = 16;

/// What the concept tries `for_each_index` with.
struct noop_functor {
  /// Does nothing, on host and device.
  MULTISTAGE_HD void operator()(index_t) const {}
};

/// @see the file's head.
template <class B>
concept backend = std::copyable<B> && requires(const B b,
                                               float* p,
                                               const float* c,
                                               index_t n,
                                               noop_functor f,
                                               typename B::template storage<float> s) {
  { B::name } -> std::convertible_to<std::string_view>;
  { B::on_host } -> std::convertible_to<bool>;  // whether its memory is the host's
  { b.template allocate<float>(n) } -> std::same_as<typename B::template storage<float>>;
  { B::pointer(s) } -> std::same_as<float*>;
  b.upload(c, p, n);       // host to device
  b.download(c, p, n);     // device to host
  b.copy(c, p, n);         // device to device
  b.for_each_index(n, f);  // f(i) for every i in [0, n), in any order; a third argument hints
                           // how many i make a task
  b.synchronize();         // returns when all work given to it is done
};

/// out[row] = the sum over i in [0, size) of f(row, i), in that order.
template <class F>
struct row_sum_functor {
  F f;
  index_t size;
  double* out;
  /// One row, in double whatever f returns.
  MULTISTAGE_HD void operator()(index_t row) const {
    double sum = 0;
    for (index_t i = 0; i < size; ++i)
      sum += f(row, i);
    out[row] = sum;
  }
};

/// out[row] = the sum over i in [0, size) of the double f(row, i), which is asked once for each
/// and may write what belongs to it. A primitive that a backend may have a better way for; the
/// order of additions is then its own, fixed by the extents.
template <class Backend, class F>
void sum_by_row(const Backend& b, index_t rows, index_t size, const F& f, double* out) {
  b.for_each_index(rows, row_sum_functor<F>{f, size, out}, 1);
}

/// First in the body of every operation.
#define MULTISTAGE_REQUIRE_SUPPORT(Backend, op, Scalar)                                        \
  static_assert(                                                                               \
      ::multistage::supports<Backend, ::multistage::operation::op,                             \
                             std::remove_const_t<Scalar>>,                                     \
      "multistage: this backend does not run operation '" #op                                  \
      "' on this scalar type; use float or double, multistage::eigen for other real ones, or " \
      "specialise multistage::supports<Backend, operation::" #op                               \
      ", Scalar> beside the backend's own primitive")

/// The same for an operation struct (ops/operation.hpp), which is named where the compiler says
/// what it was instantiating.
#define MULTISTAGE_REQUIRE_NEEDS(Backend, Op, Scalar)                                        \
  static_assert(                                                                             \
      ::multistage::supports<Backend, Op::needs, std::remove_const_t<Scalar>>,               \
      "multistage: this backend does not run this operation on this scalar type; use float " \
      "or double, multistage::eigen for other real ones, or specialise "                     \
      "multistage::supports<Backend, Op::needs, Scalar> beside the backend's own primitive")

}  // namespace multistage
