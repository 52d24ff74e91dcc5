// Schedules, partitions, the optimal denoiser and the clusterings.
#include <multistage/stages/interval_clustering.hpp>

#include "support.hpp"

TEST_CASE("sigma and t are inverse to each other") {
  const ms::vp_schedule vp;
  for (double t = 1e-3; t <= 1; t += 0.01)
    CHECK(vp.t(vp.sigma(t)) == Approx(t).epsilon(1e-12));
  for (double s : {0.002, 0.5, 2.5103, 80.0, 152.0})
    CHECK(vp.sigma(vp.t(s)) == Approx(s).epsilon(1e-12));
  CHECK(vp.sigma(0.442) ==
        Approx(2.5103).epsilon(1e-4));  // the paper's boundaries of CIFAR-10, in t and in sigma
  CHECK(vp.sigma(0.636) == Approx(7.6577).epsilon(1e-4));
  const double s = vp.signal(0.3);
  const double q = vp.sigma(0.3);
  CHECK(s * s * (1 + q * q) == Approx(1));
}

TEST_CASE("a partition covers every sigma once") {
  const ms::partition p({0.5, 2.0, 8.0});
  CHECK(p.stage_count() == 4);
  CHECK(p.stage(1e-9) == 0);
  CHECK(p.stage(0.5) == 0);  // intervals are (a, b]
  CHECK(p.stage(std::nextafter(0.5, 1)) == 1);
  CHECK(p.stage(8.0) == 2);
  CHECK(p.stage(1e9) == 3);
  for (int s = 0; s < 4; ++s) {
    CHECK(p.stage(p.upper(s)) == s);
    CHECK(p.stage(std::nextafter(p.lower(s), HUGE_VAL)) == s);
  }
  const ms::vp_schedule vp;
  CHECK(ms::partition::from_times(vp, {0.442, 0.631}).times(vp)[1] == Approx(0.631));
  for (const std::vector<double>& bad :
       std::vector<std::vector<double>>{{2, 1}, {1, 1}, {0, 1}, {-1}, {NAN}, {HUGE_VAL}})
    CHECK_THROWS_AS(ms::partition(bad), ms::value_error);
  CHECK_THROWS_WITH(ms::partition({2, 1}),
                    Catch::Contains("boundary 1 is 1, not above the one before it, 2"));
}

TEMPLATE_TEST_CASE("the optimal denoiser is the posterior mean", "", BACKENDS) {
  TestType b;
  // several blocks of both
  const ms::index_t n = 1300;
  const ms::index_t d = 5;
  const ms::index_t m = 300;
  const auto y = test::normals<double>(n * d, 1);
  const auto x = test::normals<double>(m * d, 2);
  const ms::tensor<double, TestType> images(b, {n, 1, 1, d}, y), queries(b, {m, 1, 1, d}, x);
  ms::tensor<double, TestType> got(b, {m, 1, 1, d});
  std::vector<double> sigmas;
  for (ms::index_t q = 0; q < m; ++q)
    sigmas.push_back(0.01 * std::pow(1.04, double(q)));
  ms::optimal_denoiser<double, TestType>(b, images.view())(queries.view(), sigmas, got.view());
  const auto host = got.to_host();
  double worst = 0;
  for (ms::index_t q = 0; q < m; ++q) {
    std::vector<double> logit(std::size_t(n), 0.0), mean(std::size_t(d), 0.0);
    double most = -HUGE_VAL;
    double sum = 0;
    for (ms::index_t i = 0; i < n; ++i) {
      for (ms::index_t k = 0; k < d; ++k)
        logit[i] -= std::pow(x[q * d + k] - y[i * d + k], 2) / (2 * sigmas[q] * sigmas[q]);
      most = std::max(most, logit[i]);
    }
    for (ms::index_t i = 0; i < n; ++i) {
      const double w = std::exp(logit[i] - most);
      sum += w;
      for (ms::index_t k = 0; k < d; ++k)
        mean[k] += w * y[i * d + k];
    }
    for (ms::index_t k = 0; k < d; ++k)
      worst = std::max(worst, std::fabs(mean[k] / sum - host[q * d + k]));
  }
  CHECK(worst < 1e-9);
}

