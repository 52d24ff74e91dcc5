// Training of autoencoders: the perceptual distance against its definition written out here,
// every loss's gradient against central differences, runs that are stopped and resumed, codes
// that are revived.
#include <multistage/data/draw_moments.hpp>
#include <multistage/diffusion/decode_tiles.hpp>
#include <multistage/diffusion/latent_images.hpp>
#include <multistage/io.hpp>
#include <multistage/io/perceptual_file.hpp>
#include <multistage/training/checkpoint_autoencoder.hpp>

#include "support.hpp"

namespace {

using pictures = std::vector<double>;

/// A convolution by its definition: x [h, w, in], weight [out, in, k, k] as upstream has it.
pictures convolve(const pictures& x,
                  int height,
                  int width,
                  int in,
                  const pictures& weight,
                  const pictures& bias,
                  int kernel,
                  int stride,
                  int padding) {
  const int out = int(bias.size());
  const int rows = (height + 2 * padding - kernel) / stride + 1;
  const int columns = (width + 2 * padding - kernel) / stride + 1;
  pictures y;
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c)
      for (int o = 0; o < out; ++o) {
        double sum = bias[std::size_t(o)];
        for (int i = 0; i < in; ++i)
          for (int u = 0; u < kernel; ++u)
            for (int v = 0; v < kernel; ++v) {
              const int p = r * stride + u - padding;
              const int q = c * stride + v - padding;
              if (p >= 0 && q >= 0 && p < height && q < width)
                sum += weight[std::size_t(((o * in + i) * kernel + u) * kernel + v)] *
                       x[std::size_t((p * width + q) * in + i)];
            }
        y.push_back(sum);
      }
  return y;
}

/// The weighted distance of two feature maps by its definition.
double layer_distance(const pictures& f, const pictures& g, const pictures& weight) {
  const std::size_t channels = weight.size();
  const std::size_t pixels = f.size() / channels;
  const auto length = [&](const pictures& v, std::size_t p) {
    double square = 0;
    for (std::size_t c = 0; c < channels; ++c)
      square += std::pow(v[p * channels + c], 2);
    return std::sqrt(square);
  };
  double sum = 0;
  for (std::size_t p = 0; p < pixels; ++p)
    for (std::size_t c = 0; c < channels; ++c)
      sum += weight[c] * std::pow(f[p * channels + c] / (length(f, p) + 1e-10) -
                                      g[p * channels + c] / (length(g, p) + 1e-10),
                                  2);
  return sum / double(pixels);
}

/// Weights of any name: small numbers that depend on it.
pictures invented(const std::string& name, const std::vector<ms::index_t>& extents) {
  ms::index_t n = 1;
  for (const ms::index_t e : extents)
    n *= e;
  std::uint64_t key = 7;
  for (const char c : name)
    key = key * 31 + std::uint64_t(c);
  pictures v = test::normals<double>(n, key);
  const bool lin = name.rfind("lin", 0) == 0;  // not negative, as LPIPS has them
  const double fan = extents.size() == 4 ? std::sqrt(2.0 / double(n / extents[0])) : 0.1;
  for (double& x : v)
    x = lin ? std::fabs(x) : x * fan;
  return v;
}

