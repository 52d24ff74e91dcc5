// Inception-v3 (Szegedy et al., arXiv 1512.00567) as the feature network of the Frechet
// Inception distance (Heusel et al., arXiv 1706.08500): the 2048 means before its classifier,
// and class probabilities. Batch norms are folded into the convolutions; weights come from a
// file that examples/convert_checkpoint.py makes of what torchvision or pytorch-fid users have.
// The network is described once, for whatever engine walks it.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../core/one_user.hpp"
#include "../core/scratch.hpp"
#include "../core/tensor.hpp"
#include "../ops/matmul.hpp"
#include "../ops/reduce.hpp"

namespace multistage {

/// fid: averages leave the border out and the last block takes a maximum, as the weights of the
/// FID's original network want it (pytorch-fid); torchvision: averages count the border as
/// zeros.
enum class inception_pooling { fid, torchvision };
constexpr const char* to_string(inception_pooling p) {
  return p == inception_pooling::fid ? "fid" : "torchvision";
}

namespace inception_detail {

struct window {
  int height = 1;
  int width = 1;
  int stride = 1;
  int pad_y = 0;
  int pad_x = 0;
};

/// The network: `e` has conv(name, x, out channels, window), max_pool(x, stride, padding),
/// average_pool(x) and concat({...}).
template <class Engine>
auto describe(Engine& e, typename Engine::value x, inception_pooling pooling) {
  using value = typename Engine::value;
  std::string block;
  const auto conv = [&](const char* name, const value& in, int out, window w = {}) {
    return e.conv(block.empty() ? name : block + "." + name, in, out, w);
  };
  constexpr window three{3, 3, 1, 1, 1};
  constexpr window down{3, 3, 2, 0, 0};
  constexpr window wide{1, 7, 1, 0, 3};
  constexpr window tall{7, 1, 1, 3, 0};
  const auto block_a = [&](const char* name, const value& in, int pool) {
    block = name;
    return e.concat(
        {conv("branch1x1", in, 64),
         conv("branch5x5_2", conv("branch5x5_1", in, 48), 64, {5, 5, 1, 2, 2}),
         conv("branch3x3dbl_3",
              conv("branch3x3dbl_2", conv("branch3x3dbl_1", in, 64), 96, three), 96, three),
         conv("branch_pool", e.average_pool(in), pool)});
  };
  const auto block_c = [&](const char* name, const value& in, int narrow) {
    block = name;
    value far = conv("branch7x7dbl_2", conv("branch7x7dbl_1", in, narrow), narrow, tall);
    far = conv("branch7x7dbl_4", conv("branch7x7dbl_3", far, narrow, wide), narrow, tall);
    return e.concat(
        {conv("branch1x1", in, 192),
         conv("branch7x7_3", conv("branch7x7_2", conv("branch7x7_1", in, narrow), narrow, wide),
              192, tall),
         conv("branch7x7dbl_5", far, 192, wide), conv("branch_pool", e.average_pool(in), 192)});
  };
  const auto block_e = [&](const char* name, const value& in, bool maximum) {
    block = name;
    const auto crossed = [&](const char* a, const char* b, const value& v) {
      return e.concat({conv(a, v, 384, {1, 3, 1, 0, 1}), conv(b, v, 384, {3, 1, 1, 1, 0})});
    };
    const value one = conv("branch1x1", in, 320);
    const value cross = crossed("branch3x3_2a", "branch3x3_2b", conv("branch3x3_1", in, 384));
    const value far =
        crossed("branch3x3dbl_3a", "branch3x3dbl_3b",
                conv("branch3x3dbl_2", conv("branch3x3dbl_1", in, 448), 384, three));
    return e.concat(
        {one, cross, far,
         conv("branch_pool", maximum ? e.max_pool(in, 1, 1) : e.average_pool(in), 192)});
  };
  x = conv("Conv2d_2b_3x3",
           conv("Conv2d_2a_3x3", conv("Conv2d_1a_3x3", x, 32, down), 32, {3, 3}), 64, three);
  x = conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", e.max_pool(x, 2, 0), 80), 192, {3, 3});
  x = block_a("Mixed_5b", e.max_pool(x, 2, 0), 32);
  x = block_a("Mixed_5c", x, 64);
  x = block_a("Mixed_5d", x, 64);
  block = "Mixed_6a";
  x = e.concat(
      {conv("branch3x3", x, 384, down),
       conv("branch3x3dbl_3", conv("branch3x3dbl_2", conv("branch3x3dbl_1", x, 64), 96, three),
            96, down),
       e.max_pool(x, 2, 0)});
  x = block_c("Mixed_6b", x, 128);
  x = block_c("Mixed_6c", x, 160);
  x = block_c("Mixed_6d", x, 160);
  x = block_c("Mixed_6e", x, 192);
  block = "Mixed_7a";
  x = e.concat(
      {conv("branch3x3_2", conv("branch3x3_1", x, 192), 320, down),
       conv("branch7x7x3_4",
            conv("branch7x7x3_3",
                 conv("branch7x7x3_2", conv("branch7x7x3_1", x, 192), 192, wide), 192, tall),
            192, down),
       e.max_pool(x, 2, 0)});
  x = block_e("Mixed_7b", x, false);
  return block_e("Mixed_7c", x, pooling == inception_pooling::fid);
}

namespace functor {
/// The rows of a convolution's product: to[pixel, (ky, kx, c)] = x at the pixel's window, zeros
/// outside. One index a pixel and ky.
struct patches {
  const float* x;
  shape in;
  shape out;
  window w;
  float* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t ky = i % w.height;
    const index_t pixel = i / w.height;
    const index_t ox = pixel % out.width;
    const index_t oy = pixel / out.width % out.height;
    const index_t row = pixel / (out.width * out.height);
    const index_t y = oy * w.stride - w.pad_y + ky;
    const index_t c = in.channels;
    float* at = to + i * w.width * c;
    for (index_t kx = 0; kx < w.width; ++kx, at += c) {
      const index_t from = ox * w.stride - w.pad_x + kx;
      const bool inside = y >= 0 && y < in.height && from >= 0 && from < in.width;
      const float* v = x + ((row * in.height + y) * in.width + from) * c;
      for (index_t k = 0; k < c; ++k)
        at[k] = inside ? v[k] : 0.0f;
    }
  }
};
/// y[pixel, :] = relu(y[pixel, :] + bias)
struct bias_relu {
  const float* bias;
  index_t channels;
  float* y;
  MULTISTAGE_HD void operator()(index_t pixel) const {
    for (index_t k = 0; k < channels; ++k) {
      const float v = y[pixel * channels + k] + bias[k];
      y[pixel * channels + k] = v > 0 ? v : 0.0f;
    }
  }
};
/// 3x3 windows, a maximum or a mean over what lies inside (or over all nine, those outside
/// being zeros).
struct pool {
  const float* x;
  shape in;
  shape out;
  int stride;
  int padding;
  bool maximum;
  bool count_border;
  float* y;
  MULTISTAGE_HD void operator()(index_t pixel) const {
    const index_t ox = pixel % out.width;
    const index_t oy = pixel / out.width % out.height;
    const index_t row = pixel / (out.width * out.height);
    const index_t c = in.channels;
    for (index_t k = 0; k < c; ++k) {
      float value = maximum ? -3.0e38f : 0.0f;
      int n = 0;
      for (int q = 0; q < 9; ++q) {
        const index_t iy = oy * stride - padding + q / 3;
        const index_t ix = ox * stride - padding + q % 3;
        if (iy < 0 || iy >= in.height || ix < 0 || ix >= in.width)
          continue;
        const float v = x[((row * in.height + iy) * in.width + ix) * c + k];
        ++n;
        if (!maximum)
          value += v;
        if (maximum && v > value)
          value = v;
      }
      y[pixel * c + k] = maximum ? value : value / float(count_border ? 9 : n);
    }
  }
};
struct place_channels {
  const float* from;
  index_t channels;
  index_t pitch;
  float* to;
  MULTISTAGE_HD void operator()(index_t pixel) const {
    for (index_t k = 0; k < channels; ++k)
      to[pixel * pitch + k] = from[pixel * channels + k];
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
    const index_t ox = pixel % out.width;
    const index_t oy = pixel / out.width % out.height;
    const index_t row = pixel / (out.width * out.height);
    const auto place = [](index_t o, index_t n, index_t from, index_t& low, index_t& high,
                          float& share) {
      const double at = (double(o) + 0.5) * double(from) / double(n) - 0.5;
      const double p = at < 0 ? 0 : at;
      low = index_t(p);
      high = low + 1 < from ? low + 1 : low;
      share = float(p - double(low));
    };
    index_t y0;
    index_t y1;
    index_t x0;
    index_t x1;
    float sy;
    float sx;
    place(oy, out.height, in.height, y0, y1, sy);
    place(ox, out.width, in.width, x0, x1, sx);
    for (index_t k = 0; k < 3; ++k) {
      const index_t c = in.channels == 1 ? 0 : k;
      const auto v = [&](index_t iy, index_t ix) {
        return x[((row * in.height + iy) * in.width + ix) * in.channels + c];
      };
      y[pixel * 3 + k] = (1 - sy) * ((1 - sx) * v(y0, x0) + sx * v(y0, x1)) +
                         sy * ((1 - sx) * v(y1, x0) + sx * v(y1, x1));
    }
  }
};
}  // namespace functor
}  // namespace inception_detail

