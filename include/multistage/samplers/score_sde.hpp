// Predictor-corrector sampling of score-based SDEs (Song et al., arXiv 2011.13456, algorithms 1
// to 5): N steps on linspace(1, eps, N), at each a corrector (Langevin dynamics, annealed or
// not) and a predictor (Euler-Maruyama, reverse diffusion, ancestral). The score is (s D(x / s;
// sigma) - x) / (s sigma)^2. For VE, VP and sub-VP; ancestral steps do not exist for sub-VP.
//
//   sample(model, score_sde{.corrector = sde_corrector::langevin}, {.seeds = "0-15"});
#pragma once
#include "../core/options.hpp"
#include "../diffusion/denoiser.hpp"
#include "../schedule/any_schedule.hpp"
#include "levels.hpp"
#include "walk.hpp"

namespace multistage {

/// The step down a level: none; Euler-Maruyama for the reverse SDE; reverse diffusion, which
/// discretises it as the forward process is; ancestral, DDPM's (the paper's appendix F).
enum class sde_predictor { none, euler_maruyama, reverse_diffusion, ancestral };
/// The names of `sde_predictor`, in order.
constexpr std::array<const char*, 4> option_names(sde_predictor) {
  return {"none", "euler_maruyama", "reverse_diffusion", "ancestral"};
}
/// Langevin dynamics at a level: none; steps by the ratio of norms of noise and score;
/// annealed, steps by the marginal's standard deviation (Song and Ermon, arXiv 1907.05600).
enum class sde_corrector { none, langevin, annealed_langevin };
/// The names of `sde_corrector`, in order.
constexpr std::array<const char*, 3> option_names(sde_corrector) {
  return {"none", "langevin", "annealed_langevin"};
}

/// Predictor-corrector sampling; num_steps is the paper's number of noise scales.
struct score_sde {
  int num_steps = 1000;                                        ///< N, the paper's num_scales
  any_schedule schedule = vp_schedule{};                       ///< vp, sub_vp or ve
  sde_predictor predictor = sde_predictor::reverse_diffusion;  ///< the step down
  sde_corrector corrector = sde_corrector::none;  ///< Langevin dynamics at each level
  double eps = 1e-3;                              ///< the time at which it ends
  double snr = 0.16;                              ///< signal-to-noise ratio of Langevin steps
  int corrector_steps = 1;                        ///< Langevin steps at each level
  bool batch_norms = false;  ///< Langevin's norms averaged over the batch, as the reference has
                             ///< it; else each row's own, so that pictures do not depend on it
  bool denoise = true;       ///< the result is the last mean, without its noise

  /// What programs call it.
  static constexpr const char* name() {
    return "score_sde";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::steps_field(visit, s.num_steps, "steps, the paper's num_scales", 2);
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
  /// What latents of unit variance are multiplied by.
  double start_scale() const;

  /// Moves x [rows, h, w, c] from the first level to the last. @see samplers/walk.hpp
  template <class Backend, denoiser Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> start,
                  Denoise&& denoise_,
                  Noise&& noise,
                  Observe&& observe) const {
    over([&](const auto& process) {
      sampling::walk w(b, start, denoise_, noise, observe);
      process.walk_down(w);
    });
  }

 private:
  /// f(process) for the process of the schedule.
  template <class F>
  auto over(F&& f) const;
};

namespace sampling {

/// The steps of one process, VE, VP or sub-VP.
template <class Schedule>
struct sde_process {
  const score_sde& o;            ///< the sampler's own
  const Schedule& schedule;      ///< of the process
  int num_scales = o.num_steps;  ///< N of the papers

  /// Whether the image keeps its scale, as VE has it.
  static constexpr bool explodes = std::is_same_v<Schedule, ve_schedule>;

  /// The levels linspace(1, eps, N) in t. @throws value_error naming what is out of range
  std::vector<double> sigmas() const {
    check();
    std::vector<double> s;
    for (int i = 0; i < num_scales; ++i)
      s.push_back(schedule.sigma(time(i)));
    return s;
  }
  /// What latents of unit variance are multiplied by, so that x_t has the process's last
  /// deviation.
  double start_scale() const {
    return explodes ? schedule.sigma(1) : 1 / schedule.signal(1);
  }

