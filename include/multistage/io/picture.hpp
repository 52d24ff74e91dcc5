// A picture in memory, what its header says, how it is turned the right way up, and what
// readers found odd about files.
//
//   picture p{2, 2, 1, {0, 255, 255, 0}};      // two rows of two grey pixels
//   p = upright(std::move(p), 3);              // EXIF's 3: turned by half
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../core/config.hpp"
#include "../core/error.hpp"
#include "../core/warning.hpp"

namespace multistage::io {

/// Interleaved bytes of one picture: 1 channel (grey) or 3 (red, green, blue).
struct picture {
  index_t height = 0;                ///< pixels
  index_t width = 0;                 ///< pixels
  index_t channels = 3;              ///< 1 or 3
  std::vector<unsigned char> bytes;  ///< row by row from the top
};

/// What a picture will be: extents as it is shown, which EXIF's orientation may have turned.
struct picture_header {
  index_t height = 0;    ///< pixels
  index_t width = 0;     ///< pixels
  index_t channels = 3;  ///< 1 or 3
  int orientation = 1;   ///< EXIF's, 1 to 8; 1 as the bytes lie
};

/// Pixels of the largest picture that is read unless the caller says otherwise.
inline constexpr std::uint64_t default_most_pixels = std::uint64_t{1} << 26;

/// A byte of a value in [-1, 1]; values outside are clipped.
inline unsigned char to_byte(double v) {
  return static_cast<unsigned char>(std::lround(std::clamp((v + 1) * 127.5, 0.0, 255.0)));
}

/// Refuses pictures by what their header promises, before anything is allocated. @throws
/// file_error
inline void check_pixels(const std::string& path,
                         std::uint64_t width,
                         std::uint64_t height,
                         std::uint64_t most_pixels) {
  require<file_error>(width > 0 && height > 0, path, ": is a picture of ", width, " x ", height,
                      " pixels");
  require<file_error>(
      width <= most_pixels / height, path, ": is a picture of ", width, " x ", height,
      " pixels, more than the ", most_pixels,
      " that are read; raise the limit (most_pixels, --most-pixels) if that is meant");
}

/// Oddities of files that are read all the same, like a JPEG that is cut: counted by file, and
/// said in one warning when the last owner of the list is gone. Any thread may add to it.
class picture_warnings {
 public:
  picture_warnings() = default;
  picture_warnings(const picture_warnings&) = delete;
  picture_warnings& operator=(const picture_warnings&) = delete;
  ~picture_warnings() {
    try {
      report();
    } catch (...) {  // a handler that throws is heard by those who call report() themselves
    }
  }
  /// Notes something odd about a file. @param what as libpng or libjpeg say it
  void add(const std::string& path, const std::string& what) {
    const std::lock_guard turn(turn_);
    if (files_.empty())
      first_ = path + ": " + what;
    files_.insert(path);
  }
  /// Files that something was said about.
  std::size_t count() const {
    const std::lock_guard turn(turn_);
    return files_.size();
  }
  /// What was said first.
  std::string first() const {
    const std::lock_guard turn(turn_);
    return first_;
  }
  /// Warns of what was found and forgets it.
  void report() {
    std::unique_lock turn(turn_);
    const std::size_t n = std::exchange(files_, {}).size();
    const std::string first = first_;
    turn.unlock();
    if (n > 0)
      warn(n, n == 1 ? " file is" : " files are", " not quite sound; the first: ", first);
  }

