// The generalised sampler of EDM's ablation (Karras et al., arXiv 2206.00364, algorithm 1 and
// table 1): any schedule sigma(t) and scaling s(t) of
//   dx/dt = (s'/s + sigma'/sigma) x - (sigma' s / sigma) D(x / s; sigma),
// any discretisation of its noise levels, Euler's or Heun's method. The last step is Euler's.
#pragma once
#include "walk.hpp"

namespace multistage {

enum class ablation_method { euler, heun };
constexpr std::array<const char*, 2> option_names(ablation_method) {
  return {"euler", "heun"};
}
enum class ablation_discretization { vp, ve, iddpm, edm };
constexpr std::array<const char*, 4> option_names(ablation_discretization) {
  return {"vp", "ve", "iddpm", "edm"};
}
enum class ablation_schedule { vp, ve, linear };
constexpr std::array<const char*, 3> option_names(ablation_schedule) {
  return {"vp", "ve", "linear"};
}
enum class ablation_scaling { none, vp };
constexpr std::array<const char*, 2> option_names(ablation_scaling) {
  return {"none", "vp"};
}

/// EDM's ablation. Its schedule is one of the table's three, with names of their own.
struct edm_ablation {
  int num_steps = 18;
  ablation_method method = ablation_method::heun;
  ablation_discretization discretization = ablation_discretization::edm;
  ablation_schedule schedule = ablation_schedule::linear;
  ablation_scaling scaling = ablation_scaling::none;
  double sigma_min = 0;  ///< 0: the discretisation's own ends
  double sigma_max = 0;
  double network_sigma_min =
      0.002;  // what the network was trained for; both ends are clipped to it
  double network_sigma_max = 80;
  double rho = 7;           ///< of the discretisation edm
  double epsilon_s = 1e-3;  ///< where the times of the discretisation vp end
  std::vector<double> levels{};

  static constexpr const char* name() {
    return "edm_ablation";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"num_steps", "steps from the highest noise level to 0", between(2, 1'000'000)},
          s.num_steps);
    visit(option{"method", "of the steps"}, s.method);
    visit(option{"discretization", "where the steps lie"}, s.discretization);
    visit(option{"schedule", "sigma(t)"}, s.schedule);
    visit(option{"scaling", "s(t)"}, s.scaling);
    visit(option{"sigma_min", "lowest noise level above 0; 0: the discretization's own",
                 between(0, 1e6)},
          s.sigma_min);
    visit(option{"sigma_max", "highest noise level; 0: the discretization's own",
                 between(0, 1e6)},
          s.sigma_max);
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
    visit(option{"levels",
                 "the ends of the steps, descending, in the place of the discretization",
                 between(0, 1e6)},
          s.levels);
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

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&&, Observe&& observe)
      const {
    const std::vector<double> all = sigmas();
    const int n = int(all.size()) - 1;
    const vp_line line = vp();
    const auto time = [&](double s) {
      return schedule == ablation_schedule::vp   ? line.t(s)
             : schedule == ablation_schedule::ve ? s * s
                                                 : s;
    };
    const auto sigma = [&](double t) {
      return schedule == ablation_schedule::vp   ? line.sigma(t)
             : schedule == ablation_schedule::ve ? std::sqrt(t)
                                                 : t;
    };
    const auto sigma_slope = [&](double t) {
      return schedule == ablation_schedule::vp
                 ? 0.5 * (line.beta_min + line.beta_d * t) * (sigma(t) + 1 / sigma(t))
             : schedule == ablation_schedule::ve ? 0.5 / std::sqrt(t)
                                                 : 1;
    };
    const auto scale = [&](double t) {
      return scaling == ablation_scaling::vp ? 1 / std::sqrt(1 + sigma(t) * sigma(t)) : 1;
    };
    const auto scale_slope = [&](double t) {
      return scaling == ablation_scaling::vp
                 ? -sigma(t) * sigma_slope(t) * std::pow(scale(t), 3)
                 : 0;
    };
    std::vector<double> t;
    for (const double s : all)
      t.push_back(s > 0 ? time(s) : 0);

    sampling::work<Backend> w{b, x};
    auto d = w.make();
    auto slope = w.make();
    auto next = w.make();
    auto unscaled = w.make();
    w.combine(x.data, {{scale(t[0]), x.data}});  // from here on x is this sampler's own
    const auto evaluate = [&](const double* at, double time_) {
      w.combine(unscaled.data(), {{1 / scale(time_), at}}),
          denoise(std::as_const(unscaled).view(), sigma(time_), d.view());
    };
    const auto factors = [&](double time_) {
      return std::pair{sigma_slope(time_) / sigma(time_) + scale_slope(time_) / scale(time_),
                       sigma_slope(time_) * scale(time_) / sigma(time_)};
    };
    for (int i = 0; i < n; ++i) {
      const double h = t[i + 1] - t[i];
      evaluate(x.data, t[i]);
      if (!observe(i, sigma(t[i]), std::as_const(unscaled).view(), std::as_const(d).view()))
        return;
      const auto [own, data] = factors(t[i]);
      w.combine(slope.data(), {{own, x.data}, {-data, d.data()}});
      if (method == ablation_method::euler || i == n - 1) {
        w.combine(x.data, {{1, x.data}, {h, slope.data()}});
        continue;
      }
      w.combine(next.data(), {{1, x.data}, {h, slope.data()}});
      evaluate(next.data(), t[i + 1]);
      const auto [own2, data2] = factors(t[i + 1]);
      w.combine(x.data, {{1, x.data},
                         {h / 2, slope.data()},
                         {h / 2 * own2, next.data()},
                         {-h / 2 * data2, d.data()}});
    }
    if (all.back() > 0)
      w.combine(x.data, {{1 / scale(t.back()), x.data}});  // at t = 0 the scale is 1
  }

 private:
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
