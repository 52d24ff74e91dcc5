// Hashes that say which weights a figure was measured with. They tell files apart; they do not
// protect against forgery.
//
//   fingerprinter hash;
//   hash.add(bytes);
//   hash.text();                    // sixteen hexadecimal digits
#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace multistage {

/// FNV-1a, 64 bits, of bytes that come piece by piece.
class fingerprinter {
 public:
  /// Takes in some more.
  void add(std::span<const unsigned char> bytes) {
    std::uint64_t h = hash_;
    for (const unsigned char b : bytes)
      h = (h ^ b) * 0x100000001b3u;
    hash_ = h;
  }
  /// The hash of what was taken in, as sixteen hexadecimal digits.
  std::string text() const {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (int shift = 60; shift >= 0; shift -= 4)
      text += digits[hash_ >> shift & 15];
    return text;
  }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

/// Of bytes that are all there.
inline std::string fingerprint(std::span<const unsigned char> bytes) {
  fingerprinter f;
  f.add(bytes);
  return f.text();
}
/// Numbers by their bytes in memory.
template <class T>
std::span<const unsigned char> bytes_in_memory(std::span<const T> values) {
  return {reinterpret_cast<const unsigned char*>(values.data()), values.size_bytes()};
}
/// The fingerprint of numbers by their bytes in memory: those of float and of double differ,
/// and so do those of machines whose bytes go the other way.
template <class T>
std::string fingerprint_of(std::span<const T> values) {
  return fingerprint(bytes_in_memory(values));
}

}  // namespace multistage
