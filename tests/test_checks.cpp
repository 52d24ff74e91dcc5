// What operations and networks must refuse, and views of any strides, which must be right or
// refused: nothing gives wrong numbers in silence.
#include <array>
#include <multistage/ops/eager.hpp>
#include <multistage/ops/gaussian.hpp>
#include <multistage/ops/quantize.hpp>

#include "support.hpp"

namespace {

using Catch::Contains;
using test::message;
using test::normals;

/// A view of a column-major matrix, of every second row, of one channel: what a caller may hand
/// in.
template <class T>
ms::view<T> strided(T* data,
                    ms::index_t rows,
                    ms::index_t columns,
                    ms::index_t row,
                    ms::index_t column) {
  return {data, {rows, 1, 1, columns}, {row, row, row, column}};
}

}  // namespace

TEMPLATE_TEST_CASE("a product takes its operands with any strides", "", BACKENDS) {
  TestType b;
  {  // the case of the report: a column-major matrix times the identity
    const ms::tensor<double, TestType> a(b, {6, 1, 1, 1},
                                         std::vector<double>{1, 2, 3, 4, 5, 6}),
        one(b, {2, 1, 1, 2}, std::vector<double>{1, 0, 0, 1});
    ms::tensor<double, TestType> c(b, {3, 1, 1, 2});
    ms::ops::matmul(b, strided(a.data(), 3, 2, 1, 3), one.view(), c.view());
    CHECK(c.to_host() == std::vector<double>{1, 4, 2, 5, 3, 6});
  }
  struct layout {
    ms::index_t row;
    ms::index_t column;
  };
  // memory for strides up to wide
  const ms::index_t m = 37;
  const ms::index_t n = 53;
  const ms::index_t k = 41;
  const ms::index_t wide = 160;
  const std::vector<double> a = normals<double>(3 * wide * wide, 1);
  const std::vector<double> w = normals<double>(3 * wide * wide, 2);
  const std::vector<double> start = normals<double>(3 * wide * wide, 3);
  const layout layouts[] = {{wide, 1},  {1, wide},  {wide, 2}, {3, wide},
                            {-wide, 1}, {1, -wide}, {0, 1},    {1, 0}};
  const auto base = [](const layout& l, ms::index_t rows,
                       ms::index_t columns) {  // where element (0, 0) lies
    return (l.row < 0 ? -l.row * (rows - 1) : 0) +
           (l.column < 0 ? -l.column * (columns - 1) : 0);
  };
  for (const layout& la : layouts)
    for (const layout& lb : layouts)
      for (const layout& lc : {layouts[0], layouts[1], layouts[2], layouts[3], layouts[4]}) {
        INFO("A " << la.row << ' ' << la.column << ", B " << lb.row << ' ' << lb.column
                  << ", C " << lc.row << ' ' << lc.column);
        const ms::tensor<double, TestType> ta(b, {1, 1, 1, ms::index_t(a.size())}, a),
            tb(b, {1, 1, 1, ms::index_t(w.size())}, w);
        ms::tensor<double, TestType> tc(b, {1, 1, 1, ms::index_t(start.size())}, start);
        const ms::index_t oa = base(la, m, k);
        const ms::index_t ob = base(lb, k, n);
        const ms::index_t oc = base(lc, m, n);
        ms::ops::matmul(b, strided(ta.data() + oa, m, k, la.row, la.column),
                        strided(tb.data() + ob, k, n, lb.row, lb.column),
                        strided(tc.data() + oc, m, n, lc.row, lc.column), false, false, 2.0,
                        -0.5);
        std::vector<double> want = start;
        for (ms::index_t i = 0; i < m; ++i)
          for (ms::index_t j = 0; j < n; ++j) {
            double s = 0;
            for (ms::index_t p = 0; p < k; ++p)
              s += a[oa + i * la.row + p * la.column] * w[ob + p * lb.row + j * lb.column];
            double& to = want[oc + i * lc.row + j * lc.column];
            to = 2 * s - 0.5 * to;
          }
        REQUIRE(test::distance(tc.to_host(), want) <
                1e-13);  // and what lies between C's elements is as it was
      }
}

