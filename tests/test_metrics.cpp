// Measures of features against definitions written out, and against what they mean on sets that
// are known.
#include <multistage/io/inception_file.hpp>
#include <multistage/metrics/feature_extractor.hpp>
#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>

#include "support.hpp"

namespace {
std::vector<double> shifted(std::vector<double> v, double by) {
  for (double& x : v)
    x += by;
  return v;
}
}  // namespace

TEST_CASE("KID is the mean of its kernel over pairs") {
  const auto a = test::normals<double>(7 * 3, 1);
  const auto b = test::normals<double>(5 * 3, 2);
  const auto k = [](const double* x, const double* y) {
    return std::pow((x[0] * y[0] + x[1] * y[1] + x[2] * y[2]) / 3 + 1, 3);
  };
  double aa = 0;
  double bb = 0;
  double ab = 0;
  for (int i = 0; i < 7; ++i)
    for (int j = 0; j < 7; ++j)
      aa += i == j ? 0 : k(&a[std::size_t(3 * i)], &a[std::size_t(3 * j)]) / 42;
  for (int i = 0; i < 5; ++i)
    for (int j = 0; j < 5; ++j)
      bb += i == j ? 0 : k(&b[std::size_t(3 * i)], &b[std::size_t(3 * j)]) / 20;
  for (int i = 0; i < 7; ++i)
    for (int j = 0; j < 5; ++j)
      ab += k(&a[std::size_t(3 * i)], &b[std::size_t(3 * j)]) / 35;
  CHECK(ms::kid(a, b, 3) == Approx(aa + bb - 2 * ab));
  // Blocks: unbiased, so that the mean lies within errors of the whole; far sets are far.
  const auto x = test::normals<double>(900 * 4, 3);
  const auto y = test::normals<double>(900 * 4, 4);
  const auto same = ms::kid_in_blocks(x, y, 4, 20, 100, 1);
  CHECK(std::fabs(same.mean - ms::kid(x, y, 4)) < 5 * same.standard_error + 1e-3);
  CHECK(ms::kid_in_blocks(x, shifted(y, 1), 4, 20, 100, 1).mean > 10 * same.standard_error);
  CHECK_THROWS_AS(ms::kid_in_blocks(x, y, 4, 20, 901, 1), ms::value_error);
}

TEST_CASE("neighbourhoods: equal sets are precise and covered, distant ones are not") {
  const auto x = test::normals<double>(600 * 2, 1);
  const auto y = test::normals<double>(600 * 2, 2);
  const auto near = ms::neighbourhoods(x, y, 2);
  const auto far = ms::neighbourhoods(x, shifted(y, 50), 2);
  const auto own = ms::neighbourhoods(x, x, 2);
  CHECK(near.precision > 0.9);
  CHECK(near.recall > 0.9);
  CHECK(near.density == Approx(1).margin(0.1));
  CHECK(near.coverage ==
        Approx(1 - 0.125).margin(
            0.05));  // 1 - 2^-k for equal distributions (Naeem et al., section 3.3)
  CHECK((far.precision == 0 && far.recall == 0 && far.density == 0 && far.coverage == 0));
  CHECK((own.precision == 1 && own.recall == 1 && own.coverage == 1));
  // Half the reference's modes missing: precise, but recalled by half.
  std::vector<double> two = x;
  std::vector<double> one = y;
  for (std::size_t i = 0; i < two.size() / 2; ++i)
    two[i] += 100;
  const auto half = ms::neighbourhoods(two, one, 2);
  CHECK(half.precision > 0.85);
  CHECK(half.recall == Approx(0.5).margin(0.06));
  CHECK_THROWS_AS(ms::neighbourhoods(x, y, 2, 600), ms::value_error);
}

TEST_CASE("the Inception score counts classes") {
  std::vector<double> sure, unsure(40 * 4, 0.25);
  for (int i = 0; i < 40; ++i)
    for (int c = 0; c < 4; ++c)
      sure.push_back(i % 4 == c);
  CHECK(ms::inception_score(sure, 4) == Approx(4));
  CHECK(ms::inception_score(unsure, 4) == Approx(1));
  unsure[0] = 2;
  CHECK_THROWS_AS(ms::inception_score(unsure, 4), ms::value_error);
  CHECK_THROWS_AS(ms::kid(std::vector<double>{1, 2, NAN, 3}, std::vector<double>{1, 2}, 1),
                  ms::value_error);
}

namespace {
/// The weights of tests/data/make_golden.py: a hash of the element's and the tensor's number.
std::vector<float> hashed(const std::vector<ms::index_t>& extents,
                          std::uint32_t tensor,
                          double scale) {
  ms::index_t n = 1;
  for (const auto e : extents)
    n *= e;
  std::vector<float> v(std::size_t(n), 0.0f);
  for (ms::index_t i = 0; i < n; ++i) {
    std::uint32_t h = std::uint32_t(i) * 2654435761u ^ (tensor * 40503u + 12345u);
    h = (h ^ h >> 15) * 2246822519u;
    h = (h ^ h >> 13) * 3266489917u;
    h ^= h >> 16;
    v[std::size_t(i)] = float((double(h) / 4294967296.0 - 0.5) * scale);
  }
  return v;
}
}  // namespace

