// Options of samplers and of sampling: defaults that work, one spelling, ranges, seeds as
// values, and what is warned of.
#include <multistage/diffusion/loss_weighting.hpp>
#include <multistage/io.hpp>
#include <multistage/samplers/all.hpp>
#include <multistage/stages/interval_clustering.hpp>
#include <multistage/stages/n_stage.hpp>
#include <random>
#include <set>

#include "support.hpp"

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

/// A model of two stages with weights that are not zero.
ms::dynamic_model<float, ms::cpu> small_model(int label_dim = 0, float size = 0.2f) {
  const ms::configuration config{ms::song_unet{.resolution = 4,
                                               .channels = 1,
                                               .encoder_channels = 8,
                                               .channel_mult = {1},
                                               .num_blocks = 1,
                                               .attn_resolutions = {},
                                               .label_dim = label_dim},
                                 {.widths = {8, 4}},
                                 {}};
  ms::dynamic_model<float, ms::cpu> model(ms::cpu(2), config, ms::partition({1.0}), 1);
  auto w = test::normals<float>(model.weights().size(), 8);
  for (float& v : w)
    v *= size;
  model.backend().upload(w.data(), model.weights().data(), ms::index_t(w.size()));
  return model;
}

/// Collects warnings while it lives.
struct warnings {
  std::vector<std::string> texts;
  ms::warning_handler before =
      ms::set_warning_handler([this](const std::string& text) { texts.push_back(text); });
  warnings() = default;
  ~warnings() {
    ms::set_warning_handler(before);
  }
  warnings(const warnings&) = delete;
  std::size_t about(const std::string& what) const {
    return std::size_t(std::count_if(texts.begin(), texts.end(), [&](const std::string& t) {
      return t.find(what) != std::string::npos;
    }));
  }
};

template <class F>
void for_each_sampler(F&& f) {
  f(ms::edm_heun{});
  f(ms::edm_ablation{});
  f(ms::ddim{});
  f(ms::gddim{});
  f(ms::flow_ode{});
  f(ms::pfgm{});
  f(ms::pndm{});
  f(ms::dpm_solver{});
  f(ms::dpm_solver_sde{});
  f(ms::deis{});
  f(ms::unipc{});
  f(ms::score_sde{});
  f(ms::probability_flow{});
  f(ms::restart{});
}

}  // namespace

TEST_CASE("every sampler draws with its defaults, and with num_steps alone") {
  auto model = small_model();
  for_each_sampler([&](auto sampler) {
    INFO(sampler.name());
    if constexpr (requires { sampler.num_steps = 4; }) {
      if (std::string(sampler.name()) != "score_sde")
        CHECK(sampler.sigmas().size() == 19);  // 18 steps have 19 ends
      sampler.num_steps = std::string(sampler.name()) == "score_sde" ? 25 : 6;
    }
    const auto drawn = ms::sample(model, sampler, {.seeds = 5});
    CHECK(drawn.images.size() == 16);
    for (const double v : drawn.images)
      CHECK(std::isfinite(v));
  });
}

TEST_CASE("a sampler's own list of levels takes the place of its steps") {
  auto model = small_model();
  const auto same = [&](const auto& one, const auto& other) {
    CHECK(ms::sample(model, one, {.seeds = "0-2"}).images ==
          ms::sample(model, other, {.seeds = "0-2"}).images);
  };
  const auto check = [&](auto sampler) {
    INFO(sampler.name());
    auto listed = sampler;
    listed.levels = sampler.sigmas();
    same(sampler, listed);
    listed.num_steps = 3;  // which says nothing then
    same(sampler, listed);
  };
  check(ms::edm_heun{.num_steps = 5, .s_churn = 2});
  check(ms::ddim{.num_steps = 5, .eta = 0.5});
  check(ms::unipc{.num_steps = 7, .order = 3});
  check(ms::deis{.num_steps = 7});
  check(ms::gddim{.num_steps = 5});
  check(ms::pndm{.num_steps = 6});
  check(ms::flow_ode{.num_steps = 5, .heun = true});
  check(ms::dpm_solver{.num_steps = 6});
  check(ms::dpm_solver_sde{.num_steps = 6});
  check(ms::restart{.num_steps = 8});
  check(ms::pfgm{.num_steps = 5});
}

