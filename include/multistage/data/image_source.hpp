// Images that are read by their numbers, in any order, so that a data set need not fit in
// memory: the one way to data, for training, clustering, metrics and encoding.
//
//   image_source images = io::open_images("folder");       // or shards, npy, IDX, CIFAR-10,
//   ... image_source mine{{n, 32, 32, 3}, [&](std::span<const index_t> rows, float* to) { ...
//   }}; images.read(rows, to);                                  // to [rows, h, w, c]
//
// Values lie in [-1, 1] for pictures. What is kept as bytes stays bytes until it is used. What
// lies in one file, image behind image, is best read in blocks: `by_blocks` makes a reader of
// rows out of one of blocks, which joins numbers that follow each other.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../core/tensor.hpp"

namespace multistage {

/// Writes something of images, by their numbers, one after the other. The same number may come
/// more than once.
template <class T>
using row_reader = std::function<void(std::span<const index_t> rows, T* to)>;

/// What the values of a data set's images are.
enum class image_values {
  pictures,  ///< colours in [-1, 1]
  latents,   ///< of an autoencoder, of any size
  moments    ///< mean and log variance of latents, channels [mean, log variance]
};

/// The value in [-1, 1] of a colour's byte.
inline float value_of_byte(unsigned char b) {
  return float(b) / 127.5f - 1;
}

/// f(first, n, at) for each run of numbers that follow each other: images [first, first + n)
/// stand at `at` in the order asked for.
template <class F>
void for_each_run(std::span<const index_t> rows, F&& f) {
  for (std::size_t at = 0; at < rows.size();) {
    std::size_t end = at + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1)
      ++end;
    f(rows[at], index_t(end - at), index_t(at));
    at = end;
  }
}
/// Makes a reader of rows out of `read(first, n, to)`, which writes [first, first + n) of a
/// set.
/// @param extents of the set. @param values that a row has. @throws when it reads, value_error
/// for a row that the set does not have
template <class T, class Block>
row_reader<T> by_blocks(const shape& extents, index_t values, Block read) {
  const index_t count = extents.rows;
  return [count, values, read = std::move(read)](std::span<const index_t> rows, T* to) {
    for_each_run(rows, [&](index_t first, index_t n, index_t at) {
      const bool there = first >= 0 && n <= count - first;
      const index_t wrong = first < 0 ? first : std::max(first, count);
      require<value_error>(there, "data set: image ", wrong, " of ", count,
                           " was asked for; they are numbered from 0");
      read(first, n, to + at * values);
    });
  };
}

/// A data set [n, h, w, c] in float32, and what is known of it. Its readers are called from
/// several threads, perhaps at once (a trainer reads ahead while its caller may read, too):
/// what they share must not be written, or be locked.
struct image_source {
  shape extents{0, 0, 0, 0};  ///< of the whole set: rows are images
  /// Images by their numbers, to [rows, h, w, c].
  row_reader<float> read{};
  /// The same as bytes, b / 127.5 - 1 being the value; empty where the set does not hold bytes.
  row_reader<unsigned char> read_bytes{};
  /// Classes of images, each in [0, class_count); empty where there are none.
  row_reader<int> read_labels{};
  index_t class_count = 0;                 ///< how many classes there are
  std::vector<std::string> class_names{};  ///< of all classes, or empty
  std::string fingerprint{};  ///< a hash of images and labels; empty where it is not known
  image_values kind = image_values::pictures;  ///< what values mean
  /// Whether all values are known to be finite, so that nobody need read all of them to know.
  bool finite = false;
  /// Embeddings that go with the images, e.g. of texts: [n, 1, tokens, width]; null for none.
  std::shared_ptr<const image_source> context{};
  /// What stands for no context where it is left out, [tokens, width]; empty: zeros.
  std::vector<float> null_context{};

  /// Images [first, first + n), to [n, h, w, c].
  void read_block(index_t first, index_t n, float* to) const {
    std::vector<index_t> rows(static_cast<std::size_t>(n));
    std::iota(rows.begin(), rows.end(), first);
    read(rows, to);
  }
  /// Images [first, end) as a set of their own, numbered from 0. @throws value_error for
  /// numbers that the set does not have
  image_source part(index_t first, index_t end) const {
    require<value_error>(0 <= first && first <= end && end <= extents.rows, "data set: images ",
                         first, " to ", end, " of ", extents.rows);
    image_source some = *this;
    some.extents.rows = end - first;
    some.fingerprint.clear();
    some.read = moved(read, first, end);
    some.read_bytes = moved(read_bytes, first, end);
    some.read_labels = moved(read_labels, first, end);
    if (context)
      some.context = std::make_shared<const image_source>(context->part(first, end));
    return some;
  }
  /// Classes of all images. @throws as read_labels does
  std::vector<int> labels() const {
    std::vector<index_t> rows(static_cast<std::size_t>(read_labels ? extents.rows : 0));
    std::vector<int> found(rows.size());
    std::iota(rows.begin(), rows.end(), index_t{0});
    if (read_labels)
      read_labels(rows, found.data());
    return found;
  }

