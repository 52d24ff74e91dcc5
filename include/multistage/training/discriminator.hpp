// A discriminator at work (Goodfellow et al., arXiv 1406.2661; hinge loss: Lim and Ye, arXiv
// 1705.02894; as Esser et al., arXiv 2012.09841, use it). With D's values by patch,
//   it is trained on     L_D = 1/2 mean max(0, 1 - D(x)) + 1/2 mean max(0, 1 + D(y)),
//   who makes y is told  L_G = -mean D(y).
#pragma once
#include <cmath>
#include <vector>

#include "../graph/executor.hpp"
#include "../graph/parameters.hpp"
#include "../networks/patch_discriminator.hpp"

namespace multistage {

namespace functor {
/// One patch's hinge, max(0, 1 - sign d), and its gradient.
template <class T>
struct hinge {
  const T* d;
  double sign;    // 1 for real pictures, -1 for made ones
  double factor;  // on the gradient
  index_t size;
  T* gradient;
  MULTISTAGE_HD double operator()(index_t row, index_t column) const {
    const index_t i = row * size + column;
    const double margin = 1 - sign * double(d[i]);
    gradient[i] = margin > 0 ? T(-sign * factor) : T(0);
    return margin > 0 ? margin : 0;
  }
};
}  // namespace functor

/// A discriminator with weights. Its memory is its own, so one call at a time.
template <class Scalar, class Backend>
class discriminator {
 public:
  /// @throws value_error when the settings do not fit together
  MULTISTAGE_COLD discriminator(Backend backend,
                                const patch_discriminator& config,
                                std::uint64_t seed)
      : discriminator(std::move(backend), record(config), seed) {}

  /// Its weights, which lie as network()'s parameters do.
  tensor<Scalar, Backend>& weights() {
    return weights_;
  }
  /// What it computes, with the names of its parameters.
  const graph& network() const {
    return network_.network();
  }
  /// Names of the parameters.
  const std::vector<std::string>& parameter_names() const {
    return names_;
  }
  /// L_G of pictures y; adds to dy `factor` times its gradient by y.
  double deceive(view<const Scalar> y, double factor, view<Scalar> dy) {
    network_inputs<Scalar> in;
    in[input_slot::image] = y.data;
    differentiation<Scalar> asked;
    asked.input_gradients[std::size_t(input_slot::image)] = dy.data;
    const index_t rows = y.extents.rows;
    const index_t n = rows * patches();
    double sum = 0;
    const auto loss = [&](int, index_t, index_t, const Scalar* d, Scalar* dd) {
      sum = reduce_sum(backend_, n, d, false);
      ops::fill<Backend, Scalar>(backend_, view<Scalar>(dd, shape{1, 1, 1, n}),
                                 Scalar(-factor / double(n)));
    };
    network_.differentiate(weights_.data(), nullptr, in, {rows}, loss, asked);
    return -sum / double(n);
  }
  /// L_D of real pictures x and made ones y; adds its gradient to `gradients`, which lie as the
  /// weights do (null: not wanted).
  double differentiate(view<const Scalar> x, view<const Scalar> y, Scalar* gradients) {
    return (half(x, 1, gradients) + half(y, -1, gradients)) / 2;
  }

 private:
  discriminator(Backend backend, described_network network, std::uint64_t seed)
      : backend_(std::move(backend)),
        names_(std::move(network.names)),
        network_(backend_, std::move(network.structure)) {
    std::vector<Scalar> own;
    initialize(network_.network(), seed, own);
    weights_ = tensor<Scalar, Backend>(backend_, {1, 1, 1, index_t(own.size())}, own);
  }
  /// How many values it has for a picture.
  index_t patches() const {
    const graph& g = network_.network();
    return g.nodes[std::size_t(g.outputs[0])].out().size();
  }
  /// The mean hinge of pictures that are real (sign 1) or made; half its gradient is added.
  double half(view<const Scalar> x, double sign, Scalar* gradients) {
    const index_t rows = x.extents.rows;
    const double n = double(rows * patches());
    network_inputs<Scalar> in;
    in[input_slot::image] = x.data;
    tensor<double, Backend> sums(backend_, {rows, 1, 1, 1});
    const auto loss = [&](int, index_t, index_t, const Scalar* d, Scalar* dd) {
      const functor::hinge<Scalar> term{d, sign, 0.5 / n, patches(), dd};
      sum_by_row(backend_, rows, patches(), term, sums.data());
    };
    network_.differentiate(weights_.data(), gradients, in, {rows}, loss);
    double sum = 0;
    for (const double s : sums.to_host())
      sum += s;
    return sum / n;
  }

  Backend backend_;
  std::vector<std::string> names_;
  executor<Scalar, Backend> network_;
  tensor<Scalar, Backend> weights_;
};

}  // namespace multistage