/// AlexNet's features up to the second ReLU, and what is between; x in [-1, 1].
std::array<pictures, 2> alexnet_begin(const pictures& x, int height, int width) {
  const double shift[] = {-0.030, -0.088, -0.188};
  const double scale[] = {0.458, 0.448, 0.450};
  pictures in = x;
  for (std::size_t i = 0; i < in.size(); ++i)
    in[i] = (in[i] - shift[i % 3]) / scale[i % 3];
  const auto relu = [](pictures v) {
    for (double& a : v)
      a = std::max(a, 0.0);
    return v;
  };
  const pictures first =
      relu(convolve(in, height, width, 3, invented("features.0.weight", {64, 3, 11, 11}),
                    invented("features.0.bias", {64}), 11, 4, 2));
  const int h = (height + 4 - 11) / 4 + 1;
  const int w = (width + 4 - 11) / 4 + 1;
  const int ph = (h - 3) / 2 + 1;
  const int pw = (w - 3) / 2 + 1;
  pictures pooled;
  for (int r = 0; r < ph; ++r)
    for (int c = 0; c < pw; ++c)
      for (int k = 0; k < 64; ++k) {
        double most = -1e300;
        for (int u = 0; u < 3; ++u)
          for (int v = 0; v < 3; ++v)
            most = std::max(most, first[std::size_t(((2 * r + u) * w + 2 * c + v) * 64 + k)]);
        pooled.push_back(most);
      }
  return {first,
          relu(convolve(pooled, ph, pw, 64, invented("features.3.weight", {192, 64, 5, 5}),
                        invented("features.3.bias", {192}), 5, 1, 2))};
}

const ms::autoencoder small{.resolution = 16,
                            .encoder_channels = 4,
                            .channel_mult = {1, 2},
                            .num_blocks = 1,
                            .z_channels = 2,
                            .embed_dim = 2,
                            .n_embed = 12,
                            .norm_groups = 2};

ms::autoencoder with_kind(ms::latent_kind kind) {
  ms::autoencoder a = small;
  a.kind = kind;
  return a;
}

const ms::autoencoder_options brisk{.learning_rate = 1e-3,
                                    .lr_rampup_kimg = 0,
                                    .batch_size = 4,
                                    .mirror = true,
                                    .discriminator_kimg = 0.012,
                                    .discriminator_width = 4,
                                    .discriminator_layers = 2,
                                    .revive_kimg = 0.008,
                                    .seed = 5};

/// Sixteen pictures with a few colours each.
std::vector<float> some_pictures() {
  std::vector<float> v = test::normals<float>(16 * 16 * 16 * 3, 11);
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = std::tanh(0.3f * v[i] + test::normals<float>(16, 12)[i / (16 * 16 * 3)]);
  return v;
}

}  // namespace

TEST_CASE("the perceptual distance is LPIPS's, over AlexNet's first layers") {
  constexpr int height = 39;
  constexpr int width = 35;
  const ms::shape image{1, height, width, 3};
  ms::cpu b(2);
  auto net = ms::make_perceptual_network<double>(ms::perceptual_kind::alexnet, image, invented);
  CHECK(net.parts.size() == 5);
  net.parts.resize(2);  // what the reference above knows
  net.channel_weights.resize(2);
  ms::perceptual_distance<double, ms::cpu> d(b, net, image);
  pictures x = test::normals<double>(height * width * 3, 1);
  pictures y = test::normals<double>(height * width * 3, 2);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = std::tanh(x[i]), y[i] = std::tanh(0.5 * y[i] + x[i]);
  const auto of_x = alexnet_begin(x, height, width);
  const auto of_y = alexnet_begin(y, height, width);
  const double want = layer_distance(of_x[0], of_y[0], invented("lin0.weight", {64})) +
                      layer_distance(of_x[1], of_y[1], invented("lin1.weight", {192}));
  const ms::tensor<double, ms::cpu> tx(b, image, x), ty(b, image, y);
  CHECK(d(tx.view(), ty.view())[0] == Approx(want).epsilon(1e-9));
  CHECK(d(tx.view(), tx.view())[0] == 0);
}

TEST_CASE("VGG-16 has five layers of features; pictures too small for it are refused") {
  const auto net =
      ms::make_perceptual_network<double>(ms::perceptual_kind::vgg16, {1, 32, 32, 3}, invented);
  ms::index_t values = 0;
  for (const auto& p : net.parts)
    values += ms::index_t(p.weights.size());
  CHECK(values == 14'714'688);  // torchvision's vgg16().features
  CHECK(net.channel_weights.back().size() == 512);
  CHECK_THROWS_WITH(
      ms::make_perceptual_network<double>(ms::perceptual_kind::vgg16, {1, 8, 8, 3}, invented),
      Catch::Contains("8 x 8 are too small for vgg16"));
}

