// Whether an array's values look like pictures: integers whose white is not what it is taken
// for, and floats in [0, 1], are read without an error and give dark or pale images. That is
// warned of.
#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "../core/warning.hpp"
#include "../data/image_source.hpp"

namespace multistage::io::detail {

/// The lowest and the highest of the values, in [-1, 1], that were read of an array.
class value_range {
 public:
  /// @param path of the file. @param white the integer that is 1; 0 for floats
  value_range(std::string path, double white)
      : path_(std::move(path)),
        white_(white) {}
  value_range(const value_range&) = delete;
  value_range& operator=(const value_range&) = delete;
  /// Of arrays that were read in part.
  ~value_range() {
    try {
      report();
    } catch (...) {  // a handler that throws is heard by those who read all
    }
  }
  /// Looks at some more values.
  template <class T>
  void add(std::span<const T> values) {
    for (const T v : values) {
      least_ = std::min(least_, double(v));
      most_ = std::max(most_, double(v));
    }
  }
  /// Warns of what was found, and forgets it.
  void report() {
    const double least = std::exchange(least_, HUGE_VAL);
    const double most = std::exchange(most_, -HUGE_VAL);
    if (least > most)
      return;
    if (white_ > 0 && most <= -0.5)
      warn(path_, ": its integers go no higher than ", (most + 1) / 2 * white_, " of ", white_,
           ", so the pictures are nearly black; if that is their white, name it: --largest ",
           (most + 1) / 2 * white_, ", image_rule{.largest = ", (most + 1) / 2 * white_, "}");
    if (white_ == 0 && least >= 0)
      warn(path_, ": no value is below 0, they go from ", least, " to ", most,
           "; pictures of floats lie in [-1, 1]: save 2 v - 1, or bytes");
  }

 private:
  std::string path_;
  double white_;
  double least_ = HUGE_VAL;
  double most_ = -HUGE_VAL;
};

/// A source whose values are looked at while they are read: warned of when as many images as it
/// has were read, or else when it is gone.
inline image_source watched(image_source images, const std::string& path, double white) {
  struct state {
    value_range range;
    index_t read = 0;
    bool said = false;
    std::mutex turn{};  // for those: images are read by several threads
    state(const std::string& path, double white)
        : range(path, white) {}
  };
  const auto seen = std::make_shared<state>(path, white);
  image_source watching = images;
  watching.read = [seen, e = images.extents, read = std::move(images.read)](
                      std::span<const index_t> rows, float* to) {
    read(rows, to);
    const std::lock_guard turn(seen->turn);
    if (seen->said)
      return;
    seen->range.add(std::span<const float>(to, rows.size() * std::size_t(e.row_size())));
    seen->read += index_t(rows.size());
    if (seen->read < e.rows)
      return;
    seen->said = true;
    seen->range.report();
  };
  return watching;
}

}  // namespace multistage::io::detail
