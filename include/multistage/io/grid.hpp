// A table of text: a header and rows, for pages and for Markdown.
//
//   grid t{{"sampler", "evaluations"}, {{"edm_heun", "35"}, {"unipc", "8"}}};
//   page.columns(t);                                 // io/report.hpp
//   markdown(t);                                     // "| sampler | evaluations |\n| ---..."
#pragma once
#include <string>
#include <vector>

namespace multistage::io {

/// Columns with names, and rows with a text for each column.
struct grid {
  std::vector<std::string> header{};             ///< the columns' names
  std::vector<std::vector<std::string>> rows{};  ///< a row may have fewer texts
};

/// The table as Markdown: bars and ends of lines within texts are written otherwise.
inline std::string markdown(const grid& t) {
  std::string text;
  const auto line = [&](const std::vector<std::string>& row) {
    text += "|";
    for (std::size_t i = 0; i < t.header.size(); ++i) {
      text += " ";
      for (const char c : i < row.size() ? row[i] : std::string())
        text += c == '|' ? "\\|" : c == '\n' || c == '\r' ? " " : std::string(1, c);
      text += " |";
    }
    text += "\n";
  };
  line(t.header);
  line(std::vector<std::string>(t.header.size(), "---"));
  for (const std::vector<std::string>& row : t.rows)
    line(row);
  return text;
}

}  // namespace multistage::io
