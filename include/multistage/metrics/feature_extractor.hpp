// What distances between sets of pictures are taken over: pixels, a random convolutional
// network, Inception, or a user's own. An extractor carries a name and a hash of its weights,
// so that a figure says what it was measured with.
//
//   const feature_extractor f = random_features(cpu(), {1, 32, 32, 3});
//   frechet_distance(f.features(a, extents_a), f.features(b, extents_b), f.dimension);
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "inception.hpp"
#include "random_convolutions.hpp"

namespace multistage {

/// A network, or anything else, that makes features of pictures: any of the functions below, or
/// a value with the user's own.
struct feature_extractor {
  std::string name;       ///< for people and reports
  std::string hash;       ///< of the weights: figures of different ones do not compare
  index_t dimension = 0;  ///< features a picture
  /// Features [n, dimension] of images [n, h, w, c].
  std::function<std::vector<double>(std::span<const float> images, shape extents)> features;
  /// Probabilities of classes, [n, classes]; empty where there is no classifier.
  std::function<std::vector<double>(std::span<const float> images, shape extents)>
      probabilities;
  index_t classes = 0;  ///< how many the classifier tells apart; 0 without one
};

/// The pixels themselves.
inline feature_extractor pixel_features(shape image) {
  return {
      "pixels",
      fingerprint_of(std::span("pixels", 6)),
      image.row_size(),
      [](std::span<const float> v, shape) { return std::vector<double>(v.begin(), v.end()); },
      {}};
}
/// @see random_convolutions.hpp
template <class Backend>
feature_extractor random_features(Backend backend, shape image, std::uint64_t seed = 0) {
  const auto net =
      std::make_shared<random_convolutions<Backend>>(std::move(backend), image, seed);
  return {"random convolutions, seed " + std::to_string(seed),
          net->hash(),
          random_convolutions<Backend>::feature_count,
          [net](std::span<const float> v, shape) { return (*net)(v); },
          {}};
}
/// @param hash of the weights, e.g. fingerprint of their file
template <class Backend>
feature_extractor inception_features(inception<Backend> network, std::string hash) {
  const auto net = std::make_shared<inception<Backend>>(std::move(network));
  feature_extractor f{
      std::string("Inception-v3, ") + to_string(net->pooling()) + " pooling",
      std::move(hash),
      inception<Backend>::feature_count,
      [net](std::span<const float> v, shape e) { return (*net)(v, e).features; },
      {}};
  if (net->classes() > 0) {
    f.probabilities = [net](std::span<const float> v, shape e) {
      return (*net)(v, e).probabilities;
    };
    f.classes = net->classes();
  }
  return f;
}

}  // namespace multistage
