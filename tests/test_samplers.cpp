// Samplers over an exact denoiser: orders of accuracy (also across a stage boundary), every
// number of steps, independence of the batch; schedules, spacings, weights, guidance.
#include <multistage/diffusion/loss_weighting.hpp>
#include <multistage/samplers/all.hpp>
#include <multistage/schedule/any_schedule.hpp>

#include "support.hpp"

namespace {

/// The exact denoiser of N(mean, deviation^2) above and another below a boundary, and the exact
/// end of its probability-flow ODE.
struct two_gaussians {
  double boundary = 0;  // 0: one stage
  double mean[2] = {0.3, -0.8};
  double variance[2] = {0.25, 1.0};
  int stage(double sigma) const {
    return sigma > boundary ? 0 : 1;
  }  // 0: above
  double denoised(double x, double sigma) const {
    const int s = stage(sigma);
    return mean[s] + variance[s] / (variance[s] + sigma * sigma) * (x - mean[s]);
  }
  double flow(double x, double from, double to, int s) const {
    return mean[s] +
           (x - mean[s]) * std::sqrt((variance[s] + to * to) / (variance[s] + from * from));
  }
  double exact(double x, double from, double to) const {
    if (boundary <= 0)
      return flow(x, from, to, 0);
    return flow(flow(x, from, boundary, 0), boundary, to, 1);
  }
};

template <class Sampler>
double run(const Sampler& s,
           const two_gaussians& g,
           double start,
           std::vector<double>* evaluated = nullptr) {
  ms::cpu b(1);
  ms::tensor<double, ms::cpu> x(b, {1, 1, 1, 1}, std::vector<double>{start});
  s(
      b, x.view(),
      [&](ms::view<const double> at, double sigma, ms::view<double> d) {
        if (evaluated)
          evaluated->push_back(sigma);
        d.data[0] = g.denoised(at.data[0], sigma);
      },
      [&](int k, ms::view<double> z) {
        z.data[0] = ms::random_stream(1).normal(std::uint64_t(k));
      },
      [](int, double, ms::view<const double>, ms::view<const double>) { return true; });
  return x.data()[0];
}

constexpr double top = 8;
constexpr double bottom = 0.05;
constexpr double start = 9.7;
std::vector<double> line(int n) {
  return ms::noise_levels(ms::edm_schedule{bottom, top}, ms::spacing::log_snr, top, bottom, n);
}

/// log2 of how much the error falls from n steps to 2 n, averaged over n = 32 and 64.
template <class Make>
double slope(const char* name, const two_gaussians& g, Make&& make) {
  const auto error = [&](int n) {
    return std::fabs(run(make(n), g, start) - g.exact(start, top, bottom));
  };
  const double s = 0.5 * std::log2(error(32) / error(128));
  std::printf("  %-44s order %.2f, error %.2g with 64 steps\n", name, s, error(64));
  return s;
}

ms::dpm_solver dpm(int n, int order, ms::dpm_method method, bool data) {
  return {.num_steps = n,
          .sigma_min = bottom,
          .sigma_max = top,
          .order = order,
          .method = method,
          .predict_data = data};
}

}  // namespace

TEST_CASE("methods have their order of accuracy on a closed-form solution") {
  const two_gaussians g;
  CHECK(slope("ddim", g, [](int n) { return ms::ddim{.levels = line(n)}; }) > 0.85);
  CHECK(slope("pndm", g, [](int n) { return ms::pndm{.levels = line(n)}; }) > 1.8);
  CHECK(slope("flow_ode, Euler", g, [](int n) { return ms::flow_ode{.levels = line(n)}; }) >
        0.85);
  CHECK(slope("flow_ode, Heun", g,
              [](int n) { return ms::flow_ode{.levels = line(n), .heun = true}; }) > 1.8);
  for (const int order : {1, 2, 3}) {
    const std::string o = " order " + std::to_string(order);
    for (const bool corrector : {false, true})
      CHECK(slope(("gddim" + o + (corrector ? ", corrected" : "")).c_str(), g, [&](int n) {
              return ms::gddim{.schedule = ms::edm_schedule{bottom, top},
                               .levels = line(n),
                               .order = order,
                               .corrector = corrector};
            }) > std::min(order, 2) - 0.2);
    CHECK(slope(("deis" + o).c_str(), g, [&](int n) {
            return ms::deis{.levels = line(n), .order = order};
          }) > std::min(order, 2) - 0.2);
    CHECK(slope(("unipc bh2" + o).c_str(), g, [&](int n) {
            return ms::unipc{.levels = line(n), .order = order};
          }) > std::min(order, 2) - 0.2);
    for (const bool data : {true, false}) {
      const std::string name = data ? "dpm_solver++ " : "dpm_solver ";
      CHECK(slope((name + "multistep" + o).c_str(), g, [&](int n) {
              return dpm(n, order, ms::dpm_method::multistep, data);
            }) > std::min(order, 2) - 0.2);
      CHECK(slope((name + "singlestep_fixed" + o).c_str(), g, [&](int n) {
              return dpm(n * order, order, ms::dpm_method::singlestep_fixed, data);
            }) > order - 0.25);
    }
  }
}

