// Networks as a whole: cost at compile time, fusion and plans, gradients, mixed batches,
// threads, backends, arrangements.
#include "support.hpp"

namespace {

constexpr ms::song_unet small{.resolution = 8,
                              .channels = 2,
                              .encoder_channels = 8,
                              .channel_mult = {1, 2},
                              .num_blocks = 1,
                              .attn_resolutions = {4},
                              .norm_groups = 4};
constexpr ms::song_unet everything{.resolution = 8,
                                   .channels = 1,
                                   .encoder_channels = 8,
                                   .channel_mult = {1, 2},
                                   .num_blocks = 1,
                                   .attn_resolutions = {8},
                                   .fourier = true,
                                   .encoder_type = ms::auxiliary_path::residual,
                                   .decoder_type = ms::auxiliary_path::skip,
                                   .resample_filter = {1, 3, 3, 1},
                                   .label_dim = 3,
                                   .augment_dim = 2};
constexpr ms::song_unet input_skip{.resolution = 8,
                                   .channels = 1,
                                   .encoder_channels = 8,
                                   .channel_mult = {2, 1},
                                   .num_blocks = 2,
                                   .attn_resolutions = {4},
                                   .encoder_type = ms::auxiliary_path::skip};
constexpr ms::adm_unet adm{.resolution = 8,
                           .channels = 3,
                           .encoder_channels = 8,
                           .channel_mult = {1, 2},
                           .num_blocks = 1,
                           .attn_resolutions = {4},
                           .channels_per_head = 4,
                           .label_dim = 2};
constexpr ms::decoders three{{12, 8, 4}};

// facts.json of the golden data: the paper's CIFAR-10 networks.
constexpr ms::song_unet edm{.channel_mult = {2, 2, 2}, .attn_resolutions = {16}};
using unified = ms::unified<edm>;
using multi = ms::multi_decoder<edm, ms::decoders{{192, 128, 16}}>;
static_assert(unified::parameters == 55'732'739 && unified::macs(0) == 21'191'524'352);
static_assert(multi::parameters == 128'792'233 && multi::shared_parameters == 19'631'616);
static_assert(multi::decoder_parameters(0) == 68'284'547 &&
              multi::decoder_parameters(1) == 36'101'123 &&
              multi::decoder_parameters(2) == 4'774'947);
static_assert(multi::macs(0) == 35'751'788'544 && multi::macs(1) == 21'191'524'352 &&
              multi::macs(2) == 7'726'235'648);
static_assert(multi::stage_count == 3 && multi::depth == 3);

template <class Net>
ms::configuration configure(const Net& n, const ms::decoders& d) {
  return {n, d, {}};
}

/// A model whose weights are all random, so that no gradient vanishes by initialisation.
template <class T, class Backend>
ms::dynamic_model<T, Backend> randomized(const Backend& b,
                                         const ms::configuration& c,
                                         ms::partition p) {
  ms::dynamic_model<T, Backend> m(b, c, std::move(p), 3);
  auto w = test::normals<T>(m.weights().size(), 8);
  for (auto& v : w)
    v *= T(0.3);
  b.upload(w.data(), m.weights().data(), m.weights().size());
  return m;
}

const std::vector<double> mixed_sigmas{0.1, 5.0, 60.0, 0.3, 7.0, 0.2};
const ms::partition boundaries({1.0, 20.0});

struct labels {
  template <class T, class Backend>
  static ms::tensor<T, Backend> make(const Backend& b, ms::index_t rows, int dim) {
    return test::random_tensor<T>(b, {rows, 1, 1, std::max(dim, 1)}, 17);
  }
};

/// Loss sum(r F) and its gradient with respect to the weights.
template <class Backend>
double loss(ms::dynamic_model<double, Backend>& m,
            const ms::tensor<double, Backend>& x,
            const std::vector<double>& sigmas,
            const std::vector<double>& r,
            std::vector<double>* gradient,
            const ms::conditioning<double>& labels) {
  const auto route = m.route(sigmas);
  const auto in = m.prepare(x.data(), sigmas, route, labels).inputs;
  ms::tensor<double, Backend> g(m.backend(), m.weights().extents());
  double total = 0;
  const ms::index_t size = m.images(1).row_size();
  m.engine().differentiate(
      m.weights().data(), g.data(), in, route.rows_by_stage,
      [&](int, ms::index_t first, ms::index_t rows, const double* f, double* df) {
        std::vector<double> host(std::size_t(rows * size)), d(host.size());
        m.backend().download(f, host.data(), rows * size);
        for (ms::index_t i = 0; i < rows * size; ++i) {
          d[i] = r[route.order[first + i / size] * size + i % size];
          total += host[i] * d[i];
        }
        m.backend().upload(d.data(), df, rows * size);
      });
  if (gradient)
    *gradient = g.to_host();
  return total;
}

template <class Net, class Backend>
void check_gradient(const Net& net, const ms::decoders& d, const Backend& b) {
  auto m = randomized<double>(b, configure(net, d),
                              d.stage_count() == 3 ? boundaries : ms::partition());
  const auto x = test::random_tensor<double>(b, m.images(6), 4);
  const auto r = test::normals<double>(x.size(), 5);
  const auto classes = labels::make<double>(b, 6, net.label_dim);
  const auto augment = labels::make<double>(b, 6, net.augment_dim);
  ms::conditioning<double> given;
  if (net.label_dim)
    given.class_labels = classes.data();
  if (net.augment_dim)
    given.augment_labels = augment.data();
  std::vector<double> g;
  loss(m, x, mixed_sigmas, r, &g, given);
  for (const ms::parameter& p : m.network().parameters)
    if (!p.trainable)
      for (ms::index_t i = 0; i < p.size(); ++i)
        REQUIRE(g[p.offset + i] == 0);
  const auto weights = m.weights().to_host();
  // Fourier frequencies get no gradient, so they are left out of the comparison.
  const auto at = [&](std::vector<double> w) {
    for (const ms::parameter& p : m.network().parameters)
      if (!p.trainable)
        std::copy_n(weights.begin() + p.offset, p.size(), w.begin() + p.offset);
    b.upload(w.data(), m.weights().data(), m.weights().size());
    return loss(m, x, mixed_sigmas, r, nullptr, given);
  };
#ifdef __SANITIZE_ADDRESS__
  constexpr std::size_t some = 10;  // each takes two passes of the network, slow ones here
#else
  constexpr std::size_t some = 80;
#endif
  CHECK(test::gradient_error(weights, at, g, some) < 1e-6);
}

}  // namespace

TEMPLATE_TEST_CASE("gradients of whole networks", "", BACKENDS) {
  TestType b;
  check_gradient(small, three, b);
  check_gradient(small, ms::decoders{{8}}, b);
  check_gradient(everything, three, b);
  check_gradient(input_skip, three, b);
  check_gradient(adm, three, b);
  check_gradient(small, ms::decoders{{8, 12, 4}, false}, b);
}

TEMPLATE_TEST_CASE("a batch of mixed stages gives the rows that one stage at a time gives",
                   "",
                   BACKENDS) {
  TestType b;
  auto m = randomized<float>(b, configure(small, three), boundaries);
  const auto x = test::random_tensor<double>(b, m.images(6), 4);
  ms::tensor<double, TestType> all(b, m.images(6)), one(b, m.images(1));
  m.denoise(x.view(), mixed_sigmas, all.view());
  const auto got = all.to_host();
  const std::size_t size = std::size_t(m.images(1).row_size());
  for (std::size_t i = 0; i < 6; ++i) {
    m.denoise(x.view().rows(ms::index_t(i), 1), std::vector<double>{mixed_sigmas[i]},
              one.view());
    const auto row = one.to_host();
    for (std::size_t k = 0; k < size; ++k)
      REQUIRE(row[k] == got[i * size + k]);  // bit by bit
  }
}

TEST_CASE("results are the same bits for any number of threads") {
  std::vector<double> first_out;
  std::vector<double> first_gradient;
  for (int threads : {1, 2, 3, 8}) {
    ms::cpu b(threads);
    auto m = randomized<double>(b, configure(everything, three), boundaries);
    const auto x = test::random_tensor<double>(b, m.images(6), 4);
    const auto r = test::normals<double>(x.size(), 5);
    ms::tensor<double, ms::cpu> d(b, m.images(6));
    m.denoise(x.view(), mixed_sigmas, d.view());
    std::vector<double> g;
    loss(m, x, mixed_sigmas, r, &g, {});
    if (threads == 1)
      first_out = d.to_host(), first_gradient = g;
    CHECK(d.to_host() == first_out);
    CHECK(g == first_gradient);
  }
}

TEST_CASE("backends agree") {
  const auto run = [](auto b) {
    auto m = randomized<float>(b, configure(small, three), boundaries);
    const auto x = test::random_tensor<double>(b, m.images(6), 4);
    ms::tensor<double, decltype(b)> d(b, m.images(6));
    m.denoise(x.view(), mixed_sigmas, d.view());
    return d.to_host();
  };
  CHECK(test::distance(run(ms::thrust_cpp()), run(ms::cpu(2))) < 1e-4);
}

TEST_CASE("unified is a multi-decoder of one stage, separate shares nothing") {
  const auto one = ms::record(small, {{8}});
  const auto sep = ms::record(small, {{8, 12, 4}, false});
  CHECK(one.names.front() == "model.map_layer0.weight");
  CHECK(std::find(one.names.begin(), one.names.end(), "model.dec.8x8_aux_conv.weight") !=
        one.names.end());
  CHECK(ms::cost_of_segment(sep.structure, 0) == ms::cost{});
  for (int s = 0; s < 3; ++s) {
    ms::song_unet own = small;
    own.encoder_channels = std::array{8, 12, 4}[s];
    CHECK(ms::cost_of_segment(sep.structure, 1 + s) ==
          ms::cost_of_stage(ms::record(own, {{own.encoder_channels}}).structure, 0));
  }
  const auto multi_names = ms::record(small, three).names;
  CHECK(std::find(multi_names.begin(), multi_names.end(), "model.decs.2.4x4_in0.qkv.weight") !=
        multi_names.end());
}

TEST_CASE("the counter and the graph agree on cost and on what does not fit") {
  const auto agree = [](const auto& net, const ms::decoders& d) {
    ms::cost_counter c;
    ms::describe(c, net, d);
    ms::recorder<> b;
    ms::describe(b, net, d);
    const ms::graph g = b.finish();
    CHECK(c.problem == ms::check(g).problem);
    if (c.problem == ms::graph_problem::none)
      for (int s = 0; s < g.segments; ++s)
        CHECK(c.segments[s] == ms::cost_of_segment(g, s));
  };
  agree(small, three);
  agree(everything, three);
  agree(input_skip, three);
  agree(adm, three);
  agree(edm, ms::decoders{{192, 128, 16}});
  agree(small, ms::decoders{{8, 12, 4}, false});
  ms::song_unet odd = small;
  odd.resolution = 9;
  agree(odd, three);
  ms::adm_unet heads = adm;
  heads.channels_per_head = 3;
  agree(heads, three);
}

TEST_CASE("fusion leaves neither SiLU nor sums nor concatenations behind in the image path") {
  const ms::graph g = ms::record(small, three).structure;
  for (const ms::node& n : g.nodes) {
    CHECK_FALSE(n.is<ms::ops::concatenation>());
    CHECK_FALSE(n.is<ms::ops::row_addition>());
    CHECK_FALSE(n.is<ms::ops::addition>());
    if (n.is<ms::ops::activation<ms::silu_function>>())
      CHECK(n.out().pixels() == 1);
  }
}

TEST_CASE("a concat that something else reads gets a buffer") {
  ms::recorder<ms::name_list> b;
  ms::feature x = b.input(ms::input_slot::image, 4, 6, 6);
  b.segment(0);
  ms::feature a = b.conv(x, 3, "a");
  b.segment(1);
  ms::feature c = b.concat(a, b.conv(a, 5, "b"));
  b.output(b.conv(b.silu(c), 4, "c"));
  const ms::graph g = b.finish();
  CHECK(std::count_if(g.nodes.begin(), g.nodes.end(),
                      [](const ms::node& n) { return n.is<ms::ops::concatenation>(); }) == 1);
  CHECK(ms::check(g).problem == ms::graph_problem::none);
}

TEST_CASE("a sum of a value with itself has twice the gradient") {
  const auto gradient = [](bool twice) {
    ms::recorder<> b;
    b.segment(1);
    const ms::feature x = b.conv(b.input(ms::input_slot::image, 2, 4, 4), 3, "a");
    const ms::feature y = b.silu(x);
    b.output(b.conv(twice ? b.add(y, y) : b.scale(y, 2), 2, "b"));
    ms::executor<double, ms::cpu> e(ms::cpu(1), b.finish());
    const auto w = test::normals<double>(e.network().parameter_elements, 1);
    const auto image = test::normals<double>(32, 2);
    std::vector<double> g(w.size(), 0.0);
    ms::network_inputs<double> in;
    in[ms::input_slot::image] = image.data();
    e.differentiate(w.data(), g.data(), in, {1},
                    [](int, ms::index_t, ms::index_t, const double* f, double* df) {
                      std::copy_n(f, 32, df);
                    });
    return g;
  };
  CHECK(test::distance(gradient(true), gradient(false)) < 1e-13);
}

TEST_CASE("no two live buffers of a plan overlap") {
  for (const bool training : {false, true})
    for (const ms::graph& g :
         {ms::record(small, three).structure, ms::record(everything, three).structure,
          ms::record(adm, three).structure})
      for (const ms::segment_plan& p : ms::make_plan(g, {.training = training}).segments) {
        ms::index_t top = 0;
        for (const ms::buffer& a : p.buffers) {
          if (a.first < 0)
            continue;
          top = std::max(top, a.offset + a.size);
          if (a.shares >= 0)
            continue;
          for (const ms::buffer& b : p.buffers)
            if (&a != &b && b.first >= 0 && b.shares < 0 && a.first <= b.last &&
                b.first <= a.last)
              REQUIRE((a.offset + a.size <= b.offset || b.offset + b.size <= a.offset));
        }
        CHECK(top == p.row_elements);
      }
}

TEST_CASE("activation memory is known before running and is what is used") {
  ms::cpu b(2);
  for (const bool training : {false, true}) {
    auto m = randomized<double>(b, configure(small, three), boundaries);
    const std::vector<double> costly(
        6, 0.1);  // all rows in the widest decoder: the most that a batch of six can take
    const ms::index_t told = m.activation_bytes(6, training);
    CHECK(m.engine().arena_bytes() == 0);
    const auto x = test::random_tensor<double>(b, m.images(6), 4);
    ms::tensor<double, ms::cpu> d(b, m.images(6));
    if (training)
      loss(m, x, costly, test::normals<double>(x.size(), 5), nullptr, {});
    else
      m.denoise(x.view(), costly, d.view());
    CHECK(m.engine().arena_bytes() == told);
  }
}

TEST_CASE("plans hold the promise of small memory") {
  // One row of the paper's stage 0 network takes 62 MB in training, as measured when this was
  // written; it must not creep up.
  const ms::plan p =
      ms::make_plan(ms::record(edm, {{192, 128, 16}}).structure, {.training = true});
  CHECK(p.arena_elements(ms::index_t{1}) * 4 < 70'000'000);
}

TEST_CASE("what does not fit is refused by name") {
  const auto message = [](auto net, ms::decoders d) {
    try {
      ms::record(net, d);
    } catch (const ms::value_error& e) {
      return std::string(e.what());
    }
    return std::string("nothing");
  };
  ms::song_unet n = small;
  n.resolution = 9;
  CHECK_THAT(message(n, three), Catch::Contains("resolution 9 is not divisible by 2"));
  n = small;
  n.encoder_channels = 7;
  CHECK_THAT(message(n, three), Catch::Contains("encoder_channels = 7"));
  CHECK_THAT(message(small, ms::decoders{}), Catch::Contains("no decoder widths"));
  n = small;
  n.encoder_channels = 18;
  n.norm_groups = 4;
  CHECK_THAT(message(n, three), Catch::Contains("groups of a normalisation") &&
                                    Catch::Contains("model.enc.8x8_block0.norm0"));
  ms::adm_unet a = adm;
  a.channels_per_head = 3;
  CHECK_THAT(message(a, three), Catch::Contains("heads"));
  ms::cpu b(1);
  CHECK_THROWS_WITH(
      (ms::dynamic_model<float, ms::cpu>(b, configure(small, three), ms::partition(), 0)),
      Catch::Contains("3 decoders for a partition of 1 stages"));
  auto m = randomized<float>(b, configure(small, three), boundaries);
  ms::tensor<double, ms::cpu> x(b, {1, 9, 8, 2}), d(b, {1, 8, 8, 2});
  CHECK_THROWS_WITH(m.denoise(x.view(), std::vector<double>{1.0}, d.view()),
                    Catch::Contains("[1, 9, 8, 2]") && Catch::Contains("[1, 8, 8, 2]"));
  CHECK_THROWS_WITH(m.denoise(d.view(), std::vector<double>{0.0}, d.view()),
                    Catch::Contains("sigma of row 0 is 0"));
}