/// The network with weights, in float on a backend.
template <class Backend>
class inception {
 public:
  static constexpr index_t feature_count = 2048;
  static constexpr index_t resolution = 299;
  /// Gives a tensor by upstream's name without ".conv": NAME.weight [out, in, height, width],
  /// NAME.bias [out], fc.weight [classes, 2048], fc.bias.
  using source = std::function<std::vector<float>(const std::string& name,
                                                  const std::vector<index_t>& extents)>;

  /// @param classes of the classifier; 0: none is read.
  inception(Backend backend,
            const source& weights,
            inception_pooling pooling = inception_pooling::fid,
            index_t classes = 0)
      : backend_(std::move(backend)), pooling_(pooling), classes_(classes) {
    reader r{*this, weights};
    inception_detail::describe(r, index_t{3}, pooling_);
    if (classes_ > 0)
      r.add("fc", {classes_, feature_count}, 1);
  }
  index_t classes() const {
    return classes_;
  }
  inception_pooling pooling() const {
    return pooling_;
  }
  /// Names of the layers with the extents of their weights, [out, in, height, width].
  std::map<std::string, std::vector<index_t>> layers() const {
    std::map<std::string, std::vector<index_t>> list;
    for (const auto& [name, l] : layers_)
      list.emplace(name, l.extents);
    return list;
  }

