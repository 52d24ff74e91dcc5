// Operations that return their results, on operands of any strides, against the same by plain
// loops; and that operations deduce what they are given.
#include <multistage/backend/thrust/backend.hpp>
#include <multistage/backend/thrust/systems.hpp>
#include <multistage/operations.hpp>

#include "catch.hpp"

namespace ms = multistage;

namespace {

using ms::index_t;

template <class A, class B>
double distance(const A& a, const B& b) {
  return ms::norm(ms::eval(a - b).to(ms::cpu())) / (1e-30 + ms::norm(b));
}
template <class Backend>
auto draw(const Backend& b, std::uint64_t key, index_t n0, index_t n1, index_t n2, index_t n3) {
  return ms::normal<double>({n0, n1, n2, n3}, ms::random_stream(key), b);
}

}  // namespace

TEMPLATE_TEST_CASE("operations take any strides and return what their definitions say",
                   "",
                   ms::cpu,
                   ms::thrust_cpp) {
  TestType b;
  const auto planar = draw(b, 1, 2, 3, 6, 5);            // NCHW
  const auto x = planar.template permute<0, 2, 3, 1>();  // NHWC, seen
  const auto w =
      draw(b, 2, 4, 3, 3, 3)
          .template permute<1, 2, 3, 0>();  // [kernel, kernel, in, out], from PyTorch's order
  const auto bias = ms::normal<double>({4}, ms::random_stream(3), b);
  const auto hx = x.to(ms::cpu());
  const auto hw = w.to(ms::cpu());
  const auto hb = bias.to(ms::cpu());
  for (const int stride : {1, 2}) {
    const auto y = ms::conv(x, w, bias, {.stride = stride}).to(ms::cpu());
    REQUIRE(y.extents() == ms::shape{2, (6 - 1) / stride + 1, (5 - 1) / stride + 1, 4});
    for (index_t n = 0; n < y.extents().rows; ++n)
      for (index_t i = 0; i < y.extents().height; ++i)
        for (index_t j = 0; j < y.extents().width; ++j)
          for (index_t o = 0; o < 4; ++o) {
            double s = hb(o);
            for (index_t u = 0; u < 3; ++u)
              for (index_t v = 0; v < 3; ++v)
                for (index_t c = 0; c < 3; ++c) {
                  const index_t p = i * stride + u - 1;
                  const index_t q = j * stride + v - 1;
                  if (p >= 0 && p < 6 && q >= 0 && q < 5)
                    s += hx(n, p, q, c) * hw(u, v, c, o);
                }
            CHECK(y(n, i, j, o) == Approx(s).margin(1e-12));
          }
  }
  const auto left =
      planar.template at<0>(0).template at<1>(2);  // [3, 5] with a stride between rows
  const auto right = planar.template at<0>(1).template at<1>(1).transpose();  // [5, 3]
  const auto product = ms::matmul(left, right).to(ms::cpu());
  const auto hl = left.to(ms::cpu());
  const auto hr = right.to(ms::cpu());
  for (index_t i = 0; i < 3; ++i)
    for (index_t j = 0; j < 3; ++j) {
      double s = 0;
      for (index_t k = 0; k < 5; ++k)
        s += hl(i, k) * hr(k, j);
      CHECK(product(i, j) == Approx(s));
    }
  const auto three = bias.template slice<0>(0, 3);
  CHECK(distance(ms::linear(left, right, three), ms::eval(ms::matmul(left, right) + three)) <
        1e-15);

  const auto weight = ms::full({6}, 1.5, b);
  const auto shift = ms::full({6}, 0.25, b);
  const auto wide = ms::concat(x, x.template reverse<3>());  // [2, 6, 5, 6]
  CHECK(distance(wide.template slice<3>(3, 6).template reverse<3>(), x) == 0);
  const auto normed = ms::group_norm(wide.template reverse<1>(), weight, shift, {.groups = 2});
  const auto grouped = wide.template reverse<1>().copy().reshape({2, 30, 2, 3});
  const auto mean = ms::mean(grouped, ms::axes{1, 3}, ms::keep);
  const auto variance = ms::mean(ms::square(grouped - mean), ms::axes{1, 3}, ms::keep);
  CHECK(distance(normed.reshape({2, 30, 2, 3}),
                 ms::eval(1.5 * (grouped - mean) / ms::sqrt(variance + 1e-5) + 0.25)) < 1e-12);

  const auto small = ms::downsample(x.template slice<2>(0, 4));
  const auto parts = x.template slice<2>(0, 4).copy().reshape({2, 3, 2, 2, 2, 3});
  CHECK(distance(small, ms::mean(parts, ms::axes{2, 4})) < 1e-14);
  CHECK(distance(ms::downsample(ms::upsample(small)), small) < 1e-14);
  const auto gated = ms::geglu(wide);
  CHECK(distance(gated, ms::eval(wide.template slice<3>(0, 3) *
                                 ms::gelu(wide.template slice<3>(3, 6)))) < 1e-14);

  const auto tokens = ms::normal<double>({2, 7, 8}, ms::random_stream(5), b);
  const auto keys = ms::normal<double>({2, 8, 9}, ms::random_stream(6), b)
                        .template permute<0, 2, 1>();  // [2, 9, 8]
  const auto attended = ms::attention(tokens, keys, keys, 2);
  for (index_t row = 0; row < 2; ++row)
    for (const index_t head : {0, 1}) {
      const auto q = tokens.template at<0>(row).template slice<1>(4 * head, 4 * head + 4);
      const auto k = keys.template at<0>(row).template slice<1>(4 * head, 4 * head + 4);
      const auto scores = ms::eval(ms::exp(0.5 * ms::matmul(q, k.transpose())));
      const auto share = ms::eval(scores / ms::sum(scores, ms::axes{1}, ms::keep));
      CHECK(distance(attended.template at<0>(row).template slice<1>(4 * head, 4 * head + 4),
                     ms::matmul(share, k)) < 1e-13);
    }
  const auto waves = ms::embedding(ms::iota<double>(3, 0.5, 1.0, b), 8);
  CHECK(waves.to(ms::cpu())(1, 4) == Approx(std::cos(1.5)));
}

