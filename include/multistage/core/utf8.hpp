// Whether text is UTF-8 (RFC 3629), which JSON and the names in files must be, and how texts of
// files are shown.
//
//   is_utf8("caf\xc3\xa9");                     // true
//   printable("\x1b[31mweight");                // "?[31mweight"
//
// Overlong forms, surrogates and code points above 10FFFF are none of it.
#pragma once
#include <cstddef>
#include <string>
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

/// A text that came from a file as messages show it: its first bytes, with '?' for what is no
/// character or controls a terminal.
inline std::string printable(std::string_view text, std::size_t most = 80) {
  const auto continues = [&](std::size_t i) {
    return (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80;
  };
  // No character is cut in two.
  std::size_t end = text.size() < most ? text.size() : most;
  while (end > 0 && end < text.size() && continues(end))
    --end;
  std::string shown(text.substr(0, end));
  const bool characters = is_utf8(shown);
  unsigned char before = 0;
  for (char& c : shown) {
    const unsigned char byte = static_cast<unsigned char>(c);
    const bool control = byte < 0x20 || byte == 0x7f;
    // U+0080 to U+009F, the second half of a terminal's controls: C2 80 to C2 9F.
    const bool far_control = before == 0xc2 && byte < 0xa0;
    if (control || far_control || (byte >= 0x80 && !characters))
      c = '?';
    before = byte;
  }
  return shown;
}

}  // namespace multistage