  struct result {
    std::vector<double> features;       ///< [n, 2048]
    std::vector<double> probabilities;  ///< [n, classes]
  };
  /// @param images [n, h, w, 1 or 3] in [-1, 1], host memory; they are resized to 299 x 299.
  /// @param batch pictures at a time, about 40 MB each.
  result operator()(std::span<const float> images, shape extents, index_t batch = 4) {
    const auto visit = user_.enter("inception");
    require<shape_error>(index_t(images.size()) == extents.size() &&
                             (extents.channels == 1 || extents.channels == 3),
                         "inception: ", images.size(), " values for images ", extents,
                         "; they have 1 or 3 channels");
    result r;
    const index_t size = extents.row_size();
    for (index_t first = 0; first < extents.rows; first += batch) {
      const index_t n = std::min(batch, extents.rows - first);
      shape some = extents;
      some.rows = n;
      const tensor<float, Backend> x(
          backend_, some, images.subspan(std::size_t(first * size), std::size_t(n * size)));
      runner run{*this};
      typename runner::value v = run.make({n, resolution, resolution, 3});
      backend_.for_each_index(
          n * resolution * resolution,
          inception_detail::functor::resize{x.data(), some, v->extents(), v->data()}, 64);
      v = inception_detail::describe(run, v, pooling_);
      tensor<float, Backend> mean(backend_, {n, 1, 1, feature_count});
      const index_t pixels = v->extents().height * v->extents().width;
      row_sums(backend_, n, pixels, feature_count, static_cast<const float*>(v->data()),
               mean.data(), false);
      std::vector<float> host = mean.to_host();
      for (float& f : host)
        f /= float(pixels);
      r.features.insert(r.features.end(), host.begin(), host.end());
      if (classes_ > 0)
        classify(host, n, r.probabilities);
    }
    return r;
  }

