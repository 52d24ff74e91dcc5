// Restart sampling (Xu, Deng, Cheng, Tian, Liu, Jaakkola, arXiv 2306.14878, algorithm 1):
// Heun's method down to an interval [low, high] of noise levels, then several times back up by
// fresh noise, sqrt(high^2 - low^2) z, and down again, which wears off errors made before.
//
//   sample(model, restart{.num_steps = 18, .repeats = 2}, {.seeds = "0-15"});
#pragma once
#include <algorithm>
#include <iterator>

#include "edm_heun.hpp"

namespace multistage {

/// Heun's method with restarts.
struct restart {
  int num_steps = 18;            ///< of the way down
  double sigma_min = 0.002;      ///< lowest noise level above 0
  double sigma_max = 80;         ///< highest noise level
  double rho = 7;                ///< how the steps crowd towards low noise
  std::vector<double> levels{};  ///< the ends of the steps, in the place of all these
  double low = 0.06;             ///< the interval that is walked again
  double high = 0.3;
  int repeats = 4;
  int repeat_steps = 5;  ///< levels from high to low, each time

  /// What programs call it.
  static constexpr const char* name() {
    return "restart";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::karras_fields(s, visit);
    visit(option{"low", "lower end of the interval that is walked again", above(0)}, s.low);
    visit(option{"high", "upper end of the interval that is walked again", above(0)}, s.high);
    visit(option{"repeats", "how often it is walked again", between(0, 1'000'000)}, s.repeats);
    visit(option{"repeat_steps", "noise levels from high to low, each time",
                 between(2, 1'000'000)},
          s.repeat_steps);
  }

  /// The ends of the steps of the way down. @throws value_error naming the option that is out
  /// of range
  std::vector<double> sigmas() const {
    std::vector<double> all = sampling::karras_levels_of(*this);
    require<value_error>(all.back() < low && low < high && high <= all.front(),
                         "restart: low = ", low, ", high = ", high,
                         "; the interval ascends and lies inside the noise levels, ",
                         all.back(), " to ", all.front());
    return all;
  }

  /// Moves x [rows, h, w, c] from the first level to the last. @see samplers/walk.hpp
  template <class Backend, denoiser Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> start,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> all = sigmas();
    sampling::walk w(b, start, denoise, noise, observe);
    sampling::heun_method heun(w);
    auto z = w.make();
    int step = 0;
    // Down to the first level at or below `low`, which ends at `low` itself.
    const auto turn = std::find_if(all.begin(), all.end(), [&](double t) { return t <= low; });
    std::vector<double> first(all.begin(), turn);
    first.push_back(low);
    if (!heun.steps(first, step))
      return;
    // The interval again and again.
    std::vector<double> interval =
        sampling::karras_levels(name(), repeat_steps, low, high, rho);
    interval.pop_back();  // it ends at low
    for (int r = 0; r < repeats; ++r) {
      w.noise(r, z);
      w.x = w.x + std::sqrt(high * high - low * low) * z;
      if (!heun.steps(interval, step))
        return;
    }
    // The rest.
    std::vector<double> rest{low};
    std::copy_if(turn, all.end(), std::back_inserter(rest), [&](double t) { return t < low; });
    heun.steps(rest, step);
  }
};

}  // namespace multistage
