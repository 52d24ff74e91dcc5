// Networks of every family, in odd shapes: gradients of weights and inputs against differences,
// checkpointed memory, dropout, mixed batches, threads, images that are not square;
// autoencoders; starting and loading by parts.
#include <multistage/diffusion/latent.hpp>
#include <multistage/io.hpp>

#include "support.hpp"

namespace {

constexpr ms::song_unet song{.resolution = 8,
                             .channels = 3,
                             .columns = 4,
                             .encoder_channels = 8,
                             .channel_mult = {1, 2},
                             .num_blocks = 1,
                             .attn_resolutions = {4},
                             .norm_groups = 4,
                             .dropout = 0.2,
                             .shared_middle = true};
constexpr ms::adm_unet adm{.resolution = 4,
                           .channels = 1,
                           .columns = 8,
                           .encoder_channels = 8,
                           .channel_mult = {1, 2},
                           .num_blocks = 1,
                           .attn_resolutions = {2},
                           .channels_per_head = 4,
                           .label_dim = 2,
                           .dropout = 0.1};
constexpr ms::ncsnpp residual{.resolution = 8,
                              .channels = 2,
                              .encoder_channels = 8,
                              .channel_mult = {1, 2},
                              .num_blocks = 1,
                              .attn_resolutions = {4},
                              .progressive_input = ms::auxiliary_path::residual,
                              .norm_groups = 4,
                              .dropout = 0.1};
constexpr ms::ncsnpp skips{.resolution = 4,
                           .channels = 5,
                           .columns = 8,
                           .encoder_channels = 4,
                           .channel_mult = {1, 1, 2},
                           .num_blocks = 1,
                           .attn_resolutions = {2},
                           .fourier = true,
                           .output_skip = true,
                           .progressive_input = ms::auxiliary_path::skip,
                           .progressive_combine = ms::combination::cat,
                           .norm_groups = 4,
                           .scale_by_sigma = true,
                           .shared_middle = false};
constexpr ms::ncsnpp ddpm{.resolution = 6,
                          .channels = 1,
                          .encoder_channels = 8,
                          .channel_mult = {1, 2},
                          .num_blocks = 1,
                          .attn_resolutions = {3},
                          .fir = false,
                          .progressive_input = ms::auxiliary_path::residual,
                          .skip_rescale = false,
                          .resblock_type = ms::residual_block::ddpm,
                          .norm_groups = 4};
constexpr ms::ldm_unet plain_ldm{.resolution = 4,
                                 .channels = 4,
                                 .encoder_channels = 8,
                                 .channel_mult = {1, 2},
                                 .num_blocks = 1,
                                 .attn_downsample = {2},
                                 .num_head_channels = 4,
                                 .norm_groups = 4,
                                 .dropout = 0.1};
constexpr ms::ldm_unet updown{.resolution = 4,
                              .channels = 8,
                              .columns = 8,
                              .encoder_channels = 8,
                              .channel_mult = {1, 2},
                              .num_blocks = 1,
                              .attn_downsample = {1},
                              .num_head_channels = 0,
                              .num_heads = 2,
                              .norm_groups = 4,
                              .scale_shift_norm = true,
                              .resblock_updown = true,
                              .label_dim = 3,
                              .shared_middle = false};
constexpr ms::ldm_unet context{.resolution = 4,
                               .channels = 3,
                               .encoder_channels = 8,
                               .channel_mult = {1, 2},
                               .num_blocks = 1,
                               .attn_downsample = {1, 2},
                               .num_head_channels = 4,
                               .norm_groups = 4,
                               .spatial_transformer = true,
                               .context_dim = 6,
                               .context_tokens = 3,
                               .transformer_depth = 2};
constexpr ms::ldm_unet classes{.resolution = 4,
                               .channels = 6,
                               .encoder_channels = 8,
                               .channel_mult = {1, 2},
                               .num_blocks = 1,
                               .attn_downsample = {2},
                               .num_head_channels = 4,
                               .norm_groups = 4,
                               .spatial_transformer = true,
                               .context_dim = 5,
                               .label_dim = 4,
                               .class_context = true};
constexpr ms::decoders three{.widths = {12, 8, 4}};
/// Decoders that also differ in depth and attention.
constexpr ms::decoders unlike{
    .widths = {8, 8, 4},
    .blocks = {1, 3, 2},
    .attention = {ms::block_choice{true, 0b10}, ms::block_choice{}, ms::block_choice{true, 0}}};

/// A network with random weights and inputs, run by the executor alone.
template <class T, class Backend>
struct fixture {
  Backend b;
  ms::described_network net;
  ms::executor<T, Backend> engine;
  std::vector<ms::index_t> rows;
  ms::tensor<T, Backend> weights;
  std::vector<ms::tensor<T, Backend>> given;
  ms::network_inputs<T> in;
  std::optional<ms::random_stream> dropout;
  ms::index_t image_size = 0;
  ms::index_t out_size = 0;

