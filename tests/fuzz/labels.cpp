// Any text as a table of labels and as a dataset.json: an error of the library, or a label or
// none for each picture, and a table that is the same when it is written with quotes.
#include <multistage/io/labels.hpp>

namespace ms = multistage;

namespace {

std::string quoted(const std::string& field) {
  std::string text = "\"";
  for (const char c : field)
    text += c == '"' ? std::string("\"\"") : std::string(1, c);
  return text + "\"";
}
void check(const ms::io::label_list& list, std::size_t pictures) {
  if (!list.labels.empty() && list.labels.size() != pictures)
    __builtin_trap();
  for (const int label : list.labels)
    if (label < -1 || label >= int(list.classes.size()))
      __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static const std::vector<std::string> names = {"a.png", "b/a.png", "b/c.png", "d"};
  try {
    const auto rows = ms::io::parse_table("fuzz", text);
    std::string written;
    for (const ms::io::table_row& row : rows) {
      for (std::size_t i = 0; i < row.fields.size(); ++i)
        written += (i > 0 ? "," : "") + quoted(row.fields[i]);
      written += '\n';
    }
    const auto again = ms::io::parse_table("fuzz", written);
    if (again.size() != rows.size())
      __builtin_trap();
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (again[i].fields != rows[i].fields)
        __builtin_trap();
    check(ms::io::labels_by_table("fuzz", text, names), names.size());
  } catch (const ms::error&) {
  }
  try {
    check(ms::io::labels_by_dataset_json("fuzz", text, names), names.size());
  } catch (const ms::error&) {
  }
  return 0;
}
