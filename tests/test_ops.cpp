// Every operation on every backend: forward against a direct computation in double, backward
// against central differences.
#include "support.hpp"

namespace {

using test::normals;
using vec = std::vector<double>;

/// The convolution as its definition says.
vec direct_conv(const vec& x,
                ms::shape xs,
                const vec& w,
                ms::index_t out,
                ms::ops::conv_window win) {
  win = win.resolved();
  const ms::shape ys{xs.rows, win.out(xs.height), win.out_width(xs.width), out};
  vec y(std::size_t(ys.size()));
  for (ms::index_t n = 0; n < ys.rows; ++n)
    for (ms::index_t i = 0; i < ys.height; ++i)
      for (ms::index_t j = 0; j < ys.width; ++j)
        for (int u = 0; u < win.kernel; ++u)
          for (int v = 0; v < win.kernel_width; ++v) {
            const ms::index_t p = i * win.stride + u - win.padding;
            const ms::index_t q = j * win.stride_width + v - win.padding_width;
            if (p < 0 || p >= xs.height || q < 0 || q >= xs.width)
              continue;
            for (ms::index_t c = 0; c < xs.channels; ++c)
              for (ms::index_t o = 0; o < out; ++o)
                y[((n * ys.height + i) * ys.width + j) * out + o] +=
                    x[((n * xs.height + p) * xs.width + q) * xs.channels + c] *
                    w[((u * win.kernel_width + v) * xs.channels + c) * out + o];
          }
  return y;
}

template <class Backend>
struct on {
  Backend b;
  ms::tensor<double, Backend> put(ms::shape s, const vec& v) {
    return {b, s, v};
  }
  ms::tensor<double, Backend> zeros(ms::shape s) {
    return {b, s};
  }
};

struct conv_case {
  ms::shape x;
  ms::index_t out;
  ms::ops::conv_window window;
};
const conv_case conv_cases[] = {
    {{2, 8, 8, 16}, 24, {3, 1, 1}},
    {{1, 5, 7, 9}, 11, {3, 1, 1}},
    {{3, 4, 4, 8}, 3, {3, 1, 1}},
    {{2, 6, 6, 3}, 8, {3, 1, 1}},
    {{33, 4, 4, 8}, 8, {3, 1, 1}},
    {{2, 9, 8, 5}, 6, {3, 2, 1}},
    {{2, 6, 5, 7}, 4, {1, 1, 0}},
    {{1, 9, 9, 2}, 3, {5, 1, 2}},
    {{1, 6, 6, 4}, 2, {3, 1, 3}},
    {{1, 8, 8, 3}, 2, {3, 2, 0, 1}},
    {{2, 7, 7, 1}, 1, {2, 1, 0}},
    {{2, 6, 9, 8}, 16, {1, 1, 0, -1, 7, 1, 3}},
    {{1, 9, 6, 8}, 5, {7, 1, 3, -1, 1, 1, 0}},
    {{2, 8, 7, 3}, 4, {3, 2, 1, -1, 5, 3, 0}},
    {{1, 5, 5, 9}, 8, {3, 1, 1, -1, 3, 2, 1}},
    {{2, 4, 6, 4}, 3, {1, 1, 0, -1, 1, 2, 0}},
};

}  // namespace

TEMPLATE_TEST_CASE("conv", "", BACKENDS) {
  on<TestType> d;
  for (const conv_case& c : conv_cases) {
    const ms::shape ws{c.window.kernel, c.window.resolved().kernel_width, c.x.channels, c.out};
    const ms::shape ys{c.x.rows, c.window.out(c.x.height), c.window.out_width(c.x.width),
                       c.out};
    INFO("x " << c.x << ", kernel " << c.window.kernel << "x" << c.window.kernel_width
              << ", stride " << c.window.stride << ", out " << c.out);
    const vec x = normals<double>(c.x.size(), 1);
    const vec w = normals<double>(ws.size(), 2);
    const vec r = normals<double>(ys.size(), 3);
    const auto run = [&](const vec& xv, const vec& wv) {
      auto y = d.zeros(ys);
      ms::ops::conv(d.b, d.put(c.x, xv).view(), d.put(ws, wv).view(), y.view(), c.window);
      return y.to_host();
    };
    CHECK(test::distance(run(x, w), direct_conv(x, c.x, w, c.out, c.window)) < 1e-13);
    auto dx = d.put(c.x, vec(x.size(), 0.5));
    auto dw = d.put(ws, vec(w.size(), 0.25));
    auto db = d.put({1, 1, 1, c.out}, vec(std::size_t(c.out), 0.0));
    ms::ops::conv_backward(d.b, d.put(c.x, x).view(), d.put(ws, w).view(), d.put(ys, r).view(),
                           dx.view(), dw.view(), db.view(), c.window, true);
    vec gx = dx.to_host();
    vec gw = dw.to_host();
    vec gb = db.to_host(), sums(std::size_t(c.out), 0.0);
    for (double& g : gx)
      g -= 0.5;  // accumulated onto what was there
    for (double& g : gw)
      g -= 0.25;
    for (std::size_t i = 0; i < r.size(); ++i)
      sums[i % std::size_t(c.out)] += r[i];
    CHECK(test::gradient_error(
              x, [&](const vec& v) { return test::dot(run(v, w), r); }, gx) < 1e-8);
    CHECK(test::gradient_error(
              w, [&](const vec& v) { return test::dot(run(x, v), r); }, gw) < 1e-8);
    CHECK(test::distance(gb, sums) < 1e-12);
    ms::ops::conv_backward(d.b, d.put(c.x, x).view(), d.put(ws, w).view(), d.put(ys, r).view(),
                           dx.view(), {}, {}, c.window, false);
    CHECK(test::distance(dx.to_host(), gx) < 1e-12);
  }
}

