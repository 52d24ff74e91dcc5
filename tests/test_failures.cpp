// Memory and threads that cannot be had: every allocation of a training step, a sampling and a
// clustering fails once, and every thread of a pool. What follows must be as if nothing had
// happened, bit by bit.
#include "faults.hpp"

TEMPLATE_TEST_CASE("a training step whose memory fails changes nothing", "", FAULT_BACKENDS) {
  walk_all<TestType>(
      40,
      [](const TestType& b) {
        auto t = std::make_unique<training<TestType>>(b);
        t->start();
        return t;
      },
      [](auto& t) { t->trainer->step(); }, [](auto& t) { return t->state(); });
}

TEMPLATE_TEST_CASE("a trainer whose memory fails leaves the model as it was",
                   "",
                   FAULT_BACKENDS) {
  walk_all<TestType>(
      10, [](const TestType& b) { return std::make_unique<training<TestType>>(b); },
      [](auto& t) { t->start(); }, [](auto& t) { return t->state(); });
}

TEMPLATE_TEST_CASE("pictures are the same after a sampling whose memory failed",
                   "",
                   FAULT_BACKENDS) {
  struct drawing {
    std::unique_ptr<model_of<TestType>> model;
    std::vector<double> images;
  };
  walk_all<TestType>(
      40,
      [](const TestType& b) {
        return drawing{make_model(b), {}};
      },
      [](drawing& d) {
        d.images = ms::sample(*d.model, ms::edm_heun{.num_steps = 2},
                              {.seeds = "0-2", .reuse = {.every = 2}})
                       .images;
      },
      [](drawing& d) {
        std::vector<double> all = d.images;
        append(all,
               ms::sample(*d.model, ms::edm_heun{.num_steps = 3}, {.seeds = "0-8"}).images);
        return all;
      });
}

TEMPLATE_TEST_CASE("a batch that is too large leaves smaller ones right", "", FAULT_BACKENDS) {
  struct evaluation {
    std::unique_ptr<model_of<TestType>> model;
    std::vector<double> denoise(ms::index_t rows) {
      TestType& b = model->backend();
      const auto x = test::random_tensor<double>(b, model->images(rows), 3);
      ms::tensor<double, TestType> d(b, model->images(rows));
      model->denoise(x.view(), std::vector<double>(std::size_t(rows), 1.5), d.view());
      return d.to_host();
    }
  };
  walk_all<TestType>(
      20,
      [](const TestType& b) {
        evaluation e{make_model(b)};
        e.denoise(2);
        return e;
      },
      [](evaluation& e) { e.denoise(100); },
      [](evaluation& e) {
        std::vector<double> all = e.denoise(5);
        append(all, e.denoise(101));
        return all;
      });
}

TEMPLATE_TEST_CASE("a clustering whose memory fails can be asked for again",
                   "",
                   FAULT_BACKENDS) {
  struct search {
    TestType backend;
    std::vector<double> found;
  };
  const std::vector<float> images = pictures(600);  // more than a block
  walk_all<TestType>(
      20,
      [](const TestType& b) {
        return search{b, {}};
      },
      [&](search& s) {
        const auto c = ms::cluster_by_optimal_denoiser(
            s.backend, std::span<const float>(images), ms::shape{600, 4, 4, 1},
            {.alpha = 0.9, .threshold = 0.02, .draws = 48});
        s.found = c.mean_low;
        append(s.found, c.stages.boundaries());
      },
      [](search& s) { return s.found; });
}

TEMPLATE_TEST_CASE("an optimal denoiser grows whole or not at all", "", FAULT_BACKENDS) {
  struct denoiser {
    TestType backend;
    ms::tensor<double, TestType> images;
    std::unique_ptr<ms::optimal_denoiser<double, TestType>> best;
    std::vector<double> of(ms::index_t rows) {
      const auto x = test::random_tensor<double>(backend, {rows, 4, 4, 1}, 5);
      ms::tensor<double, TestType> d(backend, {rows, 4, 4, 1});
      (*best)(x.view(), std::vector<double>(std::size_t(rows), 0.7), d.view());
      return d.to_host();
    }
  };
  walk_all<TestType>(
      8,
      [](const TestType& b) {
        denoiser d{b, test::random_tensor<double>(b, {30, 4, 4, 1}, 1), nullptr};
        d.best = std::make_unique<ms::optimal_denoiser<double, TestType>>(
            b, std::as_const(d.images).view());
        d.of(2);
        return d;
      },
      [](denoiser& d) { d.of(300); },
      [](denoiser& d) {
        std::vector<double> all = d.of(4);
        append(all, d.of(301));
        return all;
      });
}

TEST_CASE("memory of a large piece that cannot be had leaves the model usable") {
  auto m = make_model(ms::cpu(2));
  const auto denoise = [&](ms::index_t rows) {
    const ms::tensor<double, ms::cpu> x(m->backend(), m->images(rows));
    ms::tensor<double, ms::cpu> d(m->backend(), m->images(rows));
    m->denoise(x.view(), std::vector<double>(std::size_t(rows), 1.5), d.view(), {}, rows);
    return d.to_host();
  };
  const std::vector<double> before = denoise(64);
  const ms::index_t many = 12'000;  // pieces of 4 MiB and more are the system's pages
  int failures = 0;
  for (long n = 1; n < 10'000; ++n) {
    fault::arm(n, true);
    try {
      denoise(many);
      fault::disarm();
      break;
    } catch (const std::bad_alloc&) {
      fault::disarm();
      ++failures;
      REQUIRE((denoise(64) == before));
    }
  }
  CHECK(failures > 5);
}

TEST_CASE("threads that cannot be started: those that were are joined, and the error says so") {
  for (int have = 0; have < 7; ++have) {
    fault::threads_left = have;
    const std::string text = test::message([] { ms::thread_pool pool(8); });
    CHECK_THAT(text, Catch::Contains("of 8 threads the system gives only " +
                                     std::to_string(have + 1)) &&
                         Catch::Contains("ulimit -u"));
    CHECK_THROWS_AS(ms::cpu(9), ms::state_error);
    fault::threads_left = -1;
  }
#ifdef _OPENMP
  fault::threads_left = 2;
  CHECK_THROWS_AS(ms::thrust_omp(8), ms::state_error);
  fault::threads_left = -1;
#endif
  ms::thread_pool pool(8);
  std::atomic<int> sum{0};
  pool.parallel_for(100, [&](ms::index_t i) { sum += int(i); });
  CHECK(sum == 4950);
}

TEST_CASE("a pool's memory fails at any point without a thread left behind") {
  int failures = 0;
  for (long n = 1;; ++n) {
    fault::arm(n, true);
    try {
      ms::thread_pool pool(4);
      fault::disarm();
      break;
    } catch (const std::bad_alloc&) {
      fault::disarm();
      ++failures;
    }
  }
  CHECK(failures >= 4);
}

TEST_CASE("where no thread can be had to read ahead, images are read when they are needed") {
  const std::vector<float> images = pictures(1300);  // three blocks
  const ms::cpu backend(1);
  const auto found = [&] {
    return ms::cluster_by_optimal_denoiser(backend, std::span<const float>(images),
                                           ms::shape{1300, 4, 4, 1},
                                           {.alpha = 0.9, .threshold = 0.02, .draws = 48})
        .mean_low;
  };
  const std::vector<double> usual = found();
  fault::threads_left = 0;
  const std::vector<double> alone = found();
  fault::threads_left = -1;
  CHECK((alone == usual));
}