TEST_CASE("across a stage boundary align keeps the order, carry and restart lose it") {
  const two_gaussians g{0.9};
  const ms::partition stages({0.9});
  const auto with = [&](ms::boundary_policy p, int order) {
    return [&, p, order](int n) {
      auto s = dpm(n, order, ms::dpm_method::multistep, true);
      s.crossing = {stages, p};
      return s;
    };
  };
  for (const int order : {2, 3}) {
    const double aligned =
        slope("dpm_solver++ multistep, align", g, with(ms::boundary_policy::align, order));
    const double restarted = slope("restart", g, with(ms::boundary_policy::restart, order));
    const double carried = slope("carry", g, with(ms::boundary_policy::carry, order));
    CHECK(aligned > 1.7);
    CHECK(aligned > restarted);
    CHECK(aligned > carried);
  }
  CHECK(slope("unipc, align", g, [&](int n) {
          return ms::unipc{.levels = line(n), .crossing = {stages, ms::boundary_policy::align}};
        }) > 1.5);
  CHECK(slope("deis, align", g, [&](int n) {
          return ms::deis{
              .levels = line(n), .order = 2, .crossing = {stages, ms::boundary_policy::align}};
        }) > 1.5);
  // Averaged over where the boundary falls between steps: with few steps it is best to carry
  // history over, with many to align.
  std::printf("  steps      carry    restart      align   (mean error of second order)\n");
  double error[3];
  for (const int n : {10, 20, 40, 80, 160, 320}) {
    std::fill_n(error, 3, 0.0);
    for (int k = 0; k < 40; ++k) {
      const double at = 0.5 + 0.0185 * k;
      const two_gaussians h{at};
      for (int p = 0; p < 3; ++p) {
        auto s = dpm(n, 2, ms::dpm_method::multistep, true);
        s.crossing = {ms::partition({at}), ms::boundary_policy(p)};
        error[p] += std::fabs(run(s, h, start) - h.exact(start, top, bottom)) / 40;
      }
    }
    std::printf("  %5d %10.3g %10.3g %10.3g\n", n, error[0], error[1], error[2]);
  }
  CHECK(error[2] < error[0] / 3);
  CHECK(error[2] < error[1] / 3);
}

TEST_CASE("every method with 1 to 30 steps, any order and spacing, is finite and goes down") {
  const two_gaussians g{0.9};
  const auto check = [&](const auto& s) {
    std::vector<double> evaluated;
    CHECK(std::isfinite(run(s, g, 9.0, &evaluated)));
    REQUIRE_FALSE(evaluated.empty());
    for (const double sigma : evaluated)
      REQUIRE((sigma > 0 && sigma <= top * (1 + 1e-12)));
  };
  const ms::edm_schedule schedule{bottom, top};
  for (int n = 1; n <= 30; ++n)
    for (int how = 0; how <= int(ms::spacing::beta); ++how) {
      const auto levels = ms::noise_levels(schedule, ms::spacing(how), top, bottom, n);
      REQUIRE(int(levels.size()) == n + 1);
      for (std::size_t i = 1; i < levels.size(); ++i)
        REQUIRE(levels[i] < levels[i - 1]);
      auto to_zero = levels;
      to_zero.push_back(0);
      for (const auto policy : {ms::boundary_policy::carry, ms::boundary_policy::restart,
                                ms::boundary_policy::align}) {
        const ms::stage_crossing crossing{ms::partition({0.9}), policy};
        check(ms::pndm{.levels = levels, .crossing = crossing});
        for (int order = 1; order <= 3; ++order) {
          check(ms::deis{.levels = levels, .order = order, .crossing = crossing});
          check(ms::unipc{.levels = to_zero,
                          .order = order,
                          .variant = ms::unipc_variant(n % 2),
                          .crossing = crossing});
          for (int method = 0; method < 3; ++method) {
            auto s = dpm(n, order, ms::dpm_method(method), n % 2 == 0);
            s.steps = ms::spacing(how);
            s.crossing = crossing;
            check(s);
          }
          if (order < 3)
            check(ms::dpm_solver_sde{.levels = to_zero, .order = order, .crossing = crossing});
        }
      }
      check(ms::ddim{.levels = to_zero, .eta = 0.5});
      check(ms::gddim{.schedule = schedule, .levels = to_zero, .lambda = 0.5});
      check(ms::gddim{.schedule = schedule,
                      .levels = levels,
                      .order = 1 + n % 3,
                      .crossing = {ms::partition({0.9})}});
      check(ms::flow_ode{.levels = to_zero, .heun = n % 2 == 0});
    }
  for (int n = 2; n <= 30; ++n)
    check(ms::score_sde{.num_steps = n,
                        .schedule = ms::ve_schedule{bottom, top},
                        .corrector = ms::sde_corrector::langevin});
}

