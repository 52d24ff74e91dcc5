// The safetensors format: eight bytes of header length (little-endian), a JSON header, then the
// data. The header has an object for each tensor, and texts:
//
//   {"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
//    "__metadata__": {"format": "pt"}}
//
// In a program:
//
//   const safetensors file("model.safetensors");
//   std::vector<float> weight = file.get<float>("weight");
//
//   safetensors_writer w;
//   w.add("weight", {2, 3}, weight);
//   w.write("copy.safetensors");
//
// Every number of a file is checked before anything is allocated from it. What the format's own
// reader refuses is refused: tensors lie one behind the other, without a hole, an overlap or
// bytes left over.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "../core/utf8.hpp"
#include "dtype.hpp"
#include "file.hpp"
#include "json_text.hpp"

namespace multistage::io {

/// The header's key that is no tensor's name.
inline constexpr const char* metadata_key = "__metadata__";

/// One tensor of a file.
struct tensor_entry {
  dtype_info type{};               ///< of its values
  std::vector<index_t> extents{};  ///< upstream's, the last axis fastest
  std::uint64_t begin = 0;         ///< bytes in the data
  std::uint64_t end = 0;           ///< byte behind the last
  index_t count = 1;               ///< of values

  /// How many values it has.
  index_t size() const {
    return count;
  }
};

/// What a run's newest checkpoint is called in its folder.
inline constexpr const char* checkpoint_name = "model.safetensors";

/// The file that a path means: itself, or of a run's folder its newest checkpoint.
/// @throws file_error for a folder without one
MULTISTAGE_COLD inline std::string checkpoint_of(const std::string& path) {
  if (!std::filesystem::is_directory(path))
    return path;
  const std::string file = (std::filesystem::path(path) / checkpoint_name).string();
  require<file_error>(std::filesystem::exists(file), path, ": a folder without ",
                      checkpoint_name,
                      "; name a file, or the folder of a run that has saved a checkpoint");
  return file;
}

/// A safetensors file: its header is read when it is opened, a tensor's bytes when they are
/// asked for. Copies share the open file.
/// @throws file_error with file, place and reason for anything that is not right.
class safetensors {
 public:
  /// Opens a file, or the newest checkpoint of a run's folder, and reads its header.
  /// @throws file_error
  explicit safetensors(const std::string& path)
      : path_(checkpoint_of(path)),
        source_(path_) {
    parse();
  }
  /// From memory; `path` names it in messages.
  safetensors(std::string path, std::vector<unsigned char> bytes)
      : path_(std::move(path)),
        source_(std::move(bytes)) {
    parse();
  }

  /// The file.
  const std::string& path() const {
    return path_;
  }
  /// Texts beside the tensors: configuration, format, options of training.
  const std::map<std::string, std::string>& metadata() const {
    return metadata_;
  }
  /// What the header says of each tensor, by name.
  const std::map<std::string, tensor_entry>& tensors() const {
    return tensors_;
  }
  /// Whether there is a tensor of that name.
  bool contains(const std::string& name) const {
    return tensors_.count(name) != 0;
  }
  /// What the header says of a tensor. @throws file_error where there is none of that name
  const tensor_entry& entry(const std::string& name) const {
    const auto it = tensors_.find(name);
    if (it == tensors_.end())
      fail<file_error>(path_, ": has no tensor '", printable(name), "'");
    return it->second;
  }
  /// The values, converted to T. @throws file_error for types that the library does not compute
  /// in, and for values that T has not, e.g. a fraction where T is an integer
  template <class T>
  std::vector<T> get(const std::string& name) const {
    const tensor_entry& t = entry(name);
    std::vector<T> v(static_cast<std::size_t>(t.size()));
    const std::uint64_t at = data_ + t.begin;
    switch (t.type.type) {
      case dtype::f64:
        convert<double>(name, at, v);
        break;
      case dtype::f32:
        convert<float>(name, at, v);
        break;
      case dtype::f16:
        convert<std::uint16_t>(name, at, v, half_to_float);
        break;
      case dtype::bf16:
        convert<std::uint16_t>(name, at, v, bfloat_to_float);
        break;
      case dtype::i64:
        convert<std::int64_t>(name, at, v);
        break;
      case dtype::i32:
        convert<std::int32_t>(name, at, v);
        break;
      case dtype::i16:
        convert<std::int16_t>(name, at, v);
        break;
      case dtype::i8:
        convert<std::int8_t>(name, at, v);
        break;
      case dtype::u64:
        convert<std::uint64_t>(name, at, v);
        break;
      case dtype::u32:
        convert<std::uint32_t>(name, at, v);
        break;
      case dtype::u16:
        convert<std::uint16_t>(name, at, v);
        break;
      case dtype::u8:
      case dtype::boolean:
        convert<std::uint8_t>(name, at, v);
        break;
      default:
        fail<file_error>(
            path_, ": ", in_tensor(name), "it is ", t.type.name,
            ", which this library does not compute in; store it as F16, BF16, F32 or F64");
    }
    return v;
  }
  /// A text of the metadata. @throws file_error where there is none under this key
  std::string meta(const std::string& key) const {
    const auto it = metadata_.find(key);
    if (it == metadata_.end())
      fail<file_error>(path_, ": its metadata has no '", key, "'");
    return it->second;
  }
  /// A text of the metadata that is JSON itself. @throws file_error
  json_document meta_json(const std::string& key) const {
    return parse_json(meta(key), path_ + ": its metadata '" + key + "'");
  }

