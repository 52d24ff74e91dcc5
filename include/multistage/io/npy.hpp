// NumPy's npy format, versions 1 to 3: u1, i1, i2, i4, i8, f4, f8, little-endian, C order.
#pragma once
#include "images.hpp"
#include "picture.hpp"
#include "safetensors.hpp"

namespace multistage::io {

/// Where an array's values lie in its file.
struct npy_layout {
  std::string type;  // "u1", "f4", ...
  std::vector<index_t> extents;
  std::size_t data = 0, count = 0;  // byte at which values begin; their number

  /// Values [first, first + n) as To.
  template <class To>
  void read(std::span<const unsigned char> bytes, std::size_t first, std::size_t n, To* to) const {
    const auto convert = [&]<class From>(From) {
      const unsigned char* from = bytes.data() + data + first * sizeof(From);
      for (std::size_t i = 0; i < n; ++i) {
        From v;
        std::memcpy(&v, from + i * sizeof(From), sizeof(From));
        to[i] = To(v);
      }
    };
    if (type == "u1" || type == "b1") return convert(std::uint8_t{});
    if (type == "i1") return convert(std::int8_t{});
    if (type == "i2") return convert(std::int16_t{});
    if (type == "u2") return convert(std::uint16_t{});
    if (type == "i4") return convert(std::int32_t{});
    if (type == "i8") return convert(std::int64_t{});
    if (type == "f4") return convert(float{});
    convert(double{});
  }
};

struct npy_array {
  std::string type;
  std::vector<index_t> extents;
  std::vector<double> values;
};

/// @throws file_error with file, byte and reason.
inline npy_layout parse_npy_layout(const std::string& path, std::span<const unsigned char> bytes) {
  const auto broken = [&](std::size_t at, const std::string& why) { fail<file_error>(path, ": not a sound npy file: byte ", at, ": ", why); };
  static constexpr unsigned char magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  if (bytes.size() < 10 || std::memcmp(bytes.data(), magic, 6) != 0) broken(0, "it does not begin with the magic of npy");
  const bool wide = bytes[6] >= 2;
  if (bytes[6] < 1 || bytes[6] > 3 || (wide && bytes.size() < 12)) broken(6, "version " + std::to_string(bytes[6]) + " is unknown");
  const std::size_t length = bytes[8] | std::size_t(bytes[9]) << 8 | (wide ? std::size_t(bytes[10]) << 16 | std::size_t(bytes[11]) << 24 : 0),
                    begin = wide ? 12 : 10;
  if (length > bytes.size() - begin || length > (1u << 20)) broken(8, "a header of " + std::to_string(length) + " bytes does not fit");
  const std::string header(bytes.begin() + begin, bytes.begin() + begin + length);
  const auto after = [&](const char* key) {
    const std::size_t at = header.find(key);
    if (at == std::string::npos) broken(begin, std::string("the header lacks ") + key);
    return header.find(':', at) + 1;
  };
  npy_layout a;
  const std::size_t quote = header.find('\'', after("'descr'"));
  const std::size_t quote_end = quote == std::string::npos ? quote : header.find('\'', quote + 1);
  if (quote_end == std::string::npos) broken(begin, "the type of its values is missing or structured");
  const std::string descr = header.substr(quote + 1, quote_end - quote - 1);
  if (descr.size() != 3 || descr[0] == '>') broken(begin, "type '" + descr.substr(0, 20) + "' is not supported; save as uint8, int or float, little-endian");
  a.type = descr.substr(1);
  const auto known = {"u1", "b1", "i1", "i2", "u2", "i4", "i8", "f4", "f8"};
  if (std::find(known.begin(), known.end(), a.type) == known.end())
    broken(begin, "type '" + descr + "' is not supported; save as uint8, int or float, little-endian");
  const std::size_t order = header.find_first_not_of(' ', after("'fortran_order'"));
  if (order == std::string::npos || header.compare(order, 5, "False") != 0) broken(begin, "it is in Fortran order; save with numpy.ascontiguousarray");
  std::size_t at = header.find('(', after("'shape'"));
  const std::size_t close = at == std::string::npos ? at : header.find(')', at);
  if (close == std::string::npos) broken(begin, "the shape is missing");
  std::uint64_t count = 1;
  for (++at; at < close;) {
    if (header[at] < '0' || header[at] > '9') {
      ++at;
      continue;
    }
    std::uint64_t n = 0;
    for (; at < close && header[at] >= '0' && header[at] <= '9'; ++at)
      if ((n = n * 10 + std::uint64_t(header[at] - '0')) > (std::uint64_t{1} << 40)) broken(begin, "the shape is too large");
    if (n != 0 && count > (std::uint64_t{1} << 40) / n) broken(begin, "the shape is too large");
    count *= n;
    a.extents.push_back(index_t(n));
  }
  const std::size_t data = begin + length, size = std::size_t(a.type[1] - '0');
  if (count * size != bytes.size() - data)
    broken(data, "its shape takes " + std::to_string(count * size) + " bytes, " + std::to_string(bytes.size() - data) + " follow: the file is cut or broken");
  a.data = data;
  a.count = std::size_t(count);
  return a;
}
/// @throws file_error with file, byte and reason.
inline npy_array parse_npy(const std::string& path, std::span<const unsigned char> bytes) {
  const npy_layout l = parse_npy_layout(path, bytes);
  npy_array a{l.type, l.extents, std::vector<double>(l.count)};
  l.read(bytes, 0, l.count, a.values.data());
  return a;
}
inline npy_array read_npy(const std::string& path) { return parse_npy(path, read_file(path)); }

/// Writes float64 values.
inline void write_npy(const std::string& path, const std::vector<index_t>& extents, std::span<const double> values) {
  std::string shape_text;
  for (index_t e : extents) shape_text += std::to_string(e) + ",";
  std::string header = "{'descr': '<f8', 'fortran_order': False, 'shape': (" + shape_text + "), }";
  header.resize(std::size_t(round_up(index_t(header.size()) + 11, 64)) - 11, ' ');
  header += '\n';
  atomic_file f(path);
  const unsigned char start[] = {
      0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<unsigned char>(header.size() & 255), static_cast<unsigned char>(header.size() >> 8)};
  f.write(start, sizeof start);
  f.write(header);
  f.write(values.data(), values.size() * sizeof(double));
  f.commit();
}

/// How an array's values become those of images.
struct image_rule {
  double largest = 0;    // of arrays of integers in [0, largest]: white; 0: 255
  bool latents = false;  // floats are latent images, of any size; else they must lie in [-1, 1]
  std::string array{};   // of an npz archive: its name; empty: the only one that can be images
  index_t channels = 0;  // 1: pictures whose channels agree become grey; 3: grey fills them; 0: as they are
  std::uint64_t most_pixels = default_most_pixels;  // of one picture