TEST_CASE("the adaptive solver reaches its tolerance") {
  const two_gaussians g;
  for (const int order : {2, 3}) {
    auto s = dpm(1, order, ms::dpm_method::adaptive, true);
    s.adaptive = {.atol = 1e-4, .rtol = 1e-4, .t_err = 1e-9};
    CHECK(std::fabs(run(s, g, start) - g.exact(start, top, bottom)) < 1e-2);
  }
}

TEST_CASE("a picture depends on its seed alone, with every sampler") {
  const ms::configuration config{ms::song_unet{.resolution = 4,
                                               .channels = 1,
                                               .encoder_channels = 8,
                                               .channel_mult = {1},
                                               .num_blocks = 1,
                                               .attn_resolutions = {}},
                                 {.widths = {8, 4}},
                                 {}};
  const auto check = [&](const auto& sampler) {
    ms::dynamic_model<float, ms::cpu> model(ms::cpu(2), config, ms::partition({1.0}), 1),
        again(ms::cpu(1), config, ms::partition({1.0}), 1);
    auto w = test::normals<float>(model.weights().size(), 8);
    for (float& v : w)
      v *= 0.2f;
    for (auto* m : {&model, &again})
      m->backend().upload(w.data(), m->weights().data(), ms::index_t(w.size()));
    const auto all = ms::sample(model, sampler, {.seeds = "3-6", .batch = 4});
    const auto two = ms::sample(again, sampler, {.seeds = "5,4", .batch = 1});
    CHECK(std::equal(two.images.begin(), two.images.begin() + 16, all.images.begin() + 32));
    CHECK(std::equal(two.images.begin() + 16, two.images.end(), all.images.begin() + 16));
    ms::index_t total = 0;
    for (const auto n : all.evaluations)
      total += n;
    CHECK(total > 0);
  };
  const auto levels =
      ms::noise_levels(ms::edm_schedule{0.05, 20}, ms::spacing::karras, 20, 0.05, 5);
  check(ms::ddim{.levels = levels, .eta = 1});
  check(ms::pndm{.levels = levels});
  check(ms::deis{.levels = levels});
  check(ms::unipc{.levels = levels});
  check(ms::dpm_solver_sde{.levels = levels});
  check(ms::gddim{.levels = levels, .lambda = 0.7});
  check(ms::gddim{.levels = levels});
  check(ms::flow_ode{.levels = levels, .heun = true});
  check(ms::pfgm{.num_steps = 5, .augmented = 20});
  check(ms::score_sde{.num_steps = 6,
                      .schedule = ms::ve_schedule{0.05, 20},
                      .corrector = ms::sde_corrector::langevin});
  check(ms::edm_ablation{.num_steps = 5,
                         .schedule = ms::ablation_schedule::vp,
                         .scaling = ms::ablation_scaling::vp});
  check(dpm(6, 3, ms::dpm_method::singlestep, false));
}

TEST_CASE("samplers that papers show to be special cases of others agree with them") {
  const two_gaussians g;
  auto to_zero = line(12);
  to_zero.push_back(0);
  CHECK(run(ms::gddim{.levels = to_zero, .lambda = 1}, g, start) ==
        Approx(run(ms::ddim{.levels = to_zero, .eta = 1}, g, start)).epsilon(1e-12));
  CHECK(run(ms::gddim{.levels = to_zero, .lambda = 1e-9}, g, start) ==
        Approx(run(ms::ddim{.levels = to_zero}, g, start)).epsilon(1e-7));
  CHECK(run(ms::flow_ode{.levels = to_zero}, g, start) ==
        Approx(run(ms::ddim{.levels = to_zero}, g, start)).epsilon(1e-12));
  const ms::edm_schedule schedule{bottom, top};
  CHECK(run(ms::gddim{.schedule = schedule, .levels = line(20), .order = 3, .corrector = false},
            g, start) == Approx(run(ms::deis{.schedule = schedule,
                                             .levels = line(20),
                                             .order = 3,
                                             .variable = ms::deis_variable::t},
                                    g, start))
                             .epsilon(1e-9));
  // The step of arXiv 2206.05564, written with alpha-bar: D = 0 and x = sigma leave sqrt(1 -
  // alpha' - s^2) of x_t's noise.
  const double from = 3;
  const double to = 1.2;
  const double lambda = 0.6;
  const double a = 1 / (1 + from * from);
  const double a_to = 1 / (1 + to * to);
  const double variance = (1 - a_to) * (1 - std::pow((1 - a_to) / (1 - a), lambda * lambda) *
                                                std::pow(a / a_to, lambda * lambda));
  two_gaussians nothing;
  nothing.mean[0] = nothing.mean[1] = nothing.variance[0] = nothing.variance[1] = 0;
  const double z = ms::random_stream(1).normal(0);
  CHECK(std::sqrt(a_to) *
            run(ms::gddim{.levels = {from, to}, .lambda = lambda}, nothing, from) ==
        Approx(std::sqrt(1 - a_to - variance) + std::sqrt(variance) * z));
}

