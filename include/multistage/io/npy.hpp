// NumPy's npy format, versions 1 to 3: bool, u1, i1, i2, i4, i8, f4, f8, little-endian, C
// order.
//
// The file begins with the bytes 93 "NUMPY", two of the version, two (version 1) or four of
// the header's length, then a dictionary as Python writes it:
//
//   {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
//
// and the values. The dictionary is read by rules of its own, never evaluated, and its numbers
// are checked against the file's size before anything is allocated.
#pragma once
#include "../core/utf8.hpp"
#include "images.hpp"
#include "picture.hpp"
#include "safetensors.hpp"
#include "value_range.hpp"

namespace multistage::io {

/// Where an array's values lie in its file.
struct npy_layout {
  std::string type;              ///< "u1", "f4", ...
  std::vector<index_t> extents;  ///< along each axis, the last fastest
  std::size_t data = 0;          ///< byte at which values begin
  std::size_t count = 0;         ///< of values

  /// Bytes of a value.
  std::size_t width() const {
    return std::size_t(type[1] - '0');
  }
  /// n values from their bytes, as To.
  template <class To>
  void convert(const unsigned char* from, std::size_t n, To* to) const {
    const auto as = [&]<class From>(From) {
      for (std::size_t i = 0; i < n; ++i) {
        From v;
        std::memcpy(&v, from + i * sizeof(From), sizeof(From));
        to[i] = To(v);
      }
    };
    if (type == "u1" || type == "b1")
      return as(std::uint8_t{});
    if (type == "i1")
      return as(std::int8_t{});
    if (type == "i2")
      return as(std::int16_t{});
    if (type == "u2")
      return as(std::uint16_t{});
    if (type == "i4")
      return as(std::int32_t{});
    if (type == "i8")
      return as(std::int64_t{});
    if (type == "f4")
      return as(float{});
    as(double{});
  }
};

/// An array in memory, whatever its type in the file.
struct npy_array {
  std::string type;              ///< as in npy_layout
  std::vector<index_t> extents;  ///< along each axis, the last fastest
  std::vector<double> values;    ///< exact but for integers of 64 bits beyond 2^53
};

namespace detail {

/// The largest array that is read or written, in values.
inline constexpr index_t most_values = index_t{1} << 40;

/// all *= extent, but for extents of 0: the others must be such that their product can be told,
/// too. False where it cannot.
inline bool multiplied(index_t& all, index_t extent) {
  const index_t factor = std::max<index_t>(extent, 1);
  return !__builtin_mul_overflow(all, factor, &all) && all <= most_values;
}

/// Reads the header of an npy file: a dictionary of Python's with the keys descr, fortran_order
/// and shape, each once, and no other.
class npy_header {
 public:
  /// The type as NumPy writes it: byte order, kind, bytes.
  std::string descr;
  std::vector<index_t> extents;
  index_t count = 1;

  /// `broken(why)` must throw.
  template <class Broken>
  npy_header(std::string text, Broken&& broken)
      : text_(std::move(text)) {
    for (const char* key : {"descr", "fortran_order", "shape"})
      if (text_.find(key) == std::string::npos)
        broken(std::string("the header lacks '") + key + "'");
    if (!next('{'))
      broken("the header is not a dictionary");
    std::string seen;
    while (!next('}')) {
      const std::string key = quoted(broken);
      if (!next(':'))
        broken("the header's '" + printable(key, 40) + "' has no value");
      if (seen.find("/" + key + "/") != std::string::npos)
        broken("'" + printable(key, 40) + "' is there twice");
      seen += "/" + key + "/";
      if (key == "descr")
        descr = quoted(broken);
      else if (key == "fortran_order")
        read_order(broken);
      else if (key == "shape")
        read_shape(broken);
      else
        broken("the header's '" + printable(key, 40) + "' is unknown");
      if (!next(',') && !ahead('}'))
        broken("the header is not a dictionary");
    }
    if (text_.find_first_not_of(" \n", at_) != std::string::npos)
      broken("something follows the header's dictionary");
    for (const char* key : {"descr", "fortran_order", "shape"})
      if (seen.find("/" + std::string(key) + "/") == std::string::npos)
        broken(std::string("the header lacks '") + key + "'");
  }

