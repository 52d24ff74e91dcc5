// Depthwise resampling by two with any separable filter (as StyleGAN2 and EDM's U-Nets use it): filter [1, 1] is the 2x2 mean and the
// nearest neighbour, [1, 3, 3, 1] the smooth one. Up is four times the transpose of down, so each is the other's backward.
#pragma once
#include "shape_rules.hpp"

namespace multistage::ops {

/// A separable filter, ended by its first zero, and the zeros before the image; padding below 0 takes (taps - 1) / 2.
struct resample_filter {
  std::array<int, 8> taps{1, 1};
  int padding = -1;

  constexpr int size() const { return length(taps); }
  constexpr int pad() const { return padding < 0 ? (size() - 1) / 2 : padding; }
  constexpr index_t down(index_t extent) const { return (extent + 2 * pad() - size()) / 2 + 1; }
  constexpr index_t up(index_t extent) const { return 2 * (extent - 1) + size() - 2 * pad(); }
};

/// Multiply-accumulates of one image, as a dense depthwise convolution counts them.
constexpr index_t resample_macs(bool up, index_t in_pixels, index_t out_pixels, index_t channels, int taps) {
  return (up ? in_pixels : out_pixels) * channels * taps * taps;
}

/// The problem of one direction. `gain` is 1 for down and 4 for up, but the other way round for gradients.
template <class T>
constexpr resample_problem<T> make_resample_problem(const T* x, const shape& from, T* y, const shape& to, const resample_filter& f, bool up, T gain,
                                                    bool accumulate) {
  resample_problem<T> p{from.rows, from.height, from.width, from.channels, to.height, to.width, up, f.size(), f.pad(), {}, gain, x, y, accumulate};
  T sum = 0;
  for (int i = 0; i < f.size(); ++i) sum += T(f.taps[i]);
  for (int i = 0; i < f.size(); ++i) p.filter[i] = T(f.taps[i]) / sum;
  return p;
}

/// y = x resampled, [rows, h, w, c] -> [rows, filter.down(h) or up(h), ...]. With `backward`, y is dx (of the forward's input extents)
/// and x is dy. @throws shape_error when extents do not fit.
template <class Backend, class T>
void resample(Backend& b, view<const T> x, view<T> y, const resample_filter& filter, bool up, bool backward = false, bool accumulate = false) {
  MULTISTAGE_REQUIRE_SUPPORT(Backend, resample, T);
  const shape in = backward ? y.extents : x.extents;
  const shape out =
      up ? shape{in.rows, filter.up(in.height), filter.up(in.width), in.channels} : shape{in.rows, filter.down(in.height), filter.down(in.width), in.channels};
  expect("resample", backward ? "dy" : "x", x, backward ? out : in);
  expect("resample", backward ? "dx" : "y", y, backward ? in : out);
  resample_run(b, make_resample_problem<T>(x.data, x.extents, y.data, y.extents, filter, up != backward, up ? T(4) : T(1), accumulate));
}

}  // namespace multistage::ops
