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
#include "../diffusion/denoiser.hpp"
#include "lagrange.hpp"
#include "level_options.hpp"
#include "walk.hpp"

namespace multistage {

/// gDDIM. Its levels end at 0 where lambda > 0, else above 0.
struct gddim {
  int num_steps = 18;                     ///< steps down the noise levels
  double sigma_min = 0.002;               ///< lowest noise level above 0; 0: the schedule's own
  double sigma_max = 80;                  ///< highest noise level; 0: the schedule's own
  spacing steps = spacing::log_snr;       ///< how the levels lie between them
  any_schedule schedule = vp_schedule{};  ///< in whose time spacings divide
  std::vector<double> levels{};           ///< the ends of the steps, in the place of all these
  double lambda = 0;                      ///< strength of the noise
  int order = 2;                          ///< of lambda = 0
  bool corrector = true;                  ///< of lambda = 0
  stage_crossing crossing{};              ///< what is done where the stage changes

  /// What programs call it.
  static constexpr const char* name() {
    return "gddim";
  }
  /// The list of options (core/options.hpp).
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
    return nullptr;
  }
  /// Whether the schedule's times matter to the steps themselves.
  bool reads_schedule() const {
    return lambda == 0;
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return crossing.aligned(lambda > 0 ? sampling::levels_of(*this, true)
                                       : sampling::positive_levels_of(*this));
  }
  /// What latents of unit variance are multiplied by: they have it in x_t.
  double start_scale() const {
    return sampling::unit_start(sigmas().front());
  }

  /// Moves x [rows, h, w, c] from the first level to the last. @see samplers/walk.hpp
  template <class Backend, denoiser Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> start,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    sampling::walk w(b, start, denoise, noise, observe);
    if (lambda > 0)
      stochastic(w, sigmas());
    else
      deterministic(w, sigmas());
  }

 private:
  /// lambda > 0: one step of the reverse SDE a level, its noise predicted once. A share `kept`
  /// of the step's end's variance comes from the predicted noise, the rest is drawn.
  template <class Walk>
  void stochastic(Walk& w, const std::vector<double>& s) const {
    auto denoised = w.make();
    auto z = w.make();
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      const double sigma = s[i];
      const double to = s[i + 1];
      if (!w.begin_step(int(i), sigma, denoised))
        return;
      const double kept = std::pow(to / sigma, 2 * lambda * lambda);  // of the noise's variance
      const double e = to * std::sqrt(kept) / sigma;
      w.noise(int(i), z);
      w.x = e * w.x + (1 - e) * denoised + to * std::sqrt(1 - kept) * z;
    }
  }
  /// lambda = 0: the noise is the polynomial in t through the newest ones; the corrector
  /// predicts it at the step's end, too, and steps again.
  template <class Walk>
  void deterministic(Walk& w, const std::vector<double>& s) const {
    auto past = w.remember(order + 1);  // predicted noises
    auto denoised = w.make();
    auto next = w.make();
    // The integral, from sigma to `to`, of the polynomial in t through the newest k noises.
    const auto integral = [&](int k, double sigma, double to) {
      const auto c = sampling::lagrange_integrals<3>([this](double v) { return schedule.t(v); },
                                                     past.levels(), k, sigma, to);
      return past.sum(c, k);
    };
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      const double sigma = s[i];
      const double to = s[i + 1];
      if (i > 0 && !crossing.keeps_history(s[i - 1], sigma))
        past.forget();
      auto newest = past.push(sigma);
      w.predict_noise(w.x, sigma, denoised, newest);
      if (!w.observe(int(i), sigma, w.x, denoised))
        return;
      const int known = crossing.order(std::min(order, past.size()), past.levels(), to);
      next = w.x + integral(known, sigma, to);
      // A corrector with a value from another stage's network would correct nothing.
      if (corrector && crossing.keeps_history(sigma, to)) {
        auto at_end = past.push(to);
        w.predict_noise(next, to, denoised, at_end);
        next = w.x + integral(std::min(order, past.size()), sigma, to);
        past.drop_newest();  // the next step evaluates the corrected end
      }
      w.x = next;
    }
  }
};
}  // namespace multistage