TEST_CASE(
    "ends of levels: those given, or the schedule's own; spacings in a schedule's time, also a "
    "user's") {
  const ms::vp_schedule vp;
  const auto own = ms::ddim{.num_steps = 9,
                            .sigma_min = 0,
                            .sigma_max = 0,
                            .steps = ms::spacing::time_uniform,
                            .schedule = vp}
                       .sigmas();
  REQUIRE(own.size() == 10);
  CHECK(own.front() == Approx(vp.sigma(1)).epsilon(1e-14));
  CHECK(own[8] == Approx(vp.sigma(1e-3)).epsilon(1e-14));
  CHECK(own[9] == 0);
  CHECK(vp.t(own[4]) == Approx(1 + 4 / 8.0 * (1e-3 - 1)));
  CHECK(ms::ddim{.num_steps = 1}.sigmas() == std::vector<double>{80, 0});
  CHECK(ms::pndm{.num_steps = 1}.sigmas() == std::vector<double>{80, 0.002});
  // The number of levels is one more than that of steps, as the documentation says.
  CHECK(ms::noise_levels(vp, ms::spacing::log_snr, 1, 1e-3, 20).size() == 21);
  struct square {  // sigma = t^2
    double signal(double) const {
      return 1;
    }
    double sigma(double t) const {
      return t * t;
    }
    double t(double sigma) const {
      return std::sqrt(sigma);
    }
    double t_min() const {
      return 0.1;
    }
    double t_max() const {
      return 10;
    }
  };
  const auto mine = ms::unipc{
      .num_steps = 4,
      .sigma_min = 0,
      .sigma_max = 0,
      .steps = ms::spacing::time_uniform,
      .schedule =
          square{}}.sigmas();
  CHECK(mine[0] == Approx(100));
  CHECK(mine[1] == Approx(6.7 * 6.7));
  CHECK(mine[3] == Approx(0.01));
  CHECK(ms::any_schedule(square{}).name() == "custom");
  CHECK(ms::any_schedule(ms::cosine_schedule{}).sigma(0.4) == ms::cosine_schedule{}.sigma(0.4));
  const ms::discrete_schedule discrete;
  CHECK(ms::any_schedule(discrete).sigma(0.4) == discrete.sigma(0.4));
}

TEST_CASE("every number of every sampler is held to its range") {
  // The table itself is what is tried: below, above, NaN, and infinity where it is not meant.
  int tried = 0;
  for_each_sampler([&](auto sampler) {
    using type = decltype(sampler);
    const auto refused = [&](const std::string& name, double bad) {
      type s = sampler;
      type::fields(s, [&]<class T>(const ms::option& o, T& value) {
        if (name != o.name)
          return;
        if constexpr (std::is_same_v<T, std::vector<double>>)
          value = {bad, bad};
        else if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
          value = T(bad);
      });
      INFO(s.name() << " " << name << " = " << bad);
      const std::string text = test::message([&] { s.sigmas(); });
      CHECK_THAT(text, Catch::Contains(std::string(s.name()) + ": " + name + " = "));
      ++tried;
    };
    type::fields(sampler, [&]<class T>(const ms::option& o, const T&) {
      if constexpr (std::is_same_v<T, double> || std::is_same_v<T, std::vector<double>>) {
        refused(o.name, not_a_number);
        if (!o.range.holds(infinity))
          refused(o.name, infinity);
        refused(o.name, -1);
        if (o.range.high < infinity)
          refused(o.name, o.range.high * 1.01);
      } else if constexpr (std::is_same_v<T, int>) {
        refused(o.name, o.range.low - 1);
        refused(o.name, o.range.high + 1);
      }
    });
  });
  CHECK(tried > 150);
}

TEST_CASE("options that do not go together are refused by name") {
  const auto says = [](auto&& f, const char* what) {
    CHECK_THAT(test::message(f), Catch::Contains(what));
  };
  says([] { ms::edm_heun{.rho = infinity}.sigmas(); }, "rho = inf");
  says([] { ms::edm_heun{.rho = 1e-3}.sigmas(); }, "rho = 0.001");
  says([] { ms::edm_heun{.sigma_min = 1, .sigma_max = 1}.sigmas(); },
       "sigma_min = 1, sigma_max = 1");
  says([] { ms::edm_heun{.s_min = not_a_number}.sigmas(); }, "s_min = nan");
  says([] { ms::edm_heun{.s_churn = infinity}.sigmas(); }, "s_churn = inf");
  says([] { ms::edm_heun{.sigma_max = 1e300, .rho = 0.5}.sigmas(); }, "sigma_max = 1e+300");
  says(
      [] {
        ms::edm_heun{.num_steps = 1'000'000, .sigma_min = 1, .sigma_max = 1 + 1e-12}.sigmas();
      },
      "levels must descend");
  says([] { ms::edm_heun{.levels = {3, 2, 2}}.sigmas(); }, "noise level 2 is 2");
  says([] { ms::ddim{.sigma_min = 9, .sigma_max = 8}.sigmas(); },
       "sigma_min = 9, sigma_max = 8");
  says([] { ms::gddim{.levels = {2, 1, 0}}.sigmas(); }, "last noise level is 0");
  CHECK(ms::gddim{.levels = {2, 1, 0}, .lambda = 0.5}.sigmas().back() == 0);
  says([] { ms::restart{.low = 100, .high = 200}.sigmas(); }, "low = 100");
  says([] { ms::dpm_solver{.order = 1, .method = ms::dpm_method::adaptive}.sigmas(); },
       "adaptive steps have order 2 or 3");
  says([] { ms::score_sde{.schedule = ms::cosine_schedule{}}.sigmas(); }, "cosine");
  says([] { ms::score_sde{.predictor = ms::sde_predictor::none}.sigmas(); },
       "neither a predictor nor a corrector");
  says([] { ms::unipc{.steps = ms::spacing(9)}.sigmas(); }, "spacing = 9");
}

