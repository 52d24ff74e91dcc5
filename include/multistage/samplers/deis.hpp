// DEIS (Zhang and Chen, arXiv 2204.13902): the predicted noise is extrapolated through its last
// values by a polynomial in ln sigma ("log rho"), in sigma ("rho") or in t, and the
// probability-flow ODE dx = eps dsigma is integrated exactly,
//   x' = x + sum_j eps_j int_sigma^sigma' L_j dsigma,  with L_j Lagrange's polynomials.
// Lower orders first, and, below fifteen steps, at the end.
#pragma once
#include "lagrange.hpp"
#include "walk.hpp"

namespace multistage {

/// In what the noise is a polynomial.
enum class deis_variable { log_rho, rho, t };
constexpr std::array<const char*, 3> option_names(deis_variable) {
  return {"log_rho", "rho", "t"};
}

/// DEIS. Its levels end above 0.
struct deis {
  int num_steps = 18;
  double sigma_min = 0.002;
  double sigma_max = 80;
  spacing steps = spacing::log_snr;
  any_schedule schedule = vp_schedule{};
  std::vector<double> levels{};
  int order = 3;
  deis_variable variable = deis_variable::log_rho;
  bool lower_order_final = true;  ///< below fifteen steps
  stage_crossing crossing{};

  static constexpr const char* name() {
    return "deis";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"order", "values that a step remembers", between(1, 3)}, s.order);
    visit(option{"variable", "in what the noise is a polynomial"}, s.variable);
    visit(option{"lower_order_final", "lower orders at the end, below fifteen steps"},
          s.lower_order_final);
    sampling::crossing_field(s, visit);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    return sampling::idle_schedule(*this, option, variable == deis_variable::t);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return crossing.aligned(sampling::positive_levels_of(name(), *this));
  }
  double start_scale() const {
    return sampling::unit_start(sigmas().front());
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&&, Observe&& observe)
      const {
    const std::vector<double> s = sigmas();
    const int n = int(s.size()) - 1;
    sampling::work<Backend> w{b, x};
    auto d = w.make();
    typename sampling::work<Backend>::memory eps{{}, {}, std::size_t(order)};
    for (int i = 0; i < n; ++i) {
      if (i > 0 && !crossing.keeps_history(s[i - 1], s[i]))
        eps.forget();
      denoise(view<const double>(x), s[i], d.view());
      if (!observe(i, s[i], view<const double>(x), std::as_const(d).view()))
        return;
      w.combine(eps.push(w, s[i]).data(), {{1 / s[i], x.data}, {-1 / s[i], d.data()}});
      int k = eps.size();
      if (lower_order_final && n < 15)
        k = std::min(k, n - i);
      k = crossing.order(k, eps.levels, s[i + 1]);
      const std::array<double, 3> c = sampling::lagrange_integrals<3>(
          [this](double v) { return node(v); }, eps.levels, k, s[i], s[i + 1]);
      w.combine(x.data, eps.add_to({{1, x.data}}, c, k));
    }
  }

 private:
  double node(double sigma) const {
    return variable == deis_variable::log_rho ? std::log(sigma)
           : variable == deis_variable::rho   ? sigma
                                              : schedule.t(sigma);
  }
};
}  // namespace multistage
