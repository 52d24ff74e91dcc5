// Operations that return their result: y = conv(x, w, {.stride = 2}). They take tensors and
// views of any strides (what does not lie one element after the other is copied first) and run
// on the backend of the first. The forms in ops:: write into tensors that are given, and have
// the backwards.
#pragma once
#include <tuple>

#include "../tensor/create.hpp"
#include "attention.hpp"
#include "combine.hpp"
#include "concat.hpp"
#include "conv.hpp"
#include "embedding.hpp"
#include "geglu.hpp"
#include "matmul.hpp"
#include "norm.hpp"
#include "pool.hpp"
#include "resample.hpp"

namespace multistage {
namespace detail {

/// An operand as operations need it: its elements one after the other, its own or a copy's.
template <class X, class Extents = typename X::extents_type>
class packed {
 public:
  using value_type = typename X::value_type;
  explicit packed(const X& x)
      : view_(x.cview()) {
    if (view_.contiguous())
      return;
    copy_ = tensor_copy(x);
    view_ = view<const value_type, Extents>(copy_.cview());
  }
  packed(const packed&) = delete;
  const view<const value_type, Extents>& operator*() const {
    return view_;
  }
  const value_type* data() const {
    return view_.data;
  }

 private:
  basic_tensor<value_type, typename X::extents_type, typename X::backend_type> copy_;
  view<const value_type, Extents> view_;
};
/// The same with four axes, as operations on images take them.
template <class X>
using packed_image = packed<X, shape>;

/// A result of given extents on the backend of x, of its type.
template <class X, class Extents>
auto result_beside(const X& x, const Extents& e) {
  using value = typename X::value_type;
  using backend = typename X::backend_type;
  return basic_tensor<value, Extents, backend>(x.backend(), e);
}
/// A result of four axes on the backend of x.
template <class X>
auto image_beside(const X& x, const shape& s) {
  return result_beside(x, s);
}

/// The number of axes of a tensor or view.
template <class X>
inline constexpr int rank_of = std::remove_cvref_t<X>::extents_type::rank();
/// What has four axes, [rows, height, width, channels].
template <class X>
concept image_like = tensor_like<X> &&(rank_of<X> == 4);
/// What has three axes, [rows, tokens, channels].
template <class X>
concept sequence_like = tensor_like<X> &&(rank_of<X> == 3);
/// What has two axes, [rows, columns].
template <class X>
concept matrix_like = tensor_like<X> &&(rank_of<X> == 2);
/// What has one axis.
template <class X>
concept vector_like = tensor_like<X> &&(rank_of<X> == 1);

/// The extents that a window makes of a channel-last image, in `channels` channels.
inline shape seen_through(const ops::conv_window& window, const shape& s, index_t channels) {
  return {s.rows, window.out(s.height), window.out_width(s.width), channels};
}
/// One number a channel, from a vector.
template <class T, class E>
view<const T> by_channel(const view<const T, E>& v) {
  return {v.data, shape{1, 1, 1, v.extents[0]}};
}

}  // namespace detail

/// How a window of a convolution or of pooling moves.
struct window_motion {
  int stride = 1;    ///< pixels from one output to the next
  int padding = -1;  ///< zeros before the first row; below 0: what keeps the height at stride
                     ///< 1 (kernels of odd size)
  int padding_end = -1;    ///< behind the last row and column; below 0 as before the first
  int stride_width = 0;    ///< along the width; 0: as along the height
  int padding_width = -1;  ///< before the first column; below 0: as `padding`