  /// Moves the walk's x from the first level to the last.
  template <class Walk>
  void walk_down(Walk& w) const {
    check();
    steps<Walk> work{*this, w};
    w.x = schedule.signal(1) * w.x;  // x_t from here on
    for (int i = 0; i < num_scales; ++i) {
      const double t = time(i);
      const bool goes_on = work.correct(i, t) && work.predict(i, t);
      if (!goes_on) {
        w.x = w.x / schedule.signal(t);
        return;
      }
    }
    if (o.denoise)
      w.x = work.mean;
    w.x = w.x / schedule.signal(o.eps);  // back to noise over signal
  }

 private:
  /// @throws value_error for options out of range, or that do not go together with the schedule
  void check() const {
    check_options(score_sde::name(), o);
    const bool idle = o.predictor == sde_predictor::none && o.corrector == sde_corrector::none;
    require<value_error>(!idle, "score_sde: neither a predictor nor a corrector; choose one");
    const bool ancestral = o.predictor == sde_predictor::ancestral;
    constexpr bool is_sub_vp = std::is_same_v<Schedule, sub_vp_schedule>;
    require<value_error>(!ancestral || !is_sub_vp,
                         "score_sde: ancestral steps do not exist for sub-VP");
    if constexpr (explodes)
      check_sigmas();
    else
      check_betas();
  }
  /// VE: sigmas ascend.
  void check_sigmas() const {
    const double low = schedule.sigma_min;
    const double high = schedule.sigma_max;
    require<value_error>(low > 0 && low < high && high <= 1e6,
                         "score_sde: the schedule's sigma_min = ", low, ", sigma_max = ", high,
                         "; they ascend, above 0 and up to 10^6");
  }
  /// VP and sub-VP: the discrete process has variances beta_k, of which none exceeds 1.
  void check_betas() const {
    const auto possible = [](double beta) {
      return beta >= 0 && beta <= 1e6;
    };
    require<value_error>(possible(schedule.beta_min) && possible(schedule.beta_max),
                         "score_sde: beta_min = ", schedule.beta_min,
                         ", beta_max = ", schedule.beta_max, "; both are from 0 to 10^6");
    const bool ancestral = o.predictor == sde_predictor::ancestral;
    const bool discrete = ancestral || o.predictor == sde_predictor::reverse_diffusion;
    const bool steps_by_beta = std::is_same_v<Schedule, vp_schedule> && discrete;
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
  /// t of the i-th step, from 1 down to eps.
  double time(int i) const {
    return 1 + double(i) / (num_scales - 1) * (o.eps - 1);
  }
  /// Over the n levels.
  double largest_beta(int n) const {
    return std::max(schedule.beta_min,
                    schedule.beta_min + (schedule.beta_max - schedule.beta_min)) /
           n;
  }
  /// The variance beta_k of the discrete process's step at the k-th level.
  double beta(int k) const {
    return (schedule.beta_min +
            double(k) / (num_scales - 1) * (schedule.beta_max - schedule.beta_min)) /
           num_scales;
  }
  /// A time's place among the levels.
  int place(double t) const {
    return std::clamp(int(t * (num_scales - 1)), 0, num_scales - 1);
  }
  /// sigma of the k-th level; 0 below the lowest.
  double level(int k) const {
    return k < 0 ? 0 : schedule.sigma(double(k) / (num_scales - 1));
  }
  /// The Euclidean norm of every row.
  static std::vector<double> norms(const std::vector<double>& v, index_t rows, index_t size) {
    std::vector<double> n(std::size_t(rows), 0.0);
    const double* value = v.data();
    for (double& norm : n) {
      double squares = 0;
      for (index_t i = 0; i < size; ++i, ++value)
        squares += *value * *value;
      norm = std::sqrt(squares);
    }
    return n;
  }
  /// A step's mean and noise: mean = keep x + push score, x = mean + spread z.
  struct step_down {
    double keep = 1;
    double push = 0;
    double spread = 0;
  };
  /// That of the predictor at a level (the paper's algorithm 2 for VE, 3 for VP). @param k the
  /// level's place. @param t its time
  step_down predictor(int k, double t) const {
    const double g = schedule.diffusion(t);
    const bool reverse = o.predictor == sde_predictor::reverse_diffusion;
    if (o.predictor == sde_predictor::euler_maruyama) {
      const double keep = 1 - schedule.drift(t) / num_scales;
      return {keep, g * g / num_scales, g / std::sqrt(double(num_scales))};
    }
    if constexpr (explodes) {
      const double now = level(k);
      const double below = level(k - 1);
      const double gap = now * now - below * below;
      const double variance = reverse ? gap : below * below * gap / (now * now);
      return {1, gap, std::sqrt(variance)};
    } else if (std::is_same_v<Schedule, sub_vp_schedule>) {
      const double f = schedule.drift(t) / num_scales;  // the forward step by Euler-Maruyama
      const double gg = g * g / num_scales;
      return {1 - f, gg, std::sqrt(gg)};
    } else if (reverse) {
      return {2 - std::sqrt(1 - beta(k)), beta(k), std::sqrt(beta(k))};
    } else {
      const double keep = 1 / std::sqrt(1 - beta(k));
      return {keep, beta(k) * keep, std::sqrt(beta(k))};
    }
  }
  /// The length of a Langevin step, for each row: 2 alpha (snr |z| / |score|)^2, or annealed,
  /// 2 alpha (snr std)^2. @param z, score on the host, one row after the other
  template <class State>
  std::vector<double> langevin_steps(int k,
                                     double t,
                                     const State& z,
                                     const State& score) const {
    double alpha = 1;
    if constexpr (!explodes)
      alpha = 1 - beta(k);
    const index_t rows = z.extents().rows;
    const double annealed = 2 * alpha * std::pow(o.snr * noise_std(schedule, t), 2);
    std::vector<double> step(std::size_t(rows), annealed);
    if (o.corrector != sde_corrector::langevin)
      return step;
    const index_t size = z.extents().row_size();
    std::vector<double> of_z = norms(z.to_host(), rows, size);
    std::vector<double> of_score = norms(score.to_host(), rows, size);
    if (o.batch_norms)
      for (std::vector<double>* each : {&of_z, &of_score}) {
        double sum = 0;
        for (const double norm : *each)
          sum += norm;
        each->assign(std::size_t(rows), sum);
      }
    for (std::size_t r = 0; r < step.size(); ++r)
      step[r] = 2 * alpha * std::pow(o.snr * of_z[r] / of_score[r], 2);
    return step;
  }

  /// The steps of one walk. x is x_t; each half returns whether to go on.
  template <class Walk>
  struct steps {
    using state = typename Walk::state_type;
    const sde_process& p;
    Walk& w;
    state denoised = w.make();
    state score = w.make();
    state unscaled = w.make();  // x_t / s
    state z = w.make();
    state mean = w.make();  // of the last step, without its noise
    int draws = 0;
    int seen = -1;  // the last step that the observer was told of

    steps(const sde_process& process, Walk& walk)
        : p(process),
          w(walk) {}

    /// Langevin dynamics at a level (algorithms 4 and 5).
    bool correct(int i, double t) {
      if (p.o.corrector == sde_corrector::none)
        return true;
      for (int c = 0; c < p.o.corrector_steps; ++c) {
        if (!evaluate(i, t))
          return false;
        const std::vector<double> h = p.langevin_steps(p.place(t), t, z, score);
        // A row has its own step.
        for (index_t r = 0; r < w.x.extents().rows; ++r) {
          const double length = h[std::size_t(r)];
          state x = w.x.row(r);
          state row_mean = mean.row(r);
          row_mean = x + length * score.row(r);
          x = row_mean + std::sqrt(2 * length) * z.row(r);
        }
      }
      return true;
    }
    /// The way down to the next level.
    bool predict(int i, double t) {
      if (p.o.predictor == sde_predictor::none)
        return true;
      if (!evaluate(i, t))
        return false;
      const step_down step = p.predictor(p.place(t), t);
      mean = step.keep * w.x + step.push * score;
      w.x = mean + step.spread * z;
      return true;
    }
    /// The score at x_t, and the next draw of noise. The observer is told once a step; returns
    /// whether to go on.
    bool evaluate(int i, double t) {
      const double s = p.schedule.signal(t);
      const double sigma = p.schedule.sigma(t);
      const double variance = s * sigma * s * sigma;
      unscaled = w.x / s;
      w.denoise(unscaled, sigma, denoised);
      score = s / variance * denoised - 1 / variance * w.x;
      if (seen < i && !w.observe(i, sigma, unscaled, denoised))
        return false;
      seen = i;
      w.noise(draws++, z);
      return true;
    }
  };
};

}  // namespace sampling

/// f(process) for the schedule's own process. @throws value_error for another schedule
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
/// @see score_sde
inline std::vector<double> score_sde::sigmas() const {
  return over([](const auto& process) { return process.sigmas(); });
}
/// @see score_sde
inline double score_sde::start_scale() const {
  return over([](const auto& process) { return process.start_scale(); });
}

}  // namespace multistage
