// Predictor-corrector sampling of score-based SDEs (Song et al., arXiv 2011.13456, algorithms 1
// to 5): N steps on linspace(1, eps, N), at each a corrector (Langevin dynamics, annealed or
// not) and a predictor (Euler-Maruyama, reverse diffusion, ancestral). The score is (s D(x / s;
// sigma) - x) / (s sigma)^2. For VE, VP and sub-VP; ancestral steps do not exist for sub-VP.
#pragma once
#include "walk.hpp"

namespace multistage {

enum class sde_predictor { none, euler_maruyama, reverse_diffusion, ancestral };
constexpr std::array<const char*, 4> option_names(sde_predictor) {
  return {"none", "euler_maruyama", "reverse_diffusion", "ancestral"};
}
enum class sde_corrector { none, langevin, annealed_langevin };
constexpr std::array<const char*, 3> option_names(sde_corrector) {
  return {"none", "langevin", "annealed_langevin"};
}

/// Predictor-corrector sampling; num_steps is the paper's number of noise scales.
struct score_sde {
  int num_steps = 1000;
  any_schedule schedule = vp_schedule{};  ///< vp, sub_vp or ve
  sde_predictor predictor = sde_predictor::reverse_diffusion;
  sde_corrector corrector = sde_corrector::none;
  double eps = 1e-3;  ///< the time at which it ends
  double snr = 0.16;  ///< signal-to-noise ratio of Langevin steps
  int corrector_steps = 1;
  bool batch_norms = false;  ///< Langevin's norms averaged over the batch, as the reference has
                             ///< it; else each row's own, so that pictures do not depend on it
  bool denoise = true;       ///< the result is the last mean, without its noise

  static constexpr const char* name() {
    return "score_sde";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"num_steps", "steps, the paper's num_scales", between(2, 1'000'000)},
          s.num_steps);
    visit(option{"schedule", "the process: vp, sub_vp or ve"}, s.schedule);
    visit(option{"predictor", "the step down"}, s.predictor);
    visit(option{"corrector", "Langevin dynamics at each level"}, s.corrector);
    visit(option{"eps", "the time at which it ends", between(1e-9, 0.99)}, s.eps);
    visit(option{"snr", "signal-to-noise ratio of Langevin steps", above(0, 100)}, s.snr);
    visit(option{"corrector_steps", "Langevin steps at each level", between(1, 1'000'000)},
          s.corrector_steps);
    visit(option{"batch_norms",
                 "Langevin's norms averaged over the batch, as the reference has it"},
          s.batch_norms);
    visit(option{"denoise", "the result is the last mean, without its noise"}, s.denoise);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    for (const char* one : {"snr", "corrector_steps", "batch_norms"})
      if (corrector == sde_corrector::none && option == one)
        return "without a corrector";
    if (corrector != sde_corrector::langevin && option == "batch_norms")
      return "unless the corrector is langevin";
    return nullptr;
  }

  /// Noise levels of the steps; it ends at the last one. @throws value_error naming the option
  /// that is out of range
  std::vector<double> sigmas() const;
  double start_scale() const;

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> x,
                  Denoise&& denoise_,
                  Noise&& noise,
                  Observe&& observe) const {
    over([&](const auto& process) { process(b, x, denoise_, noise, observe); });
  }

 private:
  template <class F>
  auto over(F&& f) const;
};

namespace sampling {

/// The steps of one process, VE, VP or sub-VP.
template <class Schedule>
struct sde_process {
  const score_sde& o;
  const Schedule& schedule;
  int num_scales = o.num_steps;

  static constexpr bool explodes = std::is_same_v<Schedule, ve_schedule>;

