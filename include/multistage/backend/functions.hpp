// Activation functions of one number and their derivatives, for functors of every backend.
//
// A function is a type with `value` and `derivative`, so that one template serves every
// function and compilers see through it.
//
//   silu_function::value(2.0f);          // 2 sigmoid(2)
//   silu_function::derivative(2.0f);     // by which backward multiplies
#pragma once
#include <cmath>
#include <type_traits>

#include "../core/config.hpp"

namespace multistage {

/// x sigmoid(x). In its own precision: float stays float on devices.
struct silu_function {
  /// What messages call it.
  static constexpr const char* name = "silu";
  /// x / (1 + e^-x).
  template <class T>
  MULTISTAGE_HD static T value(T x) {
    return x / (T(1) + exp(-x));
  }
  /// s (1 + x (1 - s)), where s = sigmoid(x).
  template <class T>
  MULTISTAGE_HD static T derivative(T x) {
    const T s = T(1) / (T(1) + exp(-x));
    return s * (T(1) + x * (T(1) - s));
  }
  /// e^x by the function that devices have for float.
  MULTISTAGE_HD static float exp(float x) {
    return ::expf(x);
  }
  /// e^x by the function that devices have for double.
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
  /// What messages call it.
  static constexpr const char* name = "gelu";
  /// double, or T where T is wider.
  template <class T>
  using wide = std::conditional_t<(sizeof(T) > sizeof(double)), T, double>;
  /// 1 / sqrt 2.
  template <class W>
  static constexpr W half_root{0.70710678118654752440L};
  /// 1 / sqrt(2 pi).
  template <class W>
  static constexpr W normal_peak{0.39894228040143267794L};

  /// x P(X <= x) of a standard normal X.
  template <class T>
  MULTISTAGE_HD static T value(T x) {
    return T(0.5) * x * (T(1) + T(erf(wide<T>(x) * half_root<wide<T>>)));
  }
  /// P(X <= x) + x p(x), p the normal density.
  template <class T>
  MULTISTAGE_HD static T derivative(T x) {
    const wide<T> d = x;
    return T(0.5 * (1 + erf(d * half_root<wide<T>>)) +
             d * normal_peak<wide<T>> * silu_function::exp(-0.5 * d * d));
  }
  /// The error function that devices have.
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

/// max(x, 0); the derivative at 0 is 0. NaN passes through.
struct relu_function {
  /// What messages call it.
  static constexpr const char* name = "relu";
  /// max(x, 0).
  template <class T>
  MULTISTAGE_HD static T value(T x) {
    return x < T(0) ? T(0) : x;
  }
  /// 1 above 0, else 0.
  template <class T>
  MULTISTAGE_HD static T derivative(T x) {
    return x > T(0) ? T(1) : T(0);
  }
};

/// x above 0, 0.2 x below; the derivative at 0 is 0.2. NaN passes through.
struct leaky_relu_function {
  /// What messages call it.
  static constexpr const char* name = "leaky_relu";
  /// max(x, 0.2 x).
  template <class T>
  MULTISTAGE_HD static T value(T x) {
    return x < T(0) ? T(0.2) * x : x;
  }
  /// 1 above 0, else 0.2.
  template <class T>
  MULTISTAGE_HD static T derivative(T x) {
    return x > T(0) ? T(1) : T(0.2);
  }
};

}  // namespace multistage