  fixture(Backend backend,
          ms::described_network d,
          std::vector<ms::index_t> rows_by_stage,
          std::uint64_t key = 1)
      : b(backend),
        net(std::move(d)),
        engine(b, net.structure),
        rows(std::move(rows_by_stage)) {
    auto w = test::normals<T>(net.structure.parameter_elements, 8);
    for (std::size_t k = 0; k < net.structure.parameters.size();
         ++k)  // around 1 / sqrt(fan in), so that values neither vanish nor explode
      for (ms::index_t i = 0; i < net.structure.parameters[k].size(); ++i) {
        const ms::parameter& p = net.structure.parameters[k];
        w[p.offset + i] *= T(1 / std::sqrt(double(p.in) * p.kernel * p.kernel + 1));
      }
    weights = {b, {1, 1, 1, ms::index_t(w.size())}, w};
    given.reserve(std::size_t(ms::input_slot::count));  // pointers into it are kept
    for (const ms::node& n : net.structure.nodes) {
      const auto* input = n.as<ms::ops::network_input>();
      if (!input || in[input->slot])
        continue;
      auto v =
          test::normals<T>(total() * n.out().size(), key + 10 + std::uint64_t(input->slot));
      if (input->slot == ms::input_slot::noise_level)
        for (auto& x : v)
          x = std::fabs(x) + T(0.5);
      if (input->slot == ms::input_slot::image)
        image_size = n.out().size();
      given.emplace_back(b, ms::shape{total(), 1, 1, n.out().size()}, v);
      in[input->slot] = given.back().data();
    }
    out_size = net.structure.nodes[net.structure.outputs[0]].out().size();
  }
  ms::index_t total() const {
    return std::accumulate(rows.begin(), rows.end(), ms::index_t{0});
  }

