// Data sets by their path: .npy and .npz arrays, IDX files (MNIST), CIFAR-10's binary files or a folder of them, folders of PNG or JPEG pictures; in memory,
// or as a source that is read block by block.
#pragma once
#include "../stages/image_source.hpp"
#include "idx.hpp"
#include "npz.hpp"
#include "pictures.hpp"

namespace multistage::io {

namespace detail {
/// CIFAR-10's binary format: records of a label and 3 x 32 x 32 bytes, channels first.
inline constexpr std::size_t cifar10_record = 3073;
inline index_t cifar10_count(const std::string& path, std::span<const unsigned char> bytes) {
  require<file_error>(!bytes.empty() && bytes.size() % cifar10_record == 0, path, ": has ", bytes.size(), " bytes, no multiple of CIFAR-10's records of ",
                      cifar10_record);
  return index_t(bytes.size() / cifar10_record);
}
/// One record's image to [32, 32, 3] in [-1, 1]; returns its label. @throws file_error
inline int read_cifar10(const std::string& path, std::span<const unsigned char> bytes, index_t record, float* to) {
  const unsigned char* from = bytes.data() + std::size_t(record) * cifar10_record;
  require<file_error>(from[0] < 10, path, ": record ", record, " has the label ", int(from[0]), "; CIFAR-10 has 10 classes");
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t p = 0; p < 1024; ++p) to[p * 3 + c] = float(from[1 + c * 1024 + p]) / 127.5f - 1;
  return from[0];
}
inline bool ends_with(const std::string& p, const char* end) {
  return p.size() >= std::strlen(end) && p.compare(p.size() - std::strlen(end), std::string::npos, end) == 0;
}
/// CIFAR-10's training files in a folder, in order; empty where there are none.
inline std::vector<std::string> cifar10_batches(const std::string& folder) {
  std::vector<std::string> batches;
  for (const auto& e : std::filesystem::directory_iterator(folder))
    if (const std::string name = e.path().filename().string(); name.rfind("data_batch", 0) == 0 && ends_with(name, ".bin"))
      batches.push_back(e.path().string());
  std::sort(batches.begin(), batches.end());
  return batches;
}
}  // namespace detail

/// Images of a CIFAR-10 file. @param labels filled where given. @throws file_error
inline image_set parse_cifar10(const std::string& path, std::span<const unsigned char> bytes, std::vector<int>* labels = nullptr) {
  image_set s;
  s.extents = {detail::cifar10_count(path, bytes), 32, 32, 3};
  s.values.resize(std::size_t(s.extents.size()));
  for (index_t r = 0; r < s.count(); ++r) {
    const int label = detail::read_cifar10(path, bytes, r, s.values.data() + r * s.extents.row_size());
    if (labels) labels->push_back(label);
  }
  return s;
}

/// Images of any kind of path, in [-1, 1] unless they are latents, NHWC. @throws file_error saying what the path is taken for and why that fails
inline image_set read_images(const std::string& path, const image_rule& rule = {}) {
  if (std::filesystem::is_directory(path)) {
    const std::vector<std::string> batches = detail::cifar10_batches(path);
    if (batches.empty()) return read_folder(path);
    image_set all;
    for (const std::string& b : batches) {
      const image_set one = parse_cifar10(b, read_file(b));
      all.extents = {all.extents.rows + one.extents.rows, 32, 32, 3};
      all.values.insert(all.values.end(), one.values.begin(), one.values.end());
    }
    return all;
  }
  if (detail::ends_with(path, ".npy")) return images_from(read_npy(path), path, rule);
  if (detail::ends_with(path, ".npz")) return images_from(parse_npz(path, read_file(path)), path, rule);
  const std::vector<unsigned char> bytes = read_file(path);
  if (detail::ends_with(path, ".bin")) return parse_cifar10(path, bytes);
  if (bytes.size() > 4 && bytes[0] == 0 && bytes[1] == 0) return parse_idx(path, bytes);
  fail<file_error>(path, ": is no data set that is known: .npy, .npz, IDX (MNIST, uncompressed), CIFAR-10 .bin, or a folder of .bin, PNG or JPEG files");
}

/// The same as a source: .npy arrays, CIFAR-10's files and pictures stay on the disk and are read block by block, the others are held in memory.
inline image_source open_images(const std::string& path, const image_rule& rule = {}) {
  if (detail::ends_with(path, ".npy") && !std::filesystem::is_directory(path)) {
    const auto file = std::make_shared<mapped_file>(path);
    const npy_layout l = parse_npy_layout(path, file->bytes());
    const shape e = image_rule::extents(path, l.extents);
    return {e, [=, size = e.row_size()](index_t first, index_t n, float* to) {
              l.read(file->bytes(), std::size_t(first * size), std::size_t(n * size), to);
              rule.apply(path, l.type, std::size_t(first * size), std::size_t(n * size), to);
            }};
  }
  const bool folder = std::filesystem::is_directory(path);
  std::vector<std::string> batches = folder ? detail::cifar10_batches(path) : detail::ends_with(path, ".bin") ? std::vector{path} : std::vector<std::string>{};
  if (batches.empty() && folder) {
    const std::vector<std::string> files = picture_files(path);
    const shape e = picture_extents(files);
    return {e, [=](index_t first, index_t n, float* to) { read_pictures(std::span(files).subspan(std::size_t(first), std::size_t(n)), e, to); }};
  }
  if (batches.empty()) {
    const auto all = std::make_shared<image_set>(read_images(path, rule));
    image_source s = image_source::of(all->span(), all->extents);
    return {s.extents, [all, read = s.read](index_t first, index_t n, float* to) { read(first, n, to); }};
  }
  struct part {
    std::string path;
    std::shared_ptr<mapped_file> file;
    index_t begin, end;
  };
  std::vector<part> parts;
  for (const std::string& b : batches) {
    const auto file = std::make_shared<mapped_file>(b);
    const index_t begin = parts.empty() ? 0 : parts.back().end;
    parts.push_back({b, file, begin, begin + detail::cifar10_count(b, file->bytes())});
  }
  const shape e{parts.back().end, 32, 32, 3};
  return {e, [parts, size = e.row_size()](index_t first, index_t n, float* to) {
            for (const part& p : parts)
              for (index_t i = std::max(first, p.begin); i < std::min(first + n, p.end); ++i)
                detail::read_cifar10(p.path, p.file->bytes(), i - p.begin, to + (i - first) * size);
          }};
}

}  // namespace multistage::io
