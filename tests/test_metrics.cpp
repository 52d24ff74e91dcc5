// Measures of features against definitions written out, and against what they mean on sets that are known.
#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>

#include "support.hpp"

namespace {
std::vector<double> shifted(std::vector<double> v, double by) {
  for (double& x : v) x += by;
  return v;
}
}  // namespace

TEST_CASE("KID is the mean of its kernel over pairs") {
  const auto a = test::normals<double>(7 * 3, 1), b = test::normals<double>(5 * 3, 2);
  const auto k = [](const double* x, const double* y) { return std::pow((x[0] * y[0] + x[1] * y[1] + x[2] * y[2]) / 3 + 1, 3); };
  double aa = 0, bb = 0, ab = 0;
  for (int i = 0; i < 7; ++i)
    for (int j = 0; j < 7; ++j) aa += i == j ? 0 : k(&a[std::size_t(3 * i)], &a[std::size_t(3 * j)]) / 42;
  for (int i = 0; i < 5; ++i)
    for (int j = 0; j < 5; ++j) bb += i == j ? 0 : k(&b[std::size_t(3 * i)], &b[std::size_t(3 * j)]) / 20;
  for (int i = 0; i < 7; ++i)
    for (int j = 0; j < 5; ++j) ab += k(&a[std::size_t(3 * i)], &b[std::size_t(3 * j)]) / 35;
  CHECK(ms::kid(a, b, 3) == Approx(aa + bb - 2 * ab));
  // Blocks: unbiased, so that the mean lies within errors of the whole; far sets are far.
  const auto x = test::normals<double>(900 * 4, 3), y = test::normals<double>(900 * 4, 4);
  const auto same = ms::kid_in_blocks(x, y, 4, 20, 100, 1);
  CHECK(std::fabs(same.mean - ms::kid(x, y, 4)) < 5 * same.standard_error + 1e-3);
  CHECK(ms::kid_in_blocks(x, shifted(y, 1), 4, 20, 100, 1).mean > 10 * same.standard_error);
  CHECK_THROWS_AS(ms::kid_in_blocks(x, y, 4, 20, 901, 1), ms::value_error);
}

TEST_CASE("neighbourhoods: equal sets are precise and covered, distant ones are not") {
  const auto x = test::normals<double>(600 * 2, 1), y = test::normals<double>(600 * 2, 2);
  const auto near = ms::neighbourhoods(x, y, 2), far = ms::neighbourhoods(x, shifted(y, 50), 2), own = ms::neighbourhoods(x, x, 2);
  CHECK(near.precision > 0.9);
  CHECK(near.recall > 0.9);
  CHECK(near.density == Approx(1).margin(0.1));
  CHECK(near.coverage == Approx(1 - 0.125).margin(0.05));  // 1 - 2^-k for equal distributions (Naeem et al., section 3.3)
  CHECK((far.precision == 0 && far.recall == 0 && far.density == 0 && far.coverage == 0));
  CHECK((own.precision == 1 && own.recall == 1 && own.coverage == 1));
  // Half the reference's modes missing: precise, but recalled by half.
  std::vector<double> two = x, one = y;
  for (std::size_t i = 0; i < two.size() / 2; ++i) two[i] += 100;
  const auto half = ms::neighbourhoods(two, one, 2);
  CHECK(half.precision > 0.85);
  CHECK(half.recall == Approx(0.5).margin(0.06));
  CHECK_THROWS_AS(ms::neighbourhoods(x, y, 2, 600), ms::value_error);
}

TEST_CASE("the Inception score counts classes") {
  std::vector<double> sure, unsure(40 * 4, 0.25);
  for (int i = 0; i < 40; ++i)
    for (int c = 0; c < 4; ++c) sure.push_back(i % 4 == c);
  CHECK(ms::inception_score(sure, 4) == Approx(4));
  CHECK(ms::inception_score(unsure, 4) == Approx(1));
  unsure[0] = 2;
  CHECK_THROWS_AS(ms::inception_score(unsure, 4), ms::value_error);
  CHECK_THROWS_AS(ms::kid(std::vector<double>{1, 2, NAN, 3}, std::vector<double>{1, 2}, 1), ms::value_error);
}