  /// Loss sum(r F), its gradient by the weights and, if asked for, by the image.
  double loss(std::vector<T>* by_weights, std::vector<T>* by_image = nullptr) {
    const auto r = test::normals<T>(total() * out_size, 5);
    ms::tensor<T, Backend> g(b, weights.extents()), dx(b, {total(), 1, 1, image_size});
    double sum = 0;
    ms::differentiation<T> asked{.dropout = dropout};
    if (by_image)
      asked.input_gradients[std::size_t(ms::input_slot::image)] = dx.data();
    engine.differentiate(
        weights.data(), by_weights ? g.data() : nullptr, in, rows,
        [&](int, ms::index_t first, ms::index_t n, const T* f, T* df) {
          std::vector<T> host(std::size_t(n * out_size)),
              d(r.begin() + first * out_size, r.begin() + (first + n) * out_size);
          b.download(f, host.data(), n * out_size);
          for (std::size_t i = 0; i < host.size(); ++i)
            sum += double(host[i]) * double(d[i]);
          b.upload(d.data(), df, n * out_size);
        },
        asked);
    if (by_weights)
      *by_weights = g.to_host();
    if (by_image)
      *by_image = dx.to_host();
    return sum;
  }
  std::vector<T> forward() {
    ms::tensor<T, Backend> out(b, {total(), 1, 1, out_size});
    engine.forward(weights.data(), in, rows, out.data());
    return out.to_host();
  }
};
template <class T = double, class Backend, class Net>
fixture<T, Backend> make(Backend b,
                         const Net& net,
                         const ms::decoders& d,
                         std::vector<ms::index_t> rows) {
  return {b, ms::record(net, d), std::move(rows)};
}

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t some = 8;
#else
constexpr std::size_t some = 60;
#endif

template <class Backend, class Net>
void check(Backend b, const Net& net, const ms::decoders& d, std::vector<ms::index_t> rows) {
  auto f = make(b, net, d, rows);
  f.dropout = ms::random_stream(3, ms::purpose::dropout, 7);
  std::vector<double> g;
  std::vector<double> dx;
  f.loss(&g, &dx);
  const auto weights = f.weights.to_host();
  CHECK(test::gradient_error(
            weights,
            [&](std::vector<double> w) {
              for (const ms::parameter& p : f.net.structure.parameters)
                if (!p.trainable)
                  std::copy_n(weights.begin() + p.offset, p.size(), w.begin() + p.offset);
              b.upload(w.data(), f.weights.data(), f.weights.size());
              return f.loss(nullptr);
            },
            g, some) < 1e-6);
  b.upload(weights.data(), f.weights.data(), f.weights.size());
  ms::tensor<double, Backend>* image = nullptr;
  for (auto& t : f.given)
    if (t.data() == f.in[ms::input_slot::image])
      image = &t;
  const auto x = image->to_host();
  CHECK(test::gradient_error(
            x,
            [&](const std::vector<double>& v) {
              b.upload(v.data(), image->data(), image->size());
              return f.loss(nullptr);
            },
            dx, some) < 1e-6);
  b.upload(x.data(), image->data(), image->size());
  // Checkpointed memory is smaller and gives the same gradient.
  const ms::index_t before = f.engine.training_plan().arena_elements(f.total());
  f.engine.set_checkpointing(true);
  CHECK(f.engine.training_plan().arena_elements(f.total()) < before);
  std::vector<double> again;
  f.loss(&again);
  CHECK(test::distance(again, g) < 1e-12);
}

}  // namespace

TEMPLATE_TEST_CASE("gradients of every family by weights and image",
                   "",
                   ms::cpu,
                   ms::eigen,
                   ms::thrust_cpp) {
  TestType b;
  check(b, song, three, {2, 1, 1});
  check(b, song, unlike, {1, 2, 1});
  check(b, adm, unlike, {1, 1, 1});
  check(b, residual, three, {1, 0, 2});
  check(b, skips, ms::decoders{.widths = {8, 4}}, {1, 1});
  check(b, ddpm, three, {1, 1, 1});
  check(b, plain_ldm, three, {1, 1, 1});
  check(b, plain_ldm, unlike, {1, 1, 1});
  check(b, updown, ms::decoders{.widths = {8}}, {2});
  check(b, context, ms::decoders{.widths = {4, 8}}, {1, 1});
  check(b, classes, ms::decoders{.widths = {8, 4}, .shared_encoder = false}, {1, 1});
}

TEST_CASE("the counter and the graph agree on every family") {
  const auto agree = [](const auto& net, const ms::decoders& d) {
    ms::cost_counter c;
    ms::describe(c, net, d);
    const ms::graph g = ms::record(net, d).structure;
    for (int s = 0; s < g.segments; ++s)
      CHECK(c.segments[s] == ms::cost_of_segment(g, s));
  };
  for (const auto& d : {three, unlike}) {
    agree(song, d);
    agree(adm, d);
    agree(residual, d);
    agree(ddpm, d);
    agree(plain_ldm, d);
    agree(updown, d);
    agree(context, d);
    agree(classes, d);
  }
  agree(skips, ms::decoders{.widths = {8, 4}});
}

