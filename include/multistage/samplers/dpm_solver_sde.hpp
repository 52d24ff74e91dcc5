// DPM-Solver++ for the diffusion SDE (Lu et al., arXiv 2211.01095, section 5), first order and second order multistep (midpoint), data prediction:
//   x' = sigma'/sigma exp(-h) x + (1 - exp(-2h)) (D_0 + 1/2 (D_0 - D_1) h / h_before) + sigma' sqrt(1 - exp(-2h)) z,  h = ln(sigma / sigma').
// First order at the first and the last step; one draw of noise a step.
#pragma once
#include "walk.hpp"

namespace multistage {

struct dpm_solver_sde {
  std::vector<double> levels;  // descending, to 0 or above
  int order = 2;               // 1 or 2
  stage_crossing crossing{};

  std::vector<double> sigmas() const {
    require<value_error>(order == 1 || order == 2, "dpm_solver_sde: order = ", order, " is neither 1 nor 2");
    return crossing.aligned(sampling::check_levels("dpm_solver_sde", levels));
  }
  double start_scale() const { return std::sqrt(1 + levels.front() * levels.front()); }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&& noise, Observe&& observe) const {
    const std::vector<double> s = sigmas();
    const int n = int(s.size()) - 1;
    sampling::work<Backend> w{b, x};
    auto z = w.make();
    typename sampling::work<Backend>::memory data{{}, {}, 2};
    for (int i = 0; i < n; ++i) {
      if (i > 0 && !crossing.keeps_history(s[i - 1], s[i])) data.forget();
      auto& d = data.push(w, s[i]);
      denoise(view<const double>(x), s[i], d.view());
      if (!observe(i, s[i], view<const double>(x), std::as_const(d).view())) return;
      noise(i, z.view());
      const double r = s[i + 1] / s[i], q = 1 - r * r;  // exp(-h) = r
      const double bend = order == 2 && data.size() > 1 && i + 1 < n && s[i + 1] > 0 ? 0.5 * q * std::log(r) / std::log(s[i] / data.levels[1]) : 0;
      if (bend != 0)
        w.combine(x.data, {{r * r, x.data}, {q + bend, data[0]}, {-bend, data[1]}, {s[i + 1] * std::sqrt(q), z.data()}});
      else
        w.combine(x.data, {{r * r, x.data}, {q, data[0]}, {s[i + 1] * std::sqrt(q), z.data()}});
    }
  }
};

}  // namespace multistage