  std::vector<double> sigmas() const {
    check();
    std::vector<double> s;
    for (int i = 0; i < num_scales; ++i)
      s.push_back(schedule.sigma(time(i)));
    return s;
  }
  double start_scale() const {
    return explodes ? schedule.sigma(1) : 1 / schedule.signal(1);
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> x,
                  Denoise&& denoise_,
                  Noise&& noise,
                  Observe&& observe) const {
    check();
    work<Backend> w{b, x};
    auto d = w.make();
    auto z = w.make();
    auto score = w.make();
    auto unscaled = w.make();
    auto mean = w.make();
    w.combine(x.data, {{schedule.signal(1), x.data}});  // x_t from here on
    int draws = 0;
    const auto evaluate = [&](double t) {
      const double s = schedule.signal(t);
      const double sigma = schedule.sigma(t);
      const double variance = s * sigma * s * sigma;
      w.combine(unscaled.data(), {{1 / s, x.data}});
      denoise_(std::as_const(unscaled).view(), sigma, d.view());
      w.combine(score.data(), {{s / variance, d.data()}, {-1 / variance, x.data}});
    };
    bool seen = false;
    for (int i = 0; i < num_scales; ++i) {
      const double t = time(i);
      const int k = std::clamp(int(t * (num_scales - 1)), 0, num_scales - 1);
      seen = false;
      const auto look = [&] {
        const bool go_on = seen || observe(i, schedule.sigma(t), std::as_const(unscaled).view(),
                                           std::as_const(d).view());
        seen = true;
        return go_on;
      };
      if (o.corrector != sde_corrector::none)
        for (int c = 0; c < o.corrector_steps; ++c) {
          evaluate(t);
          if (!look())
            return leave(w, t);
          noise(draws++, z.view());
          langevin(w, k, t, score, z, mean);
        }
      if (o.predictor == sde_predictor::none)
        continue;
      evaluate(t);
      if (!look())
        return leave(w, t);
      noise(draws++, z.view());
      predict(w, k, t, score, z, mean);
    }
    if (o.denoise)
      b.copy(mean.data(), x.data, w.n);
    leave(w, o.eps);
  }

