// An operation that the library does not know, defined here as a user would define it: recorded
// in a network, checked by central differences, trained, on every backend that it names.
#include "support.hpp"

namespace {

/// y = x + weight[c] sin(rate x), the weight being a parameter (after Ziyin, Hartwig and Ueda,
/// arXiv 2006.08195, whose activation for periodic functions is akin).
struct rippled {
  using backends = ms::ops::backend_list<ms::cpu, ms::eigen, ms::thrust_cpp>;

  double rate = 1;

  static constexpr ms::operation needs = ms::operation::elementwise;
  static constexpr const char* name = "rippled";
  static constexpr ms::ops::operand_names operands{"x"};

  constexpr ms::ops::description describe(const ms::ops::operand_list& in) const {
    if (!(rate > 0))
      return ms::ops::refused(ms::graph_problem::attributes, "the rate is above 0");
    ms::ops::description d = ms::ops::elementwise(in[0]);
    d.in_place = -1;  // backward reads x
    d.gradient_in_place = -1;
    d.weight = {1, 1, 1, in[0].channels};
    d.macs = d.out.size();
    d.backward_reads = 0b0001;
    d.scratch = d.out.size();
    return d;
  }

  template <class T>
  struct forward_functor {
    const T* x;
    const T* weight;
    ms::index_t channels;
    T rate;
    T* y;
    MULTISTAGE_HD void operator()(ms::index_t i) const {
      y[i] = x[i] + weight[i % channels] * std::sin(rate * x[i]);
    }
  };
  template <class Backend, class T>
  void forward(Backend& b, const ms::ops::forward_pass<T>& p) const {
    b.for_each_index(p.y.extents.size(),
                     forward_functor<T>{p.in[0].data, p.weight.data, p.y.extents.channels,
                                        T(rate), p.y.data});
  }

  template <class T>
  struct backward_functor {
    const T* x;
    const T* weight;
    const T* dy;
    ms::index_t channels;
    T rate;
    T* dx;
    bool accumulate;
    T* by_weight;
    MULTISTAGE_HD void operator()(ms::index_t i) const {
      const T slope = 1 + weight[i % channels] * rate * std::cos(rate * x[i]);
      by_weight[i] = dy[i] * std::sin(rate * x[i]);
      if (dx)
        dx[i] = accumulate ? dx[i] + dy[i] * slope : dy[i] * slope;
    }
  };
  template <class Backend, class T>
  void backward(Backend& b, const ms::ops::backward_pass<T>& p) const {
    const ms::shape& s = p.dy.extents;
    b.for_each_index(s.size(),
                     backward_functor<T>{p.in[0].data, p.weight.data, p.dy.data, s.channels,
                                         T(rate), p.dx[0].data, p.accumulate[0], p.scratch});
    if (p.dweight)
      column_sums(b, s.rows * s.pixels(), s.channels, static_cast<const T*>(p.scratch),
                  p.dweight, true);
  }
};

/// A small network with that operation in both parts.
struct rippled_net {
  double rate = 2;
  int resolution = 4;
  int columns = 0;
  int channels = 1;
  int encoder_channels = 8;
  int num_blocks = 1;
  std::array<int, 8> channel_mult{1};
  constexpr int depth() const {
    return 1;
  }
  constexpr int width() const {
    return resolution;
  }
};
template <class Builder>
constexpr ms::feature ripple(Builder& b, const rippled_net& net, ms::feature x) {
  const ms::parameter weight{.out = x.channels, .gain = 0.5};
  return b.apply(rippled{net.rate}, {x}, {"ripple", "weight", weight});
}
template <class Builder>
constexpr ms::encoded encode(Builder& b, const rippled_net& net, bool) {
  ms::encoded e;
  const ms::feature level = b.input(ms::input_slot::noise_level, 1);
  const ms::feature image = b.input(ms::input_slot::image, 1, net.resolution, net.resolution);
  e.emb = b.linear(b.embedding(level, 8, {}), net.encoder_channels, "level");
  e.x = ripple(b, net, b.add_row(b.conv(image, net.encoder_channels, "first"), e.emb));
  return e;
}
template <class Builder>
constexpr ms::feature decode(Builder& b,
                             const rippled_net& net,
                             const ms::decoder_spec& d,
                             ms::encoded e) {
  const auto names = b.scope("stage", d.stage);
  return b.conv(ripple(b, net, b.conv(e.x, d.width, "conv")), 1, "last");
}

constexpr rippled_net net{};
using own_backends = std::tuple<ms::cpu, ms::eigen, ms::thrust_cpp>;

/// Two numbers a channel more than the network without it, one image of multiply-accumulates.
using model_type = ms::multi_decoder<net, ms::decoders{8, 4}>;
static_assert(model_type::decoder_parameters(0) - model_type::decoder_parameters(1) ==
              (9 * 8 * 8 + 8 + 8 + 9 * 8) - (9 * 8 * 4 + 4 + 4 + 9 * 4));
static_assert(model_type::macs(0) - model_type::macs(1) ==
              16 * ((9 * 8 * 8 + 8 + 9 * 8) - (9 * 8 * 4 + 4 + 9 * 4)));

struct on_eigen_alone {
  using backends = ms::ops::backend_list<ms::eigen>;
  static constexpr ms::operation needs = ms::operation::elementwise;
  static constexpr const char* name = "on_eigen_alone";
  static constexpr ms::ops::operand_names operands{"x"};
  constexpr ms::ops::description describe(const ms::ops::operand_list& in) const {
    return ms::ops::elementwise(in[0]);
  }
  void forward(ms::eigen&, const ms::ops::forward_pass<float>&) const {}
  void forward(ms::eigen&, const ms::ops::forward_pass<double>&) const {}
  void backward(ms::eigen&, const ms::ops::backward_pass<float>&) const {}
  void backward(ms::eigen&, const ms::ops::backward_pass<double>&) const {}
};

}  // namespace