TEMPLATE_TEST_CASE("gradients of the perceptual distance and of the discriminator",
                   "",
                   BACKENDS) {
  TestType b;
  for (const ms::index_t channels : {1, 3}) {
    const ms::shape image{2, 8, 12, channels};
    auto d = ms::perceptual_distance<double, TestType>::of_random_convolutions(b, image, 3);
    const auto x = test::random_tensor<double>(b, image, 1);
    const auto y = test::random_tensor<double>(b, image, 2);
    ms::tensor<double, TestType> dx(b, image);
    d.differentiate(x.view(), y.view(), 2.0, dx.view());
    const auto distance_at = [&](const std::vector<double>& v) {
      const ms::tensor<double, TestType> at(b, image, v);
      const std::vector<double> rows = d(at.view(), y.view());
      return 2 * (rows[0] + rows[1]);
    };
    CHECK(test::gradient_error(x.to_host(), distance_at, dx.to_host()) < 1e-6);
  }
  const ms::shape image{2, 16, 16, 3};
  ms::discriminator<double, TestType> critic(
      b, {.resolution = 16, .channels = 3, .width = 4, .layers = 2}, 9);
  std::vector<double> w = critic.weights().to_host();
  for (double& v : w)
    v *= 8;  // away from 0, where every patch looks alike
  b.upload(w.data(), critic.weights().data(), critic.weights().size());
  const auto x = test::random_tensor<double>(b, image, 3);
  const auto y = test::random_tensor<double>(b, image, 4);
  ms::tensor<double, TestType> dy(b, image), dw(b, critic.weights().extents());
  critic.deceive(y.view(), 1, dy.view());
  const auto opinion_at = [&](const std::vector<double>& v) {
    const ms::tensor<double, TestType> at(b, image, v);
    ms::tensor<double, TestType> ignored(b, image);
    return critic.deceive(at.view(), 1, ignored.view());
  };
  CHECK(test::gradient_error(y.to_host(), opinion_at, dy.to_host()) < 1e-6);
  critic.differentiate(x.view(), y.view(), dw.data());
  const auto loss_at = [&](const std::vector<double>& v) {
    b.upload(v.data(), critic.weights().data(), critic.weights().size());
    return critic.differentiate(x.view(), y.view(), nullptr);
  };
  CHECK(test::gradient_error(w, loss_at, dw.to_host()) < 1e-6);
}

TEST_CASE("grey pictures are three channels to a network of colours") {
  const ms::shape grey{1, 39, 35, 1};
  const ms::shape colour{1, 39, 35, 3};
  ms::cpu b(2);
  const auto net =
      ms::make_perceptual_network<double>(ms::perceptual_kind::alexnet, colour, invented);
  ms::perceptual_distance<double, ms::cpu> d(b, net, grey);
  ms::perceptual_distance<double, ms::cpu> of_colour(b, net, colour);
  const auto x = test::random_tensor<double>(b, grey, 1);
  const auto y = test::random_tensor<double>(b, grey, 2);
  const auto thrice = [&](const std::vector<double>& v) {
    std::vector<double> all;
    for (const double a : v)
      all.insert(all.end(), 3, a);
    return ms::tensor<double, ms::cpu>(b, colour, all);
  };
  const auto cx = thrice(x.to_host());
  const auto cy = thrice(y.to_host());
  CHECK(d(x.view(), y.view())[0] == Approx(of_colour(cx.view(), cy.view())[0]).epsilon(1e-12));
  ms::tensor<double, ms::cpu> dx(b, grey);
  d.differentiate(x.view(), y.view(), 1, dx.view());
  CHECK(test::gradient_error(
            x.to_host(),
            [&](const std::vector<double>& v) {
              return d(ms::tensor<double, ms::cpu>(b, grey, v).view(), y.view())[0];
            },
            dx.to_host(), 12) < 1e-5);
}

