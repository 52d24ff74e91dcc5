// Discrete diffusion (Ho, Jain, Abbeel, arXiv 2006.11239; Nichol and Dhariwal, arXiv
// 2102.09672): N steps with variances beta_i, signal power abar_i = prod_{j <= i} (1 - beta_j).
// In continuous time node i stands at t_i = (i + 1) / N and ln alpha = ln(abar) / 2 is linear
// between nodes and beyond them (Lu et al., arXiv 2206.00927, appendix D.1). sigma = sqrt((1 -
// abar) / abar).
//
//   discrete_schedule steps(beta_schedule::scaled_linear, 0.00085, 0.012, 1000);
//   steps.sigma_at(499);       // of a step
//   steps.sigma(0.5);          // the same: its time is (499 + 1) / 1000
//
// Sums of logarithms are kept instead of products, so that small betas keep their digits.
#pragma once
#include <algorithm>
#include <cmath>
#include <forward_list>
#include <mutex>
#include <vector>

#include "../core/error.hpp"

namespace multistage {

/// linear: beta from beta_start to beta_end; scaled_linear: their square roots (latent
/// diffusion); cosine: abar is a squared cosine.
enum class beta_schedule { linear, scaled_linear, cosine };
/// The name that files use. @param k one of the three
constexpr const char* to_string(beta_schedule k) {
  constexpr const char* names[] = {"linear", "scaled_linear", "cosine"};
  return names[int(k)];
}

/// A schedule by its table of betas, read at steps or, between them, at continuous times.
class discrete_schedule {
 public:
  /// @throws value_error for steps or betas out of range.
  explicit discrete_schedule(beta_schedule kind = beta_schedule::linear,
                             double beta_start = 1e-4,
                             double beta_end = 0.02,
                             int steps = 1000) {
    require<value_error>(steps >= 2 && steps <= 1 << 20,
                         "discrete schedule: num_timesteps = ", steps, " is outside 2..2^20");
    require<value_error>(beta_start > 0 && beta_start < 1 && beta_end > 0 && beta_end < 1,
                         "discrete schedule: beta_start ", beta_start, " and beta_end ",
                         beta_end, " must lie inside (0, 1)");
    std::vector<double> betas(std::size_t(steps), 0.0);
    const auto on_line = [&](double from, double to, int i) {
      return from + (to - from) * i / (steps - 1);
    };
    const auto power = [&](double t) {
      const double c = std::cos((t + 0.008) / 1.008 * 1.57079632679489661923);
      return c * c;
    };
    const double root_start = std::sqrt(beta_start);
    const double root_end = std::sqrt(beta_end);
    for (int i = 0; i < steps; ++i) {
      if (kind == beta_schedule::linear) {
        betas[i] = on_line(beta_start, beta_end, i);
      } else if (kind == beta_schedule::scaled_linear) {
        betas[i] = std::pow(on_line(root_start, root_end, i), 2);
      } else {
        const double before = power(double(i) / steps);
        const double after = power(double(i + 1) / steps);
        betas[i] = std::min(1 - after / before, 0.999);
      }
    }
    set(betas);
  }
  /// From betas of one's own, each inside (0, 1). @throws value_error
  explicit discrete_schedule(const std::vector<double>& betas) {
    set(betas);
  }

  /// N, the number of steps that the schedule was made with.
  int steps() const {
    return int(log_alpha_.size());
  }
  /// beta_0 to beta_{N-1}, in the order of rising noise.
  const std::vector<double>& betas() const {
    return betas_;
  }
  /// ln alpha of step i, alpha^2 = abar_i.
  double log_alpha(int i) const {
    return log_alpha_.at(std::size_t(i));
  }
  /// abar_i, what is left of the signal's power at step i, counted from 0.
  double alphas_cumprod(int i) const {
    return std::exp(2 * log_alpha(i));
  }
  /// sigma of step i.
  double sigma_at(int i) const {
    return sigma_of(log_alpha(i));
  }

  /// ln alpha at a continuous time; node i is at (i + 1) / N.
  double log_alpha(double t) const {
    const double place = t * steps() - 1;
    const int i = std::clamp(int(std::floor(place)), 0, steps() - 2);
    return log_alpha_[i] + (place - i) * (log_alpha_[i + 1] - log_alpha_[i]);
  }
  /// alpha(t) = sqrt(abar), the image's scale.
  double signal(double t) const {
    return std::exp(log_alpha(t));
  }
  /// Noise over signal at a continuous time.
  double sigma(double t) const {
    return sigma_of(log_alpha(t));
  }
  /// The time of a noise level, the inverse of sigma(t).
  double t(double sigma) const {
    const double target = -0.5 * std::log1p(sigma * sigma);
    // log_alpha falls: the last segment that begins at or above the target.
    const auto it = std::upper_bound(log_alpha_.begin(), log_alpha_.end(), target,
                                     [](double v, double node) { return v > node; });
    const int i = std::clamp(int(it - log_alpha_.begin()) - 1, 0, steps() - 2);
    const double fall = log_alpha_[i + 1] - log_alpha_[i];
    return (i + 1 + (target - log_alpha_[i]) / fall) / steps();
  }
  /// The step whose sigma is nearest in ln alpha.
  int nearest(double sigma) const {
    const double place = t(sigma) * steps() - 1;
    return std::clamp(int(std::lround(place)), 0, steps() - 1);
  }
  /// Of the first step, 1 / N.
  double t_min() const {
    return 1.0 / steps();
  }
  /// Of the last step.
  double t_max() const {
    return 1;
  }