  /// Of images in memory, which must outlive it; bytes are colours. @throws shape_error when
  /// their number does not fit
  template <class T>
  static image_source of(std::span<const T> values, shape extents) {
    const bool as_many = countable(extents) && index_t(values.size()) == extents.size();
    require<shape_error>(as_many, "data set: ", values.size(), " values for extents ", extents);
    const index_t size = extents.row_size();
    const auto block = [values, size]<class To>(index_t first, index_t n, To* to) {
      for (index_t i = 0; i < n * size; ++i)
        to[i] = To(values[std::size_t(first * size + i)]);
    };
    if constexpr (std::is_same_v<T, unsigned char>)
      return of_bytes(extents, by_blocks<unsigned char>(extents, size, block));
    else
      return {extents, by_blocks<float>(extents, size, block)};
  }
  /// Of colours that are kept as bytes. @param read_bytes writes them, [rows, h, w, c]
  static image_source of_bytes(shape extents, row_reader<unsigned char> read_bytes) {
    image_source images;
    images.extents = extents;
    images.finite = true;
    images.read_bytes = std::move(read_bytes);
    const std::size_t size = std::size_t(extents.row_size());
    images.read = [bytes = images.read_bytes, size](std::span<const index_t> rows, float* to) {
      // Bytes lie in the last quarter of the place for their values, which overtake none of
      // them.
      const std::size_t count = rows.size() * size;
      unsigned char* const from = reinterpret_cast<unsigned char*>(to) + 3 * count;
      bytes(rows, from);
      constexpr std::size_t block = 256;
      unsigned char some[block];
      for (std::size_t i = 0; i < count; i += block) {
        const std::size_t n = std::min(block, count - i);
        std::copy_n(from + i, n, some);
        for (std::size_t k = 0; k < n; ++k)
          to[i + k] = value_of_byte(some[k]);
      }
    };
    return images;
  }
  /// The set with labels, which it holds. @throws value_error unless there is one an image,
  /// each in [0, classes)
  image_source labelled(std::vector<int> classes_of, index_t classes) const {
    require<value_error>(index_t(classes_of.size()) == extents.rows,
                         "data set: ", classes_of.size(), " labels for ", extents.rows,
                         " images; give each one");
    for (std::size_t i = 0; i < classes_of.size(); ++i) {
      const int label = classes_of[i];
      require<value_error>(label >= 0 && label < classes, "data set: image ", i,
                           " is of class ", label, "; there are 0 to ", classes - 1);
    }
    image_source with = *this;
    with.class_count = classes;
    with.class_names.clear();
    with.fingerprint.clear();
    const auto block = [held = std::move(classes_of)](index_t first, index_t n, int* to) {
      std::copy_n(held.begin() + first, n, to);
    };
    with.read_labels = by_blocks<int>(extents, 1, block);
    return with;
  }

 private:
  /// A reader whose number 0 is another's number `first`; nothing where there is none.
  template <class T>
  static row_reader<T> moved(const row_reader<T>& read, index_t first, index_t end) {
    if (!read)
      return {};
    return [=](std::span<const index_t> rows, T* to) {
      std::vector<index_t> numbers(rows.begin(), rows.end());
      for (index_t& n : numbers) {
        require<value_error>(n >= 0 && n < end - first, "data set: image ", n, " of ",
                             end - first, " was asked for; they are numbered from 0");
        n += first;
      }
      read(numbers, to);
    };
  }
};

/// Whether all images of a set are the same. Reads all of it once, or as much as needs be where
/// its values are known to be finite. @throws value_error for values that are not
MULTISTAGE_COLD inline bool all_images_equal(const image_source& images) {
  const shape e = images.extents;
  constexpr index_t block = 256;
  const index_t row = e.row_size();
  bool varies = false;
  std::vector<float> values(static_cast<std::size_t>(std::min(block, e.rows) * row));
  std::vector<float> one;  // the first image
  for (index_t first = 0; first < e.rows; first += block) {
    const bool known = varies && images.finite;
    if (known)
      break;
    const index_t n = std::min(block, e.rows - first);
    images.read_block(first, n, values.data());
    if (first == 0)
      one.assign(values.begin(), values.begin() + row);
    for (index_t i = 0; i < n * row; ++i) {
      const float v = values[std::size_t(i)];
      require<value_error>(std::isfinite(v), "data set: value ", i % row, " of image ",
                           first + i / row, " is ", v, "; all must be finite");
    }
    for (index_t i = 0; i < n * row && !varies; ++i)
      varies = values[std::size_t(i)] != one[std::size_t(i % row)];
  }
  return !varies;
}

/// Refuses data sets from which nothing can be learnt: without images, with values that are not
/// finite, or of many images that are all the same. Reads as above. @throws value_error
MULTISTAGE_COLD inline void check_images(const image_source& images) {
  const shape e = images.extents;
  require<value_error>(e.rows > 0 && e.row_size() > 0, "data set: no images, extents are ", e,
                       "; give at least one");
  const bool equal = all_images_equal(images);
  require<value_error>(!equal || e.rows == 1, "data set: all ", e.rows,
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