TEST_CASE("score_sde says the least number of steps that works, and that one works") {
  auto model = small_model();
  using predictor = ms::sde_predictor;
  using corrector = ms::sde_corrector;
  const auto check = [&](ms::score_sde s, int least) {
    INFO(s.schedule.name() << " " << ms::to_string(s.predictor) << " "
                           << ms::to_string(s.corrector) << " least " << least);
    for (int n = 2; n < least; ++n) {
      s.num_steps = n;
      const std::string text = test::message([&] { s.sigmas(); });
      CHECK_THAT(text, Catch::Contains("num_steps = " + std::to_string(n)) &&
                           Catch::Contains("at least " + std::to_string(least)) &&
                           Catch::Contains("num_scales"));
      CHECK_THAT(test::message([&] { ms::sample(model, s); }), Catch::Contains("num_steps"));
    }
    for (int n : {least, least + 1, least + 7}) {
      s.num_steps = n;
      for (const double v : ms::sample(model, s, {.seeds = "0-3"}).images)
        REQUIRE(std::isfinite(v));
    }
  };
  const ms::vp_schedule vp;
  const ms::vp_schedule steep{.beta_min = 0.1, .beta_max = 33.3};
  check({.schedule = vp}, 20);
  check({.schedule = vp, .predictor = predictor::ancestral}, 21);
  check({.schedule = steep}, 34);
  check({.schedule = vp, .predictor = predictor::euler_maruyama}, 2);
  check({.schedule = vp,
         .predictor = predictor::euler_maruyama,
         .corrector = corrector::langevin},
        20);
  check({.schedule = ms::sub_vp_schedule{}}, 2);
  check({.schedule = ms::sub_vp_schedule{}, .corrector = corrector::annealed_langevin}, 20);
  check({.schedule = ms::ve_schedule{},
         .predictor = predictor::ancestral,
         .corrector = corrector::langevin},
        2);
}

TEST_CASE("seeds are values") {
  using seeds = std::vector<std::uint64_t>;
  const auto list = [](const ms::seed_list& s) {
    return seeds(s.begin(), s.end());
  };
  CHECK(list({}) == seeds{0});
  CHECK(list("0-2,7") == seeds{0, 1, 2, 7});
  CHECK(list(5) == seeds{5});
  CHECK(list({3, 1}) == seeds{3, 1});
  CHECK(list(std::vector<int>{4, 4}) == seeds{4, 4});
  CHECK(list(std::set<std::uint64_t>{9, ~std::uint64_t{0}}) == seeds{9, ~std::uint64_t{0}});
  CHECK(list(std::string("1-") + "3") == seeds{1, 2, 3});
  ms::sampling_options o;
  {
    std::string text = "0-" + std::to_string(2) + std::string(100, ',').substr(0, 0);
    o.seeds = text;
    text.assign(200, 'x');  // what they were made from is gone
  }
  o.seeds = "0-" + std::to_string(2);
  auto model = small_model();
  CHECK(ms::sample(model, ms::ddim{.num_steps = 2}, o).images ==
        ms::sample(model, ms::ddim{.num_steps = 2}, {.seeds = {0, 1, 2}}).images);
  CHECK_THAT(test::message([&] { o.seeds = -1; }), Catch::Contains("-1 is negative"));
  CHECK_THAT(test::message([&] {
               o.seeds = std::vector<long>{3, -4};
             }),
             Catch::Contains("-4 is negative"));
  CHECK_THAT(test::message([&] { o.seeds = seeds{}; }), Catch::Contains("empty"));
  for (const char* bad : {"", "-1", "1-", "3-1", "a", "1,,2", "0-99999999999",
                          "18446744073709551616", " 1", "1.5"})
    CHECK_THAT(test::message([&] { o.seeds = bad; }), Catch::Contains("seeds: "));
}

TEST_CASE("what sample is told is held to ranges, too") {
  auto model = small_model();
  const auto says = [&](const ms::sampling_options& o, const char* what) {
    CHECK_THAT(test::message([&] { ms::sample(model, ms::ddim{.num_steps = 2}, o); }),
               Catch::Contains(what));
  };
  says({.batch = 0}, "batch = 0");
  says({.guide = {.scale = not_a_number}}, "guidance = nan");
  says({.guide = {.scale_by_stage = {1, 2, 3}}},
       "3 scales of guidance by stage for a model of 2 stages");
  says({.guide = {.scale_by_stage = {1, infinity}}}, "guidance_by_stage = inf");
  says({.guide = {.sigma_low = not_a_number}}, "guidance_low = nan");
  says({.reuse = {.every = 0}}, "encoder_every = 0");
  says({.from = std::vector<double>(16, not_a_number)}, "from = nan");
  says({.known = std::vector<double>(16, 0.0), .mask = std::vector<double>(16, 2.0)},
       "mask = 2");
  says({.class_label = -2}, "label = -2");
  says({.clip = ms::clipping(3)}, "clip = 3");
}

