// What the Eigen backend promises beyond its results, which tests/test_ops.cpp and the golden
// data hold with those of the others: bits that depend on nothing but the inputs, and any real
// scalar.
#ifdef _OPENMP
#include <omp.h>
#endif

#include "support.hpp"

namespace {

using test::normals;

/// A convolution, a norm with SiLU, a linear layer and attention, one after the other; y has a
/// value for each of x's.
template <class T>
std::vector<T> small_network(const ms::eigen& backend, ms::shape s, const std::vector<T>& x) {
  ms::eigen b = backend;
  const ms::index_t c = s.channels;
  const ms::tensor<T, ms::eigen> tx(b, s, x), w(b, {3, 3, c, c}, normals<T>(9 * c * c, 1)),
      scale(b, {1, 1, 1, c}, normals<T>(c, 2)), shift(b, {1, 1, 1, c}, normals<T>(c, 3)),
      square(b, {1, 1, c, c}, normals<T>(c * c, 4));
  ms::tensor<T, ms::eigen> y(b, s), z(b, s), out(b, s), statistics(b, {s.rows, 1, 1, 2});
  ms::ops::conv<ms::eigen, T>(b, tx.view(), w.view(), y.view());
  ms::ops::group_norm<ms::eigen, T>(b, std::as_const(y).view(), scale.view(), shift.view(),
                                    statistics.view(), z.view(), {.groups = 1, .silu = true});
  ms::ops::conv<ms::eigen, T>(b, std::as_const(z).view(), square.view(), y.view(), {1, 1, 0});
  ms::ops::attention<ms::eigen, T>(b, std::as_const(y).view(), std::as_const(z).view(),
                                   tx.view(), out.view(), 1);
  return out.to_host();
}

/// C of a product of 45 x 19 x 2000, whose operands begin `offset` elements into memory that
/// Eigen aligns.
std::vector<float> shifted_product(ms::index_t offset, bool transpose_a, bool transpose_b) {
  const ms::index_t m = 45;
  const ms::index_t n = 19;
  const ms::index_t k = 2000;
  ms::eigen b(2);
  ms::tensor<float, ms::eigen> left(b, {1, 1, 1, m * k + offset}),
      right(b, {1, 1, 1, k * n + offset}), c(b, {1, 1, 1, m * n + offset});
  const auto va = normals<float>(m * k, 1);
  const auto vb = normals<float>(k * n, 2);
  std::copy(va.begin(), va.end(), left.data() + offset);
  std::copy(vb.begin(), vb.end(), right.data() + offset);
  const auto of = [](const float* data, ms::index_t rows, ms::index_t columns,
                     bool transposed) {
    using matrix = ms::matrix_view<const float>;
    return transposed ? matrix{data, columns, rows}.transposed() : matrix{data, rows, columns};
  };
  multiply(b, of(left.data() + offset, m, k, transpose_a),
           of(right.data() + offset, k, n, transpose_b),
           ms::matrix_view<float>{c.data() + offset, m, n}, 1.5f);
  return {c.data() + offset, c.data() + offset + m * n};
}

}  // namespace

