// Inception-v3 (Szegedy et al., arXiv 1512.00567) as the feature network of the Frechet
// Inception distance (Heusel et al., arXiv 1706.08500): the 2048 means before its classifier,
// and class probabilities. Batch norms are folded into the convolutions; weights come from a
// file that examples/convert_checkpoint.py makes of what torchvision or pytorch-fid users have.
//
//   inception<cpu> network(cpu(), weights);             // weights(name, extents) gives tensors
//   auto found = network(images.span(), images.extents);
//   frechet_distance(found.features, others, 2048);
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "../core/tensor.hpp"
#include "../graph/executor.hpp"
#include "../graph/parameters.hpp"
#include "../graph/recorder.hpp"

namespace multistage {

/// fid: averages leave the border out and the last block takes a maximum, as the weights of the
/// FID's original network want it (pytorch-fid); torchvision: averages count the border as
/// zeros.
enum class inception_pooling { fid, torchvision };
/// "fid" or "torchvision".
constexpr const char* to_string(inception_pooling p) {
  return p == inception_pooling::fid ? "fid" : "torchvision";
}

namespace inception_detail {

using window = ops::conv_window;

/// A window of any kernel and padding, of stride 1.
constexpr window rectangle(int height, int width, int pad_height, int pad_width) {
  return {.kernel = height,
          .stride = 1,
          .padding = pad_height,
          .kernel_width = width,
          .stride_width = 1,
          .padding_width = pad_width};
}
inline constexpr window one = rectangle(1, 1, 0, 0);
inline constexpr window three = rectangle(3, 3, 1, 1);
inline constexpr window inner = rectangle(3, 3, 0, 0);  // without the border
inline constexpr window five = rectangle(5, 5, 2, 2);
inline constexpr window wide = rectangle(1, 7, 0, 3);
inline constexpr window tall = rectangle(7, 1, 3, 0);
inline constexpr window down{.kernel = 3, .stride = 2, .padding = 0};

/// The network up to its last feature map, [8, 8, 2048], in the layers' upstream names.
template <class Builder>
class description {
 public:
  description(Builder& b, inception_pooling pooling)
      : b_(b),
        pooling_(pooling) {}

  /// @param x the image [299, 299, 3] in [-1, 1]
  feature operator()(feature x) {
    x = conv("Conv2d_1a_3x3", x, 32, down);
    x = conv("Conv2d_2a_3x3", x, 32, inner);
    x = halved(conv("Conv2d_2b_3x3", x, 64, three));
    x = conv("Conv2d_3b_1x1", x, 80);
    x = halved(conv("Conv2d_4a_3x3", x, 192, inner));
    x = block_a("Mixed_5b", x, 32);
    x = block_a("Mixed_5c", x, 64);
    x = block_a("Mixed_5d", x, 64);
    x = block_b("Mixed_6a", x);
    x = block_c("Mixed_6b", x, 128);
    x = block_c("Mixed_6c", x, 160);
    x = block_c("Mixed_6d", x, 160);
    x = block_c("Mixed_6e", x, 192);
    x = block_d("Mixed_7a", x);
    x = block_e("Mixed_7b", x, average());
    return block_e("Mixed_7c", x,
                   pooling_ == inception_pooling::fid ? ops::pool_kind::maximum : average());
  }

 private:
  /// A convolution, its batch norm folded in, and ReLU.
  feature conv(const char* name, feature x, int out, const window& w = one) {
    return b_.relu(b_.conv(x, out, name, w));
  }
  /// The maximum of 3 x 3 windows at every second pixel.
  feature halved(feature x) {
    return b_.pool(x, ops::pool_kind::maximum, down);
  }
  /// How means treat the border.
  ops::pool_kind average() const {
    return pooling_ == inception_pooling::torchvision ? ops::pool_kind::mean_with_border
                                                      : ops::pool_kind::mean;
  }
  /// What a block sees of its input through 3 x 3 windows, in `out` channels.
  feature pooled(feature x, int out, ops::pool_kind kind) {
    return conv("branch_pool", b_.pool(x, kind, three), out);
  }

