// Images read at other places: exactly, by whole pixels (`pixel_map`), and between pixels
// (`warp`), where the image is doubled by an orthonormal wavelet, sampled bilinearly and halved
// by the same wavelet (Karras et al., arXiv 2006.06676, appendix B.2: little blur, little
// aliasing, and the unmoved image comes back as it was).
//
// All steps but the sampling are one loop, `filter`, over whole rows of [pixels, channels]: a
// row of 2 n columns is stored as its n even columns and then its n odd ones, so that taps two
// columns apart are neighbours in memory and the loops are long and contiguous.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "../core/extents.hpp"

namespace multistage {

/// Place i of a line of n pixels that goes on by reflection without repeating its ends.
constexpr index_t reflected(index_t i, index_t n) {
  if (0 <= i && i < n)
    return i;
  if (n < 2)
    return 0;
  const index_t period = 2 * n - 2;
  const index_t within = (i % period + period) % period;
  return within < n ? within : period - within;
}

/// Where pixels come from, by whole pixels: mirrored, transposed, and moved, in that order.
struct pixel_map {
  bool mirror_columns = false;  ///< left and right change places
  bool mirror_rows = false;     ///< top and bottom do
  bool transposed = false;      ///< columns become rows; square images only
  index_t down = 0;             ///< position (x, y) shows what was at (x - right, y + down)
  index_t right = 0;            ///< likewise

  /// Whether every pixel stays where it is.
  constexpr bool is_identity() const {
    return !mirror_columns && !mirror_rows && !transposed && down == 0 && right == 0;
  }
  /// Writes one row of what is seen. @param image [height, width, channels]
  /// @param y row, may be outside, as may columns: what is seen goes on by reflection
  /// @param first, count which columns. @param to [count, channels]
  template <class T>
  void row(const T* image, const shape& e, index_t y, index_t first, index_t count, T* to)
      const {
    const index_t seen_row = reflected(reflected(y, e.height) + down, e.height);
    for (index_t i = 0; i < count; ++i, to += e.channels) {
      const index_t seen_column = reflected(reflected(first + i, e.width) - right, e.width);
      index_t from_row = transposed ? seen_column : seen_row;
      index_t from_column = transposed ? seen_row : seen_column;
      if (mirror_rows)
        from_row = e.height - 1 - from_row;
      if (mirror_columns)
        from_column = e.width - 1 - from_column;
      const T* pixel = image + (from_row * e.width + from_column) * e.channels;
      std::copy_n(pixel, e.channels, to);
    }
  }
};

/// A map of the plane: (x, y) goes to (xx x + xy y + x0, yx x + yy y + y0).
struct affine_map {
  double xx = 1;  ///< of x in the new x
  double xy = 0;  ///< of y in the new x
  double x0 = 0;  ///< added to the new x
  double yx = 0;  ///< of x in the new y
  double yy = 1;  ///< of y in the new y
  double y0 = 0;  ///< added to the new y

  /// Turns by an angle in radians.
  static affine_map rotation(double angle) {
    return {std::cos(angle), -std::sin(angle), 0, std::sin(angle), std::cos(angle), 0};
  }
  /// Multiplies each coordinate.
  static affine_map scaling(double x, double y) {
    return {x, 0, 0, 0, y, 0};
  }
  /// Adds to each coordinate.
  static affine_map translation(double x, double y) {
    return {1, 0, x, 0, 1, y};
  }
  /// First b, then a.
  friend affine_map operator*(const affine_map& a, const affine_map& b) {
    return {
        .xx = a.xx * b.xx + a.xy * b.yx,
        .xy = a.xx * b.xy + a.xy * b.yy,
        .x0 = a.xx * b.x0 + a.xy * b.y0 + a.x0,
        .yx = a.yx * b.xx + a.yy * b.yx,
        .yy = a.yx * b.xy + a.yy * b.yy,
        .y0 = a.yx * b.x0 + a.yy * b.y0 + a.y0,
    };
  }
  /// Entry by entry.
  friend bool operator==(const affine_map&, const affine_map&) = default;
};

/// Reads images at the places that an affine map gives. Holds its scratch, which grows to the
/// largest image it has met; one thread at a time.
class warp {
 public:
  /// @param image [height, width, channels]. @param pixels how it is seen: `map` acts on that
  /// @param map takes an output position, counted from the image's centre, to where it is read
  /// @param to [height, width, channels], another place than `image`
  void operator()(const float* image,
                  const shape& extents,
                  const pixel_map& pixels,
                  const affine_map& map,
                  float* to) {
    const sizes n = sizes_of(extents, map);
    pad(image, extents, pixels, n);
    double_columns(n);
    double_rows(n);
    n.channels == 3 ? sample<3>(n, map) : sample<0>(n, map);
    halve_rows(n);
    halve_columns(n, to);
  }

