// Operations of latent diffusion: gated GELU, dropout, quantisation, the Gaussian latent.
#include <multistage/ops/dropout.hpp>
#include <multistage/ops/gaussian.hpp>
#include <multistage/ops/geglu.hpp>
#include <multistage/ops/quantize.hpp>

#include "support.hpp"

using vec = std::vector<double>;

TEMPLATE_TEST_CASE("gated GELU", "", BACKENDS) {
  TestType b;
  const vec x = test::normals<double>(2 * 6 * 10, 1);
  const vec r = test::normals<double>(2 * 6 * 5, 2);
  const ms::shape in{2, 3, 2, 10};
  const ms::shape out{2, 3, 2, 5};
  const auto run = [&](const vec& v) {
    ms::tensor<double, TestType> tx(b, in, v), y(b, out);
    ms::ops::geglu(b, tx.view(), y.view());
    return y.to_host();
  };
  const vec y = run(x);
  for (std::size_t p = 0; p < 12; ++p)
    for (std::size_t c = 0; c < 5; ++c) {
      const double g = x[p * 10 + 5 + c];
      REQUIRE(y[p * 5 + c] ==
              Approx(x[p * 10 + c] * 0.5 * g * (1 + std::erf(g / std::sqrt(2.0)))));
    }
  const ms::tensor<double, TestType> tx(b, in, x), tr(b, out, r);
  ms::tensor<double, TestType> dx(b, in, vec(x.size(), 2.0));
  ms::ops::geglu_backward(b, tx.view(), tr.view(), dx.view(), true);
  vec g = dx.to_host();
  for (double& v : g)
    v -= 2;
  CHECK(test::gradient_error(
            x, [&](const vec& v) { return test::dot(run(v), r); }, g) < 1e-8);
  CHECK_THROWS_AS((ms::ops::geglu(b, tx.view(), dx.view())), ms::shape_error);
}

TEMPLATE_TEST_CASE("dropout", "", BACKENDS) {
  TestType b;
  const ms::shape s{4, 10, 10, 25};
  const ms::tensor<double, TestType> x(b, s, vec(10000, 3.0));
  ms::tensor<double, TestType> y(b, s), part(b, {1, 1, 1, 100});
  const ms::random_stream numbers(5, ms::purpose::dropout, 9);
  ms::ops::dropout(b, x.view(), y.view(), 0.25, numbers);
  const vec got = y.to_host();
  double kept = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const bool keep = numbers.uniform(i) >= 0.25;  // the definition
    REQUIRE(got[i] == (keep ? Approx(4.0) : Approx(0.0)));
    kept += keep;
  }
  CHECK(kept / 10000 == Approx(0.75).margin(0.02));  // five standard deviations
  // A piece of the stream is the same piece of the whole.
  const ms::tensor<double, TestType> piece(b, {1, 1, 1, 100}, vec(100, 3.0));
  ms::ops::dropout(b, piece.view(), part.view(), 0.25, numbers, 500);
  CHECK(part.to_host() == vec(got.begin() + 500, got.begin() + 600));
  CHECK_THROWS_AS((ms::ops::dropout(b, x.view(), y.view(), 1.0, numbers)), ms::value_error);
}

TEMPLATE_TEST_CASE("quantisation takes the nearest code, the lowest on a tie", "", BACKENDS) {
  TestType b;
  const vec codes{0, 0, 1, 0, 0, 1, 1, 0};  // two are alike
  const vec z{0.1, 0.2, 0.9, 0.1, 0.4, 0.9, 0.5, 0.5};
  const ms::tensor<double, TestType> tz(b, {1, 2, 2, 2}, z), tc(b, {1, 1, 4, 2}, codes);
  ms::tensor<double, TestType> q(b, {1, 2, 2, 2}), dz(b, {1, 2, 2, 2}), dc(b, {1, 1, 4, 2});
  ms::tensor<ms::index_t, TestType> index(b, {1, 2, 2, 1});
  ms::ops::quantize(b, tz.view(), tc.view(), index.data(), q.view());
  CHECK(index.to_host() == std::vector<ms::index_t>{0, 1, 2, 0});
  CHECK(q.to_host() == vec{0, 0, 1, 0, 0, 1, 0, 0});
  // With codes held fixed, the loss beta |zq - z|^2 / n + |zq - z|^2 / n has these gradients
  // (beta counts for z alone).
  const vec r = test::normals<double>(8, 3);
  const ms::tensor<double, TestType> tr(b, {1, 2, 2, 2}, r);
  ms::ops::quantize_backward(b, tz.view(), tc.view(), index.data(), q.view(), tr.view(), 0.25,
                             dz.view(), dc.view());
  const vec gz = dz.to_host();
  const vec gc = dc.to_host();
  const vec snapped = q.to_host();
  for (std::size_t i = 0; i < 8; ++i)
    CHECK(gz[i] == Approx(r[i] + 0.25 * 2 * (z[i] - snapped[i]) / 8));
  CHECK(gc[0] == Approx(2.0 / 8 * ((0 - 0.1) + (0 - 0.5))));
  CHECK(gc[2] == Approx(2.0 / 8 * (1 - 0.9)));
  CHECK(gc[6] == 0);
}

TEMPLATE_TEST_CASE("the Gaussian latent", "", BACKENDS) {
  TestType b;
  vec m = test::normals<double>(2 * 3 * 4, 1);
  const vec noise = test::normals<double>(2 * 3 * 2, 2);
  const vec r = test::normals<double>(2 * 3 * 2, 3);
  const ms::shape ms_{2, 3, 1, 4};
  const ms::shape zs{2, 3, 1, 2};
  const ms::tensor<double, TestType> tn(b, zs, noise), tr(b, zs, r);
  const double weight = 0.3;
  const auto value = [&](const vec& v) {
    const ms::tensor<double, TestType> tm(b, ms_, v);
    ms::tensor<double, TestType> z(b, zs), kl(b, {2, 1, 1, 1});
    ms::ops::sample_gaussian(b, tm.view(), tn.view(), z.view());
    ms::ops::gaussian_divergence<TestType, double>(b, tm.view(), kl.data());
    const vec k = kl.to_host();
    return test::dot(z.to_host(), r) + weight * (k[0] + k[1]);
  };
  const auto gradient = [&](const vec& v) {
    const ms::tensor<double, TestType> tm(b, ms_, v);
    ms::tensor<double, TestType> d(b, ms_);
    ms::ops::gaussian_backward(b, tm.view(), tn.view(), tr.view(), weight, d.view());
    return d.to_host();
  };
  CHECK(test::gradient_error(m, value, gradient(m)) < 1e-8);
  // KL(N(m, v) | N(0, 1)) in closed form, for one value.
  const ms::tensor<double, TestType> one(b, {1, 1, 1, 2}, vec{0.7, std::log(0.4)});
  ms::tensor<double, TestType> kl(b, {1, 1, 1, 1});
  ms::ops::gaussian_divergence<TestType, double>(b, one.view(), kl.data());
  CHECK(kl.to_host()[0] == Approx(0.5 * (0.49 + 0.4 - 1 - std::log(0.4))));
  m[2] = 25;  // beyond the clamp the log variance gets no gradient
  m[3] = -40;
  const vec g = gradient(m);
  CHECK(g[2] == 0);
  CHECK(g[3] == 0);
  CHECK(g[0] != 0);
}
