// The generalised sampler of EDM's ablation (Karras et al., arXiv 2206.00364, algorithm 1 and
// table 1): any schedule sigma(t) and scaling s(t) of
//   dx/dt = (s'/s + sigma'/sigma) x - (sigma' s / sigma) D(x / s; sigma),
// any discretisation of its noise levels, Euler's or Heun's method. The last step is Euler's.
#pragma once
#include "../diffusion/denoiser.hpp"
#include "level_options.hpp"
#include "walk.hpp"

namespace multistage {

/// The method of a step: Euler's, or Heun's of second order.
enum class ablation_method { euler, heun };
/// The names of `ablation_method`, in order.
constexpr std::array<const char*, 2> option_names(ablation_method) {
  return {"euler", "heun"};
}
/// Where the noise levels lie: as the papers of VP, VE, iDDPM and EDM have them (table 1, row
/// "time steps").
enum class ablation_discretization { vp, ve, iddpm, edm };
/// The names of `ablation_discretization`, in order.
constexpr std::array<const char*, 4> option_names(ablation_discretization) {
  return {"vp", "ve", "iddpm", "edm"};
}
/// sigma(t): VP's, VE's sqrt(t), or t (table 1, row "schedule").
enum class ablation_schedule { vp, ve, linear };
/// The names of `ablation_schedule`, in order.
constexpr std::array<const char*, 3> option_names(ablation_schedule) {
  return {"vp", "ve", "linear"};
}
/// s(t): 1, or VP's 1 / sqrt(1 + sigma^2) (table 1, row "scaling").
enum class ablation_scaling { none, vp };
/// The names of `ablation_scaling`, in order.
constexpr std::array<const char*, 2> option_names(ablation_scaling) {
  return {"none", "vp"};
}

/// EDM's ablation. Its schedule is one of the table's three, with names of their own.
struct edm_ablation {
  int num_steps = 18;                              ///< steps from the highest noise level to 0
  ablation_method method = ablation_method::heun;  ///< of the steps
  ablation_discretization discretization =
      ablation_discretization::edm;                        ///< where the steps lie
  ablation_schedule schedule = ablation_schedule::linear;  ///< sigma(t)
  ablation_scaling scaling = ablation_scaling::none;       ///< s(t)
  double sigma_min = 0;                                    ///< 0: the discretisation's own ends
  double sigma_max = 0;                                    ///< likewise
  double network_sigma_min =
      0.002;  // what the network was trained for; both ends are clipped to it
  double network_sigma_max = 80;  ///< likewise
  double rho = 7;                 ///< of the discretisation edm
  double epsilon_s = 1e-3;        ///< where the times of the discretisation vp end
  std::vector<double> levels{};   ///< the ends of the steps, in their place

  /// What programs call it.
  static constexpr const char* name() {
    return "edm_ablation";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::steps_field(visit, s.num_steps, "steps from the highest noise level to 0", 2);
    visit(option{"method", "of the steps"}, s.method);
    visit(option{"discretization", "where the steps lie"}, s.discretization);
    visit(option{"schedule", "sigma(t)"}, s.schedule);
    visit(option{"scaling", "s(t)"}, s.scaling);
    sampling::ends_fields(s, visit, "lowest noise level above 0; 0: the discretization's own",
                          "highest noise level; 0: the discretization's own", between(0, 1e6));
    visit(option{"network_sigma_min", "lowest noise level that the network was trained for",
                 above(0)},
          s.network_sigma_min);
    visit(option{"network_sigma_max", "highest noise level that the network was trained for",
                 above(0)},
          s.network_sigma_max);
    visit(option{"rho", "how the steps of discretization edm crowd towards low noise",
                 between(0.1, 1000)},
          s.rho);
    visit(option{"epsilon_s", "where the times of discretization vp end", inside(0, 1)},
          s.epsilon_s);
    sampling::levels_field(
        visit, s.levels,
        "the ends of the steps, descending, in the place of the discretization");
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    if (discretization != ablation_discretization::edm && option == "rho")
      return "unless the discretization is edm";
    if (discretization != ablation_discretization::vp && schedule != ablation_schedule::vp &&
        option == "epsilon_s")
      return "without vp";
    return nullptr;
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    check_options(name(), *this);
    const auto [low, high] = ends();
    require<value_error>(low > 0 && low < high, "edm_ablation: noise levels from ", low, " to ",
                         high, "; they must ascend and be above 0");
    if (!levels.empty())
      return sampling::check_levels(name(), levels);
    const int n = num_steps;
    std::vector<double> s;
    for (int i = 0; i < n; ++i) {
      const double u = double(i) / (n - 1);
      switch (discretization) {
        case ablation_discretization::vp:
          s.push_back(vp().sigma(1 + u * (epsilon_s - 1)));
          break;
        case ablation_discretization::ve:
          s.push_back(std::sqrt(high * high * std::pow(low * low / (high * high), u)));
          break;
        case ablation_discretization::edm:
          s.push_back(std::pow(
              std::pow(high, 1 / rho) + u * (std::pow(low, 1 / rho) - std::pow(high, 1 / rho)),
              rho));
          break;
        case ablation_discretization::iddpm: {
          std::vector<double> within;
          for (const double v : iddpm_levels())
            if (v >= low && v <= high)
              within.push_back(v);
          require<value_error>(int(within.size()) >= n, "edm_ablation: ", n, " steps over ",
                               within.size(), " levels of iDDPM; use fewer steps");
          s.push_back(
              within[std::size_t(std::nearbyint(double(within.size() - 1) / (n - 1) * i))]);
          break;
        }
      }
    }
    s.push_back(0);
    return sampling::check_levels(name(), s);
  }
  /// sigma(t) s(t) at the start: what unit latents are multiplied by, in this sampler's own x;
  /// with noise over signal it is sigma.
  double start_scale() const {
    return sigmas().front();
  }