 private:
  struct layer {
    // [ky, kx, in, out], [out]
    tensor<float, Backend> weight;
    tensor<float, Backend> bias;
    std::vector<index_t> extents;  // upstream's
  };
  /// Walks the description to read weights; a value is its number of channels.
  struct reader {
    inception& owner;
    const source& from;
    using value = index_t;
    void add(const std::string& name, const std::vector<index_t>& extents, index_t spatial) {
      const std::vector<float> w = from(name + ".weight", extents);
      const std::vector<float> bias = from(name + ".bias", {extents[0]});
      const index_t out = extents[0];
      const index_t in = extents[1];
      std::vector<float> turned(w.size());
      for (index_t o = 0; o < out; ++o)
        for (index_t i = 0; i < in; ++i)
          for (index_t k = 0; k < spatial; ++k)
            turned[std::size_t((k * in + i) * out + o)] =
                w[std::size_t((o * in + i) * spatial + k)];
      owner.layers_.emplace(name, layer{{owner.backend_, {1, 1, spatial * in, out}, turned},
                                        {owner.backend_, {1, 1, 1, out}, bias},
                                        extents});
    }
    value conv(const std::string& name, value in, int out, inception_detail::window w) {
      add(name, {out, in, w.height, w.width}, index_t{w.height} * w.width);
      return out;
    }
    value max_pool(value x, int, int) {
      return x;
    }
    value average_pool(value x) {
      return x;
    }
    value concat(std::initializer_list<value> list) {
      value sum = 0;
      for (const value v : list)
        sum += v;
      return sum;
    }
  };
  /// Walks it to compute.
  struct runner {
    inception& owner;
    using value = std::shared_ptr<tensor<float, Backend>>;
    value make(shape s) const {
      return std::make_shared<tensor<float, Backend>>(owner.backend_, s);
    }

    value conv(const std::string& name, const value& x, int out, inception_detail::window w) {
      Backend& b = owner.backend_;
      const layer& l = owner.layers_.at(name);
      const shape in = x->extents();
      const value y = make({in.rows, (in.height + 2 * w.pad_y - w.height) / w.stride + 1,
                            (in.width + 2 * w.pad_x - w.width) / w.stride + 1, out});
      const index_t pixels = y->size() / out;
      const index_t terms = index_t{w.height} * w.width * in.channels;
      const float* rows = x->data();
      if (terms != in.channels) {
        float* const made = grown(owner.patches_, b, pixels * terms);
        b.for_each_index(
            pixels * w.height,
            inception_detail::functor::patches{x->data(), in, y->extents(), w, made}, 64);
        rows = made;
      }
      multiply(b, {rows, pixels, terms}, {l.weight.data(), terms, out},
               matrix_view<float>{y->data(), pixels, out});
      b.for_each_index(pixels,
                       inception_detail::functor::bias_relu{l.bias.data(), out, y->data()}, 64);
      return y;
    }
    value pool(const value& x, int stride, int padding, bool maximum) {
      const shape in = x->extents();
      const value y = make({in.rows, (in.height + 2 * padding - 3) / stride + 1,
                            (in.width + 2 * padding - 3) / stride + 1, in.channels});
      owner.backend_.for_each_index(
          y->size() / in.channels,
          inception_detail::functor::pool{x->data(), in, y->extents(), stride, padding, maximum,
                                          owner.pooling_ == inception_pooling::torchvision,
                                          y->data()},
          16);
      return y;
    }
    value max_pool(const value& x, int stride, int padding) {
      return pool(x, stride, padding, true);
    }
    value average_pool(const value& x) {
      return pool(x, 1, 1, false);
    }
    value concat(std::initializer_list<value> list) {
      shape all = (*list.begin())->extents();
      all.channels = 0;
      for (const value& v : list)
        all.channels += v->extents().channels;
      const value y = make(all);
      index_t at = 0;
      for (const value& v : list) {
        const index_t c = v->extents().channels;
        owner.backend_.for_each_index(y->size() / all.channels,
                                      inception_detail::functor::place_channels{
                                          v->data(), c, all.channels, y->data() + at},
                                      64);
        at += c;
      }
      return y;
    }
  };
  /// Softmax of the classifier. @param features [n, 2048]
  void classify(const std::vector<float>& features, index_t n, std::vector<double>& to) {
    const layer& l = layers_.at("fc");
    const tensor<float, Backend> x(backend_, {n, 1, 1, feature_count}, features);
    tensor<float, Backend> y(backend_, {n, 1, 1, classes_});
    multiply(backend_, {x.data(), n, feature_count}, {l.weight.data(), feature_count, classes_},
             matrix_view<float>{y.data(), n, classes_});
    const std::vector<float> logits = y.to_host();
    const std::vector<float> bias = l.bias.to_host();
    for (index_t r = 0; r < n; ++r) {
      std::vector<double> p;
      for (index_t c = 0; c < classes_; ++c)
        p.push_back(double(logits[std::size_t(r * classes_ + c)]) +
                    double(bias[std::size_t(c)]));
      const double most = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (double& v : p)
        sum += v = std::exp(v - most);
      for (const double v : p)
        to.push_back(v / sum);
    }
  }

  Backend backend_;
  inception_pooling pooling_;
  index_t classes_;
  std::map<std::string, layer> layers_;
  tensor<float, Backend> patches_;
  one_user user_;
};

}  // namespace multistage