TEST_CASE(
    "Poisson flow ends at its charges in proportion to them, whatever the augmented "
    "dimensions") {
  // Charges 0.3 and 0.7 at -1 and 1: the mean of the data under the kernel of arXiv 2302.04265,
  // and the share of field lines that end at each.
  for (const int augmented : {1, 3, 128}) {
    constexpr int n = 4000;
    ms::cpu b(2);
    ms::tensor<double, ms::cpu> x(b, {n, 1, 1, 1});
    const ms::random_stream latents(7);
    for (int i = 0; i < n; ++i)
      x.data()[i] = 80 * latents.normal(std::uint64_t(i));
    ms::pfgm{.num_steps = 40, .augmented = augmented}(
        b, x.view(),
        [&](ms::view<const double> at, double sigma, ms::view<double> d) {
          for (int i = 0; i < n; ++i) {
            const double z2 = augmented * sigma * sigma;
            const double far = 0.5 * (1 + augmented);
            const double ratio = 0.7 / 0.3 *
                                 std::pow((std::pow(at.data[i] + 1, 2) + z2) /
                                              (std::pow(at.data[i] - 1, 2) + z2),
                                          far);
            d.data[i] = (ratio - 1) / (ratio + 1);
          }
        },
        [&](int k, ms::view<double> z) {
          for (int i = 0; i < n; ++i)
            z.data[i] = ms::random_stream(8, std::uint64_t(k)).normal(std::uint64_t(i));
        },
        [](int, double, ms::view<const double>, ms::view<const double>) { return true; });
    int right = 0;
    int lost = 0;
    for (int i = 0; i < n; ++i)
      right += x.data()[i] > 0, lost += std::fabs(std::fabs(x.data()[i]) - 1) > 0.01;
    INFO(augmented << " augmented dimensions: " << right << " right, " << lost << " elsewhere");
    CHECK(std::fabs(right / double(n) - 0.7) < 0.03);  // four standard deviations
    CHECK(lost < n / 50);
  }
  CHECK_THAT(test::message([] { ms::pfgm{.augmented = 0}.sigmas(); }),
             Catch::Contains("augmented = 0"));
}

