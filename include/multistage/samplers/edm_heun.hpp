// EDM's sampler, Heun's second-order method with optional churn (Karras et al., arXiv
// 2206.00364, algorithm 2), over the noise levels t_0 > t_1 > ... > t_N = 0 of its equation 5.
// Each step may first raise the noise from t_i to t_hat = t_i + gamma t_i; then, with the slope
//   d = (x_hat - D(x_hat; t_hat)) / t_hat,
// Euler's step x_next = x_hat + (t_next - t_hat) d is corrected by the slope at its end.
//
//   d' = (x_next - D(x_next; t_next)) / t_next
//   x_next = x_hat + (t_next - t_hat) (d + d') / 2
//
// but for the last step, which ends at 0 and is Euler's alone: 2 N - 1 evaluations for N
// steps.
#pragma once
#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "../diffusion/denoiser.hpp"
#include "levels.hpp"
#include "walk.hpp"

namespace multistage {

namespace sampling {

/// Heun's method for dx/dsigma = (x - D(x; sigma)) / sigma, lines 6 to 11 of the algorithm,
/// over a walk: what EDM's sampler, restarts and Poisson flow are made of.
template <class Walk>
class heun_method {
 public:
  /// Over a walk, which stays the caller's.
  explicit heun_method(Walk& walk)
      : w(walk),
        denoised_(walk.make()),
        slope_(walk.make()),
        next_(walk.make()) {}

  /// One step of the walk's x from sigma to `to`, of first order where that is 0. False when
  /// the observer stops.
  bool step(int number, double sigma, double to) {
    if (!w.begin_step(number, sigma, denoised_))
      return false;
    const double h = to - sigma;
    slope_ = (w.x - denoised_) / sigma;
    next_ = w.x + h * slope_;
    if (to > 0) {  // h times the mean of both slopes, of which the second is at the step's end
      w.denoise(next_, to, denoised_);
      next_ = w.x + h / 2 * slope_ + h / 2 / to * (next_ - denoised_);
    }
    w.x = next_;
    return true;
  }
  /// Steps along descending levels, the ends of the steps, numbered on from `number`. False
  /// when the observer stops.
  bool steps(const std::vector<double>& ends, int& number) {
    for (std::size_t i = 0; i + 1 < ends.size(); ++i)
      if (!step(number++, ends[i], ends[i + 1]))
        return false;
    return true;
  }

 private:
  Walk& w;
  typename Walk::state_type denoised_;  // D
  typename Walk::state_type slope_;     // dx/dsigma
  typename Walk::state_type next_;      // x at the step's end
};

}  // namespace sampling

/// EDM's sampler.
struct edm_heun {
  int num_steps = 18;        ///< steps from the highest noise level to 0
  double sigma_min = 0.002;  ///< lowest noise level above 0
  double sigma_max = 80;     ///< highest noise level
  double rho = 7;            ///< how the steps crowd towards low noise
  std::vector<double>
      levels{};        ///< the ends of the steps, descending, in the place of the options above
  double s_churn = 0;  ///< how much noise is put back, in all
  double s_min = 0;    ///< between these noise levels
  double s_max = HUGE_VAL;
  double s_noise = 1;  ///< standard deviation of that noise

  /// What programs call it.
  static constexpr const char* name() {
    return "edm_heun";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::karras_fields(s, visit);
    visit(option{"s_churn", "how much noise is put back, in all", at_least(0)}, s.s_churn);
    visit(option{"s_min", "no noise is put back below this level", at_least(0)}, s.s_min);
    visit(option{"s_max", "no noise is put back above this level", or_infinite(0)}, s.s_max);
    visit(option{"s_noise", "standard deviation of that noise", between(0, 100)}, s.s_noise);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    if (s_churn == 0 && (option == "s_min" || option == "s_max" || option == "s_noise"))
      return "without s_churn";
    return nullptr;
  }

  /// The noise levels, descending. @throws value_error naming the option that is out of range.
  std::vector<double> sigmas() const {
    require<value_error>(s_churn == 0 || s_min <= s_max, name(), ": s_min = ", s_min,
                         ", s_max = ", s_max,
                         "; noise is put back between them: s_min must not be above s_max");
    return sampling::karras_levels_of(*this);
  }

  /// Moves x [rows, h, w, c] from the first level to the last. @see samplers/walk.hpp
  template <class Backend, denoiser Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> start,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> t = sigmas();
    const int n = int(t.size()) - 1;
    sampling::walk w(b, start, denoise, noise, observe);
    sampling::heun_method heun(w);
    auto z = s_churn > 0 ? w.make() : sampling::state<Backend>(b, start);
    for (int i = 0; i < n; ++i) {
      double t_hat = t[std::size_t(i)];
      if (s_churn > 0 && s_min <= t_hat && t_hat <= s_max) {
        const double gamma = std::min(s_churn / n, std::sqrt(2.0) - 1);
        const double raised = t_hat + gamma * t_hat;
        w.noise(i, z);
        w.x = w.x + std::sqrt(raised * raised - t_hat * t_hat) * s_noise * z;
        t_hat = raised;
      }
      if (!heun.step(i, t_hat, t[std::size_t(i) + 1]))
        return;
    }
  }
};

}  // namespace multistage
