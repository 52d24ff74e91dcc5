// The binary files of CIFAR-10 and CIFAR-100: records of labels and 3 x 32 x 32 bytes, channels
// first, one behind the other. CIFAR-100's have two labels, of which the second, the fine one,
// is taken. They have no magic: sizes and labels say which they are.
//
//   image_source images = open_images("cifar-10-batches-bin");     // 50,000 of 32 x 32 x 3
#pragma once
#include <optional>
#include <utility>

#include "../data/image_source.hpp"
#include "idx.hpp"
#include "pictures.hpp"
#include "unpacked.hpp"

namespace multistage::io {

namespace detail {

/// How a record begins.
struct cifar_format {
  const char* name;
  std::size_t labels;  // bytes before the pixels; the last one is the class
  int classes;

  /// Bytes of a record.
  std::size_t record() const {
    return labels + 3 * 32 * 32;
  }
};
inline constexpr cifar_format cifar10{"CIFAR-10", 1, 10};
inline constexpr cifar_format cifar100{"CIFAR-100", 2, 100};

/// Refuses a label that no class has. @throws file_error naming the record
inline void check_cifar_labels(const std::string& path,
                               const byte_source& source,
                               const cifar_format& format) {
  constexpr std::uint64_t at_once = 256;
  const std::uint64_t n = source.size() / format.record();
  for (std::uint64_t first = 0; first < n; first += at_once) {
    const auto bytes = source.bytes(first * format.record(), at_once * format.record());
    for (std::size_t at = 0; at < bytes.size(); at += format.record())
      require<file_error>(bytes[at + format.labels - 1] < format.classes, path, ": record ",
                          first + at / format.record(), " has the label ",
                          int(bytes[at + format.labels - 1]), "; ", format.name, " has ",
                          format.classes, " classes");
  }
}
/// The format whose records fill a file; CIFAR-10's where both do.
inline std::optional<cifar_format> cifar_format_of(const byte_source& source) {
  for (const cifar_format& format : {cifar10, cifar100})
    if (source.size() > 0 && source.size() % format.record() == 0)
      return format;
  return {};
}
/// Whether records of CIFAR begin like an IDX file: with the label 0, and red 0, 8, 3.
inline bool is_cifar_after_all(const byte_source& source) {
  if (!cifar_format_of(source))
    return false;
  try {
    parse_idx_layout("", source.bytes(0, 20), source.size());
    return false;
  } catch (const file_error&) {
    return true;
  }
}
/// One record's pixels to [32, 32, 3].
inline void read_cifar_pixels(const unsigned char* planes, unsigned char* to) {
  constexpr std::size_t pixels = 32 * 32;
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t p = 0; p < pixels; ++p)
      to[p * 3 + c] = planes[c * pixels + p];
}

/// A file of records, and what it is called.
struct named_source {
  std::string name;
  byte_source source;
};

/// Whether a file is called as those are that images for training come in.
inline bool is_cifar_name(const std::string& name) {
  const std::filesystem::path base = std::filesystem::path(name).filename();
  return (base.native().rfind("data_batch", 0) == 0 && base.extension() == ".bin") ||
         base == "train.bin";
}
/// Adds a file that is called so to others. CIFAR-100's name is a common one: its size decides.
inline void add_cifar_file(std::vector<named_source>& files, named_source file) {
  if (std::filesystem::path(file.name).filename() != "train.bin" ||
      cifar_format_of(file.source))
    files.push_back(std::move(file));
}
/// CIFAR's training files in a folder, in order; empty where there are none.
inline std::vector<named_source> cifar_files_of(const std::string& folder) {
  std::vector<named_source> found;
  for (const std::string& path : files_of(folder))
    if (is_cifar_name(path))
      add_cifar_file(found, {path, unpacked(path)});
  return found;
}

/// Files of one of the formats as one set, in their order. @throws file_error naming a file
/// that is none, or of the other format
inline image_source cifar_source(const std::vector<named_source>& files,
                                 std::uint64_t most_pixels) {
  struct part {
    byte_source source;
    index_t begin;
    index_t end;
  };
  std::vector<part> parts;
  check_pixels(files.front().name, 32, 32, most_pixels);
  const cifar_format format = cifar_format_of(files.front().source).value_or(cifar10);
  for (const auto& [name, source] : files) {
    const std::size_t record = format.record();
    require<file_error>(source.size() > 0 && source.size() % record == 0, name, ": has ",
                        source.size(), " bytes, no multiple of ", format.name, "'s records of ",
                        record);
    check_cifar_labels(name, source, format);
    const index_t begin = parts.empty() ? 0 : parts.back().end;
    parts.push_back({source, begin, begin + index_t(source.size() / record)});
  }
  const shape e{parts.back().end, 32, 32, 3};
  // f(record, i): record first + i of the set.
  const auto for_records = [parts, format](index_t first, index_t n, auto&& f) {
    for (const part& p : parts) {
      const index_t begin = std::max(first, p.begin);
      const index_t count = std::min(first + n, p.end) - begin;
      if (count <= 0)
        continue;
      const std::uint64_t at = std::uint64_t(begin - p.begin) * format.record();
      const auto bytes = p.source.bytes(at, std::uint64_t(count) * format.record());
      for (index_t i = 0; i < count; ++i)
        f(bytes.data() + std::size_t(i) * format.record(), begin - first + i);
    }
  };
  const auto pixels = [=](index_t first, index_t n, unsigned char* to) {
    for_records(first, n, [&](const unsigned char* record, index_t i) {
      read_cifar_pixels(record + format.labels, to + i * e.row_size());
    });
  };
  const auto labels = [=](index_t first, index_t n, int* to) {
    for_records(first, n, [&](const unsigned char* record, index_t i) {
      to[i] = record[format.labels - 1];
    });
  };
  image_source images =
      image_source::of_bytes(e, by_blocks<unsigned char>(e, e.row_size(), pixels));
  images.read_labels = by_blocks<int>(e, 1, labels);
  images.class_count = format.classes;
  if (format.classes == 10)
    images.class_names = {"airplane", "automobile", "bird",  "cat",  "deer",
                          "dog",      "frog",       "horse", "ship", "truck"};
  return images;
}

}  // namespace detail

/// Images of a CIFAR-10 file. @param labels filled where given. @throws file_error
inline image_set parse_cifar10(const std::string& path,
                               std::span<const unsigned char> bytes,
                               std::vector<int>* labels = nullptr) {
  const image_source images =
      detail::cifar_source({{path, byte_source(nullptr, bytes)}}, default_most_pixels);
  require<file_error>(images.class_count == 10, path, ": is a file of CIFAR-100");
  image_set s;
  s.extents = images.extents;
  s.values.resize(std::size_t(s.extents.size()));
  images.read_block(0, s.extents.rows, s.values.data());
  if (labels)
    *labels = images.labels();
  return s;
}

}  // namespace multistage::io