TEST_CASE("the whole loss of an autoencoder: terms, gradient, adaptive weight") {
  ms::cpu b(2);
  for (const auto square : {ms::reconstruction_loss::l1, ms::reconstruction_loss::l2}) {
    ms::autoencoder_model<double, ms::cpu> m(b, with_kind(ms::latent_kind::kl), 4);
    auto distance =
        ms::perceptual_distance<double, ms::cpu>::of_random_convolutions(b, m.images(1));
    ms::discriminator<double, ms::cpu> critic(
        b, {.resolution = 16, .channels = 3, .width = 4, .layers = 2}, 9);
    ms::autoencoder_options o;
    o.reconstruction = square;
    o.perceptual_weight = 0.7;
    o.discriminator_weight = 0.6;
    ms::autoencoder_loss<double, ms::cpu> loss(b, o, &distance, &critic);
    const auto x = test::random_tensor<double>(b, m.images(2), 6);
    const auto noise = test::random_tensor<double>(b, m.latents(2), 7);
    const std::vector<double> w = m.weights().to_host();
    ms::tensor<double, ms::cpu> gradient(b, m.weights().extents());
    ms::autoencoder_terms terms;
    double of_rest = 0;
    double of_opinion = 0;
    const auto differentiate = [&](double* to) {
      return m.differentiate(x.view(), noise.view(), to, {},
                             [&](auto y, auto dy, const auto& norm) {
                               terms = loss(x.view(), y, dy, norm, true);
                               return terms.total;
                             });
    };
    const auto whole = differentiate(gradient.data());
    const ms::autoencoder_terms at_w = terms;
    CHECK(whole.loss == Approx(at_w.total + whole.latent_loss));
    CHECK(at_w.total == Approx(at_w.reconstruction + 0.7 * at_w.perceptual +
                               at_w.adaptive_weight * at_w.adversarial));
    // The terms by their definitions.
    double pixels = 0;
    for (std::size_t i = 0; i < whole.decoded.size(); ++i) {
      const double e = whole.decoded[i] - x.to_host()[i];
      pixels += square == ms::reconstruction_loss::l2 ? e * e : std::fabs(e);
    }
    CHECK(at_w.reconstruction == Approx(pixels / double(whole.decoded.size())));
    // The gradient, with the adaptive weight held: it is a number to it.
    const auto at = [&](const std::vector<double>& v) {
      b.upload(v.data(), m.weights().data(), m.weights().size());
      const double latent = differentiate(nullptr).latent_loss;
      return latent + terms.reconstruction + 0.7 * terms.perceptual +
             at_w.adaptive_weight * terms.adversarial;
    };
    CHECK(test::gradient_error(w, at, gradient.to_host()) < 2e-5);
    // The adaptive weight, from gradients of the parts by the last layer's weights.
    b.upload(w.data(), m.weights().data(), m.weights().size());
    const auto norm_of = [&](bool opinion) {
      ms::tensor<double, ms::cpu> g(b, m.weights().extents());
      m.differentiate(x.view(), noise.view(), g.data(), {},
                      [&](auto y, auto dy, const auto& norm) {
                        if (opinion) {
                          ms::ops::fill<ms::cpu, double>(b, dy, 0);
                          return critic.deceive(y, 1, dy);
                        }
                        return loss(x.view(), y, dy, norm, false).total;
                      });
      const auto host = g.to_host();
      double sum = 0;
      m.for_each_parameter(
          [&](const std::string& name, const ms::parameter& p, ms::index_t offset) {
            if (name == "decoder.conv_out.weight")
              for (ms::index_t i = 0; i < p.size(); ++i)
                sum += host[std::size_t(offset + i)] * host[std::size_t(offset + i)];
          });
      return std::sqrt(sum);
    };
    of_rest = norm_of(false);
    of_opinion = norm_of(true);
    CHECK(at_w.adaptive_weight == Approx(0.6 * of_rest / (of_opinion + 1e-4)).epsilon(1e-9));
  }
}

