// A report: one HTML page that carries its pictures inside, with words on what each means.
//
//   report page("Digits");
//   page.heading("What it draws").picture(grid.png(), "Sixteen digits, one a seed.");
//   page.save("report.html");
#pragma once
#include "../core/utf8.hpp"
#include "file.hpp"
#include "grid.hpp"

namespace multistage::io {

/// A page that is written piece by piece, in the order of the calls:
/// report("Digits").text("...").picture(png, "...").save("report.html"). All text is escaped,
/// so that names and paths may hold anything.
class report {
 public:
  /// @param title of the page and of its first heading
  explicit report(const std::string& title)
      : title_(escape(title)) {}

  /// A paragraph.
  report& text(const std::string& paragraph) {
    body_ += "<p>" + escape(paragraph) + "</p>\n";
    return *this;
  }
  /// A heading of the second level.
  report& heading(const std::string& s) {
    body_ += "<h2>" + escape(s) + "</h2>\n";
    return *this;
  }
  /// @param bytes of a PNG or WebP. @param caption says what it means.
  report& picture(const std::string& bytes, const std::string& caption) {
    const char* const kind = bytes.starts_with("RIFF") ? "webp" : "png";
    body_ += "<figure><img alt=\"" + escape(caption) + "\" src=\"data:image/" + kind +
             ";base64," + base64(bytes) + "\"><figcaption>" + escape(caption) +
             "</figcaption></figure>\n";
    return *this;
  }
  /// Two columns, names and values.
  report& table(const std::vector<std::pair<std::string, std::string>>& rows) {
    body_ += "<table>\n";
    for (const auto& [name, value] : rows)
      body_ += "<tr><th>" + escape(name) + "</th><td>" + escape(value) + "</td></tr>\n";
    body_ += "</table>\n";
    return *this;
  }
  /// Columns with their names.
  report& columns(const grid& t) {
    const auto row = [&](const std::vector<std::string>& texts, const char* cell) {
      body_ += "<tr>";
      for (const std::string& s : texts)
        body_ += std::string("<") + cell + ">" + escape(s) + "</" + cell + ">";
      body_ += "</tr>\n";
    };
    body_ += "<table class=\"grid\">\n";
    row(t.header, "th");
    for (const std::vector<std::string>& texts : t.rows)
      row(texts, "td");
    body_ += "</table>\n";
    return *this;
  }
  /// The whole page, which needs no other file.
  std::string html() const {
    return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta "
           "name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>" +
           title_ +
           "</title>\n<style>body{font:16px/1.5 "
           "system-ui,sans-serif;color:#222;max-width:60rem;margin:2rem auto;padding:0 "
           "1rem}h1{font-size:1.7rem}h2{font-size:1.25rem;margin-top:2.2rem}"
           "figure{margin:1rem 0}img{max-width:100%;border:1px solid "
           "#ddd}figcaption{color:#555;font-size:.92rem}table{border-collapse:collapse}"
           "th,td{text-align:left;padding:.25rem 1rem .25rem 0;border-bottom:1px solid "
           "#e4e4e4;font-weight:normal;vertical-align:top}td{overflow-wrap:anywhere;font-"
           "variant-numeric:tabular-nums}.grid{font-size:.85rem}.grid th{font-weight:600}"
           "</style></head>\n<body>\n<h1>" +
           title_ + "</h1>\n" + body_ + "</body></html>\n";
  }
  /// Writes the page, atomically. @throws file_error
  void save(const std::string& path) const {
    write_file(path, html());
  }

 private:
  /// As text of HTML; what is not UTF-8 (a path may be any bytes) becomes U+FFFD.
  static std::string escape(const std::string& s) {
    std::string out;
    for (std::size_t i = 0; i < s.size();) {
      std::size_t length = 1;
      while (length <= 4 && !is_utf8(std::string_view(s).substr(i, length)))
        ++length;
      if (length > 4 || i + length > s.size()) {
        out += "\xef\xbf\xbd";
        ++i;
        continue;
      }
      if (length > 1) {
        out += s.substr(i, length);
        i += length;
        continue;
      }
      const char c = s[i++];
      if (c == '&')
        out += "&amp;";
      else if (c == '<')
        out += "&lt;";
      else if (c == '>')
        out += "&gt;";
      else if (c == '"')
        out += "&quot;";
      else
        out += c;
    }
    return out;
  }
  /// Bytes as text (RFC 4648), for pictures inside the page.
  static std::string base64(const std::string& s) {
    static constexpr char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (std::size_t i = 0; i < s.size(); i += 3) {
      const auto byte = [&](std::size_t k) {
        return k < s.size() ? std::uint32_t(static_cast<unsigned char>(s[k])) : 0u;
      };
      const std::uint32_t v = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
      out += digits[v >> 18];
      out += digits[v >> 12 & 63];
      out += i + 1 < s.size() ? digits[v >> 6 & 63] : '=';
      out += i + 2 < s.size() ? digits[v & 63] : '=';
    }
    return out;
  }
  std::string title_;
  std::string body_;
};

}  // namespace multistage::io