  /// 35 x 35: branches of 1 x 1, 5 x 5, twice 3 x 3 and a pool.
  feature block_a(const char* name, feature x, int pool) {
    const auto scope = b_.scope(name);
    const feature a = conv("branch1x1", x, 64);
    const feature b = conv("branch5x5_2", conv("branch5x5_1", x, 48), 64, five);
    feature c = conv("branch3x3dbl_1", x, 64);
    c = conv("branch3x3dbl_2", c, 96, three);
    c = conv("branch3x3dbl_3", c, 96, three);
    return b_.concat(a, b, c, pooled(x, pool, average()));
  }
  /// From 35 x 35 to 17 x 17.
  feature block_b(const char* name, feature x) {
    const auto scope = b_.scope(name);
    const feature a = conv("branch3x3", x, 384, down);
    feature b = conv("branch3x3dbl_1", x, 64);
    b = conv("branch3x3dbl_2", b, 96, three);
    b = conv("branch3x3dbl_3", b, 96, down);
    return b_.concat(a, b, halved(x));
  }
  /// 17 x 17: 7 x 7 windows as 1 x 7 and 7 x 1.
  feature block_c(const char* name, feature x, int narrow) {
    const auto scope = b_.scope(name);
    const feature a = conv("branch1x1", x, 192);
    feature b = conv("branch7x7_1", x, narrow);
    b = conv("branch7x7_2", b, narrow, wide);
    b = conv("branch7x7_3", b, 192, tall);
    feature c = conv("branch7x7dbl_1", x, narrow);
    c = conv("branch7x7dbl_2", c, narrow, tall);
    c = conv("branch7x7dbl_3", c, narrow, wide);
    c = conv("branch7x7dbl_4", c, narrow, tall);
    c = conv("branch7x7dbl_5", c, 192, wide);
    return b_.concat(a, b, c, pooled(x, 192, average()));
  }
  /// From 17 x 17 to 8 x 8.
  feature block_d(const char* name, feature x) {
    const auto scope = b_.scope(name);
    const feature a = conv("branch3x3_2", conv("branch3x3_1", x, 192), 320, down);
    feature b = conv("branch7x7x3_1", x, 192);
    b = conv("branch7x7x3_2", b, 192, wide);
    b = conv("branch7x7x3_3", b, 192, tall);
    b = conv("branch7x7x3_4", b, 192, down);
    return b_.concat(a, b, halved(x));
  }
  /// 8 x 8: 3 x 3 windows as 1 x 3 beside 3 x 1.
  feature block_e(const char* name, feature x, ops::pool_kind kind) {
    const auto scope = b_.scope(name);
    const feature a = conv("branch1x1", x, 320);
    const feature b = conv("branch3x3_1", x, 384);
    const feature across = crossed("branch3x3_2a", "branch3x3_2b", b);
    const feature c = conv("branch3x3dbl_2", conv("branch3x3dbl_1", x, 448), 384, three);
    const feature far = crossed("branch3x3dbl_3a", "branch3x3dbl_3b", c);
    return b_.concat(a, across, far, pooled(x, 192, kind));
  }

  /// 1 x 3 and 3 x 1 windows side by side, in place of 3 x 3 ones.
  feature crossed(const char* flat, const char* upright, feature x) {
    const feature a = conv(flat, x, 384, rectangle(1, 3, 0, 1));
    const feature b = conv(upright, x, 384, rectangle(3, 1, 1, 0));
    return b_.concat(a, b);
  }