TEMPLATE_LIST_TEST_CASE("an operation of one's own computes what it says", "", own_backends) {
  ms::recorder<ms::name_list> b;
  const ms::feature x = b.input(ms::input_slot::image, 3, 2, 2);
  b.segment(1);
  b.output(b.apply(rippled{1.5}, {x}, {"ripple", "weight", {.out = 3, .gain = 0.25}}));
  CHECK(b.names.parameters == std::vector<std::string>{"ripple.weight"});
  const TestType backend;
  ms::executor<double, TestType> engine(backend, b.finish());
  CHECK(std::string(name_of(engine.network().nodes[1].what)) == "rippled");
  const std::vector<double> values = test::normals<double>(24, 1);
  const std::vector<double> weights{0.25, -1, 2};
  const ms::tensor<double, TestType> images(backend, {2, 2, 2, 3}, values);
  const ms::tensor<double, TestType> w(backend, {1, 1, 1, 3}, weights);
  ms::tensor<double, TestType> y(backend, {2, 2, 2, 3});
  ms::network_inputs<double> in;
  in[ms::input_slot::image] = images.data();
  engine.forward(w.data(), in, {2}, y.data());
  const std::vector<double> got = y.to_host();
  for (std::size_t i = 0; i < values.size(); ++i)
    CHECK(got[i] == Approx(values[i] + weights[i % 3] * std::sin(1.5 * values[i])));
}

TEMPLATE_LIST_TEST_CASE("its gradients are those of central differences", "", own_backends) {
  const TestType b;
  ms::dynamic_model<double, TestType> m(b, ms::configure(net, ms::decoders{8, 4}, {}),
                                        ms::partition({1.0}), 3);
  const std::vector<double> sigmas{0.1, 5.0, 0.4};
  const auto x = test::random_tensor<double>(b, m.images(3), 4);
  const std::vector<double> r = test::normals<double>(x.size(), 5);
  const auto route = m.route(sigmas);
  const auto loss = [&](const std::vector<double>& w, std::vector<double>* gradient) {
    b.upload(w.data(), m.weights().data(), m.weights().size());
    const auto in = m.prepare(x.data(), sigmas, route).inputs;
    ms::tensor<double, TestType> g(b, m.weights().extents());
    double total = 0;
    m.engine().differentiate(
        m.weights().data(), g.data(), in, route.rows_by_stage,
        [&](int, ms::index_t first, ms::index_t rows, const double* f, double* df) {
          std::vector<double> host(std::size_t(rows * 16));
          b.download(f, host.data(), rows * 16);
          b.upload(r.data() + first * 16, df, rows * 16);
          for (ms::index_t i = 0; i < rows * 16; ++i)
            total += host[std::size_t(i)] * r[std::size_t(first * 16 + i)];
        });
    if (gradient)
      *gradient = g.to_host();
    return total;
  };
  std::vector<double> w = test::normals<double>(m.weights().size(), 8);
  for (double& v : w)
    v *= 0.3;
  std::vector<double> gradient;
  loss(w, &gradient);
  CHECK(test::gradient_error(
            w, [&](const std::vector<double>& v) { return loss(v, nullptr); }, gradient) <
        1e-7);
}

TEMPLATE_LIST_TEST_CASE("a network with it learns, and is drawn from", "", own_backends) {
  std::vector<float> images(32 * 16);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = (i / 4 + i % 4 + i / 16) % 2 ? 0.8f : -0.8f;  // checkerboards of both kinds
  ms::dynamic_model<float, TestType> m(TestType(), ms::configure(net, ms::decoders{8, 4}, {}),
                                       ms::partition({1.0}), 1);
  ms::trainer<float, TestType> trainer(
      m, std::span<const float>(images), ms::shape{32, 4, 4, 1},
      ms::trainer_options{.learning_rate = 5e-3, .lr_rampup_kimg = 0, .batch_size = 32});
  const double first = trainer.step().loss[0];
  double last = 0;
  for (int i = 0; i < 150; ++i)
    last = trainer.step().loss[0];
  CHECK(last < 0.7 * first);
  const auto drawn = ms::sample(m, ms::edm_heun{.num_steps = 3}, {.seeds = "0-1"});
  CHECK(drawn.images.size() == 32);
}

TEST_CASE("what does not fit an operation of one's own is said in its words") {
  rippled_net still = net;
  still.rate = 0;
  const std::string text = test::message([&] {
    ms::dynamic_model<float, ms::cpu>(ms::cpu(1), ms::configure(still, ms::decoders{8}, {}), {},
                                      1);
  });
  CHECK_THAT(text, Catch::Contains("rippled: the rate is above 0"));
}

TEST_CASE("a backend that an operation of one's own does not name is refused") {
  ms::recorder<> b;
  const ms::feature x = b.input(ms::input_slot::image, 1, 2, 2);
  b.segment(1);
  b.output(b.apply(on_eigen_alone{}, {x}));
  const std::string text =
      test::message([&] { ms::executor<float, ms::cpu>(ms::cpu(1), b.finish()); });
  CHECK_THAT(text, Catch::Contains("on_eigen_alone") && Catch::Contains("backend cpu") &&
                       Catch::Contains("backends"));
  CHECK(test::message([&] { ms::executor<float, ms::eigen>(ms::eigen(1), b.finish()); }) ==
        "nothing");
}