TEMPLATE_TEST_CASE("a few queries, and images from a source, have the same posterior mean",
                   "",
                   BACKENDS) {
  TestType b;
  const ms::index_t n = 1300;
  const ms::index_t d = 70;
  const auto y = test::normals<float>(n * d, 1);
  const ms::image_source source = ms::image_source::of(std::span<const float>(y), {n, 1, 1, d});
  const std::vector<double> wide(y.begin(), y.end());
  const ms::tensor<double, TestType> images(b, {n, 1, 1, d}, wide);
  const ms::optimal_denoiser<double, TestType> memory(b, images.view()), streamed(b, source);
  const auto queries = test::random_tensor<double>(b, {300, 1, 1, d}, 2);
  std::vector<double> sigmas;
  for (int q = 0; q < 300; ++q)
    sigmas.push_back(0.01 * std::pow(1.03, q));
  const auto run = [&](const auto& denoiser, ms::index_t first, ms::index_t rows) {
    ms::tensor<double, TestType> got(b, {rows, 1, 1, d});
    denoiser(queries.view().rows(first, rows),
             std::span(sigmas).subspan(std::size_t(first), std::size_t(rows)), got.view());
    return got.to_host();
  };
  const auto all = run(memory, 0, 300);
  CHECK(test::distance(run(streamed, 0, 300), all) < 1e-12);
  for (const ms::index_t first : {0, 5, 150, 292})
    for (const ms::index_t rows : {1, 3, 8}) {
      const std::vector<double> want(all.begin() + first * d, all.begin() + (first + rows) * d);
      CHECK(test::distance(run(memory, first, rows), want) < 1e-10);
    }
  // Draws gathered from a source are the source's images.
  ms::tensor<double, TestType> two(b, {2, 1, 1, d});
  const std::vector<ms::index_t> which{1299, 7};
  streamed.gather(which, two.view());
  CHECK(two.to_host()[0] == double(y[1299 * d]));
  CHECK(two.to_host()[std::size_t(2 * d - 1)] == double(y[8 * d - 1]));
  // An error of the source, which is read from another thread, arrives.
  ms::image_source broken = source;
  broken.read = [&](std::span<const ms::index_t> rows, float* to) {
    ms::require<ms::file_error>(rows[0] == 0, "cut");
    source.read(rows, to);
  };
  const ms::optimal_denoiser<double, TestType> fails(b, broken);
  CHECK_THROWS_AS(run(fails, 0, 300), ms::file_error);
}

TEST_CASE("standard errors of similarities are those of means over draws") {
  const auto images = test::normals<float>(30 * 6, 3);
  const auto run = [&](std::uint64_t seed, ms::index_t draws) {
    return ms::similarity_between_times(ms::cpu(2), std::span<const float>(images),
                                        ms::shape{30, 1, 1, 6}, 6,
                                        {.threshold = 0.1, .draws = draws, .seed = seed});
  };
  // Over repetitions with other seeds the means spread as the errors say.
  const int repetitions = 60;
  std::vector<double> sum(36, 0.0), squares(36, 0.0), said(36, 0.0);
  for (int r = 0; r < repetitions; ++r) {
    const auto f = run(std::uint64_t(r), 200);
    for (std::size_t i = 0; i < 36; ++i)
      sum[i] += f.matrix[i], squares[i] += f.matrix[i] * f.matrix[i],
          said[i] += f.standard_errors[i] / repetitions;
  }
  for (std::size_t i = 0; i < 36; ++i) {
    const double mean = sum[i] / repetitions;
    const double spread = std::sqrt(std::max(0.0, squares[i] / repetitions - mean * mean));
    CHECK(spread == Approx(said[i]).epsilon(0.4).margin(
                        1e-6));  // sixty repetitions know a spread to a tenth
    if (i % 7 == 0)
      CHECK(said[i] == Approx(0).margin(1e-9));  // a level is like itself
  }
}