TEMPLATE_TEST_CASE("conv with two inputs, biases, residual and scale", "", BACKENDS) {
  on<TestType> d;
  for (const bool in_place : {false, true}) {
    const ms::shape xs{3, 4, 5, 6};
    const ms::shape x2s{3, 4, 5, 7};
    const ms::shape ys{3, 4, 5, 9};
    const vec x = normals<double>(xs.size(), 1);
    const vec x2 = normals<double>(x2s.size(), 2);
    const vec w = normals<double>(13 * 9, 3);
    const vec bias = normals<double>(9, 4);
    const vec row = normals<double>(27, 5);
    const vec res = normals<double>(ys.size(), 6);
    vec both;
    for (ms::index_t p = 0; p < 60; ++p) {
      both.insert(both.end(), x.begin() + p * 6, x.begin() + p * 6 + 6);
      both.insert(both.end(), x2.begin() + p * 7, x2.begin() + p * 7 + 7);
    }
    vec want = direct_conv(both, {3, 4, 5, 13}, w, 9, {1, 1, 0});
    for (std::size_t i = 0; i < want.size(); ++i)
      want[i] = 0.3 * (want[i] + bias[i % 9] + row[i / 180 * 9 + i % 9] + res[i]);
    auto tx = d.put(xs, x);
    auto tx2 = d.put(x2s, x2);
    auto tw = d.put({1, 1, 13, 9}, w);
    auto tb = d.put({1, 1, 1, 9}, bias);
    auto tr = d.put({3, 1, 1, 9}, row);
    auto tres = d.put(ys, res);
    auto y = d.zeros(ys);
    const auto cv = [](const auto& t) {
      return std::as_const(t).view();
    };
    ms::ops::conv(d.b, cv(tx), cv(tw), in_place ? tres.view() : y.view(), {1, 1, 0},
                  {cv(tx2), cv(tb), cv(tr), cv(tres), 0.3});
    CHECK(test::distance((in_place ? tres : y).to_host(), want) < 1e-13);
  }
  // the same around a 3x3 kernel (Winograd on the CPU)
  const ms::shape xs{2, 6, 5, 10};
  const ms::shape ys{2, 6, 5, 12};
  const vec x = normals<double>(xs.size(), 1);
  const vec w = normals<double>(9 * 10 * 12, 2);
  const vec bias = normals<double>(12, 3);
  const vec row = normals<double>(24, 4);
  const vec res = normals<double>(ys.size(), 5);
  vec want = direct_conv(x, xs, w, 12, {});
  for (std::size_t i = 0; i < want.size(); ++i)
    want[i] = 0.7 * (want[i] + bias[i % 12] + row[i / 360 * 12 + i % 12] + res[i]);
  const auto tx = d.put(xs, x);
  const auto tw = d.put({3, 3, 10, 12}, w);
  const auto tb = d.put({1, 1, 1, 12}, bias);
  const auto tr = d.put({2, 1, 1, 12}, row);
  const auto tres = d.put(ys, res);
  auto y = d.zeros(ys);
  ms::ops::conv(d.b, tx.view(), tw.view(), y.view(), {},
                {{}, tb.view(), tr.view(), tres.view(), 0.7});
  CHECK(test::distance(y.to_host(), want) < 1e-13);
}

TEST_CASE("Winograd in float stays within 2e-5 of the direct form") {
  // Its constants grow rounding: measured 2e-6 to 7e-6 on these shapes, where the direct form
  // has 3e-7.
  ms::cpu b;
  for (ms::index_t c : {8, 32, 96, 256}) {
    const ms::shape xs{1, 8, 8, c};
    const ms::shape ws{3, 3, c, 16};
    const vec x = normals<double>(xs.size(), 1);
    const vec w = normals<double>(ws.size(), 2);
    const ms::tensor<float, ms::cpu> tx(b, xs, std::vector<float>(x.begin(), x.end())),
        tw(b, ws, std::vector<float>(w.begin(), w.end()));
    ms::tensor<float, ms::cpu> y(b, {1, 8, 8, 16});
    ms::ops::conv(b, tx.view(), tw.view(), y.view());
    CHECK(test::distance(y.to_host(),
                         direct_conv(vec(tx.data(), tx.data() + tx.size()), xs,
                                     vec(tw.data(), tw.data() + tw.size()), 16, {})) < 2e-5);
  }
}

