// What chance decides of one augmented image: the numbers behind each transform, what becomes
// of them once it is known whether the transform acts, and the labels that tell the network.
//
//   const augment_numbers numbers = draw_augmentation({seed, purpose::augmentation, step},
//   row); const augment_values values(options, numbers); augment_labels(options, values, width,
//   height, labels);
//
// A transform's numbers depend on (seed, step, row) and on itself alone, so that adding one
// transform leaves what the others do as it was.
#pragma once
#include <cmath>

#include "../core/random.hpp"
#include "augment_options.hpp"

namespace multistage {

namespace detail {
inline constexpr double half_turn = 3.14159265358979323846;
}

/// The numbers behind one transform of one image.
struct augment_number {
  double acts = 1;           ///< uniform; it acts where this is below its probability
  double w[2] = {};          ///< by its distribution; the second for rows
  double direction = 0;      ///< aniso: uniform, the axis' angle is (2 direction - 1) pi
  double has_direction = 1;  ///< aniso: uniform; below aniso_rotate_prob the angle counts
};
/// Those of all transforms, in order.
using augment_numbers = std::array<augment_number, augmentation_count>;

/// The numbers of one image: a block of four words for each transform, and one more.
/// @param chance of a training step. @param row which image of the batch
inline augment_numbers draw_augmentation(const random_stream& chance, std::uint64_t row) {
  constexpr std::uint64_t blocks = 16;  // a row's own; room for three more transforms
  static_assert(augmentation_count < blocks);
  augment_numbers numbers;
  for (std::size_t t = 0; t < numbers.size(); ++t) {
    const philox_block b = chance.block(row * blocks + t);
    augment_number& n = numbers[t];
    n.acts = random_stream::to_uniform(b.word[0]);
    switch (augmentations[t].distribution) {
      case augment_distribution::coin:
        n.w[0] = double(b.word[2] >> 31);
        break;
      case augment_distribution::quarter:
        n.w[0] = double(b.word[2] >> 30);
        break;
      case augment_distribution::uniform:
        n.w[0] = random_stream::to_uniform(b.word[2]);
        n.w[1] = random_stream::to_uniform(b.word[3]);
        break;
      case augment_distribution::normal:
        random_stream::normal_pair(b.word[2], b.word[3], n.w[0], n.w[1]);
        break;
    }
  }
  const philox_block b = chance.block(row * blocks + augmentation_count);
  augment_number& aniso = numbers[std::size_t(augmentation::aniso)];
  aniso.direction = random_stream::to_uniform(b.word[0]);
  aniso.has_direction = random_stream::to_uniform(b.word[1]);
  return numbers;
}

/// What each transform does to one image; zeros where it does not act.
class augment_values {
 public:
  /// Nothing is done.
  augment_values() = default;
  /// A transform acts where its number is below p times its multiplier.
  augment_values(const augment_options& options, const augment_numbers& numbers) {
    const auto multipliers = options.multipliers();
    for (std::size_t t = 0; t < numbers.size(); ++t) {
      if (!(numbers[t].acts < options.p * multipliers[t]))
        continue;
      const bool centred = augmentations[t].distribution == augment_distribution::uniform;
      for (int i = 0; i < 2; ++i)
        values_[t][i] = centred ? 2 * numbers[t].w[i] - 1 : numbers[t].w[i];
    }
    const augment_number& aniso = numbers[std::size_t(augmentation::aniso)];
    if (aniso.has_direction < options.aniso_rotate_prob)
      direction_ = (2 * aniso.direction - 1) * detail::half_turn;
  }

  /// What a transform was given. @param axis 0: the only number, or that of columns; 1: of rows
  double operator()(augmentation t, int axis = 0) const {
    return values_[std::size_t(t)][axis];
  }
  /// The angle of the axis along which aniso stretches, in radians.
  double direction() const {
    return direction_;
  }
  /// By how many pixels translate_int moves. @param extent width or height. @param axis as
  /// above
  double pixels(const augment_options& options, index_t extent, int axis) const {
    return std::nearbyint((*this)(augmentation::translate_int, axis) * double(extent) *
                          options.translate_int_max);  // halves to even
  }

 private:
  double values_[augmentation_count][2] = {};
  double direction_ = 0;
};

/// Writes options.label_count() labels: what was done to one image, zeros for nothing.
/// @param width and height of the image that is augmented
inline void augment_labels(const augment_options& options,
                           const augment_values& values,
                           index_t width,
                           index_t height,
                           float* to) {
  using enum augmentation;
  const auto write = [&](augmentation t, double first, double second = 0) {
    if (!options.has(t))
      return;
    *to++ = float(first);
    if (augmentations[std::size_t(t)].labels == 2)
      *to++ = float(second);
  };
  const auto turn = [&](augmentation t, double largest) {  // 0, 0 where it does not
    const double angle = values(t) * detail::half_turn * largest;
    write(t, std::cos(angle) - 1, std::sin(angle));
  };
  const auto moved = [&](index_t extent, int axis) {
    const double largest = double(extent) * options.translate_int_max;
    return largest > 0 ? values.pixels(options, extent, axis) / largest : 0.0;
  };
  const double quarter = values(rotate_int);
  write(xflip, values(xflip));
  write(yflip, values(yflip));
  write(rotate_int, quarter == 1 || quarter == 2, quarter == 2 || quarter == 3);
  write(translate_int, moved(width, 0), moved(height, 1));
  write(scale, values(scale));
  turn(rotate_frac, options.rotate_frac_max);
  write(aniso, values(aniso) * std::cos(values.direction()),
        values(aniso) * std::sin(values.direction()));
  write(translate_frac, values(translate_frac, 0), values(translate_frac, 1));
  write(brightness, values(brightness));
  write(contrast, values(contrast));
  write(lumaflip, values(lumaflip));
  turn(hue, options.hue_max);
  write(saturation, values(saturation));
}

}  // namespace multistage
