// A schedule chosen at run time.
#pragma once
#include <string>
#include <utility>
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