TEST_CASE(
    "Winograd's ways of going about large weights and small gradients give the direct form's "
    "results") {
  // In double, transformed weights of 128 x 136 channels are beyond 4 MiB: few tiles go by
  // panels of them, many by tiles; gradients of 16 x 24 channels are shared out by tiles, those
  // of 128 x 136 by blocks. Threads more than panels share a panel's tiles.
  struct {
    ms::shape x;
    ms::index_t out;
  } const cases[] = {{{2, 6, 5, 128}, 136},
                     {{1, 16, 15, 136}, 128},
                     {{5, 16, 16, 128}, 136},
                     {{9, 15, 13, 16}, 24},
                     {{2, 16, 16, 24}, 50}};
  for (const auto& c : cases) {
    const ms::shape ws{3, 3, c.x.channels, c.out};
    const ms::shape ys{c.x.rows, c.x.height, c.x.width, c.out};
    INFO("x " << c.x << ", out " << c.out);
    const vec x = normals<double>(c.x.size(), 1);
    const vec w = normals<double>(ws.size(), 2);
    const vec r = normals<double>(ys.size(), 3);
    const vec u = normals<double>(c.x.size(), 4);
    const vec v = normals<double>(ws.size(), 5);
    const vec y = direct_conv(x, c.x, w, c.out, {});
    const double along_u = test::dot(direct_conv(u, c.x, w, c.out, {}), r);
    const double along_v = test::dot(direct_conv(x, c.x, v, c.out, {}), r);
    vec of_one_thread[3];
    for (int threads : {1, 2, 5}) {
      ms::cpu b(threads);
      const ms::tensor<double, ms::cpu> tx(b, c.x, x), tw(b, ws, w), tr(b, ys, r);
      ms::tensor<double, ms::cpu> ty(b, ys), dx(b, c.x), dw(b, ws);
      ms::ops::conv(b, tx.view(), tw.view(), ty.view());
      ms::ops::conv_backward(b, tx.view(), tw.view(), tr.view(), dx.view(), dw.view(), {});
      const vec got[] = {ty.to_host(), dx.to_host(), dw.to_host()};
      // A row's result does not depend on the rows beside it, which may go another way.
      const ms::shape x1{1, c.x.height, c.x.width, c.x.channels};
      const ms::shape y1{1, ys.height, ys.width, ys.channels};
      ms::tensor<double, ms::cpu> alone(b, y1);
      ms::ops::conv(b, ms::view<const double>(tx.data(), x1), tw.view(), alone.view());
      CHECK(std::equal(alone.data(), alone.data() + alone.size(), got[0].begin()));
      CHECK(test::distance(got[0], y) < 1e-12);
      CHECK(test::dot(got[1], u) == Approx(along_u).epsilon(1e-11));
      CHECK(test::dot(got[2], v) == Approx(along_v).epsilon(1e-11));
      for (int k = 0; k < 3; ++k)
        if (threads == 1)
          of_one_thread[k] = got[k];
        else
          CHECK(got[k] == of_one_thread[k]);
    }
  }
}

TEST_CASE("conv refuses operands that do not fit") {
  ms::cpu b;
  ms::tensor<float, ms::cpu> x(b, {2, 8, 8, 4}), w(b, {3, 3, 4, 6}), y(b, {2, 8, 8, 6}),
      bad(b, {2, 8, 8, 5});
  using ms::cpu;
  CHECK_THROWS_WITH((ms::ops::conv(b, bad.view(), w.view(), y.view())),
                    Catch::Contains("weight") && Catch::Contains("[3, 3, 5, 6]"));
  CHECK_THROWS_WITH((ms::ops::conv(b, x.view(), w.view(), bad.view())),
                    Catch::Contains("weight"));
  CHECK_THROWS_WITH((ms::ops::conv(b, x.view(), w.view(), y.view(), {3, 2, 1})),
                    Catch::Contains("expected [2, 4, 4, 6]"));
  CHECK_THROWS_AS((ms::ops::conv(b, x.view(), w.view(), y.view(), {3, 0, 1})), ms::value_error);
  CHECK_THROWS_AS((ms::ops::conv(b, x.view(), w.view(), y.view(), {}, {.x2 = x.view()})),
                  ms::shape_error);
}

TEMPLATE_TEST_CASE("matmul in all transpositions", "", BACKENDS) {
  on<TestType> d;
  for (const auto& [m, n, k] : {std::array<ms::index_t, 3>{1, 1, 1},
                                {7, 5, 3},
                                {64, 48, 70},
                                {130, 33, 600},
                                {3, 100, 1100}}) {
    const vec a = normals<double>(m * k, 1);
    const vec b = normals<double>(k * n, 2);
    const vec c = normals<double>(m * n, 3);
    for (const bool ta : {false, true})
      for (const bool tb : {false, true}) {
        vec want(c.size());
        for (ms::index_t i = 0; i < m; ++i)
          for (ms::index_t j = 0; j < n; ++j) {
            double s = 0;
            for (ms::index_t p = 0; p < k; ++p)
              s += a[ta ? p * m + i : i * k + p] * b[tb ? j * k + p : p * n + j];
            want[i * n + j] = 2 * s - 0.5 * c[i * n + j];
          }
        const auto pa = d.put(ta ? ms::shape{k, 1, 1, m} : ms::shape{m, 1, 1, k}, a);
        const auto pb = d.put(tb ? ms::shape{n, 1, 1, k} : ms::shape{k, 1, 1, n}, b);
        auto pc = d.put({m, 1, 1, n}, c);
        ms::ops::matmul(d.b, pa.view(), pb.view(), pc.view(), ta, tb, 2, -0.5);
        CHECK(test::distance(pc.to_host(), want) < 1e-12);
      }
  }
}

