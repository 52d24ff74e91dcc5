// NumPy's npy format, versions 1 to 3: u1, i1, i2, i4, i8, f4, f8, little-endian, C order.
#pragma once
#include "images.hpp"
#include "safetensors.hpp"

namespace multistage::io {

struct npy_array {
  std::string type;  // "u1", "f4", ...
  std::vector<index_t> extents;
  std::vector<double> values;
};

/// @throws file_error with file, byte and reason.
inline npy_array parse_npy(const std::string& path, const std::vector<unsigned char>& bytes) {
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
  npy_array a;
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
  a.values.resize(count);
  const auto convert = [&]<class From>(From) {
    for (std::size_t i = 0; i < count; ++i) {
      From v;
      std::memcpy(&v, bytes.data() + data + i * sizeof(From), sizeof(From));
      a.values[i] = double(v);
    }
  };
  if (a.type == "u1" || a.type == "b1")
    convert(std::uint8_t{});
  else if (a.type == "i1")
    convert(std::int8_t{});
  else if (a.type == "i2")
    convert(std::int16_t{});
  else if (a.type == "u2")
    convert(std::uint16_t{});
  else if (a.type == "i4")
    convert(std::int32_t{});
  else if (a.type == "i8")
    convert(std::int64_t{});
  else if (a.type == "f4")
    convert(float{});
  else
    convert(double{});
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

/// Images from an array [n, h, w] or [n, h, w, c] of integers in [0, largest] (0: 255), or of floats in [-1, 1], as values in [-1, 1].
/// @throws file_error, value_error
inline image_set images_from(const npy_array& a, const std::string& path, double largest = 0) {
  require<file_error>(a.extents.size() == 3 || a.extents.size() == 4, path, ": has ", a.extents.size(),
                      " dimensions; images are [n, height, width] or [n, height, width, channels]");
  image_set s;
  s.extents = {a.extents[0], a.extents[1], a.extents[2], a.extents.size() == 4 ? a.extents[3] : 1};
  const bool floats = a.type[0] == 'f';
  const double top = floats ? 1 : largest > 0 ? largest : 255;
  s.values.reserve(a.values.size());
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    const double v = floats ? a.values[i] : a.values[i] / top * 2 - 1;
    require<value_error>(v >= -1 && v <= 1, path, ": value ", i, " is ", a.values[i], ", outside ", floats ? "[-1, 1]" : "[0, largest]",
                         "; images have values in that range");
    s.values.push_back(float(v));
  }
  return s;
}

}  // namespace multistage::io
