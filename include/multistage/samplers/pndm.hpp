// PNDM's pseudo linear multistep method (Liu, Ren, Lin, Zhao, arXiv 2202.09778, eq. 12):
// Adams-Bashforth's weights on the predicted noise, DDIM's transfer between noise levels. It
// starts without Runge-Kutta steps: the first step is done twice, the second time with the mean
// of the noises at both its ends. n steps take n + 1 evaluations.
#pragma once
#include "walk.hpp"

namespace multistage {

/// PNDM. Its weights are made for levels at equal distances in t.
struct pndm {
  int num_steps = 18;
  double sigma_min = 0.002;
  double sigma_max = 80;
  spacing steps = spacing::log_snr;
  any_schedule schedule{};
  std::vector<double> levels{};
  stage_crossing crossing{};

  static constexpr const char* name() {
    return "pndm";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::level_fields(s, visit);
    sampling::crossing_field(s, visit);
  }

  /// Why an option does nothing beside these others; null where it does something.
  const char* idle(std::string_view option) const {
    return sampling::idle_schedule(*this, option);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return crossing.aligned(sampling::levels_of(name(), *this, false));
  }
  double start_scale() const {
    return sampling::unit_start(sigmas().front());
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&&, Observe&& observe)
      const {
    static constexpr double weights[4][4] = {{1, 0, 0, 0},
                                             {1.5, -0.5, 0, 0},
                                             {23 / 12.0, -16 / 12.0, 5 / 12.0, 0},
                                             {55 / 24.0, -59 / 24.0, 37 / 24.0, -9 / 24.0}};
    const std::vector<double> s = sigmas();
    sampling::work<Backend> w{b, x};
    auto d = w.make();
    auto next = w.make();
    auto second = w.make();
    typename sampling::work<Backend>::memory eps{{}, {}, 4};
    const auto noise_at = [&](const double* at, double sigma, auto& e) {
      denoise(view<const double>(at, x.extents), sigma, d.view());
      w.combine(e.data(), {{1 / sigma, at}, {-1 / sigma, d.data()}});
    };
    for (int i = 0; i + 1 < int(s.size()); ++i) {
      if (i > 0 && !crossing.keeps_history(s[i - 1], s[i]))
        eps.forget();
      noise_at(x.data, s[i], eps.push(w, s[i]));
      if (!observe(i, s[i], view<const double>(x), std::as_const(d).view()))
        return;
      const double h = s[i + 1] - s[i];
      const double* c = weights[eps.size() - 1];
      if (eps.size() == 1 && s[i + 1] > 0) {
        w.combine(next.data(), {{1, x.data}, {h, eps[0]}});
        noise_at(next.data(), s[i + 1], second);
        w.combine(x.data, {{1, x.data}, {h / 2, eps[0]}, {h / 2, second.data()}});
      } else {
        w.combine(x.data,
                  eps.add_to({{1, x.data}}, std::array{h * c[0], h * c[1], h * c[2], h * c[3]},
                             eps.size()));
      }
    }
  }
};

}  // namespace multistage
