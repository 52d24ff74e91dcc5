// Restart sampling (Xu, Deng, Cheng, Tian, Liu, Jaakkola, arXiv 2306.14878, algorithm 1):
// Heun's method down to an interval [low, high] of noise levels, then several times back up by
// fresh noise, sqrt(high^2 - low^2) z, and down again, which wears off errors made before.
#pragma once
#include "edm_heun.hpp"

namespace multistage {

/// Heun's method with restarts.
struct restart {
  int num_steps = 18;  ///< of the way down
  double sigma_min = 0.002;
  double sigma_max = 80;
  double rho = 7;
  std::vector<double> levels{};
  double low = 0.06;  ///< the interval that is walked again
  double high = 0.3;
  int repeats = 4;
  int repeat_steps = 5;  ///< levels from high to low, each time

  static constexpr const char* name() {
    return "restart";
  }
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
    std::vector<double> all = sampling::karras_levels_of(name(), *this);
    require<value_error>(all.back() < low && low < high && high <= all.front(),
                         "restart: low = ", low, ", high = ", high,
                         "; the interval ascends and lies inside the noise levels, ",
                         all.back(), " to ", all.front());
    return all;
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> x,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> all = sigmas();
    // Steps down to the first level at or below `low`, then the interval again and again, then
    // the rest.
    std::size_t turn = 0;
    while (turn + 1 < all.size() && all[turn] > low)
      ++turn;
    edm_heun::walk<Backend> w(b, x);
    int step = 0;
    const auto down = [&](const std::vector<double>& ends) {
      return w.heun(ends, denoise, observe, step);
    };
    std::vector<double> first(all.begin(), all.begin() + std::ptrdiff_t(turn));
    first.push_back(low);
    if (!down(first))
      return;
    std::vector<double> interval =
        sampling::karras_levels(name(), repeat_steps, low, high, rho);
    interval.pop_back();  // it ends at low
    tensor<double, Backend> z(b, x.extents);
    for (int r = 0; r < repeats; ++r) {
      noise(r, z.view());
      ops::linear_combination<Backend, double>(
          b, x.extents.size(), x.data,
          {{1, x.data}, {std::sqrt(high * high - low * low), z.data()}});
      if (!down(interval))
        return;
    }
    std::vector<double> rest{low};
    for (std::size_t i = turn; i < all.size(); ++i)
      if (all[i] < low)
        rest.push_back(all[i]);
    down(rest);
  }
};

}  // namespace multistage
