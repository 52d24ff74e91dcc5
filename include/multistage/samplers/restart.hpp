// Restart sampling (Xu, Deng, Cheng, Tian, Liu, Jaakkola, arXiv 2306.14878, algorithm 1): Heun's method down to an interval [low, high] of noise levels, then
// several times back up by fresh noise, sqrt(high^2 - low^2) z, and down again, which wears off errors made before.
#pragma once
#include "edm_heun.hpp"

namespace multistage {

struct restart {
  edm_heun main{};  // the way down; its churn must be 0
  double low = 0.06, high = 0.3;
  int repeats = 4;
  int num_steps = 5;  // from high to low, each time

  std::vector<double> sigmas() const {
    require<value_error>(main.s_churn == 0, "restart: s_churn = ", main.s_churn, "; restarts are the noise here");
    require<value_error>(low > 0 && low < high && repeats >= 0 && num_steps >= 2, "restart: interval (", low, ", ", high, "), repeats = ", repeats,
                         ", num_steps = ", num_steps, "; 0 < low < high, repeats at least 0, num_steps at least 2");
    return main.sigmas();
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&& noise, Observe&& observe) const {
    const std::vector<double> all = sigmas();
    // Steps down to the first level at or below `low`, then the interval again and again, then the rest.
    std::size_t turn = 0;
    while (turn + 1 < all.size() && all[turn] > low) ++turn;
    edm_heun::walk<Backend> w(b, x);
    int step = 0;
    const auto down = [&](const std::vector<double>& levels) { return w.heun(levels, denoise, observe, step); };
    std::vector<double> first(all.begin(), all.begin() + std::ptrdiff_t(turn));
    first.push_back(low);
    if (!down(first)) return;
    edm_heun again = main;
    again.num_steps = num_steps;
    again.sigma_max = high;
    again.sigma_min = low;
    std::vector<double> interval = again.sigmas();
    interval.pop_back();  // it ends at low
    tensor<double, Backend> z(b, x.extents);
    for (int r = 0; r < repeats; ++r) {
      noise(r, z.view());
      ops::linear_combination<Backend, double>(b, x.extents.size(), x.data, {{1, x.data}, {std::sqrt(high * high - low * low), z.data()}});
      if (!down(interval)) return;
    }
    std::vector<double> rest{low};
    for (std::size_t i = turn; i < all.size(); ++i)
      if (all[i] < low) rest.push_back(all[i]);
    down(rest);
  }
};

}  // namespace multistage