TEST_CASE("features of the shared encoder can be taken over") {
  const ms::song_unet net{.resolution = 4,
                          .channels = 1,
                          .encoder_channels = 8,
                          .channel_mult = {1, 2},
                          .num_blocks = 1,
                          .attn_resolutions = {}};
  ms::dynamic_model<float, ms::cpu> m(ms::cpu(2), {net, {.widths = {8, 4}}, {}},
                                      ms::partition({1.0}), 1);
  auto w = test::normals<float>(m.weights().size(), 8);
  for (float& v : w)
    v *= 0.2f;
  const auto upload = [&] {
    m.backend().upload(w.data(), m.weights().data(), ms::index_t(w.size()));
  };
  upload();
  ms::cpu& b = m.backend();
  const auto x = test::random_tensor<double>(b, m.images(3), 1);
  const auto evaluate = [&](const ms::tensor<double, ms::cpu>& at, double sigma,
                            ms::shared_features f) {
    ms::tensor<double, ms::cpu> d(b, m.images(3));
    m.denoise(at.view(), std::vector<double>(3, sigma), d.view(), {}, 3, f);
    return d.to_host();
  };
  using enum ms::shared_features;
  CHECK_THAT(test::message([&] { evaluate(x, 2, take_over); }),
             Catch::Contains("keep them first"));
  const auto whole = evaluate(x, 2, compute);
  CHECK(evaluate(x, 2, keep) == whole);
  CHECK(evaluate(x, 2, take_over) == whole);
  // Another stage's decoder reads the same features.
  const auto other = evaluate(x, 0.5, compute);
  evaluate(x, 2, keep);
  const auto old = evaluate(x, 0.5, take_over);
  CHECK(old != other);
  // Where the encoder does not see the noise level and c_in x is the same, old features are the
  // right ones: what is left is that the decoder has its own.
  for (std::size_t k = 0; k < m.network().parameters.size(); ++k)
    if (const auto& p = m.network().parameters[k];
        p.segment == 0 && m.parameter_names()[k].find("affine") != std::string::npos)
      std::fill_n(w.begin() + p.offset, p.size(), 0.0f);
  upload();
  const ms::preconditioning precond;
  auto moved = x.to_host();
  for (double& v : moved)
    v *= precond.at(2).in / precond.at(0.5).in;
  const ms::tensor<double, ms::cpu> y(b, m.images(3), moved);
  const auto want = evaluate(y, 0.5, compute);
  evaluate(x, 2, keep);
  CHECK(test::distance(evaluate(y, 0.5, take_over), want) < 1e-6);
  // In sampling: every third evaluation runs the encoder.
  const ms::edm_heun sampler{.num_steps = 8};
  const auto exact = ms::sample(m, sampler, {.seeds = "0-4", .batch = 5});
  const auto reused = ms::sample(m, sampler, {.seeds = "0-4", .batch = 5, .reuse = {3}});
  const auto parts = ms::sample(m, sampler, {.seeds = "0-4", .batch = 2, .reuse = {3}});
  const auto outside = ms::sample(m, sampler, {.seeds = "0-4", .reuse = {3, 100}});
  CHECK(exact.encoder_evaluations == 15);
  CHECK(reused.encoder_evaluations == 5);
  CHECK(reused.evaluations == exact.evaluations);
  CHECK(parts.images == reused.images);
  CHECK(outside.images == exact.images);
  CHECK(reused.images != exact.images);
  CHECK(test::distance(reused.images, exact.images) < 0.5);
  ms::dynamic_model<float, ms::cpu> apart(
      ms::cpu(2), {net, {.widths = {8, 4}, .shared_encoder = false}, {}}, ms::partition({1.0}),
      1);
  CHECK_THAT(test::message([&] { ms::sample(apart, sampler, {.reuse = {2}}); }),
             Catch::Contains("share no encoder"));
}

TEST_CASE("backends draw the same pictures") {
  const ms::configuration config{ms::song_unet{.resolution = 4,
                                               .channels = 1,
                                               .encoder_channels = 8,
                                               .channel_mult = {1, 2},
                                               .num_blocks = 1,
                                               .attn_resolutions = {2}},
                                 {.widths = {8, 4}},
                                 {}};
  const auto draw = [&](auto backend, const auto& sampler) {
    ms::dynamic_model<float, decltype(backend)> m(backend, config, ms::partition({1.0}), 1);
    auto w = test::normals<float>(m.weights().size(), 8);
    for (float& v : w)
      v *= 0.2f;
    m.backend().upload(w.data(), m.weights().data(), ms::index_t(w.size()));
    return ms::sample(m, sampler, {.seeds = "0-2"}).images;
  };
  const auto check = [&](const auto& sampler) {
    CHECK(test::distance(draw(ms::thrust_cpp(), sampler), draw(ms::cpu(2), sampler)) < 1e-4);
  };
  check(ms::edm_heun{.num_steps = 6, .s_churn = 3});
  check(dpm(8, 2, ms::dpm_method::multistep, true));
  check(ms::score_sde{.num_steps = 6,
                      .schedule = ms::ve_schedule{0.05, 20},
                      .corrector = ms::sde_corrector::langevin});
  check(ms::pfgm{.num_steps = 5, .augmented = 1});
}

TEST_CASE("guidance combines both sides where it acts") {
  const ms::song_unet net{.resolution = 4,
                          .channels = 1,
                          .encoder_channels = 8,
                          .channel_mult = {1},
                          .num_blocks = 1,
                          .attn_resolutions = {},
                          .label_dim = 3};
  ms::dynamic_model<float, ms::cpu> model(ms::cpu(2), {net, {.widths = {8, 4}}, {}},
                                          ms::partition({1.0}), 1),
      weak(ms::cpu(2), {net, {.widths = {8, 4}}, {}}, ms::partition({1.0}), 2);
  auto w = test::normals<float>(model.weights().size(), 8);
  for (float& v : w)
    v *= 0.2f;
  model.backend().upload(w.data(), model.weights().data(), ms::index_t(w.size()));
  const ms::ddim one_step{.levels = {5.0, 0.0}};  // the result is D
  const auto draw = [&](const ms::guidance& g, int label,
                        ms::dynamic_model<float, ms::cpu>* other = nullptr) {
    return ms::sample(model, one_step, {.seeds = "7", .class_label = label, .guide = g}, other);
  };
  const auto with = draw({}, 1);
  const auto without = draw({}, -1);
  const auto strong = draw({.scale = 3}, 1);
  const auto by_stage = draw({.scale_by_stage = {9, 3}}, 1);
  const auto outside = draw({.scale = 3, .sigma_high = 2}, 1);
  CHECK(with.images != without.images);
  for (std::size_t i = 0; i < 16; ++i)
    CHECK(strong.images[i] ==
          Approx(without.images[i] + 3 * (with.images[i] - without.images[i])));
  CHECK(by_stage.images == strong.images);
  CHECK(outside.images == with.images);
  CHECK(strong.evaluations[1] == 2);
  CHECK(with.evaluations[1] == 1);
  const auto other = ms::sample(weak, one_step, {.seeds = "7", .class_label = 1});
  const auto autoguided = draw({.scale = 2}, 1, &weak);
  for (std::size_t i = 0; i < 16; ++i)
    CHECK(autoguided.images[i] == Approx(2 * with.images[i] - other.images[i]));
}

