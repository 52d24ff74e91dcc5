// DEIS (Zhang and Chen, arXiv 2204.13902): the predicted noise is extrapolated through its last values by a polynomial in ln sigma ("log rho"),
// in sigma ("rho") or in t, and the probability-flow ODE dx = eps dsigma is integrated exactly,
//   x' = x + sum_j eps_j int_sigma^sigma' L_j dsigma,  with L_j Lagrange's polynomials.
// Lower orders first, and, below fifteen steps, at the end.
#pragma once
#include "../schedule/vp.hpp"
#include "lagrange.hpp"
#include "walk.hpp"

namespace multistage {

/// In what the noise is a polynomial.
enum class deis_variable { log_rho, rho, t };

template <class Schedule = vp_schedule>
struct deis {
  std::vector<double> levels;  // descending, above 0
  int order = 3;               // 1 to 3
  deis_variable variable = deis_variable::log_rho;
  Schedule schedule{};  // for polynomials in t
  bool lower_order_final = true;
  stage_crossing crossing{};

  std::vector<double> sigmas() const {
    require<value_error>(order >= 1 && order <= 3, "deis: order = ", order, " is outside 1..3");
    sampling::check_levels("deis", levels);
    require<value_error>(levels.back() > 0, "deis: the last noise level is 0; end above it, and denoise once more if wanted");
    return crossing.aligned(levels);
  }
  double start_scale() const { return std::sqrt(1 + levels.front() * levels.front()); }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&&, Observe&& observe) const {
    const std::vector<double> s = sigmas();
    const int n = int(s.size()) - 1;
    sampling::work<Backend> w{b, x};
    auto d = w.make();
    typename sampling::work<Backend>::memory eps{{}, {}, std::size_t(order)};
    for (int i = 0; i < n; ++i) {
      if (i > 0 && !crossing.keeps_history(s[i - 1], s[i])) eps.forget();
      denoise(view<const double>(x), s[i], d.view());
      if (!observe(i, s[i], view<const double>(x), std::as_const(d).view())) return;
      w.combine(eps.push(w, s[i]).data(), {{1 / s[i], x.data}, {-1 / s[i], d.data()}});
      int k = eps.size();
      if (lower_order_final && n < 15) k = std::min(k, n - i);
      const std::array<double, 3> c = sampling::lagrange_integrals<3>([this](double v) { return node(v); }, eps.levels, k, s[i], s[i + 1]);
      if (k == 1)
        w.combine(x.data, {{1, x.data}, {c[0], eps[0]}});
      else if (k == 2)
        w.combine(x.data, {{1, x.data}, {c[0], eps[0]}, {c[1], eps[1]}});
      else
        w.combine(x.data, {{1, x.data}, {c[0], eps[0]}, {c[1], eps[1]}, {c[2], eps[2]}});
    }
  }

 private:
  double node(double sigma) const { return variable == deis_variable::log_rho ? std::log(sigma) : variable == deis_variable::rho ? sigma : schedule.t(sigma); }
};
deis(std::vector<double>)->deis<>;

}  // namespace multistage
