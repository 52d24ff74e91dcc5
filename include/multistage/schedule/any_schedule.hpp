// A schedule chosen at run time: one of the library's, by name or value, or one of the user's
// own.
//
//   any_schedule named("vp");
//   any_schedule given(ve_schedule{.sigma_min = 0.02});
//   any_schedule mine(my_schedule{});          // of a type of yours that meets noise_schedule
//
// A variant of the library's types and one place for others: files can say which it is, and
// as_it_is(s.get(), f) gives an algorithm the schedule's own type.
#pragma once
#include <concepts>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "../core/as_it_is.hpp"
#include "../core/error.hpp"
#include "cosine.hpp"
#include "discrete.hpp"
#include "edm.hpp"
#include "flow.hpp"
#include "schedule.hpp"
#include "sub_vp.hpp"
#include "ve.hpp"
#include "vp.hpp"

namespace multistage {

/// A schedule of a type that the library does not know. Copies share it; it is never changed.
class custom_schedule {
 public:
  /// Keeps a copy of the schedule on the heap.
  template <noise_schedule S>
  explicit custom_schedule(S s)
      : schedule_(std::make_shared<holder<S>>(std::move(s))) {}
  /// What error texts call it; no file has a name for it.
  static constexpr const char* name() {
    return "custom";
  }
  /// @see noise_schedule
  double signal(double t) const {
    return schedule_->signal(t);
  }
  /// @see noise_schedule
  double sigma(double t) const {
    return schedule_->sigma(t);
  }
  /// @see noise_schedule
  double t(double sigma) const {
    return schedule_->t(sigma);
  }
  /// @see noise_schedule
  double t_min() const {
    return schedule_->t_min();
  }
  /// @see noise_schedule
  double t_max() const {
    return schedule_->t_max();
  }

 private:
  /// What is asked of a schedule whose type is not known.
  struct base {
    virtual ~base() = default;
    virtual double signal(double t) const = 0;
    virtual double sigma(double t) const = 0;
    virtual double t(double sigma) const = 0;
    virtual double t_min() const = 0;
    virtual double t_max() const = 0;
  };
  template <class S>
  struct holder final : base {
    S s;
    explicit holder(S given)
        : s(std::move(given)) {}
    double signal(double t) const override {
      return s.signal(t);
    }
    double sigma(double t) const override {
      return s.sigma(t);
    }
    double t(double sigma) const override {
      return s.t(sigma);
    }
    double t_min() const override {
      return s.t_min();
    }
    double t_max() const override {
      return s.t_max();
    }
  };
  std::shared_ptr<const base> schedule_;
};

/// A schedule of any kind; a schedule itself.
class any_schedule {
 public:
  /// What files and command lines can name, and last one of the user's own.
  using choice = std::variant<edm_schedule,
                              vp_schedule,
                              sub_vp_schedule,
                              ve_schedule,
                              cosine_schedule,
                              flow_schedule,
                              ddpm_schedule,
                              custom_schedule>;

  any_schedule() = default;
  /// Of a schedule's value, also of a type of the user's own. @throws value_error for
  /// parameters that leave it no noise levels
  template <class S>
  requires(!std::same_as<S, any_schedule> && !std::convertible_to<S, std::string> &&
           noise_schedule<S>) any_schedule(S s)
      : schedule_(kept(std::move(s))) {}
  /// @throws value_error for a name that is none of edm, vp, sub_vp, ve, cosine, flow, ddpm.
  explicit any_schedule(const std::string& name)
      : schedule_(by_name(name, std::make_index_sequence<custom_at>())) {}

  /// The schedule itself, for as_it_is.
  const choice& get() const {
    return schedule_;
  }
  /// The name that files use: "edm", "vp", ...; "custom" for one of the user's own.
  std::string name() const {
    return as_it_is(schedule_, [](const auto& s) { return std::string(s.name()); });
  }
  /// The image's scale at a time. @see noise_schedule
  double signal(double t) const {
    return as_it_is(schedule_, [&](const auto& s) { return s.signal(t); });
  }
  /// The noise level of a time. @see noise_schedule
  double sigma(double t) const {
    return as_it_is(schedule_, [&](const auto& s) { return s.sigma(t); });
  }
  /// The time of a noise level. @see noise_schedule
  double t(double sigma) const {
    return as_it_is(schedule_, [&](const auto& s) { return s.t(sigma); });
  }
  /// The least noise level's time.
  double t_min() const {
    return as_it_is(schedule_, [](const auto& s) { return s.t_min(); });
  }
  /// The largest noise level's time.
  double t_max() const {
    return as_it_is(schedule_, [](const auto& s) { return s.t_max(); });
  }

 private:
  static constexpr std::size_t custom_at = std::variant_size_v<choice> - 1;
  template <class S, std::size_t... I>
  static constexpr bool is_named(std::index_sequence<I...>) {
    return (std::same_as<S, std::variant_alternative_t<I, choice>> || ...);
  }
  /// A schedule of one's own, or one of the library's as it is.
  template <class S>
  static choice kept(S s) {
    if constexpr (requires { S::name(); })
      check_schedule(S::name(), s);
    else
      check_schedule("custom", s);
    if constexpr (is_named<S>(std::make_index_sequence<custom_at>()))
      return choice(std::move(s));
    else
      return choice(custom_schedule(std::move(s)));
  }
  template <std::size_t... I>
  static choice by_name(const std::string& name, std::index_sequence<I...>) {
    choice found;
    std::string known;
    bool any = false;
    const auto look = [&]<class S>(S s) {
      known += std::string(known.empty() ? "" : ", ") + S::name();
      if (name != S::name())
        return;
      found = s;
      any = true;
    };
    (look(std::variant_alternative_t<I, choice>{}), ...);
    require<value_error>(any, "schedule '", name, "' is unknown; known: ", known);
    return found;
  }
  choice schedule_;
};

}  // namespace multistage
