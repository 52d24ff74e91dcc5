// DPM-Solver (Lu et al., arXiv 2206.00927, algorithms 1 to 4) and DPM-Solver++ (arXiv
// 2211.01095, algorithms 1 and 2): exponential integrators of the probability-flow ODE in
// lambda = -ln sigma. Over noise over signal, with h = lambda' - lambda,
//   noise prediction  x' = x - sigma' (e^h - 1) eps + ...           data prediction  x' =
//   sigma'/sigma x - (e^-h - 1) D + ...
// singlestep: steps of order 1 to 3 with evaluations in between, orders mixed so that the
// network is evaluated num_steps times; multistep: one evaluation a step, the last ones
// remembered; singlestep_fixed: steps of one order; adaptive: two orders compared
// (section 4.4).
#pragma once
#include "walk.hpp"

namespace multistage {

enum class dpm_method { multistep, singlestep, singlestep_fixed, adaptive };
constexpr std::array<const char*, 4> option_names(dpm_method) {
  return {"multistep", "singlestep", "singlestep_fixed", "adaptive"};
}

/// Tolerances of the adaptive method.
struct dpm_adaptive {
  double atol = 0.0078;
  double rtol = 0.05;
  double theta = 0.9;    ///< safety factor
  double h_init = 0.05;  ///< first step in ln sigma
  double t_err = 1e-5;   ///< how near in t the end must be
};

/// DPM-Solver. num_steps counts evaluations of the network, those of `adaptive` aside. With a
/// list of levels every step has the order that was asked for. Levels end above 0.
struct dpm_solver {
  int num_steps = 18;
  double sigma_min = 0.002;
  double sigma_max = 80;
  spacing steps = spacing::log_snr;
  any_schedule schedule{};
  std::vector<double> levels{};
  int order = 2;  ///< adaptive: 2 or 3
  dpm_method method = dpm_method::multistep;
  bool predict_data = true;       ///< DPM-Solver++; else DPM-Solver
  bool lower_order_final = true;  ///< multistep below ten steps: low orders at the end
  bool denoise_to_zero = false;   ///< one more evaluation at the end, whose D is the result
  dpm_adaptive adaptive{};
  stage_crossing crossing{};

  static constexpr const char* name() {
    return "dpm_solver";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    visit(option{"order", "of its steps", between(1, 3)}, s.order);
    visit(option{"method", "one evaluation a step, several, or as many as its tolerance asks"},
          s.method);
    visit(option{"predict_data", "DPM-Solver++, which extrapolates D; else the noise"},
          s.predict_data);
    visit(option{"lower_order_final", "multistep below ten steps: low orders at the end"},
          s.lower_order_final);
    visit(option{"denoise_to_zero", "one more evaluation at the end, whose D is the result"},
          s.denoise_to_zero);
    visit(option{"atol", "absolute tolerance of adaptive steps", above(0, 1e3)},
          s.adaptive.atol);
    visit(option{"rtol", "relative tolerance of adaptive steps", between(0, 1e3)},
          s.adaptive.rtol);
    visit(option{"theta", "safety factor of adaptive steps", inside(0, 1)}, s.adaptive.theta);
    visit(option{"h_init", "first adaptive step in ln sigma", above(0, 100)},
          s.adaptive.h_init);
    visit(option{"t_err", "how near in t adaptive steps must come to the end", above(0, 1)},
          s.adaptive.t_err);
    sampling::crossing_field(s, visit);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    const bool adapts = method == dpm_method::adaptive;
    for (const char* one : {"atol", "rtol", "theta", "h_init", "t_err"})
      if (!adapts && option == one)
        return "without adaptive steps";
    if (adapts && (option == "num_steps" || option == "spacing"))
      return "with adaptive steps, which find their own";
    if (method != dpm_method::multistep && option == "lower_order_final")
      return "unless it is multistep";
    return sampling::idle_schedule(*this, option, adapts);
  }