TEST_CASE("Inception's features and classes are PyTorch's") {
  const ms::io::safetensors golden(MULTISTAGE_TEST_DATA "/inception.safetensors");
  std::map<std::string, std::uint32_t> number;
  std::string name;
  for (const auto c : golden.get<std::uint8_t>("order")) {
    if (c != '\n') {
      name += char(c);
      continue;
    }
    number.emplace(name, std::uint32_t(number.size()));
    name.clear();
  }
  number.emplace(name, std::uint32_t(number.size()));
  const ms::inception<ms::cpu>::source weights = [&](const std::string& tensor,
                                                     const std::vector<ms::index_t>& extents) {
    const bool bias = extents.size() == 1;
    const bool classifier = tensor.rfind("fc.", 0) == 0;
    double fan = 1;
    for (std::size_t k = 1; k < extents.size(); ++k)
      fan *= double(extents[k]);
    const std::uint32_t at = classifier ? std::uint32_t(number.size())
                                        : number.at(tensor.substr(0, tensor.rfind('.')));
    return hashed(extents, 2 * at + bias, bias ? 0.2 : std::sqrt((classifier ? 12 : 24) / fan));
  };
  const auto images = golden.get<float>("images");
  const ms::shape s{2, 19, 23, 3};
  for (const auto pooling : {ms::inception_pooling::fid, ms::inception_pooling::torchvision}) {
    ms::inception<ms::cpu> net(ms::cpu(), weights, pooling,
                               pooling == ms::inception_pooling::fid ? 10 : 0);
    const auto r = net(images, s, 1);
    CHECK(test::distance(r.features, golden.get<float>(ms::to_string(pooling))) < 1e-4);
    if (net.classes() == 0)
      continue;
    CHECK(test::distance(r.probabilities, golden.get<float>("probabilities")) < 1e-4);
    CHECK_THAT(test::message([&] {
                 net(images, {1, 19, 46, 2});
               }),
               Catch::Contains("1 or 3 channels"));
    // From a file, like from memory; and a file that is something else says so.
    test::directory dir;
    ms::io::safetensors_writer w;
    w.metadata = {{"format", ms::io::inception_format}, {"pooling", "fid"}};
    for (const auto& [layer, shape] : net.layers()) {
      w.add(layer + ".weight", shape, weights(layer + ".weight", shape));
      w.add(layer + ".bias", {shape[0]}, weights(layer + ".bias", {shape[0]}));
    }
    w.write(dir / "inception.safetensors");
    auto again = ms::io::load_inception(dir / "inception.safetensors", ms::cpu());
    CHECK(again(images, s, 1).features == r.features);
    CHECK_THAT(test::message([&] {
                 ms::io::load_inception(MULTISTAGE_TEST_DATA "/inception.safetensors",
                                        ms::cpu());
               }),
               Catch::Contains("is not an Inception network"));
  }
}

TEMPLATE_TEST_CASE("random convolutions tell sets apart, and are a function of their seed",
                   "",
                   BACKENDS) {
  // Blurred noise against noise of the same mean and variance: pixels' moments differ in
  // covariance, features see structure.
  const ms::shape s{120, 8, 8, 1};
  const auto noise = test::normals<float>(s.size(), 1);
  const auto other = test::normals<float>(s.size(), 2);
  std::vector<float> bars(noise.size());
  for (std::size_t i = 0; i < bars.size(); ++i)
    bars[i] = 0.7f * noise[i / 8 * 8] + 0.7f * noise[i];
  auto f = ms::random_features(TestType(), s, 3);
  auto again = ms::random_features(ms::cpu(1), s, 3);
  auto differs = ms::random_features(ms::cpu(1), s, 4);
  const auto a = f.features(noise, s);
  const auto b = f.features(other, s);
  const auto c = f.features(bars, s);
  REQUIRE(ms::index_t(a.size()) == 120 * f.dimension);
  CHECK(test::distance(again.features(noise, s), a) < 1e-4);
  CHECK(again.hash == f.hash);
  CHECK(differs.hash != f.hash);
  CHECK(ms::kid(a, c, f.dimension) > 20 * std::fabs(ms::kid(a, b, f.dimension)));
  // A row's features do not depend on the others'.
  ms::shape one = s;
  one.rows = 1;
  CHECK(test::distance(f.features(std::span(noise).subspan(64 * 7, 64), one),
                       std::vector<double>(a.begin() + 7 * f.dimension,
                                           a.begin() + 8 * f.dimension)) < 1e-5);
  CHECK_THAT(test::message([] {
               ms::random_features(ms::cpu(1), {1, 2, 2, 1});
             }),
             Catch::Contains("too small"));
}

TEST_CASE("fingerprints are FNV-1a") {
  CHECK(ms::fingerprint({}) == "cbf29ce484222325");
  const unsigned char a[] = {'a'};
  CHECK(ms::fingerprint(a) == "af63dc4c8601ec8c");  // from the algorithm's authors' list
}
