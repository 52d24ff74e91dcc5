// Distances between sets of features: values of NumPy and SciPy (tests/data/make_distances.py),
// and properties over many random sets.
#include <multistage/io/npz.hpp>
#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>

#include "support.hpp"

namespace {

struct expected_distances {
  std::vector<unsigned char> bytes = ms::io::read_file(MULTISTAGE_TEST_DATA "/distances.npz");
  std::vector<double> operator()(const std::string& name) const {
    return ms::io::parse_npz("distances.npz", bytes, name).values;
  }
  ms::index_t dimension(const std::string& name) const {
    return ms::io::parse_npz("distances.npz", bytes, name).extents.at(1);
  }
};

std::vector<double> rows_of(const std::vector<double>& v,
                            ms::index_t dimension,
                            const std::vector<std::size_t>& order) {
  std::vector<double> out;
  for (const std::size_t i : order)
    out.insert(out.end(), v.begin() + std::ptrdiff_t(i) * dimension,
               v.begin() + std::ptrdiff_t(i + 1) * dimension);
  return out;
}

}  // namespace

TEST_CASE(
    "distances of sets are NumPy's and SciPy's, with ties, equal rows, fewer rows than "
    "dimensions and singular covariances") {
  const expected_distances want;
  for (const std::string name :
       {"few", "mixed", "many", "ties", "singular", "far", "collapsed"}) {
    INFO(name);
    const auto a = want(name + "_a");
    const auto b = want(name + "_b");
    const auto prdc = want(name + "_prdc");
    const ms::index_t d = want.dimension(name + "_a");
    CHECK(ms::frechet_distance(a, b, d) ==
          Approx(want(name + "_frechet")[0]).epsilon(1e-9).margin(1e-7));
    CHECK(ms::frechet_distance(b, a, d) ==
          Approx(want(name + "_frechet")[0]).epsilon(1e-9).margin(1e-7));
    const auto near = ms::neighbourhoods(a, b, d, 3);
    CHECK(near.precision == Approx(prdc[0]).epsilon(1e-12));
    CHECK(near.recall == Approx(prdc[1]).epsilon(1e-12));
    CHECK(near.density == Approx(prdc[2]).epsilon(1e-12));
    CHECK(near.coverage == Approx(prdc[3]).epsilon(1e-12));
  }
}

TEST_CASE(
    "a set against itself: density, precision, recall and coverage are 1, the Frechet distance "
    "is 0") {
  const ms::random_stream r(5, 17);
  for (std::uint64_t set = 0; set < 1000; ++set) {
    const ms::index_t n = 6 + ms::index_t(r.below(2 * set, 40));
    const ms::index_t d = 1 + ms::index_t(r.below(2 * set + 1, 30));
    const int k = 1 + int(set % 5);
    auto x = test::normals<double>(n * d, 1000 + set);
    // Spread over many magnitudes, and far from the origin, where products of matrices round.
    const double scale = std::pow(10.0, double(set % 13) - 6);
    const double away = set % 3 == 0 ? 1e4 * scale : 0;
    for (double& v : x)
      v = v * scale + away;
    INFO("set " << set << ", " << n << " rows of " << d << ", k " << k);
    const auto own = ms::neighbourhoods(x, x, d, k);
    CHECK(own.density == 1);
    CHECK((own.precision == 1 && own.recall == 1 && own.coverage == 1));
    CHECK(ms::frechet_distance(x, x, d) == 0);
    // In another order it is the same set.
    std::vector<std::size_t> order;
    for (ms::index_t i = n; i-- > 0;)
      order.push_back(std::size_t(i));
    const auto turned = rows_of(x, d, order);
    CHECK(ms::neighbourhoods(x, turned, d, k).density == 1);
    const double variance = scale * scale * double(d);
    CHECK(ms::frechet_distance(x, turned, d) <= 1e-6 * variance);
  }
}