TEST_CASE("mixed batches, threads and batch sizes give the same bits") {
  const auto same = [](const auto& net, const ms::decoders& d) {
    std::vector<float> first_out;
    std::vector<float> first_gradient;
    for (const int threads : {1, 2, 3, 5, 8}) {
      auto f = make<float>(ms::cpu(threads), net, d, {5, 13, 15});  // 33 rows
      f.dropout = ms::random_stream(3, ms::purpose::dropout, 7);
      std::vector<float> g;
      f.loss(&g);
      const auto out = f.forward();
      if (threads == 1)
        first_out = out, first_gradient = g;
      CHECK(out == first_out);
      CHECK(g == first_gradient);
    }
    // One row alone, in its stage, gives the row that the batch gave.
    auto f = make<float>(ms::cpu(2), net, d, {5, 13, 15});
    for (const ms::index_t row : {0, 4, 5, 17, 18, 32}) {
      ms::network_inputs<float> one;
      for (const ms::node& n : f.net.structure.nodes)
        if (const auto* input = n.as<ms::ops::network_input>())
          one[input->slot] = f.in[input->slot] + row * n.out().size();
      std::vector<ms::index_t> stages(3, 0);
      stages[row < 5 ? 0 : row < 18 ? 1 : 2] = 1;
      std::vector<float> out(std::size_t(f.out_size));
      f.engine.forward(f.weights.data(), one, stages, out.data());
      CHECK(std::equal(out.begin(), out.end(), first_out.begin() + row * f.out_size));
    }
  };
  same(song, unlike);
  same(residual, three);
  same(plain_ldm, unlike);
  same(context, three);
}

TEST_CASE("no two live buffers overlap in plans of every family, checkpointed or not") {
  for (const ms::graph& g :
       {ms::record(song, unlike).structure, ms::record(residual, three).structure,
        ms::record(ddpm, three).structure, ms::record(updown, three).structure,
        ms::record(context, three).structure})
    for (const auto options : {ms::plan_options{}, ms::plan_options{.training = true},
                               ms::plan_options{.training = true, .checkpoint = true},
                               ms::plan_options{.training = true, .input_gradients = true}})
      for (const ms::segment_plan& p : ms::make_plan(g, options).segments)
        for (const ms::buffer& a : p.buffers)
          for (const ms::buffer& b : p.buffers)
            if (&a != &b && a.first >= 0 && b.first >= 0 && a.shares < 0 && b.shares < 0 &&
                a.first <= b.last && b.first <= a.last)
              REQUIRE((a.offset + a.size <= b.offset || b.offset + b.size <= a.offset));
}

TEST_CASE("dropout drops its share in training and nothing in sampling") {
  ms::song_unet net = song;
  net.dropout = 0.5;
  auto f = make(ms::cpu(2), net, three, {1, 1, 1});
  const double still = f.loss(nullptr);
  CHECK(f.loss(nullptr) == still);
  f.dropout = ms::random_stream(3, ms::purpose::dropout, 7);
  const double a = f.loss(nullptr);
  CHECK(f.loss(nullptr) == a);  // a function of the stream
  CHECK(a != still);
  f.dropout = ms::random_stream(3, ms::purpose::dropout, 8);
  CHECK(f.loss(nullptr) != a);
}

