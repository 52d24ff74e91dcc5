// The safetensors format: eight bytes of header length (little-endian), a JSON header {name:
// {dtype, shape, data_offsets}, ...,
// "__metadata__": {string: string}}, then the data. Every number of a file is checked before
// anything is allocated from it. What the format's own reader refuses is refused: tensors lie
// one behind the other, without a hole, an overlap or bytes left over.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "../core/finite.hpp"
#include "../core/utf8.hpp"
#include "file.hpp"
#include "json_text.hpp"

namespace multistage::io {

/// Types of the format. The library reads values of all but `other`, which
/// may stand in a file beside what is needed.
enum class dtype { f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, boolean, other };

/// A type's name in files, and its bits.
struct dtype_info {
  dtype type;        ///< what values are
  const char* name;  ///< as files spell it
  int bits;          ///< of one value

  /// Whether weights may have it.
  constexpr bool is_weight() const {
    return type <= dtype::bf16;
  }
};
/// All types that files may name.
inline constexpr dtype_info dtypes[] = {
    {dtype::f64, "F64", 64},          {dtype::f32, "F32", 32},
    {dtype::f16, "F16", 16},          {dtype::bf16, "BF16", 16},
    {dtype::i64, "I64", 64},          {dtype::i32, "I32", 32},
    {dtype::i16, "I16", 16},          {dtype::i8, "I8", 8},
    {dtype::u64, "U64", 64},          {dtype::u32, "U32", 32},
    {dtype::u16, "U16", 16},          {dtype::u8, "U8", 8},
    {dtype::boolean, "BOOL", 8},      {dtype::other, "C64", 64},
    {dtype::other, "F8_E4M3", 8},     {dtype::other, "F8_E5M2", 8},
    {dtype::other, "F8_E4M3FNUZ", 8}, {dtype::other, "F8_E5M2FNUZ", 8},
    {dtype::other, "F8_E8M0", 8},     {dtype::other, "F6_E2M3", 6},
    {dtype::other, "F6_E3M2", 6},     {dtype::other, "F4", 4}};
/// The type of files that values of T have.
template <class T>
constexpr dtype dtype_of() {
  static_assert(
      std::is_same_v<T, double> || std::is_same_v<T, float> ||
          (std::is_integral_v<T> && sizeof(T) <= 8),
      "multistage: safetensors files take double, float, integers of at most 8 bytes and bool");
  constexpr dtype with_sign[] = {dtype::i8, dtype::i16, dtype::i32, dtype::i64};
  constexpr dtype without[] = {dtype::u8, dtype::u16, dtype::u32, dtype::u64};
  constexpr int size = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
  if constexpr (std::is_same_v<T, double>)
    return dtype::f64;
  else if constexpr (std::is_same_v<T, float>)
    return dtype::f32;
  else if constexpr (std::is_same_v<T, bool>)
    return dtype::boolean;
  else
    return std::is_signed_v<T> ? with_sign[size] : without[size];
}

/// Whether a value is one of T's: converted to an integer it stays below T's ends, and to a
/// floating type finite.
template <class T, class From>
constexpr bool is_value_of(From v) {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<T> &&
                !std::is_same_v<T, bool>) {
    constexpr From end = From(std::uint64_t{1} << (std::numeric_limits<T>::digits - 1)) * 2;
    return v < end && (std::is_signed_v<T> ? v >= -end : v > -1);  // no NaN either
  } else if constexpr (std::is_integral_v<From> && std::is_integral_v<T> &&
                       !std::is_same_v<T, bool>) {
    return From(T(v)) == v && (T(v) < T(0)) == (v < From(0));
  } else if constexpr (std::is_floating_point_v<T> && std::is_floating_point_v<From> &&
                       sizeof(From) > sizeof(T)) {
    constexpr double most = double(std::numeric_limits<T>::max());
    return !is_finite(v) || (double(v) <= most && double(v) >= -most);
  }
  return true;
}

/// Half precision to float.
inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t(h & 0x8000u) << 16;
  const std::uint32_t exponent = (h >> 10) & 31;
  const std::uint32_t mantissa = h & 1023;
  std::uint32_t bits;
  if (exponent == 31)
    bits = sign | 0x7f800000u | (mantissa << 13);
  else if (exponent != 0)
    bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  else {
    const float v = float(mantissa) * 0x1p-24f;
    return sign ? -v : v;
  }
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