TEST_CASE(
    "operations deduce their arguments: tensors, const or not, are operands; views are "
    "results") {
  ms::cpu b;
  ms::tensor<float> x = ms::normal<float>({1, 4, 4, 8}, ms::random_stream(1)), y(x.extents());
  ms::ops::silu(b, x, y.view());
  const ms::tensor<float> want = ms::silu(x);
  CHECK(ms::norm(y - want) < 1e-5);
  ms::ops::map_backward<ms::gelu_function>(b, x, std::as_const(y), y.view());
  ms::ops::fill(b, y.view(), 2);  // an int is what a float takes
  CHECK(ms::sum(y) == 256);
  ms::tensor<float> w = ms::normal<float>({1, 1, 8, 2}, ms::random_stream(2)), z({1, 4, 4, 2}),
                    dw(w.extents());
  ms::ops::conv(b, x, w, z.view(), {1, 1, 0}, {.scale = 2});
  ms::ops::conv_backward(b, x, w, z, {}, dw.view(), {}, {1, 1, 0});
  CHECK(ms::norm(z / 2 - ms::conv(x, w, {.padding = 0})) < 1e-5);
}

TEST_CASE("windows: rectangular convolutions, and pooling") {
  // One image of one channel, 1..12 in 3 rows of 4; a kernel of ones sums its window.
  const ms::tensor<double> x = ms::iota<double>(12, 1.0, 1.0).reshape({1, 3, 4, 1}).copy();
  const auto flat = ms::conv(x, ms::full<double>({1, 3, 1, 1}, 1.0));
  CHECK(flat.to_host() == std::vector<double>{3, 6, 9, 7, 11, 18, 21, 15, 19, 30, 33, 23});
  const auto upright = ms::conv(x, ms::full<double>({3, 1, 1, 1}, 1.0), {.padding = 0});
  CHECK(upright.extents() == ms::shape{1, 1, 4, 1});
  CHECK(upright.to_host() == std::vector<double>{15, 18, 21, 24});
  const auto apart =
      ms::conv(x, ms::full<double>({1, 2, 1, 1}, 1.0), {.padding = 0, .stride_width = 2});
  CHECK(apart.to_host() == std::vector<double>{3, 7, 11, 15, 19, 23});
  CHECK(ms::pool(x, 2).to_host() == std::vector<double>{6, 8});
  using kind = ms::ops::pool_kind;
  CHECK(ms::pool(x, 2, kind::mean).to_host() == std::vector<double>{3.5, 5.5});
  const auto corner = [&](kind k) {
    return ms::pool(x, 3, k, {.stride = 1}).to_host()[0];
  };
  CHECK(corner(kind::maximum) == 6);
  CHECK(corner(kind::mean) == (1 + 2 + 5 + 6) / 4.0);
  CHECK(corner(kind::mean_with_border) == Approx((1 + 2 + 5 + 6) / 9.0));
  CHECK(ms::tensor<double>(ms::relu(x - 6.0)).to_host()[5] == 0);
  CHECK(ms::tensor<double>(ms::relu(x - 6.0)).to_host()[11] == 6);
  // Zeros behind the image alone: one pixel is no longer its own result.
  CHECK(ms::conv(x, ms::full<double>({1, 1, 1, 1}, 1.0), {.padding = 0, .padding_end = 1})
            .to_host() ==
        std::vector<double>{1, 2, 3, 4, 0, 5, 6, 7, 8, 0, 9, 10, 11, 12, 0, 0, 0, 0, 0, 0});
  CHECK_THROWS_AS(ms::pool(x, 4), ms::shape_error);
  CHECK_THROWS_AS(ms::pool(x, 2, kind::mean, {.stride = 1, .padding = 2}), ms::value_error);
}

