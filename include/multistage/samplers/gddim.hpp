// gDDIM (Zhang, Tao, Chen, arXiv 2206.05564) for variance-preserving noise, where the matrices
// of the paper are scalars. Over noise over signal:
//   lambda > 0   one exact step of the reverse SDE of strength lambda with constant noise
//   prediction (the paper's generalised DDIM),
//                x' = D + sqrt(sigma'^2 - v^2) eps + v z,  v^2 = sigma'^2 (1 -
//                (sigma'/sigma)^(2 lambda^2)); lambda = 1 is DDIM with eta = 1
//   lambda = 0   a multistep method whose noise is a polynomial of the schedule's t, with a
//   corrector that evaluates each step's end twice
//                (algorithm 1); without the corrector it is DEIS in t
// The paper's two other processes, blurring (heat dissipation) and critically damped Langevin
// dynamics (CLD), are left out on purpose: their states are not x = y + sigma n, a blurred
// spectrum and a pair of position and velocity, for which no network of this library is
// trained.
#pragma once
#include "lagrange.hpp"
#include "walk.hpp"

namespace multistage {

/// gDDIM. Its levels end at 0 where lambda > 0, else above 0.
struct gddim {
  int num_steps = 18;
  double sigma_min = 0.002;
  double sigma_max = 80;
  spacing steps = spacing::log_snr;
  any_schedule schedule = vp_schedule{};
  std::vector<double> levels{};
  double lambda = 0;      ///< strength of the noise
  int order = 2;          ///< of lambda = 0
  bool corrector = true;  ///< of lambda = 0
  stage_crossing crossing{};

  static constexpr const char* name() {
    return "gddim";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"lambda", "strength of the noise; 0: none, 1: DDPM's", at_least(0)}, s.lambda);
    visit(option{"order", "values that a step of lambda = 0 remembers", between(1, 3)},
          s.order);
    visit(option{"corrector", "a second evaluation of each step of lambda = 0"}, s.corrector);
    sampling::crossing_field(s, visit);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    if (lambda > 0 && (option == "order" || option == "corrector" || option == "boundary"))
      return "with lambda above 0, whose steps remember nothing";
    return sampling::idle_schedule(*this, option, lambda == 0);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return crossing.aligned(lambda > 0 ? sampling::levels_of(name(), *this, true)
                                       : sampling::positive_levels_of(name(), *this));
  }
  double start_scale() const {
    return sampling::unit_start(sigmas().front());
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> x,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> s = sigmas();
    sampling::work<Backend> w{b, x};
    if (lambda > 0)
      stochastic(w, s, denoise, noise, observe);
    else
      deterministic(w, s, denoise, observe);
  }

 private:
  template <class Work, class Denoise, class Noise, class Observe>
  void stochastic(Work& w,
                  const std::vector<double>& s,
                  Denoise& denoise,
                  Noise& noise,
                  Observe& observe) const {
    auto d = w.make();
    auto z = w.make();
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      denoise(view<const double>(w.x), s[i], d.view());
      if (!observe(int(i), s[i], view<const double>(w.x), std::as_const(d).view()))
        return;
      const double kept = std::pow(s[i + 1] / s[i], 2 * lambda * lambda);
      const double e = s[i + 1] * std::sqrt(kept) / s[i];
      noise(int(i), z.view());
      w.combine(w.x.data,
                {{e, w.x.data}, {1 - e, d.data()}, {s[i + 1] * std::sqrt(1 - kept), z.data()}});
    }
  }
  template <class Work, class Denoise, class Observe>
  void deterministic(Work& w,
                     const std::vector<double>& s,
                     Denoise& denoise,
                     Observe& observe) const {
    auto d = w.make();
    auto next = w.make();
    typename Work::memory eps{{}, {}, std::size_t(order) + 1};
    const auto evaluate = [&](const double* at, double sigma, auto& e) {
      denoise(view<const double>(at, w.x.extents), sigma, d.view());
      w.combine(e.data(), {{1 / sigma, at}, {-1 / sigma, d.data()}});
    };
    // to = x + the step's integral of the polynomial through the newest k noises.
    const auto extrapolate = [&](double* to, int k, double from, double until) {
      const auto c = sampling::lagrange_integrals<3>([this](double v) { return schedule.t(v); },
                                                     eps.levels, k, from, until);
      w.combine(to, eps.add_to({{1, w.x.data}}, c, k));
    };
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      if (i > 0 && !crossing.keeps_history(s[i - 1], s[i]))
        eps.forget();
      evaluate(w.x.data, s[i], eps.push(w, s[i]));
      if (!observe(int(i), s[i], view<const double>(w.x), std::as_const(d).view()))
        return;
      const int known = crossing.order(std::min(order, eps.size()), eps.levels, s[i + 1]);
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
}  // namespace multistage
