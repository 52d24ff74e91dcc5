// The parts of training, each alone: who shares rows, who draws noise levels, the objective,
// the update; and weights, draws and preconditionings of a user's own.
#include <filesystem>
#include <multistage/training/average_series.hpp>
#include <multistage/training/trainer.hpp>

#include "support.hpp"

namespace mine {

/// sigma uniform between 1 and 3.
struct even_levels {
  double cumulative(double sigma) const {
    return std::clamp((sigma - 1) / 2, 0.0, 1.0);
  }
  double quantile(double share) const {
    return 1 + 2 * share;
  }
};
static_assert(ms::noise_distribution<even_levels>);

/// A distribution with a fault: no level belongs to any share.
struct no_levels : even_levels {
  double quantile(double) const {
    return std::nan("");
  }
};

/// D = x + sigma F, of label sigma.
struct preconditioning {
  double label_scale = 1;
  ms::preconditioning_factors at(double sigma) const {
    return {1, sigma, 1, label_scale * sigma};
  }
};
static_assert(ms::preconditioner<preconditioning>);

struct schedule : ms::ve_schedule {};
preconditioning preconditioning_for(const schedule&, double) {
  return {0.5};
}

}  // namespace mine

namespace {

using test::directory;
using test::message;

constexpr ms::song_unet tiny{.resolution = 4,
                             .channels = 1,
                             .encoder_channels = 8,
                             .channel_mult = {1},
                             .num_blocks = 1,
                             .attn_resolutions = {}};
const ms::partition two({1.0});

ms::dynamic_model<double, ms::cpu> model(const ms::any_preconditioning& p = {}) {
  return {ms::cpu(1), {tiny, ms::decoders{{8, 4}}, p}, two, 3};
}
std::vector<float> pictures(ms::index_t n = 20) {
  std::vector<float> v(std::size_t(n) * 16);
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = float(std::sin(0.7 * double(i)));
  return v;
}

}  // namespace

TEST_CASE("quotas lift the least share and hand on what is done") {
  const ms::partition three({0.5, 20.0});
  const ms::trainer_options o{.stage_probabilities = {1, 2, 5},
                              .stage_kimg = {0, 0.010, 0.004},
                              .least_stage_share = 0.2};
  ms::stage_quotas quotas(o, three);
  // 1/8 is lifted to 0.2; the others share 0.8 as 2 to 5.
  const std::vector<double> lifted{0.2, 0.8 * 2 / 7, 0.8 * 5 / 7};
  for (int s = 0; s < 3; ++s)
    CHECK(quotas.probabilities()[std::size_t(s)] == Approx(lifted[std::size_t(s)]));
  CHECK(quotas.shares() == quotas.probabilities());
  quotas.count(std::vector<ms::index_t>{3, 4, 5});
  CHECK(quotas.images() == std::vector<double>{3, 4, 5});
  CHECK(quotas.done(2));
  CHECK_FALSE(quotas.done(1));
  CHECK_FALSE(quotas.done());
  CHECK(quotas.shares()[0] == Approx(0.2 / (0.2 + 0.8 * 2 / 7)));
  CHECK(quotas.shares()[2] == 0);

  auto in_turn = o;
  in_turn.stage_kimg = {0.002, 0.010, 0.004};
  in_turn.one_after_the_other = true;
  ms::stage_quotas turns(in_turn, three);
  CHECK(turns.shares() == std::vector<double>{1, 0, 0});
  turns.count(std::vector<ms::index_t>{2, 0, 0});
  CHECK(turns.shares() == std::vector<double>{0, 1, 0});
  turns.restore({2, 10, 4});
  CHECK(turns.done());
  CHECK_THROWS_AS(turns.restore({1, 2}), ms::value_error);
}