TEST_CASE("clustering finds the two ends of a data set and refuses what has none") {
  ms::cpu b(2);
  const auto v = test::normals<float>(60 * 16, 3);
  std::vector<float> images;
  for (float x : v)
    images.push_back(std::clamp(x, -1.0f, 1.0f));
  const ms::shape s{60, 4, 4, 1};
  const ms::clustering c =
      ms::cluster_by_optimal_denoiser(b, std::span<const float>(images), s, {.draws = 400});
  CHECK(c.stages.stage_count() == 3);
  CHECK(c.t1 < c.t2);
  CHECK(c.stages.boundaries()[0] == Approx(ms::vp_schedule().sigma(c.t1)));
  const ms::clustering strict = ms::cluster_by_optimal_denoiser(
      b, std::span<const float>(images), s, {.alpha = 0.99, .draws = 400});
  CHECK(strict.t1 <= c.t1);  // a higher alpha makes the outer stages smaller
  CHECK(strict.t2 >= c.t2);
  const auto fails = [&](std::vector<float> values, ms::shape extents, ms::clustering_options o,
                         const char* text) {
    CHECK_THROWS_WITH(
        ms::cluster_by_optimal_denoiser(b, std::span<const float>(values), extents, o),
        Catch::Contains(text));
  };
  fails({}, {0, 4, 4, 1}, {}, "no images");
  fails(std::vector<float>(32, 0.5f), {2, 4, 4, 1}, {}, "all 2 images are equal");
  auto nan = images;
  nan[35] = NAN;
  fails(nan, s, {}, "value 3 of image 2 is nan");
  fails(images, s, {.alpha = 1.5}, "alpha = 1.5");
  fails(images, s, {.draws = 0}, "draws = 0");
  fails(images, s, {.threshold = 1e-12, .draws = 100, .sigma_min = 5}, "-similar");
}

TEST_CASE("stages of latents go with their scale, and grey levels have no part in it") {
  const ms::shape extents{60, 1, 1, 48};
  std::vector<double> values = test::normals<double>(60 * 48, 7);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] *= 1.0 / (1.0 + double(i % 48));  // some directions have most of the variance
  const auto clustered = [&](double factor) {
    std::vector<double> scaled = values;
    double squares = 0;
    for (double& v : scaled)
      v *= factor, squares += v * v;
    const ms::clustering_options o = ms::for_latents(
        {.alpha = 0.98, .draws = 600, .sigma_min = 0.01 * factor, .sigma_max = 40 * factor},
        std::sqrt(squares / double(scaled.size())));
    CHECK(o.what == ms::compared::image);
    return ms::cluster_by_optimal_denoiser(
               ms::cpu(2), std::span<const double>(scaled), extents, o,
               ms::ve_schedule{.sigma_min = 0.01 * factor, .sigma_max = 40 * factor})
        .stages.boundaries();
  };
  const std::vector<double> once = clustered(1);
  const std::vector<double> eightfold = clustered(8);
  REQUIRE(once.size() == 2);
  for (std::size_t k = 0; k < 2; ++k)
    CHECK(eightfold[k] == Approx(8 * once[k]).epsilon(1e-9));
  // Far above the data D is their mean, to an eighth of their scale, long before the levels
  // end.
  CHECK(once[0] < 1);
  CHECK(once[1] < 20);
}

