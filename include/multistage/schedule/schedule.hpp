// What a schedule is: x_t = signal(t) (x_0 + sigma(t) eps); sigma is the coordinate that
// everything else uses:
//   lambda = -ln sigma (half the log-SNR),  std = signal sigma.
//
// Papers write one process in three ways, and this is how they map:
//
//   VP, DDPM   x = sqrt(abar) x_0 + sqrt(1 - abar) eps    signal = sqrt(abar)
//   VE, EDM    x = x_0 + sigma eps                        signal = 1
//   flow       x = (1 - t) x_0 + t eps                    signal = 1 - t, sigma = t / (1 - t)
//
// After division by the signal all three are x_0 + sigma eps. So stages, networks and samplers
// ask for sigma, and a schedule only says in which order and how densely noise levels are met.
#pragma once
#include <cmath>
#include <concepts>

#include "../core/error.hpp"
#include "../core/finite.hpp"

namespace multistage {

/// A schedule: any type with these five const functions. Times t run from t_min() to t_max(),
/// and sigma, the noise over the signal, rises with them.
///   signal(t)  the image's scale in x_t
///   sigma(t)   noise level of a time;  t(sigma)  its inverse
/// A process dx = f(t) x dt + g(t) dw with these marginals may be given, too, as drift(t) and
/// diffusion(t); samplers of stochastic equations ask for them.
template <class S>
concept noise_schedule = requires(const S& s, double v) {
  { s.signal(v) } -> std::convertible_to<double>;
  { s.sigma(v) } -> std::convertible_to<double>;
  { s.t(v) } -> std::convertible_to<double>;
  { s.t_min() } -> std::convertible_to<double>;
  { s.t_max() } -> std::convertible_to<double>;
};

/// Refuses a schedule whose own parameters leave it no noise levels (ve_schedule{0, 50}).
/// @throws value_error
template <noise_schedule S>
MULTISTAGE_COLD void check_schedule(const char* name, const S& s) {
  const double first = s.t_min();
  const double last = s.t_max();
  require<value_error>(is_finite(first) && is_finite(last) && first < last, "schedule ", name,
                       ": its times go from ", first, " to ", last,
                       "; they must ascend and be finite");
  const double low = s.sigma(first);
  const double high = s.sigma(last);
  require<value_error>(is_finite(low) && is_finite(high) && low >= 0 && low < high, "schedule ",
                       name, ": sigma goes from ", low, " at t = ", first, " to ", high,
                       " at t = ", last,
                       "; it must ascend and be finite: check the schedule's own parameters");
  require<value_error>(
      is_finite(double(s.t(high))), "schedule ", name, ": its time of sigma ", high, " is ",
      s.t(high),
      "; check the schedule's own parameters (of vp beta_min and beta_max must differ)");
}

/// Half the log-SNR at a time, -ln sigma: the coordinate in which DPM-Solver and its kin take
/// steps.
template <noise_schedule S>
double lambda(const S& s, double t) {
  return -std::log(s.sigma(t));
}
/// The inverse of `lambda`: the time of half a log-SNR.
template <noise_schedule S>
double time_of_lambda(const S& s, double l) {
  return s.t(std::exp(-l));
}
/// Standard deviation of the noise in x_t.
template <noise_schedule S>
double noise_std(const S& s, double t) {
  return s.signal(t) * s.sigma(t);
}

}  // namespace multistage