TEST_CASE("operations refuse operands of wrong extents or strides, naming them") {
  ms::cpu b;
  using tensor = ms::tensor<float, ms::cpu>;
  tensor x(b, {2, 4, 4, 8}), y(b, {2, 4, 4, 8}), three(b, {2, 1, 1, 3}), row(b, {2, 1, 1, 8}),
      vector(b, {1, 1, 1, 8}), statistics(b, {2, 1, 2, 2}), half(b, {2, 4, 4, 4}),
      codes(b, {1, 1, 5, 8}), other(b, {2, 4, 4, 6});
  std::vector<ms::index_t> index(32);
  const ms::view<float> one_channel(x.data(), {2, 4, 4, 1}, {128, 32, 8, 1});  // of eight
  const ms::view<float> turned(x.data(), {2, 4, 4, 8},
                               {128, 8, 32, 1});  // width and height exchanged
  const auto refuses = [](const char* what, auto&& f) {
    INFO(what);
    const std::string text = message(f);
    CHECK_THAT(text, Contains(what));
    CHECK_THROWS_AS(f(), ms::shape_error);
  };
  namespace ops = ms::ops;
  refuses("add_row: row", [&] { ops::add_row(b, x.cview(), three.cview(), y.view()); });
  refuses("add_row: x",
          [&] { ops::add_row(b, ms::view<const float>(turned), row.cview(), y.view()); });
  refuses("modulation", [&] {
    ops::group_norm(b, x.cview(), vector.cview(), vector.cview(), statistics.view(), y.view(),
                    {.groups = 2, .modulation = three.view()});
  });
  refuses("dropout: x", [&] {
    ops::dropout(b, ms::view<const float>(turned), y.view(), 0.5, ms::random_stream(1));
  });
  refuses("dropout: y",
          [&] { ops::dropout(b, x.cview(), half.view(), 0.5, ms::random_stream(1)); });
  refuses("quantize: z", [&] {
    ops::quantize(b, ms::view<const float>(turned), codes.cview(), index.data(), y.view());
  });
  refuses("quantize: codes",
          [&] { ops::quantize(b, half.cview(), codes.cview(), index.data(), half.view()); });
  refuses("quantize_backward: z", [&] {
    ops::quantize_backward(b, ms::view<const float>(turned), codes.cview(), index.data(),
                           x.cview(), x.cview(), 0.25, y.view(), {});
  });
  refuses("quantize_backward: quantized", [&] {
    ops::quantize_backward(b, x.cview(), codes.cview(), index.data(), half.cview(), x.cview(),
                           0.25, y.view(), {});
  });
  refuses("geglu_backward: dy", [&] {
    const ms::view<const float> dy(half.data(), {2, 4, 4, 4}, {64, 4, 16, 1});
    ops::geglu_backward(b, x.cview(), dy, y.view());
  });
  refuses("geglu_backward: dy",
          [&] { ops::geglu_backward(b, other.cview(), half.cview(), y.view()); });
  refuses("sum_over_pixels: x",
          [&] { ops::sum_over_pixels(b, ms::view<const float>(turned), vector.view()); });
  refuses("map_backward: x",
          [&] { ops::silu_backward(b, ms::view<const float>(turned), x.cview(), y.view()); });
  refuses("concat: x",
          [&] { ops::concat(b, ms::view<const float>(one_channel), x.cview(), y.view()); });
  refuses("gaussian_divergence: moments", [&] {
    ops::gaussian_divergence(b, ms::view<const float>(turned), static_cast<double*>(nullptr));
  });
  refuses("gaussian_divergence: moments",
          [&] { ops::gaussian_divergence(b, three.cview(), static_cast<double*>(nullptr)); });
  refuses("sample_gaussian: z", [&] {
    ops::sample_gaussian(b, x.cview(), ms::view<const float>{},
                         ms::view<float>(half.data(), {2, 4, 4, 4}, {64, 4, 16, 1}));
  });
  refuses("embedding: y", [&] {
    ops::embedding(b, ms::view<const float>(row.data(), {2, 1, 1, 1}), x.view());
  });
  refuses("conv_backward: dy", [&] {
    tensor w(b, {1, 1, 8, 8});
    ops::conv_backward(b, x.cview(), w.cview(), ms::view<const float>(turned), y.view(), {}, {},
                       {1, 1, 0});
  });
  refuses("weight is missing", [&] {
    ops::conv(b, x.cview(), ms::view<const float>{nullptr, {3, 3, 8, 8}}, y.view());
  });
}

