// The safetensors format: eight bytes of header length (little-endian), a JSON header {name: {dtype, shape, data_offsets}, ...,
// "__metadata__": {string: string}}, then the data. Every number of a file is checked before anything is allocated from it.
#pragma once
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "file.hpp"

namespace multistage::io {

enum class dtype { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

struct dtype_info {
  dtype type;
  const char* name;
  index_t size;
};
inline constexpr dtype_info dtypes[] = {{dtype::f64, "F64", 8}, {dtype::f32, "F32", 4},     {dtype::f16, "F16", 2}, {dtype::bf16, "BF16", 2},
                                        {dtype::i64, "I64", 8}, {dtype::i32, "I32", 4},     {dtype::i16, "I16", 2}, {dtype::i8, "I8", 1},
                                        {dtype::u8, "U8", 1},   {dtype::boolean, "BOOL", 1}};
template <class T>
constexpr dtype dtype_of() {
  if constexpr (std::is_same_v<T, double>)
    return dtype::f64;
  else if constexpr (std::is_same_v<T, float>)
    return dtype::f32;
  else if constexpr (std::is_same_v<T, std::int64_t>)
    return dtype::i64;
  else
    return dtype::u8;
}

/// Half precision to float.
inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
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

/// One tensor of a file.
struct tensor_entry {
  dtype_info type;
  std::vector<index_t> extents;
  std::uint64_t begin, end;  // bytes in the data
  index_t size() const {
    index_t n = 1;
    for (index_t e : extents) n *= e;
    return n;
  }
};

/// A safetensors file, mapped into memory: a tensor's bytes are read when it is asked for. Copies share the mapping.
/// @throws file_error with file, place and reason for anything that is not right.
class safetensors {
 public:
  explicit safetensors(std::string path) : path_(std::move(path)) {
    const auto file = std::make_shared<const mapped_file>(path_);
    bytes_ = file->bytes();
    owner_ = file;
    parse();
  }
  /// From memory; `path` names it in messages.
  safetensors(std::string path, std::vector<unsigned char> bytes) : path_(std::move(path)) {
    const auto memory = std::make_shared<const std::vector<unsigned char>>(std::move(bytes));
    bytes_ = *memory;
    owner_ = memory;
    parse();
  }

  const std::string& path() const { return path_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::map<std::string, tensor_entry>& tensors() const { return tensors_; }
  bool contains(const std::string& name) const { return tensors_.count(name) != 0; }
  const tensor_entry& entry(const std::string& name) const {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) fail<file_error>(path_, ": has no tensor '", name, "'");
    return it->second;
  }
  /// f(pointer to the values): where they lie in the file if it has them in T, else converted.
  template <class T, class F>
  void with_values(const std::string& name, F&& f) const {
    const tensor_entry& t = entry(name);
    const unsigned char* p = bytes_.data() + data_ + t.begin;
    if (t.type.type == dtype_of<T>() && reinterpret_cast<std::uintptr_t>(p) % alignof(T) == 0)
      f(reinterpret_cast<const T*>(p));
    else
      f(get<T>(name).data());
  }
  /// The values, converted to T.
  template <class T>
  std::vector<T> get(const std::string& name) const {
    const tensor_entry& t = entry(name);
    const unsigned char* p = bytes_.data() + data_ + t.begin;
    std::vector<T> v(static_cast<std::size_t>(t.size()));
    const auto convert = [&]<class From>(From) {
      for (std::size_t i = 0; i < v.size(); ++i) {
        From x;
        std::memcpy(&x, p + i * sizeof(From), sizeof(From));
        v[i] = T(x);
      }
    };
    switch (t.type.type) {
      case dtype::f64:
        convert(double{});
        break;
      case dtype::f32:
        convert(float{});
        break;
      case dtype::i64:
        convert(std::int64_t{});
        break;
      case dtype::i32:
        convert(std::int32_t{});
        break;
      case dtype::i16:
        convert(std::int16_t{});
        break;
      case dtype::i8:
        convert(std::int8_t{});
        break;
      case dtype::u8:
      case dtype::boolean:
        convert(std::uint8_t{});
        break;
      case dtype::f16:
      case dtype::bf16:
        for (std::size_t i = 0; i < v.size(); ++i) {
          std::uint16_t h;
          std::memcpy(&h, p + 2 * i, 2);
          if (t.type.type == dtype::f16)
            v[i] = T(half_to_float(h));
          else {
            const std::uint32_t bits = std::uint32_t(h) << 16;
            float f;
            std::memcpy(&f, &bits, 4);
            v[i] = T(f);
          }
        }
    }
    return v;
  }
  std::string meta(const std::string& key) const {
    const auto it = metadata_.find(key);
    if (it == metadata_.end()) fail<file_error>(path_, ": its metadata has no '", key, "'");
    return it->second;
  }

 private:
  [[noreturn]] void broken(std::uint64_t at, const std::string& why) const { fail<file_error>(path_, ": not a sound safetensors file: byte ", at, ": ", why); }

