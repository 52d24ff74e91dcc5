// Labels of pictures: by the folder they lie in, by a table (CSV) of files and labels, or by
// the dataset.json of EDM's data sets. Labels are whole numbers from 0; classes have names.
//
//   label_list labels = labels_by_folder(names);           // "cat/1.png" is of the class cat
//   label_list labels = labels_by_table("labels.csv", text, names);
//
// Names that are all whole numbers are the labels; others are numbered in sorted order.
#pragma once
#include <cctype>
#include <map>
#include <set>
#include <span>
#include <string_view>

#include "json_text.hpp"

namespace multistage::io {

/// A label for each picture, and what the classes are called.
struct label_list {
  std::vector<int> labels;           ///< one a picture; -1 where it has none; empty: no labels
  std::vector<std::string> classes;  ///< names by label
  std::vector<std::string> remarks;  ///< what is odd, for people
};

/// A line of a table.
struct table_row {
  std::size_t line = 0;             ///< where it begins, from 1
  std::vector<std::string> fields;  ///< without quotes
};

namespace detail {

/// Classes of so many labels at most may be numbers with gaps between them.
inline constexpr std::size_t most_numbered_classes = 65536;

/// Whether a text is a whole number from 0 that may be a label as it is.
inline bool is_label_number(const std::string& text) {
  if (text.empty() || text.size() > 5)
    return false;
  if (text.find_first_not_of("0123456789") != std::string::npos)
    return false;
  // "07" is a name: as a number it would be one with "7".
  const bool plain = text.size() == 1 || text[0] != '0';
  return plain && std::stoul(text) < most_numbered_classes;
}

/// Takes a table apart, character by character (RFC 4180).
class table_reader {
 public:
  table_reader(const std::string& path, std::string_view text)
      : path_(path),
        text_(text) {
    if (text_.substr(0, 3) == "\xef\xbb\xbf")  // a byte order mark, as spreadsheets write it
      text_.remove_prefix(3);
  }
  /// @throws file_error naming the line
  std::vector<table_row> rows() {
    std::vector<table_row> all;
    while (at_ < text_.size()) {
      table_row row{line_, {}};
      do
        row.fields.push_back(field());
      while (taken(','));
      taken('\r');
      const bool ended = taken('\n') || at_ == text_.size();
      if (!ended)
        broken(text_[at_] == '\r' ? "a carriage return stands within a line"
                                  : "something follows a quoted field");
      ++line_;
      if (row.fields.size() > 1 || !row.fields[0].empty())
        all.push_back(std::move(row));
    }
    return all;
  }

 private:
  /// Takes c where it comes next.
  bool taken(char c) {
    const bool there = at_ < text_.size() && text_[at_] == c;
    at_ += there ? 1 : 0;
    return there;
  }
  /// Takes a field; blanks around it are left out.
  std::string field() {
    if (taken('"'))
      return quoted();
    const std::size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    const std::string_view text = text_.substr(at_, end - at_);
    at_ = end;
    if (text.find('"') != std::string_view::npos)
      broken("a quote stands within a field; quote all of it and write the quote twice");
    if (text.find('\0') != std::string_view::npos)
      broken("it holds a NUL: is this a table as text (CSV)?");
    const std::size_t first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos)
      return {};
    const std::size_t last = text.find_last_not_of(" \t");
    return std::string(text.substr(first, last - first + 1));
  }
  /// Behind its opening quote; it may hold commas, ends of lines, and quotes written twice.
  std::string quoted() {
    std::string field;
    std::size_t ends = 0;
    for (;;) {
      if (at_ == text_.size())
        broken("a quote is not closed");
      const char c = text_[at_++];
      if (c == '"' && !taken('"'))
        break;
      ends += c == '\n' ? 1 : 0;
      field += c;
    }
    line_ += ends;
    return field;
  }
  /// @throws file_error naming the line
  [[noreturn]] void broken(const char* why) const {
    fail<file_error>(path_, ": line ", line_, ": ", why);
  }

  const std::string& path_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t line_ = 1;
};

/// Characters of a file's name that messages show.
inline constexpr std::size_t long_name = 400;

/// The name of a file without its folders.
inline std::string base_name(const std::string& name) {
  return name.substr(name.rfind('/') + 1);
}

}  // namespace detail

/// The lines of a table as text: fields with commas between them, in quotes where they hold
/// commas. Empty lines are left out. @throws file_error naming the line
inline std::vector<table_row> parse_table(const std::string& path, std::string_view text) {
  return detail::table_reader(path, text).rows();
}

/// Numbers for texts; "" has none, -1.
inline label_list number_labels(std::span<const std::string> texts) {
  std::set<std::string> names(texts.begin(), texts.end());
  names.erase("");
  label_list list;
  std::map<std::string, int> number;
  if (std::all_of(names.begin(), names.end(), detail::is_label_number)) {
    int most = -1;
    for (const std::string& name : names) {
      number[name] = std::stoi(name);
      most = std::max(most, number[name]);
    }
    for (int label = 0; label <= most; ++label)
      list.classes.push_back(std::to_string(label));
  } else {
    for (const std::string& name : names) {
      number[name] = int(list.classes.size());
      list.classes.push_back(name);
    }
  }
  number[""] = -1;
  for (const std::string& text : texts)
    list.labels.push_back(number.at(text));
  return list;
}