 private:
  /// Whether c comes next, blanks aside.
  bool ahead(char c) {
    at_ = std::min(text_.find_first_not_of(" \n", at_), text_.size());
    return at_ < text_.size() && text_[at_] == c;
  }
  // Takes c where it comes next.
  bool next(char c) {
    const bool there = ahead(c);
    if (there)
      ++at_;
    return there;
  }
  // Takes a word where it comes next.
  bool next(std::string_view word) {
    ahead(' ');
    const bool there = text_.compare(at_, word.size(), word) == 0;
    if (there)
      at_ += word.size();
    return there;
  }
  /// Takes a text between quotes of either kind.
  template <class Broken>
  std::string quoted(Broken&& broken) {
    const char quote = ahead('"') ? '"' : '\'';
    const std::size_t from = next(quote) ? at_ : std::string::npos;
    const std::size_t end = from == std::string::npos ? from : text_.find(quote, from);
    if (end == std::string::npos)
      broken("a key or the type of its values is missing or structured");
    at_ = end + 1;
    return text_.substr(from, end - from);
  }
  /// Takes False: arrays by columns are not read.
  template <class Broken>
  void read_order(Broken&& broken) {
    if (next("False"))
      return;
    broken(next("True")
               ? "it is in Fortran order; save with numpy.ascontiguousarray"
               : "'fortran_order', whether it is in Fortran order, is neither True nor False");
  }
  /// Takes a tuple of extents, whose product is looked at as it grows.
  template <class Broken>
  void read_shape(Broken&& broken) {
    if (!next('('))
      broken("the shape is missing, or no tuple");
    while (!next(')')) {
      ahead(' ');
      const std::size_t end = std::min(text_.find_first_of(",)", at_), text_.size());
      std::string number = text_.substr(at_, end - at_);
      number.erase(number.find_last_not_of(" L") + 1);  // Python 2 wrote 3L
      const bool digits = number.find_first_not_of("0123456789") == std::string::npos;
      if (number.empty() || !digits)
        broken("the shape holds '" + printable(number, 20) +
               "'; extents are whole numbers from 0");
      const bool long_number = number.size() > 13;
      const index_t n = long_number ? most_values + 1 : index_t(std::stoll(number));
      if (n > most_values || !multiplied(all_, n))
        broken("the shape is too large");
      count *= n;
      extents.push_back(n);
      at_ = end;
      // A tuple of one has a comma: (3,).
      const bool may_end = ahead(')') && extents.size() > 1;
      if (!next(',') && !may_end)
        broken("the shape is no tuple");
    }
  }