TEST_CASE("schedules invert to rounding") {
  const auto check = [](const auto& s) {
    INFO(s.name());
    for (int i = 1; i < 50; ++i) {
      const double t = s.t_min() + (s.t_max() - s.t_min()) * i / 50;
      CHECK(std::fabs(s.t(s.sigma(t)) - t) < 1e-12 * std::max(1.0, std::fabs(t)));
      CHECK(ms::time_of_lambda(s, ms::lambda(s, t)) == Approx(t).epsilon(1e-12));
      CHECK(ms::any_schedule(std::string(s.name())).name() == s.name());
    }
  };
  check(ms::vp_schedule{});
  check(ms::sub_vp_schedule{});
  check(ms::ve_schedule{});
  check(ms::cosine_schedule{});
  check(ms::flow_schedule{});
  check(ms::edm_schedule{});
  check(ms::ddpm_schedule{});
  CHECK_THROWS_AS(ms::any_schedule(std::string("other")), ms::value_error);
  // d sigma^2 / dt = (g / s)^2: drift and diffusion belong to the marginals.
  const auto consistent = [](const auto& s, double t) {
    const double h = 1e-5;
    const double slope = (std::pow(s.sigma(t + h), 2) - std::pow(s.sigma(t - h), 2)) / (2 * h);
    const double g = s.diffusion(t) / s.signal(t);
    CHECK(slope == Approx(g * g).epsilon(1e-6));
    CHECK((std::log(s.signal(t + h)) - std::log(s.signal(t - h))) / (2 * h) ==
          Approx(s.drift(t)).epsilon(1e-6).margin(1e-9));
  };
  for (const double t : {0.2, 0.5, 0.8}) {
    consistent(ms::vp_schedule{}, t);
    consistent(ms::sub_vp_schedule{}, t);
    consistent(ms::ve_schedule{}, t);
    consistent(ms::cosine_schedule{}, t);
    consistent(ms::flow_schedule{}, t);
  }
  const auto zero = ms::discrete_schedule(ms::beta_schedule::scaled_linear, 0.00085, 0.012)
                        .zero_terminal_snr();
  CHECK(std::exp(zero.log_alpha(999)) == Approx(1e-4));
  CHECK(std::exp(zero.log_alpha(0)) == Approx(std::sqrt(1 - 0.00085)));
  CHECK(ms::flow_schedule::shifted(0.5, 3) == Approx(0.75));
  // Quantiles of Beta(0.6, 0.6), from SciPy.
  CHECK(ms::detail::beta_quantile(0.05, 0.6) == Approx(0.012554456873611399).epsilon(1e-9));
  CHECK(ms::detail::beta_quantile(0.25, 0.6) == Approx(0.17568037865269498).epsilon(1e-9));
  CHECK(ms::detail::beta_quantile(0.9, 0.6) == Approx(0.9604155944112192).epsilon(1e-9));
}

TEST_CASE("preconditionings turn each prediction into the same denoiser") {
  // From an image value y and noise n at sigma: what a perfect network of each kind predicts
  // must give D = y.
  const double y = 0.4;
  const double n = -1.3;
  for (const auto kind :
       {ms::precondition::vp, ms::precondition::subvp, ms::precondition::score_ve,
        ms::precondition::ddpm, ms::precondition::flow, ms::precondition::iddpm})
    for (const auto what :
         {ms::prediction::epsilon, ms::prediction::sample, ms::prediction::velocity,
          ms::prediction::score, ms::prediction::flow})
      for (const double sigma : {0.05, 0.8, 12.0}) {
        ms::preconditioning p{kind};
        p.predicts = what;
        const auto f = p.at(sigma);
        const ms::training_target t{f.in, sigma};
        const double predicted = what == ms::prediction::epsilon    ? n
                                 : what == ms::prediction::sample   ? y
                                 : what == ms::prediction::velocity ? t.velocity(y, n)
                                 : what == ms::prediction::score    ? t.score(n)
                                                                    : t.flow(y, n);
        INFO(ms::to_string(kind) << " " << ms::to_string(what) << " " << sigma);
        CHECK(f.skip * (y + sigma * n) + f.out * predicted == Approx(y).epsilon(1e-10));
        CHECK(ms::convert_prediction(what, ms::prediction::epsilon, predicted, y + sigma * n,
                                     sigma, f.in) == Approx(n).epsilon(1e-8));
        CHECK(ms::convert_prediction(ms::prediction::epsilon, what, n, y + sigma * n, sigma,
                                     f.in) == Approx(predicted).epsilon(1e-8));
      }
}

