// Data sets by their path: .npy and .npz arrays, IDX files (MNIST), CIFAR-10's binary files or a folder of them, folders of PNG or JPEG pictures.
#pragma once
#include "idx.hpp"
#include "npz.hpp"
#include "pictures.hpp"

namespace multistage::io {

/// CIFAR-10's binary format: records of a label and 3 x 32 x 32 bytes, channels first. @param labels filled where given
inline image_set parse_cifar10(const std::string& path, std::span<const unsigned char> bytes, std::vector<int>* labels = nullptr) {
  constexpr std::size_t record = 3073;
  require<file_error>(!bytes.empty() && bytes.size() % record == 0, path, ": has ", bytes.size(), " bytes, no multiple of CIFAR-10's records of ", record);
  image_set s;
  s.extents = {index_t(bytes.size() / record), 32, 32, 3};
  s.values.resize(std::size_t(s.extents.size()));
  for (std::size_t r = 0; r < bytes.size() / record; ++r) {
    require<file_error>(bytes[r * record] < 10, path, ": record ", r, " has the label ", int(bytes[r * record]), "; CIFAR-10 has 10 classes");
    if (labels) labels->push_back(bytes[r * record]);
    for (std::size_t c = 0; c < 3; ++c)
      for (std::size_t p = 0; p < 1024; ++p) s.values[(r * 1024 + p) * 3 + c] = float(bytes[r * record + 1 + c * 1024 + p]) / 127.5f - 1;
  }
  return s;
}

/// Images of any kind of path, in [-1, 1], NHWC. @param largest the value of white in arrays of integers; 0: 255. @throws file_error saying what the path is
/// taken for and why that fails
inline image_set read_images(const std::string& path, double largest = 0) {
  namespace fs = std::filesystem;
  const auto ends = [&](const std::string& p, const char* end) {
    return p.size() >= std::strlen(end) && p.compare(p.size() - std::strlen(end), std::string::npos, end) == 0;
  };
  if (fs::is_directory(path)) {
    std::vector<std::string> batches;
    for (const auto& e : fs::directory_iterator(path))
      if (const std::string name = e.path().filename().string(); name.rfind("data_batch", 0) == 0 && ends(name, ".bin")) batches.push_back(e.path().string());
    if (batches.empty()) return read_folder(path);
    std::sort(batches.begin(), batches.end());
    image_set all;
    for (const std::string& b : batches) {
      const image_set one = parse_cifar10(b, read_file(b));
      all.extents = {all.extents.rows + one.extents.rows, 32, 32, 3};
      all.values.insert(all.values.end(), one.values.begin(), one.values.end());
    }
    return all;
  }
  if (ends(path, ".npy")) return images_from(read_npy(path), path, largest);
  if (ends(path, ".npz")) return images_from(parse_npz(path, read_file(path)), path, largest);
  const std::vector<unsigned char> bytes = read_file(path);
  if (ends(path, ".bin")) return parse_cifar10(path, bytes);
  if (bytes.size() > 4 && bytes[0] == 0 && bytes[1] == 0) return parse_idx(path, bytes);
  fail<file_error>(path, ": is no data set that is known: .npy, .npz, IDX (MNIST, uncompressed), CIFAR-10 .bin, or a folder of .bin, PNG or JPEG files");
}

}  // namespace multistage::io