 private:
  mutable std::mutex turn_;  // pictures are read by several threads
  std::set<std::string> files_;
  std::string first_;
};

/// What the readers of pictures are told, and where they put what they find odd.
struct picture_options {
  /// Larger ones are refused before memory is asked for.
  std::uint64_t most_pixels = default_most_pixels;
  picture_warnings* warnings = nullptr;  ///< where oddities go; null drops them
  /// Red, green and blue behind what is transparent; in colours, it makes grey pictures with
  /// transparency coloured ones.
  std::array<unsigned char, 3> background{};
  /// Whether the background has a colour.
  bool on_colour() const {
    return background[0] != background[1] || background[1] != background[2];
  }
  /// Notes something odd about a file that is read all the same.
  void warn(const std::string& path, const std::string& what) const {
    if (warnings)
      warnings->add(path, what);
  }
};

namespace detail {

/// The orientation, 1 to 8, of EXIF data that begin with TIFF's header; 1 where there is none.
/// Exif 2.3, tag 0x0112 of the first directory.
inline int exif_orientation(std::span<const unsigned char> tiff) {
  if (tiff.size() < 8 || tiff[0] != tiff[1] || (tiff[0] != 'I' && tiff[0] != 'M'))
    return 1;
  const bool little = tiff[0] == 'I';
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::size_t v = 0;
    for (std::size_t i = 0; i < bytes; ++i)
      v = v << 8 | tiff[at + (little ? bytes - 1 - i : i)];
    return v;
  };
  const std::size_t directory = number(4, 4);
  if (number(2, 2) != 42 || directory > tiff.size() - 2)
    return 1;
  const std::size_t entries = number(directory, 2);
  for (std::size_t e = 0; e < entries; ++e) {
    const std::size_t at = directory + 2 + 12 * e;
    if (at + 12 > tiff.size())
      return 1;
    if (number(at, 2) != 0x0112)
      continue;
    // short by the standard; some programs write bytes or longs
    const std::size_t type = number(at + 2, 2);
    const std::size_t bytes = type == 1 ? 1 : type == 3 ? 2 : type == 4 ? 4 : 0;
    const std::size_t orientation = number(at + 8, bytes);
    return orientation >= 1 && orientation <= 8 ? int(orientation) : 1;
  }
  return 1;
}

/// Whether a picture has no colours: all channels of each pixel agree.
inline bool is_grey(const picture& p) {
  const std::size_t channels = std::size_t(p.channels);
  for (std::size_t i = 0; i < p.bytes.size(); ++i)
    if (p.bytes[i] != p.bytes[i - i % channels])
      return false;
  return true;
}
/// A picture with one channel, the first of its own, where it has no colours; else as it is.
inline picture without_needless_colours(picture p) {
  if (p.channels == 1 || !is_grey(p))
    return p;
  picture grey{p.height, p.width, 1, {}};
  for (std::size_t i = 0; i < p.bytes.size(); i += std::size_t(p.channels))
    grey.bytes.push_back(p.bytes[i]);
  return grey;
}

/// The header of a stored picture, turned.
inline picture_header turned(index_t height, index_t width, index_t channels, int orientation) {
  if (orientation >= 5)
    std::swap(height, width);
  return {height, width, channels, orientation};
}

/// A stored picture the right way up: orientation 2 is mirrored, 3 turned by half, 4 upside
/// down, 5 to 8 have rows for columns.
inline picture upright(picture stored, int orientation) {
  if (orientation <= 1)
    return stored;
  const bool swapped = orientation >= 5;
  const bool from_right =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  picture p{swapped ? stored.width : stored.height, swapped ? stored.height : stored.width,
            stored.channels, std::vector<unsigned char>(stored.bytes.size())};
  unsigned char* to = p.bytes.data();
  for (index_t y = 0; y < p.height; ++y)
    for (index_t x = 0; x < p.width; ++x) {
      index_t row = swapped ? x : y;
      index_t column = swapped ? y : x;
      if (from_below)
        row = stored.height - 1 - row;
      if (from_right)
        column = stored.width - 1 - column;
      const unsigned char* from =
          stored.bytes.data() + (row * stored.width + column) * p.channels;
      to = std::copy_n(from, p.channels, to);
    }
  return p;
}

/// Rows of grey and alpha, or RGB and alpha, drawn on a background: the alpha is mixed in and
/// dropped. Grey stands on a background whose channels are alike.
inline void draw_on(const std::array<unsigned char, 3>& background,
                    std::vector<unsigned char>& bytes,
                    std::size_t channels) {
  unsigned char* to = bytes.data();
  const std::size_t pixels = bytes.size() / (channels + 1);
  for (std::size_t i = 0; i < pixels; ++i) {
    const unsigned char* from = bytes.data() + i * (channels + 1);
    const unsigned alpha = from[channels];
    for (std::size_t c = 0; c < channels; ++c)
      *to++ = static_cast<unsigned char>(
          (from[c] * alpha + background[c] * (255 - alpha) + 127) / 255);
  }
  bytes.resize(pixels * channels);
}

}  // namespace detail
}  // namespace multistage::io