TEST_CASE("bad parameters of samplers are named with their value") {
  const auto says = [](auto&& f, const char* what) {
    CHECK_THAT(test::message(f), Catch::Contains(what));
  };
  says([] { ms::ddim{.levels = {1.0, 2.0}}.sigmas(); }, "noise level 1 is 2");
  says([] { ms::ddim{.levels = {2.0, 1.0}, .eta = 1.5}.sigmas(); }, "eta = 1.5");
  says([] { ms::ddim{.levels = {2.0}}.sigmas(); }, "1 noise levels");
  says([] { ms::deis{.levels = {2.0, 0.0}}.sigmas(); }, "last noise level is 0");
  says([] { ms::deis{.levels = {2.0, 1.0}, .order = 4}.sigmas(); }, "order = 4");
  says([] { ms::unipc{.levels = {2.0, 1.0}, .order = 0}.sigmas(); }, "order = 0");
  says([] { ms::gddim{.levels = {2.0, 1.0}, .lambda = -1}.sigmas(); }, "lambda = -1");
  says([] { ms::gddim{.levels = {2.0, 1.0}, .order = 4}.sigmas(); }, "order = 4");
  says([] { ms::gddim{.levels = {2.0, 0.0}}.sigmas(); }, "last noise level is 0");
  says([] { ms::flow_ode{.levels = {1.0, 2.0}}.sigmas(); }, "noise level 1 is 2");
  says([] { ms::dpm_solver_sde{.levels = {2.0, 1.0}, .order = 3}.sigmas(); }, "order = 3");
  says([] { dpm(0, 2, ms::dpm_method::multistep, true).sigmas(); }, "num_steps = 0");
  says([] { ms::edm_ablation{.num_steps = 1}.sigmas(); }, "num_steps = 1");
  says([] { ms::score_sde{.num_steps = 1}.sigmas(); }, "num_steps = 1");
  says(
      [] {
        ms::score_sde{.schedule = ms::sub_vp_schedule{},
                      .predictor = ms::sde_predictor::ancestral}
            .sigmas();
      },
      "ancestral");
  says([] { ms::noise_levels(ms::vp_schedule{}, ms::spacing::log_snr, 0.1, 0.9, 5); },
       "noise must fall");
  says([] { ms::timesteps(1000, ms::timestep_spacing::leading, 1001); }, "outside 1..1000");
  says([] { ms::spacing_from("linear"); }, "unknown");
  says([] { ms::weight_on(ms::edm_weight{}, ms::prediction::score, 1); }, "score");
}

TEST_CASE("the probability-flow ODE reaches its tolerance and gives closed-form likelihoods") {
  const two_gaussians g;
  const double x = run(ms::probability_flow{bottom, top, {1e-9, 1e-9}}, g, start);
  CHECK(std::fabs(x - g.denoised(g.exact(start, top, bottom), bottom)) < 1e-6);
  // A Gaussian's density, smoothed by sigma_min and cut by the prior's sigma_max, which differs
  // from the last marginal by about mean / sigma_max.
  ms::cpu b(1);
  const std::vector<double> values{0.1, 0.9, -1.2, 0.3};
  const ms::tensor<double, ms::cpu> images(b, {2, 1, 1, 2}, values);
  const auto likely = ms::log_likelihood(
      b, images.view(), ms::probability_flow{1e-3, 30000, {1e-8, 1e-8}},
      [&](ms::view<const double> at, double sigma, ms::view<double> d) {
        for (int i = 0; i < 4; ++i)
          d.data[i] = g.denoised(at.data[i], sigma);
      },
      [&](ms::view<const double>, double sigma, ms::view<const double> v, ms::view<double> jv) {
        for (int i = 0; i < 4; ++i)
          jv.data[i] = g.variance[0] / (g.variance[0] + sigma * sigma) * v.data[i];
      },
      1);
  for (int r = 0; r < 2; ++r) {
    double want = 0;
    for (int i = 0; i < 2; ++i)
      want += -0.5 * std::pow(values[std::size_t(2 * r + i)] - g.mean[0], 2) / g.variance[0] -
              0.5 * std::log(2 * 3.14159265358979 * g.variance[0]);
    CHECK(likely.log_p[std::size_t(r)] == Approx(want).margin(1e-4));
    CHECK(likely.bits_per_value[std::size_t(r)] ==
          Approx(-want / (2 * std::log(2.0)) + 7).margin(1e-4));
  }
}