TEST_CASE("rows are functions of seed and step, and follow their distribution") {
  const ms::trainer_options o{.levels = ms::log_normal_levels{-0.5, 1.5}, .seed = 9};
  const ms::row_draws draws(o, ms::partition());
  const std::vector<double> all{1.0};
  const ms::index_t count = 20'000;
  auto rows = draws.draw(count, all, {9, 4});
  ms::draw_images(rows, 10, {9, 4});
  double mean = 0;
  double square = 0;
  std::vector<int> seen(10, 0);
  for (const ms::training_row& r : rows) {
    mean += std::log(r.sigma) / double(count);
    square += std::pow(std::log(r.sigma) + 0.5, 2) / double(count);
    ++seen[std::size_t(r.image)];
  }
  CHECK(mean == Approx(-0.5).margin(5 * 1.5 / std::sqrt(double(count))));
  CHECK(std::sqrt(square) == Approx(1.5).epsilon(0.03));
  for (const int n : seen)
    CHECK(n == Approx(2000).margin(250));
  // The same seed and step: the same rows, however many. Another step: others.
  const auto few = draws.draw(5, all, {9, 4});
  for (int i = 0; i < 5; ++i)
    CHECK(few[std::size_t(i)].sigma == rows[std::size_t(i)].sigma);
  CHECK(draws.draw(1, all, {9, 5})[0].sigma != few[0].sigma);
  // Row 0 takes its level from the stream's second number.
  const double u = ms::random_stream(9, ms::purpose::noise_level, 4).uniform(1);
  const double z = (std::log(few[0].sigma) + 0.5) / 1.5;
  CHECK(0.5 * std::erfc(-z / std::sqrt(2.0)) == Approx(u));
}

TEST_CASE("stratified rows take equal shares of stages and levels") {
  const ms::trainer_options o{.levels = mine::even_levels{}, .stratified = true};
  const ms::partition halves({2.0});
  const auto rows = ms::row_draws(o, halves).draw(8, std::vector<double>{0.5, 0.5}, {1, 0});
  std::vector<int> quarter(4, 0);
  for (const ms::training_row& r : rows)
    ++quarter[std::size_t(2 * (r.sigma - 1))];
  CHECK(quarter == std::vector<int>{2, 2, 2, 2});
}

TEST_CASE("batches of one stage each come as often as the stages' shares say") {
  for (const bool stratified : {false, true}) {
    const ms::trainer_options o{
        .levels = mine::even_levels{}, .stratified = stratified, .one_stage_a_batch = true};
    const ms::partition stages({2.5});  // three quarters, and one
    const ms::row_draws draws(o, stages);
    const int steps = 4000;
    int lower = 0;
    double mean = 0;
    for (int step = 0; step < steps; ++step) {
      const auto rows = draws.draw(4, std::vector<double>{0.75, 0.25}, {7, step});
      const int stage = stages.stage(rows[0].sigma);
      for (const ms::training_row& r : rows) {
        REQUIRE(stages.stage(r.sigma) == stage);
        mean += r.sigma / (4 * steps);
      }
      lower += stage == 0;
    }
    // Five standard deviations: of the share, and of the mean of levels between 1 and 3.
    CHECK(lower / double(steps) == Approx(0.75).margin(5 * std::sqrt(0.75 * 0.25 / steps)));
    CHECK(mean == Approx(2).margin(5 * std::sqrt(1.0 / 3 / steps)));
  }
}

TEST_CASE("a distribution of one's own draws inside the stages") {
  const ms::noise_level_draws levels = mine::even_levels{};
  CHECK(levels.name() == "custom");
  const ms::partition stages({1.5, 10.0});
  CHECK(levels.stage_probabilities(stages) == std::vector<double>{0.25, 0.75, 0});
  CHECK(levels.draw(stages, 0, 0.5) == Approx(1.25));
  CHECK(levels.draw(stages, 1, 0.5) == Approx(2.25));
  CHECK(ms::noise_level_draws(std::string("time_kneed")).name() == "time_kneed");
  CHECK_THAT(message([] { ms::noise_level_draws(std::string("normal")); }),
             Catch::Contains("known: log_normal, log_uniform, time_uniform, time_kneed"));
  const ms::noise_level_draws broken = mine::no_levels{};
  CHECK_THAT(message([&] { broken.draw(stages, 1, 0.5); }),
             Catch::Contains("custom: quantile returns no number") &&
                 Catch::Contains("the stage from 1.5 to 10"));
}