/// Labels by folders: the class of "birds/owl/1.png" among "birds/.../..." and
/// "cats/.../..." is birds. Folders that all pictures share in front do not count.
/// @throws value_error where some pictures lie in no folder of their own, or all in one
inline label_list labels_by_folder(std::span<const std::string> names) {
  require<value_error>(!names.empty(), "labels: there are no pictures");
  // What all names share, up to the last '/' in it.
  std::size_t shared = names[0].rfind('/') + 1;
  for (const std::string& name : names)
    while (name.compare(0, shared, names[0], 0, shared) != 0)
      shared = shared < 2 ? 0 : names[0].rfind('/', shared - 2) + 1;
  std::vector<std::string> classes;
  for (const std::string& name : names) {
    const std::size_t end = name.find('/', shared);
    require<value_error>(end != std::string::npos,
                         "labels: ", printable(name, detail::long_name),
                         " lies in no folder of a class; move it into one, or leave labels by "
                         "folder out");
    classes.push_back(name.substr(shared, end - shared));
  }
  return number_labels(classes);
}

namespace detail {

/// Whether a line is one of headings: the first field says what the column is.
inline bool is_heading(const table_row& row) {
  static constexpr std::string_view headings[] = {"file",  "filename", "file_name", "path",
                                                  "image", "name",     "id",        "image_id"};
  std::string first = row.fields[0];
  std::transform(first.begin(), first.end(), first.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::count(std::begin(headings), std::end(headings), first) > 0;
}

/// The line of each file that a table names. @throws file_error for lines that are not a file
/// and its label, and for files of two labels
inline std::map<std::string, const table_row*> rows_by_file(
    const std::string& path,
    const std::vector<table_row>& rows) {
  std::map<std::string, const table_row*> row_of;
  for (const table_row& row : rows) {
    require<file_error>(row.fields.size() == 2 && !row.fields[1].empty(), path, ": line ",
                        row.line, ": has ", row.fields.size(),
                        " fields; a line names a file and its label: cat/1.png,cat");
    if (&row == &rows[0] && is_heading(row))
      continue;
    const std::string& file = row.fields[0];
    const std::string& label = row.fields[1];
    const auto [at, is_new] = row_of.emplace(file, &row);
    const table_row& before = *at->second;
    require<file_error>(is_new || before.fields[1] == label, path, ": line ", row.line, ": ",
                        printable(file, long_name), " has the label ", printable(label),
                        ", and ", printable(before.fields[1]), " in line ", before.line);
  }
  return row_of;
}

}  // namespace detail

/// Labels by a table of two columns, file and label; a first line of headings is left out. A
/// file is named as it is from the source on, or without folders where that is clear.
/// @throws file_error naming the line: of other numbers of fields, of files that have two
/// labels; where no picture has one
inline label_list labels_by_table(const std::string& path,
                                  std::string_view text,
                                  std::span<const std::string> names) {
  const std::vector<table_row> rows = parse_table(path, text);
  const std::map<std::string, const table_row*> row_of = detail::rows_by_file(path, rows);
  // Without its folders a name may stand for one file only.
  std::map<std::string, index_t> same_base;
  for (const std::string& name : std::set<std::string>(names.begin(), names.end()))
    ++same_base[detail::base_name(name)];
  std::set<const table_row*> used;
  std::vector<std::string> labels;
  for (const std::string& name : names) {
    const std::string base = detail::base_name(name);
    auto at = row_of.find(name);
    if (at == row_of.end() && same_base[base] == 1)
      at = row_of.find(base);
    const bool named = at != row_of.end();
    labels.push_back(named ? at->second->fields[1] : "");
    if (named)
      used.insert(at->second);
  }
  const std::string a_line = rows.empty() ? "(none)" : rows.back().fields[0];
  const std::string a_picture = names.empty() ? "(none)" : names[0];
  require<file_error>(!used.empty(), path, ": names none of the ", names.size(),
                      " pictures; its lines are like ", printable(a_line, detail::long_name),
                      ", pictures like ", printable(a_picture, detail::long_name));
  label_list list = number_labels(labels);
  if (used.size() < row_of.size())
    list.remarks.push_back(path + ": " + std::to_string(row_of.size() - used.size()) +
                           " lines name files that are no pictures here");
  return list;
}

/// Labels by EDM's dataset.json: {"labels": [["00000/img0.png", 6], ...]}, or null where there
/// are none. @throws file_error for other JSON, labels that are no whole numbers from 0, and
/// files that have two
inline label_list labels_by_dataset_json(const std::string& path,
                                         std::string_view text,
                                         std::span<const std::string> names) {
  const json_document document = parse_json(text, path);
  require<file_error>(document->is_object() && document->contains("labels"), path,
                      ": holds no \"labels\"");
  const nlohmann::json& entries = (*document)["labels"];
  if (entries.is_null())
    return {};
  require<file_error>(entries.is_array(), path, ": its \"labels\" are no list");
  std::map<std::string, int> label_of;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const nlohmann::json& entry = entries[i];
    const bool pair = entry.is_array() && entry.size() == 2;
    const bool typed = pair && entry[0].is_string() && entry[1].is_number_unsigned();
    const bool sound = typed && entry[1].get<std::uint64_t>() < detail::most_numbered_classes;
    require<file_error>(sound, path, ": entry ", i,
                        " of its labels is not [\"file\", a whole number from 0 to ",
                        detail::most_numbered_classes - 1, "]");
    const int label = entry[1].get<int>();
    const auto [at, is_new] = label_of.emplace(entry[0].get<std::string>(), label);
    require<file_error>(is_new || at->second == label, path, ": entry ", i, ": ",
                        printable(at->first, detail::long_name), " has the labels ", at->second,
                        " and ", label);
  }
  std::vector<std::string> labels;
  for (const std::string& name : names) {
    const auto at = label_of.find(name);
    labels.push_back(at == label_of.end() ? "" : std::to_string(at->second));
  }
  return number_labels(labels);
}

}  // namespace multistage::io
