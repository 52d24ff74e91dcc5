// The IDX format of MNIST, as it is or as a .gz as it is published:
//
//   0 0 8 3                          two zeros, the type (8: unsigned bytes), dimensions
//   00 00 EA 60 00 00 00 1C ...      their extents, four bytes each, the highest first
//   ...                              values, image after image
//
//   image_set digits = read_idx("train-images-idx3-ubyte.gz");
#pragma once
#include "compressed.hpp"
#include "file.hpp"
#include "images.hpp"

namespace multistage::io {

/// Extents [n, h, w, c] of an IDX file's images, whose bytes begin at `data`.
struct idx_layout {
  shape extents{0, 0, 0, 0};  ///< [n, height, width, channels]
  std::size_t data = 0;       ///< where the bytes of the first image begin

  /// Images [first, first + n) in [-1, 1]. @param from their bytes. @param largest the value of
  /// white; 0: 255. @throws value_error for a value above it
  void convert(const std::string& path,
               const unsigned char* from,
               index_t first,
               index_t n,
               double largest,
               float* to) const {
    const index_t size = extents.row_size();
    const float white = largest > 0 ? float(largest) : 255.0f;
    for (index_t i = 0; i < n * size; ++i) {
      const unsigned char v = from[i];
      require<value_error>(float(v) <= white, path, ": value ", first * size + i, " is ",
                           int(v), ", above the ", white, " that are said to be white");
      to[i] = float(v) / white * 2 - 1;
    }
  }
};

namespace detail {

/// Four bytes as a number, the highest first.
inline std::uint64_t idx_number(const unsigned char* bytes) {
  std::uint64_t number = 0;
  for (std::size_t k = 0; k < 4; ++k)
    number = number << 8 | bytes[k];
  return number;
}

}  // namespace detail

/// Of images [n, h, w] or [n, h, w, c] of unsigned bytes. @param bytes the file's first 20, or
/// all of them.
/// @param size of all. @throws file_error with file, byte and reason
inline idx_layout parse_idx_layout(const std::string& path,
                                   std::span<const unsigned char> bytes,
                                   std::uint64_t size) {
  const auto broken = [&](std::size_t at, const std::string& why) {
    fail<file_error>(path, ": not a sound IDX image file: byte ", at, ": ", why);
  };
  if (bytes.size() < 4 || bytes[0] != 0 || bytes[1] != 0)
    broken(0, "it does not begin with two zeros (is it still compressed?)");
  if (bytes[2] != 8)
    broken(2, "type " + std::to_string(bytes[2]) + " is not 8, unsigned bytes");
  const std::size_t dimensions = bytes[3];
  if (dimensions == 1)
    broken(3, "1 dimension: these are labels, not images");
  if (dimensions != 3 && dimensions != 4)
    broken(3, std::to_string(dimensions) + " dimensions, images have 3 or 4");
  const std::size_t data = 4 + 4 * dimensions;
  if (bytes.size() < data)
    broken(4, "the extents are cut");
  std::uint64_t count = 1;
  std::uint64_t product = 1;  // of those that are not 0: an empty set's images have a size, too
  index_t e[4] = {0, 0, 0, 1};
  constexpr std::uint64_t most = std::uint64_t{1} << 40;
  for (std::size_t d = 0; d < dimensions; ++d) {
    const std::uint64_t extent = detail::idx_number(bytes.data() + 4 + 4 * d);
    if (extent != 0 && product > most / extent)
      broken(4, "the extents are too large");
    product *= std::max<std::uint64_t>(extent, 1);
    count *= extent;
    e[d] = index_t(extent);
  }
  const std::uint64_t behind = size - data;
  if (count != behind)
    broken(data, "its extents take " + std::to_string(count) + " bytes, " +
                     std::to_string(behind) + " follow: the file is cut or broken");
  return {{e[0], e[1], e[2], e[3]}, data};
}

/// Labels of an IDX file [n] of unsigned bytes. @throws file_error with file and reason
inline std::span<const unsigned char> parse_idx_labels(const std::string& path,
                                                       std::span<const unsigned char> bytes) {
  static constexpr unsigned char start[] = {0, 0, 8, 1};
  const bool sound =
      bytes.size() >= 8 && std::equal(std::begin(start), std::end(start), bytes.begin());
  require<file_error>(sound, path, ": is no IDX file of labels, unsigned bytes of 1 dimension");
  const std::size_t count = std::size_t(detail::idx_number(bytes.data() + 4));
  require<file_error>(count == bytes.size() - 8, path, ": has ", bytes.size() - 8,
                      " labels of the ", count, " that it promises: it is cut or broken");
  return bytes.subspan(8);
}

/// Images as values in [-1, 1]. @throws file_error with file, byte and reason
inline image_set parse_idx(const std::string& path, std::span<const unsigned char> bytes) {
  const idx_layout l = parse_idx_layout(path, bytes, bytes.size());
  image_set s;
  s.extents = l.extents;
  s.values.resize(std::size_t(l.extents.size()));
  l.convert(path, bytes.data() + l.data, 0, l.extents.rows, 0, s.values.data());
  return s;
}
/// The same of a file, gzipped or not. @throws file_error
inline image_set read_idx(const std::string& path) {
  const std::vector<unsigned char> bytes = read_file(path);
  const bool packed = bytes.size() > 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
  return packed ? parse_idx(path, gunzip(path, bytes)) : parse_idx(path, bytes);
}

}  // namespace multistage::io
