// DPM-Solver (Lu et al., arXiv 2206.00927, algorithms 1 to 4) and DPM-Solver++ (arXiv
// 2211.01095, algorithms 1 and 2): exponential integrators of the probability-flow ODE in
// lambda = -ln sigma. Over noise over signal, with h = lambda' - lambda,
//   noise prediction  x' = x - sigma' (e^h - 1) eps + ...
//   data prediction   x' = sigma'/sigma x - (e^-h - 1) D + ...
// singlestep: steps of order 1 to 3 with evaluations in between, orders mixed so that the
// network is evaluated num_steps times; multistep: one evaluation a step, the last ones
// remembered; singlestep_fixed: steps of one order; adaptive: two orders compared
// (section 4.4).
#pragma once
#include "../diffusion/denoiser.hpp"
#include "level_options.hpp"
#include "walk.hpp"

namespace multistage {

/// multistep: one evaluation a step, the last ones remembered; singlestep: steps of mixed
/// orders with evaluations in between, num_steps in all; singlestep_fixed: steps of one order;
/// adaptive: steps as long as two orders agree.
enum class dpm_method { multistep, singlestep, singlestep_fixed, adaptive };
/// The names of `dpm_method`, in order.
constexpr std::array<const char*, 4> option_names(dpm_method) {
  return {"multistep", "singlestep", "singlestep_fixed", "adaptive"};
}

/// Tolerances of the adaptive method.
struct dpm_adaptive {
  double atol = 0.0078;  ///< absolute tolerance, of x_t
  double rtol = 0.05;    ///< relative tolerance, of x_t
  double theta = 0.9;    ///< safety factor
  double h_init = 0.05;  ///< first step in ln sigma
  double t_err = 1e-5;   ///< how near in t the end must be
};

/// DPM-Solver. num_steps counts evaluations of the network, those of `adaptive` aside. With a
/// list of levels every step has the order that was asked for. Levels end above 0.
struct dpm_solver {
  int num_steps = 18;                ///< evaluations of the network, `adaptive` aside
  double sigma_min = 0.002;          ///< lowest noise level above 0; 0: the schedule's own
  double sigma_max = 80;             ///< highest noise level; 0: the schedule's own
  spacing steps = spacing::log_snr;  ///< how the levels lie between them
  any_schedule schedule{};           ///< in whose time spacings divide
  std::vector<double> levels{};      ///< the ends of the steps, in the place of all these
  int order = 2;                     ///< adaptive: 2 or 3
  dpm_method method = dpm_method::multistep;  ///< of the steps
  bool predict_data = true;                   ///< DPM-Solver++; else DPM-Solver
  bool lower_order_final = true;  ///< multistep below ten steps: low orders at the end
  bool denoise_to_zero = false;   ///< one more evaluation at the end, whose D is the result
  dpm_adaptive adaptive{};        ///< tolerances of the adaptive method
  stage_crossing crossing{};      ///< what is done where the stage changes

  /// What programs call it.
  static constexpr const char* name() {
    return "dpm_solver";
  }
  /// The list of options (core/options.hpp).
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
    return nullptr;
  }
  /// Whether the schedule's times matter to the steps themselves.
  bool reads_schedule() const {
    return method == dpm_method::adaptive;
  }