TEST_CASE("weights by name, by type and by function") {
  CHECK(ms::loss_weight(std::string("min_snr"))(0.1) == 5);
  CHECK(ms::loss_weight(std::string("p2"))(1) == 0.5);
  CHECK(ms::loss_weight(ms::min_snr_weight{.gamma = 2}).name() == "min_snr");
  const ms::loss_weight own = [](double sigma) {
    return 3 * sigma;
  };
  CHECK(own.name() == "custom");
  CHECK(own(2) == 6);
  CHECK_FALSE(ms::loss_weight());
  for (const double bad : {-1.0, HUGE_VAL, std::nan("")}) {
    const ms::loss_weight refused = [bad](double sigma) {
      return sigma > 1 ? bad : 0.0;
    };
    CHECK(refused(1) == 0);
    CHECK_THROWS_AS(refused(2), ms::value_error);
    CHECK_THAT(message([&] { refused(2); }),
               Catch::Contains("loss weight custom: is ") && Catch::Contains("at sigma 2"));
  }
  CHECK_THAT(message([] { ms::loss_weight(std::string("best")); }),
             Catch::Contains("known: edm, epsilon"));
  ms::trainer_options o;
  o.fields(o, [](const ms::option& option, auto& value) {
    if (option.name == std::string("weight") || option.name == std::string("levels"))
      ms::set_option(option, value,
                     option.name == std::string("weight") ? "flow" : "log_uniform");
  });
  CHECK(o.weight(1) == 4);
  CHECK(ms::option_text(o.levels) == "log_uniform");
}

TEST_CASE("the objective is the weighted squared error of D, its gradient is the loss's") {
  auto m = model();
  const std::vector<double> sigmas{0.3, 0.8, 4};
  const ms::shape extents = m.images(3);
  std::vector<double> y(48), n(48);
  for (std::size_t i = 0; i < 48; ++i) {
    y[i] = std::sin(double(i));
    n[i] = std::cos(3 * double(i));
  }
  ms::trainer_options o;
  o.weight = [](double sigma) {
    return 1 + sigma;
  };
  ms::denoising_objective objective(m, o);
  const ms::tensor<double, ms::cpu> images(m.backend(), extents, y);
  const ms::tensor<double, ms::cpu> noise(m.backend(), extents, n);
  ms::tensor<double, ms::cpu> gradient(m.backend(), m.weights().extents());
  std::vector<ms::training_row> rows;
  for (int r = 0; r < 3; ++r)
    rows.push_back({.image = r, .sigma = sigmas[std::size_t(r)]});
  const auto losses = [&] {
    return objective.differentiate({images.data(), rows, {}, noise.data()}, {0, 0}, gradient)
        .losses;
  };
  const auto got = losses();

  std::vector<double> noisy(48);
  for (std::size_t i = 0; i < 48; ++i)
    noisy[i] = y[i] + sigmas[i / 16] * n[i];
  const ms::tensor<double, ms::cpu> x(m.backend(), extents, noisy);
  ms::tensor<double, ms::cpu> d(m.backend(), extents);
  m.denoise(x.view(), sigmas, d.view());
  for (std::size_t r = 0; r < 3; ++r) {
    double square = 0;
    for (std::size_t i = 16 * r; i < 16 * (r + 1); ++i)
      square += std::pow(d.data()[i] - y[i], 2);
    CHECK(got[r] == Approx((1 + sigmas[r]) * square).epsilon(1e-12));
  }
  // Central differences of the mean loss at a few weights of each segment.
  losses();
  const std::vector<double> g = gradient.to_host();
  const auto mean = [&] {
    const auto l = losses();
    return (l[0] + l[1] + l[2]) / 3;
  };
  for (int segment = 0; segment < m.network().segments; ++segment) {
    const auto [begin, end] = m.network().parameter_range(segment);
    for (const ms::index_t i : {begin, (begin + end) / 2, end - 1}) {
      const double before = m.weights().data()[i];
      m.weights().data()[i] = before + 1e-5;
      const double above = mean();
      m.weights().data()[i] = before - 1e-5;
      const double below = mean();
      m.weights().data()[i] = before;
      CHECK((above - below) / 2e-5 == Approx(g[std::size_t(i)]).epsilon(1e-5).margin(1e-7));
    }
  }
  rows = {rows[2], rows[0], rows[1]};
  CHECK_THAT(message(losses), Catch::Contains("in the order of their stages"));
}