namespace {

/// Records one thing on an image of 8 channels and a row of `wide` numbers, checks it, and
/// returns what is said of it.
template <class F>
std::string recorded(F&& f) {
  return message([&] {
    ms::recorder<ms::name_list> r;
    const ms::feature image = r.input(ms::input_slot::image, 8, 4, 4);
    r.segment(1);
    r.output(f(r, image));
    ms::detail::finish(r);
  });
}

}  // namespace

TEST_CASE("a network that would read out of bounds is refused when it is recorded") {
  using builder = ms::recorder<ms::name_list>;
  const auto level = [](builder& r) {
    return r.input(ms::input_slot::noise_level, 1);
  };
  const auto row = [&](builder& r, int wide) {
    return r.linear(level(r), wide, "row");
  };
  CHECK(recorded([&](builder& r, ms::feature x) { return r.add_row(x, row(r, 8)); }) ==
        "nothing");
  CHECK(recorded([&](builder& r, ms::feature x) {
          return r.group_norm(x, 2, 1e-5, "norm", row(r, 16));
        }) == "nothing");
  CHECK(recorded([&](builder& r, ms::feature x) { return r.divide_row(x, level(r)); }) ==
        "nothing");
  const char* const wide = "wrong width";
  CHECK_THAT(recorded([&](builder& r, ms::feature x) { return r.add_row(x, row(r, 3)); }),
             Contains(wide));
  CHECK_THAT(
      recorded([&](builder& r, ms::feature x) { return r.add_row(r.silu(x), row(r, 3)); }),
      Contains(wide));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.add_row(r.conv(x, 8, "c"), row(r, 3));
             }),
             Contains(wide));  // fused
  CHECK_THAT(recorded([&](builder& r, ms::feature x) { return r.add_row(x, x); }),
             Contains(wide));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.group_norm(x, 2, 1e-5, "norm", row(r, 3));
             }),
             Contains(wide));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) { return r.divide_row(x, row(r, 2)); }),
             Contains(wide));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.add_row(x, r.linear(r.embedding(row(r, 2), 8, {}), 8, "e"));
             }),
             Contains(wide));
  const char* const range = "out of range";
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.conv(x, 8, "c", {3, 0, 1});
             }),
             Contains(range));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.conv(x, 8, "c", {3, 1, -1});
             }),
             Contains(range));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) { return r.dropout(x, 1.0); }),
             Contains(range));
  CHECK_THAT(
      recorded([&](builder& r, ms::feature x) { return r.group_norm(x, 2, 0.0, "norm"); }),
      Contains(range));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.add_row(x, r.linear(r.embedding(level(r), 7, {}), 8, "e"));
             }),
             Contains(range));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.conv(x, 8, "c", {9, 2, 0});
             }),
             Contains("vanishes"));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.add(x, r.conv(x, 8, "c", {3, 2, 1}));
             }),
             Contains("different sizes"));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.add(x, r.input(ms::input_slot::image, 8, 2, 2));
             }),
             Contains("different extents"));
  const char* const absent = "not there for it";
  CHECK_THAT(recorded([&](builder& r, ms::feature x) { return r.add(x, {}); }),
             Contains(absent));
  CHECK_THAT(
      recorded([&](builder& r, ms::feature x) { return r.add_row(r.conv(x, 8, "c"), {}); }),
      Contains(absent));
  CHECK_THAT(recorded([&](builder& r, ms::feature) { return r.silu({}); }), Contains(absent));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.add(x, {99, 8, 4, 4});
             }),
             Contains(absent));
  {  // a result that the stages share
    builder r;
    r.output(r.silu(r.input(ms::input_slot::image, 8, 4, 4)));
    CHECK_THAT(message([&] { ms::detail::finish(r); }), Contains("its own segment"));
    CHECK_THAT(message([&] { ms::executor<float, ms::cpu>(ms::cpu(1), r.finish()); }),
               Contains("its own segment"));
  }
  CHECK_THAT(message([&] {  // another stage's feature
               builder r;
               const ms::feature image = r.input(ms::input_slot::image, 8, 4, 4);
               r.segment(1);
               const ms::feature first = r.silu(image);
               r.output(first);
               r.segment(2);
               r.output(r.gelu(first));
               ms::detail::finish(r);
             }),
             Contains(absent));
  CHECK_THAT(message([&] {  // stages with unlike results
               builder r;
               const ms::feature image = r.input(ms::input_slot::image, 8, 4, 4);
               r.segment(1);
               r.output(r.conv(image, 8, "first"));
               r.segment(2);
               r.output(r.conv(image, 4, "second"));
               ms::detail::finish(r);
             }),
             Contains("different sizes"));
  // What one decoder is refused for is said, not that its result is unlike the others'.
  CHECK_THAT(message([] {
               const ms::song_unet net{.resolution = 8,
                                       .channels = 1,
                                       .encoder_channels = 16,
                                       .channel_mult = {1, 2},
                                       .num_blocks = 1,
                                       .attn_resolutions = {},
                                       .norm_groups = 8};
               ms::record(net, ms::decoders{{20, 16}});
             }),
             Contains("groups of a normalisation") && Contains("8 and 36 channels"));
}