  /// Levels at the ends of steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return way().levels;
  }
  double start_scale() const {
    return sampling::unit_start(sigmas().front());
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&&, Observe&& observe)
      const {
    const path p = way();
    solver<Backend, Denoise, Observe> run{*this, {b, x}, denoise, observe};
    const bool went = method == dpm_method::multistep  ? run.multistep(p.levels)
                      : method == dpm_method::adaptive ? run.adapt(p.levels)
                                                       : run.singlestep(p.levels, p.orders);
    if (went && denoise_to_zero) {
      auto d = run.w.make();
      denoise(view<const double>(x), p.levels.back(), d.view());
      b.copy(d.data(), x.data, run.w.n);
    }
  }

 private:
  /// The ends of steps, and the orders of singlestep's.
  struct path {
    std::vector<double> levels;
    std::vector<int> orders;
  };
  path way() const {
    require<value_error>(method != dpm_method::adaptive || order >= 2,
                         "dpm_solver: adaptive steps have order 2 or 3, not ", order);
    if (method == dpm_method::multistep || method == dpm_method::adaptive)
      return {crossing.aligned(sampling::positive_levels_of(name(), *this)), {}};
    path p;
    if (!levels.empty()) {
      p.levels = sampling::positive_levels_of(name(), *this);
      p.orders.assign(p.levels.size() - 1, order);
    } else {
      check_options(name(), *this);
      p.orders = orders();
      dpm_solver grid = *this;
      // Off the line in ln sigma a step of order k reaches over k places of the list of
      // num_steps.
      const bool reaches = method == dpm_method::singlestep && steps != spacing::log_snr;
      if (!reaches)
        grid.num_steps = int(p.orders.size());
      const std::vector<double> all = sampling::positive_levels_of(name(), grid);
      p.levels = {all[0]};
      std::size_t at = 0;
      for (const int k : p.orders)
        p.levels.push_back(all[at += reaches ? std::size_t(k) : 1]);
    }
    p.levels = crossing.aligned(std::move(p.levels), &p.orders);
    return p;
  }
  /// Orders of the steps (arXiv 2206.00927, section 3.4).
  std::vector<int> orders() const {
    std::vector<int> o;
    if (method == dpm_method::singlestep_fixed) {
      o.assign(std::size_t(std::max(1, num_steps / order)), order);
    } else if (order == 3) {
      const int groups = num_steps / 3 + 1;
      if (num_steps % 3 == 0) {
        o.assign(std::size_t(groups - 2), 3);
        o.push_back(2);
        o.push_back(1);
      } else {
        o.assign(std::size_t(groups - 1), 3);
        o.push_back(num_steps % 3);
      }
    } else {
      o.assign(std::size_t(num_steps / order), order);
      if (num_steps % order)
        o.push_back(1);
    }
    return o;
  }

  template <class Backend, class Denoise, class Observe>
  struct solver {
    const dpm_solver& p;
    sampling::work<Backend> w;
    Denoise& denoise;
    Observe& observe;
    using state = typename sampling::work<Backend>::state;
    int step = 0;
    std::array<state, 4> values{w.make(), w.make(), w.make(),
                                w.make()};  // models' values and a denoised picture
    std::array<state, 2> inner{w.make(), w.make()};

