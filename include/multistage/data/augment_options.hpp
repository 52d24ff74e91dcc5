// The transforms of EDM's non-leaking augmentation, how often each acts and how strongly
// (Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative
// Models", arXiv 2206.00364, appendix F.2; the transforms are those of Karras et al.,
// "Training GANs with limited data", arXiv 2006.06676, appendix B).
//
//   augment_options mine = edm_augmentation;     // EDM's training set: 9 labels
//   mine.p = 0.15;
//   mine.hue = 1;
//   image_transform transform = mine;            // what trainers take (data/transform.hpp)
//
// Augmentation does not leak into samples because the network is told what was done: each
// transform describes itself in labels (`augment_dim` of a network), and a network that samples
// is given zeros, the labels of an image to which nothing was done.
#pragma once
#include "transform.hpp"

namespace multistage {

/// The transforms, in the order in which they are drawn, act and appear among the labels.
enum class augmentation {
  xflip,
  yflip,
  rotate_int,
  translate_int,
  scale,
  rotate_frac,
  aniso,
  translate_frac,
  brightness,
  contrast,
  lumaflip,
  hue,
  saturation,
  count
};

/// How the number behind a transform is distributed: 0 or 1; 0 to 3; uniform in [0, 1), of
/// which 2 w - 1 is used; standard normal.
enum class augment_distribution { coin, quarter, uniform, normal };

/// What is fixed of a transform.
struct augmentation_facts {
  const char* name;                   ///< as the options spell it
  augment_distribution distribution;  ///< of each of its numbers
  int numbers;                        ///< 2 where columns and rows have one each
  int labels;                         ///< how many labels tell what it did
};

/// How many transforms there are.
inline constexpr int augmentation_count = int(augmentation::count);

/// Of every transform, in order.
inline constexpr std::array<augmentation_facts, augmentation_count> augmentations{{
    {"xflip", augment_distribution::coin, 1, 1},
    {"yflip", augment_distribution::coin, 1, 1},
    {"rotate_int", augment_distribution::quarter, 1, 2},
    {"translate_int", augment_distribution::uniform, 2, 2},
    {"scale", augment_distribution::normal, 1, 1},
    {"rotate_frac", augment_distribution::uniform, 1, 2},
    {"aniso", augment_distribution::normal, 1, 2},
    {"translate_frac", augment_distribution::normal, 2, 2},
    {"brightness", augment_distribution::normal, 1, 1},
    {"contrast", augment_distribution::normal, 1, 1},
    {"lumaflip", augment_distribution::coin, 1, 1},
    {"hue", augment_distribution::uniform, 1, 2},
    {"saturation", augment_distribution::normal, 1, 1},
}};

/// A transform acts on an image with probability min(1, p * its multiplier); one whose
/// multiplier is 0 is absent and has no label. By default nothing is done.
struct augment_options {
  double p = 0.12;                    ///< EDM: 0.12 on CIFAR-10, 0.15 on FFHQ and AFHQ
  double xflip = 0;                   ///< multipliers
  double yflip = 0;                   ///< with rows
  double rotate_int = 0;              ///< square images only
  double translate_int = 0;           ///< whole pixels
  double scale = 0;                   ///< about the centre
  double rotate_frac = 0;             ///< any angle
  double aniso = 0;                   ///< one axis grows as the other shrinks
  double translate_frac = 0;          ///< parts of pixels, too
  double brightness = 0;              ///< colours: of one or three channels
  double contrast = 0;                ///< about 0, which is grey
  double lumaflip = 0;                ///< light and dark change places, hues stay
  double hue = 0;                     ///< about the grey axis
  double saturation = 0;              ///< distance from the grey axis
  double translate_int_max = 0.125;   ///< strengths
  double scale_std = 0.2;             ///< log2 of the factor
  double rotate_frac_max = 1;         ///< of half a turn
  double aniso_std = 0.2;             ///< log2 of the factor
  double aniso_rotate_prob = 0.5;     ///< else the axes are the image's
  double translate_frac_std = 0.125;  ///< of width and height
  double brightness_std = 0.2;        ///< images are [-1, 1]
  double contrast_std = 0.5;          ///< log2 of the factor
  double hue_max = 1;                 ///< of half a turn
  double saturation_std = 1;          ///< log2 of the factor

