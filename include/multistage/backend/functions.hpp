// Activation functions of one number and their derivatives, for functors of every backend.
#pragma once
#include <cmath>

#include "../core/config.hpp"

namespace multistage {

struct silu_function {
  template <class T>
  MULTISTAGE_HD static T value(T x) {
    return x / (T(1) + exp(-x));
  }
  template <class T>
  MULTISTAGE_HD static T derivative(T x) {
    const T s = T(1) / (T(1) + exp(-x));
    return s * (T(1) + x * (T(1) - s));
  }
  MULTISTAGE_HD static float exp(float x) { return ::expf(x); }
  MULTISTAGE_HD static double exp(double x) { return ::exp(x); }
  /// Other scalars, on the host: long double's, or those of the type's own namespace.
  template <class T>
  static T exp(const T& x) {
    using std::exp;
    return exp(x);
  }
};

struct gelu_function {
  template <class T>
  MULTISTAGE_HD static T value(T x) {
    return T(0.5) * x * (T(1) + T(::erf(double(x) * 0.70710678118654752440)));
  }
  template <class T>
  MULTISTAGE_HD static T derivative(T x) {
    const double d = x;
    return T(0.5 * (1 + ::erf(d * 0.70710678118654752440)) + d * 0.39894228040143267794 * ::exp(-0.5 * d * d));
  }
};

}  // namespace multistage
