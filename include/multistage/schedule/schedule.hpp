// What a schedule is: x_t = signal(t) (x_0 + sigma(t) eps); sigma is the coordinate that everything else uses:
//   lambda = -ln sigma (half the log-SNR),  std = signal sigma.
#pragma once
#include <cmath>
#include <concepts>

namespace multistage {

template <class S>
concept noise_schedule = requires(const S& s, double v) {
  { s.signal(v) } -> std::convertible_to<double>;
  { s.sigma(v) } -> std::convertible_to<double>;
  { s.t(v) } -> std::convertible_to<double>;
  { s.t_min() } -> std::convertible_to<double>;
  { s.t_max() } -> std::convertible_to<double>;
};

/// Half the log-SNR at a time, and the time of a half log-SNR.
template <noise_schedule S>
double lambda(const S& s, double t) {
  return -std::log(s.sigma(t));
}
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