    /// The model's value: D, or the noise.
    void model(const double* x, double sigma, state& m) {
      state& d = p.predict_data ? m : values[3];
      denoise(view<const double>(x, w.x.extents), sigma, d.view());
      if (!p.predict_data)
        w.combine(m.data(), {{1 / sigma, x}, {-1 / sigma, d.data()}});
    }
    /// The model at the start of a step, observed.
    bool first(double sigma, state& m) {
      model(w.x.data, sigma, m);
      const view<const double> d =
          p.predict_data ? std::as_const(m).view() : std::as_const(values[3]).view();
      return observe(step++, sigma, view<const double>(w.x), d);
    }
    /// Ratio, factor and signed step of the integrator from sigma to sigma'.
    struct line {
      double ratio;
      double factor;
      double h;
    };
    line from(double sigma, double to) const {
      const double h = std::log(sigma / to);
      return p.predict_data ? line{to / sigma, 1, -h} : line{1, to, h};
    }
    void one(const double* x, double sigma, double to, const state& m, double* y) {
      const line l = from(sigma, to);
      w.combine(y, {{l.ratio, x}, {-l.factor * std::expm1(l.h), m.data()}});
    }
    /// Second order with an evaluation at share r1 of the way in lambda; m1 is filled.
    void two(double sigma, double to, double r1, const state& m0, state& m1, double* y) {
      const double s1 = sigma * std::pow(to / sigma, r1);
      one(w.x.data, sigma, s1, m0, inner[0].data());
      model(inner[0].data(), s1, m1);
      two_of(sigma, to, r1, m0, m1, y);
    }
    void two_of(double sigma,
                double to,
                double r1,
                const state& m0,
                const state& m1,
                double* y) {
      const line l = from(sigma, to);
      const double e = l.factor * std::expm1(l.h);
      const double bend = 0.5 / r1 * e;
      w.combine(y, {{l.ratio, w.x.data}, {bend - e, m0.data()}, {-bend, m1.data()}});
    }
    /// Third order; m1 must hold the model at share r1 when `have`.
    void three(double sigma,
               double to,
               double r1,
               double r2,
               const state& m0,
               state& m1,
               bool have,
               state& m2,
               double* y) {
      const double s1 = sigma * std::pow(to / sigma, r1);
      const double s2 = sigma * std::pow(to / sigma, r2);
      if (!have) {
        one(w.x.data, sigma, s1, m0, inner[0].data());
        model(inner[0].data(), s1, m1);
      }
      const auto third = [&](double target, double share, const state& m, double* out) {
        const line l = from(sigma, target);
        const double e = std::expm1(l.h);
        const double bend = share * l.factor * (e / l.h - 1);
        w.combine(out,
                  {{l.ratio, w.x.data}, {bend - l.factor * e, m0.data()}, {-bend, m.data()}});
      };
      third(s2, r2 / r1, m1, inner[1].data());
      model(inner[1].data(), s2, m2);
      third(to, 1 / r2, m2, y);
    }

    bool singlestep(const std::vector<double>& s, const std::vector<int>& orders) {
      for (std::size_t i = 0; i + 1 < s.size(); ++i) {
        if (!first(s[i], values[0]))
          return false;
        // Between levels that are all but equal (two boundaries may be) no inner one fits, and
        // the first order is exact.
        if (orders[i] == 1 || std::log(s[i] / s[i + 1]) < 1e-6) {
          one(w.x.data, s[i], s[i + 1], values[0], w.x.data);
          continue;
        }
        // Inner points lie as the spacing puts them between the ends.
        const std::vector<double> between = noise_levels(
            p.schedule, p.steps, p.schedule.t(s[i]), p.schedule.t(s[i + 1]), orders[i]);
        const auto share = [&](int k) {
          return std::log(s[i] / between[std::size_t(k)]) / std::log(s[i] / s[i + 1]);
        };
        if (orders[i] == 2)
          two(s[i], s[i + 1], share(1), values[0], values[1], w.x.data);
        else
          three(s[i], s[i + 1], share(1), share(2), values[0], values[1], false, values[2],
                w.x.data);
      }
      return true;
    }

