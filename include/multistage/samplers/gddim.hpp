// gDDIM (Zhang, Tao, Chen, arXiv 2206.05564) for variance-preserving noise, where the matrices of the paper are scalars. Over noise over signal:
//   lambda > 0   one exact step of the reverse SDE of strength lambda with constant noise prediction (the paper's generalised DDIM),
//                x' = D + sqrt(sigma'^2 - v^2) eps + v z,  v^2 = sigma'^2 (1 - (sigma'/sigma)^(2 lambda^2));
//                lambda = 1 is DDIM with eta = 1
//   lambda = 0   a multistep method whose noise is a polynomial of the schedule's t, with a corrector that evaluates each step's end twice
//                (algorithm 1); without the corrector it is DEIS in t
// The paper's two other processes, blurring (heat dissipation) and critically damped Langevin dynamics (CLD), are left out on purpose: their states are
// not x = y + sigma n, a blurred spectrum and a pair of position and velocity, for which no network of this library is trained.
#pragma once
#include "../schedule/vp.hpp"
#include "lagrange.hpp"
#include "walk.hpp"

namespace multistage {

template <class Schedule = vp_schedule>
struct gddim {
  std::vector<double> levels;  // descending; to 0 or above where lambda > 0, else above 0
  double lambda = 0;           // strength of the noise, at least 0
  int order = 2;               // 1 to 3; of lambda = 0
  bool corrector = true;       // of lambda = 0
  Schedule schedule{};
  stage_crossing crossing{};

  /// @throws value_error naming the parameter that is out of range
  std::vector<double> sigmas() const {
    require<value_error>(lambda >= 0 && std::isfinite(lambda), "gddim: lambda = ", lambda, "; it is finite and at least 0");
    require<value_error>(order >= 1 && order <= 3, "gddim: order = ", order, " is outside 1..3");
    sampling::check_levels("gddim", levels);
    require<value_error>(lambda > 0 || levels.back() > 0, "gddim: the last noise level is 0; with lambda = 0 end above it");
    return crossing.aligned(levels);
  }
  double start_scale() const { return std::sqrt(1 + levels.front() * levels.front()); }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&& noise, Observe&& observe) const {
    const std::vector<double> s = sigmas();
    sampling::work<Backend> w{b, x};
    if (lambda > 0)
      stochastic(w, s, denoise, noise, observe);
    else
      deterministic(w, s, denoise, observe);
  }

 private:
  template <class Work, class Denoise, class Noise, class Observe>
  void stochastic(Work& w, const std::vector<double>& s, Denoise& denoise, Noise& noise, Observe& observe) const {
    auto d = w.make(), z = w.make();
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      denoise(view<const double>(w.x), s[i], d.view());
      if (!observe(int(i), s[i], view<const double>(w.x), std::as_const(d).view())) return;
      const double kept = std::pow(s[i + 1] / s[i], 2 * lambda * lambda), e = s[i + 1] * std::sqrt(kept) / s[i];
      noise(int(i), z.view());
      w.combine(w.x.data, {{e, w.x.data}, {1 - e, d.data()}, {s[i + 1] * std::sqrt(1 - kept), z.data()}});
    }
  }
  template <class Work, class Denoise, class Observe>
  void deterministic(Work& w, const std::vector<double>& s, Denoise& denoise, Observe& observe) const {
    auto d = w.make(), next = w.make();
    typename Work::memory eps{{}, {}, std::size_t(order) + 1};
    const auto evaluate = [&](const double* at, double sigma, auto& e) {
      denoise(view<const double>(at, w.x.extents), sigma, d.view());
      w.combine(e.data(), {{1 / sigma, at}, {-1 / sigma, d.data()}});
    };
    // to = x + the step's integral of the polynomial through the newest k noises.
    const auto extrapolate = [&](double* to, int k, double from, double until) {
      const auto c = sampling::lagrange_integrals<3>([this](double v) { return schedule.t(v); }, eps.levels, k, from, until);
      if (k == 1)
        w.combine(to, {{1, w.x.data}, {c[0], eps[0]}});
      else if (k == 2)
        w.combine(to, {{1, w.x.data}, {c[0], eps[0]}, {c[1], eps[1]}});
      else
        w.combine(to, {{1, w.x.data}, {c[0], eps[0]}, {c[1], eps[1]}, {c[2], eps[2]}});
    };
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      if (i > 0 && !crossing.keeps_history(s[i - 1], s[i])) eps.forget();
      evaluate(w.x.data, s[i], eps.push(w, s[i]));
      if (!observe(int(i), s[i], view<const double>(w.x), std::as_const(d).view())) return;
      const int known = std::min(order, eps.size());
      extrapolate(next.data(), known, s[i], s[i + 1]);
      // A corrector with a value from another stage's network would correct nothing.
      if (corrector && crossing.keeps_history(s[i], s[i + 1])) {
        evaluate(next.data(), s[i + 1], eps.push(w, s[i + 1]));
        extrapolate(next.data(), std::min(order, eps.size()), s[i], s[i + 1]);
        eps.drop_newest();  // the next step evaluates the corrected end
      }
      w.b.copy(next.data(), w.x.data, w.n);
    }
  }
};
gddim(std::vector<double>)->gddim<>;

}  // namespace multistage