 private:
  /// What is wrong, and at which byte of the file.
  [[noreturn]] void broken(std::uint64_t at, const std::string& why) const {
    fail<file_error>(path_, ": not a sound safetensors file: byte ", at, ": ", why);
  }

  /// Values of type From at a byte, into all of `to`.
  template <class From, class T>
  void convert(const std::string& name, std::uint64_t at, std::vector<T>& to) const {
    if constexpr (std::is_same_v<From, T>)
      source_.read(at, to.data(), to.size() * sizeof(T));
    else
      convert<From>(name, at, to, [](From v) { return v; });
  }
  /// The same through `value`, which makes a number of the stored one; a block at a time, so
  /// that no second copy of all values is held.
  template <class From, class T, class F>
  void convert(const std::string& name, std::uint64_t at, std::vector<T>& to, F&& value) const {
    constexpr std::size_t most = 1 << 14;
    std::vector<From> block(std::min(most, to.size()));
    for (std::size_t first = 0; first < to.size(); first += most) {
      const std::size_t n = std::min(most, to.size() - first);
      source_.read(at + first * sizeof(From), block.data(), n * sizeof(From));
      for (std::size_t k = 0; k < n; ++k) {
        const auto v = value(block[k]);
        if (!is_value_of<T>(v))
          fail<file_error>(path_, ": ", in_tensor(name), "value ", first + k, " is ", +v,
                           std::is_integral_v<T>
                               ? ", which is none of the integers that are asked for"
                               : ", not finite in the precision that is asked for");
        to[first + k] = T(v);
      }
    }
  }