TEST_CASE("an autoencoder's run that was stopped and resumed equals one that was not") {
  test::directory dir;
  ms::cpu b(2);
  const std::vector<float> values = some_pictures();
  const auto images = ms::image_source::of(std::span<const float>(values), {16, 16, 16, 3});
  for (const auto kind : {ms::latent_kind::vq, ms::latent_kind::kl}) {
    ms::autoencoder_model<double, ms::cpu> whole(b, with_kind(kind), 1);
    ms::autoencoder_model<double, ms::cpu> first(b, with_kind(kind), 1);
    ms::autoencoder_model<double, ms::cpu> second(b, with_kind(kind), 2);
    ms::autoencoder_trainer t(whole, images, brisk);
    for (int i = 0; i < 8; ++i)
      t.step();
    CHECK(t.adversarial());
    ms::save(dir / "whole.safetensors", t);
    ms::autoencoder_trainer before(first, images, brisk);
    for (int i = 0; i < 5; ++i)
      before.step();
    ms::save(dir / "part.safetensors", before);
    ms::autoencoder_trainer after(second, images, brisk);
    ms::resume(dir / "part.safetensors", after);
    for (int i = 0; i < 3; ++i)
      after.step();
    ms::save(dir / "resumed.safetensors", after);
    CHECK(ms::io::read_file(dir / "whole.safetensors") ==
          ms::io::read_file(dir / "resumed.safetensors"));
    // What is read back to be used are the averages.
    auto loaded = ms::io::load_autoencoder<double>(dir / "whole.safetensors", b);
    CHECK(loaded.weights().to_host() == t.update().average().to_host());

    ms::autoencoder_options other = brisk;
    other.seed = 6;
    ms::autoencoder_trainer refused(second, images, other);
    CHECK_THROWS_WITH(ms::resume(dir / "part.safetensors", refused),
                      Catch::Contains("was trained with seed 5"));
    std::vector<float> changed = values;
    changed[7] += 0.25f;
    ms::autoencoder_trainer elsewhere(
        second, ms::image_source::of(std::span<const float>(changed), {16, 16, 16, 3}), brisk);
    CHECK_THROWS_WITH(ms::resume(dir / "part.safetensors", elsewhere),
                      Catch::Contains("was trained on other images"));
    other = brisk;
    other.perceptual_weight = 0;
    ms::autoencoder_trainer without(second, images, other);
    CHECK_THROWS_WITH(ms::resume(dir / "part.safetensors", without),
                      Catch::Contains("the perceptual distance over 'random convolutions"));
  }
}

TEST_CASE("an autoencoder's training lowers its losses, and revives codes") {
  ms::cpu b(2);
  const std::vector<float> values = some_pictures();
  const auto images = ms::image_source::of(std::span<const float>(values), {16, 16, 16, 3});
  ms::autoencoder_options o = brisk;
  o.learning_rate = 4e-3;
  o.discriminator_weight = 0;
  const auto train = [&](double revive) {
    o.revive_kimg = revive;
    ms::autoencoder_model<double, ms::cpu> m(b, small, 1);
    std::vector<double> w = m.weights().to_host();
    const std::ptrdiff_t half = small.n_embed / 2 * small.embed_dim;
    std::fill(w.end() - half, w.end(), 50.0);  // half of the codes, far from any pixel
    b.upload(w.data(), m.weights().data(), m.weights().size());
    ms::autoencoder_trainer t(m, images, o);
    std::vector<double> first, last;
    const auto result = ms::run(
        t, {.steps = 60},
        [&](const ms::loss_point& p, double) {
          (first.empty() ? first : last) = p.loss;
          return true;
        },
        0.0);
    CHECK(result.images == 240);
    CHECK(last[0] < 0.75 * first[0]);
    CHECK(last[1] < first[1]);
    CHECK(std::isnan(last[3]));  // no discriminator
    return t.codes().share_used(t.images_seen(), 40);
  };
  CHECK(train(0) <= 0.5);
  CHECK(train(0.02) > 0.9);
}

