// The perceptual distance of two pictures (LPIPS; Zhang, Isola, Efros, Shechtman, Wang, arXiv
// 1801.03924, eq. 1): features of a convolutional network at several depths, each pixel's of
// unit length, their squared differences weighed by channel:
//   d(x, y) = sum over layers k of mean over pixels of sum_c w_kc (u_kc(x) - u_kc(y))^2,
//   u(x) = f(x) / (|f(x)| + 1e-10).
//
// The network is VGG-16 or AlexNet with the weights that the paper's authors trained on
// people's judgements (io/perceptual_file.hpp), or random convolutions, which know edges and
// colours of a picture, not its content.
#pragma once
#include <array>
#include <string>

#include "perceptual_networks.hpp"
#include "random_convolutions.hpp"

namespace multistage {

namespace functor {
/// One pixel's share of a layer's distance; writes the gradient by its features.
template <class T>
struct perceptual_pixel {
  static constexpr double epsilon = 1e-10;
  const T* features;
  const T* wanted;  // features of the other picture
  const T* weight;  // by channel
  index_t channels;
  index_t pixels;
  double factor;  // on the gradient
  T* gradient;    // null: not wanted

  MULTISTAGE_HD double operator()(index_t row, index_t pixel) const {
    const index_t at = (row * pixels + pixel) * channels;
    const T* const f = features + at;
    const T* const g = wanted + at;
    const double length = norm(f);
    const double other = norm(g);
    double sum = 0;
    double along = 0;  // the gradient by u, times f
    for (index_t c = 0; c < channels; ++c) {
      const double d = double(f[c]) / (length + epsilon) - double(g[c]) / (other + epsilon);
      sum += double(weight[c]) * d * d;
      along += 2 * double(weight[c]) * d * double(f[c]);
    }
    if (gradient)
      for (index_t c = 0; c < channels; ++c) {
        const double d = double(f[c]) / (length + epsilon) - double(g[c]) / (other + epsilon);
        const double bent =
            length > 0 ? along * double(f[c]) / (length * (length + epsilon)) : 0;
        gradient[at + c] = T(factor * (2 * double(weight[c]) * d - bent) / (length + epsilon));
      }
    return sum / double(pixels);
  }
  /// The length of a pixel's features.
  MULTISTAGE_HD double norm(const T* f) const {
    double square = 0;
    for (index_t c = 0; c < channels; ++c)
      square += double(f[c]) * double(f[c]);
    return ::sqrt(square);
  }
};
/// A picture in [-1, 1] as a network wants it: (x - shift) / scale by channel; grey becomes as
/// many channels as the network takes.
template <class T>
struct perceptual_input {
  const T* x;
  index_t given;  // channels of x
  index_t taken;  // channels of the network
  double shift[3];
  double scale[3];
  T* y;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t c = i % taken;
    const double v = x[i / taken * given + (given == taken ? c : 0)];
    y[i] = c < 3 ? T((v - shift[c]) / scale[c]) : T(v);
  }
};
/// dx += the gradient by that picture, from dy.
template <class T>
struct perceptual_input_backward {
  const T* dy;
  index_t given;
  index_t taken;
  double scale[3];
  T* dx;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t pixel = i / given;
    const index_t first = given == taken ? i % given : 0;
    const index_t end = given == taken ? first + 1 : taken;
    double sum = 0;
    for (index_t c = first; c < end; ++c)
      sum += double(dy[pixel * taken + c]) / (c < 3 ? scale[c] : 1);
    dx[i] += T(sum);
  }
};
}  // namespace functor

/// The distance over a network with weights. Its memory is its own, so one call at a time.
template <class Scalar, class Backend>
class perceptual_distance {
 public:
  /// @param net what features are of. @param image extents of a picture; grey pictures are
  /// repeated over a network's three channels. @throws value_error for a network that does not
  /// fit, with the sizes
  MULTISTAGE_COLD perceptual_distance(Backend backend,
                                      perceptual_network<Scalar> net,
                                      const shape& image)
      : backend_(std::move(backend)),
        name_(std::move(net.name)),
        image_(image),
        channels_(net.channels),
        shift_(net.shift),
        scale_(net.scale),
        layers_(backend_, std::move(net.parts)) {
    require<value_error>(image.channels == channels_ || image.channels == 1,
                         "perceptual_distance: pictures of ", image.channels, " channels; ",
                         name_, " takes ", channels_, " or grey ones");
    require<value_error>(int(net.channel_weights.size()) == layers_.count(),
                         "perceptual_distance: ", net.channel_weights.size(),
                         " lists of channel weights for ", layers_.count(), " layers");
    for (int k = 0; k < layers_.count(); ++k)
      weights_.emplace_back(backend_, shape{1, 1, 1, index_t{layers_.of(k).channels}},
                            net.channel_weights[std::size_t(k)]);
  }
  /// Over random convolutions (random_convolutions.hpp), all channels alike: 1 / channels each.
  static perceptual_distance of_random_convolutions(Backend backend,
                                                    const shape& image,
                                                    std::uint64_t seed = 0) {
    perceptual_network<Scalar> net{"random convolutions, seed " + std::to_string(seed),
                                   random_convolution_parts<Scalar>(image, seed)};
    net.channels = int(image.channels);
    for (const index_t n : {32, 64})
      net.channel_weights.emplace_back(std::size_t(n), Scalar(1.0 / double(n)));
    return perceptual_distance(std::move(backend), std::move(net), image);
  }