TEMPLATE_TEST_CASE("gradients of autoencoders", "", ms::cpu, ms::eigen, ms::thrust_cpp) {
  TestType b;
  for (const auto kind : {ms::latent_kind::vq, ms::latent_kind::kl}) {
    const ms::autoencoder config{.kind = kind,
                                 .resolution = 8,
                                 .channels = 2,
                                 .columns = 4,
                                 .encoder_channels = 4,
                                 .channel_mult = {1, 2},
                                 .num_blocks = 1,
                                 .attn_resolutions = {4},
                                 .z_channels = 3,
                                 .embed_dim = 2,
                                 .n_embed = 5,
                                 .norm_groups = 2,
                                 .kl_weight = 0.01};
    ms::autoencoder_model<double, TestType> m(b, config, 4);
    const auto x = test::random_tensor<double>(b, m.images(2), 6);
    const auto noise = test::random_tensor<double>(b, m.latents(2), 7);
    const auto given = kind == ms::latent_kind::kl ? noise.view() : ms::view<const double>{};
    std::vector<double> w = m.weights().to_host();
    for (double& v : w)
      v *= 1.5;
    b.upload(w.data(), m.weights().data(), m.weights().size());
    ms::tensor<double, TestType> g(b, m.weights().extents());
    const auto report = m.differentiate(x.view(), given, g.data());
    CHECK(report.loss > report.latent_loss);
    if (kind == ms::latent_kind::kl) {
      CHECK(test::gradient_error(
                w,
                [&](const std::vector<double>& v) {
                  b.upload(v.data(), m.weights().data(), m.weights().size());
                  return m.differentiate(x.view(), given, nullptr).loss;
                },
                g.to_host(), some) < 1e-6);
      continue;
    }
    // Quantisation is not differentiable: only what lies behind it can be held against
    // differences, the decoder.
    const auto host = g.to_host();
    m.for_each_parameter(
        [&](const std::string& name, const ms::parameter& p, ms::index_t offset) {
          if (name.rfind("decoder.", 0) != 0 || p.size() < 4)
            return;
          std::vector<double> at(w.begin() + offset, w.begin() + offset + p.size()),
              own(host.begin() + offset, host.begin() + offset + p.size());
          double largest = 0;
          for (const double v : own)
            largest = std::max(largest, std::fabs(v));
          if (largest < 1e-6)
            return;  // a key's bias: zero but for rounding
          CHECK(test::gradient_error(
                    at,
                    [&](const std::vector<double>& v) {
                      b.upload(v.data(), m.weights().data() + offset, p.size());
                      const double l = m.differentiate(x.view(), given, nullptr).loss;
                      b.upload(w.data() + offset, m.weights().data() + offset, p.size());
                      return l;
                    },
                    own, 2) < 1e-5);
        });
  }
}

TEST_CASE("an autoencoder measures its scale and decodes what it encodes") {
  const ms::autoencoder config{.resolution = 8,
                               .channels = 1,
                               .encoder_channels = 4,
                               .channel_mult = {1, 2},
                               .num_blocks = 1,
                               .n_embed = 16,
                               .norm_groups = 2};
  ms::cpu b(2);
  ms::autoencoder_model<float, ms::cpu> m(b, config, 4);
  const auto x = test::random_tensor<float>(b, m.images(5), 6);
  const double scale = m.measure_scale_factor(x.view());
  ms::tensor<float, ms::cpu> z(b, m.latents(5)), back(b, m.images(5)), twice(b, m.images(5));
  m.encode(x.view(), z.view());
  double mean = 0;
  double square = 0;
  for (const float v : z.to_host())
    mean += v, square += double(v) * v;
  mean /= double(z.size());
  CHECK(std::sqrt(square / double(z.size()) - mean * mean) == Approx(1).epsilon(1e-4));
  CHECK(m.scale_factor() == scale);
  m.decode(z.view(), back.view());
  m.decode(z.view(), twice.view(), false);  // codes are codes already
  CHECK(test::distance(back.to_host(), twice.to_host()) < 1e-5);
}

TEST_CASE("decoders are read from a file when their stage is first used") {
  test::directory dir;
  ms::cpu b(2);
  const ms::configuration config{residual, three, {ms::precondition::vp}};
  ms::dynamic_model<float, ms::cpu> m(b, config, ms::partition({1.0, 20.0}), 5);
  ms::save(dir / "m.safetensors", m);
  auto lazy = ms::load<float>(dir / "m.safetensors", b, {.lazy = true});
  CHECK_FALSE(lazy.has_segment(0));
  const auto x = test::random_tensor<double>(b, m.images(2), 4);
  ms::tensor<double, ms::cpu> want(b, m.images(2)), got(b, m.images(2));
  const std::vector<double> sigmas{0.5, 0.1};
  m.denoise(x.view(), sigmas, want.view());
  lazy.denoise(x.view(), sigmas, got.view());
  CHECK(got.to_host() == want.to_host());
  CHECK(lazy.has_segment(0));
  CHECK(lazy.has_segment(1));
  CHECK_FALSE(lazy.has_segment(2));
  CHECK(lazy.weights().to_host() == m.weights().to_host());
  CHECK(lazy.has_segment(3));
}