  /// [n, h, w, c] of an array [n, h, w] or [n, h, w, c]. @throws file_error
  static shape extents(const std::string& path, const std::vector<index_t>& e) {
    require<file_error>(e.size() == 3 || e.size() == 4, path, ": has ", e.size(), " dimensions; images are [n, height, width] or [n, height, width, channels]");
    return {e[0], e[1], e[2], e.size() == 4 ? e[3] : 1};
  }
  /// n values in place, the first of which is value `first` of the file. @throws value_error
  template <class T>
  void apply(const std::string& path, const std::string& type, std::size_t first, std::size_t n, T* values) const {
    require<value_error>(largest >= 0 && largest < HUGE_VAL, path, ": largest = ", largest, "; it is above 0 and finite, or 0 for 255");
    const bool floats = type[0] == 'f';
    if (floats && latents) return;
    const double top = largest > 0 ? largest : 255;
    for (std::size_t i = 0; i < n; ++i) {
      const double v = floats ? double(values[i]) : double(values[i]) / top * 2 - 1;
      require<value_error>(v >= -1 && v <= 1, path, ": value ", first + i, " is ", values[i], ", outside ", floats ? "[-1, 1]" : "[0, largest]",
                           "; images have values in that range", floats ? " (latent images are read as such)" : "");
      values[i] = T(v);
    }
  }
};

/// Images from an array, as values in [-1, 1] unless they are latents. @throws file_error, value_error
inline image_set images_from(npy_array a, const std::string& path, const image_rule& rule = {}) {
  image_set s;
  s.extents = image_rule::extents(path, a.extents);
  rule.apply(path, a.type, 0, a.values.size(), a.values.data());
  s.values.assign(a.values.begin(), a.values.end());
  return s;
}

}  // namespace multistage::io