 private:
  void check() const {
    check_options(score_sde::name(), o);
    require<value_error>(
        o.predictor != sde_predictor::none || o.corrector != sde_corrector::none,
        "score_sde: neither a predictor nor a corrector; choose one");
    require<value_error>(
        o.predictor != sde_predictor::ancestral || !std::is_same_v<Schedule, sub_vp_schedule>,
        "score_sde: ancestral steps do not exist for sub-VP");
    if constexpr (explodes)
      require<value_error>(schedule.sigma_min > 0 && schedule.sigma_min < schedule.sigma_max &&
                               schedule.sigma_max <= 1e6,
                           "score_sde: the schedule's sigma_min = ", schedule.sigma_min,
                           ", sigma_max = ", schedule.sigma_max,
                           "; they ascend, above 0 and up to 10^6");
    if constexpr (!explodes) {  // the discrete process has variances beta_k, of which none
                                // exceeds 1
      const auto possible = [](double beta) {
        return beta >= 0 && beta <= 1e6;
      };
      require<value_error>(possible(schedule.beta_min) && possible(schedule.beta_max),
                           "score_sde: beta_min = ", schedule.beta_min,
                           ", beta_max = ", schedule.beta_max, "; both are from 0 to 10^6");
      const bool ancestral = o.predictor == sde_predictor::ancestral;
      const bool steps_by_beta = std::is_same_v<Schedule, vp_schedule> &&
                                 (ancestral || o.predictor == sde_predictor::reverse_diffusion);
      if (!steps_by_beta && o.corrector == sde_corrector::none)
        return;
      const auto works = [&](int n) {
        return ancestral ? largest_beta(n) < 1 : largest_beta(n) <= 1;
      };
      int least = std::max(1, int(schedule.beta_max));
      while (!works(least))
        ++least;
      require<value_error>(works(num_scales), "score_sde: num_steps = ", num_scales,
                           " (the paper's num_scales); with beta_max = ", schedule.beta_max,
                           " a step's variance beta_max / num_steps exceeds 1: take at least ",
                           least, ", or the predictor euler_maruyama without a corrector");
    }
  }
  double time(int i) const {
    return 1 + double(i) / (num_scales - 1) * (o.eps - 1);
  }
  double largest_beta(int n) const {
    return std::max(schedule.beta_min,
                    schedule.beta_min + (schedule.beta_max - schedule.beta_min)) /
           n;
  }
  double beta(int k) const {
    return (schedule.beta_min +
            double(k) / (num_scales - 1) * (schedule.beta_max - schedule.beta_min)) /
           num_scales;
  }
  double level(int k) const {
    return k < 0 ? 0 : schedule.sigma(double(k) / (num_scales - 1));
  }
  /// Back to noise over signal.
  template <class Work>
  void leave(Work& w, double t) const {
    w.combine(w.x.data, {{1 / schedule.signal(t), w.x.data}});
  }
  template <class Work, class State>
  void langevin(Work& w, int k, double t, const State& score, const State& z, State& mean)
      const {
    double alpha = 1;
    if constexpr (!explodes)
      alpha = 1 - beta(k);
    const index_t rows = w.x.extents.rows;
    const index_t size = w.x.extents.row_size();
    std::vector<double> step(std::size_t(rows),
                             2 * alpha * std::pow(o.snr * noise_std(schedule, t), 2));
    if (o.corrector == sde_corrector::langevin) {
      std::vector<double> ratio = norms(z.to_host(), rows, size);
      std::vector<double> of_score = norms(score.to_host(), rows, size);
      if (o.batch_norms) {
        double a = 0;
        double b = 0;
        for (index_t r = 0; r < rows; ++r)
          a += ratio[std::size_t(r)], b += of_score[std::size_t(r)];
        ratio.assign(std::size_t(rows), a);
        of_score.assign(std::size_t(rows), b);
      }
      for (index_t r = 0; r < rows; ++r)
        step[std::size_t(r)] =
            2 * alpha * std::pow(o.snr * ratio[std::size_t(r)] / of_score[std::size_t(r)], 2);
    }
    for (index_t r = 0; r < rows; ++r) {  // a row has its own step
      const double h = step[std::size_t(r)];
      ops::linear_combination(
          w.b, size, mean.data() + r * size,
          {ops::term<double>{1, w.x.data + r * size}, {h, score.data() + r * size}});
      ops::linear_combination(w.b, size, w.x.data + r * size,
                              {ops::term<double>{1, mean.data() + r * size},
                               {std::sqrt(2 * h), z.data() + r * size}});
    }
  }
  static std::vector<double> norms(const std::vector<double>& v, index_t rows, index_t size) {
    std::vector<double> n(std::size_t(rows), 0.0);
    for (index_t r = 0; r < rows; ++r) {
      for (index_t i = r * size; i < (r + 1) * size; ++i)
        n[std::size_t(r)] += v[std::size_t(i)] * v[std::size_t(i)];
      n[std::size_t(r)] = std::sqrt(n[std::size_t(r)]);
    }
    return n;
  }
  template <class Work, class State>
  void predict(Work& w, int k, double t, const State& score, const State& z, State& mean)
      const {
    // mean = keep x + push score, x = mean + spread z
    double keep = 1;
    double push = 0;
    double spread = 0;
    const double g = schedule.diffusion(t);
    if (o.predictor == sde_predictor::euler_maruyama) {
      keep = 1 - schedule.drift(t) / num_scales;
      push = g * g / num_scales;
      spread = g / std::sqrt(double(num_scales));
    } else if constexpr (explodes) {
      const double now = level(k);
      const double below = level(k - 1);
      const double gap = now * now - below * below;
      push = gap;
      spread = o.predictor == sde_predictor::reverse_diffusion
                   ? std::sqrt(gap)
                   : std::sqrt(below * below * gap / (now * now));
    } else if (std::is_same_v<Schedule,
                              sub_vp_schedule>) {  // the forward step by Euler-Maruyama
      const double f = schedule.drift(t) / num_scales;
      const double gg = g * g / num_scales;
      keep = 1 - f;
      push = gg;
      spread = std::sqrt(gg);
    } else if (o.predictor == sde_predictor::reverse_diffusion) {
      keep = 2 - std::sqrt(1 - beta(k));
      push = beta(k);
      spread = std::sqrt(beta(k));
    } else {
      keep = 1 / std::sqrt(1 - beta(k));
      push = beta(k) * keep;
      spread = std::sqrt(beta(k));
    }
    w.combine(mean.data(), {{keep, w.x.data}, {push, score.data()}});
    w.combine(w.x.data, {{1, mean.data()}, {spread, z.data()}});
  }
};

}  // namespace sampling

template <class F>
auto score_sde::over(F&& f) const {
  if (const auto* vp = std::get_if<vp_schedule>(&schedule.get()))
    return f(sampling::sde_process<vp_schedule>{*this, *vp});
  if (const auto* sub = std::get_if<sub_vp_schedule>(&schedule.get()))
    return f(sampling::sde_process<sub_vp_schedule>{*this, *sub});
  if (const auto* ve = std::get_if<ve_schedule>(&schedule.get()))
    return f(sampling::sde_process<ve_schedule>{*this, *ve});
  fail<value_error>("score_sde: schedule '", schedule.name(),
                    "' is no process of this paper's; choose vp, sub_vp or ve");
}
inline std::vector<double> score_sde::sigmas() const {
  return over([](const auto& process) { return process.sigmas(); });
}
inline double score_sde::start_scale() const {
  return over([](const auto& process) { return process.start_scale(); });
}

}  // namespace multistage