namespace {
/// A network whose input or result is not as its settings say.
struct wrong_extents {
  int resolution = 4;
  int columns = 0;
  int channels = 1;
  int encoder_channels = 8;
  int num_blocks = 1;
  int reads = 1;
  int returns = 1;
  std::array<int, 8> channel_mult{1};
  constexpr int depth() const {
    return 1;
  }
  constexpr int width() const {
    return resolution;
  }
};
template <class Builder>
constexpr ms::encoded encode(Builder& b, const wrong_extents& u, bool) {
  ms::encoded e;
  e.x = b.conv(b.input(ms::input_slot::image, u.reads, u.resolution, u.resolution),
               u.encoder_channels, "first");
  return e;
}
template <class Builder>
constexpr ms::feature decode(Builder& b,
                             const wrong_extents& u,
                             const ms::decoder_spec&,
                             ms::encoded e) {
  return b.conv(e.x, u.returns, "last");
}
}  // namespace

TEST_CASE("parameters must be those that an operation announces; places must exist") {
  using builder = ms::recorder<ms::name_list>;
  using namespace ms::ops;
  const ms::named_parameter three{"g", "weight", {.out = 3}};
  const ms::named_parameter eight{"g", "weight", {.out = 8}};
  const char* const announced = "announces";
  CHECK_THAT(recorded([&](builder& r, ms::feature x) { return r.apply(convolution{8}, {x}); }),
             Contains(announced));
  CHECK_THAT(
      recorded([&](builder& r, ms::feature x) { return r.apply(convolution{8}, {x}, three); }),
      Contains(announced));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.apply(group_normalisation{1, 1e-5}, {x}, eight);
             }),
             Contains(announced));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.apply(activation<ms::silu_function>{}, {x}, eight);
             }),
             Contains(announced));
  CHECK_THAT(recorded([&](builder& r, ms::feature) {
               return r.silu({77, 3, 4, 4});
             }),
             Contains("not there for it"));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.conv(x, 1, "c", {.kernel = 1, .padding = 2147483647});
             }),
             Contains("out of range"));
  CHECK_THAT(recorded([&](builder& r, ms::feature x) {
               return r.concat(x, r.input(ms::input_slot::context, 8, 2, 2));
             }),
             Contains("x2 is [2, 2, 8], expected [4, 4, 8]"));
  CHECK_THAT(message([] { builder().segment(-1); }), Contains("segment -1"));
  builder nothing;
  nothing.input(ms::input_slot::image, 1, 2, 2);
  CHECK_THAT(message([&] { ms::executor<float, ms::cpu>(ms::cpu(1), nothing.finish()); }),
             Contains("missing"));
  // Weights and rows of a pass.
  builder r;
  const ms::feature x = r.input(ms::input_slot::image, 1, 2, 2);
  r.segment(1);
  r.output(r.conv(x, 1, "c"));
  ms::executor<float, ms::cpu> engine(ms::cpu(1), r.finish());
  const std::vector<float> image(4, 1);
  std::vector<float> y(4);
  ms::network_inputs<float> in;
  in[ms::input_slot::image] = image.data();
  CHECK_THROWS_AS(engine.forward(nullptr, in, {1}, y.data()), ms::value_error);
  const std::vector<float> weights(64, 1);
  CHECK_THROWS_AS(engine.forward(weights.data(), in, {-1}, y.data()), ms::shape_error);
  CHECK_THROWS_AS(engine.forward(weights.data(), in, {1, 1}, y.data()), ms::shape_error);
}