TEST_CASE("an autoencoder's weights decay, its biases and norms do not") {
  // AdamW takes rate * decay * w off each weight, apart from Adam's own step.
  ms::cpu b(2);
  const std::vector<float> values = some_pictures();
  const auto images = ms::image_source::of(std::span<const float>(values), {16, 16, 16, 3});
  ms::autoencoder_options o = brisk;
  o.lr_rampup_kimg = 0;
  std::vector<double> start;
  const auto after_one_step = [&](double decay) {
    o.adam.weight_decay = decay;
    ms::autoencoder_model<double, ms::cpu> m(b, small, 1);
    start = m.weights().to_host();
    ms::autoencoder_trainer t(m, images, o);
    t.step();
    return m.weights().to_host();
  };
  const std::vector<double> without = after_one_step(0);
  const std::vector<double> with = after_one_step(0.3);
  const ms::autoencoder_model<double, ms::cpu> of(b, small, 1);
  int decayed = 0;
  of.for_each_parameter([&](const std::string& name, const ms::parameter& p, ms::index_t at) {
    const bool rests = name.ends_with("bias") || name.find("norm") != std::string::npos;
    double worst = 0;
    for (ms::index_t i = at; i < at + p.size(); ++i) {
      const double off = rests ? 0 : o.learning_rate * 0.3 * start[std::size_t(i)];
      worst = std::max(worst, std::abs(without[std::size_t(i)] - with[std::size_t(i)] - off));
    }
    INFO(name);
    CHECK(worst < 1e-14);
    decayed += !rests;
  });
  CHECK(decayed > 5);
}

TEST_CASE("perplexity and unused codes of a codebook by hand") {
  ms::codebook_use use(4);
  const std::vector<ms::index_t> two{0, 1, 1, 0};
  CHECK(use.record(two, 10) == Approx(2));
  const std::vector<ms::index_t> uneven{0, 0, 0, 2};
  CHECK(use.record(uneven, 20) ==
        Approx(std::exp(-0.75 * std::log(0.75) - 0.25 * std::log(0.25))));
  CHECK(use.share_used(20, 5) == 0.5);    // 0 and 2
  CHECK(use.share_used(20, 15) == 0.75);  // and 1
  CHECK(use.take_unused(20, 15) == std::vector<ms::index_t>{3});
  CHECK(use.take_unused(20, 15).empty());  // it counts as used now
}

TEST_CASE("a value that is not finite stops an autoencoder's training before it changes") {
  ms::cpu b(2);
  const std::vector<float> values = some_pictures();
  const auto images = ms::image_source::of(std::span<const float>(values), {16, 16, 16, 3});
  ms::autoencoder_model<double, ms::cpu> m(b, small, 1);
  ms::autoencoder_trainer t(m, images, brisk);
  t.step();
  std::vector<double> w = m.weights().to_host();
  w[3] = std::numeric_limits<double>::infinity();
  b.upload(w.data(), m.weights().data(), m.weights().size());
  CHECK_THROWS_WITH(t.step(), Catch::Contains("not finite at step 2"));
  CHECK(t.steps() == 1);
  CHECK(m.weights().to_host()[5] == w[5]);
}

