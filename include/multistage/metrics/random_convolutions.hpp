// Features that need no trained weights: a fixed convolutional network with weights from a
// seed. Random features order sets of pictures much like trained ones do where no pretrained
// network fits (small or unusual pictures); distances over them compare only with others of the
// same seed. Four 3x3 convolutions (He's weights, SiLU), the second and fourth of stride 2;
// features are the means over pixels after each pair: 32 and 64 values.
#pragma once
#include <span>

#include "../core/fingerprint.hpp"
#include "../graph/executor.hpp"
#include "../graph/parameters.hpp"
#include "../graph/recorder.hpp"

namespace multistage {

/// The network with its weights on a backend. Its memory is its own, so one call at a time.
template <class Backend>
class random_convolutions {
 public:
  /// 32 means after the first pair of convolutions and 64 after the second.
  static constexpr index_t feature_count = 96;

  /// @param image extents of one picture; `rows` does not matter. @param seed of the weights:
  /// figures of different seeds do not compare. @throws value_error for pictures below 4 x 4
  random_convolutions(Backend backend, shape image, std::uint64_t seed = 0)
      : backend_(std::move(backend)), image_(image) {
    require<value_error>(image.height >= 4 && image.width >= 4,
                         "random_convolutions: pictures of ", image.height, " x ", image.width,
                         " are too small; 4 x 4 is the least");
    const auto make = [&](int in, int height, int width, int out) {
      recorder<> b;
      const layer_options he{.init = {initialization::kaiming_uniform, std::sqrt(2.0)}};
      b.segment(0);
      feature x = b.input(input_slot::image, in, height, width);
      b.segment(1);
      x = b.silu(b.conv(x, out, "", {}, he));
      x = b.silu(b.conv(x, out, "", {.kernel = 3, .stride = 2, .padding = 1}, he));
      b.output(x);
      return b.finish();
    };
    graph first = make(int(image.channels), int(image.height), int(image.width), 32);
    const extent between = first.nodes[std::size_t(first.outputs[0])].out();
    graph second = make(32, between.height, between.width, 64);
    halves_.push_back({executor<float, Backend>(backend_, std::move(first)), {}});
    halves_.push_back({executor<float, Backend>(backend_, std::move(second)), {}});
    for (std::size_t k = 0; k < 2; ++k) {
      std::vector<float> w;
      initialize(halves_[k].network.network(), seed + k * 0x9E3779B97F4A7C15u, w);
      halves_[k].weights = tensor<float, Backend>(backend_, {1, 1, 1, index_t(w.size())}, w);
    }
  }

  /// Of all weights, sixteen hexadecimal digits.
  std::string hash() const {
    std::vector<float> all;
    for (const half& h : halves_) {
      const auto w = h.weights.to_host();
      all.insert(all.end(), w.begin(), w.end());
    }
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
      tensor<float, Backend> x(
          backend_, {rows, image_.height, image_.width, image_.channels},
          images.subspan(std::size_t(at * size), std::size_t(rows * size)));
      index_t begin = 0;
      for (half& part : halves_) {
        const graph& network = part.network.network();
        const extent out = network.nodes[std::size_t(network.outputs[0])].out();
        tensor<float, Backend> y(backend_, out.of(rows));
        tensor<float, Backend> sums(backend_, {rows, 1, 1, out.channels});
        network_inputs<float> in;
        in[input_slot::image] = x.data();
        part.network.forward(part.weights.data(), in, {rows}, y.data());
        const float* const values = y.data();
        row_sums(backend_, rows, out.pixels(), out.channels, values, sums.data(), false);
        const std::vector<float> host = sums.to_host();
        for (index_t r = 0; r < rows; ++r) {
          double* const to = features.data() + (at + r) * feature_count + begin;
          const float* const from = host.data() + r * out.channels;
          for (index_t c = 0; c < out.channels; ++c)
            to[c] = double(from[c]) / double(out.pixels());
        }
        begin += out.channels;
        x = std::move(y);
      }
    }
    return features;
  }

 private:
  struct half {
    executor<float, Backend> network;
    tensor<float, Backend> weights;
  };
  Backend backend_;
  shape image_;
  std::vector<half> halves_;
};

}  // namespace multistage
