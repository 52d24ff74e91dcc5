// Predictor-corrector sampling of score-based SDEs (Song et al., arXiv 2011.13456, algorithms 1 to 5): N steps on linspace(1, eps, N), at each a
// corrector (Langevin dynamics, annealed or not) and a predictor (Euler-Maruyama, reverse diffusion, ancestral). The score is
// (s D(x / s; sigma) - x) / (s sigma)^2. For VE, VP and sub-VP; ancestral steps do not exist for sub-VP.
#pragma once
#include "../schedule/schedule.hpp"
#include "../schedule/sub_vp.hpp"
#include "../schedule/ve.hpp"
#include "../schedule/vp.hpp"
#include "walk.hpp"

namespace multistage {

enum class sde_predictor { none, euler_maruyama, reverse_diffusion, ancestral };
enum class sde_corrector { none, langevin, annealed_langevin };

template <class Schedule = vp_schedule>
struct score_sde {
  int num_scales = 1000;
  sde_predictor predictor = sde_predictor::reverse_diffusion;
  sde_corrector corrector = sde_corrector::none;
  Schedule schedule{};
  double eps = 1e-3;
  double snr = 0.16;  // signal-to-noise ratio of Langevin steps
  int corrector_steps = 1;
  bool batch_norms = false;  // Langevin's norms averaged over the batch, as the reference has it; else each row's own, so that pictures do not depend on it
  bool denoise = true;       // the result is the last mean, without its noise

  static constexpr bool explodes = std::is_same_v<Schedule, ve_schedule>;

  /// Noise levels of the steps, and the last one again where it ends. @throws value_error
  std::vector<double> sigmas() const {
    require<value_error>(num_scales >= 2 && num_scales <= 1'000'000, "score_sde: num_scales = ", num_scales, " is outside 2..1000000");
    require<value_error>(eps > 0 && eps < 1 && snr > 0 && corrector_steps >= 1, "score_sde: eps = ", eps, ", snr = ", snr,
                         ", corrector_steps = ", corrector_steps, "; eps lies inside (0, 1), the others are above 0");
    require<value_error>(predictor != sde_predictor::ancestral || !std::is_same_v<Schedule, sub_vp_schedule>,
                         "score_sde: ancestral steps do not exist for sub-VP");
    std::vector<double> s;
    for (int i = 0; i < num_scales; ++i) s.push_back(schedule.sigma(time(i)));
    return s;
  }
  double start_scale() const { return explodes ? schedule.sigma(1) : 1 / schedule.signal(1); }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise_, Noise&& noise, Observe&& observe) const {
    sigmas();
    sampling::work<Backend> w{b, x};
    auto d = w.make(), z = w.make(), score = w.make(), unscaled = w.make(), mean = w.make();
    w.combine(x.data, {{schedule.signal(1), x.data}});  // x_t from here on
    int draws = 0;
    const auto evaluate = [&](double t) {
      const double s = schedule.signal(t), sigma = schedule.sigma(t), variance = s * sigma * s * sigma;
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
        const bool go_on = seen || observe(i, schedule.sigma(t), std::as_const(unscaled).view(), std::as_const(d).view());
        seen = true;
        return go_on;
      };
      if (corrector != sde_corrector::none)
        for (int c = 0; c < corrector_steps; ++c) {
          evaluate(t);
          if (!look()) return leave(w, t);
          noise(draws++, z.view());
          langevin(w, k, t, score, z, mean);
        }
      if (predictor == sde_predictor::none) continue;
      evaluate(t);
      if (!look()) return leave(w, t);
      noise(draws++, z.view());
      predict(w, k, t, score, z, mean);
    }
    if (denoise) b.copy(mean.data(), x.data, w.n);
    leave(w, eps);
  }

 private:
  double time(int i) const { return 1 + double(i) / (num_scales - 1) * (eps - 1); }
  double beta(int k) const { return (schedule.beta_min + double(k) / (num_scales - 1) * (schedule.beta_max - schedule.beta_min)) / num_scales; }
  double level(int k) const { return k < 0 ? 0 : schedule.sigma(double(k) / (num_scales - 1)); }
  /// Back to noise over signal.
  template <class Work>
  void leave(Work& w, double t) const {
    w.combine(w.x.data, {{1 / schedule.signal(t), w.x.data}});
  }
  template <class Work, class State>
  void langevin(Work& w, int k, double t, const State& score, const State& z, State& mean) const {
    double alpha = 1;
    if constexpr (!explodes) alpha = 1 - beta(k);
    const index_t rows = w.x.extents.rows, size = w.x.extents.row_size();
    std::vector<double> step(std::size_t(rows), 2 * alpha * std::pow(snr * noise_std(schedule, t), 2));
    if (corrector == sde_corrector::langevin) {
      std::vector<double> ratio = norms(z.to_host(), rows, size);
      std::vector<double> of_score = norms(score.to_host(), rows, size);
      if (batch_norms) {
        double a = 0, b = 0;
        for (index_t r = 0; r < rows; ++r) a += ratio[std::size_t(r)], b += of_score[std::size_t(r)];
        ratio.assign(std::size_t(rows), a);
        of_score.assign(std::size_t(rows), b);
      }
      for (index_t r = 0; r < rows; ++r) step[std::size_t(r)] = 2 * alpha * std::pow(snr * ratio[std::size_t(r)] / of_score[std::size_t(r)], 2);
    }
    for (index_t r = 0; r < rows; ++r) {  // a row has its own step
      const double h = step[std::size_t(r)];
      ops::linear_combination(w.b, size, mean.data() + r * size, {ops::term<double>{1, w.x.data + r * size}, {h, score.data() + r * size}});
      ops::linear_combination(w.b, size, w.x.data + r * size, {ops::term<double>{1, mean.data() + r * size}, {std::sqrt(2 * h), z.data() + r * size}});
    }
  }
  static std::vector<double> norms(const std::vector<double>& v, index_t rows, index_t size) {
    std::vector<double> n(std::size_t(rows), 0.0);
    for (index_t r = 0; r < rows; ++r) {
      for (index_t i = r * size; i < (r + 1) * size; ++i) n[std::size_t(r)] += v[std::size_t(i)] * v[std::size_t(i)];
      n[std::size_t(r)] = std::sqrt(n[std::size_t(r)]);
    }
    return n;
  }
  template <class Work, class State>
  void predict(Work& w, int k, double t, const State& score, const State& z, State& mean) const {
    double keep = 1, push = 0, spread = 0;  // mean = keep x + push score, x = mean + spread z
    const double g = schedule.diffusion(t);
    if (predictor == sde_predictor::euler_maruyama) {
      keep = 1 - schedule.drift(t) / num_scales;
      push = g * g / num_scales;
      spread = g / std::sqrt(double(num_scales));
    } else if constexpr (explodes) {
      const double now = level(k), below = level(k - 1), gap = now * now - below * below;
      push = gap;
      spread = predictor == sde_predictor::reverse_diffusion ? std::sqrt(gap) : std::sqrt(below * below * gap / (now * now));
    } else if (std::is_same_v<Schedule, sub_vp_schedule>) {  // the forward step by Euler-Maruyama
      const double f = schedule.drift(t) / num_scales, gg = g * g / num_scales;
      keep = 1 - f;
      push = gg;
      spread = std::sqrt(gg);
    } else if (predictor == sde_predictor::reverse_diffusion) {
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

}  // namespace multistage
