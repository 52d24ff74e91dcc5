// Expressions of five terms over 10^7 floats against the speed of memory: bytes a second of
// ours, of Eigen's, of xtensor's where it is installed, and of a plain copy, all on the same
// threads (Eigen and xtensor on one).
#include <Eigen/Core>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <multistage/tensor.hpp>
#if __has_include(<xtensor/xtensor.hpp>)
#include <xtensor/xnoalias.hpp>
#include <xtensor/xtensor.hpp>
#endif

namespace ms = multistage;

namespace {

/// The best of many runs, in seconds.
template <class F>
double best_seconds(F&& f) {
  double best = 1e9;
  for (int i = 0; i < 15; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}
void row(const char* what, int threads, double bytes, double seconds, double copy) {
  const double rate = bytes / seconds * 1e-9;
  std::printf("%-44s %7d %8.2f ms %8.2f GB/s %6.0f %%\n", what, threads, seconds * 1e3, rate,
              100 * rate / copy);
}

}  // namespace

int main() {
  const ms::index_t n = 10'000'000;
  const double bytes = double(n) * sizeof(float);
  std::printf("%-44s %7s %11s %13s %8s\n", "", "threads", "", "", "of a copy");
  for (const int threads : {1, ms::cpu().threads()}) {
    const ms::cpu b(threads);
    const auto draw = [&](std::uint64_t stream) {
      return ms::normal<float>({n}, ms::random_stream(1, stream), b);
    };
    const auto x = draw(1);
    const auto y = draw(2);
    const auto z = draw(3);
    const auto u = draw(4);
    const auto v = draw(5);
    auto to = ms::zeros<float>({n}, b);
    // A copy of as much memory as five operands and a result take, so that both live in the
    // same caches, or none.
    auto half = ms::zeros<float>({6 * n}, b);
    constexpr ms::index_t piece = 1 << 16;
    const double seconds = best_seconds([&] {
      b.pool().parallel_for(ms::divide_up(3 * n, piece), [&](ms::index_t k) {
        const ms::index_t first = k * piece;
        const ms::index_t count = std::min(piece, 3 * n - first);
        const float* from = half.data() + first;
        float* at = half.data() + 3 * n + first;
        for (ms::index_t i = 0; i < count; ++i)
          at[i] = from[i];
      });
    });
    const double copy = 6 * bytes / seconds * 1e-9;
    row("copy, a loop", threads, 6 * bytes, seconds, copy);
    row("copy, memcpy", 1, 6 * bytes, best_seconds([&] {
          std::memcpy(half.data() + 3 * n, half.data(), std::size_t(3 * bytes));
        }),
        copy);
    row("0.5 x + y z - u + v", threads, 6 * bytes,
        best_seconds([&] { to = 0.5f * x + y * z - u + v; }), copy);
    row("0.1 x + 0.2 y + 0.3 z + 0.4 u + 0.5 v", threads, 6 * bytes,
        best_seconds([&] { to = 0.1f * x + 0.2f * y + 0.3f * z + 0.4f * u + 0.5f * v; }), copy);
    row("the same added in place to x's sum", threads, 7 * bytes,
        best_seconds([&] { to += 0.1f * x + 0.2f * y + 0.3f * z + 0.4f * u + 0.5f * v; }),
        copy);
    const auto image = [](auto& t) {
      return t.reshape({100, 100, 100, 10});
    };
    const auto bias = draw(6).slice<0>(0, 10).copy();
    const auto level = draw(7).slice<0>(0, 100).copy().reshape({100, 1, 1, 1}).copy();
    row("images: (x - y) / level + bias", threads, 3 * bytes,
        best_seconds([&] { image(to) = (image(x) - image(y)) / level + bias; }), copy);
    row("images: NHWC to NCHW", threads, 2 * bytes, best_seconds([&] {
          to.reshape({100, 10, 100, 100}) = image(x).permute<0, 3, 1, 2>();
        }),
        copy);
    row("sum", threads, bytes, best_seconds([&] { to(0) = float(ms::sum(x)); }), copy);
    row("mean over images, by channel", threads, bytes, best_seconds([&] {
          to(0) = ms::mean(image(x), ms::axes{0, 1, 2})(0);
        }),
        copy);
    if (threads != 1)
      continue;
    const auto map = [&](const auto& t) {
      return Eigen::Map<const Eigen::ArrayXf>(t.data(), n);
    };
    Eigen::Map<Eigen::ArrayXf> result(to.data(), n);
    row("Eigen: 0.1 x + 0.2 y + 0.3 z + 0.4 u + 0.5 v", 1, 6 * bytes, best_seconds([&] {
          result =
              0.1f * map(x) + 0.2f * map(y) + 0.3f * map(z) + 0.4f * map(u) + 0.5f * map(v);
        }),
        copy);
#if __has_include(<xtensor/xtensor.hpp>)
    const auto xt_of = [&](const auto& t) {
      xt::xtensor<float, 1> made(std::array<std::size_t, 1>{std::size_t(n)});
      std::copy_n(t.data(), n, made.data());
      return made;
    };
    const auto xx = xt_of(x);
    const auto xy = xt_of(y);
    const auto xz = xt_of(z);
    const auto xu = xt_of(u);
    const auto xv = xt_of(v);
    auto xto = xt_of(to);
    row("xtensor: the same", 1, 6 * bytes, best_seconds([&] {
          xt::noalias(xto) = 0.1f * xx + 0.2f * xy + 0.3f * xz + 0.4f * xu + 0.5f * xv;
        }),
        copy);
#endif
  }
}
