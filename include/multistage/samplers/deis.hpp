// DEIS (Zhang and Chen, arXiv 2204.13902): the predicted noise is extrapolated through its last
// values by a polynomial in ln sigma ("log rho"), in sigma ("rho") or in t, and the
// probability-flow ODE dx = eps dsigma is integrated exactly,
//   x' = x + sum_j eps_j int_sigma^sigma' L_j dsigma,  with L_j Lagrange's polynomials.
// Lower orders first, and, below fifteen steps, at the end.
#pragma once
#include "../diffusion/denoiser.hpp"
#include "lagrange.hpp"
#include "level_options.hpp"
#include "walk.hpp"

namespace multistage {

/// In what the noise is a polynomial.
enum class deis_variable { log_rho, rho, t };
/// The names of `deis_variable`, in order.
constexpr std::array<const char*, 3> option_names(deis_variable) {
  return {"log_rho", "rho", "t"};
}

/// DEIS. Its levels end above 0.
struct deis {
  int num_steps = 18;                     ///< steps down the noise levels
  double sigma_min = 0.002;               ///< lowest noise level above 0; 0: the schedule's own
  double sigma_max = 80;                  ///< highest noise level; 0: the schedule's own
  spacing steps = spacing::log_snr;       ///< how the levels lie between them
  any_schedule schedule = vp_schedule{};  ///< in whose time spacings divide
  std::vector<double> levels{};           ///< the ends of the steps, in the place of all these
  int order = 3;                          ///< values that a step remembers, up to 3
  deis_variable variable = deis_variable::log_rho;  ///< in what the noise is a polynomial
  bool lower_order_final = true;                    ///< below fifteen steps
  stage_crossing crossing{};                        ///< what is done where the stage changes

  /// What programs call it.
  static constexpr const char* name() {
    return "deis";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"order", "values that a step remembers", between(1, 3)}, s.order);
    visit(option{"variable", "in what the noise is a polynomial"}, s.variable);
    visit(option{"lower_order_final", "lower orders at the end, below fifteen steps"},
          s.lower_order_final);
    sampling::crossing_field(s, visit);
  }

  /// Whether the schedule's times matter to the steps themselves.
  bool reads_schedule() const {
    return variable == deis_variable::t;
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return crossing.aligned(sampling::positive_levels_of(*this));
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
    const std::vector<double> s = sigmas();
    const int n = int(s.size()) - 1;
    sampling::walk w(b, start, denoise, noise, observe);
    auto past = w.remember(order);  // predicted noises
    auto denoised = w.make();
    for (int i = 0; i < n; ++i) {
      const double sigma = s[std::size_t(i)];
      const double to = s[std::size_t(i) + 1];
      if (i > 0 && !crossing.keeps_history(s[std::size_t(i) - 1], sigma))
        past.forget();
      if (!w.begin_step(i, sigma, denoised))
        return;
      past.push(sigma) = (w.x - denoised) / sigma;
      int k = past.size();
      if (lower_order_final && n < 15)
        k = std::min(k, n - i);
      k = crossing.order(k, past.levels(), to);
      const std::array<double, 3> c = sampling::lagrange_integrals<3>(
          [this](double v) { return node(v); }, past.levels(), k, sigma, to);
      w.x = w.x + past.sum(c, k);
    }
  }

 private:
  /// The variable that noises are polynomials in.
  double node(double sigma) const {
    return variable == deis_variable::log_rho ? std::log(sigma)
           : variable == deis_variable::rho   ? sigma
                                              : schedule.t(sigma);
  }
};
}  // namespace multistage
