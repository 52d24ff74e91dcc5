// What happens to an image between the data set and a training step: mirroring, augmentation, a
// draw of latents from their moments. What a transform draws is a function of (seed, step, row
// of the batch), so a run that was stopped and resumed sees what one that was not stopped saw.
//
//   image_transform transform = mirror{};                       // half of the images
//   image_transform both = image_transform(mine{}).then(mirror{});
//
// One of your own is a type with `bind`, which is told what images come and says what leaves:
//   struct negative {
//     bound_transform bind(const shape& image) const {
//       return {image, 0, [n = image.row_size()](const float* from, const step_numbers&,
//       index_t,
//                                                float* to, float*) {
//                 for (index_t i = 0; i < n; ++i) to[i] = -from[i];
//               }};
//     }
//   };
#pragma once
#include <algorithm>
#include <concepts>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "../core/extents.hpp"
#include "../core/options.hpp"
#include "../core/random.hpp"

namespace multistage {

/// What a transform does to images of known extents. It may hold scratch: one thread at a time.
struct bound_transform {
  shape extents{1, 0, 0, 0};  ///< of an image that it returns; rows do not matter
  /// How many labels it gives an image, of what was done to it (the network's augment_dim).
  index_t label_count = 0;
  /// One image. @param row its place in the batch of that step. @param to another place than
  /// `from`. @param labels [label_count]; all zeros say that nothing was done
  std::function<void(const float* from,
                     const step_numbers& numbers,
                     index_t row,
                     float* to,
                     float* labels)>
      apply{};
};

/// Whether T describes what happens to images: `bind(image)` makes it for images of some
/// extents, or throws shape_error or value_error for such that it cannot be done to.
template <class T>
concept row_transform = requires(const T& transform, const shape& image) {
  { transform.bind(image) } -> std::same_as<bound_transform>;
};

/// A transform of any type, the library's or the user's own.
class image_transform {
 public:
  /// None: images stay as they are.
  image_transform() = default;
  /// Of a transform's value.
  template <row_transform T>
  requires(!std::same_as<T, image_transform>) image_transform(T transform)
      : bind_([t = std::move(transform)](const shape& image) { return t.bind(image); }) {}

  /// Whether there is one.
  explicit operator bool() const {
    return bind_ != nullptr;
  }
  /// For images of some extents. @throws shape_error, value_error as the transform does
  bound_transform bind(const shape& image) const {
    if (bind_)
      return bind_(image);
    return {image, 0,
            [size = image.row_size()](const float* from, const step_numbers&, index_t,
                                      float* to, float*) {
              std::copy_n(from, size, to);
            }};
  }
  /// This one, and then another of its results; labels stand in the same order.
  image_transform then(image_transform next) const {
    if (!bind_ || !next)
      return bind_ ? *this : next;
    image_transform both;
    both.bind_ = [first = *this, next = std::move(next)](const shape& image) {
      return chained(first.bind(image), next);
    };
    return both;
  }

 private:
  /// Both, one after the other, with the labels of both side by side.
  static bound_transform chained(bound_transform first, const image_transform& next) {
    bound_transform second = next.bind(first.extents);
    const auto between =
        std::make_shared<std::vector<float>>(std::size_t(first.extents.row_size()));
    return {second.extents, first.label_count + second.label_count,
            [=](const float* from, const step_numbers& numbers, index_t row, float* to,
                float* labels) {
              first.apply(from, numbers, row, between->data(), labels);
              second.apply(between->data(), numbers, row, to, labels + first.label_count);
            }};
  }

  std::function<bound_transform(const shape&)> bind_;
};

/// Mirrors columns, left to right, of a share of the images: the simplest augmentation, for
/// data of which either side could be the other (faces, not letters). It has no labels: what is
/// learnt is the mirrored set, too.
struct mirror {
  double probability = 0.5;  ///< of an image to be mirrored

  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"probability", "how often an image is mirrored", between(0, 1)},
          self.probability);
  }
  /// @throws value_error for a probability that is none
  bound_transform bind(const shape& image) const {
    check_options("mirror", *this);
    return {image, 0,
            [image, p = probability](const float* from, const step_numbers& numbers,
                                     index_t row, float* to, float*) {
              const index_t length = image.width * image.channels;
              if (numbers.of(purpose::mirroring).uniform(std::uint64_t(row)) >= p)
                return void(std::copy_n(from, image.height * length, to));
              for (index_t y = 0; y < image.height; ++y)
                for (index_t x = 0; x < image.width; ++x)
                  std::copy_n(from + y * length + (image.width - 1 - x) * image.channels,
                              image.channels, to + y * length + x * image.channels);
            }};
  }
};

}  // namespace multistage