TEMPLATE_TEST_CASE("group norm, its modulation and SiLU", "", BACKENDS) {
  on<TestType> d;
  struct norm_case {
    ms::shape x;
    ms::index_t c2;
    ms::index_t groups;
    bool silu;
    bool modulated;
  };
  for (const norm_case& c : {norm_case{{3, 4, 5, 8}, 0, 4, false, false},
                             {{2, 3, 3, 12}, 0, 3, true, false},
                             {{2, 4, 4, 10}, 6, 4, true, false},
                             {{2, 2, 3, 18}, 6, 3, true, true},
                             {{5, 1, 1, 20}, 0, 1, false, true}}) {
    const ms::index_t all = c.x.channels + c.c2;
    const ms::index_t per = all / c.groups;
    const ms::index_t pixels = c.x.pixels();
    const ms::index_t rows = c.x.rows;
    INFO("x " << c.x << " + " << c.c2 << ", groups " << c.groups << ", silu " << c.silu
              << ", modulated " << c.modulated);
    const ms::shape ys{rows, c.x.height, c.x.width, all};
    const ms::shape x2s{rows, c.x.height, c.x.width, c.c2};
    const ms::shape ps{1, 1, 1, all};
    const ms::shape ss{rows, 1, c.groups, 2};
    const ms::shape mods{rows, 1, 1, 2 * all};
    const vec x = normals<double>(c.x.size(), 1);
    const vec x2 = normals<double>(x2s.size(), 2);
    const vec w = normals<double>(all, 3);
    const vec bias = normals<double>(all, 4);
    const vec mod = normals<double>(mods.size(), 5);
    const vec r = normals<double>(ys.size(), 6);
    const auto run = [&](const vec& xv, const vec& x2v, const vec& wv, const vec& bv,
                         const vec& mv) {
      auto s = d.zeros(ss);
      auto y = d.zeros(ys);
      const auto tx = d.put(c.x, xv);
      const auto tx2 = d.put(x2s, x2v);
      const auto tw = d.put(ps, wv);
      const auto tb = d.put(ps, bv);
      const auto tm = d.put(mods, mv);
      ms::ops::norm_options<double> o{c.groups, 1e-5, c.silu};
      if (c.c2)
        o.x2 = tx2.view();
      if (c.modulated)
        o.modulation = tm.view();
      ms::ops::group_norm(d.b, tx.view(), tw.view(), tb.view(), s.view(), y.view(), o);
      return y.to_host();
    };
    // The definition.
    vec want(r.size());
    const auto at = [&](ms::index_t n, ms::index_t p, ms::index_t k) {
      return k < c.x.channels ? x[(n * pixels + p) * c.x.channels + k]
                              : x2[(n * pixels + p) * c.c2 + k - c.x.channels];
    };
    for (ms::index_t n = 0; n < rows; ++n)
      for (ms::index_t g = 0; g < c.groups; ++g) {
        double mean = 0;
        double var = 0;
        for (ms::index_t p = 0; p < pixels; ++p)
          for (ms::index_t k = g * per; k < (g + 1) * per; ++k)
            mean += at(n, p, k) / double(per * pixels);
        for (ms::index_t p = 0; p < pixels; ++p)
          for (ms::index_t k = g * per; k < (g + 1) * per; ++k)
            var += std::pow(at(n, p, k) - mean, 2) / double(per * pixels);
        for (ms::index_t p = 0; p < pixels; ++p)
          for (ms::index_t k = g * per; k < (g + 1) * per; ++k) {
            double z = (at(n, p, k) - mean) / std::sqrt(var + 1e-5) * w[k] + bias[k];
            if (c.modulated)
              z = z * (1 + mod[n * 2 * all + k]) + mod[n * 2 * all + all + k];
            want[(n * pixels + p) * all + k] = c.silu ? z / (1 + std::exp(-z)) : z;
          }
      }
    CHECK(test::distance(run(x, x2, w, bias, mod), want) < 1e-12);
    auto s = d.zeros(ss);
    auto y = d.zeros(ys);
    auto dx = d.put(c.x, vec(x.size(), 1.0));
    auto dx2 = d.put(x2s, vec(x2.size(), 2.0));
    auto dw = d.put(ps, vec(w.size(), 3.0));
    auto db = d.put(ps, vec(w.size(), 4.0));
    auto dm = d.zeros(mods);
    auto partials = d.zeros(mods);
    const auto tx = d.put(c.x, x);
    const auto tx2 = d.put(x2s, x2);
    const auto tw = d.put(ps, w);
    const auto tb = d.put(ps, bias);
    const auto tm = d.put(mods, mod);
    const auto tr = d.put(ys, r);
    ms::ops::norm_options<double> o{c.groups, 1e-5, c.silu};
    if (c.c2)
      o.x2 = tx2.view();
    if (c.modulated)
      o.modulation = tm.view();
    ms::ops::group_norm(d.b, tx.view(), tw.view(), tb.view(), s.view(), y.view(), o);
    ms::ops::group_norm_backward(
        d.b, tx.view(), tw.view(), tb.view(), s.view(), o,
        {tr.data(), dx.data(), true, c.c2 ? dx2.data() : nullptr, true, dw.data(), db.data(),
         c.modulated ? dm.data() : nullptr, false, partials.data()});
    const auto minus = [](vec v, double k) {
      for (double& e : v)
        e -= k;
      return v;
    };
    CHECK(test::gradient_error(
              x, [&](const vec& v) { return test::dot(run(v, x2, w, bias, mod), r); },
              minus(dx.to_host(), 1)) < 1e-7);
    if (c.c2)
      CHECK(test::gradient_error(
                x2, [&](const vec& v) { return test::dot(run(x, v, w, bias, mod), r); },
                minus(dx2.to_host(), 2)) < 1e-7);
    CHECK(test::gradient_error(
              w, [&](const vec& v) { return test::dot(run(x, x2, v, bias, mod), r); },
              minus(dw.to_host(), 3)) < 1e-7);
    CHECK(test::gradient_error(
              bias, [&](const vec& v) { return test::dot(run(x, x2, w, v, mod), r); },
              minus(db.to_host(), 4)) < 1e-7);
    if (c.modulated)
      CHECK(test::gradient_error(
                mod, [&](const vec& v) { return test::dot(run(x, x2, w, bias, v), r); },
                dm.to_host()) < 1e-7);
  }
  ms::tensor<double, TestType> x(d.b, {1, 2, 2, 6}), w(d.b, {1, 1, 1, 6}), s(d.b, {1, 1, 4, 2});
  CHECK_THROWS_WITH((ms::ops::group_norm(d.b, x.view(), w.view(), w.view(), s.view(), x.view(),
                                         {.groups = 4})),
                    Catch::Contains("do not divide"));
}