TEST_CASE("clipping keeps pictures in [-1, 1], or every D") {
  auto model = small_model(0, 1);  // large weights, so that pictures leave the range
  const ms::ddim sampler{.num_steps = 4};
  std::vector<double> free = ms::sample(model, sampler, {.seeds = "0-9"}).images;
  CHECK(*std::max_element(free.begin(), free.end()) > 1);  // else nothing is tested
  for (double& v : free)
    v = std::clamp(v, -1.0, 1.0);
  CHECK(ms::sample(model, sampler, {.seeds = "0-9", .clip = ms::clipping::pictures}).images ==
        free);
  ms::sampling_options o{.seeds = "0-9", .clip = ms::clipping::denoised};
  o.observer = [](const ms::sampling_step& s) {
    for (const double v : s.denoised())
      REQUIRE((v >= -1 && v <= 1));
    return true;
  };
  const auto each = ms::sample(model, sampler, o).images;
  CHECK(each != free);
  for (const double v : each)
    CHECK((v >= -1 && v <= 1));
}

TEST_CASE("a sampler with a policy takes the model's stages") {
  auto model = small_model();
  ms::unipc own{.num_steps = 9, .order = 3, .crossing = {.policy = ms::boundary_policy::align}};
  ms::unipc told = own;
  told.crossing.stages = model.stages();
  const auto a = ms::sample(model, own, {.seeds = "0-3"}).images;
  CHECK(a == ms::sample(model, told, {.seeds = "0-3"}).images);
  own.crossing.policy = ms::boundary_policy::carry;
  CHECK(a != ms::sample(model, own, {.seeds = "0-3"}).images);
}

TEST_CASE("similarities that are no numbers are refused") {
  std::vector<double> matrix(25, 0.5);
  for (const double bad : {not_a_number, infinity, -infinity}) {
    matrix[7] = bad;
    for (int most : {1, 3, 5})
      CHECK_THAT(test::message([&] { ms::choose_stage_count(matrix, most); }),
                 Catch::Contains("similarity 7 (row 1, column 2)"));
    CHECK_THAT(test::message([&] { ms::n_stage_partition(matrix, 2); }),
               Catch::Contains("similarity 7"));
    CHECK_THAT(test::message([&] { ms::cluster_by_gradient(matrix, 2); }),
               Catch::Contains("affinity 7"));
    CHECK_THAT(test::message([&] {
                 ms::spread_cost({0.0, bad, 1.0});
               }),
               Catch::Contains("value"));
  }
  CHECK_THAT(test::message([&] { ms::choose_stage_count(std::vector<double>(4, 1.0), 0); }),
             Catch::Contains("at most 0"));
}

TEST_CASE("training's numbers are held to their ranges") {
  auto model = small_model();
  std::vector<float> images(20 * 16);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(std::sin(double(i)));
  const auto says = [&](const ms::trainer_options& o, const char* what) {
    CHECK_THAT(
        test::message([&] {
          ms::trainer t{model, std::span<const float>(images), ms::shape{20, 4, 4, 1}, o};
        }),
        Catch::Contains(what));
  };
  says({.learning_rate = not_a_number}, "learning_rate = nan");
  const auto refuses = [](auto levels, const char* what) {
    CHECK_THAT(test::message([&] { ms::noise_level_draws{levels}; }), Catch::Contains(what));
  };
  refuses(ms::log_normal_levels{.p_mean = not_a_number}, "log_normal: p_mean = nan");
  refuses(ms::log_uniform_levels{.sigma_max = infinity}, "log_uniform: sigma_max = inf");
  refuses(ms::log_uniform_levels{9, 2}, "from sigma 9 to 2");
  refuses(ms::time_kneed_levels<>{.suppression = infinity}, "time_kneed: suppression = inf");
  says({.stage_probabilities = {1, not_a_number}}, "stage_probabilities = nan");
  says({.least_stage_share = 0.6}, "least_stage_share = 0.6");
  says({.label_dropout = 1.5}, "label_dropout = 1.5");
  says({.label_dropout = 0.1}, "model without labels");
  says({.memory = -1}, "memory = -1");
}

TEST_CASE("a warning is said once, to whom it is sent, and may be made an error") {
  warnings w;
  for (int i = 0; i < 3; ++i)
    ms::warn("odd: ", 1);
  ms::warn("odd: ", 2);
  CHECK(w.texts == std::vector<std::string>{"odd: 1", "odd: 2"});
  {
    const warnings inner;
    ms::warn("odd: ", 1);
    CHECK(inner.about("odd: 1") == 1);
  }
  const auto before =
      ms::set_warning_handler([](const std::string& text) { throw ms::value_error(text); });
  CHECK_THROWS_AS(ms::warn("odd: ", 3), ms::value_error);
  CHECK_THROWS_AS(ms::warn("odd: ", 3), ms::value_error);
  ms::set_warning_handler(before);
}