TEST_CASE("on Eigen a row's bits depend neither on the batch nor on the threads") {
  // neither tiles nor registers come out even
  const ms::shape s{7, 5, 3, 11};
  const ms::shape one{1, 5, 3, 11};
  const auto x = normals<float>(s.size(), 9);
  const auto all = small_network<float>(ms::eigen(1), s, x);
  CHECK((small_network<float>(ms::eigen(2), s, x) == all));
  CHECK((small_network<float>(ms::eigen(5), s, x) == all));
  for (ms::index_t row = 0; row < s.rows; ++row) {
    const auto begin = row * one.size();
    const auto end = begin + one.size();
    const auto alone =
        small_network<float>(ms::eigen(2), one, {x.begin() + begin, x.begin() + end});
    CHECK(std::equal(alone.begin(), alone.end(), all.begin() + begin));
  }
  for (const ms::index_t n : {1, 2, 31}) {  // rows of a product, of a vector too
    ms::eigen b(2);
    const ms::tensor<float, ms::eigen> left(b, {70, 1, 1, 201}, normals<float>(70 * 201, 1)),
        right(b, {201, 1, 1, n}, normals<float>(201 * n, 2));
    ms::tensor<float, ms::eigen> c(b, {70, 1, 1, n}), row(b, {1, 1, 1, n});
    ms::ops::matmul<ms::eigen, float>(b, left.view(), right.view(), c.view());
    for (const ms::index_t r : {0, 3, 31, 32, 69}) {
      ms::ops::matmul<ms::eigen, float>(b, left.view().rows(r, 1), right.view(), row.view());
      CHECK(std::equal(row.data(), row.data() + n, c.data() + r * n));
    }
  }
}

TEST_CASE(
    "on Eigen bits depend neither on where operands lie, nor on the machine's caches, nor on "
    "Eigen's own threads") {
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const auto want = shifted_product(0, ta, tb);
      for (const ms::index_t offset : {1, 2, 5, 8})
        CHECK((shifted_product(offset, ta, tb) == want));
    }
  const ms::shape s{2, 9, 9, 64};
  const auto x = normals<float>(s.size(), 9);
  const auto want = small_network<float>(ms::eigen(2), s, x);
  const auto product = shifted_product(0, false, false);
  const auto l1 = Eigen::l1CacheSize();
  const auto l2 = Eigen::l2CacheSize();
  const auto l3 = Eigen::l3CacheSize();
  for (const std::ptrdiff_t kib : {16, 32, 64, 128}) {
    Eigen::setCpuCacheSizes(kib << 10, kib << 13, kib << 15);
    CHECK((small_network<float>(ms::eigen(2), s, x) == want));
    CHECK((shifted_product(0, false, false) == product));
  }
  Eigen::setCpuCacheSizes(l1, l2, l3);
#ifdef _OPENMP
  const int threads = Eigen::nbThreads();
  for (const int n : {1, 2, 7}) {
    Eigen::setNbThreads(n);
    CHECK((small_network<float>(ms::eigen(1), s, x) == want));
    CHECK((shifted_product(0, false, false) == product));
  }
  Eigen::setNbThreads(threads);
#endif
}

TEST_CASE("on Eigen NaN passes through every operation") {
  const ms::shape s{2, 4, 4, 3};
  auto x = normals<float>(s.size(), 9);
  x[5] = std::numeric_limits<float>::quiet_NaN();
  const auto y = small_network<float>(ms::eigen(2), s, x);
  for (ms::index_t i = 0; i < s.row_size(); ++i)
    REQUIRE(std::isnan(y[std::size_t(i)]));
  for (ms::index_t i = s.row_size(); i < s.size(); ++i)
    REQUIRE(!std::isnan(y[std::size_t(i)]));  // the other row
}

namespace {

using real = long double;
using tensor = ms::tensor<real, ms::eigen>;

/// A loss r . f(x), its gradient by x from `backward`, and central differences, all in long
/// double: the worst error as a share of the largest gradient. What double could not reach
/// shows that no step of the way was taken in less.
template <class F>
double long_gradient_error(std::vector<real> x, const std::vector<real>& gradient, F&& loss) {
  real worst = 0;
  real scale = 0;
  for (const real g : gradient)
    scale = std::max(scale, std::fabs(g));
  for (std::size_t i = 0; i < x.size(); i += 3) {
    const real keep = x[i];
    const real h = 1e-6L;
    x[i] = keep + h;
    const real above = loss(x);
    x[i] = keep - h;
    const real below = loss(x);
    x[i] = keep;
    worst = std::max(worst, std::fabs((above - below) / (2 * h) - gradient[i]));
  }
  return double(worst / scale);
}
real dot(const std::vector<real>& a, const std::vector<real>& b) {
  real sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += a[i] * b[i];
  return sum;
}

}  // namespace

