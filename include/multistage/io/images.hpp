// Image sets in host memory, values in [-1, 1], NHWC; and a split into parts by a seed.
//
//   image_set images = read_images("folder");
//   auto [held_out, rest] = split(images, 100, 7);
#pragma once
#include <algorithm>
#include <numeric>
#include <span>

#include "../core/random.hpp"
#include "../core/tensor.hpp"

namespace multistage::io {

/// Images in host memory, one behind the other.
struct image_set {
  std::vector<float> values;  ///< in [-1, 1] for pictures; latents have any
  shape extents{0, 0, 0, 0};  ///< [n, height, width, channels]
  /// All values, for what takes a span; it ends with the set.
  std::span<const float> span() const {
    return values;
  }
  /// How many images there are.
  index_t count() const {
    return extents.rows;
  }

  /// The images at `which`, in that order.
  image_set select(std::span<const index_t> which) const {
    image_set s;
    s.extents = extents;
    s.extents.rows = index_t(which.size());
    for (index_t i : which) {
      require<value_error>(i >= 0 && i < count(), "image_set: image ", i, " of ", count());
      s.values.insert(s.values.end(), values.begin() + i * extents.row_size(),
                      values.begin() + (i + 1) * extents.row_size());
    }
    return s;
  }
  /// The values in double, as metrics take them.
  std::vector<double> as_double() const {
    return {values.begin(), values.end()};
  }
  /// Standard deviation of all values: EDM's sigma_data.
  double standard_deviation() const {
    double sum = 0;
    double squares = 0;
    for (double v : values)
      sum += v, squares += v * v;
    const double n = double(std::max<std::size_t>(values.size(), 1));
    const double mean = sum / n;
    return std::sqrt(std::max(squares / n - mean * mean, 0.0));
  }
};

/// Two parts: `held_out` images chosen by the seed, and the others. @throws value_error unless
/// both parts have images.
inline std::pair<image_set, image_set> split(const image_set& all,
                                             index_t held_out,
                                             std::uint64_t seed) {
  require<value_error>(held_out > 0 && held_out < all.count(), "split: ", held_out,
                       " images of ", all.count(), " cannot be held out; give 1 to ",
                       all.count() - 1);
  std::vector<index_t> order(static_cast<std::size_t>(all.count()));
  std::iota(order.begin(), order.end(), index_t{0});
  const random_stream numbers(seed, purpose::split, 0);
  for (index_t i = all.count() - 1; i > 0; --i)
    std::swap(order[i], order[numbers.below(std::uint64_t(i), std::uint32_t(i + 1))]);
  const std::span<const index_t> o(order);
  return {all.select(o.subspan(held_out)), all.select(o.first(held_out))};
}

}  // namespace multistage::io