  /// Moves x [rows, h, w, c] from the first level to the last. @see samplers/walk.hpp
  template <class Backend, denoiser Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> start,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> all = sigmas();
    const int n = int(all.size()) - 1;
    const process p{schedule, scaling, vp()};
    std::vector<double> t;
    for (const double sigma : all)
      t.push_back(sigma > 0 ? p.time(sigma) : 0);
    sampling::walk w(b, start, denoise, noise, observe);
    auto unscaled = w.make();  // x / s, in noise over signal
    auto denoised = w.make();
    auto slope = w.make();  // dx/dt
    auto next = w.make();
    w.x = p.scale(t[0]) * w.x;  // from here on x is this sampler's own
    const auto evaluate = [&](const sampling::state<Backend>& at, double time) {
      unscaled = at / p.scale(time);
      w.denoise(unscaled, p.sigma(time), denoised);
    };
    for (int i = 0; i < n; ++i) {
      const double now = t[std::size_t(i)];
      const double end = t[std::size_t(i) + 1];
      const double h = end - now;
      evaluate(w.x, now);
      if (!w.observe(i, p.sigma(now), unscaled, denoised))
        return;
      const factors at_start = p.slope(now);
      slope = at_start.of_x * w.x - at_start.of_d * denoised;
      next = w.x + h * slope;
      if (method == ablation_method::heun && i < n - 1) {
        evaluate(next, end);
        const factors at_end = p.slope(end);
        next =
            w.x + h / 2 * slope + h / 2 * at_end.of_x * next - h / 2 * at_end.of_d * denoised;
      }
      w.x = next;
    }
    if (all.back() > 0)
      w.x = w.x / p.scale(t.back());  // at t = 0 the scale is 1
  }

 private:
  /// sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1), the paper's VP, and its inverse.
  struct vp_line {
    double beta_d;
    double beta_min;
    double sigma(double t) const {
      return std::sqrt(std::expm1(0.5 * beta_d * t * t + beta_min * t));
    }
    double t(double s) const {
      return (std::sqrt(beta_min * beta_min + 2 * beta_d * std::log1p(s * s)) - beta_min) /
             beta_d;
    }
  };
  /// dx/dt = of_x x - of_d D(x / s; sigma).
  struct factors {
    double of_x;
    double of_d;
  };
  /// A schedule and a scaling, with their derivatives by t (the paper's table 1).
  struct process {
    ablation_schedule schedule;
    ablation_scaling scaling;
    vp_line line;

    /// t of a noise level.
    double time(double sigma) const {
      return schedule == ablation_schedule::vp   ? line.t(sigma)
             : schedule == ablation_schedule::ve ? sigma * sigma
                                                 : sigma;
    }
    double sigma(double t) const {
      return schedule == ablation_schedule::vp   ? line.sigma(t)
             : schedule == ablation_schedule::ve ? std::sqrt(t)
                                                 : t;
    }
    /// dsigma/dt
    double sigma_slope(double t) const {
      return schedule == ablation_schedule::vp
                 ? 0.5 * (line.beta_min + line.beta_d * t) * (sigma(t) + 1 / sigma(t))
             : schedule == ablation_schedule::ve ? 0.5 / std::sqrt(t)
                                                 : 1;
    }
    /// s(t)
    double scale(double t) const {
      return scaling == ablation_scaling::vp ? 1 / std::sqrt(1 + sigma(t) * sigma(t)) : 1;
    }
    /// ds/dt
    double scale_slope(double t) const {
      return scaling == ablation_scaling::vp
                 ? -sigma(t) * sigma_slope(t) * std::pow(scale(t), 3)
                 : 0;
    }
    /// The ODE's factors at a time, as algorithm 1 evaluates them.
    factors slope(double t) const {
      return {sigma_slope(t) / sigma(t) + scale_slope(t) / scale(t),
              sigma_slope(t) * scale(t) / sigma(t)};
    }
  };
  /// The lowest noise level above 0 and the highest: the options', else the discretisation's
  /// own, both inside what the network was trained for.
  std::pair<double, double> ends() const {
    const vp_line usual{19.9, 0.1};
    double low = sigma_min;
    double high = sigma_max;
    if (low == 0)
      low = discretization == ablation_discretization::vp   ? usual.sigma(epsilon_s)
            : discretization == ablation_discretization::ve ? 0.02
                                                            : 0.002;
    if (high == 0)
      high = discretization == ablation_discretization::vp      ? usual.sigma(1)
             : discretization == ablation_discretization::ve    ? 100
             : discretization == ablation_discretization::iddpm ? 81
                                                                : 80;
    return {std::max(low, network_sigma_min), std::min(high, network_sigma_max)};
  }
  /// The VP line through both ends.
  vp_line vp() const {
    const auto [low, high] = ends();
    const double d =
        2 * (std::log1p(low * low) / epsilon_s - std::log1p(high * high)) / (epsilon_s - 1);
    return {d, std::log1p(high * high) - 0.5 * d};
  }
};

}  // namespace multistage
