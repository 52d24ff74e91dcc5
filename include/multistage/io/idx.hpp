// The IDX format of MNIST: two zero bytes, a type byte, the number of dimensions, big-endian extents, values.
#pragma once
#include "file.hpp"
#include "images.hpp"

namespace multistage::io {

/// Images [n, h, w] of unsigned bytes as values in [-1, 1]. @throws file_error with file, byte and reason.
inline image_set parse_idx(const std::string& path, const std::vector<unsigned char>& bytes) {
  const auto broken = [&](std::size_t at, const std::string& why) { fail<file_error>(path, ": not a sound IDX image file: byte ", at, ": ", why); };
  if (bytes.size() < 4 || bytes[0] != 0 || bytes[1] != 0) broken(0, "it does not begin with two zeros (is it still compressed?)");
  if (bytes[2] != 8) broken(2, "type " + std::to_string(bytes[2]) + " is not 8, unsigned bytes");
  if (bytes[3] != 3) broken(3, std::to_string(bytes[3]) + " dimensions, images have 3");
  if (bytes.size() < 16) broken(4, "the extents are cut");
  std::uint64_t count = 1;
  index_t extents[3];
  for (int d = 0; d < 3; ++d) {
    std::uint64_t n = 0;
    for (int k = 0; k < 4; ++k) n = n << 8 | bytes[4 + 4 * d + k];
    if (n != 0 && count > (std::uint64_t{1} << 40) / n) broken(4, "the extents are too large");
    count *= n;
    extents[d] = index_t(n);
  }
  if (count != bytes.size() - 16)
    broken(16, "its extents take " + std::to_string(count) + " bytes, " + std::to_string(bytes.size() - 16) + " follow: the file is cut or broken");
  image_set s;
  s.extents = {extents[0], extents[1], extents[2], 1};
  s.values.reserve(count);
  for (std::size_t i = 16; i < bytes.size(); ++i) s.values.push_back(float(bytes[i]) / 255.0f * 2 - 1);
  return s;
}
inline image_set read_idx(const std::string& path) { return parse_idx(path, read_file(path)); }

}  // namespace multistage::io