  /// Levels at the ends of steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return way().levels;
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
    const path p = way();
    sampling::walk w(b, start, denoise, noise, observe);
    solver<decltype(w)> run(*this, w);
    bool went = false;
    if (method == dpm_method::multistep)
      went = run.multistep(p.levels);
    else if (method == dpm_method::adaptive)
      went = run.adapt(p.levels);
    else
      went = run.singlestep(p.levels, p.orders);
    if (went && denoise_to_zero) {
      auto denoised = w.make();
      w.denoise(w.x, p.levels.back(), denoised);
      w.x = denoised;
    }
  }

 private:
  /// The ends of steps, and the orders of singlestep's.
  struct path {
    std::vector<double> levels;
    std::vector<int> orders;
  };
  /// Where the steps end, and of which orders they are. @throws value_error
  path way() const {
    require<value_error>(method != dpm_method::adaptive || order >= 2,
                         "dpm_solver: adaptive steps have order 2 or 3, not ", order);
    if (method == dpm_method::multistep || method == dpm_method::adaptive)
      return {crossing.aligned(sampling::positive_levels_of(*this)), {}};
    path p;
    if (!levels.empty()) {
      p.levels = sampling::positive_levels_of(*this);
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
      const std::vector<double> all = sampling::positive_levels_of(grid);
      p.levels = {all[0]};
      std::size_t at = 0;
      for (const int k : p.orders) {
        at += reaches ? std::size_t(k) : 1;
        p.levels.push_back(all[at]);
      }
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

  /// Ratio, factor and signed step of the integrator from one level to another:
  ///   x' = ratio x - factor (e^step - 1) m + ...
  struct line {
    double ratio;
    double factor;
    double step;
  };
  /// From sigma to `to`: for data the ratio is sigma' / sigma and the step -h, for noise the
  /// factor is sigma' and the step h.
  line from(double sigma, double to) const {
    const double h = std::log(sigma / to);
    if (predict_data)
      return {to / sigma, 1, -h};
    return {1, to, h};
  }

  /// The methods, over a walk. Values m are the model's: D, or the noise.
  template <class Walk>
  struct solver {
    using state = typename Walk::state_type;
    const dpm_solver& p;
    Walk& w;
    state denoised = w.make();
    state m0 = w.make();         // at a step's start
    state m1 = w.make();         // between its ends
    state m2 = w.make();         // further on
    state at_first = w.make();   // x where m1 is evaluated
    state at_second = w.make();  // x where m2 is
    int step = 0;

    solver(const dpm_solver& options, Walk& walk)
        : p(options),
          w(walk) {}

    /// m = the model's value.
    void model(const state& x, double sigma, state& m) {
      if (p.predict_data)
        w.denoise(x, sigma, m);
      else
        w.predict_noise(x, sigma, denoised, m);
    }
    /// The model at the start of a step, observed. Returns whether to go on.
    bool first(double sigma, state& m) {
      model(w.x, sigma, m);
      return w.observe(step++, sigma, w.x, p.predict_data ? m : denoised);
    }
    /// y by the first order from x.
    void one(double sigma, double to, state& y) {
      const line l = p.from(sigma, to);
      y = l.ratio * w.x - l.factor * std::expm1(l.step) * m0;
    }
    /// y by the second order, with an evaluation at share r1 of the way in lambda; m1 is
    /// filled.
    void two(double sigma, double to, double r1, state& y) {
      evaluate_first(sigma, to, r1);
      const line l = p.from(sigma, to);
      const double e = l.factor * std::expm1(l.step);
      const double bend = 0.5 / r1 * e;
      y = l.ratio * w.x + (bend - e) * m0 - bend * m1;
    }
    /// y by the third order, with m1 at share r1 as it is, and an evaluation at share r2.
    void three(double sigma, double to, double r1, double r2, state& y) {
      const double s2 = sigma * std::pow(to / sigma, r2);
      third(sigma, s2, r2 / r1, m1, at_second);
      model(at_second, s2, m2);
      third(sigma, to, 1 / r2, m2, y);
    }
    /// m1 = the model at share r1 of the way.
    void evaluate_first(double sigma, double to, double r1) {
      const double s1 = sigma * std::pow(to / sigma, r1);
      one(sigma, s1, at_first);
      model(at_first, s1, m1);
    }
    /// A step of the third order's kind with a value m, weighed by `share`.
    void third(double sigma, double to, double share, const state& m, state& y) {
      const line l = p.from(sigma, to);
      const double e = std::expm1(l.step);
      const double bend = share * l.factor * (e / l.step - 1);
      y = l.ratio * w.x + (bend - l.factor * e) * m0 - bend * m;
    }

    /// Steps of several evaluations, each of its own order. False when the observer stops.
    bool singlestep(const std::vector<double>& s, const std::vector<int>& orders) {
      for (std::size_t i = 0; i + 1 < s.size(); ++i) {
        const double sigma = s[i];
        const double to = s[i + 1];
        if (!first(sigma, m0))
          return false;
        // Between levels that are all but equal (two boundaries may be) no inner one fits, and
        // the first order is exact.
        if (orders[i] == 1 || std::log(sigma / to) < 1e-6) {
          one(sigma, to, w.x);
          continue;
        }
        // Inner points lie as the spacing puts them between the ends.
        const double t_start = p.schedule.t(sigma);
        const double t_end = p.schedule.t(to);
        const std::vector<double> between =
            noise_levels(p.schedule, p.steps, t_start, t_end, orders[i]);
        const double h = std::log(sigma / to);
        const auto share = [&](std::size_t k) {
          return std::log(sigma / between[k]) / h;
        };
        if (orders[i] == 2) {
          two(sigma, to, share(1), w.x);
        } else {
          evaluate_first(sigma, to, share(1));
          three(sigma, to, share(1), share(2), w.x);
        }
      }
      return true;
    }

    /// Steps of one evaluation with a history. False when the observer stops.
    bool multistep(const std::vector<double>& s) {
      const int n = int(s.size()) - 1;
      auto past = w.remember(p.order);
      for (int i = 0; i < n; ++i) {
        const double sigma = s[std::size_t(i)];
        const double to = s[std::size_t(i) + 1];
        if (i > 0 && !p.crossing.keeps_history(s[std::size_t(i) - 1], sigma))
          past.forget();
        auto newest = past.push(sigma);
        if (!first(sigma, newest))
          return false;
        int k = past.size();
        if (p.lower_order_final && n < 10)
          k = std::min(k, n - i);
        k = p.crossing.order(k, past.levels(), to);
        const line l = p.from(sigma, to);
        w.x = l.ratio * w.x + p.added(l, past, to, k);
      }
      return true;
    }

    /// Steps as long as two orders agree. The error is the largest over the batch, so that its
    /// rows share their steps. False when the observer stops.
    bool adapt(const std::vector<double>& ends) {
      const dpm_adaptive& a = p.adaptive;
      const double end = ends.back();
      const double t_end = p.schedule.t(end);
      double sigma = ends.front();
      double h = a.h_init;
      state low = w.make();
      state high = w.make();
      state before = w.make();
      before = w.x;
      bool evaluated = false;
      for (int tries = 0; std::fabs(p.schedule.t(sigma) - t_end) > a.t_err; ++tries) {
        require<numeric_error>(
            tries < 100'000,
            "dpm_solver: adaptive steps do not reach the end; they are at sigma ", sigma,
            " with h = ", h);
        const double to = std::max(sigma * std::exp(-h), p.crossing.stop(sigma, end));
        if (!evaluated && !first(sigma, m0))
          return false;
        evaluated = true;  // the value at the start serves when a step is tried again
        if (p.order == 2) {
          one(sigma, to, low);
          two(sigma, to, 0.5, high);
        } else {
          two(sigma, to, 1 / 3.0, low);
          three(sigma, to, 1 / 3.0, 2 / 3.0, high);
        }
        const double error = p.distance(low, high, before, p.signal(to), p.signal(sigma));
        if (error <= 1) {
          w.x = high;
          before = low;
          sigma = to;
          evaluated = false;
        }
        const double wanted = a.theta * h * std::pow(error, -1.0 / p.order);
        h = std::min(wanted, std::log(sigma / end));
      }
      return true;
    }
  };

  /// What the newest k values add to ratio x in a multistep step from the newest one's level to
  /// `to`: the exponential integrator of the polynomial through them, by divided differences
  /// (arXiv 2211.01095, algorithm 2, for two values of D; for noise and three values likewise).
  template <class History>
  sampling::combination added(const line& l, const History& m, double to, int k) const {
    const std::vector<double>& at = m.levels();
    const double h = std::log(at[0] / to);
    const double e = std::expm1(l.step);
    const double f = l.factor;
    if (k == 1)
      return -f * e * m[0];
    const double r0 = std::log(at[1] / at[0]) / h;
    if (k == 2) {
      const double bend = 0.5 * f * e / r0;
      return (-f * e - bend) * m[0] + bend * m[1];
    }
    // d0 = (m0 - m1) / r0, d1 = (m1 - m2) / r1, D1 = d0 + r0/(r0 + r1) (d0 - d1), D2 = (d0 -
    // d1) / (r0 + r1)
    const double r1 = std::log(at[2] / at[1]) / h;
    const double p2 = e / l.step - 1;
    const double p3 = p2 / l.step - 0.5;
    const double slope = f * p2;
    const double curve = f * p3;
    const double of_d0 = -slope * (1 + r0 / (r0 + r1)) - curve / (r0 + r1);
    const double of_d1 = slope * r0 / (r0 + r1) + curve / (r0 + r1);
    return (-f * e + of_d0 / r0) * m[0] + (-of_d0 / r0 + of_d1 / r1) * m[1] - of_d1 / r1 * m[2];
  }

  /// alpha of the schedule at a noise level.
  double signal(double sigma) const {
    return schedule.signal(schedule.t(sigma));
  }
  /// Largest root mean square over the rows of (high - low) / max(atol, rtol max(|low|,
  /// |before|)), measured in x_t: `low` and `high` have the signal of the step's end, `before`
  /// that of its start.
  template <class State>
  double distance(const State& low,
                  const State& high,
                  const State& before,
                  double end,
                  double start) const {
    const std::vector<double> l = low.to_host();
    const std::vector<double> g = high.to_host();
    const std::vector<double> q = before.to_host();
    const index_t rows = low.extents().rows;
    const index_t size = low.extents().row_size();
    double worst = 0;
    for (index_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (index_t i = r * size; i < (r + 1) * size; ++i) {
        const double scale =
            std::max(adaptive.atol,
                     adaptive.rtol * std::max(end * std::fabs(l[i]), start * std::fabs(q[i])));
        const double e = end * (g[i] - l[i]) / scale;
        sum += e * e;
      }
      worst = std::max(worst, std::sqrt(sum / double(size)));
    }
    return worst;
  }
};

}  // namespace multistage
