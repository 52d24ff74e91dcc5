// Pictures of any size made ones of a given size: a part is cut out, and resampled with a
// filter that is widened where the picture shrinks, so that fine patterns become grey instead
// of moire.
//
//   const picture_box box = crop_box(p.width, p.height, to, crop_rule::centre);
//   picture small = resized(cropped(p, box), to, resize_filter::lanczos);
//
// A pixel is the mean of the filter's window, in bytes as they are stored (sRGB), as Pillow and
// data sets made with it have them. Both filters are separable: one axis is filtered, then the
// other, with floats between. Where nothing changes size, bytes stay the same.
// Lanczos: C. E. Duchon, "Lanczos filtering in one and two dimensions", 1979.
#pragma once
#include <numbers>
#include <string_view>

#include "../core/options.hpp"
#include "../core/random.hpp"
#include "picture.hpp"

namespace multistage::io {

/// Width and height in pixels, as an option: "32" is a square, "48x64" is 48 wide and 64 high.
struct picture_size {
  index_t width = 0;   ///< 0: as the pictures are
  index_t height = 0;  ///< 0: as the pictures are

  /// Pictures keep their size.
  picture_size() = default;
  /// Of numbers.
  constexpr picture_size(index_t width_, index_t height_)
      : width(width_),
        height(height_) {}
  /// Of text. @throws value_error for what is no size
  MULTISTAGE_COLD explicit picture_size(const std::string& text) {
    constexpr index_t longest = 65536;
    const std::size_t cross = std::min(text.find('x'), text.size());
    const auto side = [&](std::string_view digits) {
      const char* const behind = digits.data() + digits.size();
      index_t v = 0;
      const auto [end, status] = std::from_chars(digits.data(), behind, v);
      const bool number = status == std::errc() && end == behind;
      require<value_error>(number && v > 0 && v <= longest, "size '", text,
                           "' is neither a side like 32 nor width x height like 48x64, from 1 ",
                           "to ", longest);
      return v;
    };
    const std::string_view all(text);
    width = side(all.substr(0, cross));
    height = cross == text.size() ? width : side(all.substr(cross + 1));
  }
  /// As it is read.
  std::string name() const {
    if (width == 0)
      return "";
    const std::string side = std::to_string(width);
    return width == height ? side : side + "x" + std::to_string(height);
  }
  /// Whether a size is asked for.
  explicit operator bool() const {
    return width > 0;
  }
  bool operator==(const picture_size&) const = default;
};

/// The filter that pixels are averaged with: Lanczos' of three lobes is sharp, `area` is the
/// plain mean of what a pixel covers, without ringing at edges.
enum class resize_filter { lanczos, area };
/// Their names.
constexpr std::array<const char*, 2> option_names(resize_filter) {
  return {"lanczos", "area"};
}

/// What of a picture becomes the image: the largest part of the wanted shape, in the middle or
/// at a place drawn by seed and name; or all of it, squeezed.
enum class crop_rule { centre, random_fixed, none };
/// Their names.
constexpr std::array<const char*, 3> option_names(crop_rule) {
  return {"centre", "random-fixed", "none"};
}

/// A part of a picture, in whole pixels.
struct picture_box {
  index_t left = 0;    ///< first column
  index_t top = 0;     ///< first row
  index_t width = 0;   ///< columns
  index_t height = 0;  ///< rows
  bool operator==(const picture_box&) const = default;
};

/// The part of a picture of `width` x `height` that becomes an image of size `to`: the largest
/// one of its shape, sides rounded to the nearest pixel. What is over is left off on both sides
/// (centre), or on sides drawn for this (seed, name).
inline picture_box crop_box(index_t width,
                            index_t height,
                            const picture_size& to,
                            crop_rule rule,
                            std::uint64_t seed = 0,
                            std::string_view name = {}) {
  picture_box box{0, 0, width, height};
  if (rule == crop_rule::none)
    return box;
  // A side is the other one times the shape: a b / c, rounded, and one pixel at least.
  const auto rounded = [](index_t a, index_t b, index_t c) {
    return std::max<index_t>((2 * a * b + c) / (2 * c), 1);
  };
  const bool too_wide = width * to.height > height * to.width;
  if (too_wide)
    box.width = rounded(height, to.width, to.height);
  else
    box.height = rounded(width, to.height, to.width);
  const index_t free_columns = width - box.width;
  const index_t free_rows = height - box.height;
  box.left = free_columns / 2;
  box.top = free_rows / 2;
  if (rule == crop_rule::random_fixed) {
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a of the name
    for (const char c : name)
      hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    const random_stream numbers(seed, purpose::crop, hash >> 16);
    box.left = numbers.below(0, std::uint32_t(free_columns + 1));
    box.top = numbers.below(1, std::uint32_t(free_rows + 1));
  }
  return box;
}

namespace detail {

/// How the pixels of a line come of those of a longer or shorter one: pixel i is the sum of
/// `count[i]` weights, each times a pixel from `first[i]` on.
struct line_filter {
  std::vector<index_t> first;  // [to]
  std::vector<index_t> count;  // [to]
  std::vector<float> weights;  // [to, most], of which the first `count` of each are used
  index_t most = 0;

