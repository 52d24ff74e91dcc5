// Features that need no trained weights: a fixed convolutional network with weights from a
// seed. Random features order sets of pictures much like trained ones do where no pretrained
// network fits (small or unusual pictures); distances over them compare only with others of the
// same seed. Four 3x3 convolutions (He's weights, SiLU), the second and fourth of stride 2;
// features are the means over pixels after each pair: 32 and 64 values.
//
//   random_convolutions network(cpu(), images.extents, 1);
//   network.feature_count;      // 96 features of each picture, for frechet_distance or kid
#pragma once
#include <span>

#include "../core/fingerprint.hpp"
#include "feature_layers.hpp"

namespace multistage {

/// The two pairs of convolutions as a network of two parts, with their weights.
/// @param image extents of one picture; `rows` does not matter. @throws value_error for
/// pictures below 4 x 4
template <class Scalar>
MULTISTAGE_COLD std::vector<feature_part<Scalar>> random_convolution_parts(const shape& image,
                                                                           std::uint64_t seed) {
  require<value_error>(image.height >= 4 && image.width >= 4,
                       "random_convolutions: pictures of ", image.height, " x ", image.width,
                       " are too small; 4 x 4 is the least");
  const layer_options he{.init = {initialization::kaiming_uniform, std::sqrt(2.0)}};
  std::vector<feature_part<Scalar>> parts;
  extent in{int(image.channels), int(image.height), int(image.width)};
  for (const int out : {32, 64}) {
    recorder<> b;
    b.segment(0);
    feature x = b.input(input_slot::image, in.channels, in.height, in.width);
    b.segment(1);
    x = b.silu(b.conv(x, out, "", {}, he));
    x = b.silu(b.conv(x, out, "", {.kernel = 3, .stride = 2, .padding = 1}, he));
    b.output(x);
    in = x.extents();
    feature_part<Scalar> part{b.finish(), {}};
    initialize(part.structure, seed + parts.size() * 0x9E3779B97F4A7C15u, part.weights);
    parts.push_back(std::move(part));
  }
  return parts;
}

/// The network with its weights on a backend. Its memory is its own, so one call at a time.
template <class Backend>
class random_convolutions {
 public:
  /// 32 means after the first pair of convolutions and 64 after the second.
  static constexpr index_t feature_count = 96;

  /// @param image extents of one picture; `rows` does not matter. @param seed of the weights:
  /// figures of different seeds do not compare. @throws value_error for pictures below 4 x 4
  random_convolutions(Backend backend, shape image, std::uint64_t seed = 0)
      : backend_(std::move(backend)),
        image_(image),
        layers_(backend_, random_convolution_parts<float>(image, seed)) {}

  /// Of all weights, sixteen hexadecimal digits.
  std::string hash() const {
    const std::vector<float> all = layers_.weights();
    return fingerprint_of(std::span<const float>(all));
  }

  /// [n, 96] of images [n, h, w, c]. @throws shape_error
  std::vector<double> operator()(std::span<const float> images, index_t batch = 64) {
    const index_t size = image_.height * image_.width * image_.channels;
    const index_t n = index_t(images.size()) / size;
    require<shape_error>(n * size == index_t(images.size()),
                         "random_convolutions: ", images.size(), " values are no pictures of ",
                         size);
    std::vector<double> features(std::size_t(n * feature_count));
    for (index_t at = 0; at < n; at += batch) {
      const index_t rows = std::min(batch, n - at);
      const tensor<float, Backend> x(
          backend_, {rows, image_.height, image_.width, image_.channels},
          images.subspan(std::size_t(at * size), std::size_t(rows * size)));
      index_t begin = 0;
      for (const tensor<float, Backend>& y : layers_.forward(x.data(), rows)) {
        means(y, features.data() + at * feature_count + begin);
        begin += y.extents().channels;
      }
    }
    return features;
  }

 private:
  /// Means over pixels of y [rows, h, w, c] to rows of `features`.
  void means(const tensor<float, Backend>& y, double* features) {
    const shape& s = y.extents();
    tensor<float, Backend> sums(backend_, {s.rows, 1, 1, s.channels});
    row_sums(backend_, s.rows, s.pixels(), s.channels, y.data(), sums.data(), false);
    const std::vector<float> host = sums.to_host();
    for (index_t r = 0; r < s.rows; ++r)
      for (index_t c = 0; c < s.channels; ++c)
        features[r * feature_count + c] =
            double(host[std::size_t(r * s.channels + c)]) / double(s.pixels());
  }

  Backend backend_;
  shape image_;
  feature_layers<float, Backend> layers_;
};

}  // namespace multistage