TEST_CASE("a network must read and return images as large as its settings say") {
  const auto made = [](const auto& make) {
    return message([&] { make(); });
  };
  CHECK(made([] {
          ms::multi_decoder<wrong_extents{}, ms::decoders{8}>(ms::partition{}, ms::seed{1});
        }) == "nothing");
  CHECK_THAT(made([] {
               ms::multi_decoder<wrong_extents{.reads = 8}, ms::decoders{8}>(ms::partition{},
                                                                             ms::seed{1});
             }),
             Contains("input image"));
  CHECK_THAT(made([] {
               ms::multi_decoder<wrong_extents{.returns = 2}, ms::decoders{8}>(ms::partition{},
                                                                               ms::seed{1});
             }),
             Contains("result"));
}

TEST_CASE(
    "resampling refuses filters with which nothing can be computed, and images they do not "
    "fit") {
  ms::cpu b(1);
  ms::tensor<float, ms::cpu> x(b, {1, 4, 4, 2}), y(b, {1, 4, 4, 2}), pixel(b, {1, 1, 1, 2});
  using filter = ms::ops::resample_filter;
  for (const filter& f : {filter{.rate = 0},
                          {.rate = -2},
                          {.taps = {}},
                          {.taps = {1, -1}},
                          {.padding = 1 << 30},
                          {.rate = 1 << 30}})
    for (const bool up : {false, true}) {
      CAPTURE(f.rate, f.taps[0], f.padding, up);
      CHECK_THROWS_AS(ms::ops::resample(b, x.cview(), y.view(), f, up), ms::value_error);
      CHECK_THROWS_AS(up ? ms::upsample(x, f) : ms::downsample(x, f), ms::value_error);
      CHECK_THAT(recorded([&](ms::recorder<ms::name_list>& r, ms::feature at) {
                   return r.resample(at, f, up);
                 }),
                 Contains("out of range"));
    }
  CHECK_THROWS_AS(ms::downsample(pixel), ms::shape_error);
  CHECK_THAT(message([&] { ms::downsample(pixel); }),
             Contains("does not fit an image of 1 x 1"));
  CHECK_THAT(message([&] { ms::ops::resample(b, pixel.cview(), pixel.view(), {}, false); }),
             Contains("resample: the filter does not fit an image of 1 x 1"));
  CHECK(ms::upsample(pixel).extents() == ms::shape{1, 2, 2, 2});
  CHECK_THAT(recorded([&](ms::recorder<ms::name_list>& r, ms::feature at) {
               return r.resample(at, {.taps = {1, 1, 1, 1, 1, 1, 1}, .padding = 0}, false);
             }),
             Contains("vanishes"));
}

TEST_CASE("frames of scratch never meet, and give back what they took") {
  ms::scratch_frame outer;
  float* a = outer.take<float>(100);
  std::fill_n(a, 100, 1.0f);
  float* first = nullptr;
  for (int round = 0; round < 3; ++round) {
    ms::scratch_frame inner;
    float* b = inner.take<float>(1 << 20);  // beyond the first block
    double* c = inner.take<double>(7);
    std::fill_n(b, 1 << 20, 2.0f);
    std::fill_n(c, 7, 3.0);
    CHECK(reinterpret_cast<std::uintptr_t>(c) % 64 == 0);
    CHECK(
        (b + (1 << 20) <= reinterpret_cast<float*>(c) || reinterpret_cast<float*>(c + 7) <= b));
    if (round == 0)
      first = b;
    CHECK(b == first);  // the same memory again, without the system
  }
  for (int i = 0; i < 100; ++i)
    REQUIRE(a[i] == 1.0f);
}
