// Activation functions of one number and their derivatives, for functors of every backend.
#pragma once
#include <cmath>
#include <type_traits>

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
  MULTISTAGE_HD static float exp(float x) {
    return ::expf(x);
  }
  MULTISTAGE_HD static double exp(double x) {
    return ::exp(x);
  }
  /// Other scalars, on the host: long double's, or those of the type's own namespace.
  template <class T>
  static T exp(const T& x) {
    using std::exp;
    return exp(x);
  }
};

/// Computed in double, or in T where that is more.
struct gelu_function {
  template <class T>
  using wide = std::conditional_t<(sizeof(T) > sizeof(double)), T, double>;
  template <class W>
  static constexpr W half_root{0.70710678118654752440L};  ///< 1 / sqrt 2
  template <class W>
  static constexpr W normal_peak{0.39894228040143267794L};  ///< 1 / sqrt(2 pi)

  template <class T>
  MULTISTAGE_HD static T value(T x) {
    return T(0.5) * x * (T(1) + T(erf(wide<T>(x) * half_root<wide<T>>)));
  }
  template <class T>
  MULTISTAGE_HD static T derivative(T x) {
    const wide<T> d = x;
    return T(0.5 * (1 + erf(d * half_root<wide<T>>)) +
             d * normal_peak<wide<T>> * silu_function::exp(-0.5 * d * d));
  }
  MULTISTAGE_HD static double erf(double x) {
    return ::erf(x);
  }
  /// Other scalars, on the host.
  template <class T>
  static T erf(const T& x) {
    using std::erf;
    return erf(x);
  }
};

}  // namespace multistage