  Builder& b_;
  inception_pooling pooling_;
};

namespace functor {
/// Where a pixel of a line of n lies among `from`: between `low` and `high`, `share` of the
/// way.
struct between_pixels {
  index_t low;
  index_t high;
  float share;
  MULTISTAGE_HD between_pixels(index_t pixel, index_t n, index_t from) {
    const double at = (double(pixel) + 0.5) * double(from) / double(n) - 0.5;
    const double inside = at < 0 ? 0 : at;
    low = index_t(inside);
    high = low + 1 < from ? low + 1 : low;
    share = float(inside - double(low));
  }
};
/// Bilinear, pixel centres at (i + 1/2), the border repeated (PyTorch's interpolate without
/// align_corners). Grey becomes three channels.
struct resize {
  const float* x;
  shape in;
  shape out;
  float* y;
  MULTISTAGE_HD void operator()(index_t pixel) const {
    const index_t row = pixel / (out.width * out.height);
    const between_pixels down(pixel / out.width % out.height, out.height, in.height);
    const between_pixels across(pixel % out.width, out.width, in.width);
    const float sy = down.share;
    const float sx = across.share;
    for (index_t k = 0; k < 3; ++k) {
      const index_t c = in.channels == 1 ? 0 : k;
      const auto v = [&](index_t iy, index_t ix) {
        return x[((row * in.height + iy) * in.width + ix) * in.channels + c];
      };
      const float upper_left = v(down.low, across.low);
      const float upper_right = v(down.low, across.high);
      const float lower_left = v(down.high, across.low);
      const float lower_right = v(down.high, across.high);
      y[pixel * 3 + k] = (1 - sy) * ((1 - sx) * upper_left + sx * upper_right) +
                         sy * ((1 - sx) * lower_left + sx * lower_right);
    }
  }
};
}  // namespace functor
}  // namespace inception_detail

/// The network with weights, in float on a backend. Its memory is its own, so one call at a
/// time.
template <class Backend>
class inception {
 public:
  /// Means over the last feature map.
  static constexpr index_t feature_count = 2048;
  /// Height and width that pictures are brought to.
  static constexpr index_t resolution = 299;
  /// Gives a tensor by upstream's name without ".conv": NAME.weight [out, in, height, width],
  /// NAME.bias [out], fc.weight [classes, 2048], fc.bias.
  using source = std::function<std::vector<float>(const std::string& name,
                                                  const std::vector<index_t>& extents)>;

  /// @param classes of the classifier; 0: none is read. @throws what `weights` throws
  inception(Backend backend,
            const source& weights,
            inception_pooling pooling = inception_pooling::fid,
            index_t classes = 0)
      : backend_(backend),
        pooling_(pooling),
        classes_(classes),
        network_(backend, recorded()) {
    std::vector<float> own(std::size_t(network_.network().parameter_elements));
    for_each_parameter([&](const parameter& p, const std::string& name) {
      const std::vector<float> given = weights(name, upstream_extents(p));
      for_each_element(p, [&](index_t upstream, index_t at) {
        own[std::size_t(p.offset + at)] = given[std::size_t(upstream)];
      });
    });
    weights_ = tensor<float, Backend>(backend_, {1, 1, 1, index_t(own.size())}, own);
    if (classes_ > 0) {
      classifier_ = weights("fc.weight", {classes_, feature_count});
      classifier_bias_ = weights("fc.bias", {classes_});
    }
  }
  /// How many the classifier knows; 0 without one.
  index_t classes() const {
    return classes_;
  }
  /// Whose pooling it has.
  inception_pooling pooling() const {
    return pooling_;
  }
  /// Names of the layers with the extents of their weights, [out, in, height, width].
  std::map<std::string, std::vector<index_t>> layers() const {
    std::map<std::string, std::vector<index_t>> list;
    for_each_parameter([&](const parameter& p, const std::string& name) {
      const std::size_t end = name.rfind(".weight");
      if (end != std::string::npos)
        list.emplace(name.substr(0, end), upstream_extents(p));
    });
    if (classes_ > 0)
      list.emplace("fc", std::vector<index_t>{classes_, feature_count});
    return list;
  }

