// A convolutional network whose features are wanted at several depths, and the gradient of what
// is computed from them with respect to the image: parts in a row, each of which reads what the
// one before it made.
//
//   feature_layers<float, cpu> net(backend, std::move(parts));
//   net.differentiate(x, rows, dx, [&](int k, view<const float> f, view<float> df) { ... });
//
// Backward passes lie inside one another: the gradient of a part's features is what the loss
// writes, and then what the parts behind it add.
#pragma once
#include <functional>
#include <vector>

#include "../graph/executor.hpp"
#include "../graph/parameters.hpp"
#include "../graph/recorder.hpp"

namespace multistage {

/// A part of a network and its weights, which lie as the graph's parameters do.
template <class Scalar>
struct feature_part {
  graph structure;              ///< one input image, one output
  std::vector<Scalar> weights;  ///< flat, host memory
};

/// Parts with weights on a backend. Its memory is its own, so one call at a time.
template <class Scalar, class Backend>
class feature_layers {
 public:
  /// @param parts the first of which reads the image. @throws value_error for graphs that do
  /// not run
  MULTISTAGE_COLD feature_layers(Backend backend, std::vector<feature_part<Scalar>> parts)
      : backend_(std::move(backend)) {
    for (feature_part<Scalar>& p : parts) {
      const index_t n = index_t(p.weights.size());
      parts_.push_back({executor<Scalar, Backend>(backend_, std::move(p.structure)),
                        tensor<Scalar, Backend>(backend_, {1, 1, 1, n}, p.weights)});
    }
  }
  /// How many parts there are.
  int count() const {
    return int(parts_.size());
  }
  /// Extents of one row of part k's features.
  extent of(int k) const {
    const graph& g = parts_[std::size_t(k)].network.network();
    return g.nodes[std::size_t(g.outputs[0])].out();
  }
  /// All weights, the first part's first.
  std::vector<Scalar> weights() const {
    std::vector<Scalar> all;
    for (const part& p : parts_) {
      const std::vector<Scalar> own = p.weights.to_host();
      all.insert(all.end(), own.begin(), own.end());
    }
    return all;
  }

  /// The features of each part for images [rows, ...] of the first part's input.
  std::vector<tensor<Scalar, Backend>> forward(const Scalar* images, index_t rows) {
    std::vector<tensor<Scalar, Backend>> found;
    for (int k = 0; k < count(); ++k) {
      part& p = parts_[std::size_t(k)];
      network_inputs<Scalar> in;
      in[input_slot::image] = k == 0 ? images : found.back().data();
      found.emplace_back(backend_, of(k).of(rows));
      constexpr std::uint64_t only_version = 1;
      p.network.forward(p.weights.data(), in, {rows}, found.back().data(), only_version);
    }
    return found;
  }
  /// Adds to `dimages` the gradient of a loss by the images.
  /// @param loss called once a part, in their order, as loss(k, features, gradient): writes the
  /// gradient of the loss by the part's features
  void differentiate(
      const Scalar* images,
      index_t rows,
      Scalar* dimages,
      const std::function<void(int k, view<const Scalar> features, view<Scalar> gradient)>&
          loss) {
    differentiate_from(0, images, rows, dimages, loss);
  }

 private:
  struct part {
    executor<Scalar, Backend> network;
    tensor<Scalar, Backend> weights;
  };

  template <class Loss>
  void differentiate_from(int k, const Scalar* x, index_t rows, Scalar* dx, const Loss& loss) {
    part& p = parts_[std::size_t(k)];
    network_inputs<Scalar> in;
    in[input_slot::image] = x;
    differentiation<Scalar> asked;
    asked.input_gradients[std::size_t(input_slot::image)] = dx;
    const auto behind = [&](int, index_t, index_t, const Scalar* f, Scalar* df) {
      loss(k, {f, of(k).of(rows)}, {df, of(k).of(rows)});
      if (k + 1 < count())
        differentiate_from(k + 1, f, rows, df, loss);
    };
    p.network.differentiate(p.weights.data(), nullptr, in, {rows}, behind, asked);
  }

  Backend backend_;
  std::vector<part> parts_;
};

}  // namespace multistage