TEST_CASE("latents of a data set are the encoder's, scaled to unit spread") {
  ms::cpu b(2);
  const std::vector<float> values = some_pictures();
  auto images = ms::image_source::of(std::span<const float>(values), {16, 16, 16, 3});
  images = images.labelled(std::vector<int>(16, 1), 2);
  for (const auto kind : {ms::latent_kind::vq, ms::latent_kind::kl}) {
    const bool vq = kind == ms::latent_kind::vq;
    ms::autoencoder_model<double, ms::cpu> m(b, with_kind(kind), 1);
    const ms::tensor<double, ms::cpu> x(b, m.images(16),
                                        std::vector<double>(values.begin(), values.end()));
    ms::tensor<double, ms::cpu> gradient(b, m.weights().extents());
    const auto noise = test::random_tensor<double>(b, m.latents(16), 3);
    const auto moments =
        m.differentiate(x.view(), vq ? ms::view<const double>() : noise.view(), gradient.data())
            .moments;  // what the encoder makes, unscaled
    const double scale = ms::measure_scale_factor(m, images);
    const ms::image_source latents = ms::latent_images(m, images, 5);
    CHECK(latents.kind == (vq ? ms::image_values::latents : ms::image_values::moments));
    CHECK(latents.labels() == images.labels());
    const std::vector<ms::index_t> rows{3, 15, 3, 0, 1, 2, 7};
    const std::size_t size = std::size_t(latents.extents.row_size());
    std::vector<float> got(rows.size() * size);
    latents.read(rows, got.data());
    double worst = 0;
    for (std::size_t r = 0; r < rows.size(); ++r)
      for (std::size_t i = 0; i < size; ++i) {
        const double raw = moments[std::size_t(rows[r]) * size + i];
        const bool mean = vq || i % 4 < 2;
        const double want = mean ? raw * scale : raw + 2 * std::log(scale);
        worst = std::max(worst, std::fabs(double(got[r * size + i]) - want));
      }
    CHECK(worst < 1e-5);  // of floats up to 10
    // Draws, or the latents themselves, have a standard deviation of 1.
    std::vector<float> all(16 * size);
    latents.read_block(0, 16, all.data());
    std::vector<double> drawn;
    const ms::bound_transform draw =
        vq ? ms::image_transform().bind(latents.extents)
           : ms::image_transform(ms::draw_moments{}).bind(latents.extents);
    CHECK(draw.extents.channels == 2);
    for (int step = 0; step < 8; ++step)
      for (ms::index_t r = 0; r < 16; ++r) {
        std::vector<float> one(std::size_t(8 * 8 * 2));
        draw.apply(all.data() + std::size_t(r) * size, {4, step}, r, one.data(), nullptr);
        drawn.insert(drawn.end(), one.begin(), one.end());
      }
    double sum = 0;
    double square = 0;
    for (const double v : drawn)
      sum += v, square += v * v;
    const double mean = sum / double(drawn.size());
    CHECK(std::sqrt(square / double(drawn.size()) - mean * mean) == Approx(1).epsilon(0.02));
    // The draw that clusterings see: the same each time, of the same spread.
    const ms::image_source seen = ms::one_draw_each(latents);
    CHECK(seen.extents.channels == 2);
    CHECK(seen.kind == ms::image_values::latents);
    std::vector<float> once(std::size_t(seen.extents.size())), twice(once);
    seen.read_block(0, 16, once.data());
    seen.read_block(0, 16, twice.data());
    CHECK(once == twice);
    double spread = 0;
    for (const float v : once)
      spread += double(v) * v / double(once.size());
    CHECK(std::sqrt(spread - mean * mean) == Approx(1).epsilon(0.1));
  }
}

TEST_CASE("latents are drawn from their moments, by seed, step and row") {
  const ms::shape moments{1, 1, 2, 4};  // two pixels of two channels
  const std::vector<float> of{1, -2, 0, 2 * std::log(3.0f), 5, 6, -40, 30};
  const ms::bound_transform draw = ms::draw_moments{}.bind(moments);
  std::vector<double> sum(4, 0.0), square(4, 0.0);
  std::vector<float> one(4), again(4);
  constexpr int draws = 4000;
  for (int step = 0; step < draws; ++step) {
    draw.apply(of.data(), {7, step}, 3, one.data(), nullptr);
    for (std::size_t i = 0; i < 4; ++i) {
      sum[i] += one[i] / double(draws);
      square[i] += one[i] * double(one[i]) / draws;
    }
  }
  CHECK(sum[0] == Approx(1).margin(0.05));
  CHECK(sum[1] == Approx(-2).margin(0.15));
  CHECK(std::sqrt(square[0] - sum[0] * sum[0]) == Approx(1).epsilon(0.05));
  CHECK(std::sqrt(square[1] - sum[1] * sum[1]) == Approx(3).epsilon(0.05));
  CHECK(one[2] == Approx(5).margin(1e-5));  // clamped to e^-15
  CHECK(std::sqrt(square[3] - sum[3] * sum[3]) ==
        Approx(std::exp(10.0)).epsilon(0.05));  // and to e^10
  draw.apply(of.data(), {7, draws - 1}, 3, again.data(), nullptr);
  CHECK(one == again);
  draw.apply(of.data(), {7, draws - 1}, 4, again.data(), nullptr);
  CHECK(one != again);
  CHECK_THROWS_AS(ms::draw_moments{}.bind({1, 1, 1, 3}), ms::shape_error);
}