  /// The text of the header; sets where the data begins.
  std::string read_header() {
    constexpr std::uint64_t most = 100'000'000;  // the format's own limit
    if (source_.size() < 8)
      broken(0, "the file has " + std::to_string(source_.size()) +
                    " bytes, the header's length takes 8");
    unsigned char first[8];
    source_.read(0, first, 8);
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i)
      length = length << 8 | first[i];
    // The length must leave room for itself.
    const std::uint64_t behind = source_.size() - 8;
    if (length > most || length > behind)
      broken(0, "a header of " + std::to_string(length) + " bytes is said to follow, " +
                    std::to_string(behind) + " do, and at most " + std::to_string(most) +
                    " may");
    data_ = 8 + length;
    std::string text(std::size_t(length), '\0');
    source_.read(8, text.data(), text.size());
    const std::size_t start = text.find_first_not_of(" \t\r\n");
    if (start == std::string::npos || text[start] != '{')
      broken(8, "the header is not JSON: not a JSON object");
    return text;
  }
  /// Fills what is known of the file from its header.
  void parse() {
    const std::string text = read_header();
    const json_document header = parse_json(text, [&](std::size_t at, const std::string& why) {
      broken(8 + at, "the header: " + why);
    });
    const std::uint64_t available = source_.size() - data_;
    for (const auto& [name, value] : header->items())
      if (name == metadata_key)
        read_metadata(value);
      else
        tensors_.emplace(name, read_entry(name, value, available));
    check_layout(available);
  }
  /// The texts beside the tensors; null says that there are none.
  void read_metadata(const nlohmann::json& texts) {
    if (texts.is_null())
      return;
    if (!texts.is_object())
      broken(8, "__metadata__ is not an object");
    for (const auto& [key, text] : texts.items()) {
      if (!text.is_string())
        broken(8, "__metadata__ holds something that is not a string");
      metadata_[key] = text.template get<std::string>();
    }
  }
  /// Tensors must fill the data, one behind the other.
  void check_layout(std::uint64_t available) const {
    using entry_type = std::map<std::string, tensor_entry>::value_type;
    std::vector<const entry_type*> order;
    for (const entry_type& t : tensors_)
      order.push_back(&t);
    std::stable_sort(order.begin(), order.end(), [](const entry_type* a, const entry_type* b) {
      const tensor_entry& left = a->second;
      const tensor_entry& right = b->second;
      return std::pair(left.begin, left.end) < std::pair(right.begin, right.end);
    });
    std::uint64_t end = 0;
    for (const entry_type* t : order) {
      const auto& [name, entry] = *t;
      if (entry.begin != end)
        broken(data_ + entry.begin,
               in_tensor(name) + "its data begins at byte " + std::to_string(entry.begin) +
                   " of the data, what lies before ends at " + std::to_string(end) +
                   (entry.begin < end ? ": they overlap" : ": there is a hole"));
      end = entry.end;
    }
    if (end == available)
      return;
    const std::string last =
        order.empty() ? std::string() : ", '" + printable(order.back()->first) + "'";
    broken(data_ + end, std::to_string(available - end) +
                            " bytes are left over behind the last tensor" + last);
  }
  /// A tensor's name before what is said of it.
  static std::string in_tensor(const std::string& name) {
    return "tensor '" + printable(name) + "': ";
  }
  /// What the header says of a tensor. @param available bytes of data
  tensor_entry read_entry(const std::string& name,
                          const nlohmann::json& v,
                          std::uint64_t available) const {
    const std::string where = in_tensor(name);
    const auto has = [&](const char* key) {
      return v.is_object() && v.contains(key);
    };
    if (!has("dtype") || !has("shape") || !has("data_offsets"))
      broken(8, where + "dtype, shape or data_offsets is missing");
    const nlohmann::json& type = v["dtype"];
    const nlohmann::json& extents = v["shape"];
    const nlohmann::json& offsets = v["data_offsets"];
    if (!type.is_string() || !extents.is_array() || !offsets.is_array() || offsets.size() != 2)
      broken(8, where + "dtype, shape or data_offsets is missing");
    const auto known = std::find_if(std::begin(dtypes), std::end(dtypes),
                                    [&](const dtype_info& d) { return is_text(type, d.name); });
    if (known == std::end(dtypes)) {
      const std::string said = printable(type.get_ref<const std::string&>(), 40);
      broken(8, where + "dtype '" + said + "' is unknown");
    }
    tensor_entry t{};
    t.type = *known;
    const index_t bytes = read_shape(where, extents, t);
    for (const nlohmann::json& offset : offsets)
      if (!offset.is_number_unsigned())
        broken(8, where + "an offset is not a whole number");
    t.begin = offsets[0].get<std::uint64_t>();
    t.end = offsets[1].get<std::uint64_t>();
    if (t.begin > t.end || t.end > available)
      broken(data_, where + "its data [" + std::to_string(t.begin) + ", " +
                        std::to_string(t.end) + ") lies outside the " +
                        std::to_string(available) +
                        " bytes of data: the file is cut or broken");
    const std::uint64_t given = t.end - t.begin;
    if (given != std::uint64_t(bytes))
      broken(data_ + t.begin, where + "its shape takes " + std::to_string(bytes) +
                                  " bytes, its offsets give " + std::to_string(given));
    return t;
  }
  /// Takes a tensor's extents and counts its values; returns the bytes they take.
  index_t read_shape(const std::string& where,
                     const nlohmann::json& extents,
                     tensor_entry& t) const {
    constexpr std::uint64_t most = std::uint64_t(std::numeric_limits<index_t>::max());
    for (const nlohmann::json& e : extents) {
      if (!e.is_number_unsigned())
        broken(8, where + "an extent is not a whole number");
      const std::uint64_t extent = e.get<std::uint64_t>();
      if (extent > most || __builtin_mul_overflow(t.count, index_t(extent), &t.count))
        broken(8, where + "the shape is too large");
      t.extents.push_back(index_t(extent));
    }
    index_t bits = 0;
    if (__builtin_mul_overflow(t.count, index_t(t.type.bits), &bits))
      broken(8, where + "the shape is too large");
    if (bits % 8 != 0)
      broken(8, where + "its " + std::to_string(bits) + " bits are no whole number of bytes");
    return bits / 8;
  }

  std::string path_;
  byte_source source_;
  std::uint64_t data_ = 0;  // where the data begins
  std::map<std::string, std::string> metadata_;
  std::map<std::string, tensor_entry> tensors_;
};