    bool multistep(const std::vector<double>& s) {
      const int n = int(s.size()) - 1;
      typename sampling::work<Backend>::memory m{{}, {}, std::size_t(p.order)};
      for (int i = 0; i < n; ++i) {
        if (i > 0 && !p.crossing.keeps_history(s[std::size_t(i) - 1], s[std::size_t(i)]))
          m.forget();
        const double sigma = s[std::size_t(i)];
        const double to = s[std::size_t(i) + 1];
        if (!first(sigma, m.push(w, sigma)))
          return false;
        int k = m.size();
        if (p.lower_order_final && n < 10)
          k = std::min(k, n - i);
        k = p.crossing.order(k, m.levels, to);
        const line l = from(sigma, to);
        const double h = std::log(sigma / to);
        const double e = std::expm1(l.h);
        const double f = l.factor;
        if (k == 1) {
          w.combine(w.x.data, {{l.ratio, w.x.data}, {-f * e, m[0]}});
          continue;
        }
        const double r0 = std::log(m.levels[1] / sigma) / h;
        if (k == 2) {
          const double bend = 0.5 * f * e / r0;
          w.combine(w.x.data, {{l.ratio, w.x.data}, {-f * e - bend, m[0]}, {bend, m[1]}});
          continue;
        }
        // d0 = (m0 - m1) / r0, d1 = (m1 - m2) / r1, D1 = d0 + r0/(r0 + r1) (d0 - d1), D2 = (d0
        // - d1) / (r0 + r1)
        const double r1 = std::log(m.levels[2] / m.levels[1]) / h;
        const double p2 = e / l.h - 1;
        const double p3 = p2 / l.h - 0.5;
        const double slope = f * p2;
        const double curve = f * p3;
        const double of_d0 = -slope * (1 + r0 / (r0 + r1)) - curve / (r0 + r1);
        const double of_d1 = slope * r0 / (r0 + r1) + curve / (r0 + r1);
        w.combine(w.x.data, {{l.ratio, w.x.data},
                             {-f * e + of_d0 / r0, m[0]},
                             {-of_d0 / r0 + of_d1 / r1, m[1]},
                             {-of_d1 / r1, m[2]}});
      }
      return true;
    }

    /// Steps as long as two orders agree. The error is the largest over the batch, so that its
    /// rows share their steps.
    bool adapt(const std::vector<double>& ends) {
      const dpm_adaptive& a = p.adaptive;
      const double end = ends.back();
      const double t_end = p.schedule.t(end);
      double sigma = ends.front();
      double h = a.h_init;
      state low = w.make();
      state high = w.make();
      state before = w.make();
      w.b.copy(w.x.data, before.data(), w.n);
      bool evaluated = false;
      for (int tries = 0; std::fabs(p.schedule.t(sigma) - t_end) > a.t_err; ++tries) {
        require<numeric_error>(
            tries < 100'000,
            "dpm_solver: adaptive steps do not reach the end; they are at sigma ", sigma,
            " with h = ", h);
        const double to = std::max(sigma * std::exp(-h), p.crossing.stop(sigma, end));
        if (!evaluated && !first(sigma, values[0]))
          return false;
        evaluated = true;  // the value at the start serves when a step is tried again
        if (p.order == 2) {
          one(w.x.data, sigma, to, values[0], low.data());
          two(sigma, to, 0.5, values[0], values[1], high.data());
        } else {
          two(sigma, to, 1 / 3.0, values[0], values[1], low.data());
          three(sigma, to, 1 / 3.0, 2 / 3.0, values[0], values[1], true, values[2],
                high.data());
        }
        const double error = distance(low, high, before, signal(to), signal(sigma));
        if (error <= 1) {
          w.b.copy(high.data(), w.x.data, w.n);
          w.b.copy(low.data(), before.data(), w.n);
          sigma = to;
          evaluated = false;
        }
        h = std::min(a.theta * h * std::pow(error, -1.0 / p.order), std::log(sigma / end));
      }
      return true;
    }
    double signal(double sigma) const {
      return p.schedule.signal(p.schedule.t(sigma));
    }
    /// Largest root mean square over the rows of (high - low) / max(atol, rtol max(|low|,
    /// |before|)), measured in x_t: `low` and `high` have the signal of the step's end,
    /// `before` that of its start.
    double distance(const state& low,
                    const state& high,
                    const state& before,
                    double end,
                    double start) const {
      const std::vector<double> l = low.to_host();
      const std::vector<double> g = high.to_host();
      const std::vector<double> q = before.to_host();
      const index_t rows = w.x.extents.rows;
      const index_t size = w.x.extents.row_size();
      double worst = 0;
      for (index_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (index_t i = r * size; i < (r + 1) * size; ++i) {
          const double scale = std::max(
              p.adaptive.atol,
              p.adaptive.rtol * std::max(end * std::fabs(l[i]), start * std::fabs(q[i])));
          const double e = end * (g[i] - l[i]) / scale;
          sum += e * e;
        }
        worst = std::max(worst, std::sqrt(sum / double(size)));
      }
      return worst;
    }
  };
};

}  // namespace multistage