TEST_CASE("gradients in long double") {
  constexpr double bar = 1e-11;
  ms::eigen b(2);
  const ms::shape s{2, 4, 5, 6};
  const auto x = normals<real>(s.size(), 1);
  const auto r = normals<real>(s.size(), 2);
  const tensor dy(b, s, r);
  tensor dx(b, s);
  SECTION("conv") {
    const tensor w(b, {3, 3, 6, 6}, normals<real>(9 * 36, 3));
    ms::ops::conv_backward<ms::eigen, real>(b, tensor(b, s, x).view(), w.view(), dy.view(),
                                            dx.view(), {}, {});
    CHECK(long_gradient_error(x, dx.to_host(), [&](const auto& v) {
            tensor y(b, s);
            ms::ops::conv<ms::eigen, real>(b, tensor(b, s, v).view(), w.view(), y.view());
            return dot(y.to_host(), r);
          }) < bar);
  }
  SECTION("group norm and SiLU") {
    const tensor w(b, {1, 1, 1, 6}, normals<real>(6, 3)),
        bias(b, {1, 1, 1, 6}, normals<real>(6, 4));
    tensor statistics(b, {2, 1, 2, 2}), partials(b, {2, 1, 1, 12});
    const ms::ops::norm_options<real> options{.groups = 2, .silu = true};
    const auto forward = [&](const std::vector<real>& v) {
      tensor y(b, s);
      ms::ops::group_norm<ms::eigen, real>(b, tensor(b, s, v).view(), w.view(), bias.view(),
                                           statistics.view(), y.view(), options);
      return dot(y.to_host(), r);
    };
    forward(x);
    ms::ops::group_norm_backward<ms::eigen, real>(
        b, tensor(b, s, x).view(), w.view(), bias.view(), statistics.view(), options,
        {.dy = dy.data(), .dx = dx.data(), .partials = partials.data()});
    CHECK(long_gradient_error(x, dx.to_host(), forward) < bar);
  }
  SECTION("attention, by keys") {
    const tensor q(b, s, normals<real>(s.size(), 3)), v(b, s, normals<real>(s.size(), 4));
    tensor y(b, s), log_sum_exp(b, {2, 2, 20, 1}), dq(b, s), dv(b, s);
    const auto forward = [&](const std::vector<real>& k) {
      ms::ops::attention<ms::eigen, real>(b, q.view(), tensor(b, s, k).view(), v.view(),
                                          y.view(), 2, log_sum_exp.view());
      return dot(y.to_host(), r);
    };
    forward(x);
    ms::ops::attention_backward<ms::eigen, real>(b, q.view(), tensor(b, s, x).view(), v.view(),
                                                 y.view(), 2, log_sum_exp.view(), dy.view(),
                                                 dq.view(), dx.view(), dv.view());
    CHECK(long_gradient_error(x, dx.to_host(), forward) < bar);
  }
  SECTION("SiLU by itself") {
    ms::ops::silu_backward<ms::eigen, real>(b, tensor(b, s, x).view(), dy.view(), dx.view());
    CHECK(long_gradient_error(x, dx.to_host(), [&](const auto& v) {
            tensor y(b, s);
            ms::ops::silu<ms::eigen, real>(b, tensor(b, s, v).view(), y.view());
            return dot(y.to_host(), r);
          }) < bar);
  }
  SECTION("GELU by itself") {
    ms::ops::gelu_backward<ms::eigen, real>(b, tensor(b, s, x).view(), dy.view(), dx.view());
    CHECK(long_gradient_error(x, dx.to_host(), [&](const auto& v) {
            tensor y(b, s);
            ms::ops::gelu<ms::eigen, real>(b, tensor(b, s, v).view(), y.view());
            return dot(y.to_host(), r);
          }) < bar);
  }
}
