// Denoisers and their decorators, over closed-form denoisers and without any network: what each
// makes of what it decorates, a stack of them, and `sample` with a denoiser of the user's own.
#include <multistage/multistage.hpp>

#include "catch.hpp"

namespace ms = multistage;

namespace {

using Catch::Contains;

/// E[y | x] for y ~ N(mean, variance), x = y + sigma n.
struct gaussian {
  double mean = 0.3;
  double variance = 0.25;
  int* evaluations = nullptr;

  double at(double x, double sigma) const {
    return mean + variance / (variance + sigma * sigma) * (x - mean);
  }
  void operator()(ms::view<const double> x, double sigma, ms::view<double> d) const {
    if (evaluations)
      ++*evaluations;
    for (ms::index_t i = 0; i < x.extents.size(); ++i)
      d.data[i] = at(x.data[i], sigma);
  }
};

/// The same value everywhere.
struct constant {
  double value;
  void operator()(ms::view<const double>, double, ms::view<double> d) const {
    std::fill_n(d.data, d.extents.size(), value);
  }
};

/// A decorator of the user's own: D + shift.
template <ms::denoiser Denoise>
struct shifted {
  Denoise denoise;
  double shift;
  void operator()(ms::view<const double> x, double sigma, ms::view<double> d) {
    denoise(x, sigma, d);
    for (ms::index_t i = 0; i < d.extents.size(); ++i)
      d.data[i] += shift;
  }
};

static_assert(ms::denoiser<gaussian> && ms::denoiser<ms::any_denoiser> &&
              ms::denoiser<ms::clipped<constant>> && !ms::denoiser<ms::edm_heun>);

const std::vector<double> some{0.1, -2.5, 0.9, 4.0, -0.3, 1.7};
const ms::shape two_rows{2, 1, 1, 3};

/// What a denoiser makes of `some`.
template <class Denoise>
std::vector<double> denoised(Denoise denoise, double sigma) {
  const ms::cpu b(1);
  const ms::tensor<double> x(b, two_rows, some);
  ms::tensor<double> d(b, two_rows);
  denoise(x.view(), sigma, d.view());
  return d.to_host();
}
template <class F>
std::string message(F&& f) {
  try {
    f();
  } catch (const ms::error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("guidance leads away from the weak side, where it acts and as its stage says") {
  int weak_evaluations = 0;
  const gaussian strong{0.3, 0.25};
  const gaussian weak{-0.2, 1.0, &weak_evaluations};
  const ms::guidance guide{.scale = 3, .sigma_low = 0.5, .sigma_high = 20};
  const ms::partition stages({2.0});
  for (const double sigma : {0.5, 0.7, 20.0, 21.0}) {
    const auto got = denoised(ms::guided(strong, weak, guide), sigma);
    for (std::size_t i = 0; i < some.size(); ++i) {
      const double d = strong.at(some[i], sigma);
      const double other = weak.at(some[i], sigma);
      const bool acts = sigma > 0.5 && sigma <= 20;
      CHECK(got[i] == Approx(acts ? other + 3 * (d - other) : d).epsilon(1e-14));
    }
  }
  CHECK(weak_evaluations == 2);  // not where it does not act
  const ms::guidance by_stage{.scale_by_stage = {1, -2}};
  CHECK(denoised(ms::guided(strong, weak, by_stage, stages), 1.5) == denoised(strong, 1.5));
  CHECK(weak_evaluations == 2);
  const auto high = denoised(ms::guided(strong, weak, by_stage, stages), 3);
  CHECK(high[3] == Approx(3 * weak.at(4, 3) - 2 * strong.at(4, 3)));
  CHECK_THAT(
      message([&] { denoised(ms::guided(strong, weak, {.scale_by_stage = {2}}, stages), 3); }),
      Contains("1 scales, stage 1 has none"));
  CHECK_THAT(
      message([&] { ms::guided(strong, weak, {.scale = 2, .sigma_low = 3, .sigma_high = 2}); }),
      Contains("guided: guidance_low = 3 is not below guidance_high = 2"));
}

TEST_CASE("inpainting puts what is known in D's place, by its mask, in every row") {
  const ms::cpu b(1);
  const auto picture = [&](std::initializer_list<double> v) {
    return ms::tensor<double>(b, {1, 1, 1, 3}, v);
  };
  const auto got =
      denoised(ms::inpainted(gaussian{}, picture({0.5, -0.5, 9}), picture({1, 0.25, 0})), 2);
  for (const std::size_t row : {std::size_t(0), std::size_t(3)}) {
    CHECK(got[row] == 0.5);
    CHECK(got[row + 1] == Approx(0.25 * -0.5 + 0.75 * gaussian{}.at(some[row + 1], 2)));
    CHECK(got[row + 2] == gaussian{}.at(some[row + 2], 2));
  }
  // A picture for each row.
  const auto each =
      denoised(ms::inpainted(constant{7}, ms::tensor<double>(b, two_rows, some),
                             ms::tensor<double>(b, two_rows, std::vector<double>(6, 1.0))),
               2);
  CHECK(each == some);
  CHECK_THAT(message([&] {
               ms::inpainted(constant{7}, picture({1, 1, 1}), ms::tensor<double>(b, two_rows));
             }),
             Contains("mask is [2, 1, 1, 3]"));
  CHECK_THAT(message([&] {
               denoised(ms::inpainted(constant{7}, ms::tensor<double>(b, {1, 1, 1, 2}),
                                      ms::tensor<double>(b, {1, 1, 1, 2})),
                        2);
             }),
             Contains("x is [2, 1, 1, 3]"));
}

TEST_CASE("clipping keeps D in [-1, 1]") {
  CHECK(denoised(ms::clipped(constant{1.5}), 1) == std::vector<double>(6, 1.0));
  CHECK(denoised(ms::clipped(constant{-7}), 1) == std::vector<double>(6, -1.0));
  CHECK(denoised(ms::clipped(constant{0.25}), 1) == std::vector<double>(6, 0.25));
}

TEST_CASE("a result that is not finite names evaluation, noise level and stage") {
  for (const double bad : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    int calls = 0;
    ms::verified watched(
        [&](ms::view<const double>, double, ms::view<double> d) {
          std::fill_n(d.data, d.extents.size(), 0.5);
          if (++calls == 3)
            d.data[4] = bad;
        },
        ms::partition({1.0}));
    const auto one = [&](double sigma) {
      return message([&] { denoised(std::ref(watched), sigma); });
    };
    CHECK(one(4).empty());
    CHECK(one(2).empty());
    CHECK_THAT(one(1.5), Contains("not finite at evaluation 3, sigma 1.5, stage 1"));
  }
}

TEST_CASE("the encoder runs once in so many evaluations, inside its interval") {
  std::vector<ms::shared_features> asked;
  const auto network = [&](ms::view<const double>, double, ms::view<double>,
                           ms::shared_features f) {
    asked.push_back(f);
  };
  using enum ms::shared_features;
  const std::vector<double> sigmas{30, 9, 8, 7, 6, 5, 2, 1};
  ms::reusing reused(network, {.every = 3, .sigma_low = 2, .sigma_high = 10});
  for (const double sigma : sigmas)
    denoised(std::ref(reused), sigma);
  CHECK(asked ==
        std::vector{compute, keep, take_over, take_over, keep, take_over, compute, compute});
  // Where the network is used in between, nothing is taken over, and counting begins anew.
  asked.clear();
  ms::reusing interrupted(network, {.every = 2}, [](double sigma) { return sigma == 7; });
  for (const double sigma : sigmas)
    denoised(std::ref(interrupted), sigma);
  CHECK(asked == std::vector{keep, take_over, keep, compute, keep, take_over, keep, take_over});
  CHECK_THAT(
      message([&] { ms::reusing(network, {.every = 2, .sigma_low = 3, .sigma_high = 3}); }),
      Contains("reusing: encoder_low = 3 is not below encoder_high = 3"));
}

TEST_CASE("decorators stack, the user's own among them, also as values of one type") {
  const double sigma = 2;
  const auto want = [&](double x) {
    const double guided = constant{-0.4}.value * -1 + 2 * gaussian{}.at(x, sigma);
    return std::clamp(guided + 0.2, -1.0, 1.0);
  };
  const ms::guidance twice{.scale = 2};
  const auto got = denoised(ms::clipped(shifted<ms::guided<gaussian, constant>>{
                                ms::guided(gaussian{}, constant{-0.4}, twice), 0.2}),
                            sigma);
  ms::any_denoiser stack = gaussian{};
  stack = ms::guided<ms::any_denoiser, constant>(std::move(stack), constant{-0.4}, twice);
  stack = shifted<ms::any_denoiser>{std::move(stack), 0.2};
  stack = ms::clipped<ms::any_denoiser>(std::move(stack));
  CHECK(denoised(std::move(stack), sigma) == got);
  for (std::size_t i = 0; i < some.size(); ++i)
    CHECK(got[i] == Approx(want(some[i])).epsilon(1e-14));
}

TEST_CASE("sample draws from a Gaussian's own denoiser as its probability flow says") {
  // The flow from sigma_max down to 0 takes x to mean + (x - mean) s / sqrt(s^2 + sigma_max^2).
  const ms::shape picture{1, 2, 2, 3};
  int evaluations = 0;
  const gaussian exact{0.3, 0.25, &evaluations};
  const ms::edm_heun sampler{.num_steps = 200};
  const auto drawn = ms::sample(exact, picture, sampler, {.seeds = "0-99", .batch = 32});
  REQUIRE(drawn.extents == ms::shape{100, 2, 2, 3});
  CHECK(drawn.evaluations == std::vector<ms::index_t>{399});
  CHECK(drawn.encoder_evaluations == 0);
  CHECK(evaluations == 4 * 399);
  double mean = 0;
  double squares = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed)
    for (std::uint64_t i = 0; i < 12; ++i) {
      const double start = 80 * ms::random_stream(seed, ms::purpose::latents, 0).normal(i);
      const double end = 0.3 + (start - 0.3) * 0.5 / std::sqrt(0.25 + 6400);
      const double got = drawn.images[12 * seed + i];
      CHECK(std::fabs(got - end) < 1e-3);
      mean += got / 1200;
      squares += got * got / 1200;
    }
  CHECK(std::fabs(mean - 0.3) < 4 * 0.5 / std::sqrt(1200.0));
  CHECK(std::fabs(squares - mean * mean - 0.25) < 4 * 0.25 * std::sqrt(2 / 1200.0));
  // A picture is its seed's, whatever the batch.
  const auto one = ms::sample(exact, picture, sampler, {.seeds = 57});
  CHECK(std::equal(one.images.begin(), one.images.end(), drawn.images.begin() + 57 * 12));
}

TEST_CASE("options that need no model serve any denoiser; others are refused") {
  const ms::shape picture{1, 1, 1, 3};
  const ms::ddim sampler{.num_steps = 6};
  const auto draw = [&](auto denoise, const ms::sampling_options& o) {
    return ms::sample(denoise, picture, sampler, o).images;
  };
  // The last step of DDIM's gives D itself.
  CHECK(draw(constant{3}, {}) == std::vector<double>{3, 3, 3});
  CHECK(draw(constant{3}, {.clip = ms::clipping::pictures}) == std::vector<double>{1, 1, 1});
  CHECK(draw(constant{3}, {.known = {5, 6, 7}, .mask = {1, 0, 0.5}}) ==
        std::vector<double>{5, 3, 5});
  int steps = 0;
  const auto stopped =
      ms::sample(constant{3}, picture, sampler,
                 {.seeds = "0-5", .batch = 2, .observer = [&](const ms::sampling_step& s) {
                    CHECK(s.denoised() == std::vector<double>(6, 3.0));
                    CHECK(s.batch_first == 0);
                    return ++steps < 2;
                  }});
  CHECK(steps == 2);
  CHECK(stopped.extents.rows == 2);
  const auto refused = [&](const ms::sampling_options& o, const char* what) {
    CHECK_THAT(message([&] { draw(constant{3}, o); }), Contains(what));
  };
  refused({.class_label = 1}, "options of a model");
  refused({.context = {1}}, "options of a model");
  refused({.guide = {.scale = 2}}, "options of a model");
  refused({.reuse = {.every = 2}}, "options of a model");
  refused({.from = {1}}, "from has 1 values, a picture has 3");
  refused({.guide = {.scale = 2, .sigma_low = 5, .sigma_high = 5}},
          "sample: guidance_low = 5 is not below guidance_high = 5: nothing lies between");
  refused({.reuse = {.every = 2, .sigma_low = 5, .sigma_high = 4}},
          "sample: encoder_low = 5 is not below encoder_high = 4: nothing lies between");
  refused({.known = {1, 1, 1}}, "known and mask go together");
  CHECK_THAT(message([&] {
               ms::sample(constant{3}, {4, 1, 1, 3}, sampler);
             }),
             Contains("its extents are {1, height, width, channels}"));
  CHECK_THAT(message([&] { ms::sample(constant{HUGE_VAL}, picture, sampler); }),
             Contains("not finite at evaluation 1, sigma 80"));
  // An interval that holds nothing is no matter where nothing would act in it.
  CHECK(draw(constant{3}, {.guide = {.sigma_low = 5, .sigma_high = 4}}).size() == 3);
}

TEST_CASE("a function of the rows makes a denoiser for each batch") {
  std::vector<ms::index_t> rows;
  const auto make = [&](ms::index_t n) {
    rows.push_back(n);
    return constant{double(n)};
  };
  const auto drawn =
      ms::sample(make, {1, 1, 1, 1}, ms::ddim{.num_steps = 3}, {.seeds = "0-4", .batch = 2});
  CHECK(rows == std::vector<ms::index_t>{2, 2, 1});
  CHECK(drawn.images == std::vector<double>{2, 2, 2, 2, 1});
  CHECK(drawn.evaluations == std::vector<ms::index_t>{3});
}
