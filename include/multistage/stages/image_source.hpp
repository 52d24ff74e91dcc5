// Images that are read block by block, so that a data set need not fit in memory.
//
//   image_source images = io::open_images("folder");       // or npy, IDX, CIFAR-10, ...
//   image_source mine{{n, 32, 32, 3}, [&](index_t first, index_t count, float* to) { ... }};
//
// Algorithms that go over a data set ask for blocks of a few hundred images, so memory is
// bounded whatever the set's size; values lie in [-1, 1] for pictures.
#pragma once
#include <cmath>
#include <functional>
#include <memory>
#include <span>

#include "../core/tensor.hpp"

namespace multistage {

/// A data set [n, h, w, c] in float32. `read(first, n, to)` writes images [first, first + n);
/// it may be called from another thread, one call at a time.
struct image_source {
  shape extents{0, 0, 0, 0};  ///< of the whole set: rows are images
  /// Writes n images from image `first` on to `to`, one after the other.
  std::function<void(index_t first, index_t n, float* to)> read;

  /// Of images in memory, which must outlive it. @throws shape_error when their number does not
  /// fit
  template <class T>
  static image_source of(std::span<const T> values, shape extents) {
    require<shape_error>(countable(extents) && index_t(values.size()) == extents.size(),
                         "data set: ", values.size(), " values for extents ", extents);
    return {extents, [values, size = extents.row_size()](index_t first, index_t n, float* to) {
              for (index_t i = 0; i < n * size; ++i)
                to[i] = float(values[std::size_t(first * size + i)]);
            }};
  }
};

/// Refuses data sets from which nothing can be learnt. Reads all of it once. @throws
/// value_error
MULTISTAGE_COLD inline void check_images(const image_source& images) {
  const shape e = images.extents;
  require<value_error>(e.rows > 0 && e.row_size() > 0, "data set: no images, extents are ", e,
                       "; give at least one");
  constexpr index_t block = 256;
  const index_t row = e.row_size();
  bool varies = e.rows == 1;
  std::vector<float> values(static_cast<std::size_t>(std::min(block, e.rows) * row)), one;
  for (index_t first = 0; first < e.rows; first += block) {
    const index_t n = std::min(block, e.rows - first);
    images.read(first, n, values.data());
    if (first == 0)
      one.assign(values.begin(), values.begin() + row);
    for (index_t i = 0; i < n * row; ++i)
      require<value_error>(std::isfinite(values[std::size_t(i)]), "data set: value ", i % row,
                           " of image ", first + i / row, " is ", values[std::size_t(i)],
                           "; all must be finite");
    for (index_t i = 0; i < n * row && !varies; ++i)
      varies = values[std::size_t(i)] != one[std::size_t(i % row)];
  }
  require<value_error>(varies, "data set: all ", e.rows,
                       " images are equal; nothing can be learnt from them");
}
/// The same of images in memory. @throws value_error
template <class T>
void check_images(std::span<const T> values, const shape& extents) {
  require<value_error>(extents.rows > 0 && extents.row_size() > 0,
                       "data set: no images, extents are ", extents, "; give at least one");
  check_images(image_source::of(values, extents));
}

}  // namespace multistage
