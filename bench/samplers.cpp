// What samplers take outside the network: each walks its noise levels over 64 pictures of the
// quickstart (8 x 8 x 1) on one thread with a denoiser that does nothing; the time is that of
// one evaluation, and share_of_forward is its share of the quickstart network's forward pass in
// its cheapest stage. The same for all of `sample` around the network: latents, the sampler, a
// stack of decorators, the check of results, pictures to the host. Then the parts of `sample`
// alone, schedules and lists of noise levels, draws of training's noise levels, and the
// measures.
#include <benchmark/benchmark.h>

#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>
#include <multistage/multistage.hpp>
#include <multistage/samplers/all.hpp>
#include <multistage/schedule/schedule.hpp>

namespace ms = multistage;

namespace {

constexpr ms::index_t rows = 64;
const ms::shape pictures{rows, 8, 8, 1};

/// Seconds of the quickstart network's forward pass over the pictures in stage 2, the best of
/// some.
double forward_seconds() {
  static const double seconds = [] {
    ms::multi_decoder<ms::song_unet{.resolution = 8,
                                    .channels = 1,
                                    .encoder_channels = 32,
                                    .channel_mult = {1, 2},
                                    .num_blocks = 1,
                                    .attn_resolutions = {4}},
                      ms::decoders{{48, 32, 16}}>
        net(ms::partition({0.55, 42.0}), ms::seed{1}, 0.5, ms::cpu(1));
    ms::cpu b = net.backend();
    ms::tensor<double, ms::cpu> x(b, pictures), d(b, pictures);
    const std::vector<double> sigmas(std::size_t(rows), 50.0);
    double best = 1e9;
    for (int i = 0; i < 30; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      net.denoise(std::as_const(x).view(), sigmas, d.view(), {}, rows);
      best = std::min(
          best,
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return best;
  }();
  return seconds;
}

/// Runs f() as often as the benchmark asks, and reports the time of one of the evaluations that
/// it returns the number of.
template <class F>
void time_evaluations(benchmark::State& s, F&& f) {
  std::int64_t evaluations = 0;
  const double forward = forward_seconds();
  const auto begin = std::chrono::steady_clock::now();
  for (auto _ : s)
    evaluations += f();
  const double each =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() /
      double(std::max<std::int64_t>(1, evaluations));
  s.SetItemsProcessed(evaluations);
  s.counters["us_an_evaluation"] = each * 1e6;
  s.counters["share_of_forward"] = each / forward;
}

template <class Sampler>
void walk(benchmark::State& s, const Sampler& sampler) {
  ms::cpu b(1);
  ms::tensor<double, ms::cpu> x(b, pictures);
  time_evaluations(s, [&] {
    std::int64_t evaluations = 0;
    ms::ops::fill<ms::cpu, double>(b, x.view(), 1.0);
    sampler(
        b, x.view(), [&](ms::view<const double>, double, ms::view<double>) { ++evaluations; },
        [&](int k, ms::view<double> z) {
          ms::fill_normal(b, ms::random_stream(1, std::uint64_t(k)), z.extents.size(), z.data);
        },
        [](int, double, ms::view<const double>, ms::view<const double>) { return true; });
    return evaluations;
  });
}

/// All of `sample` but the network.
template <class Sampler>
void whole(benchmark::State& s, const Sampler& sampler, ms::sampling_options options) {
  options.seeds = "0-63";
  const auto nothing = [](ms::view<const double>, double, ms::view<double>) {
  };
  time_evaluations(s, [&] {
    return ms::sample(nothing, {1, 8, 8, 1}, sampler, options, ms::cpu(1)).evaluations[0];
  });
}

/// What `sample` does around an evaluation: noise levels, the check that the result is finite;
/// and once a picture, its latents.
void check_finite(benchmark::State& s) {
  ms::cpu b(1);
  const ms::tensor<double, ms::cpu> d(b, pictures);
  double sum = 0;
  for (auto _ : s)
    benchmark::DoNotOptimize(sum += ms::ops::sum<ms::cpu, double>(b, d.view()));
}
void latents(benchmark::State& s) {
  ms::cpu b(1);
  ms::tensor<double, ms::cpu> x(b, pictures);
  for (auto _ : s)
    for (ms::index_t r = 0; r < rows; ++r)
      ms::fill_normal(b, ms::random_stream(std::uint64_t(r), ms::purpose::latents, 0), 64,
                      x.data() + r * 64);
}

template <class Schedule>
void convert(benchmark::State& s, const Schedule& schedule) {
  double t = schedule.t_min();
  double sum = 0;
  const double step = (schedule.t_max() - t) / 1000;
  for (auto _ : s) {
    double at = t;
    for (int i = 0; i < 1000; ++i, at += step)
      sum += schedule.t(schedule.sigma(at));
    benchmark::DoNotOptimize(sum);
  }
  s.SetItemsProcessed(1000 * s.iterations());
}
void levels(benchmark::State& s, ms::spacing spacing) {
  for (auto _ : s)
    benchmark::DoNotOptimize(ms::noise_levels(ms::vp_schedule{}, spacing, 1, 1e-3, 20));
}
void draws(benchmark::State& s, const ms::noise_level_draws& l) {
  const ms::partition p({2.5, 7.6});
  double sum = 0;
  std::uint64_t i = 0;
  for (auto _ : s)
    benchmark::DoNotOptimize(sum += l.draw(p, int(i % 3), ms::random_stream(1).uniform(i))),
        ++i;
}

/// A measure of two sets of 1,000 rows of 64 features.
template <class Measure>
void measure(benchmark::State& s, Measure&& f) {
  std::vector<double> a(64'000), b(64'000);
  for (std::size_t i = 0; i < a.size(); ++i)
    a[i] = ms::random_stream(1).normal(i), b[i] = ms::random_stream(2).normal(i);
  for (auto _ : s)
    benchmark::DoNotOptimize(f(a, b));
}

std::vector<double> list(bool to_zero) {
  auto l = ms::noise_levels(ms::edm_schedule{}, ms::spacing::karras, 80, 0.002, 20);
  if (to_zero)
    l.push_back(0);
  return l;
}

const int registered = [] {
  const auto add = [](const char* name, auto sampler) {
    benchmark::RegisterBenchmark(name, [=](benchmark::State& s) {
      walk(s, sampler);
    })->UseRealTime();
  };
  add("edm_heun", ms::edm_heun{});
  add("edm_heun, churn", ms::edm_heun{.s_churn = 40});
  add("edm_ablation", ms::edm_ablation{.schedule = ms::ablation_schedule::vp,
                                       .scaling = ms::ablation_scaling::vp});
  add("ddim", ms::ddim{.levels = list(true)});
  add("ddim, eta 1", ms::ddim{.levels = list(true), .eta = 1});
  add("gddim", ms::gddim{.levels = list(false)});
  add("flow_ode, Heun", ms::flow_ode{.levels = list(true), .heun = true});
  add("pfgm", ms::pfgm{.augmented = 1});
  add("pndm", ms::pndm{.levels = list(false)});
  for (const int order : {1, 2, 3}) {
    const std::string o = ", order " + std::to_string(order);
    ms::dpm_solver p{.num_steps = 20, .order = order};
    add(("dpm_solver++ multistep" + o).c_str(), p);
    p.method = ms::dpm_method::singlestep;
    add(("dpm_solver++ singlestep" + o).c_str(), p);
    add(("deis" + o).c_str(), ms::deis{.levels = list(false), .order = order});
    add(("unipc" + o).c_str(), ms::unipc{.levels = list(true), .order = order});
  }
  add("dpm_solver_sde", ms::dpm_solver_sde{.levels = list(true)});
  add("score_sde, reverse diffusion", ms::score_sde{.num_steps = 20});
  add("score_sde, Langevin",
      ms::score_sde{.num_steps = 20, .corrector = ms::sde_corrector::langevin});
  add("restart", ms::restart{});
  const auto all = [](const char* name, auto sampler, ms::sampling_options options) {
    benchmark::RegisterBenchmark(name, [=](benchmark::State& s) {
      whole(s, sampler, options);
    })->UseRealTime();
  };
  all("sample, edm_heun", ms::edm_heun{}, {});
  all("sample, edm_heun, inpainting and clipping", ms::edm_heun{},
      {.known = std::vector<double>(64, 0.5),
       .mask = std::vector<double>(64, 0.5),
       .clip = ms::clipping::denoised});
  all("sample, dpm_solver++", ms::dpm_solver{.num_steps = 20}, {});
  benchmark::RegisterBenchmark("sample: is it finite", check_finite)->UseRealTime();
  benchmark::RegisterBenchmark("sample: latents of 64 pictures", latents)->UseRealTime();
  benchmark::RegisterBenchmark("vp: sigma and back",
                               [](benchmark::State& s) { convert(s, ms::vp_schedule{}); });
  benchmark::RegisterBenchmark("sub_vp: sigma and back",
                               [](benchmark::State& s) { convert(s, ms::sub_vp_schedule{}); });
  benchmark::RegisterBenchmark("cosine: sigma and back",
                               [](benchmark::State& s) { convert(s, ms::cosine_schedule{}); });
  benchmark::RegisterBenchmark("ddpm: sigma and back",
                               [](benchmark::State& s) { convert(s, ms::ddpm_schedule{}); });
  for (int k = 0; k <= int(ms::spacing::beta); ++k)
    benchmark::RegisterBenchmark(
        (std::string("noise_levels: ") + ms::to_string(ms::spacing(k))).c_str(),
        [k](benchmark::State& s) { levels(s, ms::spacing(k)); });
  benchmark::RegisterBenchmark("draws: log_normal",
                               [](benchmark::State& s) { draws(s, ms::log_normal_levels{}); });
  benchmark::RegisterBenchmark(
      "draws: time_kneed", [](benchmark::State& s) { draws(s, ms::time_kneed_levels<>{}); });
  using features = std::vector<double>;
  const auto metric = [](const char* name, auto f) {
    benchmark::RegisterBenchmark(name, [=](benchmark::State& s) {
      measure(s, f);
    })->Unit(benchmark::kMillisecond);
  };
  metric("frechet_distance",
         [](const features& a, const features& b) { return ms::frechet_distance(a, b, 64); });
  metric("kid", [](const features& a, const features& b) { return ms::kid(a, b, 64); });
  metric("neighbourhoods", [](const features& a, const features& b) {
    return ms::neighbourhoods(a, b, 64).precision;
  });
  return 0;
}();

}  // namespace