 private:
  // sym6 (Daubechies, "Ten lectures on wavelets", 1992, table 6.3), its even and its odd taps.
  // Their order matters: it is not symmetric. Upwards the taps run the other way.
  using taps = std::array<float, 6>;
  static constexpr taps even{0.015404109327027373F,  -0.11799011114819057F,
                             0.4910559419267466F,    0.3379294217276218F,
                             -0.021060292512300564F, 0.0017677118642428036F};
  static constexpr taps odd{0.0034907120842174702F, -0.048311742585633F,
                            0.787641141030194F,     -0.07263752278646252F,
                            0.04472490177066578F,   -0.007800708325034148F};
  /// The taps as the way up has them.
  static constexpr taps reversed(const taps& t) {
    return {t[5], t[4], t[3], t[2], t[1], t[0]};
  }
  static constexpr index_t reach = 3;  // pixels that the doubling filters look at, each side

  struct sizes {
    index_t width;  // of the image
    index_t height;
    index_t channels;
    index_t left;  // margins before it
    index_t top;
    index_t padded_width;  // with margins on both sides
    index_t padded_height;
    // Values of a row, with zeros that the filters read at both ends.
    index_t padded_row() const {
      return (padded_width + 2 * reach) * channels;
    }
    // The same of even or odd columns, and a column of zeros at each end.
    index_t half_row() const {
      return (padded_width + 2) * channels;
    }
    /// Values of the even, or of the odd, columns of samples.
    index_t half_sample_row() const {
      return (width + 6) * channels;
    }
    /// Rows of samples: twice the image's, and what the wavelet reads around them.
    index_t sample_rows() const {
      return 2 * height + 12;
    }
  };

  // Margins hold what the map reads beyond the image: as far as a corner goes, and the
  // wavelet's length; never more than a reflection has.
  static sizes sizes_of(const shape& e, const affine_map& map) {
    const double cx = double(e.width - 1) / 2;
    const double cy = double(e.height - 1) / 2;
    // Corners are (+-cx, +-cy), so the farthest one takes the larger sign of each term.
    const double x = std::fabs(map.xx) * cx + std::fabs(map.xy) * cy;
    const double y = std::fabs(map.yx) * cx + std::fabs(map.yy) * cy;
    const auto margin = [](double beyond, index_t extent) {
      return index_t(std::ceil(std::clamp(beyond + 6, 0.0, double(extent - 1))));
    };
    const index_t left = margin(x - map.x0 - cx, e.width);
    const index_t right = margin(x + map.x0 - cx, e.width);
    const index_t top = margin(y - map.y0 - cy, e.height);
    const index_t bottom = margin(y + map.y0 - cy, e.height);
    return {
        .width = e.width,
        .height = e.height,
        .channels = e.channels,
        .left = left,
        .top = top,
        .padded_width = left + e.width + right,
        .padded_height = top + e.height + bottom,
    };
  }

  // out[i] = sum_t f[t] in[i + t * stride]. What `out` held before counts when `add`.
  template <bool add = false>
  static void filter(const taps& f,
                     const float* MULTISTAGE_RESTRICT in,
                     index_t stride,
                     index_t n,
                     float* MULTISTAGE_RESTRICT out) {
    for (index_t i = 0; i < n; ++i) {
      float sum = add ? out[i] : 0.0F;
      for (std::size_t t = 0; t < f.size(); ++t)
        sum += f[t] * in[i + index_t(t) * stride];
      out[i] = sum;
    }
  }

  /// n zeros in memory that is kept from image to image.
  static float* cleared(std::vector<float>& memory, index_t size) {
    memory.assign(std::size_t(size), 0.0F);
    return memory.data();
  }
  /// The same of any content.
  static float* sized(std::vector<float>& memory, index_t size) {
    if (index_t(memory.size()) < size)
      memory.resize(std::size_t(size));
    return memory.data();
  }

  // padded [padded_height, zeros | padded_width | zeros, channels]
  void pad(const float* image, const shape& e, const pixel_map& pixels, const sizes& n) {
    float* to = cleared(padded_, n.padded_height * n.padded_row());
    for (index_t y = 0; y < n.padded_height; ++y, to += n.padded_row()) {
      float* const first_pixel = to + reach * n.channels;  // behind the zeros
      pixels.row(image, e, y - n.top, -n.left, n.padded_width, first_pixel);
    }
  }

  // wide [zeros | padded_height | zeros, even columns then odd ones, channels]
  void double_columns(const sizes& n) {
    const index_t row = 2 * n.half_row();
    const index_t count = n.padded_width * n.channels;
    float* wide = cleared(wide_, (n.padded_height + 2 * reach) * row) + reach * row;
    const float* from = padded_.data();
    for (index_t y = 0; y < n.padded_height; ++y, wide += row, from += n.padded_row()) {
      float* even_columns = wide + n.channels;
      float* odd_columns = even_columns + n.half_row();
      filter(reversed(odd), from, n.channels, count, even_columns);
      filter(reversed(even), from + n.channels, n.channels, count, odd_columns);
    }
  }