  void parse() {
    constexpr std::uint64_t most = std::uint64_t{100} << 20;  // the format's own limit
    if (bytes_.size() < 8) broken(0, "the file has " + std::to_string(bytes_.size()) + " bytes, the header's length takes 8");
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i) length = length << 8 | bytes_[i];
    if (length > most || length > bytes_.size() - 8)
      broken(0, "a header of " + std::to_string(length) + " bytes is said to follow, " + std::to_string(bytes_.size() - 8) + " do");
    data_ = 8 + length;
    const char* begin = reinterpret_cast<const char*>(bytes_.data()) + 8;
    nlohmann::json header;
    try {
      header = nlohmann::json::parse(begin, begin + length);
    } catch (const nlohmann::json::parse_error& e) {
      broken(8 + e.byte, "the header is not JSON");
    } catch (const nlohmann::json::exception& e) {
      broken(8, "the header is not JSON that can be read");
    }
    if (!header.is_object()) broken(8, "the header is not a JSON object");
    const std::uint64_t available = bytes_.size() - data_;
    for (const auto& [name, value] : header.items()) {
      if (name == "__metadata__") {
        if (!value.is_object()) broken(8, "__metadata__ is not an object");
        for (const auto& [k, v] : value.items()) {
          if (!v.is_string()) broken(8, "__metadata__ holds something that is not a string");
          metadata_[k] = v.template get<std::string>();
        }
        continue;
      }
      tensors_.emplace(name, read_entry(name, value, available));
    }
  }
  tensor_entry read_entry(const std::string& name, const nlohmann::json& v, std::uint64_t available) const {
    const std::string where = "tensor '" + name.substr(0, 80) + "': ";
    if (!v.is_object() || !v.contains("dtype") || !v.contains("shape") || !v.contains("data_offsets") || !v["dtype"].is_string() || !v["shape"].is_array() ||
        !v["data_offsets"].is_array() || v["data_offsets"].size() != 2)
      broken(8, where + "dtype, shape or data_offsets is missing");
    tensor_entry t{};
    bool known = false;
    for (const dtype_info& d : dtypes)
      if (v["dtype"] == d.name) t.type = d, known = true;
    if (!known) broken(8, where + "dtype '" + v["dtype"].get_ref<const std::string&>().substr(0, 40) + "' is unknown");
    std::uint64_t bytes = std::uint64_t(t.type.size);
    for (const auto& e : v["shape"]) {
      if (!e.is_number_unsigned()) broken(8, where + "an extent is not a whole number");
      const std::uint64_t n = e.template get<std::uint64_t>();
      if (n > (std::uint64_t{1} << 40) || (n != 0 && bytes > (std::uint64_t{1} << 42) / n)) broken(8, where + "the shape is too large");
      bytes *= n;
      t.extents.push_back(index_t(n));
    }
    for (const auto& o : v["data_offsets"])
      if (!o.is_number_unsigned()) broken(8, where + "an offset is not a whole number");
    t.begin = v["data_offsets"][0].template get<std::uint64_t>();
    t.end = v["data_offsets"][1].template get<std::uint64_t>();
    if (t.begin > t.end || t.end > available)
      broken(data_, where + "its data [" + std::to_string(t.begin) + ", " + std::to_string(t.end) + ") lies outside the " + std::to_string(available) +
                        " bytes of data: the file is cut or broken");
    if (t.end - t.begin != bytes)
      broken(data_ + t.begin, where + "its shape takes " + std::to_string(bytes) + " bytes, its offsets give " + std::to_string(t.end - t.begin));
    return t;
  }

  std::string path_;
  std::shared_ptr<const void> owner_;
  std::span<const unsigned char> bytes_;
  std::uint64_t data_ = 0;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, tensor_entry> tensors_;
};

/// Collects tensors and writes them as one file, atomically.
class safetensors_writer {
 public:
  std::map<std::string, std::string> metadata;

  template <class T>
  void add(const std::string& name, std::vector<index_t> extents, std::vector<T> values) {
    index_t n = 1;
    for (index_t e : extents) n *= e;
    require<shape_error>(n == index_t(values.size()), "safetensors: tensor '", name, "' has ", values.size(), " values, its extents hold ", n);
    piece p{name, dtype_of<T>(), std::move(extents), std::vector<unsigned char>(values.size() * sizeof(T))};
    if (!values.empty()) std::memcpy(p.bytes.data(), values.data(), p.bytes.size());
    pieces_.push_back(std::move(p));
  }
  /// @throws file_error; the file that was there before stays then.
  void write(const std::string& path) const {
    nlohmann::ordered_json header;
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::uint64_t at = 0;
    for (const piece& p : pieces_) {
      const char* type = "";
      for (const dtype_info& d : dtypes)
        if (d.type == p.type) type = d.name;
      header[p.name] = {{"dtype", type}, {"shape", p.extents}, {"data_offsets", {at, at + p.bytes.size()}}};
      at += p.bytes.size();
    }
    std::string text = header.dump();
    text.resize(std::size_t(round_up(index_t(text.size()), 8)), ' ');  // data aligned to eight bytes
    unsigned char length[8];
    for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(text.size() >> (8 * i));
    atomic_file f(path);
    f.write(length, 8);
    f.write(text);
    for (const piece& p : pieces_) f.write(p.bytes.data(), p.bytes.size());
    f.commit();
  }

 private:
  struct piece {
    std::string name;
    dtype type;
    std::vector<index_t> extents;
    std::vector<unsigned char> bytes;
  };
  std::vector<piece> pieces_;
};

}  // namespace multistage::io
