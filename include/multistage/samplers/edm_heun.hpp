// EDM's sampler, Heun's second-order method with optional churn (Karras et al., arXiv 2206.00364, algorithm 2), over
//   sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  sigma_n = 0   (eq. 5).
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "../core/tensor.hpp"
#include "../ops/elementwise.hpp"

namespace multistage {

struct edm_heun {
  int num_steps = 18;
  double sigma_min = 0.002, sigma_max = 80;
  double rho = 7;                      // how the steps crowd towards low noise
  double s_churn = 0;                  // how much noise is put back, in all
  double s_min = 0, s_max = HUGE_VAL;  // between these noise levels
  double s_noise = 1;                  // standard deviation of that noise

  /// The noise levels, descending, with the final 0. @throws value_error naming the parameter that is out of range.
  std::vector<double> sigmas() const {
    require<value_error>(num_steps >= 1 && num_steps <= 1'000'000, "edm_heun: num_steps = ", num_steps, " is outside 1..1000000");
    require<value_error>(sigma_min > 0 && sigma_min <= sigma_max && std::isfinite(sigma_max), "edm_heun: sigma_min = ", sigma_min, ", sigma_max = ", sigma_max,
                         "; they must ascend and be above 0");
    require<value_error>(rho > 0 && s_churn >= 0 && s_noise >= 0, "edm_heun: rho = ", rho, ", s_churn = ", s_churn, ", s_noise = ", s_noise,
                         "; rho is above 0, the others at least 0");
    const double high = std::pow(sigma_max, 1 / rho), low = std::pow(sigma_min, 1 / rho);
    std::vector<double> s;
    for (int i = 0; i < num_steps; ++i) s.push_back(num_steps == 1 ? sigma_max : std::pow(high + double(i) / (num_steps - 1) * (low - high), rho));
    s.push_back(0);
    return s;
  }

  /// Work space of Heun's method, shared with samplers that are made of it.
  template <class Backend>
  struct walk {
    Backend& b;
    view<double> x;
    tensor<double, Backend> d{b, x.extents}, slope{b, x.extents}, next{b, x.extents};

    walk(Backend& backend, view<double> state) : b(backend), x(state) {}
    /// One step from sigma to `to`; x holds the result. False when the observer stops.
    template <class Denoise, class Observe>
    bool step(double sigma, double to, Denoise&& denoise, Observe&& observe, int number) {
      const index_t n = x.extents.size();
      const double h = to - sigma;
      denoise(view<const double>(x), sigma, d.view());  // D(x; sigma)
      if (!observe(number, sigma, view<const double>(x), std::as_const(d).view())) return false;
      ops::linear_combination<Backend, double>(b, n, slope.data(), {{1 / sigma, x.data}, {-1 / sigma, d.data()}});  // dx/dsigma
      ops::linear_combination<Backend, double>(b, n, next.data(), {{1, x.data}, {h, slope.data()}});                // Euler's step
      if (to > 0) {
        denoise(std::as_const(next).view(), to, d.view());
        ops::linear_combination<Backend, double>(b, n, next.data(),  // the mean of both slopes
                                                 {{1, x.data}, {h / 2, slope.data()}, {h / 2 / to, next.data()}, {-h / 2 / to, d.data()}});
      }
      b.copy(next.data(), x.data, n);
      return true;
    }
    /// Steps along descending levels, numbered on from `number`.
    template <class Denoise, class Observe>
    bool heun(const std::vector<double>& levels, Denoise&& denoise, Observe&& observe, int& number) {
      for (std::size_t i = 0; i + 1 < levels.size(); ++i)
        if (!step(levels[i], levels[i + 1], denoise, observe, number++)) return false;
      return true;
    }
  };

  /// x [rows, ...] goes from sigma_max to 0 in place. `denoise(x, sigma, d)` evaluates D; `noise(step, z)` fills standard normal noise;
  /// `observe(step, sigma, x, d)` sees each step's first evaluation and returns whether to go on.
  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&& noise, Observe&& observe) const {
    const std::vector<double> t = sigmas();
    walk<Backend> w(b, x);
    tensor<double, Backend> z;
    if (s_churn > 0) z = tensor<double, Backend>(b, x.extents);
    for (int i = 0; i < num_steps; ++i) {
      double sigma = t[i];
      if (s_churn > 0 && s_min <= sigma && sigma <= s_max) {
        const double gamma = std::min(s_churn / num_steps, std::sqrt(2.0) - 1), raised = sigma + gamma * sigma;
        noise(i, z.view());
        ops::linear_combination<Backend, double>(b, x.extents.size(), x.data, {{1, x.data}, {std::sqrt(raised * raised - sigma * sigma) * s_noise, z.data()}});
        sigma = raised;
      }
      if (!w.step(sigma, t[i + 1], denoise, observe, i)) return;
    }
  }
};

}  // namespace multistage