/// Collects tensors and writes them as one file, atomically. What no reader could tell apart or
/// read is refused when it is given, before any work is done.
class safetensors_writer {
 public:
  std::map<std::string, std::string> metadata;  ///< texts to be written beside the tensors

  /// @throws shape_error when values and extents differ, value_error for a name that is there
  /// already, is the metadata's, or is not UTF-8
  template <class T>
  void add(const std::string& name,
           std::vector<index_t> extents,
           const std::vector<T>& values) {
    require<value_error>(name != metadata_key, "safetensors: a tensor cannot be called '",
                         metadata_key, "', which is the format's own; give it another name");
    require<value_error>(is_utf8(name), "safetensors: the tensor's name '", printable(name),
                         "' is not UTF-8; names in files must be");
    require<value_error>(names_.insert(name).second, "safetensors: two tensors are called '",
                         printable(name),
                         "'; only one could be read back, give each a name of its own");
    index_t n = 1;
    bool fits = true;
    for (const index_t e : extents)
      fits = fits && e >= 0 && !__builtin_mul_overflow(n, e, &n);
    require<shape_error>(fits && n == index_t(values.size()), "safetensors: tensor '",
                         printable(name), "' has ", values.size(),
                         " values, which is not what its extents hold");
    std::vector<unsigned char> bytes(values.size() * sizeof(T));
    piece p{name, dtype_of<T>(), std::move(extents), std::move(bytes)};
    if constexpr (std::is_same_v<T, bool>)  // a vector of bits
      std::copy(values.begin(), values.end(), p.bytes.begin());
    else if (!values.empty())
      std::memcpy(p.bytes.data(), values.data(), p.bytes.size());
    pieces_.push_back(std::move(p));
  }
  /// @throws file_error; the file that was there before stays then. value_error for metadata
  /// that is not UTF-8, before anything is written
  void write(const std::string& path) const {
    for (const auto& [key, text] : metadata)
      require<value_error>(is_utf8(key) && is_utf8(text), "safetensors: the metadata '",
                           printable(key), "' = '", printable(text),
                           "' is not UTF-8; texts in files must be");
    std::string text = header();
    // Blanks fill it up, so that data are aligned to eight bytes.
    text.resize(std::size_t(round_up(index_t(text.size()), 8)), ' ');
    unsigned char length[8];
    for (int i = 0; i < 8; ++i)
      length[i] = static_cast<unsigned char>(text.size() >> (8 * i));
    atomic_file file(path);
    file.write(length, 8);
    file.write(text);
    for (const piece& p : pieces_)
      file.write(p.bytes.data(), p.bytes.size());
    file.commit();
  }

 private:
  /// A tensor to be written.
  struct piece {
    std::string name;
    dtype type;
    std::vector<index_t> extents;
    std::vector<unsigned char> bytes;

    /// What the format calls its type.
    const char* type_name() const {
      const auto known = std::find_if(std::begin(dtypes), std::end(dtypes),
                                      [&](const dtype_info& d) { return d.type == type; });
      return known->name;
    }
    /// Its extents with commas between them.
    std::string shape() const {
      std::string text;
      for (const index_t extent : extents) {
        if (!text.empty())
          text += ',';
        text += std::to_string(extent);
      }
      return text;
    }
  };
  /// The header's JSON, written piece by piece: the JSON library's own values cannot be
  /// destroyed when there is no memory left.
  std::string header() const {
    const auto quoted = [](const std::string& text) {
      return nlohmann::json(text).dump();
    };
    std::string text = "{";
    const auto next = [&] {
      text += text.back() == '{' ? "" : ",";
    };
    if (!metadata.empty()) {
      text += quoted(metadata_key) + ":{";
      for (const auto& [key, value] : metadata) {
        next();
        text += quoted(key) + ":" + quoted(value);
      }
      text += "}";
    }
    std::uint64_t begin = 0;
    for (const piece& p : pieces_) {
      const std::uint64_t end = begin + p.bytes.size();
      next();
      text += quoted(p.name) + ":{";
      text += quoted("dtype") + ":" + quoted(p.type_name()) + ",";
      text += quoted("shape") + ":[" + p.shape() + "],";
      text += quoted("data_offsets") + ":[";
      text += std::to_string(begin) + "," + std::to_string(end) + "]}";
      begin = end;
    }
    return text + "}";
  }
  std::set<std::string> names_;
  std::vector<piece> pieces_;
};

}  // namespace multistage::io