/// bfloat16 to float: its upper half.
inline float bfloat_to_float(std::uint16_t h) {
  const std::uint32_t bits = std::uint32_t(h) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

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

/// A safetensors file: its header is read when it is opened, a tensor's bytes when they are
/// asked for. Copies share the open file.
/// @throws file_error with file, place and reason for anything that is not right.
class safetensors {
 public:
  /// Opens a file and reads its header. @throws file_error
  explicit safetensors(std::string path) : path_(std::move(path)), source_(path_) {
    parse();
  }
  /// From memory; `path` names it in messages.
  safetensors(std::string path, std::vector<unsigned char> bytes)
      : path_(std::move(path)), source_(std::move(bytes)) {
    parse();
  }

  /// As it was given.
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
      fail<file_error>(path_, ": has no tensor '", name, "'");
    return it->second;
  }
  /// The values, converted to T. @throws file_error for types that the library does not compute
  /// in, and for values that T has not
  template <class T>
  std::vector<T> get(const std::string& name) const {
    const tensor_entry& t = entry(name);
    std::vector<T> v(static_cast<std::size_t>(t.size()));
    const std::uint64_t at = data_ + t.begin;
    switch (t.type.type) {
      case dtype::f64:
        return convert<double>(name, at, v), v;
      case dtype::f32:
        return convert<float>(name, at, v), v;
      case dtype::f16:
        return convert<std::uint16_t>(name, at, v, half_to_float), v;
      case dtype::bf16:
        return convert<std::uint16_t>(name, at, v, bfloat_to_float), v;
      case dtype::i64:
        return convert<std::int64_t>(name, at, v), v;
      case dtype::i32:
        return convert<std::int32_t>(name, at, v), v;
      case dtype::i16:
        return convert<std::int16_t>(name, at, v), v;
      case dtype::i8:
        return convert<std::int8_t>(name, at, v), v;
      case dtype::u64:
        return convert<std::uint64_t>(name, at, v), v;
      case dtype::u32:
        return convert<std::uint32_t>(name, at, v), v;
      case dtype::u16:
        return convert<std::uint16_t>(name, at, v), v;
      case dtype::u8:
      case dtype::boolean:
        return convert<std::uint8_t>(name, at, v), v;
      default:
        fail<file_error>(
            path_, ": tensor '", name, "' is ", t.type.name,
            ", which this library does not compute in; store it as F16, BF16, F32 or F64");
    }
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
  template <class From, class T, class F>
  void convert(const std::string& name, std::uint64_t at, std::vector<T>& to, F&& value) const {
    constexpr std::size_t most = 1 << 14;
    std::vector<From> block(std::min(most, to.size()));
    for (std::size_t i = 0; i < to.size(); i += most) {
      const std::size_t n = std::min(most, to.size() - i);
      source_.read(at + i * sizeof(From), block.data(), n * sizeof(From));
      for (std::size_t k = 0; k < n; ++k) {
        const auto v = value(block[k]);
        if (!is_value_of<T>(v))
          fail<file_error>(path_, ": ", in_tensor(name), "value ", i + k, " is ", +v,
                           std::is_integral_v<T>
                               ? ", beyond the integers that are asked for"
                               : ", not finite in the precision that is asked for");
        to[i + k] = T(v);
      }
    }
  }

  void parse() {
    // The length of the header, which must leave room for itself.
    constexpr std::uint64_t most = 100'000'000;  // the format's own limit
    if (source_.size() < 8)
      broken(0, "the file has " + std::to_string(source_.size()) +
                    " bytes, the header's length takes 8");
    unsigned char first[8];
    source_.read(0, first, 8);
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i)
      length = length << 8 | first[i];
    if (length > most || length > source_.size() - 8)
      broken(0, "a header of " + std::to_string(length) + " bytes is said to follow, " +
                    std::to_string(source_.size() - 8) + " do, and at most " +
                    std::to_string(most) + " may");
    data_ = 8 + length;
    std::string text(std::size_t(length), '\0');
    source_.read(8, text.data(), text.size());
    const std::size_t start = text.find_first_not_of(" \t\r\n");
    if (start == std::string::npos || text[start] != '{')
      broken(8, "the header is not JSON: not a JSON object");
    const json_document header = parse_json(text, [&](std::size_t at, const std::string& why) {
      broken(8 + at, "the header: " + why);
    });
    const std::uint64_t available = source_.size() - data_;
    for (const auto& [name, value] : header->items()) {
      if (name != metadata_key) {
        tensors_.emplace(name, read_entry(name, value, available));
        continue;
      }
      if (value.is_null())
        continue;
      if (!value.is_object())
        broken(8, "__metadata__ is not an object");
      for (const auto& [k, v] : value.items()) {
        if (!v.is_string())
          broken(8, "__metadata__ holds something that is not a string");
        metadata_[k] = v.template get<std::string>();
      }
    }
    check_layout(available);
  }
  /// Tensors must fill the data, one behind the other.
  void check_layout(std::uint64_t available) const {
    using entry_type = std::map<std::string, tensor_entry>::value_type;
    std::vector<const entry_type*> order;
    for (const entry_type& t : tensors_)
      order.push_back(&t);
    std::stable_sort(order.begin(), order.end(), [](const entry_type* a, const entry_type* b) {
      return std::pair(a->second.begin, a->second.end) <
             std::pair(b->second.begin, b->second.end);
    });
    std::uint64_t end = 0;
    for (const entry_type* t : order) {
      if (t->second.begin != end)
        broken(data_ + t->second.begin,
               in_tensor(t->first) + "its data begins at byte " +
                   std::to_string(t->second.begin) + " of the data, what lies before ends at " +
                   std::to_string(end) +
                   (t->second.begin < end ? ": they overlap" : ": there is a hole"));
      end = t->second.end;
    }
    if (end != available)
      broken(data_ + end,
             std::to_string(available - end) + " bytes are left over behind the last tensor" +
                 (order.empty() ? std::string()
                                : ", '" + order.back()->first.substr(0, 80) + "'"));
  }
  static std::string in_tensor(const std::string& name) {
    return "tensor '" + name.substr(0, 80) + "': ";
  }
  tensor_entry read_entry(const std::string& name,
                          const nlohmann::json& v,
                          std::uint64_t available) const {
    const std::string where = in_tensor(name);
    if (!v.is_object() || !v.contains("dtype") || !v.contains("shape") ||
        !v.contains("data_offsets") || !v["dtype"].is_string() || !v["shape"].is_array() ||
        !v["data_offsets"].is_array() || v["data_offsets"].size() != 2)
      broken(8, where + "dtype, shape or data_offsets is missing");
    tensor_entry t{};
    const auto known =
        std::find_if(std::begin(dtypes), std::end(dtypes),
                     [&](const dtype_info& d) { return is_text(v["dtype"], d.name); });
    if (known == std::end(dtypes))
      broken(8, where + "dtype '" + v["dtype"].get_ref<const std::string&>().substr(0, 40) +
                    "' is unknown");
    t.type = *known;
    index_t bits = 0;
    for (const auto& e : v["shape"]) {
      if (!e.is_number_unsigned())
        broken(8, where + "an extent is not a whole number");
      const std::uint64_t n = e.template get<std::uint64_t>();
      if (n > std::uint64_t(std::numeric_limits<index_t>::max()) ||
          __builtin_mul_overflow(t.count, index_t(n), &t.count))
        broken(8, where + "the shape is too large");
      t.extents.push_back(index_t(n));
    }
    if (__builtin_mul_overflow(t.count, index_t(t.type.bits), &bits))
      broken(8, where + "the shape is too large");
    if (bits % 8 != 0)
      broken(8, where + "its " + std::to_string(bits) + " bits are no whole number of bytes");
    for (const auto& o : v["data_offsets"])
      if (!o.is_number_unsigned())
        broken(8, where + "an offset is not a whole number");
    t.begin = v["data_offsets"][0].template get<std::uint64_t>();
    t.end = v["data_offsets"][1].template get<std::uint64_t>();
    if (t.begin > t.end || t.end > available)
      broken(data_, where + "its data [" + std::to_string(t.begin) + ", " +
                        std::to_string(t.end) + ") lies outside the " +
                        std::to_string(available) +
                        " bytes of data: the file is cut or broken");
    if (t.end - t.begin != std::uint64_t(bits / 8))
      broken(data_ + t.begin, where + "its shape takes " + std::to_string(bits / 8) +
                                  " bytes, its offsets give " +
                                  std::to_string(t.end - t.begin));
    return t;
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
    require<value_error>(is_utf8(name), "safetensors: the tensor's name '", shown(name),
                         "' is not UTF-8; names in files must be");
    require<value_error>(names_.insert(name).second, "safetensors: two tensors are called '",
                         name, "'; only one could be read back, give each a name of its own");
    index_t n = 1;
    bool fits = true;
    for (const index_t e : extents)
      fits = fits && e >= 0 && !__builtin_mul_overflow(n, e, &n);
    require<shape_error>(fits && n == index_t(values.size()), "safetensors: tensor '", name,
                         "' has ", values.size(),
                         " values, which is not what its extents hold");
    piece p{name, dtype_of<T>(), std::move(extents),
            std::vector<unsigned char>(values.size() * sizeof(T))};
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
                           shown(key), "' = '", shown(text),
                           "' is not UTF-8; texts in files must be");
    std::string text = header();
    text.resize(std::size_t(round_up(index_t(text.size()), 8)),
                ' ');  // data aligned to eight bytes
    unsigned char length[8];
    for (int i = 0; i < 8; ++i)
      length[i] = static_cast<unsigned char>(text.size() >> (8 * i));
    atomic_file f(path);
    f.write(length, 8);
    f.write(text);
    for (const piece& p : pieces_)
      f.write(p.bytes.data(), p.bytes.size());
    f.commit();
  }

 private:
  struct piece {
    std::string name;
    dtype type;
    std::vector<index_t> extents;
    std::vector<unsigned char> bytes;
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
    std::uint64_t at = 0;
    for (const piece& p : pieces_) {
      const char* type = "";
      for (const dtype_info& d : dtypes)
        if (d.type == p.type)
          type = d.name;
      std::string shape;
      for (const index_t e : p.extents) {
        if (!shape.empty())
          shape += ',';
        shape += std::to_string(e);
      }
      next();
      text += quoted(p.name) + ":{\"dtype\":\"" + type + "\",\"shape\":[" + shape +
              "],\"data_offsets\":[" + std::to_string(at) + "," +
              std::to_string(at + p.bytes.size()) + "]}";
      at += p.bytes.size();
    }
    return text + "}";
  }
  static std::string shown(const std::string& text) {
    std::string s = text.substr(0, 80);
    for (char& c : s)
      if (c < ' ' || c > '~')
        c = '?';
    return s;
  }
  std::set<std::string> names_;
  std::vector<piece> pieces_;
};

}  // namespace multistage::io