TEST_CASE("Adam and the average against their definition") {
  // Three steps computed in NumPy's double arithmetic from the formulas at the head of
  // adam.hpp: beta 0.9 and 0.99, rate 0.1, an average that keeps 3/4.
  double weight[] = {1, -2};
  double average[] = {1, -2};
  double first[2]{};
  double second[2]{};
  const double gradients[3][2] = {{0.5, -1}, {0.25, 2}, {-3, 0.125}};
  for (int k = 1; k <= 3; ++k) {
    const ms::functor::adam_and_average<double> step{gradients[k - 1],
                                                     weight,
                                                     first,
                                                     second,
                                                     average,
                                                     0.9,
                                                     0.99,
                                                     1e-8,
                                                     0.1,
                                                     1 / (1 - std::pow(0.9, k)),
                                                     1 / (1 - std::pow(0.99, k)),
                                                     1,
                                                     0.75,
                                                     true};
    step(0);
    step(1);
  }
  const double expected[] = {0.8560591986983324,  -1.9684128309666624,  0.9137001507410394,
                             -1.9661458526515292, -0.23699999999999993, 0.11149999999999997,
                             0.09306900000000008, 0.04955725000000004};
  CHECK(weight[0] == Approx(expected[0]).epsilon(1e-13));
  CHECK(weight[1] == Approx(expected[1]).epsilon(1e-13));
  CHECK(average[0] == Approx(expected[2]).epsilon(1e-13));
  CHECK(average[1] == Approx(expected[3]).epsilon(1e-13));
  CHECK(first[0] == Approx(expected[4]).epsilon(1e-13));
  CHECK(second[1] == Approx(expected[7]).epsilon(1e-13));
}

TEST_CASE("the update clips, scales rates by segment, and leaves decoders without rows alone") {
  auto m = model();
  m.keep_average();
  ms::averaged_adam update(m, {.learning_rate = 0.01,
                               .lr_rampup_kimg = 0.1,
                               .ema_halflife_kimg = 0.016,
                               .ema_rampup_ratio = 0,
                               .gradient_clip = 2,
                               .shared_rate = 0.5});
  const auto before = m.weights().to_host();
  ms::tensor<double, ms::cpu> gradient(m.backend(), m.weights().extents(),
                                       std::vector<double>(before.size(), 0.25));
  const ms::routing route{{0, 1}, {2, 0}};  // stage 1 has no rows
  const auto shared = m.network().parameter_range(0);
  const auto own = m.network().parameter_range(1);
  const double reached = double(shared[1] - shared[0] + own[1] - own[0]);
  CHECK(update.norm(gradient, route, 50) == Approx(0.25 * std::sqrt(reached)));
  update.apply(gradient, route, update.norm(gradient, route, 50), 50, 16);
  const auto after = m.weights().to_host();
  const auto average = m.averaged_weights().to_host();
  // Adam's first step is the rate, half of it at 50 of 100 images; the average moves half the
  // way in 16 images.
  const auto moved = [&](ms::index_t i) {
    return before[std::size_t(i)] - after[std::size_t(i)];
  };
  CHECK(moved(shared[0]) == Approx(0.0025).epsilon(1e-5));
  CHECK(moved(own[0]) == Approx(0.005).epsilon(1e-5));
  CHECK(moved(own[1]) == 0);
  CHECK(before[std::size_t(own[0])] - average[std::size_t(own[0])] ==
        Approx(0.0025).epsilon(1e-5));
  const double clipped = 0.25 * 2 / (0.25 * std::sqrt(reached));
  CHECK(update.first_moment().to_host()[std::size_t(own[0])] == Approx(0.1 * clipped));
  CHECK(update.updates() == std::vector<ms::index_t>{1, 1, 0});
}