TEST_CASE("stages and images that can hardly be meant are warned of") {
  std::vector<float> images(20 * 16);
  const auto fill = [&](double low, double high) {
    for (std::size_t i = 0; i < images.size(); ++i)
      images[i] = float(low + (high - low) * ms::random_stream(3).uniform(i));
  };
  const auto train = [&](ms::partition p, const ms::trainer_options& o) {
    warnings w;
    ms::dynamic_model<float, ms::cpu> m(ms::cpu(1), small_model().config(), std::move(p), 1);
    for (int i = 0; i < 2; ++i)
      ms::trainer t{m, std::span<const float>(images), ms::shape{20, 4, 4, 1}, o};
    return w.texts;
  };
  fill(-1, 1);
  CHECK(train(ms::partition({1.0}), {}).empty());
  const auto rare = train(ms::partition({50.0}), {});
  REQUIRE(rare.size() == 1);
  CHECK_THAT(rare[0], Catch::Contains("stage 1") && Catch::Contains("least_stage_share"));
  CHECK(train(ms::partition({50.0}), {.least_stage_share = 0.05}).empty());
  CHECK(train(ms::partition({50.0}), {.stage_probabilities = {1, 0}}).empty());
  fill(0, 184);
  const auto bytes = train(ms::partition({1.0}), {});
  REQUIRE(bytes.size() == 1);
  CHECK_THAT(bytes[0], Catch::Contains("[-1, 1]") && Catch::Contains("127.5"));
  fill(0, 1);
  const auto positive = train(ms::partition({1.0}), {});
  REQUIRE(positive.size() == 1);
  CHECK_THAT(positive[0], Catch::Contains("2 v - 1"));
  fill(-4, 4);  // latent images
  CHECK(train(ms::partition({1.0}), {}).empty());
}

TEST_CASE("guidance that does nothing, or what was never learnt, is warned of") {
  const ms::ddim sampler{.num_steps = 2};
  auto plain = small_model();
  auto labelled = small_model(3);
  auto other = small_model(3);
  const auto said = [&](auto& model, const ms::sampling_options& o,
                        ms::dynamic_model<float, ms::cpu>* weak = nullptr) {
    warnings w;
    for (int i = 0; i < 2; ++i)
      ms::sample(model, sampler, o, weak);
    return w.texts;
  };
  CHECK(said(plain, {}).empty());
  CHECK_THAT(test::message([&] {
               said(plain, {.guide = {.scale = 2, .sigma_low = 3, .sigma_high = 2}});
             }),
             Catch::Contains("guidance_low = 3 is not below guidance_high = 2"));
  REQUIRE(said(plain, {.guide = {.scale = 2}}).size() == 1);
  CHECK_THAT(said(plain, {.guide = {.scale = 2}})[0], Catch::Contains("twice as much"));
  CHECK(said(labelled, {.guide = {.scale_by_stage = {1, 3}}}).size() == 1);
  CHECK(said(labelled, {.guide = {.scale = 2}}, &other).empty());
  CHECK(said(labelled, {.class_label = 1, .guide = {.scale = 2}})
            .empty());  // nobody knows how it was trained
  std::vector<float> images(20 * 16);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(std::sin(double(i)));
  const std::vector<int> classes(20, 2);
  const auto trained = [&](double dropout) {
    ms::trainer t{labelled, std::span<const float>(images), ms::shape{20, 4, 4, 1},
                  ms::trainer_options{.batch_size = 8, .label_dropout = dropout},
                  std::span<const int>(classes)};
    t.step();
    return said(labelled, {.class_label = 1, .guide = {.scale = 2}});
  };
  const auto never = trained(0);
  REQUIRE(never.size() == 1);
  CHECK_THAT(never[0], Catch::Contains("label_dropout = 0.1"));
  CHECK(said(labelled, {.class_label = 1}).empty());
  CHECK(trained(0.1).empty());
  CHECK(trained(0).empty());  // it did once
}

TEST_CASE("label dropout leaves out labels as often as asked") {
  // A first layer of labels that gets no gradient has seen none: its rows' gradient is a sum
  // over the rows that kept theirs.
  auto model = small_model(3);
  std::vector<float> images(20 * 16);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(std::sin(double(i)));
  const std::vector<int> classes(20, 2);
  const std::vector<double> sigmas{0.4};
  std::size_t layer = 0;
  while (model.parameter_names()[layer].find("map_label.weight") == std::string::npos)
    ++layer;
  const auto& p = model.network().parameters[layer];
  int kept = 0;
  constexpr int trials = 400;
  for (int seed = 0; seed < trials; ++seed) {
    ms::trainer t{model, std::span<const float>(images), ms::shape{20, 4, 4, 1},
                  ms::trainer_options{
                      .batch_size = 1, .label_dropout = 0.25, .seed = std::uint64_t(seed)},
                  std::span<const int>(classes)};
    t.differentiate(sigmas);
    const auto g = t.gradient().to_host();
    double sum = 0;
    for (ms::index_t i = 0; i < p.size(); ++i)
      sum += std::fabs(g[std::size_t(p.offset + i)]);
    kept += sum > 0;
  }
  CHECK(std::fabs(kept / double(trials) - 0.75) < 4 * std::sqrt(0.75 * 0.25 / trials));
}