  /// Betas rescaled so that nothing of the signal is left at the last step (Lin, Liu, Li, Yang,
  /// arXiv 2305.08891, algorithm 1); the last alpha is kept at `floor` instead of 0, so that
  /// sigma stays finite.
  discrete_schedule zero_terminal_snr(double floor = 1e-4) const {
    const double first = std::exp(log_alpha_.front());
    const double last = std::exp(log_alpha_.back());
    std::vector<double> betas(betas_.size());
    double before = 1;
    for (std::size_t i = 0; i < betas.size(); ++i) {
      const double shifted = std::exp(log_alpha_[i]) - last;
      const double alpha = std::max(shifted * first / (first - last), floor);
      betas[i] = std::max(1 - alpha * alpha / (before * before), 1e-12);
      before = alpha;
    }
    return discrete_schedule(betas);
  }

  /// One object for each set of arguments, made once; safe to call from several threads.
  /// References stay good to the program's end.
  static const discrete_schedule& cached(beta_schedule kind,
                                         double beta_start,
                                         double beta_end,
                                         int steps) {
    struct entry {
      beta_schedule kind;
      double beta_start;
      double beta_end;
      int steps;
      discrete_schedule schedule;
    };
    static std::mutex guard;
    static std::forward_list<entry> made;  // a program has one or two
    const std::lock_guard lock(guard);
    for (const entry& e : made) {
      const bool same_ends = e.beta_start == beta_start && e.beta_end == beta_end;
      if (e.kind == kind && same_ends && e.steps == steps)
        return e.schedule;
    }
    discrete_schedule schedule(kind, beta_start, beta_end, steps);
    made.push_front({kind, beta_start, beta_end, steps, std::move(schedule)});
    return made.front().schedule;
  }

 private:
  /// sigma^2 = 1 / alpha^2 - 1
  static double sigma_of(double log_alpha) {
    return std::sqrt(std::expm1(-2 * log_alpha));
  }
  /// Sums up the logarithms. @throws value_error for betas out of range
  void set(const std::vector<double>& betas) {
    require<value_error>(betas.size() >= 2, "discrete schedule: ", betas.size(),
                         " betas; give at least 2");
    betas_ = betas;
    double sum = 0;
    for (std::size_t i = 0; i < betas.size(); ++i) {
      require<value_error>(betas[i] > 0 && betas[i] < 1, "discrete schedule: beta ", i, " = ",
                           betas[i], " is outside (0, 1)");
      sum += 0.5 * std::log1p(-betas[i]);
      log_alpha_.push_back(sum);
    }
  }
  std::vector<double> betas_;
  std::vector<double> log_alpha_;
};

/// A discrete schedule as a template argument of models; the default is latent diffusion's.
struct ddpm_schedule {
  beta_schedule betas = beta_schedule::scaled_linear;  ///< how betas rise
  double beta_start = 0.0015;  ///< beta of the first step; nothing to `cosine`
  double beta_end = 0.0195;    ///< beta of the last step; nothing to `cosine`
  int num_timesteps = 1000;    ///< N, steps of the discrete process

  /// The name that files use.
  static constexpr const char* name() {
    return "ddpm";
  }
  /// f(t) = d ln alpha / dt: the slope of the line between two steps.
  double drift(double t) const {
    const double h = 0.25 / num_timesteps;
    return (nodes().log_alpha(t + h) - nodes().log_alpha(t - h)) / (2 * h);
  }
  /// g(t) = sqrt(-2 f), since the variance is preserved.
  double diffusion(double t) const {
    return std::sqrt(-2 * drift(t));
  }
  /// The table behind it, made once for all values with the same settings.
  const discrete_schedule& nodes() const {
    return discrete_schedule::cached(betas, beta_start, beta_end, num_timesteps);
  }
  /// alpha(t) = sqrt(abar), the image's scale.
  double signal(double t) const {
    return nodes().signal(t);
  }
  /// Noise over signal, sqrt((1 - abar) / abar).
  double sigma(double t) const {
    return nodes().sigma(t);
  }
  /// The time of a noise level, (i + 1) / N at step i.
  double t(double sigma) const {
    return nodes().t(sigma);
  }
  /// Of the first step, 1 / N.
  double t_min() const {
    return 1.0 / num_timesteps;
  }
  /// Of the last step.
  double t_max() const {
    return 1;
  }
};

/// The noise levels of iDDPM's cosine schedule as EDM writes it (Karras et al., arXiv
/// 2206.00364, table 1): u_M = 0, u_{j-1} = sqrt((u_j^2 + 1) / max(abar_{j-1} / abar_j, 0.001)
/// - 1), abar_j = sin^2(pi j / (2 M 1.008)); u_0 is the largest.
inline const std::vector<double>& iddpm_levels() {
  static const std::vector<double> levels = [] {
    constexpr int m = 1000;
    std::vector<double> u(m + 1, 0.0);
    const auto power = [](int j) {
      const double s = std::sin(0.5 * 3.14159265358979323846 * j / (m * 1.008));
      return s * s;
    };
    for (int j = m; j > 0; --j) {
      const double ratio = std::max(power(j - 1) / power(j), 0.001);
      u[j - 1] = std::sqrt((u[j] * u[j] + 1) / ratio - 1);
    }
    return u;
  }();
  return levels;
}

}  // namespace multistage
