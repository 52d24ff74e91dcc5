// A few images of a large set, evenly over it, as a set of their own: what clustering and
// distances look at where all would be too many, and the first are all of one class.
//
//   const image_source some = spread_over(images, 4096);
#pragma once
#include "image_source.hpp"

namespace multistage {

/// At most so many of a set's images, evenly over its numbers; the set itself where it is
/// smaller. @throws value_error for most below 1
MULTISTAGE_COLD inline image_source spread_over(const image_source& images, index_t most) {
  require<value_error>(most >= 1, "data set: ", most, " images of ", images.extents.rows,
                       " were asked for; give 1 or more");
  const index_t all = images.extents.rows;
  if (all <= most)
    return images;
  shape few = images.extents;
  few.rows = most;
  image_source some{few,
                    [read = images.read, all, most](std::span<const index_t> rows, float* to) {
                      std::vector<index_t> numbers(rows.begin(), rows.end());
                      for (index_t& number : numbers)
                        number = number * all / most;
                      read(numbers, to);
                    }};
  some.kind = images.kind;
  some.finite = images.finite;
  return some;
}

}  // namespace multistage
