// Whether text is UTF-8 (RFC 3629), which JSON and the names in files must be.
//
// Overlong forms, surrogates and code points above 10FFFF are none of it.
#pragma once
#include <cstddef>
#include <string_view>

namespace multistage {

/// Whether every byte belongs to a character: no stray or missing continuation bytes, no longer
/// form than needed, no surrogates, nothing above U+10FFFF.
constexpr bool is_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return static_cast<unsigned char>(text[i]);
  };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const std::size_t length = lead < 0xc2   ? 0
                               : lead < 0xe0 ? 2
                               : lead < 0xf0 ? 3
                               : lead < 0xf5 ? 4
                                             : 0;
    if (length == 0 || text.size() - i < length)
      return false;
    for (std::size_t k = 1; k < length; ++k)
      if ((byte(i + k) & 0xc0) != 0x80)
        return false;
    const unsigned char next = byte(i + 1);
    if (lead == 0xe0 && next < 0xa0)
      return false;  // longer than needed
    if (lead == 0xed && next >= 0xa0)
      return false;  // a surrogate
    if (lead == 0xf0 && next < 0x90)
      return false;  // longer than needed
    if (lead == 0xf4 && next >= 0x90)
      return false;  // above U+10FFFF
    i += length;
  }
  return true;
}

}  // namespace multistage