  std::string text_;
  std::size_t at_ = 0;
  index_t all_ = 1;
};

}  // namespace detail

/// The longest start of a file that its header needs; NumPy's own have some hundred bytes.
inline constexpr std::size_t npy_longest_start = (std::size_t{1} << 20) + 12;

/// @param start the file's first bytes, all or at least npy_longest_start of them. @param size
/// of all.
/// @throws file_error with file, byte and reason.
inline npy_layout parse_npy_layout(const std::string& path,
                                   std::span<const unsigned char> start,
                                   std::uint64_t size) {
  const auto broken = [&](std::size_t at, const std::string& why) {
    fail<file_error>(path, ": not a sound npy file: byte ", at, ": ", why);
  };
  static constexpr unsigned char magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  if (start.size() < 10 || std::memcmp(start.data(), magic, 6) != 0)
    broken(0, "it does not begin with the magic of npy");
  // Versions 2 and 3 have four bytes for the header's length.
  const int version = start[6];
  const bool wide = version >= 2;
  const std::size_t begin = wide ? 12 : 10;
  if (version < 1 || version > 3 || start.size() < begin)
    broken(6, "version " + std::to_string(version) + " is unknown");
  std::size_t length = 0;  // its bytes follow from byte 8 on, the lowest first
  for (std::size_t at = begin; at-- > 8;)
    length = length << 8 | start[at];
  if (length > start.size() - begin)
    broken(8, "a header of " + std::to_string(length) + " bytes does not fit");
  const char* const text = reinterpret_cast<const char*>(start.data()) + begin;
  const detail::npy_header header(std::string(text, length),
                                  [&](const std::string& why) { broken(begin, why); });
  // "<f4", "|u1" and "=i8" are of this machine's order of bytes; ">f4" is not.
  const auto known = {"u1", "b1", "i1", "i2", "u2", "i4", "i8", "f4", "f8"};
  constexpr std::string_view own_order = "<|=";
  npy_layout a;
  const bool typed = header.descr.size() == 3;
  if (typed && own_order.find(header.descr[0]) != std::string_view::npos)
    a.type = header.descr.substr(1);
  if (std::find(known.begin(), known.end(), a.type) == known.end())
    broken(begin, "type '" + printable(header.descr, 20) +
                      "' is not supported; save as bool, uint8, int or float, little-endian");
  a.extents = header.extents;
  a.count = std::size_t(header.count);
  a.data = begin + length;
  const std::uint64_t taken = a.count * a.width();
  const std::uint64_t behind = size - a.data;
  if (taken != behind)
    broken(a.data, "its shape takes " + std::to_string(taken) + " bytes, " +
                       std::to_string(behind) + " follow: the file is cut or broken");
  return a;
}
/// The same of all bytes.
inline npy_layout parse_npy_layout(const std::string& path,
                                   std::span<const unsigned char> bytes) {
  return parse_npy_layout(path, bytes, bytes.size());
}
/// @throws file_error with file, byte and reason.
inline npy_array parse_npy(const std::string& path, std::span<const unsigned char> bytes) {
  const npy_layout layout = parse_npy_layout(path, bytes);
  npy_array a{layout.type, layout.extents, std::vector<double>(layout.count)};
  layout.convert(bytes.data() + layout.data, layout.count, a.values.data());
  return a;
}
/// Reads a file whole. @throws file_error with file, byte and reason
inline npy_array read_npy(const std::string& path) {
  return parse_npy(path, read_file(path));
}

namespace detail {

/// Extents as a tuple of Python's, without its brackets. @throws shape_error for extents that
/// hold another number of values than there are, or that no reader takes
inline std::string npy_shape(const std::string& path,
                             const std::vector<index_t>& extents,
                             std::size_t values) {
  constexpr std::size_t most = 64;  // NumPy's
  require<shape_error>(extents.size() <= most, path, ": cannot be written: ", extents.size(),
                       " dimensions, more than the ", most, " that an array can have");
  std::string text;
  index_t count = 1;
  index_t all = 1;  // with 1 for 0
  bool countable = true;
  for (const index_t e : extents) {
    text += std::to_string(e) + ",";
    countable = countable && e >= 0 && multiplied(all, e);
    count = countable ? count * e : 0;
  }
  require<shape_error>(countable && std::size_t(count) == values, path,
                       ": cannot be written: ", values,
                       " values, which is not what the extents (", text, ") hold");
  return text;
}

/// All that stands before an array's values in an npy file of version 1: the magic, the length
/// of the header, and the header, filled up so that values begin at a multiple of 64 bytes.
/// @param type NumPy's, with its byte order: "<f8". @throws shape_error as npy_shape does
inline std::string npy_start(const std::string& path,
                             const std::string& type,
                             const std::vector<index_t>& extents,
                             std::size_t values) {
  constexpr index_t before = 10;  // the magic and the length
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': (" +
                       npy_shape(path, extents, values) + "), }";
  const index_t all = round_up(before + index_t(header.size()) + 1, 64);
  header.resize(std::size_t(all - before - 1), ' ');
  header += '\n';
  std::string start("\x93NUMPY\x01\x00", 8);
  start += char(header.size() & 255);
  start += char(header.size() >> 8);
  return start + header;
}

}  // namespace detail

/// Writes float64 values. @throws shape_error, before anything is written, unless the extents
/// hold as many values as there are; file_error
inline void write_npy(const std::string& path,
                      const std::vector<index_t>& extents,
                      std::span<const double> values) {
  const std::string start = detail::npy_start(path, "<f8", extents, values.size());
  atomic_file f(path);
  f.write(start);
  f.write(values.data(), values.size() * sizeof(double));
  f.commit();
}

/// How an array's values become those of images.
struct image_rule {
  /// White, of arrays of integers in [0, largest]; 0 says 255. Of booleans true is white.
  double largest = 0;
  /// Floats are latent images, of any size; else they must lie in [-1, 1].
  bool latents = false;
  std::string array{};  ///< of an npz archive: its name; empty: the only one that can be images
  /// 1: pictures whose channels agree become grey; 3: grey fills them; 0: as they are.
  index_t channels = 0;
  std::uint64_t most_pixels = default_most_pixels;  ///< of one picture

