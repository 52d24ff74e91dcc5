// The ODE of flow matching (Lipman et al., arXiv 2210.02747; Liu et al., arXiv 2209.03003),
// dx_t/dt = E[n - y | x_t] along x_t = (1 - t) y + t n, by Euler's or Heun's method in t. With
// noise over signal sigma = t / (1 - t) the velocity is (x - D) / sigma - D, whatever the
// network predicts. Euler's steps are those of DDIM on the same levels; Heun's differ from
// EDM's, since they average velocities in t.
#pragma once
#include "walk.hpp"

namespace multistage {

/// Flow matching's ODE.
struct flow_ode {
  int num_steps = 18;
  double sigma_min = 0.002;
  double sigma_max = 80;
  spacing steps = spacing::log_snr;
  any_schedule schedule{};
  std::vector<double> levels{};
  bool heun = false;  ///< second order, 2 evaluations a step; the step to 0 is Euler's

  static constexpr const char* name() {
    return "flow_ode";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(
        option{
            "heun",
            "Heun's method, of second order with two evaluations a step, in place of Euler's"},
        s.heun);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    return sampling::idle_schedule(*this, option);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return sampling::levels_of(name(), *this, true);
  }
  double start_scale() const {
    return sigmas().front();
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&&, Observe&& observe)
      const {
    const std::vector<double> s = sigmas();
    sampling::work<Backend> w{b, x};
    auto d = w.make();
    auto next = w.make();
    auto velocity = w.make();
    const auto time = [](double sigma) {
      return sigma / (1 + sigma);
    };
    for (std::size_t i = 0; i + 1 < s.size(); ++i) {
      const double from = s[i];
      const double to = s[i + 1];
      const double h = time(to) - time(from);
      const double kept = (1 + to) / (1 + from);
      const double push = h * (1 + to);
      denoise(view<const double>(x), from, d.view());
      if (!observe(int(i), from, view<const double>(x), std::as_const(d).view()))
        return;
      // x = (1 + sigma) x_t, so a step x_t + h v is kept x + push v.
      w.combine(velocity.data(), {{1 / from, x.data}, {-1 / from - 1, d.data()}});
      if (!heun || to == 0) {
        w.combine(x.data, {{kept, x.data}, {push, velocity.data()}});
        continue;
      }
      w.combine(next.data(), {{kept, x.data}, {push, velocity.data()}});
      denoise(std::as_const(next).view(), to, d.view());
      w.combine(x.data, {{kept, x.data},
                         {push / 2, velocity.data()},
                         {push / 2 / to, next.data()},
                         {-push / 2 * (1 / to + 1), d.data()}});
    }
  }
};

}  // namespace multistage