TEMPLATE_TEST_CASE("layer norm", "", BACKENDS) {
  on<TestType> d;
  const ms::shape xs{2, 3, 1, 7};
  const ms::shape ps{1, 1, 1, 7};
  const ms::shape ss{6, 1, 1, 2};
  const vec x = normals<double>(xs.size(), 1);
  const vec w = normals<double>(7, 2);
  const vec bias = normals<double>(7, 3);
  const vec r = normals<double>(xs.size(), 4);
  const auto tw = d.put(ps, w);
  const auto tb = d.put(ps, bias);
  auto s = d.zeros(ss);
  const auto run = [&](const vec& v) {
    auto y = d.zeros(xs);
    ms::ops::layer_norm(d.b, d.put(xs, v).view(), tw.view(), tb.view(), s.view(), y.view());
    return y.to_host();
  };
  vec want(x.size());
  for (int t = 0; t < 6; ++t) {
    double mean = 0;
    double var = 0;
    for (int c = 0; c < 7; ++c)
      mean += x[t * 7 + c] / 7;
    for (int c = 0; c < 7; ++c)
      var += std::pow(x[t * 7 + c] - mean, 2) / 7;
    for (int c = 0; c < 7; ++c)
      want[t * 7 + c] = (x[t * 7 + c] - mean) / std::sqrt(var + 1e-5) * w[c] + bias[c];
  }
  CHECK(test::distance(run(x), want) < 1e-13);
  auto dx = d.zeros(xs);
  auto partials = d.zeros({6, 1, 1, 14});
  const auto tx = d.put(xs, x);
  const auto tr = d.put(xs, r);
  ms::ops::layer_norm_backward(d.b, tx.view(), tw.view(), tb.view(), s.view(),
                               {.dy = tr.data(), .dx = dx.data(), .partials = partials.data()});
  CHECK(test::gradient_error(
            x, [&](const vec& v) { return test::dot(run(v), r); }, dx.to_host()) < 1e-8);
}

TEMPLATE_TEST_CASE("attention", "", BACKENDS) {
  on<TestType> d;
  struct attention_case {
    ms::index_t rows;
    ms::index_t queries;
    ms::index_t keys;
    ms::index_t channels;
    ms::index_t heads;
  };
  for (const attention_case& c :
       {attention_case{2, 5, 5, 8, 1}, {1, 3, 7, 12, 3}, {2, 70, 70, 6, 2}, {1, 1, 1, 4, 4}}) {
    const ms::shape qs{c.rows, c.queries, 1, c.channels};
    const ms::shape ks{c.rows, c.keys, 1, c.channels};
    const ms::shape ls{c.rows, c.heads, c.queries, 1};
    const ms::index_t dim = c.channels / c.heads;
    const vec q = normals<double>(qs.size(), 1);
    const vec k = normals<double>(ks.size(), 2);
    const vec v = normals<double>(ks.size(), 3);
    const vec r = normals<double>(qs.size(), 4);
    const auto run = [&](const vec& qv, const vec& kv, const vec& vv) {
      auto y = d.zeros(qs);
      ms::ops::attention(d.b, d.put(qs, qv).view(), d.put(ks, kv).view(), d.put(ks, vv).view(),
                         y.view(), c.heads);
      return y.to_host();
    };
    vec want(q.size());
    for (ms::index_t n = 0; n < c.rows; ++n)
      for (ms::index_t h = 0; h < c.heads; ++h)
        for (ms::index_t i = 0; i < c.queries; ++i) {
          vec weight(std::size_t(c.keys), 0.0);
          double sum = 0;
          for (ms::index_t j = 0; j < c.keys; ++j) {
            double s = 0;
            for (ms::index_t e = 0; e < dim; ++e)
              s += q[(n * c.queries + i) * c.channels + h * dim + e] *
                   k[(n * c.keys + j) * c.channels + h * dim + e];
            sum += weight[j] = std::exp(s / std::sqrt(double(dim)));
          }
          for (ms::index_t j = 0; j < c.keys; ++j)
            for (ms::index_t e = 0; e < dim; ++e)
              want[(n * c.queries + i) * c.channels + h * dim + e] +=
                  weight[j] / sum * v[(n * c.keys + j) * c.channels + h * dim + e];
        }
    CHECK(test::distance(run(q, k, v), want) < 1e-12);
    auto y = d.zeros(qs);
    auto dq = d.zeros(qs);
    auto dk = d.zeros(ks);
    auto dv = d.zeros(ks);
    auto lse = d.zeros(ls);
    const auto tq = d.put(qs, q);
    const auto tk = d.put(ks, k);
    const auto tv = d.put(ks, v);
    const auto tr = d.put(qs, r);
    ms::ops::attention(d.b, tq.view(), tk.view(), tv.view(), y.view(), c.heads, lse.view());
    ms::ops::attention_backward(d.b, tq.view(), tk.view(), tv.view(), y.view(), c.heads,
                                lse.view(), tr.view(), dq.view(), dk.view(), dv.view());
    CHECK(test::gradient_error(
              q, [&](const vec& a) { return test::dot(run(a, k, v), r); }, dq.to_host()) <
          1e-6);
    CHECK(test::gradient_error(
              k, [&](const vec& a) { return test::dot(run(q, a, v), r); }, dk.to_host()) <
          1e-6);
    CHECK(test::gradient_error(
              v, [&](const vec& a) { return test::dot(run(q, k, a), r); }, dv.to_host()) <
          1e-6);
  }
}

