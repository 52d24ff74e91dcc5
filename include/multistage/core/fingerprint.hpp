// Hashes that say which weights a figure was measured with. They tell files apart; they do not
// protect against forgery.
#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace multistage {

/// FNV-1a, 64 bits, as sixteen hexadecimal digits.
inline std::string fingerprint(std::span<const unsigned char> bytes) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const unsigned char b : bytes)
    h = (h ^ b) * 0x100000001b3u;
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4)
    text += digits[h >> shift & 15];
  return text;
}
/// The fingerprint of numbers by their bytes in memory: those of float and of double differ,
/// and so do those of machines whose bytes go the other way.
template <class T>
std::string fingerprint_of(std::span<const T> values) {
  return fingerprint(
      {reinterpret_cast<const unsigned char*>(values.data()), values.size_bytes()});
}

}  // namespace multistage