TEST_CASE("the exact N-stage partition beats every other") {
  const auto weight = GENERATE(ms::stage_weight::one, ms::stage_weight::nodes);
  const ms::index_t n = 9;
  std::vector<double> matrix(std::size_t(n * n));
  const auto noise = test::normals<double>(n * n, 4);
  for (ms::index_t i = 0; i < n; ++i)
    for (ms::index_t j = 0; j < n; ++j)
      matrix[i * n + j] =
          std::exp(-std::fabs(double(i - j)) / 3) + 0.1 * (noise[i * n + j] + noise[j * n + i]);
  for (int stages = 1; stages <= 4; ++stages) {
    double best = -1e9;
    std::vector<ms::index_t> cut(std::size_t(stages) + 1, 0);
    cut[std::size_t(stages)] = n;
    const std::function<void(int)> go = [&](int k) {
      if (k == stages) {
        double sum = 0;
        for (int s = 0; s < stages; ++s) {
          double block = 0;
          for (ms::index_t i = cut[s]; i < cut[s + 1]; ++i)
            for (ms::index_t j = cut[s]; j < cut[s + 1]; ++j)
              block += matrix[i * n + j];
          const double nodes = double(cut[s + 1] - cut[s]);
          sum += block / (nodes * nodes) * (weight == ms::stage_weight::nodes ? nodes : 1);
        }
        best = std::max(best, sum);
        return;
      }
      for (cut[k] = cut[k - 1] + 1; cut[k] < n; ++cut[k])
        go(k + 1);
    };
    go(1);
    const ms::n_stage_result found = ms::n_stage_partition(matrix, stages, weight);
    CHECK(found.objective == Approx(best));
    CHECK(found.mean ==
          Approx(best / (weight == ms::stage_weight::nodes ? double(n) : stages)));
  }
  CHECK_THROWS_AS(ms::n_stage_partition(matrix, 10), ms::value_error);
  CHECK_THROWS_AS(ms::n_stage_partition(matrix, 0), ms::value_error);
  CHECK_THROWS_AS(ms::n_stage_partition({1, 2}, 1), ms::value_error);
}

TEST_CASE("interval clustering finds the least cost within its size limits") {
  const auto noise = test::normals<double>(12, 8);
  std::vector<double> u;
  for (double v : noise)
    u.push_back((u.empty() ? 0 : u.back()) + std::fabs(v));
  const ms::spread_cost cost(u);
  double direct = 0;
  for (int t = 3; t < 9; ++t)
    direct += std::fabs(u[6] - u[t]);
  CHECK(cost(3, 9) == Approx(direct));
  const auto first = ms::interval_clustering(12, 3, cost);
  double best = HUGE_VAL;
  for (ms::index_t a = 3; a < 12; ++a)
    for (ms::index_t b = std::max<ms::index_t>(a + 2, 5); b <= 10; ++b)
      if (b - a <= 6 && 12 - b <= 6)
        best = std::min(best, cost(0, a) + cost(a, b) + cost(b, 12));
  CHECK(cost(0, first[1]) + cost(first[1], first[2]) + cost(first[2], 12) == Approx(best));
  CHECK_THROWS_AS(ms::interval_clustering(5, 6, cost), ms::value_error);
  CHECK_THROWS_AS(ms::cluster_by_gradient({1, 2, 3}, 1), ms::value_error);
}

TEST_CASE("noise levels are drawn inside their stage, with the right probabilities") {
  const ms::partition p({0.3, 1.0, 300.0});
  const ms::noise_level_draws levels;
  const auto probability = levels.stage_probabilities(p);
  double sum = 0;
  for (double q : probability)
    sum += q;
  CHECK(sum == Approx(1));
  // scipy.stats.norm(-1.2, 1.2): cdf(ln .3), cdf(ln 1) - cdf(ln .3), sf(ln 300)
  CHECK(probability[0] == Approx(0.49867923606489956).epsilon(1e-12));
  CHECK(probability[1] == Approx(0.8413447460685429 - 0.49867923606489956).epsilon(1e-12));
  CHECK(probability[3] == Approx(4.379731356026836e-09).epsilon(1e-12));
  for (int s = 0; s < 4; ++s)
    for (double u : {1e-9, 0.1, 0.5, 0.9, 1 - 1e-9}) {
      const double sigma = levels.draw(p, s, u);
      CHECK(p.stage(sigma) == s);
    }
  CHECK(levels.draw(ms::partition(), 0, 0.5) == Approx(std::exp(-1.2)));
  double before = 0;
  for (double u = 0.05; u < 1; u += 0.05) {
    const double sigma = levels.draw(p, 1, u);
    CHECK(sigma > before);
    before = sigma;
  }
}