TEST_CASE("a unified checkpoint starts a multi-decoder model") {
  test::directory dir;
  ms::cpu b(2);
  const auto start = [&](const auto& net) {
    ms::dynamic_model<float, ms::cpu> one(b, {net, {.widths = {8}}, {}}, ms::partition(), 5),
        many(b, {net, three, {}}, ms::partition({1.0, 20.0}), 6);
    ms::save(dir / "one.safetensors", one);
    const auto report = ms::start_from(dir / "one.safetensors", many);
    REQUIRE(report.parts.size() == 4);
    CHECK(report.parts[0].copied == report.parts[0].total);
    CHECK(report.parts[2].copied == report.parts[2].total);  // as wide as the encoder
    CHECK(report.parts[1].copied > 0);
    CHECK(report.parts[1].copied < report.parts[1].total);
    CHECK_THAT(report.text(), Catch::Contains("encoder: "));
    // With the decoder of the encoder's width the model computes what the unified one did.
    const auto x = test::random_tensor<double>(b, many.images(1), 4);
    ms::tensor<double, ms::cpu> want(b, many.images(1)), got(b, many.images(1));
    one.denoise(x.view(), std::vector<double>{5.0}, want.view());
    many.denoise(x.view(), std::vector<double>{5.0}, got.view());
    CHECK(got.to_host() == want.to_host());
  };
  start(residual);
  start(plain_ldm);
  ms::dynamic_model<float, ms::cpu> many(b, {residual, three, {}}, ms::partition({1.0, 20.0}),
                                         6);
  CHECK_THROWS_AS(ms::start_from(dir / "one.safetensors", many),
                  ms::file_error);  // of another family
}

TEST_CASE("training with checkpoints follows training without") {
  ms::cpu b(2);
  const auto run = [&](bool checkpoint, ms::index_t memory) {
    ms::dynamic_model<double, ms::cpu> m(b, {residual, three, {ms::precondition::vp}},
                                         ms::partition({1.0, 20.0}), 5);
    auto images = test::normals<float>(m.images(8).size(), 3);
    for (float& v : images)
      v = std::tanh(v);
    ms::trainer_options o;
    o.batch_size = 6;
    o.lr_rampup_kimg = 0;
    o.checkpoint_activations = checkpoint;
    o.memory = memory;
    ms::trainer t{m, std::span<const float>(images), m.images(8), o};
    for (int i = 0; i < 3; ++i)
      t.step();
    CHECK(t.memory().activations == m.activation_bytes(6, true));
    return std::pair{m.weights().to_host(), t.memory()};
  };
  const auto [plain, all] = run(false, 0);
  const auto [again, less] = run(true, 0);
  CHECK(again == plain);
  CHECK(less.activations < all.activations);
  CHECK_FALSE(run(false, 2 * all.total()).second.checkpoint);
  CHECK_THAT(test::message([&] { run(false, 1000); }), Catch::Contains("memory = 1000"));
}

TEST_CASE("what a family lacks is named") {
  const auto refused = [](auto net, const char* what) {
    CHECK_THAT(test::message([&] { ms::record(net, {.widths = {8}}); }), Catch::Contains(what));
  };
  auto n = residual;
  n.resample_filter = {1, 2, 1};
  refused(n, "resample_filter");
  n = ddpm;
  n.fir = true;
  refused(n, "resblock_type ddpm");
  n = residual;
  n.dropout = 1;
  refused(n, "dropout");
  auto l = context;
  l.spatial_transformer = false;
  refused(l, "spatial_transformer");
  l = plain_ldm;
  l.norm_groups = 3;
  refused(l, "groups");
  auto a = song;
  a.columns = 5;
  refused(a, "columns");
}