TEST_CASE(
    "the Frechet distance is never below 0, symmetric, and grows with a shift as it must") {
  for (std::uint64_t set = 0; set < 300; ++set) {
    const ms::index_t d = 2 + ms::index_t(set % 7);
    const ms::index_t n = 2 + ms::index_t(set % 23);
    const ms::index_t m = 2 + ms::index_t(set % 17);
    const auto x = test::normals<double>(n * d, set);
    const auto y = test::normals<double>(m * d, set + 5000);
    auto near = x;
    for (std::size_t i = 0; i < near.size(); ++i)
      near[i] += 1e-9 * y[i % y.size()];
    INFO(set);
    CHECK(ms::frechet_distance(x, near, d) >= 0);
    const double there = ms::frechet_distance(x, y, d);
    CHECK(there >= 0);
    CHECK(there == Approx(ms::frechet_distance(y, x, d)).epsilon(1e-6).margin(1e-6));
    auto shifted = x;
    for (double& v : shifted)
      v += 3;
    CHECK(ms::frechet_distance(x, shifted, d) ==
          Approx(9.0 * double(d)).epsilon(1e-9).margin(1e-6));
  }
}

TEST_CASE("few rows of many dimensions take matrices of the rows' number only") {
  // 24 against 24 pictures of 32 x 32 x 3, as scalings of one another: the distance is (3 -
  // 1)^2 tr(C).
  const ms::index_t d = 3072;
  auto x = test::normals<double>(24 * d, 3);
  auto y = x;
  for (double& v : y)
    v *= 3;
  Eigen::Map<const Eigen::Matrix<double, -1, -1, Eigen::RowMajor>> rows(x.data(), 24, d);
  const Eigen::RowVectorXd mean = rows.colwise().mean();
  const double trace = (rows.rowwise() - mean).squaredNorm() / 23;
  const auto begin = std::chrono::steady_clock::now();
  CHECK(ms::frechet_distance(x, y, d) ==
        Approx(4 * mean.squaredNorm() + 4 * trace).epsilon(1e-9));
  // 3072 x 3072 matrices took 29 s; these take milliseconds. A second is for a busy machine.
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(1));
}

TEST_CASE(
    "features that are not finite or whose powers overflow are refused by every measure") {
  for (const double bad : {1e200, -1e200, 1e41, double(NAN), double(INFINITY)}) {
    auto x = test::normals<double>(20, 1);
    const auto y = x;
    x[7] = bad;
    const std::string where = "feature 1 of row 3";
    CHECK_THAT(test::message([&] { ms::frechet_distance(x, y, 2); }),
               Catch::Contains("frechet_distance: " + where));
    CHECK_THAT(test::message([&] { ms::frechet_distance(y, x, 2); }), Catch::Contains(where));
    CHECK_THAT(test::message([&] { ms::kid(x, y, 2); }), Catch::Contains("kid: " + where));
    CHECK_THAT(test::message([&] { ms::neighbourhoods(y, x, 2); }),
               Catch::Contains("neighbourhoods: " + where));
  }
  // What is allowed gives numbers.
  auto x = test::normals<double>(40, 1);
  auto y = test::normals<double>(40, 2);
  for (double& v : x)
    v *= 1e39;
  for (double& v : y)
    v *= -1e39;
  const auto near = ms::neighbourhoods(x, y, 2);
  const auto blocks = ms::kid_in_blocks(x, y, 2, 5, 10, 1);
  for (const double v :
       {ms::frechet_distance(x, y, 2), ms::kid(x, y, 2), blocks.standard_error, near.density,
        near.coverage})
    CHECK(std::isfinite(v));
}

TEST_CASE("neighbourhoods do not depend on the unit of the features, however small it is") {
  const auto x = test::normals<double>(60, 1);
  const auto y = test::normals<double>(60, 2);
  const auto near = ms::neighbourhoods(x, y, 2);
  CHECK(near.density > 0);
  for (const double unit : {0x1p-531, 0x1p-900, 0x1p120}) {
    auto scaled_x = x;
    auto scaled_y = y;
    for (double& v : scaled_x)
      v *= unit;
    for (double& v : scaled_y)
      v *= unit;
    const auto scaled = ms::neighbourhoods(scaled_x, scaled_y, 2);
    CHECK(scaled.precision == near.precision);
    CHECK(scaled.recall == near.recall);
    CHECK(scaled.density == near.density);
    CHECK(scaled.coverage == near.coverage);
  }
}