  /// @param from pixels that are there. @param to pixels that are wanted
  line_filter(index_t from, index_t to, resize_filter filter)
      : first(std::size_t(to)),
        count(std::size_t(to)) {
    const bool smooth = filter == resize_filter::lanczos;
    const double scale = double(from) / double(to);
    const double widened = std::max(scale, 1.0);  // where the picture shrinks
    const double reach = smooth ? 3 * widened : scale / 2;
    most = std::min(from, index_t(std::ceil(2 * reach)) + 2);
    weights.resize(std::size_t(to * most));
    std::vector<double> line(static_cast<std::size_t>(most));
    for (index_t i = 0; i < to; ++i) {
      const double centre = (double(i) + 0.5) * scale;  // in pixels of the source
      const double low = centre - reach;
      const double high = centre + reach;
      const index_t begin = std::max<index_t>(index_t(std::floor(low)), 0);
      const index_t end = std::min({index_t(std::ceil(high)), from, begin + most});
      double sum = 0;
      for (index_t x = begin; x < end; ++x) {
        const double off_centre = double(x) + 0.5 - centre;
        const double weight =
            smooth ? lanczos(off_centre / widened) : covered(double(x), low, high);
        line[std::size_t(x - begin)] = weight;
        sum += weight;
      }
      first[std::size_t(i)] = begin;
      count[std::size_t(i)] = end - begin;
      // Weights sum to one also where the picture's edge cuts the window.
      float* const to_weights = weights.data() + i * most;
      for (index_t k = 0; k < end - begin; ++k)
        to_weights[k] = float(line[std::size_t(k)] / sum);
    }
  }

