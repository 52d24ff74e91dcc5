// Lists of noise levels that samplers walk down: descending sigmas between a schedule's ends
// ("spacings"), or the steps of a discrete schedule. A list holds the ends of steps, so it is
// one longer than the steps are many.
//
//   noise_levels(vp_schedule{}, spacing::log_snr, 1, 1e-3, 20)     // 21 sigmas, descending
//
// The ends are given to the last digit and are met exactly, since a sampler's last step ends
// where the schedule does.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "../core/options.hpp"
#include "discrete.hpp"
#include "schedule.hpp"

namespace multistage {

/// How n steps divide the way from t_start to t_end. time_uniform, time_quadratic: lines in t
/// and in its root; log_snr: a line in lambda (also called exponential); karras: EDM's rho = 7;
/// beta: quantiles of a symmetric Beta(0.6, 0.6) in t, which crowds at both ends (arXiv
/// 2407.12173).
enum class spacing { time_uniform, time_quadratic, log_snr, karras, beta };
/// Names as options and files spell them, in the enumeration's order.
constexpr std::array<const char*, 5> option_names(spacing) {
  return {"time_uniform", "time_quadratic", "logSNR", "karras", "beta"};
}
/// @throws value_error naming the spacings that exist.
inline spacing spacing_from(const std::string& name) {
  return choice_from<spacing>("spacing", name);
}

namespace detail {
/// Regularised incomplete beta for a = b = 0.6 by its continued fraction, and its quantile by
/// bisection.
inline double beta_quantile(double p, double a) {
  const auto cumulative = [a](double x) {
    if (x <= 0)
      return 0.0;
    if (x >= 1)
      return 1.0;
    const bool swap = x > 0.5;
    if (swap)
      x = 1 - x;
    const double log_front =
        std::lgamma(2 * a) - 2 * std::lgamma(a) + a * std::log(x) + a * std::log1p(-x);
    const double front = std::exp(log_front) / a;
    // Term i of the continued fraction, above its line.
    const auto term = [a, x](int i) {
      const int m = i / 2;
      if (i == 0)
        return 1.0;
      if (i % 2 == 0)
        return m * (a - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
      return -(a + m) * (2 * a + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    };
    // Lentz's method
    double f = 1;
    double c = 1;
    double d = 0;
    for (int i = 0; i <= 200; ++i) {
      const double numerator = term(i);
      d = 1 / (1 + numerator * d);
      c = 1 + numerator / c;
      f *= c * d;
      if (i > 1 && std::fabs(1 - c * d) < 1e-15)
        break;
    }
    const double v = front * (f - 1);
    return swap ? 1 - v : v;
  };
  double low = 0;
  double high = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (cumulative(middle) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}
}  // namespace detail

/// Both ends of a way down: times, and their noise levels to the last digit.
struct noise_ends {
  double t_start;  ///< where the way begins
  double t_end;    ///< where it ends
  double high;     ///< sigma at t_start
  double low;      ///< sigma at t_end
};

/// The ends of `num_steps` steps between two noise levels, both of them included: num_steps + 1
/// noise levels that descend. @throws value_error unless num_steps is 1 to 10^6 and the noise
/// falls
template <noise_schedule S>
std::vector<double> noise_levels(const S& schedule,
                                 spacing how,
                                 const noise_ends& ends,
                                 int num_steps) {
  require<value_error>(num_steps >= 1 && num_steps <= 1'000'000,
                       "noise levels: num_steps = ", num_steps, " is outside 1..1000000");
  const auto [t_start, t_end, high, low] = ends;
  require<value_error>(std::isfinite(high) && low > 0 && low < high,
                       "noise levels: from t = ", t_start, " (sigma ", high, ") to t = ", t_end,
                       " (sigma ", low, "); noise must fall and stay above 0");
  std::vector<double> s;
  for (int i = 0; i <= num_steps; ++i) {
    const double u = double(i) / num_steps;
    switch (how) {
      case spacing::time_uniform:
        s.push_back(schedule.sigma(t_start + u * (t_end - t_start)));
        break;
      case spacing::time_quadratic: {
        const double r = std::sqrt(t_start) + u * (std::sqrt(t_end) - std::sqrt(t_start));
        s.push_back(schedule.sigma(r * r));
        break;
      }
      case spacing::log_snr: {
        const double first = std::log(high);
        const double last = std::log(low);
        s.push_back(std::exp(first + u * (last - first)));
        break;
      }
      case spacing::karras: {
        const double first = std::pow(high, 1 / 7.0);
        const double last = std::pow(low, 1 / 7.0);
        s.push_back(std::pow(first + u * (last - first), 7));
        break;
      }
      case spacing::beta: {
        const double share = detail::beta_quantile(u, 0.6);
        s.push_back(schedule.sigma(t_start + share * (t_end - t_start)));
        break;
      }
    }
  }
  s.front() = high;
  s.back() = low;
  // A schedule may know no times so far out, and steps may be finer than a double.
  for (std::size_t i = 1; i < s.size(); ++i)
    require<value_error>(
        s[i] < s[i - 1], "noise levels: ", num_steps, " steps by ", to_string(how),
        " from sigma ", high, " to ", low, " do not descend at step ", i, " (", s[i - 1], ", ",
        s[i], "); take fewer steps, another spacing or ends nearer to the schedule's own");
  return s;
}
/// The same between two times. Twenty steps have twenty-one ends:
///   noise_levels(vp_schedule{}, spacing::log_snr, 1, 1e-3, 20).size() == 21.
template <noise_schedule S>
std::vector<double> noise_levels(const S& schedule,
                                 spacing how,
                                 double t_start,
                                 double t_end,
                                 int num_steps) {
  const noise_ends ends{t_start, t_end, schedule.sigma(t_start), schedule.sigma(t_end)};
  return noise_levels(schedule, how, ends, num_steps);
}

/// Which of a discrete schedule's N steps are taken, descending (Lin et al., arXiv 2305.08891,
/// table 2). leading: i floor(N / n); trailing: round(N - i N / n) - 1; linspace:
/// round(linspace(0, N - 1, n + 1)) without the 0.
enum class timestep_spacing { leading, trailing, linspace };
/// @throws value_error unless 1 <= n <= train_steps
inline std::vector<int> timesteps(int train_steps, timestep_spacing how, int n) {
  require<value_error>(n >= 1 && n <= train_steps, "timesteps: num_steps = ", n,
                       " is outside 1..", train_steps);
  std::vector<int> t;
  for (int i = 0; i < n; ++i) {
    const double trailing = double(train_steps) - double(i) * train_steps / n;
    const double on_line = double(n - i) * (train_steps - 1) / n;
    if (how == timestep_spacing::leading)
      t.push_back((n - 1 - i) * (train_steps / n));
    else if (how == timestep_spacing::trailing)
      t.push_back(int(std::nearbyint(trailing)) - 1);
    else
      t.push_back(int(std::nearbyint(on_line)));
  }
  return t;
}
/// Noise levels of such steps, ended by `last` (0, or the noise level to stop at): one more
/// than there are steps.
inline std::vector<double> noise_levels(const discrete_schedule& schedule,
                                        const std::vector<int>& steps,
                                        double last) {
  std::vector<double> s;
  for (const int t : steps) {
    require<value_error>(t >= 0 && t < schedule.steps(), "noise levels: step ", t,
                         " is outside 0..", schedule.steps() - 1);
    require<value_error>(s.empty() || schedule.sigma_at(t) < s.back(),
                         "noise levels: steps must descend");
    s.push_back(schedule.sigma_at(t));
  }
  s.push_back(last);
  return s;
}

}  // namespace multistage
