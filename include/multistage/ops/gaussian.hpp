// A diagonal Gaussian as a latent image (Kingma and Welling, arXiv 1312.6114): from moments
// [mean, log variance] along the channels, the log variance clamped to [-30, 20], a sample z =
// mean + exp(logvar / 2) n and its divergence from a standard normal,
//   KL = 1/2 sum (mean^2 + exp(logvar) - 1 - logvar)   for each row.
//
// The sample is written with n drawn outside, so that gradients flow to the moments: dmean =
// dz, dlogvar = dz (z - mean) / 2, and none to a log variance that the clamp holds. The
// divergence adds mean and (exp(logvar) - 1) / 2 times its weight.
#pragma once
#include <cmath>

#include "shape_rules.hpp"

namespace multistage::ops {

namespace functor {
inline constexpr double least_log_variance = -30;
inline constexpr double greatest_log_variance = 20;

/// A log variance within what is taken as it is.
MULTISTAGE_HD inline double clamped_log_variance(double raw) {
  return ::fmin(::fmax(raw, least_log_variance), greatest_log_variance);
}

/// z = mean + exp(logvar / 2) noise; the mean without noise.
template <class T>
struct gaussian_sample {
  const T* moments;
  const T* noise;
  index_t channels;
  T* z;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t at = i / channels * 2 * channels + i % channels;
    const T mean = moments[at];
    const double v = clamped_log_variance(double(moments[at + channels]));
    z[i] = noise ? T(double(mean) + ::exp(0.5 * v) * double(noise[i])) : mean;
  }
};
/// Means and log variances [.., 2 channels] of what is multiplied by `factor`.
template <class T>
struct scaled_moments {
  T* moments;
  index_t channels;
  double factor;
  double log_square;  // ln factor^2
  MULTISTAGE_HD void operator()(index_t i) const {
    const bool mean = i % (2 * channels) < channels;
    const double value = double(moments[i]);
    moments[i] = T(mean ? value * factor : value + log_square);
  }
};
/// The divergence of a row from the standard normal distribution.
template <class T>
struct gaussian_divergence {
  const T* moments;
  index_t pixels;
  index_t channels;
  double* kl;
  MULTISTAGE_HD void operator()(index_t row) const {
    double sum = 0;
    for (index_t p = row * pixels; p < (row + 1) * pixels; ++p)
      for (index_t c = 0; c < channels; ++c) {
        const index_t at = p * 2 * channels + c;
        const double m = moments[at];
        const double v = clamped_log_variance(double(moments[at + channels]));
        sum += 0.5 * (m * m + ::exp(v) - 1 - v);
      }
    kl[row] = sum;
  }
};
/// Gradients of the moments: of the sample, and of the divergence, weighted.
template <class T>
struct gaussian_backward {
  const T* moments;
  const T* noise;
  const T* dz;
  index_t channels;
  double weight;
  T* dmoments;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t at = i / channels * 2 * channels + i % channels;
    const double m = moments[at];
    const double raw = moments[at + channels];
    const double v = clamped_log_variance(raw);
    const bool clamped = raw < least_log_variance || raw > greatest_log_variance;
    const T by_log_variance = T(0.5 * ::exp(0.5 * v) * double(noise[i]) * double(dz[i]) +
                                weight * 0.5 * (::exp(v) - 1));
    dmoments[at] = T(double(dz[i]) + weight * m);
    dmoments[at + channels] = clamped ? T(0) : by_log_variance;
  }
};
}  // namespace functor

/// z [rows, h, w, c] from moments [rows, h, w, 2 c] and standard normal noise like z; without
/// noise, the mean. @throws shape_error
template <class Backend, class T>
void sample_gaussian(Backend& b, input<T> moments, input<T> noise, view<T> z) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  const shape s = z.extents;
  expect_packed("sample_gaussian", "z", z);
  expect("sample_gaussian", "moments", moments,
         shape{s.rows, s.height, s.width, 2 * s.channels});
  expect_optional("sample_gaussian", "noise", noise, s);
  const functor::gaussian_sample<T> sample{moments.data, noise.data, s.channels, z.data};
  b.for_each_index(s.size(), sample);
}

/// kl [rows] on the backend.
template <class Backend, class T>
void gaussian_divergence(Backend& b, view<const T> moments, double* kl) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  expect("gaussian_divergence", "moments", moments, moments.extents);
  require<shape_error>(
      moments.extents.channels % 2 == 0, "gaussian_divergence: moments ", moments.extents,
      " have an odd number of channels; means and log variances are expected, as many of each");
  const functor::gaussian_divergence<T> divergence{
      .moments = moments.data,
      .pixels = moments.extents.pixels(),
      .channels = moments.extents.channels / 2,
      .kl = kl,
  };
  b.for_each_index(moments.extents.rows, divergence, 1);
}

/// dmoments = the gradient of sample_gaussian from dz, and `weight` times that of every row's
/// divergence.
template <class Backend, class T>
void gaussian_backward(Backend& b,
                       input<T> moments,
                       input<T> noise,
                       input<T> dz,
                       double weight,
                       view<T> dmoments) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, elementwise, T);
  const shape s = dz.extents;
  expect_packed("gaussian_backward", "dz", dz);
  expect("gaussian_backward", "moments", moments,
         shape{s.rows, s.height, s.width, 2 * s.channels});
  expect("gaussian_backward", "noise", noise, s);
  expect("gaussian_backward", "dmoments", dmoments, moments.extents);
  const functor::gaussian_backward<T> gradient{
      .moments = moments.data,
      .noise = noise.data,
      .dz = dz.data,
      .channels = s.channels,
      .weight = weight,
      .dmoments = dmoments.data,
  };
  b.for_each_index(s.size(), gradient);
}

}  // namespace multistage::ops