TEMPLATE_TEST_CASE("resample", "", BACKENDS) {
  on<TestType> d;
  struct resample_case {
    ms::ops::resample_filter filter;
    ms::shape x;
  };
  for (const resample_case& c : {resample_case{{}, {2, 6, 4, 3}},
                                 {{{1, 3, 3, 1}}, {1, 8, 6, 5}},
                                 {{{1, 3, 3, 1}, 0}, {1, 8, 8, 2}},
                                 {{{1, 2, 1}}, {1, 6, 6, 1}},
                                 {{{1, 4, 6, 4, 1}}, {1, 8, 8, 2}}})
    for (const bool up : {false, true}) {
      const int k = c.filter.size();
      const int p = c.filter.pad();
      double sum = 0;
      for (int i = 0; i < k; ++i)
        sum += c.filter.taps[i];
      const ms::shape ys{c.x.rows, up ? c.filter.up(c.x.height) : c.filter.down(c.x.height),
                         up ? c.filter.up(c.x.width) : c.filter.down(c.x.width), c.x.channels};
      INFO("x " << c.x << " -> " << ys << ", taps " << k);
      const vec x = normals<double>(c.x.size(), 1);
      const vec r = normals<double>(ys.size(), 2);
      const auto run = [&](const vec& v) {
        auto y = d.zeros(ys);
        ms::ops::resample(d.b, d.put(c.x, v).view(), y.view(), c.filter, up);
        return y.to_host();
      };
      vec want(r.size());
      for (ms::index_t n = 0; n < ys.rows; ++n)
        for (ms::index_t i = 0; i < (up ? c.x : ys).height; ++i)
          for (ms::index_t j = 0; j < (up ? c.x : ys).width; ++j)
            for (int u = 0; u < k; ++u)
              for (int v = 0; v < k; ++v)
                for (ms::index_t ch = 0; ch < ys.channels; ++ch) {
                  // in the larger image
                  const ms::index_t bi = 2 * i + u - p;
                  const ms::index_t bj = 2 * j + v - p;
                  const ms::shape& large = up ? ys : c.x;
                  if (bi < 0 || bj < 0 || bi >= large.height || bj >= large.width)
                    continue;
                  const ms::index_t small_at =
                      ((n * (up ? c.x : ys).height + i) * (up ? c.x : ys).width + j) *
                          ys.channels +
                      ch;
                  const ms::index_t large_at =
                      ((n * large.height + bi) * large.width + bj) * ys.channels + ch;
                  const double f = double(c.filter.taps[u]) * c.filter.taps[v] / (sum * sum);
                  if (up)
                    want[large_at] += 4 * f * x[small_at];
                  else
                    want[small_at] += f * x[large_at];
                }
      CHECK(test::distance(run(x), want) < 1e-14);
      auto dx = d.put(c.x, vec(x.size(), 2.0));
      ms::ops::resample_backward(d.b, d.put(ys, r).view(), dx.view(), c.filter, up, true);
      vec g = dx.to_host();
      for (double& e : g)
        e -= 2;
      CHECK(test::gradient_error(
                x, [&](const vec& v) { return test::dot(run(v), r); }, g) < 1e-8);
    }
}

