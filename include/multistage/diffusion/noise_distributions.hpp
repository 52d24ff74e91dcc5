// How training draws noise levels: a distribution of sigma, as a choice of stage by its
// probability and an exact draw inside the stage by the inverse of the truncated distribution
// (arXiv 2312.09181, section 4). A distribution is a type with its distribution function and
// the inverse; that is all that stages need, and one of a user's own is as good as these:
//   log_normal    ln sigma ~ N(p_mean, p_std^2)            Karras et al., arXiv 2206.00364
//   log_uniform   ln sigma uniform: uniform in log-SNR
//   time_uniform  t of a schedule uniform                  Song et al., arXiv 2011.13456
//   time_kneed    t uniform below a knee and `suppression` times rarer above it, where
//                 denoising hardly depends on t: the asymmetric draws of SpeeD
//                                                          Wang et al., arXiv 2405.17403
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "../core/normal.hpp"
#include "../core/options.hpp"
#include "../schedule/schedule.hpp"
#include "../schedule/vp.hpp"
#include "../stages/partition.hpp"

namespace multistage {

/// What a distribution of noise levels is: cumulative(sigma), the probability of levels up to a
/// finite sigma above 0, and quantile(share), its inverse on (0, 1).
template <class D>
concept noise_distribution = requires(const D& d, double v) {
  { d.cumulative(v) } -> std::convertible_to<double>;
  { d.quantile(v) } -> std::convertible_to<double>;
};

/// ln sigma ~ N(p_mean, p_std^2).
struct log_normal_levels {
  double p_mean = -1.2;
  double p_std = 1.2;

  /// Its name.
  static constexpr const char* name() {
    return "log_normal";
  }
  /// Names the parameters (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"p_mean", "mean of ln sigma"}, self.p_mean);
    visit(option{"p_std", "standard deviation of ln sigma", above(0)}, self.p_std);
  }
  /// The normal variable of a level; infinite at its ends.
  double standard(double sigma) const {
    return sigma <= 0          ? -HUGE_VAL
           : std::isinf(sigma) ? HUGE_VAL
                               : (std::log(sigma) - p_mean) / p_std;
  }
  /// The probability of levels up to sigma.
  double cumulative(double sigma) const {
    return normal_cdf(standard(sigma));
  }
  /// The level below which a share of the levels is.
  double quantile(double share) const {
    return std::exp(p_mean + p_std * normal_quantile(share));
  }
};
/// t = sigma / (1 + sigma) with logit t ~ N(p_mean, p_std^2) (Esser et al., arXiv 2403.03206):
/// logit t is ln sigma, so this is the same distribution.
using logit_normal_levels = log_normal_levels;

/// ln sigma uniform between two levels.
struct log_uniform_levels {
  double sigma_min = 0.002;
  double sigma_max = 80;

  /// Its name.
  static constexpr const char* name() {
    return "log_uniform";
  }
  /// Names the parameters (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"sigma_min", "the lowest level", above(0)}, self.sigma_min);
    visit(option{"sigma_max", "the highest level", above(0)}, self.sigma_max);
  }
  /// The probability of levels up to sigma.
  double cumulative(double sigma) const {
    return std::clamp(std::log(sigma / sigma_min) / std::log(sigma_max / sigma_min), 0.0, 1.0);
  }
  /// The level below which a share of the levels is.
  double quantile(double share) const {
    return sigma_min * std::pow(sigma_max / sigma_min, share);
  }
};
/// How parameters must go together. @throws value_error
inline void check_rules(const log_uniform_levels& d) {
  require<value_error>(d.sigma_min < d.sigma_max, "log_uniform: levels from sigma ",
                       d.sigma_min, " to ", d.sigma_max, "; they must ascend");
}

/// The time of a schedule uniform between its ends.
template <noise_schedule Schedule = vp_schedule>
struct time_uniform_levels {
  Schedule schedule{};  ///< whose times they are

  /// Its name.
  static constexpr const char* name() {
    return "time_uniform";
  }
  /// The probability of levels up to sigma.
  double cumulative(double sigma) const {
    return std::clamp(
        (schedule.t(sigma) - schedule.t_min()) / (schedule.t_max() - schedule.t_min()), 0.0,
        1.0);
  }
  /// The level below which a share of the levels is.
  double quantile(double share) const {
    return schedule.sigma(schedule.t_min() + share * (schedule.t_max() - schedule.t_min()));
  }
};

/// The time of a schedule uniform below a knee, and rarer above.
template <noise_schedule Schedule = vp_schedule>
struct time_kneed_levels {
  double knee = 0.7;
  double suppression = 5;
  Schedule schedule{};  ///< whose times they are

  /// Its name.
  static constexpr const char* name() {
    return "time_kneed";
  }
  /// Names the parameters (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"knee", "as a share of the times", inside(0, 1)}, self.knee);
    visit(option{"suppression", "how much rarer times above the knee are", above(0)},
          self.suppression);
  }
  /// The probability of levels up to sigma.
  double cumulative(double sigma) const {
    const double t = time_uniform_levels<Schedule>{schedule}.cumulative(sigma);
    return (std::min(t, knee) + std::max(t - knee, 0.0) / suppression) /
           (knee + (1 - knee) / suppression);
  }
  /// The level below which a share of the levels is.
  double quantile(double share) const {
    const double scaled = share * (knee + (1 - knee) / suppression);
    const double t = scaled <= knee ? scaled : knee + (scaled - knee) * suppression;
    return time_uniform_levels<Schedule>{schedule}.quantile(t);
  }
};