TEST_CASE("what a model was trained with lies in its checkpoint") {
  const test::directory dir;
  auto model = small_model(3);
  ms::save(dir / "plain.safetensors", model);
  CHECK_FALSE(ms::load<float>(dir / "plain.safetensors", ms::cpu(1)).trained().label_dropout);
  std::vector<float> images(20 * 16);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(std::sin(double(i)));
  const std::vector<int> classes(20, 2);
  const auto train = [&](double dropout, bool resume) {
    ms::trainer t{
        model, std::span<const float>(images), ms::shape{20, 4, 4, 1},
        ms::trainer_options{.batch_size = 8, .augmented = 7, .label_dropout = dropout},
        std::span<const int>(classes)};
    if (resume)
      ms::resume(dir / "trained.safetensors", t, {.other_options = true});
    t.step();
    ms::save(dir / "trained.safetensors", t);
    return ms::load<float>(dir / "trained.safetensors", ms::cpu(1)).trained();
  };
  CHECK(train(0.25, false).label_dropout == 0.25);
  model.set_trained({});
  CHECK(train(0, true).label_dropout == 0.25);
  CHECK(train(0, true).augmented == 7);
}

TEST_CASE("the value of white is a number above 0") {
  const ms::io::npy_array a{
      .type = "u1", .extents = {2, 2, 2}, .values = {0, 1, 2, 3, 4, 5, 6, 7}};
  for (const double bad : {not_a_number, -1.0, infinity})
    CHECK_THAT(test::message([&] { ms::io::images_from(a, "a.npy", {.largest = bad}); }),
               Catch::Contains("largest = "));
}

TEST_CASE("Poisson flow is drawn with the dimensions it was trained with, or it is said") {
  auto model = small_model();
  const auto said = [&](const auto& sampler) {
    warnings w;
    ms::sample(model, sampler);
    return w.texts.size();
  };
  CHECK(said(ms::pfgm{.num_steps = 2, .augmented = 1}) == 0);  // nothing is known of it
  model.set_trained({.augmented = 0});
  CHECK(said(ms::pfgm{.num_steps = 2, .augmented = 1}) == 1);
  CHECK(said(ms::pfgm{.num_steps = 2}) == 0);
  CHECK(said(ms::edm_heun{.num_steps = 2}) == 0);
  model.set_trained({.augmented = 3});
  CHECK(said(ms::pfgm{.num_steps = 2, .augmented = 3}) == 0);
  CHECK(said(ms::pfgm{.num_steps = 2}) == 1);
  CHECK(said(ms::edm_heun{.num_steps = 2}) == 1);
  // The default's pictures are near those of EDM's sampler: no static, for any seed.
  model.set_trained({.augmented = 0});
  const auto a = ms::sample(model, ms::pfgm{}, {.seeds = "0-63"}).images;
  const auto b = ms::sample(model, ms::edm_heun{}, {.seeds = "0-63"}).images;
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::fabs(a[i] - b[i]));
  CHECK(worst < 0.3);
}

TEST_CASE("upper ends of ranges name the option, not the model") {
  const auto says = [](auto&& f, const char* text) {
    CHECK_THAT(test::message(f), Catch::Contains(text));
  };
  says([] { ms::ddim{.sigma_max = 1e30}.sigmas(); },
       "sigma_max = 1e+30; it must be at least 0 and at most 1000000");
  says([] { ms::edm_heun{.sigma_max = 1e7}.sigmas(); }, "sigma_max = 10000000");
  says([] { ms::probability_flow{.sigma_max = 1e7}.sigmas(); }, "sigma_max = 10000000");
  says([] { ms::ddim{.levels = {1e30, 1}}.sigmas(); }, "levels = 1e+30");
  says([] { ms::edm_heun{.s_churn = 1, .s_noise = 1e9}.sigmas(); }, "s_noise = 1e+09");
  says([] { ms::edm_heun{.s_churn = 1, .s_min = 2, .s_max = 1}.sigmas(); },
       "s_min = 2, s_max = 1");
  says([] { ms::score_sde{.corrector = ms::sde_corrector::langevin, .snr = 1e9}.sigmas(); },
       "snr = 1e+09");
  says([] { ms::score_sde{.eps = 1e-30}.sigmas(); }, "eps = 1e-30");
  says([] { ms::dpm_solver{.adaptive = {.t_err = 9}}.sigmas(); }, "t_err = 9");
  says([] { ms::dpm_solver{.adaptive = {.atol = 1e9}}.sigmas(); }, "atol = 1e+09");
  says(
      [] {
        ms::score_sde{.schedule = ms::ve_schedule{1e-3, 1e9}}.sigmas();
      },
      "sigma_max = 1e+09");
}

TEST_CASE(
    "a schedule whose own parameters leave it no noise levels is refused where it is chosen") {
  const auto says = [](auto&& f, const char* text) {
    CHECK_THAT(test::message(f), Catch::Contains(text));
  };
  says([] { ms::any_schedule(ms::ve_schedule{0, 50}); }, "schedule ve: sigma goes from");
  says([] { ms::any_schedule(ms::ve_schedule{50, 0.01}); }, "must ascend");
  says([] { ms::any_schedule(ms::vp_schedule{.beta_min = 0, .beta_max = 0}); },
       "schedule vp: sigma");
  says([] { ms::any_schedule(ms::vp_schedule{.beta_min = 5, .beta_max = 5}); },
       "beta_max must differ");
  says([] { ms::any_schedule(ms::flow_schedule{.t_end = 1}); }, "to inf at t = 1");
  says([] { ms::any_schedule(ms::edm_schedule{80, 0.002}); }, "its times go from 80 to 0.002");
}