  /// Over which network, for people.
  const std::string& name() const {
    return name_;
  }
  /// Distances [rows] of x and y [rows, h, w, c] in [-1, 1]. @throws shape_error
  std::vector<double> operator()(view<const Scalar> x, view<const Scalar> y) {
    expect_pictures("x", x, x.extents.rows);
    expect_pictures("y", y, x.extents.rows);
    const index_t rows = x.extents.rows;
    const auto of_x = layers_.forward(brought(x, input_), rows);
    const auto of_y = layers_.forward(brought(y, input_), rows);
    std::vector<double> sums(std::size_t(rows), 0.0);
    for (int k = 0; k < layers_.count(); ++k)
      add_distances(k, of_x[std::size_t(k)].data(), of_y[std::size_t(k)].data(), rows, 0,
                    nullptr, sums);
    return sums;
  }
  /// Distances [rows] of x from y; adds to dx `factor` times the gradient of their sum by x.
  /// @throws shape_error
  std::vector<double> differentiate(view<const Scalar> x,
                                    view<const Scalar> y,
                                    double factor,
                                    view<Scalar> dx) {
    const index_t rows = x.extents.rows;
    expect_pictures("x", x, rows);
    expect_pictures("y", y, rows);
    ops::expect("perceptual_distance", "dx", dx, x.extents);
    const auto wanted = layers_.forward(brought(y, input_), rows);
    tensor<Scalar, Backend> dinput(backend_, input_shape(rows));
    std::vector<double> sums(std::size_t(rows), 0.0);
    layers_.differentiate(brought(x, input_), rows, dinput.data(),
                          [&](int k, view<const Scalar> f, view<Scalar> df) {
                            add_distances(k, f.data, wanted[std::size_t(k)].data(), rows,
                                          factor, df.data, sums);
                          });
    backend_.for_each_index(dx.extents.size(), functor::perceptual_input_backward<Scalar>{
                                                   dinput.data(),
                                                   image_.channels,
                                                   channels_,
                                                   {scale_[0], scale_[1], scale_[2]},
                                                   dx.data});
    return sums;
  }

 private:
  void expect_pictures(const char* name, const view<const Scalar>& x, index_t rows) const {
    ops::expect("perceptual_distance", name, x,
                shape{rows, image_.height, image_.width, image_.channels});
  }
  /// What the first part reads.
  shape input_shape(index_t rows) const {
    return {rows, image_.height, image_.width, channels_};
  }
  /// x as the network wants it, in `to`.
  const Scalar* brought(view<const Scalar> x, tensor<Scalar, Backend>& to) {
    const index_t n = input_shape(x.extents.rows).size();
    grown(to, backend_, n);
    backend_.for_each_index(n,
                            functor::perceptual_input<Scalar>{x.data,
                                                              image_.channels,
                                                              channels_,
                                                              {shift_[0], shift_[1], shift_[2]},
                                                              {scale_[0], scale_[1], scale_[2]},
                                                              to.data()});
    return to.data();
  }
  void add_distances(int k,
                     const Scalar* f,
                     const Scalar* wanted,
                     index_t rows,
                     double factor,
                     Scalar* df,
                     std::vector<double>& sums) {
    const extent e = layers_.of(k);
    tensor<double, Backend> distance(backend_, {rows, 1, 1, 1});
    sum_by_row(backend_, rows, e.pixels(),
               functor::perceptual_pixel<Scalar>{f, wanted, weights_[std::size_t(k)].data(),
                                                 e.channels, e.pixels(),
                                                 factor / double(e.pixels()), df},
               distance.data());
    const std::vector<double> host = distance.to_host();
    for (std::size_t r = 0; r < sums.size(); ++r)
      sums[r] += host[r];
  }

  Backend backend_;
  std::string name_;
  shape image_;
  index_t channels_;
  std::array<double, 3> shift_;
  std::array<double, 3> scale_;
  feature_layers<Scalar, Backend> layers_;
  std::vector<tensor<Scalar, Backend>> weights_;  // of the channels, by layer
  tensor<Scalar, Backend> input_;
};

}  // namespace multistage