  /// Each option with its meaning and range. @see core/options.hpp
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    const number_range often = at_least(0);
    const number_range strength = between(0, 8);
    const number_range share = between(0, 1);
    visit(option{"p", "probability of a transform whose multiplier is 1", share}, s.p);
    visit(option{"xflip", "mirrors left and right: multiplier of p", often}, s.xflip);
    visit(option{"yflip", "mirrors top and bottom: multiplier of p", often}, s.yflip);
    visit(option{"rotate_int", "turns by quarters: multiplier of p", often}, s.rotate_int);
    visit(option{"translate_int", "moves by whole pixels: multiplier of p", often},
          s.translate_int);
    visit(option{"scale", "grows or shrinks: multiplier of p", often}, s.scale);
    visit(option{"rotate_frac", "turns by any angle: multiplier of p", often}, s.rotate_frac);
    visit(option{"aniso", "stretches along an axis: multiplier of p", often}, s.aniso);
    visit(option{"translate_frac", "moves by parts of pixels: multiplier of p", often},
          s.translate_frac);
    visit(option{"brightness", "makes lighter or darker: multiplier of p", often},
          s.brightness);
    visit(option{"contrast", "multiplies all values: multiplier of p", often}, s.contrast);
    visit(option{"lumaflip", "inverts light and dark: multiplier of p", often}, s.lumaflip);
    visit(option{"hue", "turns colours: multiplier of p", often}, s.hue);
    visit(option{"saturation", "more or less colour: multiplier of p", often}, s.saturation);
    visit(option{"translate_int_max", "largest move as a share of the extent", share},
          s.translate_int_max);
    visit(option{"scale_std", "standard deviation of log2 of the factor", strength},
          s.scale_std);
    visit(option{"rotate_frac_max", "largest angle as a share of half a turn", share},
          s.rotate_frac_max);
    visit(option{"aniso_std", "standard deviation of log2 of the stretch", strength},
          s.aniso_std);
    visit(option{"aniso_rotate_prob", "share of stretches along an axis of any angle", share},
          s.aniso_rotate_prob);
    visit(option{"translate_frac_std", "standard deviation as a share of the extent", strength},
          s.translate_frac_std);
    visit(option{"brightness_std", "standard deviation of what is added", strength},
          s.brightness_std);
    visit(option{"contrast_std", "standard deviation of log2 of the factor", strength},
          s.contrast_std);
    visit(option{"hue_max", "largest angle as a share of half a turn", share}, s.hue_max);
    visit(option{"saturation_std", "standard deviation of log2 of the factor", strength},
          s.saturation_std);
  }

  /// The transform of images that this describes; data/augment.hpp is what does it.
  /// @throws value_error for options out of range or what such images cannot have
  bound_transform bind(const shape& image) const;

  /// Of every transform, in order.
  constexpr std::array<double, augmentation_count> multipliers() const {
    return {xflip,          yflip,      rotate_int, translate_int, scale, rotate_frac, aniso,
            translate_frac, brightness, contrast,   lumaflip,      hue,   saturation};
  }
  /// Whether a transform may act at all.
  constexpr bool has(augmentation t) const {
    return multipliers()[std::size_t(t)] > 0;
  }
  /// Whether any of the transforms from `first` to `last` may.
  constexpr bool has_any(augmentation first, augmentation last) const {
    for (int t = int(first); t <= int(last); ++t)
      if (has(augmentation(t)))
        return true;
    return false;
  }
  /// How many labels describe an image: `augment_dim` of the network.
  constexpr int label_count() const {
    int n = 0;
    for (int t = 0; t < augmentation_count; ++t)
      n += has(augmentation(t)) ? augmentations[std::size_t(t)].labels : 0;
    return n;
  }
};

/// What EDM trains with: half of all images mirrored, the rest of geometry with probability
/// 0.12 each; 9 labels.
inline constexpr augment_options edm_augmentation{.p = 0.12,
                                                  .xflip = 1e8,
                                                  .yflip = 1,
                                                  .scale = 1,
                                                  .rotate_frac = 1,
                                                  .aniso = 1,
                                                  .translate_frac = 1};

}  // namespace multistage