TEMPLATE_TEST_CASE("elementwise operations", "", BACKENDS) {
  on<TestType> d;
  const ms::shape s{2, 3, 2, 5};
  const vec x = normals<double>(s.size(), 1);
  const vec r = normals<double>(s.size(), 2);
  const auto tx = d.put(s, x);
  const auto tr = d.put(s, r);
  const auto check = [&](auto forward, auto backward, auto definition) {
    const auto run = [&](const vec& v) {
      auto y = d.zeros(s);
      forward(d.put(s, v), y);
      return y.to_host();
    };
    vec want(x.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      want[i] = definition(x[i]);
    CHECK(test::distance(run(x), want) < 1e-14);
    auto dx = d.zeros(s);
    backward(dx, false);
    backward(dx, true);
    vec g = dx.to_host();
    for (double& e : g)
      e /= 2;
    CHECK(test::gradient_error(
              x, [&](const vec& v) { return test::dot(run(v), r); }, g) < 1e-8);
  };
  check([&](const auto& a, auto& y) { ms::ops::silu(d.b, a.view(), y.view()); },
        [&](auto& g, bool more) {
          ms::ops::silu_backward(d.b, tx.view(), tr.view(), g.view(), more);
        },
        [](double v) { return v / (1 + std::exp(-v)); });
  check([&](const auto& a, auto& y) { ms::ops::gelu(d.b, a.view(), y.view()); },
        [&](auto& g, bool more) {
          ms::ops::gelu_backward(d.b, tx.view(), tr.view(), g.view(), more);
        },
        [](double v) { return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))); });

  auto y = d.zeros(s);
  ms::ops::linear_combination<TestType, double>(d.b, s.size(), y.data(),
                                                {{2, tx.data()}, {-3, tr.data()}});
  const vec sum = y.to_host();
  for (std::size_t i = 0; i < x.size(); ++i)
    REQUIRE(sum[i] == Approx(2 * x[i] - 3 * r[i]));

  const vec row = normals<double>(10, 3);
  const vec more = normals<double>(2 * 6 * 3, 4);
  const auto trow = d.put({2, 1, 1, 5}, row);
  const auto tmore = d.put({2, 3, 2, 3}, more);
  ms::ops::add_row(d.b, tx.view(), trow.view(), y.view());
  CHECK(y.to_host()[37] == Approx(x[37] + row[5 + 37 % 5]));
  auto both = d.zeros({2, 3, 2, 8});
  auto part = d.zeros({2, 3, 2, 3});
  ms::ops::concat(d.b, tx.view(), tmore.view(), both.view());
  CHECK(both.to_host()[8 * 4 + 2] == x[4 * 5 + 2]);
  ms::ops::split(d.b, both.view(), 5, part.view());
  CHECK(part.to_host() == more);
  CHECK_THROWS_AS((ms::ops::split(d.b, both.view(), 6, part.view())), ms::shape_error);
}

TEMPLATE_TEST_CASE("linear", "", BACKENDS) {
  on<TestType> d;
  const vec x = normals<double>(3 * 4, 1);
  const vec w = normals<double>(4 * 6, 2);
  const vec bias = normals<double>(6, 3);
  const vec r = normals<double>(18, 4);
  const auto tx = d.put({3, 1, 1, 4}, x);
  const auto tw = d.put({1, 1, 4, 6}, w);
  const auto tb = d.put({1, 1, 1, 6}, bias);
  const auto tr = d.put({3, 1, 1, 6}, r);
  auto y = d.zeros({3, 1, 1, 6});
  auto dx = d.zeros({3, 1, 1, 4});
  auto dw = d.zeros({1, 1, 4, 6});
  auto db = d.zeros({1, 1, 1, 6});
  ms::ops::linear(d.b, tx.view(), tw.view(), y.view(), tb.view());
  ms::ops::linear_backward(d.b, tx.view(), tw.view(), tr.view(), dx.view(), dw.view(),
                           db.view());
  for (int n = 0; n < 3; ++n)
    for (int o = 0; o < 6; ++o) {
      double s = bias[o];
      for (int i = 0; i < 4; ++i)
        s += x[n * 4 + i] * w[i * 6 + o];
      REQUIRE(y.to_host()[n * 6 + o] == Approx(s));
    }
  double g = 0;
  double h = 0;
  for (int o = 0; o < 6; ++o)
    g += r[6 + o] * w[2 * 6 + o];
  for (int n = 0; n < 3; ++n)
    h += x[n * 4 + 2] * r[n * 6 + 5];
  CHECK(dx.to_host()[6] == Approx(g));
  CHECK(dw.to_host()[17] == Approx(h));
  CHECK(db.to_host()[0] == Approx(r[0] + r[6] + r[12]));
}

TEMPLATE_TEST_CASE("embeddings", "", BACKENDS) {
  on<TestType> d;
  const vec values{0.3, 2.0, 40.0};
  const vec frequencies{0.1, -0.5, 2.0, 0.7};
  const auto tv = d.put({3, 1, 1, 1}, values);
  const auto tf = d.put({1, 1, 1, 4}, frequencies);
  auto y = d.zeros({3, 1, 1, 8});
  ms::ops::embedding(d.b, tv.view(), y.view());
  CHECK(y.to_host()[8 + 1] == Approx(std::sin(2.0 * std::pow(10000.0, -1.0 / 3))));
  CHECK(y.to_host()[8 + 4] == Approx(std::cos(2.0)));
  ms::ops::embedding(d.b, tv.view(), y.view(), {.sine_first = false, .endpoint = false});
  CHECK(y.to_host()[16 + 1] == Approx(std::cos(40.0 * std::pow(10000.0, -1.0 / 4))));
  ms::ops::embedding(d.b, tv.view(), y.view(), {.logarithm = true}, tf.view());
  CHECK(y.to_host()[2] == Approx(std::sin(2 * 3.14159265358979 * 2.0 * std::log(0.3))));
  CHECK_THROWS_AS(
      (ms::ops::embedding(d.b, tv.view(), ms::view<double>(y.data(), {3, 1, 1, 5}))),
      ms::value_error);
}

namespace {

/// Pooling as its definition says. The windows' pixels outside the image do not exist, or are
/// zeros that count.
vec direct_pool(const vec& x, ms::shape xs, ms::ops::pool_kind kind, ms::ops::conv_window win) {
  win = win.resolved();
  vec y;
  for (ms::index_t n = 0; n < xs.rows; ++n)
    for (ms::index_t i = 0; i < win.out(xs.height); ++i)
      for (ms::index_t j = 0; j < win.out_width(xs.width); ++j)
        for (ms::index_t c = 0; c < xs.channels; ++c) {
          vec seen;
          for (int u = 0; u < win.kernel; ++u)
            for (int v = 0; v < win.kernel_width; ++v) {
              const ms::index_t p = i * win.stride + u - win.padding;
              const ms::index_t q = j * win.stride_width + v - win.padding_width;
              if (p >= 0 && p < xs.height && q >= 0 && q < xs.width)
                seen.push_back(x[((n * xs.height + p) * xs.width + q) * xs.channels + c]);
              else if (kind == ms::ops::pool_kind::mean_with_border)
                seen.push_back(0);
            }
          if (kind == ms::ops::pool_kind::maximum)
            y.push_back(*std::max_element(seen.begin(), seen.end()));
          else
            y.push_back(std::accumulate(seen.begin(), seen.end(), 0.0) / double(seen.size()));
        }
  return y;
}

}  // namespace

