// Random numbers, threads, shapes, views, sums, the normal distribution.
#include <atomic>
#include <multistage/core/normal.hpp>
#include <multistage/samplers/sample.hpp>

#include "support.hpp"

TEST_CASE("Philox gives the published known answers") {
  // Random123's kat_vectors for philox4x32-10
  const ms::philox_block zero = ms::philox4x32_10({{0, 0, 0, 0}}, 0, 0);
  CHECK(zero.word[0] == 0x6627e8d5u);
  CHECK(zero.word[1] == 0xe169c58du);
  CHECK(zero.word[2] == 0xbc57ac4cu);
  CHECK(zero.word[3] == 0x9b00dbd8u);
  const ms::philox_block pi = ms::philox4x32_10(
      {{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}}, 0xa4093822u, 0x299f31d0u);
  CHECK(pi.word[0] == 0xd16cfe09u);
  CHECK(pi.word[1] == 0x94fdccebu);
  CHECK(pi.word[2] == 0x5001e420u);
  CHECK(pi.word[3] == 0x24126ea1u);
}

TEST_CASE("normal numbers have the moments of the normal distribution") {
  const auto v = test::normals<double>(200000, 5);
  double m[5] = {};
  for (double x : v)
    for (int k = 1; k < 5; ++k)
      m[k] += std::pow(x, k) / double(v.size());
  CHECK(std::fabs(m[1]) < 0.01);  // standard errors: 0.0022, 0.0032, 0.0087, 0.022
  CHECK(std::fabs(m[2] - 1) < 0.015);
  CHECK(std::fabs(m[3]) < 0.04);
  CHECK(std::fabs(m[4] - 3) < 0.1);
}

TEMPLATE_TEST_CASE("every backend draws the same numbers", "", BACKENDS) {
  TestType b;
  const ms::random_stream s(123, ms::purpose::latents, 7);
  for (ms::index_t n : {1, 4, 7, 1001}) {
    ms::tensor<double, TestType> x(b, {n, 1, 1, 1});
    ms::fill_normal(b, s, n, x.data());
    const auto got = x.to_host();
    for (ms::index_t i = 0; i < n; ++i)
      REQUIRE(got[i] == Approx(s.normal(std::uint64_t(i))).margin(1e-14));
  }
}

TEST_CASE("streams of other seeds, purposes and steps differ") {
  const ms::random_stream a(1, ms::purpose::latents, 0), b(2, ms::purpose::latents, 0),
      c(1, ms::purpose::churn, 0), d(1, ms::purpose::latents, 1);
  CHECK(a.word(0) != b.word(0));
  CHECK(a.word(0) != c.word(0));
  CHECK(a.word(0) != d.word(0));
}

TEST_CASE("the pool runs every task once, and again, and passes on exceptions") {
  for (int threads : {1, 2, 5}) {
    ms::thread_pool pool(threads);
    CHECK(pool.size() == threads);
    for (int round = 0; round < 300; ++round) {
      const ms::index_t n = round % 37;
      std::vector<std::atomic<int>> hits(std::size_t(n) + 1);
      pool.parallel_for(n, [&](ms::index_t i) { ++hits[i]; });
      for (ms::index_t i = 0; i < n; ++i)
        REQUIRE(hits[i] == 1);
    }
    std::atomic<int> inner{0};
    pool.parallel_for(
        4, [&](ms::index_t) { pool.parallel_for(3, [&](ms::index_t) { ++inner; }); });
    CHECK(inner == 12);
    CHECK_THROWS_AS(pool.parallel_for(8,
                                      [](ms::index_t i) {
                                        if (i == 5)
                                          throw ms::value_error("five");
                                      }),
                    ms::value_error);
    std::atomic<int> after{0};
    pool.parallel_for(8, [&](ms::index_t) { ++after; });
    CHECK(after == 8);
  }
  CHECK_THROWS_AS(ms::thread_pool(-1), ms::value_error);
}

TEST_CASE("views import and export NCHW and see memory of others") {
  ms::cpu b;
  const ms::shape s{2, 3, 4, 5};
  std::vector<float> nchw(std::size_t(s.size()));
  for (std::size_t i = 0; i < nchw.size(); ++i)
    nchw[i] = float(i);
  ms::tensor<float, ms::cpu> t(b, s);
  ms::ops::copy(b, ms::nchw(nchw.data(), s), t.view());
  CHECK(t.data()[0] == 0);
  CHECK(t.data()[1] == 12);  // channel 1 of pixel 0
  CHECK(t.data()[((1 * 3 + 2) * 4 + 3) * 5 + 4] == nchw.back());
  std::vector<float> back(nchw.size());
  ms::ops::copy(b, t.view(), ms::nchw(back.data(), s));
  CHECK(back == nchw);
  ms::view<float> mine(nchw.data(), {6, 1, 1, 20});
  mine.rows(1, 2).data[0] = 77;
  CHECK(nchw[20] == 77);
  CHECK(mine.contiguous());
  CHECK_FALSE(ms::nchw(nchw.data(), s).contiguous());
  CHECK_THROWS_AS((ms::tensor<float, ms::cpu>(b, {-1, 1, 1, 1})), ms::shape_error);
  CHECK_THROWS_WITH((ms::ops::silu<ms::cpu, float>(
                        b, ms::view<const float>(ms::nchw(nchw.data(), s)), t.view())),
                    Catch::Contains("not contiguous"));
  CHECK_THROWS_AS((ms::ops::copy(b, t.view(), mine)), ms::shape_error);
}

TEMPLATE_TEST_CASE("sums", "", BACKENDS) {
  TestType b;
  for (ms::index_t n : {1, 100, 9000}) {
    const auto v = test::normals<float>(n * 3, 1);
    const ms::tensor<float, TestType> x(b, {n, 1, 1, 3}, v);
    double sum = 0;
    double squares = 0;
    double column[3] = {};
    for (std::size_t i = 0; i < v.size(); ++i)
      sum += v[i], squares += double(v[i]) * v[i], column[i % 3] += v[i];
    CHECK(ms::ops::sum<TestType, float>(b, x.view()) == Approx(sum).margin(1e-9));
    CHECK(ms::ops::sum_of_squares<TestType, float>(b, x.view()) == Approx(squares));
    ms::tensor<float, TestType> c(b, {1, 1, 1, 3}, std::vector<float>{1, 1, 1});
    ms::ops::sum_over_pixels<TestType, float>(b, x.view(), c.view(), true);
    for (int k = 0; k < 3; ++k)
      CHECK(c.to_host()[k] == Approx(1 + column[k]).margin(2e-3));
  }
}

TEST_CASE("the normal quantile inverts the cumulative function in both tails") {
  for (double p : {1e-300, 1e-20, 1e-5, 0.02, 0.3, 0.5, 0.7, 0.999})
    CHECK(ms::normal_cdf(ms::normal_quantile(p)) == Approx(p).epsilon(1e-12));
  CHECK(ms::normal_quantile(0.975) == Approx(1.959963984540054).epsilon(1e-14));
}

TEST_CASE("seeds are read from text") {
  CHECK(ms::parse_seeds("0-3,70") == std::vector<std::uint64_t>{0, 1, 2, 3, 70});
  CHECK(ms::parse_seeds("18446744073709551615") ==
        std::vector<std::uint64_t>{~std::uint64_t{0}});
  for (const char* bad : {"", "a", "1-", "3-1", "1,,2", "1,", "-1", "0-99999999999", "1 2"})
    CHECK_THROWS_AS(ms::parse_seeds(bad), ms::value_error);
}
