// NumPy's npz archives: zip files of npy arrays, stored without compression, as numpy.savez writes them.
#pragma once
#include <array>

#include "npy.hpp"

namespace multistage::io {

namespace detail {
inline std::uint32_t crc32(std::span<const unsigned char> bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t c = i;
      for (int k = 0; k < 8; ++k) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  std::uint32_t c = ~0u;
  for (const unsigned char b : bytes) c = table[(c ^ b) & 255] ^ (c >> 8);
  return ~c;
}
}  // namespace detail

/// Writes one array of unsigned bytes, e.g. pictures [n, h, w, c], as NAME.npy inside an archive of below 4 GiB, atomically. @throws file_error
inline void write_npz(const std::string& path, const std::string& name, const std::vector<index_t>& extents, std::span<const unsigned char> values) {
  std::string shape_text;
  for (const index_t e : extents) shape_text += std::to_string(e) + ",";
  std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (" + shape_text + "), }";
  header.resize(std::size_t(round_up(index_t(header.size()) + 11, 64)) - 11, ' ');
  header += '\n';
  std::string npy("\x93NUMPY\x01\x00", 8);
  npy += char(header.size() & 255);
  npy += char(header.size() >> 8);
  npy += header;
  npy.append(reinterpret_cast<const char*>(values.data()), values.size());
  require<file_error>(npy.size() < 0xFFFFFFFFu, path, ": more than 4 GiB do not fit this archive; write fewer pictures to each");
  const std::uint32_t crc = detail::crc32({reinterpret_cast<const unsigned char*>(npy.data()), npy.size()});
  const std::string file = name + ".npy";
  const auto number = [](std::string& to, std::uint64_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) to += char(v >> (8 * i) & 255);
  };
  const auto description = [&](std::string& to) {  // what local and central headers share
    number(to, 20, 2);
    number(to, 0, 2);  // flags
    number(to, 0, 2);  // stored
    number(to, 0x0021, 4);
    number(to, crc, 4);
    number(to, npy.size(), 4);
    number(to, npy.size(), 4);
    number(to, file.size(), 2);
    number(to, 0, 2);
  };
  std::string local, central, end;
  number(local, 0x04034b50, 4);
  description(local);
  local += file;
  number(central, 0x02014b50, 4);
  number(central, 20, 2);
  description(central);
  number(central, 0, 2);
  number(central, 0, 2);
  number(central, 0, 2);
  number(central, 0, 4);
  number(central, 0, 4);
  central += file;
  number(end, 0x06054b50, 4);
  number(end, 0, 4);
  number(end, 1, 2);
  number(end, 1, 2);
  number(end, central.size(), 4);
  number(end, local.size() + npy.size(), 4);
  number(end, 0, 2);
  atomic_file f(path);
  for (const std::string* part : {&local, &npy, &central, &end}) f.write(*part);
  f.commit();
}

/// The first array of an archive. @throws file_error for compressed archives and broken ones
inline npy_array parse_npz(const std::string& path, std::span<const unsigned char> bytes) {
  const auto broken = [&](std::size_t at, const std::string& why) { fail<file_error>(path, ": not a sound npz archive: byte ", at, ": ", why); };
  const auto number = [&](std::size_t at, int n) {
    std::uint64_t v = 0;
    for (int i = n - 1; i >= 0; --i) v = v << 8 | bytes[at + std::size_t(i)];
    return v;
  };
  if (bytes.size() < 30 || number(0, 4) != 0x04034b50) broken(0, "it does not begin with a zip entry");
  if (number(8, 2) != 0) broken(8, "its arrays are compressed; save with numpy.savez, not savez_compressed");
  const std::uint64_t name = number(26, 2), extra = number(28, 2), start = 30 + name + extra;
  if (start > bytes.size()) broken(26, "the file is cut");
  std::uint64_t size = number(18, 4);
  // numpy writes sizes into a zip64 field of 8 bytes each.
  if (size == 0xFFFFFFFFu && extra >= 20 && number(30 + name, 2) == 1) size = number(30 + name + 12, 8);
  if (size > bytes.size() - start)
    broken(18, "its array takes " + std::to_string(size) + " bytes, " + std::to_string(bytes.size() - start) + " follow: the file is cut");
  const auto first = bytes.begin() + std::ptrdiff_t(start);
  return parse_npy(path, std::vector<unsigned char>(first, first + std::ptrdiff_t(size)));
}

}  // namespace multistage::io