TEST_CASE(
    "stages by SNR lie among the times that are asked for, also where sigma is infinite at 1") {
  // Of flow's -lambda = ln(t / (1 - t)), odd around t = 1/2: from 0.1 to 0.9 two clusters meet
  // in the middle.
  const auto first = ms::cluster_by_snr(1000, 2, ms::flow_schedule{}, 0.1, 0.9);
  REQUIRE(first.size() == 2);
  CHECK(std::abs(int(first[1]) - 500) <= 2);
  CHECK(ms::cluster_by_snr(1000, 3, ms::flow_schedule{}).size() == 3);
  CHECK(ms::cluster_by_snr(1000, 3) == ms::cluster_by_snr(1000, 3, ms::vp_schedule{}, 0, 1));
}

TEST_CASE("arrays whose values do not look like pictures are warned of, once") {
  const auto array = [](const char* type, double top) {
    ms::io::npy_array a;
    a.extents = {2, 4, 4};
    a.type = type;
    for (int i = 0; i < 32; ++i)
      a.values.push_back(top * (i % 17) / 16);
    return a;
  };
  warnings w;
  ms::io::images_from(array("u1", 16), "digits.npy");
  ms::io::images_from(array("u1", 16), "digits.npy");
  CHECK(w.about("go no higher than 16 of 255") == 1);
  CHECK(w.about("--largest 16") == 1);
  ms::io::images_from(array("u1", 16), "a.npy", {.largest = 16});
  ms::io::images_from(array("u1", 64), "b.npy");
  ms::io::images_from(array("b1", 0), "c.npy");
  CHECK(w.texts.size() == 1);
  ms::io::images_from(array("f4", 1), "d.npy");
  CHECK(w.about("d.npy: no value is below 0") == 1);
  ms::io::images_from(array("f4", 1), "e.npy", {.latents = true});
  ms::io::images_from(array("f4", -1), "f.npy");
  CHECK(w.texts.size() == 2);
  // What training is given lies on both sides of 0, too.
  const std::vector<float> dark{-1, -0.9f, -0.87f};
  const std::vector<float> both{-1, -0.9f, 0.1f};
  const auto given = [](const std::vector<float>& values) {
    const auto images = ms::image_source::of(std::span<const float>(values), {3, 1, 1, 1});
    ms::detail::warn_of_images(ms::survey_images(images));
  };
  given(both);
  CHECK(w.texts.size() == 2);
  given(dark);
  CHECK(w.about("no image has a value above 0") == 1);
}

TEST_CASE("a label for each picture: listed, cycled, by name, or by its seed alone") {
  auto model = small_model(3);
  model.set_trained({.class_names = {"dog", "cat", "a-1"}});
  const ms::ddim two_steps{.num_steps = 2};
  const auto draw = [&](const ms::sampling_options& o) {
    return ms::sample(model, two_steps, o).images;
  };
  const auto row = [](const std::vector<double>& images, std::size_t i) {
    return std::vector<double>(images.begin() + long(16 * i),
                               images.begin() + long(16 * i + 16));
  };
  const auto alone = [&](std::uint64_t seed, int label) {
    return draw({.seeds = seed, .class_label = label});
  };
  // Whatever the batch, picture i has label i of the list, which begins again behind its end.
  const std::vector<double> cycled = draw({.seeds = "5-11", .batch = 3, .class_label = "0-2"});
  for (std::size_t i = 0; i < 7; ++i)
    CHECK(row(cycled, i) == alone(5 + i, int(i % 3)));
  CHECK(alone(5, 0) != alone(5, 1));
  CHECK(draw({.seeds = "5-8", .class_label = {2, -1}}) ==
        draw({.seeds = "5-8", .batch = 1, .class_label = "2,none"}));
  CHECK(draw({.seeds = "5-7", .class_label = "cat,a-1,0"}) ==
        draw({.seeds = "5-7", .class_label = {1, 2, 0}}));
  // A label by chance goes with the seed, wherever it stands.
  const std::vector<double> random = draw({.seeds = "0-20", .class_label = "random"});
  CHECK(row(random, 20) == draw({.seeds = 20, .class_label = "random"}));
  const auto chosen = ms::label_list("random").of("0-2999", 3);
  for (const int label : {0, 1, 2})  // five standard deviations about a third
    CHECK(std::abs(std::count(chosen.begin(), chosen.end(), label) - 1000) < 130);
  // Away from another label: D_w = D_negative + w (D - D_negative).
  const ms::ddim one_step{.levels = {5.0, 0.0}};  // the result is D
  const auto d = [&](const ms::sampling_options& o) {
    return ms::sample(model, one_step, o).images;
  };
  const auto strong = d({.seeds = 3, .class_label = 1});
  const auto weak = d({.seeds = 3, .class_label = 2});
  const auto guided =
      d({.seeds = 3, .class_label = 1, .negative_label = 2, .guide = {.scale = 3}});
  for (std::size_t i = 0; i < 16; ++i)
    CHECK(guided[i] == Approx(weak[i] + 3 * (strong[i] - weak[i])));

  const auto refused = [&](const char* what, const ms::sampling_options& o) {
    CHECK_THAT(test::message([&] { draw(o); }), Catch::Contains(what));
  };
  refused("the model knows 3 classes", {.class_label = 3});
  refused("'fish' is unknown; the model knows 3 classes, dog, cat, a-1",
          {.class_label = "dog,fish"});
  refused("needs guidance", {.class_label = 1, .negative_label = 2});
  for (const char* text : {"", "1,", ",1", "3-1"})
    CHECK_THAT(test::message([&] { ms::label_list list(text); }), Catch::Contains("label: "));
  for (const char* text : {"-1", "3", "0-9", "cat,dog,7", "random", "2,4-5"})
    CHECK(ms::label_list(text).name() == text);
}