TEST_CASE("latents decoded in tiles are those decoded whole") {
  // A decoder in which nothing but the last layer looks beside its pixel, and latents whose
  // means and variances are the same over every even window: tiles may differ only where the
  // last layer sees their borders.
  ms::cpu b(2);
  ms::autoencoder whole_size = small;
  whole_size.kind = ms::latent_kind::kl;
  whole_size.channel_mult = {1, 1};
  whole_size.resolution = 64;
  whole_size.columns = 48;
  ms::autoencoder tile_size = whole_size;
  tile_size.resolution = 32;
  tile_size.columns = 16;
  ms::autoencoder_model<double, ms::cpu> whole(b, whole_size, 3);
  ms::autoencoder_model<double, ms::cpu> tile(b, tile_size, 4);
  std::vector<double> w = whole.weights().to_host();
  whole.for_each_parameter(
      [&](const std::string& name, const ms::parameter& p, ms::index_t offset) {
        const bool adds = name.find("conv2") != name.npos || name.find("proj_out") != name.npos;
        const bool last = name.find("decoder.conv_out") != name.npos;
        for (ms::index_t i = 0; i < p.size(); ++i)
          if (adds || (p.kernel == 3 && !last && i * 9 / p.size() != 4))
            w[std::size_t(offset + i)] = 0;  // all but the middle of the window
      });
  b.upload(w.data(), whole.weights().data(), whole.weights().size());
  b.upload(w.data(), tile.weights().data(), tile.weights().size());
  const ms::shape extents = whole.latents(2);
  std::vector<double> z(std::size_t(extents.size()));
  for (ms::index_t n = 0; n < 2; ++n)
    for (ms::index_t y = 0; y < extents.height; ++y)
      for (ms::index_t x = 0; x < extents.width; ++x)
        for (ms::index_t c = 0; c < 2; ++c) {
          // Of the four pixels of a block two are 1 and two -1, in one of two ways; the other
          // channel is the negative.
          const std::uint64_t block = std::uint64_t((n * 99 + y / 2) * 99 + x / 2);
          const bool diagonal = ms::random_stream(5, 1).uniform(block) < 0.5;
          const bool up = (diagonal ? y % 2 == x % 2 : y % 2 == 0) == (c == 0);
          z[std::size_t(((n * extents.height + y) * extents.width + x) * 2 + c)] = up ? 1 : -1;
        }
  const ms::tensor<double, ms::cpu> tz(b, extents, z);
  ms::tensor<double, ms::cpu> want(b, whole.images(2));
  whole.decode(tz.view(), want.view());
  const auto got = ms::decode_tiles<double>(tile, z, extents, 4);
  CHECK(test::distance(got, want.to_host()) < 1e-12);
  CHECK(ms::decode_tiles<double>(whole, z, extents, 4) == want.to_host());  // one tile
  CHECK_THROWS_WITH(ms::decode_tiles<double>(tile, z, extents, 5),
                    Catch::Contains("overlap = 5"));
  CHECK_THROWS_AS(ms::decode_tiles<double>(whole, z, tile.latents(6), 4), ms::shape_error);
}