TEST_CASE("the derivative of a model's denoiser, transposed") {
  ms::cpu b(2);
  const ms::song_unet net{.resolution = 4,
                          .channels = 2,
                          .encoder_channels = 8,
                          .channel_mult = {1, 2},
                          .num_blocks = 1,
                          .attn_resolutions = {2}};
  ms::dynamic_model<double, ms::cpu> m(b, {net, {.widths = {8, 4}}, {}}, ms::partition({1.0}),
                                       1);
  auto w = test::normals<double>(m.weights().size(), 8);
  for (double& v : w)
    v *= 0.2;
  b.upload(w.data(), m.weights().data(), ms::index_t(w.size()));
  const std::vector<double> sigmas{5.0, 0.3, 2.0};
  const auto x = test::random_tensor<double>(b, m.images(3), 1);
  const auto v = test::random_tensor<double>(b, m.images(3), 2);
  ms::tensor<double, ms::cpu> jv(b, m.images(3)), d(b, m.images(3));
  m.denoise_transposed(x.view(), sigmas, v.view(), jv.view());
  CHECK(test::gradient_error(
            x.to_host(),
            [&](const std::vector<double>& at) {
              const ms::tensor<double, ms::cpu> moved(b, m.images(3), at);
              m.denoise(moved.view(), sigmas, d.view());
              return test::dot(d.to_host(), v.to_host());
            },
            jv.to_host()) < 1e-7);
}

TEST_CASE("restarts wear off an error made before them") {
  // A Gaussian's samples from a start that is off: without restarts the error stays, with them
  // the spread of the interval forgets it.
  const two_gaussians g;
  const ms::restart s{.num_steps = 20, .low = 0.5, .high = 5, .repeats = 6, .repeat_steps = 8};
  const double off = 400;  // five standard deviations
  const double plain = run(ms::edm_heun{.num_steps = 20}, g, off);
  const double again = run(s, g, off);
  CHECK(std::fabs(plain - 0.3) > 2);    // five standard deviations of the data, too
  CHECK(std::fabs(again - 0.3) < 1.8);  // a sample like others
  CHECK(run(ms::restart{.repeats = 0}, g, off) ==
        Approx(run(ms::edm_heun{}, g, off)).epsilon(0.02));
  CHECK_THAT(test::message([] { ms::restart{.low = 2, .high = 1}.sigmas(); }),
             Catch::Contains("low"));
}

TEST_CASE("known regions stay, and pictures can start from a picture") {
  const ms::configuration config{ms::song_unet{.resolution = 4,
                                               .channels = 1,
                                               .encoder_channels = 8,
                                               .channel_mult = {1},
                                               .num_blocks = 1,
                                               .attn_resolutions = {}},
                                 {.widths = {8}},
                                 {}};
  ms::dynamic_model<float, ms::cpu> model(ms::cpu(2), config, ms::partition(), 1);
  auto w = test::normals<float>(model.weights().size(), 8);
  for (float& v : w)
    v *= 0.2f;
  model.backend().upload(w.data(), model.weights().data(), ms::index_t(w.size()));
  std::vector<double> known(16, 0.7), mask(16, 0.0);
  for (int i = 0; i < 8; ++i)
    mask[std::size_t(i)] = 1;
  const auto painted = ms::sample(model, ms::edm_heun{.num_steps = 8},
                                  {.seeds = "0-1", .known = known, .mask = mask});
  for (int i = 0; i < 8; ++i) {
    CHECK(painted.images[std::size_t(i)] == Approx(0.7));
    CHECK(painted.images[std::size_t(8 + i)] != Approx(0.7));
  }
  // With hardly any noise added, image-to-image returns nearly the image.
  const auto near = ms::sample(model, ms::edm_heun{.num_steps = 4, .sigma_max = 0.01},
                               {.seeds = "0", .from = std::vector<double>(16, 0.2)});
  for (const double v : near.images)
    CHECK(v == Approx(0.2).margin(0.1));
  CHECK_THAT(test::message([&] { ms::sample(model, ms::edm_heun{}, {.mask = mask}); }),
             Catch::Contains("known and mask"));
  CHECK_THAT(test::message([&] { ms::sample(model, ms::edm_heun{}, {.from = {1.0}}); }),
             Catch::Contains("from has 1 values"));
}