TEST_CASE("weights decay as PyTorch's AdamW has it, biases and norms do not") {
  // torch.optim.AdamW, step k: p.mul_(1 - lr * decay); m.lerp_(g, 1 - b1);
  // v.mul_(b2).addcmul_(g, g, value=1 - b2); denominator = sqrt(v) / sqrt(1 - b2^k) + eps;
  // p.addcdiv_(m, denominator, value=-lr / (1 - b1^k)).
  ms::song_unet fourier = tiny;
  fourier.fourier = true;  // with a tensor that is not trained
  ms::dynamic_model<double, ms::cpu> m(ms::cpu(1), {fourier, ms::decoders{{8, 4}}, {}}, two, 3);
  m.keep_average();
  const double lr = 0.02;
  const double decay = 0.3;
  ms::averaged_adam update(
      m, {.learning_rate = lr, .adam = {.weight_decay = decay}, .lr_rampup_kimg = 0});
  std::vector<double> p = m.weights().to_host();
  const std::vector<double> start = p;
  std::vector<double> first(p.size(), 0.0), second(p.size(), 0.0), g(p.size());
  std::vector<int> kind(p.size(), 0);  // 0: not trained, 1: a vector, 2: decays
  for (std::size_t k = 0; k < m.network().parameters.size(); ++k) {
    const ms::parameter& one = m.network().parameters[k];
    const std::string& name = m.parameter_names()[k];
    const bool bias = name.size() > 4 && name.substr(name.size() - 4) == "bias";
    const bool norm = name.find("norm") != std::string::npos;
    for (ms::index_t i = one.offset; i < one.offset + one.size(); ++i)
      kind[std::size_t(i)] = !one.trainable ? 0 : bias || norm ? 1 : 2;
  }
  REQUIRE(std::count(kind.begin(), kind.end(), 0) > 0);
  for (int k = 1; k <= 3; ++k) {
    for (std::size_t i = 0; i < g.size(); ++i)
      g[i] = kind[i] == 0 ? 0 : std::sin(double(k) + 0.1 * double(i));
    const ms::tensor<double, ms::cpu> gradient(m.backend(), m.weights().extents(), g);
    update.apply(gradient, {{0, 1}, {1, 1}}, 1, 0, 2);
    for (std::size_t i = 0; i < g.size(); ++i) {
      p[i] *= kind[i] == 2 ? 1 - lr * decay : 1;
      first[i] += (g[i] - first[i]) * (1 - 0.9);
      second[i] = second[i] * 0.999 + (1 - 0.999) * g[i] * g[i];
      const double denominator =
          std::sqrt(second[i]) / std::sqrt(1 - std::pow(0.999, k)) + 1e-8;
      p[i] -= lr / (1 - std::pow(0.9, k)) * first[i] / denominator;
    }
  }
  const std::vector<double> got = m.weights().to_host();
  CHECK(test::distance(got, p) < 1e-12);
  for (std::size_t i = 0; i < got.size(); ++i)
    if (kind[i] == 0)
      REQUIRE(got[i] == start[i]);
}