  /// What is known of n pictures.
  struct result {
    std::vector<double> features;       ///< [n, 2048]
    std::vector<double> probabilities;  ///< [n, classes]
  };
  /// @param images [n, h, w, 1 or 3] in [-1, 1], host memory; they are resized to 299 x 299.
  /// @param batch pictures at a time. @throws shape_error
  result operator()(std::span<const float> images, shape extents, index_t batch = 4) {
    const bool as_many = index_t(images.size()) == extents.size();
    const bool shown = extents.channels == 1 || extents.channels == 3;
    require<shape_error>(as_many && shown, "inception: ", images.size(), " values for images ",
                         extents, "; they have 1 or 3 channels");
    result r;
    const std::size_t size = std::size_t(extents.row_size());
    for (index_t first = 0; first < extents.rows; first += batch) {
      shape some = extents;
      some.rows = std::min(batch, extents.rows - first);
      const auto values =
          images.subspan(std::size_t(first) * size, std::size_t(some.rows) * size);
      const tensor<float, Backend> x(backend_, some, values);
      const std::vector<float> means = features_of(x);  // [some.rows, 2048]
      r.features.insert(r.features.end(), means.begin(), means.end());
      if (classes_ > 0)
        for (index_t row = 0; row < some.rows; ++row)
          classify(means.data() + row * feature_count, r.probabilities);
    }
    return r;
  }

 private:
  /// The structure with its parameters' names.
  graph recorded() {
    recorder<name_list> b;
    b.segment(0);
    const feature image = b.input(input_slot::image, 3, int(resolution), int(resolution));
    b.segment(1);
    b.output(inception_detail::description(b, pooling_)(image));
    graph g = b.finish();
    names_ = std::move(b.names.parameters);
    return g;
  }
  /// f(parameter, upstream's name)
  template <class F>
  void for_each_parameter(F&& f) const {
    const auto& parameters = network_.network().parameters;
    for (std::size_t k = 0; k < parameters.size(); ++k)
      f(parameters[k], names_[k]);
  }

  /// [n, 2048] of pictures [n, h, w, c].
  std::vector<float> features_of(const tensor<float, Backend>& x) {
    const index_t n = x.extents().rows;
    const graph& g = network_.network();
    const extent last = g.nodes[std::size_t(g.outputs[0])].out();  // [8, 8, 2048]
    tensor<float, Backend> image(backend_, {n, resolution, resolution, 3});
    tensor<float, Backend> map(backend_, last.of(n));
    tensor<float, Backend> mean(backend_, {n, 1, 1, feature_count});
    using inception_detail::functor::resize;
    const resize resized{x.data(), x.extents(), image.extents(), image.data()};
    backend_.for_each_index(n * resolution * resolution, resized, 64);
    network_inputs<float> in;
    in[input_slot::image] = image.data();
    constexpr std::uint64_t only_version = 1;
    network_.forward(weights_.data(), in, {n}, map.data(), only_version);
    const float* const features = map.data();  // [n, pixels, 2048]
    row_sums(backend_, n, last.pixels(), feature_count, features, mean.data(), false);
    std::vector<float> host = mean.to_host();
    for (float& f : host)
      f /= float(last.pixels());
    return host;
  }
  /// Appends softmax(W f + bias) of one picture's features [2048].
  void classify(const float* features, std::vector<double>& to) const {
    std::vector<double> scores(classifier_bias_.begin(), classifier_bias_.end());
    const float* weight = classifier_.data();
    for (double& score : scores) {
      for (index_t k = 0; k < feature_count; ++k)
        score += double(weight[k]) * double(features[k]);
      weight += feature_count;
    }
    const double most = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) {
      score = std::exp(score - most);
      sum += score;
    }
    for (const double exponential : scores)
      to.push_back(exponential / sum);
  }

  Backend backend_;
  inception_pooling pooling_;
  index_t classes_;
  std::vector<std::string> names_;  // before network_, which fills it
  executor<float, Backend> network_;
  tensor<float, Backend> weights_;
  std::vector<float> classifier_;       // [classes, 2048]
  std::vector<float> classifier_bias_;  // [classes]
};

}  // namespace multistage
