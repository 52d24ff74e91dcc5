// EDM's sampler, Heun's second-order method with optional churn (Karras et al., arXiv
// 2206.00364, algorithm 2), over
//   sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,
//   sigma_n = 0   (eq. 5).
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/options.hpp"
#include "../core/tensor.hpp"
#include "../ops/elementwise.hpp"
#include "levels.hpp"

namespace multistage {

namespace sampling {

/// The noise levels of EDM's equation 5 with the final 0, descending. @throws value_error
/// naming what is out of range, also where the powers leave a double no digits
MULTISTAGE_COLD inline std::vector<double> karras_levels(const char* sampler,
                                                         int num_steps,
                                                         double sigma_min,
                                                         double sigma_max,
                                                         double rho) {
  require<value_error>(
      sigma_min < sigma_max, sampler, ": sigma_min = ", sigma_min, ", sigma_max = ", sigma_max,
      "; noise levels must lie between them: raise sigma_max or lower sigma_min");
  const double high = std::pow(sigma_max, 1 / rho);
  const double low = std::pow(sigma_min, 1 / rho);
  std::vector<double> s;
  for (int i = 0; i < num_steps; ++i)
    s.push_back(num_steps == 1
                    ? sigma_max
                    : std::pow(high + double(i) / (num_steps - 1) * (low - high), rho));
  s.push_back(0);
  for (std::size_t i = 0; i < s.size(); ++i)
    require<value_error>(s[i] < number_range::infinity && (i == 0 || s[i] < s[i - 1]), sampler,
                         ": rho = ", rho, " and num_steps = ", num_steps, " put noise level ",
                         i, " at ", s[i],
                         "; levels must descend: take a rho nearer to 7, or fewer steps");
  return s;
}
/// The options of that list, for the field lists of samplers.
template <class Sampler, class Visit>
void karras_fields(Sampler& s, Visit& visit) {
  visit(option{"num_steps", "steps from the highest noise level to 0", between(1, 1'000'000)},
        s.num_steps);
  visit(option{"sigma_min", "lowest noise level above 0", above(0, 1e6)}, s.sigma_min);
  visit(option{"sigma_max", "highest noise level", above(0, 1e6)}, s.sigma_max);
  visit(option{"rho", "how the steps crowd towards low noise", between(0.1, 1000)}, s.rho);
  visit(option{"levels", "the ends of the steps, descending, in the place of the options above",
               between(0, 1e6)},
        s.levels);
}
/// The levels of a sampler with these options: its own list, or equation 5's.
template <class Sampler>
std::vector<double> karras_levels_of(const char* name, const Sampler& s) {
  check_options(name, s);
  return s.levels.empty() ? karras_levels(name, s.num_steps, s.sigma_min, s.sigma_max, s.rho)
                          : check_levels(name, s.levels);
}

}  // namespace sampling

/// EDM's sampler.
struct edm_heun {
  int num_steps = 18;
  double sigma_min = 0.002;
  double sigma_max = 80;
  double rho = 7;  ///< how the steps crowd towards low noise
  std::vector<double>
      levels{};        ///< the ends of the steps, descending, in the place of the options above
  double s_churn = 0;  ///< how much noise is put back, in all
  double s_min = 0;    ///< between these noise levels
  double s_max = HUGE_VAL;
  double s_noise = 1;  ///< standard deviation of that noise

  static constexpr const char* name() {
    return "edm_heun";
  }
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
    return sampling::karras_levels_of(name(), *this);
  }

  /// Work space of Heun's method, shared with samplers that are made of it.
  template <class Backend>
  struct walk {
    Backend& b;
    view<double> x;
    tensor<double, Backend> d{b, x.extents};
    tensor<double, Backend> slope{b, x.extents};
    tensor<double, Backend> next{b, x.extents};

    walk(Backend& backend, view<double> state) : b(backend), x(state) {}
    /// One step from sigma to `to`; x holds the result. False when the observer stops.
    template <class Denoise, class Observe>
    bool step(double sigma, double to, Denoise&& denoise, Observe&& observe, int number) {
      const index_t n = x.extents.size();
      const double h = to - sigma;
      denoise(view<const double>(x), sigma, d.view());  // D(x; sigma)
      if (!observe(number, sigma, view<const double>(x), std::as_const(d).view()))
        return false;
      ops::linear_combination<Backend, double>(
          b, n, slope.data(), {{1 / sigma, x.data}, {-1 / sigma, d.data()}});  // dx/dsigma
      ops::linear_combination<Backend, double>(
          b, n, next.data(), {{1, x.data}, {h, slope.data()}});  // Euler's step
      if (to > 0) {
        denoise(std::as_const(next).view(), to, d.view());
        ops::linear_combination<Backend, double>(b, n, next.data(),  // the mean of both slopes
                                                 {{1, x.data},
                                                  {h / 2, slope.data()},
                                                  {h / 2 / to, next.data()},
                                                  {-h / 2 / to, d.data()}});
      }
      b.copy(next.data(), x.data, n);
      return true;
    }
    /// Steps along descending levels, the ends of the steps, numbered on from `number`.
    template <class Denoise, class Observe>
    bool heun(const std::vector<double>& ends,
              Denoise&& denoise,
              Observe&& observe,
              int& number) {
      for (std::size_t i = 0; i + 1 < ends.size(); ++i)
        if (!step(ends[i], ends[i + 1], denoise, observe, number++))
          return false;
      return true;
    }
  };

  /// x [rows, ...] goes from sigma_max to 0 in place. `denoise(x, sigma, d)` evaluates D;
  /// `noise(step, z)` fills standard normal noise; `observe(step, sigma, x, d)` sees each
  /// step's first evaluation and returns whether to go on.
  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> x,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> t = sigmas();
    walk<Backend> w(b, x);
    tensor<double, Backend> z;
    if (s_churn > 0)
      z = tensor<double, Backend>(b, x.extents);
    const int n = int(t.size()) - 1;
    for (int i = 0; i < n; ++i) {
      double sigma = t[i];
      if (s_churn > 0 && s_min <= sigma && sigma <= s_max) {
        const double gamma = std::min(s_churn / n, std::sqrt(2.0) - 1);
        const double raised = sigma + gamma * sigma;
        noise(i, z.view());
        ops::linear_combination<Backend, double>(
            b, x.extents.size(), x.data,
            {{1, x.data}, {std::sqrt(raised * raised - sigma * sigma) * s_noise, z.data()}});
        sigma = raised;
      }
      if (!w.step(sigma, t[i + 1], denoise, observe, i))
        return;
    }
  }
};

}  // namespace multistage
