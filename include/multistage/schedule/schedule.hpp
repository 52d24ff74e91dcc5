// What a schedule is, and one chosen at run time. x_t = signal(t) (x_0 + sigma(t) eps); sigma is the coordinate that everything else uses:
//   lambda = -ln sigma (half the log-SNR),  std = signal sigma.
#pragma once
#include <concepts>
#include <string>
#include <variant>

#include "../core/error.hpp"
#include "cosine.hpp"
#include "discrete.hpp"
#include "edm.hpp"
#include "flow.hpp"
#include "sub_vp.hpp"
#include "ve.hpp"
#include "vp.hpp"

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

/// A schedule chosen by name; a schedule itself.
class any_schedule {
 public:
  using choice = std::variant<edm_schedule, vp_schedule, sub_vp_schedule, ve_schedule, cosine_schedule, flow_schedule, ddpm_schedule>;
  any_schedule(choice s = edm_schedule{}) : schedule_(std::move(s)) {}
  /// @throws value_error for a name that is none of edm, vp, sub_vp, ve, cosine, flow, ddpm.
  explicit any_schedule(const std::string& name) : schedule_(named(name, std::make_index_sequence<std::variant_size_v<choice>>())) {}

  const choice& get() const { return schedule_; }
  std::string name() const {
    return std::visit([](const auto& s) { return std::string(s.name()); }, schedule_);
  }
  double signal(double t) const {
    return std::visit([&](const auto& s) { return s.signal(t); }, schedule_);
  }
  double sigma(double t) const {
    return std::visit([&](const auto& s) { return s.sigma(t); }, schedule_);
  }
  double t(double sigma) const {
    return std::visit([&](const auto& s) { return s.t(sigma); }, schedule_);
  }
  double t_min() const {
    return std::visit([](const auto& s) { return s.t_min(); }, schedule_);
  }
  double t_max() const {
    return std::visit([](const auto& s) { return s.t_max(); }, schedule_);
  }

 private:
  template <std::size_t... I>
  static choice named(const std::string& name, std::index_sequence<I...>) {
    choice found;
    std::string known;
    bool any = false;
    const auto look = [&]<class S>(S s) {
      known += std::string(known.empty() ? "" : ", ") + S::name();
      if (name == S::name()) found = s, any = true;
    };
    (look(std::variant_alternative_t<I, choice>{}), ...);
    require<value_error>(any, "schedule '", name, "' is unknown; known: ", known);
    return found;
  }
  choice schedule_;
};

}  // namespace multistage
