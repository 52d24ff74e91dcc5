// Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1) and the exponential moving average of the
// weights, in one pass over memory:
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  w -= lr m^ / (sqrt(v^) + eps),  average
//   += (1 - beta) (w - average).
#pragma once
#include <cmath>

#include "../core/config.hpp"

namespace multistage {

/// Adam's decays of both moments, and what keeps its division from 0.
struct adam_options {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
};

namespace functor {
template <class T>
struct adam_and_average {
  const T* gradient;
  T* weight;
  T* first;
  T* second;
  T* average;
  // corrections: 1 / (1 - beta^k) after k updates
  T beta1;
  T beta2;
  T epsilon;
  T rate;
  T correction1;
  T correction2;
  // keep: beta of the average
  T gradient_scale;
  T keep;
  bool update;  // false: the weights rest, the average moves on
  MULTISTAGE_HD void operator()(index_t i) const {
    T w = weight[i];
    if (update) {
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

}  // namespace multistage
