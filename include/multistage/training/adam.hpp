// Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1), its weight decay apart from the gradient
// (AdamW: Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), and the moving average of the
// weights, in one pass over memory:
//   w *= 1 - lr decay,   m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2,
//   w -= lr m^ / (sqrt(v^) + eps),   average += (1 - beta) (w - average).
//
// m^ and v^ are m and v over 1 - b^t, which undoes their start at 0. One pass reads g and w,
// m, v and the average, and writes all but g: five arrays, which is what the update's time is.
#pragma once
#include <cmath>
#include <cstdint>

#include "../core/extents.hpp"
#include "../core/options.hpp"

namespace multistage {

/// Adam's decays of both moments, and what keeps its division from 0.
struct adam_options {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    constexpr number_range decay{0, 1, true, false};
    visit(option{"adam.beta1", "decay of the mean of gradients", decay}, self.beta1);
    visit(option{"adam.beta2", "decay of the mean of their squares", decay}, self.beta2);
    visit(option{"adam.epsilon", "added to the root of that mean", above(0)}, self.epsilon);
    visit(
        option{"adam.weight_decay",
               "share of the weights, times the learning rate, that a step takes off (AdamW); "
               "biases and norms are exempt",
               at_least(0)},
        self.weight_decay);
  }
};

namespace functor {
/// One weight's step, moments and average.
template <class T, bool Decays = false>
struct adam_and_average {
  const T* gradient;
  T* weight;
  T* first;
  T* second;
  T* average;
  T beta1;
  T beta2;
  T epsilon;
  T rate;
  T correction1;  // 1 / (1 - beta1^k) after k updates
  T correction2;  // 1 / (1 - beta2^k)
  T gradient_scale;
  T keep;                                // beta of the average
  bool update;                           // false: the weights rest, the average moves on
  T kept = T(1);                         // of a weight that decays: 1 - rate * decay
  const std::uint8_t* decays = nullptr;  // which do
  MULTISTAGE_HD void operator()(index_t i) const {
    T w = weight[i];
    if (update) {
      if constexpr (Decays)
        w *= decays[i] ? kept : T(1);
      const T g = gradient[i] * gradient_scale;
      const T m = first[i] = beta1 * first[i] + (T(1) - beta1) * g;
      const T v = second[i] = beta2 * second[i] + (T(1) - beta2) * g * g;
      w -= rate * (m * correction1) / (T(::sqrt(v * correction2)) + epsilon);
      weight[i] = w;
    }
    average[i] += (T(1) - keep) * (w - average[i]);
  }
};
}  // namespace functor

/// Weights that one pass moves, with what Adam keeps of them; memory of the backend.
template <class T>
struct adam_weights {
  index_t count;                         ///< how many
  const T* gradient;                     ///< of the loss by them
  T* weight;                             ///< moved in place
  T* first;                              ///< mean of gradients
  T* second;                             ///< mean of their squares
  T* average;                            ///< of the weights
  const std::uint8_t* decays = nullptr;  ///< which decay; null: none
};

/// How far a pass goes.
struct adam_step {
  index_t updates;            ///< of these weights, with this one
  double rate;                ///< the learning rate
  double gradient_scale = 1;  ///< a factor on the gradient
  double keep = 0;            ///< what the average keeps of itself
  bool moves = true;          ///< false: the weights rest, the average moves on
};

namespace detail {
template <bool Decays, class T, class Backend>
void adam_pass(const Backend& b,
               const adam_options& o,
               const adam_weights<T>& w,
               const adam_step& s) {
  const auto correction = [&](double beta) {
    return T(s.moves ? 1 / (1 - std::pow(beta, double(s.updates))) : 0);
  };
  functor::adam_and_average<T, Decays> step{w.gradient,
                                            w.weight,
                                            w.first,
                                            w.second,
                                            w.average,
                                            T(o.beta1),
                                            T(o.beta2),
                                            T(o.epsilon),
                                            T(s.rate),
                                            correction(o.beta1),
                                            correction(o.beta2),
                                            T(s.gradient_scale),
                                            T(s.keep),
                                            s.moves};
  if constexpr (Decays) {
    step.kept = T(1 - s.rate * o.weight_decay);
    step.decays = w.decays;
  }
  b.for_each_index(w.count, step);
}
}  // namespace detail

/// One step of Adam and of the average, in one pass. Nothing fails.
template <class T, class Backend>
void adam_pass(const Backend& b,
               const adam_options& o,
               const adam_weights<T>& w,
               const adam_step& s) {
  if (w.decays != nullptr)
    detail::adam_pass<true>(b, o, w, s);
  else
    detail::adam_pass<false>(b, o, w, s);
}

}  // namespace multistage