TEST_CASE("several averages, each by its segment's own images, resumed and made afterwards") {
  const directory dir;
  const auto images = pictures();
  ms::trainer_options o{.learning_rate = 5e-3,
                        .adam = {.weight_decay = 0.1},
                        .lr_rampup_kimg = 0.1,
                        .schedule = {ms::rate_decay::cosine, 1.2, 1e-4},
                        .ema_rampup_ratio = 0,
                        .ema_std = 0.2,
                        .average_stds = {0.05, 0.1},
                        .average_halflives_kimg = {0.2},
                        .batch_size = 24,
                        .stage_probabilities = {0.8, 0.2}};
  auto m = model();
  ms::trainer t{m, std::span<const float>(images), m.images(20), o};
  // Every state of the weights, and the images that each segment had seen then.
  std::vector<std::vector<double>> weights;
  std::vector<std::vector<double>> seen{{0, 0, 0}};
  std::vector<std::string> snapshots;
  const std::vector<double> start = m.weights().to_host();
  for (int step = 1; step <= 48; ++step) {
    t.step();
    weights.push_back(m.weights().to_host());
    seen.push_back(t.segment_images());
    if (step % 6 == 0) {
      snapshots.push_back(dir / ("snapshot" + std::to_string(step)));
      ms::save_snapshot(snapshots.back(), t);
    }
    if (step == 30)
      ms::save(dir / "half", t);
  }
  CHECK(seen.back()[0] == 48 * 24);
  CHECK(seen.back()[1] + seen.back()[2] == seen.back()[0]);
  // The weight of state i is the profile's integral between the segment's times.
  const auto defined = [&](auto&& kept_after) {
    std::vector<double> average = start;
    for (int segment = 0; segment < 3; ++segment) {
      const auto [begin, end] = m.network().parameter_range(segment);
      for (ms::index_t i = begin; i < end; ++i) {
        double sum = start[std::size_t(i)] * kept_after(0, segment);
        for (std::size_t k = 0; k < weights.size(); ++k)
          sum += weights[k][std::size_t(i)] *
                 (kept_after(k + 1, segment) - kept_after(k, segment));
        average[std::size_t(i)] = sum;
      }
    }
    return average;
  };
  const auto power = [&](double exponent) {
    return [&, exponent](std::size_t k, int segment) {
      const std::size_t s = std::size_t(segment);
      return std::pow(seen[k][s] / seen.back()[s], exponent + 1);
    };
  };
  const auto halflife = [&](std::size_t k, int segment) {
    const std::size_t s = std::size_t(segment);
    return std::pow(0.5, (seen.back()[s] - seen[k][s]) / 200);
  };
  REQUIRE(t.averages().size() == 3);
  CHECK(t.averages()[0].kind.name == "std_0.05");
  CHECK(t.averages()[2].kind.name == "halflife_0.2_kimg");
  const auto at_std = [&](double std) {
    return defined(power(ms::power_function_exponent(std)));
  };
  CHECK(test::distance(t.averages()[0].weights.to_host(), at_std(0.05)) < 1e-10);
  CHECK(test::distance(t.averages()[1].weights.to_host(), at_std(0.1)) < 1e-10);
  CHECK(test::distance(t.averages()[2].weights.to_host(), defined(halflife)) < 1e-10);
  CHECK(test::distance(m.averaged_weights().to_host(), at_std(0.2)) < 1e-10);

  // Made afterwards: an average that was kept is itself, another width is close to its own.
  auto later = ms::load<double>(snapshots.back(), ms::cpu(1));
  const auto counted = ms::average_of_series(snapshots, 0.1, later);
  CHECK(counted.size() == 3 * snapshots.size());
  CHECK(test::distance(later.weights().to_host(), at_std(0.1)) < 1e-9);
  ms::average_of_series(snapshots, 0.07, later);
  const auto wanted = at_std(0.07);
  const double other = test::distance(at_std(0.1), wanted);
  const double made = test::distance(later.weights().to_host(), wanted);
  INFO("distance of the average by std 0.1: " << other << ", of the one made: " << made);
  CHECK(made < 0.1 * other);
  CHECK_THAT(message([&] { ms::average_of_series(snapshots, 0.3, later); }),
             Catch::Contains("0.288675"));
  // Snapshots of two runs are no series.
  ms::trainer_options elsewhere = o;
  elsewhere.seed += 1;
  auto others = model();
  ms::trainer stranger{others, std::span<const float>(images), others.images(20), elsewhere};
  stranger.step();
  ms::save_snapshot(dir / "stranger", stranger);
  const auto before = later.weights().to_host();
  CHECK_THAT(message([&] {
               ms::average_of_series(
                   std::vector<std::string>{snapshots.back(), dir / "stranger"}, 0.1, later);
             }),
             Catch::Contains("stranger is of another run than"));
  CHECK(later.weights().to_host() == before);

  // Resumed half way: the same bits in everything that moves.
  auto again = model();
  ms::trainer resumed{again, std::span<const float>(images), again.images(20), o};
  ms::resume(dir / "half", resumed);
  for (int step = 31; step <= 48; ++step)
    resumed.step();
  CHECK(again.weights().to_host() == m.weights().to_host());
  CHECK(again.averaged_weights().to_host() == m.averaged_weights().to_host());
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(resumed.averages()[i].weights.to_host() == t.averages()[i].weights.to_host());

  // What differs is said by name, and only how a step is done may differ.
  const auto refused = [&](auto&& change, const char* why, const ms::resume_options& how = {}) {
    ms::trainer_options changed = o;
    change(changed);
    auto other_model = model();
    ms::trainer u{other_model, std::span<const float>(images), other_model.images(20), changed};
    const std::string said = message([&] { ms::resume(dir / "half", u, how); });
    CHECK_THAT(said, Catch::Contains(why));
    return u.steps();
  };
  CHECK(refused([](auto& c) { c.schedule.decay_kimg = 2; }, "lr_decay_kimg") == 0);
  CHECK(refused([](auto& c) { c.adam.weight_decay = 0; }, "adam.weight_decay") == 0);
  CHECK(refused([](auto& c) { c.average_stds = {0.05}; }, "std_0.05, std_0.1",
                {.other_options = true}) == 0);
  CHECK(refused([](auto& c) { c.learning_rate = 1e-3; }, "nothing", {.other_options = true}) ==
        30);
  CHECK(refused([](auto& c) { c.micro_batch = 16; }, "nothing") == 30);
  const auto unsound = [&](ms::trainer_options changed, const char* why) {
    auto n = model();
    CHECK_THAT(message([&] {
                 ms::trainer u{n, std::span<const float>(images), n.images(20), changed};
               }),
               Catch::Contains(why));
  };
  unsound({.schedule = {ms::rate_decay::cosine}}, "lr_decay_kimg");
  unsound({.schedule = {ms::rate_decay::cosine, 1, 1}}, "lr_least");
  unsound({.average_stds = {0.1, 0.1}}, "asked for twice");
  unsound({.average_stds = {0.3}}, "average_stds = 0.3");
}

