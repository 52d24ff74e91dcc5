// A set's bytes in memory, for sets that are small enough: folders of pictures are decoded once
// then, not at every step.
//
//   const image_source images = held_in_memory(io::open_images("folder"), index_t{1} << 30);
#pragma once
#include <algorithm>
#include <memory>

#include "image_source.hpp"

namespace multistage {

/// The same set with its bytes in memory; as it is where it holds no bytes or more than `most`.
/// @throws as the set's readers do
MULTISTAGE_COLD inline image_source held_in_memory(const image_source& images, index_t most) {
  if (!images.read_bytes || images.extents.size() > most)
    return images;
  const auto bytes = std::make_shared<std::vector<unsigned char>>(
      static_cast<std::size_t>(images.extents.size()));
  std::vector<index_t> all(static_cast<std::size_t>(images.extents.rows));
  std::iota(all.begin(), all.end(), index_t{0});
  images.read_bytes(all, bytes->data());
  const index_t size = images.extents.row_size();
  const image_source in_memory = image_source::of_bytes(
      images.extents,
      by_blocks<unsigned char>(images.extents, size,
                               [bytes, size](index_t first, index_t n, unsigned char* to) {
                                 std::copy_n(bytes->begin() + first * size, n * size, to);
                               }));
  image_source held = images;  // with all that is known of it
  held.read = in_memory.read;
  held.read_bytes = in_memory.read_bytes;
  held.finite = true;
  return held;
}

}  // namespace multistage