TEMPLATE_TEST_CASE("pool", "", BACKENDS) {
  on<TestType> d;
  const ms::shape xs{2, 7, 6, 3};
  for (const ms::ops::conv_window& window :
       {ms::ops::conv_window{2, 2, 0}, {3, 2, 0}, {3, 1, 1}, {3, 2, 1, -1, 2, 1, 0}})
    for (const auto kind : {ms::ops::pool_kind::maximum, ms::ops::pool_kind::mean,
                            ms::ops::pool_kind::mean_with_border}) {
      INFO("kernel " << window.kernel << ", stride " << window.stride << ", kind "
                     << int(kind));
      const ms::shape ys{xs.rows, window.out(xs.height), window.out_width(xs.width),
                         xs.channels};
      const vec x = normals<double>(xs.size(), 1);
      const vec r = normals<double>(ys.size(), 3);
      const auto run = [&](const vec& v) {
        auto y = d.zeros(ys);
        ms::ops::pool(d.b, d.put(xs, v).view(), y.view(), kind, window);
        return y.to_host();
      };
      CHECK(test::distance(run(x), direct_pool(x, xs, kind, window)) < 1e-14);
      auto dx = d.put(xs, vec(x.size(), 0.5));
      ms::ops::pool_backward(d.b, d.put(xs, x).view(), d.put(ys, r).view(), dx.view(), kind,
                             window, true);
      vec gradient = dx.to_host();
      for (double& g : gradient)
        g -= 0.5;  // accumulated onto what was there
      CHECK(test::gradient_error(
                x, [&](const vec& v) { return test::dot(run(v), r); }, gradient) < 1e-8);
    }
  // Equal values: the gradient goes to the first alone.
  auto dx = d.zeros({1, 2, 2, 1});
  ms::ops::pool_backward(d.b, d.put({1, 2, 2, 1}, {1, 1, 1, 1}).view(),
                         d.put({1, 1, 1, 1}, {3}).view(), dx.view(),
                         ms::ops::pool_kind::maximum, {2, 2, 0});
  CHECK(dx.to_host() == vec{3, 0, 0, 0});
  auto y = d.zeros({1, 2, 2, 1});
  CHECK_THROWS_AS(ms::ops::pool(d.b, dx.view(), y.view(), ms::ops::pool_kind::mean, {2, 1, 2}),
                  ms::value_error);
  CHECK_THROWS_AS(ms::ops::pool(d.b, dx.view(), y.view(), ms::ops::pool_kind::mean, {3, 1, 0}),
                  ms::shape_error);
}

TEMPLATE_TEST_CASE("relu", "", BACKENDS) {
  on<TestType> d;
  const ms::shape s{1, 1, 1, 5};
  auto y = d.zeros(s);
  ms::ops::relu(d.b, d.put(s, {-2, -0.5, 0, 0.25, 3}).view(), y.view());
  CHECK(y.to_host() == vec{0, 0, 0, 0.25, 3});
  ms::ops::relu_backward(d.b, d.put(s, {-2, -0.5, 0, 0.25, 3}).view(),
                         d.put(s, {1, 2, 3, 4, 5}).view(), y.view(), true);
  CHECK(y.to_host() == vec{0, 0, 0, 4.25, 8});
  ms::ops::relu(d.b, d.put(s, {NAN, 1, 1, 1, 1}).view(), y.view());
  CHECK(std::isnan(y.to_host()[0]));
}

TEMPLATE_TEST_CASE("the channels of four features, one behind the other", "", BACKENDS) {
  using namespace ms::ops;
  on<TestType> d;
  const auto a = d.put({2, 1, 2, 1}, {1, 2, 3, 4});
  const auto b = d.put({2, 1, 2, 2}, {10, 11, 12, 13, 14, 15, 16, 17});
  const auto c = d.put({2, 1, 2, 1}, {5, 6, 7, 8});
  auto y = d.zeros({2, 1, 2, 5});
  forward_pass<double> forward{.in = {a.cview(), b.cview(), c.cview(), a.cview()}};
  forward.y = y.view();
  run(d.b, concatenation{}, forward);
  const vec expected{1, 10, 11, 5, 1, 2, 12, 13, 6, 2, 3, 14, 15, 7, 3, 4, 16, 17, 8, 4};
  CHECK(y.to_host() == expected);
  auto da = d.put({2, 1, 2, 1}, {100, 100, 100, 100});
  auto db = d.zeros({2, 1, 2, 2});
  backward_pass<double> backward{forward};
  backward.dy = y.view();
  backward.dx = {da.view(), db.view(), {}, {}};
  backward.accumulate[0] = true;
  run_backward(d.b, concatenation{}, backward);
  CHECK(da.to_host() == vec{101, 102, 103, 104});
  CHECK(db.to_host() == b.to_host());
}