 private:
  /// sinc(x) sinc(x / 3) within three lobes.
  static double lanczos(double x) {
    if (x == 0)
      return 1;
    if (std::abs(x) >= 3)
      return 0;
    const double p = std::numbers::pi * x;
    return 3 * std::sin(p) * std::sin(p / 3) / (p * p);
  }
  /// The share of pixel [x, x + 1] that lies in [low, high].
  static double covered(double x, double low, double high) {
    const double begin = std::max(x, low);
    const double end = std::min(x + 1, high);
    return std::max(end - begin, 0.0);
  }
};

/// Lines [outer, n, inner] of values filtered along n: [outer, filter's pixels, inner].
template <class T>
std::vector<float> filtered(const std::vector<T>& values,
                            index_t outer,
                            index_t inner,
                            const line_filter& filter) {
  const index_t to = index_t(filter.first.size());
  const index_t from = index_t(values.size()) / (outer * inner);
  std::vector<float> sums(std::size_t(outer * to * inner));
  float* sum = sums.data();  // [inner] of a pixel
  for (index_t o = 0; o < outer; ++o)
    for (index_t i = 0; i < to; ++i, sum += inner) {
      const index_t first = filter.first[std::size_t(i)];
      const index_t count = filter.count[std::size_t(i)];
      const T* value = values.data() + (o * from + first) * inner;    // [count, inner]
      const float* weight = filter.weights.data() + i * filter.most;  // [count]
      for (index_t k = 0; k < count; ++k, value += inner)
        for (index_t j = 0; j < inner; ++j)
          sum[j] += weight[k] * float(value[j]);
    }
  return sums;
}

}  // namespace detail

/// Pixels of the longest side that is resized; what a filter weighs is proportional to it.
inline constexpr index_t longest_resized = index_t{1} << 20;

/// A part of a picture. @param box lies inside of it. @throws value_error where it does not
inline picture cropped(picture p, const picture_box& box) {
  const auto within = [](index_t first, index_t count, index_t all) {
    return first >= 0 && count > 0 && count <= all - first;
  };
  const bool inside =
      within(box.left, box.width, p.width) && within(box.top, box.height, p.height);
  require<value_error>(inside, "cropped: ", box.width, " x ", box.height, " at (", box.left,
                       ", ", box.top, ") is not within a picture of ", p.width, " x ",
                       p.height);
  if (box.width == p.width && box.height == p.height)
    return p;
  picture out{box.height, box.width, p.channels, {}};
  const index_t row_size = box.width * p.channels;
  out.bytes.reserve(std::size_t(box.height * row_size));
  for (index_t y = 0; y < box.height; ++y) {
    const index_t first_pixel = (box.top + y) * p.width + box.left;
    const auto row = p.bytes.begin() + first_pixel * p.channels;
    out.bytes.insert(out.bytes.end(), row, row + row_size);
  }
  return out;
}

/// A picture in another size; the same bytes where it has that size.
/// @throws value_error for sides of 0 or beyond longest_resized
inline picture resized(picture p, const picture_size& to, resize_filter filter) {
  if (p.width == to.width && p.height == to.height)
    return p;
  const bool pixels = p.width > 0 && p.height > 0 && to.width > 0 && to.height > 0;
  require<value_error>(pixels && std::max(p.width, p.height) <= longest_resized,
                       "a picture of ", p.width, " x ", p.height, " cannot be made one of ",
                       to.width, " x ", to.height, "; sides of 1 to ", longest_resized,
                       " are resized");
  const detail::line_filter columns(p.width, to.width, filter);
  const detail::line_filter rows(p.height, to.height, filter);
  const index_t c = p.channels;
  // Sums are the same in either order but for rounding; the one with less between is taken.
  const bool columns_first = p.height * to.width <= to.height * p.width;
  std::vector<float> sums;  // [to.height, to.width, c]
  if (columns_first) {
    const auto narrow = detail::filtered(p.bytes, p.height, c, columns);
    sums = detail::filtered(narrow, 1, to.width * c, rows);
  } else {
    const auto low = detail::filtered(p.bytes, 1, p.width * c, rows);
    sums = detail::filtered(low, to.height, c, columns);
  }
  picture out{to.height, to.width, c, {}};
  out.bytes.resize(sums.size());
  std::transform(sums.begin(), sums.end(), out.bytes.begin(), [](float v) {
    return static_cast<unsigned char>(std::clamp(v, 0.0f, 255.0f) + 0.5f);
  });
  return out;
}

/// A picture with one channel or three: grey fills three, colours become their luma (ITU-R
/// BT.601, as JPEG and Pillow have it).
inline picture recoloured(picture p, index_t channels) {
  if (p.channels == channels)
    return p;
  picture out{p.height, p.width, channels, {}};
  const std::size_t pixels = std::size_t(p.height * p.width);
  out.bytes.resize(pixels * std::size_t(channels));
  for (std::size_t i = 0; i < pixels; ++i) {
    if (channels == 3) {
      std::fill_n(out.bytes.begin() + std::ptrdiff_t(3 * i), 3, p.bytes[i]);
      continue;
    }
    const unsigned char* rgb = p.bytes.data() + 3 * i;
    const int luma = 299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2];  // thousandths
    out.bytes[i] = static_cast<unsigned char>((luma + 500) / 1000);
  }
  return out;
}

}  // namespace multistage::io