  /// [n, h, w, c] of an array [n, h, w] or [n, h, w, c]. @throws file_error
  static shape extents(const std::string& path, const std::vector<index_t>& e) {
    require<file_error>(
        e.size() == 3 || e.size() == 4, path, ": has ", e.size(),
        " dimensions; images are [n, height, width] or [n, height, width, channels]");
    return {e[0], e[1], e[2], e.size() == 4 ? e[3] : 1};
  }
  /// Whether arrays of a type are warned of where their values do not look like pictures.
  bool judged(const std::string& type) const {
    return type[0] != 'b' && !(type[0] == 'f' && latents);
  }
  /// The integer that is white in arrays of a type; 0 for floats.
  double white(const std::string& type) const {
    return type[0] == 'f' ? 0 : largest > 0 ? largest : 255;
  }
  /// n values in place, the first of which is value `first` of the file. @throws value_error
  template <class T>
  void apply(const std::string& path,
             const std::string& type,
             std::size_t first,
             std::size_t n,
             T* values) const {
    require<value_error>(largest >= 0 && largest < HUGE_VAL, path, ": largest = ", largest,
                         "; it is above 0 and finite, or 0 for 255");
    const bool floats = type[0] == 'f';
    if (floats && latents)
      return;
    const double top = type[0] == 'b' ? 1 : largest > 0 ? largest : 255;
    for (std::size_t i = 0; i < n; ++i) {
      const double stored = double(values[i]);
      const double v = floats ? stored : stored / top * 2 - 1;
      require<value_error>(v >= -1 && v <= 1, path, ": value ", first + i, " is ", values[i],
                           ", outside ", floats ? "[-1, 1]" : "[0, largest]",
                           "; images have values in that range",
                           floats ? " (latent images are read as such)" : "");
      values[i] = T(v);
    }
  }
};

/// Images from an array, as values in [-1, 1] unless they are latents. @throws file_error,
/// value_error, shape_error for an array whose extents hold another number of values
inline image_set images_from(npy_array a,
                             const std::string& path,
                             const image_rule& rule = {}) {
  image_set s;
  s.extents = image_rule::extents(path, a.extents);
  const bool as_many = countable(s.extents) && index_t(a.values.size()) == s.extents.size();
  require<shape_error>(as_many, path, ": ", a.values.size(), " values for images ", s.extents,
                       "; give as many as the extents say");
  rule.apply(path, a.type, 0, a.values.size(), a.values.data());
  s.values.assign(a.values.begin(), a.values.end());
  if (rule.judged(a.type)) {
    detail::value_range range(path, rule.white(a.type));
    range.add(s.span());
    range.report();
  }
  return s;
}

}  // namespace multistage::io
