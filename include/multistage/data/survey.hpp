// What one pass over a data set finds: that it can be learnt from, between which values it
// lies, and a hash by which a resumed run knows it again.
//
//   const image_survey found = survey_images(images);
//   found.fingerprint;      // of the checkpoint, which a resumed run must meet again
#pragma once
#include <algorithm>

#include "../core/fingerprint.hpp"
#include "image_source.hpp"

namespace multistage {

/// What a pass found.
struct image_survey {
  double least = HUGE_VAL;    ///< the lowest value that was read
  double most = -HUGE_VAL;    ///< the highest one
  bool whole = false;         ///< whether all values were read
  std::string fingerprint{};  ///< of images and classes
};

/// Looks at all of a set, or, where it says what it is (fingerprint, finite), only at as much
/// as tells whether its images differ. @param classes that count for the fingerprint; none
/// where labels do not matter. @throws value_error for data sets from which nothing can be
/// learnt
MULTISTAGE_COLD inline image_survey survey_images(const image_source& images,
                                                  std::span<const int> classes = {}) {
  image_survey found;
  fingerprinter hash;
  image_source looked_at = images;
  found.whole = !images.finite || images.fingerprint.empty();
  looked_at.finite = !found.whole;
  looked_at.read = [&](std::span<const index_t> rows, float* to) {
    images.read(rows, to);
    const std::span<const float> values(to,
                                        rows.size() * std::size_t(images.extents.row_size()));
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    found.least = std::min(found.least, double(*least));
    found.most = std::max(found.most, double(*most));
    if (images.fingerprint.empty())
      hash.add(bytes_in_memory(values));
  };
  check_images(looked_at);
  found.fingerprint = images.fingerprint;
  if (found.fingerprint.empty()) {
    const shape& e = images.extents;
    const index_t sides[] = {e.rows, e.height, e.width, e.channels};
    const std::string parts =
        hash.text() + fingerprint_of(std::span<const index_t>(sides)) + fingerprint_of(classes);
    found.fingerprint = fingerprint_of(std::span<const char>(parts));
  }
  return found;
}

}  // namespace multistage
