// DPM-Solver++ for the diffusion SDE (Lu et al., arXiv 2211.01095, section 5), first order and
// second order multistep (midpoint), data prediction:
//   x' = sigma'/sigma exp(-h) x + (1 - exp(-2h)) (D_0 + 1/2 (D_0 - D_1) h / h_before) + sigma'
//   sqrt(1 - exp(-2h)) z,  h = ln(sigma / sigma').
// First order at the first and the last step; one draw of noise a step.
#pragma once
#include "walk.hpp"

namespace multistage {

/// DPM-Solver++ for the SDE.
struct dpm_solver_sde {
  int num_steps = 18;
  double sigma_min = 0.002;
  double sigma_max = 80;
  spacing steps = spacing::log_snr;
  any_schedule schedule{};
  std::vector<double> levels{};
  int order = 2;
  stage_crossing crossing{};

  static constexpr const char* name() {
    return "dpm_solver_sde";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"order", "values that a step remembers", between(1, 2)}, s.order);
    sampling::crossing_field(s, visit);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    return sampling::idle_schedule(*this, option);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return crossing.aligned(sampling::levels_of(name(), *this, true));
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
    const int n = int(s.size()) - 1;
    sampling::work<Backend> w{b, x};
    auto z = w.make();
    typename sampling::work<Backend>::memory data{{}, {}, 2};
    for (int i = 0; i < n; ++i) {
      if (i > 0 && !crossing.keeps_history(s[i - 1], s[i]))
        data.forget();
      auto& d = data.push(w, s[i]);
      denoise(view<const double>(x), s[i], d.view());
      if (!observe(i, s[i], view<const double>(x), std::as_const(d).view()))
        return;
      noise(i, z.view());
      // exp(-h) = r
      const double r = s[i + 1] / s[i];
      const double q = 1 - r * r;
      const bool bends =
          crossing.order(std::min(order, data.size()), data.levels, s[i + 1]) == 2 &&
          i + 1 < n && s[i + 1] > 0;
      const double bend = bends ? 0.5 * q * std::log(r) / std::log(s[i] / data.levels[1]) : 0;
      if (bend != 0)
        w.combine(x.data, {{r * r, x.data},
                           {q + bend, data[0]},
                           {-bend, data[1]},
                           {s[i + 1] * std::sqrt(q), z.data()}});
      else
        w.combine(x.data, {{r * r, x.data}, {q, data[0]}, {s[i + 1] * std::sqrt(q), z.data()}});
    }
  }
};

}  // namespace multistage