TEST_CASE("a loop of one's own makes the trainer's steps") {
  const ms::trainer_options o{.batch_size = 8, .least_stage_share = 0.1, .seed = 5};
  const auto images = pictures();
  auto a = model();
  ms::trainer trainer{a, std::span<const float>(images), a.images(20), o};
  for (int i = 0; i < 3; ++i)
    trainer.step();

  auto b = model();
  b.keep_average();
  ms::stage_quotas quotas(o, b.stages());
  const ms::row_draws draws(o, b.stages());
  ms::denoising_objective objective(b, o);
  ms::averaged_adam update(b, o);
  const ms::tensor<double, ms::cpu> data(b.backend(), b.images(20),
                                         std::vector<double>(images.begin(), images.end()));
  ms::tensor<double, ms::cpu> gradient(b.backend(), b.weights().extents());
  for (ms::index_t step = 0; step < 3; ++step) {
    const ms::step_numbers numbers{o.seed, step};
    auto rows = draws.draw(o.batch_size, quotas.shares(), numbers);
    ms::draw_images(rows, 20, numbers);
    const auto found = objective.differentiate({data.data(), rows}, numbers, gradient);
    const double seen = double(step * o.batch_size);
    update.apply(gradient, found.route, update.norm(gradient, found.route, seen), seen,
                 o.batch_size);
    quotas.count(found.route.rows_by_stage);
  }
  CHECK(a.weights().to_host() == b.weights().to_host());
  CHECK(a.averaged_weights().to_host() == b.averaged_weights().to_host());
}

TEST_CASE("a weight and a distribution of one's own train") {
  const auto images = pictures();
  auto m = model();
  ms::trainer_options o{.learning_rate = 3e-3,
                        .lr_rampup_kimg = 0,
                        .batch_size = 16,
                        .levels = mine::even_levels{},
                        .stage_probabilities = {0, 1}};
  o.weight = [](double sigma) {
    return 1 / sigma;
  };
  ms::trainer trainer{m, std::span<const float>(images), m.images(20), o};
  double early = 0;
  double late = 0;
  for (int i = 0; i < 60; ++i) {
    const double loss = trainer.step().loss[1];
    if (i < 15)
      early += loss;
    if (i >= 45)
      late += loss;
  }
  CHECK(late < 0.9 * early);
}