namespace detail {
/// The distribution function, which types need not know at 0 and at infinity.
template <noise_distribution D>
double share_up_to(const D& d, double sigma) {
  return sigma <= 0 ? 0.0 : std::isinf(sigma) ? 1.0 : double(d.cumulative(sigma));
}
}  // namespace detail

/// The probability of levels in (lower, upper]; lower from 0, upper to infinity.
template <noise_distribution D>
double probability_between(const D& d, double lower, double upper) {
  return detail::share_up_to(d, upper) - detail::share_up_to(d, lower);
}
/// A level in (lower, upper] from a uniform number in (0, 1), up to rounding.
template <noise_distribution D>
double draw_between(const D& d, double lower, double upper, double uniform) {
  const double a = detail::share_up_to(d, lower);
  const double b = detail::share_up_to(d, upper);
  return d.quantile(a + uniform * (b - a));
}
/// The same; far above the mean the other tail is taken, which keeps digits.
inline double probability_between(const log_normal_levels& d, double lower, double upper) {
  const double a = d.standard(lower);
  const double b = d.standard(upper);
  return a > 0 ? normal_cdf(-a) - normal_cdf(-b) : normal_cdf(b) - normal_cdf(a);
}
/// As above.
inline double draw_between(const log_normal_levels& d,
                           double lower,
                           double upper,
                           double uniform) {
  const double a = d.standard(lower);
  const double b = d.standard(upper);
  const double z =
      a > 0 ? -normal_quantile(normal_cdf(-a) + uniform * (normal_cdf(-b) - normal_cdf(-a)))
            : normal_quantile(normal_cdf(a) + uniform * (normal_cdf(b) - normal_cdf(a)));
  return std::exp(d.p_mean + d.p_std * z);
}

/// A distribution of noise levels of any type, the library's or the user's own. Copies share
/// it; it is never changed.
class noise_level_draws {
 public:
  /// EDM's: log_normal_levels.
  noise_level_draws()
      : noise_level_draws(log_normal_levels{}) {}
  /// Of a distribution's value. @throws value_error for parameters out of range
  template <noise_distribution D>
  noise_level_draws(D d)
      : held_(std::make_shared<holder<D>>(std::move(d))) {
    const D& given = static_cast<const holder<D>&>(*held_).d;
    if constexpr (requires { D::fields(given, [](const option&, const auto&) {}); })
      check_options(held_->name(), given);
    if constexpr (requires { check_rules(given); })
      check_rules(given);
  }
  /// One of the library's with its usual parameters. @throws value_error for a name that is
  /// none of log_normal, log_uniform, time_uniform, time_kneed. A template, so that units which
  /// do not ask by name compile no other distribution
  template <std::same_as<std::string> Name>
  explicit noise_level_draws(const Name& name)
      : noise_level_draws(
            made_from_name<noise_level_draws,
                           log_normal_levels,
                           log_uniform_levels,
                           time_uniform_levels<>,
                           time_kneed_levels<>>("noise level distribution", name)) {}

  /// The distribution's; `custom` of one without.
  std::string name() const {
    return held_->name();
  }
  /// The probability of each stage.
  std::vector<double> stage_probabilities(const partition& p) const {
    std::vector<double> probability;
    for (int s = 0; s < p.stage_count(); ++s)
      probability.push_back(held_->probability(p.lower(s), p.upper(s)));
    return probability;
  }
  /// A noise level inside a stage from a uniform number in (0, 1). @throws value_error where a
  /// distribution of the user's own returns no number
  double draw(const partition& p, int stage, double uniform) const {
    const double lower = p.lower(stage);
    const double upper = p.upper(stage);
    const double sigma = held_->draw(lower, upper, uniform);
    require<value_error>(!std::isnan(sigma), "noise levels ", held_->name(),
                         ": quantile returns no number (NaN) for a level of the stage from ",
                         lower, " to ", upper,
                         "; it must return a level above 0 for every share in (0, 1)");
    return std::min(std::max(sigma, std::nextafter(lower, HUGE_VAL)),
                    upper);  // rounding must not leave the stage
  }

 private:
  struct base {
    virtual ~base() = default;
    virtual const char* name() const = 0;
    virtual double probability(double lower, double upper) const = 0;
    virtual double draw(double lower, double upper, double uniform) const = 0;
  };
  template <class D>
  struct holder final : base {
    D d;
    explicit holder(D given)
        : d(std::move(given)) {}
    const char* name() const override {
      if constexpr (requires { D::name(); })
        return D::name();
      else
        return "custom";
    }
    double probability(double lower, double upper) const override {
      return probability_between(d, lower, upper);
    }
    double draw(double lower, double upper, double uniform) const override {
      return draw_between(d, lower, upper, uniform);
    }
  };
  std::shared_ptr<const base> held_;
};

}  // namespace multistage
