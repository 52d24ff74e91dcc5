// Depthwise resampling by two (or filtering alone) with any separable filter (as StyleGAN2 and
// EDM's U-Nets use it): filter [1, 1] is the 2x2 mean and the nearest neighbour, [1, 3, 3, 1]
// the smooth one. Up is four times the transpose of down, so each is the other's backward.
#pragma once
#include "operation.hpp"

namespace multistage::ops {

/// How the cost of a filter is counted: as a strided depthwise convolution (EDM), as a filter
/// at full resolution before decimation or behind zero insertion (score_sde), or not at all
/// (means and nearest neighbours that upstream does not run as convolutions).
enum class filter_cost { strided, full, none };

/// A separable filter, ended by its first zero, and the zeros before the image; padding below 0
/// takes (taps - 1) / 2.
struct resample_filter {
  std::array<int, 8> taps{1, 1};  ///< whole numbers, divided by their sum; symmetric or not
  int padding = -1;               ///< zeros before the first row and column
  int rate = 2;                   ///< 1 only filters
  filter_cost counted = filter_cost::strided;  ///< for the cost, not for the result

  /// How many taps there are.
  constexpr int size() const {
    return length(taps);
  }
  /// Zeros before the first row and column.
  constexpr int pad() const {
    return padding < 0 ? (size() - 1) / 2 : padding;
  }
  /// Whether its numbers are in range: taps whose sum is not 0, a rate of at least 1, padding
  /// that is no more than its taps.
  constexpr bool sound() const {
    int sum = 0;
    for (int i = 0; i < size(); ++i) {
      const int tap = taps[std::size_t(i)];
      if (tap < -4096 || tap > 4096)
        return false;
      sum += tap;
    }
    const bool known_rate = rate >= 1 && rate <= 1024;
    return size() >= 1 && sum != 0 && known_rate && padding <= size();
  }
  /// 0 where the filter does not fit into the image with its zeros.
  constexpr index_t down(index_t extent) const {
    const index_t room = extent + 2 * pad() - size();
    return room < 0 || rate < 1 ? 0 : room / rate + 1;
  }
  /// Extent of the result of going up.
  constexpr index_t up(index_t extent) const {
    return rate * (extent - 1) + size() - 2 * pad();
  }
};

/// Multiply-accumulates of one image of the given input extents.
constexpr index_t resample_macs(const resample_filter& f,
                                bool up,
                                index_t height,
                                index_t width,
                                index_t channels) {
  if (f.counted == filter_cost::none)
    return 0;
  const auto outputs = [&](index_t e) {
    if (f.counted == filter_cost::full)
      return up ? f.up(e) : e + 2 * f.pad() - f.size() + 1;
    return up ? e : f.down(e);
  };
  return outputs(height) * outputs(width) * channels * f.size() * f.size();
}

/// The problem of one direction. `gain` is 1 for down and 4 for up, but the other way round for
/// gradients.
template <class T>
constexpr resample_problem<T> make_resample_problem(const T* x,
                                                    const shape& from,
                                                    T* y,
                                                    const shape& to,
                                                    const resample_filter& f,
                                                    bool up,
                                                    T gain,
                                                    bool accumulate) {
  resample_problem<T> p{
      .rows = from.rows,
      .height = from.height,
      .width = from.width,
      .channels = from.channels,
      .out_height = to.height,
      .out_width = to.width,
      .up = up,
      .rate = f.rate,
      .taps = f.size(),
      .padding = f.pad(),
      .filter = {},
      .gain = gain,
      .x = x,
      .y = y,
      .accumulate = accumulate,
  };
  // Taps that sum to 1.
  T sum = 0;
  for (int i = 0; i < f.size(); ++i)
    sum += T(f.taps[i]);
  for (int i = 0; i < f.size(); ++i)
    p.filter[i] = T(f.taps[i]) / sum;
  return p;
}

/// @see the file's head. Operand x [rows, h, w, c].
struct resampling {
  resample_filter filter{};  ///< along both axes
  bool up = false;           ///< to more pixels, else to fewer

  static constexpr operation needs = operation::resample;  ///< a backend must support it
  static constexpr const char* name = "resample";          ///< for messages and profiles
  static constexpr operand_names operands{"x"};            ///< for messages

  /// Extents of the result, checks, cost and memory on these operands.
  constexpr description describe(const operand_list& in) const {
    const feature& x = in[0];
    if (!filter.sound())
      return refused(
          graph_problem::attributes,
          "taps lie within +-4096 and do not add up to 0, the rate is 1 to 1024, the "
          "padding at most as many as the taps");
    const auto moved = [&](int e) {
      return int(up ? filter.up(e) : filter.down(e));
    };
    description d;
    d.in[0] = x.extents();
    d.out = {x.channels, moved(x.height), moved(x.width)};
    if (x.height > 0 && x.width > 0 && (d.out.height < 1 || d.out.width < 1))
      d.wrong = {graph_problem::empty, "the filter does not fit"};
    d.macs = resample_macs(filter, up, x.height, x.width, x.channels);
    return d;
  }
  /// Writes the result, and the statistics that backward reads.
  template <class Backend, class T>
  void forward(Backend& b, const forward_pass<T>& p) const {
    move(b, p.in[0].data, p.in[0].extents, p.y.data, p.y.extents, up, false);
  }
  /// Writes or adds the gradients that are wanted, from the result's.
  template <class Backend, class T>
  void backward(Backend& b, const backward_pass<T>& p) const {
    const view<T>& dx = p.dx[0];
    if (dx)
      move<Backend, T>(b, p.dy.data, p.dy.extents, dx.data, dx.extents, !up, p.accumulate[0]);
  }

 private:
  /// Either direction; up keeps a constant image constant.
  template <class Backend, class T>
  void move(Backend& b,
            const T* x,
            const shape& from,
            T* y,
            const shape& to,
            bool direction,
            bool accumulate) const {
    const T gain = up ? T(filter.rate * filter.rate) : T(1);
    const auto asked =
        make_resample_problem<T>(x, from, y, to, filter, direction, gain, accumulate);
    resample_run(b, asked);
  }
};

/// y = x resampled, [rows, h, w, c] -> [rows, filter.down(h) or up(h), ...]. @throws
/// shape_error when extents do not fit, value_error for a filter out of range
template <class Backend, class T>
void resample(Backend& b, input<T> x, view<T> y, const resample_filter& filter, bool up) {
  run(b, resampling{filter, up}, forward_pass<T>{.in = {x}, .y = y});
}
/// dx (+)= the gradient of resample, from dy like y; dx has x's extents. @throws as resample
/// does
template <class Backend, class T>
void resample_backward(Backend& b,
                       input<T> dy,
                       view<T> dx,
                       const resample_filter& filter,
                       bool up,
                       bool accumulate = false) {
  // What x was does not matter, only its extents, which are dx's.
  run_backward(b, resampling{filter, up}, gradient_pass<T>(dx, dy, dx, accumulate));
}

}  // namespace multistage::ops