  // doubled [a row of zeros | 2 padded_height | two rows of zeros, columns as in wide]
  void double_rows(const sizes& n) {
    const index_t row = 2 * n.half_row();
    float* doubled = sized(doubled_, (2 * n.padded_height + 3) * row);
    std::fill_n(doubled, row, 0.0F);
    for (index_t y = 0; y < n.padded_height; ++y) {
      const float* from = wide_.data() + y * row;
      float* even_row = doubled + (1 + 2 * y) * row;
      float* odd_row = even_row + row;
      filter(reversed(odd), from, row, row, even_row);
      filter(reversed(even), from + row, row, row, odd_row);
    }
    std::fill_n(doubled + (1 + 2 * n.padded_height) * row, 2 * row, 0.0F);
  }

  // A place on one axis of the doubled image: the pixel before it and the share of the next.
  struct place {
    index_t index;
    float share;
    // Beyond the image are zeros, so what lies farther reads the ring of zeros around it.
    place(double at, index_t extent) {
      const double inside = std::clamp(at, -1.0, double(extent));
      const double before = std::floor(inside);
      index = index_t(before);
      share = float(inside - before);
    }
  };

  // samples [2 height + 12, even columns then odd ones, channels]. `Channels`: how many where
  // the compiler knows it, which halves the time; else 0.
  template <index_t Channels>
  void sample(const sizes& n, const affine_map& map) {
    const index_t half = n.half_sample_row();
    const double cx = double(n.width - 1) / 2;
    const double cy = double(n.height - 1) / 2;
    const index_t columns = 2 * n.width + 12;
    float* samples = sized(samples_, n.sample_rows() * 2 * half);
    for (index_t b = 0; b < n.sample_rows(); ++b, samples += 2 * half) {
      const double y = double(b) / 2 - 3 - cy;
      const double row_x = map.xy * y + map.x0 + cx + double(n.left);
      const double row_y = map.yy * y + map.y0 + cy + double(n.top);
      for (index_t a = 0; a < columns; ++a) {
        const double x = double(a) / 2 - 3 - cx;
        const place column(2 * (map.xx * x + row_x), 2 * n.padded_width);
        const place row(2 * (map.yx * x + row_y), 2 * n.padded_height);
        float* const half_of_column = samples + a % 2 * half;
        mix<Channels>(n, column, row, half_of_column + a / 2 * n.channels);
      }
    }
  }

  // One pixel of the four around it.
  template <index_t Channels>
  void mix(const sizes& n, const place& column, const place& row, float* to) const {
    // Where column k of a row lies; a zero lies before each half.
    const auto offset = [&](index_t k) {
      return k % 2 * n.half_row() + k / 2 * n.channels;
    };
    const index_t left = offset(column.index + 2);
    const index_t right = offset(column.index + 3);
    const float* upper = doubled_.data() + (row.index + 1) * 2 * n.half_row();
    const float* lower = upper + 2 * n.half_row();
    const index_t channels = Channels > 0 ? Channels : n.channels;
    for (index_t c = 0; c < channels; ++c) {
      const float upper_left = upper[left + c];
      const float lower_left = lower[left + c];
      const float above = upper_left + column.share * (upper[right + c] - upper_left);
      const float below = lower_left + column.share * (lower[right + c] - lower_left);
      to[c] = above + row.share * (below - above);
    }
  }

  // low [height, columns as in samples]: row j is the sum over m of h[m] samples[2 j + 1 + m]
  void halve_rows(const sizes& n) {
    const index_t row = 2 * n.half_sample_row();
    float* low = sized(low_, n.height * row);
    for (index_t y = 0; y < n.height; ++y, low += row) {
      const float* from = samples_.data() + (2 * y + 1) * row;
      filter(even, from, 2 * row, row, low);
      filter<true>(odd, from + row, 2 * row, row, low);
    }
  }

  // The same of columns: h's even taps meet odd columns.
  void halve_columns(const sizes& n, float* to) const {
    const index_t count = n.width * n.channels;
    const index_t half = n.half_sample_row();
    const float* from = low_.data();
    for (index_t y = 0; y < n.height; ++y, to += count, from += 2 * half) {
      const float* odd_columns = from + half;
      const float* even_columns = from + n.channels;
      filter(even, odd_columns, n.channels, count, to);
      filter<true>(odd, even_columns, n.channels, count, to);
    }
  }

  std::vector<float> padded_;
  std::vector<float> wide_;
  std::vector<float> doubled_;
  std::vector<float> samples_;
  std::vector<float> low_;
};

}  // namespace multistage