TEST_CASE("two to four tensors behind one another; layers; whole numbers") {
  const ms::tensor<double> x = ms::iota<double>(4, 1.0, 1.0).reshape({1, 1, 2, 2}).copy();
  CHECK(ms::concat(x, x).extents() == ms::shape{1, 1, 2, 4});
  CHECK(ms::concat(x, x.slice<3>(1, 2), x).to_host() ==
        std::vector<double>{1, 2, 2, 1, 2, 3, 4, 4, 3, 4});
  const auto one = ms::full<double>({2}, 1.0);
  const auto zero = ms::zeros<double>({2});
  const auto y = ms::layer_norm(x, one, zero, 1e-12).to_host();
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(y[i] == Approx(i % 2 ? 1 : -1));
  CHECK_THROWS_AS(ms::concat(x, ms::zeros<double>({1, 2, 2, 2})), ms::shape_error);
  const auto whole = ms::full<unsigned>({1}, 1u);
  CHECK(ms::sum(ms::sigmoid(whole)) == Approx(1 / (1 + std::exp(-1.0))));
  CHECK(ms::sum(ms::gelu(whole)) == Approx(0.5 * (1 + std::erf(std::sqrt(0.5)))));
}

TEST_CASE("what eager operations refuse") {
  const auto x = ms::normal<float>({1, 4, 4, 8}, ms::random_stream(1));
  const auto w = ms::normal<float>({3, 3, 7, 2}, ms::random_stream(2));
  CHECK_THROWS_WITH(ms::conv(x, w),
                    Catch::Contains("weight") && Catch::Contains("[3, 3, 8, 2]"));
  CHECK_THROWS_AS(ms::matmul(x.at<0>(0).at<0>(0), x.at<0>(0).at<0>(0)), ms::shape_error);
  CHECK_THROWS_AS(ms::geglu(x.slice<3>(0, 7)), ms::shape_error);
  const auto seven = ms::zeros<float>({7});
  CHECK_THROWS_AS(ms::group_norm(x, seven, seven, {.groups = 2}), ms::shape_error);
  CHECK_THROWS_AS(ms::group_norm(x, seven, seven, {.groups = 0}), ms::value_error);
}

TEST_CASE("an empty batch gives an empty result; there is no attention to no keys") {
  const ms::tensor<float> x({0, 8, 8, 4});
  const auto w = ms::normal<float>({3, 3, 4, 2}, ms::random_stream(1));
  const auto ones = ms::full<float>({4}, 1.0f);
  CHECK(ms::conv(x, w).extents() == ms::shape{0, 8, 8, 2});
  CHECK(ms::group_norm(x, ones, ones, {.groups = 2}).extents() == x.extents());
  CHECK(ms::downsample(x).extents() == ms::shape{0, 4, 4, 4});
  CHECK(ms::concat(x, x).extents() == ms::shape{0, 8, 8, 8});
  const ms::tensor<float, ms::rank<3>> none({0, 4, 8});
  CHECK(ms::attention(none, none, none, 2).size() == 0);
  const auto q = ms::normal<float>({2, 4, 8}, ms::random_stream(2));
  const ms::tensor<float, ms::rank<3>> no_keys({2, 0, 8});
  CHECK_THROWS_WITH(ms::attention(q, no_keys, no_keys, 2), Catch::Contains("no keys"));
}