  /// The window of these extents that moves so.
  ops::conv_window of(index_t height, index_t width) const {
    const auto before = [](int given, int otherwise) {
      return given < 0 ? otherwise : given;
    };
    const int keeps_height = int(height - 1) / 2;
    const int keeps_width = padding < 0 ? int(width - 1) / 2 : padding;
    return {.kernel = int(height),
            .stride = stride,
            .padding = before(padding, keeps_height),
            .padding_end = padding_end,
            .kernel_width = int(width),
            .stride_width = stride_width,
            .padding_width = before(padding_width, keeps_width)};
  }
};

/// Convolution of x [rows, height, width, in] with weights [kernel height, kernel width, in,
/// out]. @throws shape_error
template <detail::image_like X, detail::image_like W>
auto conv(const X& x, const W& weight, const window_motion& how = {}) {
  const detail::packed_image<X> from(x);
  const detail::packed_image<W> w(weight);
  const auto& kernel = weight.extents();
  const ops::conv_window window = how.of(kernel[0], kernel[1]);
  const index_t out = kernel[3];
  const shape& s = (*from).extents;
  auto y = detail::image_beside(x, detail::seen_through(window, s, out));
  ops::conv(y.backend(), *from, *w, y.view(), window);
  return y;
}
/// With a bias [out] added. @throws shape_error
template <detail::image_like X, detail::image_like W, detail::vector_like B>
auto conv(const X& x, const W& weight, const B& bias, const window_motion& how = {}) {
  auto y = conv(x, weight, how);
  y += bias;
  return y;
}

/// The product of two matrices of any strides, none of which is copied. @throws shape_error
/// where their inner extents differ
template <detail::matrix_like A, detail::matrix_like B>
auto matmul(const A& a, const B& b) {
  using T = typename A::value_type;
  MULTISTAGE_REQUIRE_SUPPORT(typename A::backend_type, gemm, T);
  static_assert(std::is_same_v<T, typename B::value_type>,
                "multistage: matmul: both matrices have one element type; cast<T>() converts");
  const bool chains = a.extents()[1] == b.extents()[0];
  require<shape_error>(chains, "matmul: A is ", a.extents(), " and B is ", b.extents(),
                       "; the inner extents must be equal");
  const index_t rows = a.extents()[0];
  const index_t columns = b.extents()[1];
  auto c = detail::result_beside(a, rank<2>(rows, columns));
  const auto of = [](const auto& v) {
    const auto& e = v.extents;
    const auto& s = v.strides;
    return matrix_view<const T>{v.data, e[0], e[1], s[0], s[1]};
  };
  const matrix_view<T> to{c.data(), rows, columns};
  multiply(c.backend(), of(a.cview()), of(b.cview()), to);
  return c;
}

/// x [rows, in] times weight [in, out], and a bias [out] added.
template <detail::matrix_like X, detail::matrix_like W>
auto linear(const X& x, const W& weight) {
  return matmul(x, weight);
}
/// With a bias [out] added. @throws shape_error
template <detail::matrix_like X, detail::matrix_like W, detail::vector_like B>
auto linear(const X& x, const W& weight, const B& bias) {
  auto y = matmul(x, weight);
  y += bias;
  return y;
}

/// How a group normalisation works.
struct normalisation {
  index_t groups = 1;  ///< of neighbouring channels; their number divides that of the channels
  double epsilon = 1e-5;  ///< added to the variance
  bool silu = false;      ///< whether SiLU follows
};
/// Group normalisation of x [rows, height, width, channels] with weight and bias [channels].
template <detail::image_like X, detail::vector_like W, detail::vector_like B>
auto group_norm(const X& x, const W& weight, const B& bias, const normalisation& how) {
  using T = typename X::value_type;
  const detail::packed_image<X> from(x);
  const detail::packed<W> w(weight);
  const detail::packed<B> b(bias);
  const shape& s = (*from).extents;
  require<value_error>(how.groups >= 1, "group_norm: groups = ", how.groups,
                       "; at least 1 is needed");
  auto y = detail::image_beside(x, s);
  auto statistics = detail::image_beside(x, {s.rows, 1, how.groups, 2});
  const ops::norm_options<T> options{
      .groups = how.groups,
      .epsilon = T(how.epsilon),
      .silu = how.silu,
  };
  ops::group_norm(y.backend(), *from, detail::by_channel(*w), detail::by_channel(*b),
                  statistics.view(), y.view(), options);
  return y;
}

/// Softmax attention of queries [rows, queries, channels] to keys and values [rows, keys,
/// channels].
template <detail::sequence_like Q, detail::sequence_like K, detail::sequence_like V>
auto attention(const Q& q, const K& k, const V& v, index_t heads) {
  const detail::packed<Q> of_q(q);
  const detail::packed<K> of_k(k);
  const detail::packed<V> of_v(v);
  // Tokens lie as the rows of an image one pixel wide.
  const auto image = [](const auto& x) {
    using T = typename std::remove_cvref_t<decltype(x)>::value_type;
    const auto& e = x.extents;
    return view<const T>(x.data, shape{e[0], e[1], 1, e[2]});
  };
  auto y = tensor_copy(q);  // memory of the result's extents
  const view<typename Q::value_type> to(y.data(), image(*of_q).extents);
  ops::attention(y.backend(), image(*of_q), image(*of_k), image(*of_v), to, heads);
  return y;
}

namespace detail {
/// A new image: x resampled.
template <image_like X>
auto resampled(const X& x, const ops::resampling& how) {
  const packed_image<X> from(x);
  ops::forward_pass<typename X::value_type> pass{.in = {*from}};
  const ops::description d = ops::checked(how, pass);
  auto y = image_beside(x, d.out.of(pass.rows()));
  pass.y = y.view();
  ops::run(y.backend(), how, pass, d);
  return y;
}
}  // namespace detail

/// x [rows, height, width, channels] at half the resolution: by default the mean of 2 x 2
/// pixels. @throws shape_error where the filter does not fit, value_error for one out of range
template <detail::image_like X>
auto downsample(const X& x, const ops::resample_filter& filter = {}) {
  return detail::resampled(x, {filter, false});
}
/// x [rows, height, width, channels] at twice the resolution: by default each pixel four times.
/// @throws as downsample does
template <detail::image_like X>
auto upsample(const X& x, const ops::resample_filter& filter = {}) {
  return detail::resampled(x, {filter, true});
}

/// a gelu(g) for x = [a, g] along the channels of [rows, height, width, 2 channels].
template <detail::image_like X>
auto geglu(const X& x) {
  const detail::packed_image<X> from(x);
  const shape& s = (*from).extents;
  require<shape_error>(s.channels % 2 == 0, "geglu: x ", s, " has an odd number of channels");
  auto y = detail::image_beside(x, {s.rows, s.height, s.width, s.channels / 2});
  ops::geglu(y.backend(), *from, y.view());
  return y;
}

/// The maximum or mean of each window of `kernel` x `kernel` pixels of x [rows, height, width,
/// channels]; windows lie side by side unless `how` says otherwise. @throws shape_error,
/// value_error for padding that is not less than the kernel
template <detail::image_like X>
auto pool(const X& x,
          int kernel,
          ops::pool_kind kind = ops::pool_kind::maximum,
          window_motion how = {.stride = 0, .padding = 0}) {
  if (how.stride == 0)
    how.stride = kernel;
  const detail::packed_image<X> from(x);
  const ops::conv_window window = how.of(kernel, kernel);
  const shape& s = (*from).extents;
  auto y = detail::image_beside(x, detail::seen_through(window, s, s.channels));
  ops::pool(y.backend(), *from, y.view(), kind, window);
  return y;
}

/// The channels of two to four tensors, one behind the other. @throws shape_error
template <detail::image_like X, detail::image_like... Others>
auto concat(const X& x, const Others&... others) {
  using T = typename X::value_type;
  static_assert(sizeof...(Others) >= 1 && sizeof...(Others) < ops::most_operands,
                "multistage: concat takes two to four tensors");
  using packed_parts = std::tuple<detail::packed_image<X>, detail::packed_image<Others>...>;
  const packed_parts parts(x, others...);
  const auto operands = [](const auto&... part) {
    return ops::forward_pass<T>{.in = {view<const T>(*part)...}};
  };
  ops::forward_pass<T> pass = std::apply(operands, parts);
  shape s = pass.in[0].extents;
  s.channels = (x.extents()[3] + ... + others.extents()[3]);
  auto y = detail::image_beside(x, s);
  pass.y = y.view();
  ops::run(y.backend(), ops::concatenation{}, pass);
  return y;
}

/// Layer normalisation over the channels of each pixel of x [rows, height, width, channels]
/// with weight and bias [channels]. @throws shape_error
template <detail::image_like X, detail::vector_like W, detail::vector_like B>
auto layer_norm(const X& x, const W& weight, const B& bias, double epsilon = 1e-5) {
  using T = typename X::value_type;
  const detail::packed_image<X> from(x);
  const detail::packed<W> w(weight);
  const detail::packed<B> b(bias);
  const shape& s = (*from).extents;
  auto y = detail::image_beside(x, s);
  auto statistics = detail::image_beside(x, {s.rows * s.pixels(), 1, 1, 2});
  ops::layer_norm(y.backend(), *from, detail::by_channel(*w), detail::by_channel(*b),
                  statistics.view(), y.view(), T(epsilon));
  return y;
}

/// Sines and cosines [count, channels] of noise levels [count].
template <detail::vector_like X>
auto embedding(const X& values, index_t channels, const ops::embedding_form& form = {}) {
  using T = typename X::value_type;
  const detail::packed<X> from(values);
  const index_t count = values.extents()[0];
  auto y = detail::result_beside(values, rank<2>(count, channels));
  const view<const T> levels(from.data(), {count, 1, 1, 1});
  const view<T> to(y.data(), {count, 1, 1, channels});
  ops::embedding(y.backend(), levels, to, form);
  return y;
}

}  // namespace multistage
