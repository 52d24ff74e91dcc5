// EDM's non-leaking augmentation of one image (`data/augment_options.hpp` says what it is for):
// whole-pixel moves, then one affine map of all geometry, then one matrix of all colour.
//
//   augmenter augment(edm_augmentation, {1, 32, 32, 3});
//   augment(image, {seed, purpose::augmentation, step}, row, augmented, labels);
//
// Every image has margins of its own, so that it depends on its draws and not on the batch.
// (The reference takes the batch's largest; see `warp`.) Nothing is clamped.
#pragma once
#include "augment_draws.hpp"
#include "warp.hpp"

namespace multistage {

/// Mirrors, quarter turns and moves by whole pixels.
inline pixel_map augment_pixels(const augment_options& options,
                                const augment_values& values,
                                const shape& extents) {
  using enum augmentation;
  const double quarter = values(rotate_int);
  pixel_map map;
  map.mirror_columns = (values(xflip) == 1) != (quarter == 1 || quarter == 2);
  map.mirror_rows = (values(yflip) == 1) != (quarter == 2 || quarter == 3);
  map.transposed = quarter == 1 || quarter == 3;
  map.right = index_t(values.pixels(options, extents.width, 0));
  map.down = index_t(values.pixels(options, extents.height, 1));
  return map;
}

/// Where an output position is read: the product of scale, rotation, stretch and move.
inline affine_map augment_geometry(const augment_options& options,
                                   const augment_values& values,
                                   const shape& extents) {
  using enum augmentation;
  affine_map map;
  if (values(scale) != 0) {
    const double s = std::exp2(-options.scale_std * values(scale));
    map = map * affine_map::scaling(s, s);
  }
  if (values(rotate_frac) != 0)
    map = map * affine_map::rotation(values(rotate_frac) * detail::half_turn *
                                     options.rotate_frac_max);
  if (values(aniso) != 0) {
    const double s = std::exp2(options.aniso_std * values(aniso));
    map = map * affine_map::rotation(-values.direction()) * affine_map::scaling(1 / s, s) *
          affine_map::rotation(values.direction());
  }
  const double x = values(translate_frac, 0) * options.translate_frac_std;
  const double y = values(translate_frac, 1) * options.translate_frac_std;
  if (x != 0 || y != 0)
    map =
        map * affine_map::translation(-x * double(extents.width), -y * double(extents.height));
  return map;
}

/// What happens to a pixel's colour: out_c = sum_d m[c][d] in_d + m[c][3].
struct colour_map {
  double m[3][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}};  ///< rows are red, green, blue

  /// Afterwards, a multiple of each part: of the grey axis, across it, and a quarter turn about
  /// it, which [e]x is: e = (1, 1, 1) / sqrt(3), m <- along e e^T + across (1 - e e^T) + turn
  /// [e]x m.
  void then(double along, double across, double turn) {
    const double root = turn / std::sqrt(3.0);
    const double part[3] = {across + (along - across) / 3, (along - across) / 3 - root,
                            (along - across) / 3 + root};
    const colour_map before = *this;
    for (int c = 0; c < 3; ++c)
      for (int d = 0; d < 4; ++d) {
        m[c][d] = 0;
        for (int k = 0; k < 3; ++k)
          m[c][d] += part[(k - c + 3) % 3] * before.m[k][d];
      }
  }
  /// Afterwards, something added to all three.
  void then_add(double value) {
    for (auto& row : m)
      row[3] += value;
  }
  /// Entry by entry.
  friend bool operator==(const colour_map&, const colour_map&) = default;
  /// @param image [pixels, channels], one channel or three; changed in place
  void operator()(float* image, index_t pixels, index_t channels) const {
    if (channels == 1)
      return grey(image, pixels);
    for (index_t i = 0; i < pixels; ++i, image += 3) {
      const double in[3] = {image[0], image[1], image[2]};
      for (int c = 0; c < 3; ++c)
        image[c] = float(m[c][0] * in[0] + m[c][1] * in[1] + m[c][2] * in[2] + m[c][3]);
    }
  }