TEST_CASE("steps by stage: each stage's part of the way has its own number of them") {
  auto model = small_model();  // two stages
  const ms::partition three({0.5, 5.0});
  for_each_sampler([&](auto sampler) {
    if constexpr (ms::walks_levels<decltype(sampler)>) {
      INFO(sampler.name());
      const std::vector<double> whole = sampler.sigmas();
      const std::vector<double> s = ms::steps_by_stage(sampler, three, {3, 2, 4}).sigmas();
      REQUIRE(s.size() == 10);
      CHECK(s[0] == whole[0]);
      CHECK(s[4] == 5.0);
      CHECK(s[6] == 0.5);
      CHECK(s[9] == whole.back());
    }
  });
  // The evaluations are the stages' own.
  const auto counted = [&](const std::vector<int>& steps) {
    const ms::ddim sampler = ms::steps_by_stage(ms::ddim{}, model.stages(), steps);
    return ms::sample(model, sampler, {.seeds = 1}).evaluations;
  };
  CHECK(counted({3, 4}) == std::vector<ms::index_t>{3, 4});
  CHECK(counted({1, 1}) == std::vector<ms::index_t>{1, 1});
  // EDM's spacing inside a stage: equation 5 between the stage's ends.
  const std::vector<double> s = ms::steps_by_stage(ms::edm_heun{}, three, {1, 2, 1}).sigmas();
  CHECK(s[2] == Approx(std::pow((std::pow(5.0, 1 / 7.0) + std::pow(0.5, 1 / 7.0)) / 2, 7)));
  const auto refused = [&](const char* what, const ms::ddim& sampler,
                           const std::vector<int>& steps) {
    CHECK_THAT(test::message([&] { ms::steps_by_stage(sampler, three, steps); }),
               Catch::Contains(what));
  };
  refused("steps of 2 stages for a model of 3", {}, {1, 2});
  refused("0 steps for stage 1", {}, {1, 0, 2});
  refused("exclude each other", {.levels = {80, 1, 0}}, {1, 1, 2});
  refused("1 steps for stage 2", {.sigma_max = 3}, {1, 1, 1});
}

TEST_CASE("a context for each picture, one after the other") {
  const ms::ldm_unet net{.resolution = 4,
                         .channels = 2,
                         .encoder_channels = 8,
                         .channel_mult = {1},
                         .num_blocks = 1,
                         .attn_downsample = {1},
                         .num_head_channels = 4,
                         .norm_groups = 4,
                         .spatial_transformer = true,
                         .context_dim = 3,
                         .context_tokens = 2};
  ms::dynamic_model<float, ms::cpu> model(ms::cpu(2), {net, {.widths = {8}}, {}}, {}, 1);
  auto w = test::normals<float>(model.weights().size(), 8);
  for (float& v : w)
    v *= 0.2F;
  model.backend().upload(w.data(), model.weights().data(), ms::index_t(w.size()));
  const std::vector<double> first{1, 0, 2, -1, 0.5, 0};
  const std::vector<double> second{0, -2, 0, 1, 1, 1};
  std::vector<double> both = first;
  both.insert(both.end(), second.begin(), second.end());
  const auto draw = [&](const ms::seed_list& seeds, const std::vector<double>& context,
                        ms::index_t batch = 64) {
    return ms::sample(model, ms::ddim{.num_steps = 2},
                      {.seeds = seeds, .batch = batch, .context = context})
        .images;
  };
  const std::vector<double> all = draw("0-2", both);
  CHECK(all == draw("0-2", both, 2));
  std::vector<double> alone;
  for (const int i : {0, 1, 2}) {
    const std::vector<double> one = draw(i, i == 1 ? second : first);
    alone.insert(alone.end(), one.begin(), one.end());
  }
  CHECK(all == alone);
  CHECK(draw(0, first) != draw(0, second));
  CHECK_THAT(test::message([&] {
               draw("0-2", {1, 2, 3, 4});
             }),
             Catch::Contains("a context of 4 values, the model takes 6"));
}