TEST_CASE("a preconditioning of one's own is a model's, by value and by schedule") {
  directory dir;
  auto m = model(ms::any_preconditioning(mine::preconditioning{2}, 0.7));
  CHECK(m.config().precond.kind == ms::precondition::custom);
  CHECK(m.config().precond.sigma_data == 0.7);
  CHECK(m.config().precond.at(3).noise == 6);
  CHECK(m.config().precond.at(3).out == 3);
  using typed = ms::multi_decoder<tiny, ms::decoders{{8, 4}}, mine::schedule>;
  CHECK(typed(two).config().precond.at(3).noise == 1.5);

  // Files name it, and open into a model that has it.
  const auto images = pictures();
  ms::trainer a{m, std::span<const float>(images), m.images(20), {.batch_size = 4}};
  a.step();
  ms::save(dir / "own.safetensors", a);
  CHECK_THAT(message([&] { ms::load<double>(dir / "own.safetensors", ms::cpu(1)); }),
             Catch::Contains("preconditioning is of a type of its own"));
  auto again = model(ms::any_preconditioning(mine::preconditioning{2}, 0.7));
  ms::trainer b{again, std::span<const float>(images), again.images(20), {.batch_size = 4}};
  ms::resume(dir / "own.safetensors", b);
  a.step();
  b.step();
  CHECK(m.weights().to_host() == again.weights().to_host());
  // The library's types are values of files.
  const ms::any_preconditioning vp = ms::vp_preconditioning{.beta_max = 12};
  CHECK(vp.kind == ms::precondition::vp);
  CHECK(vp.at(2).noise == ms::vp_preconditioning{.beta_max = 12}.at(2).noise);
}

TEST_CASE("networks' settings are named once") {
  ms::song_unet net;
  const auto set = [&](const char* name, const char* text) {
    net.fields(net, [&](const ms::option& o, auto& value) {
      if (o.name == std::string(name))
        ms::set_option(o, value, text);
    });
  };
  set("channel_mult", "1,2,4");
  set("embedding", "fourier");
  set("encoder_type", "residual");
  set("num_blocks", "2");
  CHECK(net.channel_mult == std::array<int, 8>{1, 2, 4});
  CHECK(net.fourier);
  CHECK(net.encoder_type == ms::auxiliary_path::residual);
  CHECK(net.num_blocks == 2);
  CHECK(ms::option_text(net.channel_mult) == "1,2,4");
  CHECK_THAT(message([&] { set("decoder_type", "residual"); }),
             Catch::Contains("known: standard, skip"));
  CHECK_THAT(message([&] { set("channel_mult", "1,2.5"); }), Catch::Contains("channel_mult"));
  const auto refuses = [](const auto& bad, const char* what) {
    CHECK_THAT(message([&] { ms::record(bad, ms::decoders{{16}}); }), Catch::Contains(what));
  };
  refuses(ms::song_unet{.num_blocks = 300}, "num_blocks = 300; it must be at least 0");
  refuses(ms::song_unet{.channel_mult = {1, 999}}, "channel_mult = 999");
  refuses(ms::song_unet{.dropout = 1}, "dropout = 1; it must be at least 0 and below 1");
  refuses(ms::song_unet{.encoder_channels = 13}, "an even number");
  refuses(ms::song_unet{.decoder_type = ms::auxiliary_path::residual}, "decoder_type");
  refuses(ms::ldm_unet{.context_dim = 8}, "without spatial_transformer");
  refuses(ms::ncsnpp{.resample_filter = {1, 2}}, "resample_filter");
  refuses(ms::ncsnpp{.label_dim = 2}, "ncsnpp has no classes");
  ms::autoencoder bad;
  bad.z_channels = 0;
  CHECK_THAT(message([&] { ms::check_settings(bad); }),
             Catch::Contains("autoencoder: z_channels = 0"));
}

TEST_CASE("numbers of bytes have units") {
  const auto memory_of = [](const char* text) {
    ms::trainer_options o;
    o.fields(o, [&](const ms::option& named, auto& value) {
      if (named.name == std::string("memory"))
        ms::set_option(named, value, text);
    });
    return o.memory;
  };
  CHECK(memory_of("4294967296") == ms::index_t{1} << 32);
  CHECK(memory_of("4G") == ms::index_t{1} << 32);
  CHECK(memory_of("1.5M") == 1572864);
  CHECK(memory_of("3K") == 3072);
  for (const char* bad : {"", "G", "4g", "4GB", "-1K", "0.3K", "1e30", "nan", " 4G"})
    CHECK_THAT(message([&] { memory_of(bad); }), Catch::Contains("no number of bytes"));
}