 private:
  void grey(float* image, index_t pixels) const {  // the mean of the three rows
    double factor = 0;
    double added = 0;
    for (const auto& row : m) {
      factor += (row[0] + row[1] + row[2]) / 3;
      added += row[3] / 3;
    }
    for (index_t i = 0; i < pixels; ++i)
      image[i] = float(factor * image[i] + added);
  }
};

/// Brightness, contrast, inverted lightness, hue and saturation, in this order.
inline colour_map augment_colour(const augment_options& options, const augment_values& values) {
  using enum augmentation;
  colour_map map;
  map.then_add(options.brightness_std * values(brightness));
  const double gain = std::exp2(options.contrast_std * values(contrast));
  map.then(gain, gain, 0);
  map.then(1 - 2 * values(lumaflip), 1, 0);
  const double angle = values(hue) * detail::half_turn * options.hue_max;
  map.then(1, std::cos(angle), std::sin(angle));
  map.then(1, std::exp2(options.saturation_std * values(saturation)), 0);
  return map;
}

/// Augments images of one size. Holds scratch: one thread at a time.
class augmenter {
 public:
  /// @param image extents of one image; rows do not matter
  /// @throws value_error for options out of range or what such images cannot have
  augmenter(const augment_options& options, const shape& image)
      : options_(options),
        extents_{1, image.height, image.width, image.channels} {
    using enum augmentation;
    check_options("augmentation", options);
    require<value_error>(!options.has(rotate_int) || image.height == image.width,
                         "augmentation: rotate_int = ", options.rotate_int,
                         " turns by quarters, but images are ", image.height, "x", image.width,
                         "; that needs square images: set it to 0");
    require<value_error>(
        !options.has_any(brightness, saturation) || image.channels == 1 || image.channels == 3,
        "augmentation: colours change in images of 1 or 3 channels, these have ",
        image.channels, "; set brightness, contrast, lumaflip, hue and saturation to 0");
  }

  /// What is done, how often and how strongly.
  const augment_options& options() const {
    return options_;
  }
  /// How many labels an image has.
  int label_count() const {
    return options_.label_count();
  }

  /// One image by its draws. @param from, to [height, width, channels], two places
  void operator()(const float* from, const augment_values& values, float* to) {
    using enum augmentation;
    const pixel_map pixels = augment_pixels(options_, values, extents_);
    const affine_map geometry = augment_geometry(options_, values, extents_);
    const index_t row = extents_.width * extents_.channels;
    if (geometry != affine_map())
      warp_(from, extents_, pixels, geometry, to);
    else if (pixels.is_identity())
      std::copy_n(from, extents_.row_size(), to);
    else
      for (index_t y = 0; y < extents_.height; ++y)
        pixels.row(from, extents_, y, 0, extents_.width, to + y * row);
    const colour_map colour = augment_colour(options_, values);
    if (colour != colour_map())
      colour(to, extents_.height * extents_.width, extents_.channels);
  }
  /// One image of a training step. @param chance of the step. @param row its place in the batch
  /// @param labels [label_count()]
  void operator()(const float* from,
                  const random_stream& chance,
                  index_t row,
                  float* to,
                  float* labels) {
    const augment_values values(options_, draw_augmentation(chance, std::uint64_t(row)));
    (*this)(from, values, to);
    augment_labels(options_, values, extents_.width, extents_.height, labels);
  }

 private:
  augment_options options_;
  shape extents_;
  warp warp_;
};

/// @see augment_options
MULTISTAGE_COLD inline bound_transform augment_options::bind(const shape& image) const {
  return {image, label_count(),
          [augment = std::make_shared<augmenter>(*this, image)](
              const float* from, const step_numbers& numbers, index_t row, float* to,
              float* labels) {
            (*augment)(from, numbers.of(purpose::augmentation), row, to, labels);
          }};
}

}  // namespace multistage