TEST_CASE("stages merge and split") {
  const ms::partition p({1.0, 5.0, 20.0});
  CHECK(p.merged(1) == ms::partition({1.0, 20.0}));
  CHECK(p.split(3.0) == ms::partition({1.0, 3.0, 5.0, 20.0}));
  CHECK(p.split(3.0).merged(1) == p);
  CHECK(ms::partition().split(2.0) == ms::partition({2.0}));
  CHECK_THROWS_AS(p.merged(3), ms::value_error);
  CHECK_THROWS_AS(p.split(5.0), ms::value_error);
}

TEST_CASE("weighed by nodes, the stages of a finer map are the same") {
  // Levels grow unlike as a bell curve falls, the same everywhere: three stages are thirds.
  const auto widths = [](ms::index_t n, ms::stage_weight weight) {
    std::vector<double> m(std::size_t(n * n));
    for (ms::index_t i = 0; i < n; ++i)
      for (ms::index_t j = 0; j < n; ++j)
        m[std::size_t(i * n + j)] = std::exp(-std::pow(double(i - j) / (0.1 * double(n)), 2));
    const std::vector<ms::index_t> cuts = ms::n_stage_partition(m, 3, weight).cuts;
    return std::vector<ms::index_t>{cuts[0], cuts[1] - cuts[0], n - cuts[1]};
  };
  for (const ms::index_t n : {12, 48, 192}) {
    CHECK(widths(n, ms::stage_weight::nodes) == std::vector<ms::index_t>{n / 3, n / 3, n / 3});
    // The paper's sum is largest for stages of one node beside a wide one, however fine.
    std::vector<ms::index_t> paper = widths(n, ms::stage_weight::one);
    std::sort(paper.begin(), paper.end());
    CHECK(paper == std::vector<ms::index_t>{1, 1, n - 2});
  }
}

TEST_CASE("each further stage gains, and the counts agree with the exact partition") {
  std::vector<double> m(100);
  for (int i = 0; i < 10; ++i)
    for (int j = 0; j < 10; ++j)
      m[std::size_t(10 * i + j)] = std::exp(-0.3 * std::abs(i - j));
  const auto choices = ms::choose_stage_count(m, 10);
  REQUIRE(choices.size() == 10);
  for (std::size_t k = 0; k < 10; ++k) {
    CHECK(choices[k].objective == ms::n_stage_partition(m, int(k) + 1).objective);
    if (k > 0)
      CHECK(choices[k].mean > choices[k - 1].mean);
  }
  CHECK(choices[9].mean == Approx(1));  // every node alone
}

TEST_CASE("the bootstrap's intervals hold the boundaries and narrow with more draws") {
  std::vector<float> images(30 * 4);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(std::tanh(ms::random_stream(3).normal(i)));
  const auto width = [&](ms::index_t draws) {
    const auto c = ms::cluster_by_optimal_denoiser(
        ms::cpu(2), std::span<const float>(images), ms::shape{30, 2, 2, 1},
        {.alpha = 0.9, .threshold = 0.05, .draws = draws});
    const auto b = ms::bootstrap_boundaries(c, 0.9, 200, 5);
    CHECK(b.t1_low <= c.t1);
    CHECK(c.t1 <= b.t1_high);
    CHECK(b.t2_low <= c.t2);
    CHECK(c.t2 <= b.t2_high);
    CHECK(b.t1_error > 0);
    return b.t1_high - b.t1_low + b.t2_high - b.t2_low;
  };
  CHECK(width(3200) < width(200));  // by about four
}
