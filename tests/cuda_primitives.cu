// The CUDA backend's kernels against the Thrust backend's functors on the host in double, which
// share no code with them: every primitive on problems of odd and even extents. Exits with 77
// where there is no GPU.
//   cuda_primitives [--all]   --all: large problems too, for a GPU
#include <cmath>
#include <cstdio>
#include <cstring>
#include <multistage/backend/cuda/backend.hpp>
#include <multistage/backend/thrust/systems.hpp>
#include <string>
#include <vector>

namespace ms = multistage;
using ms::index_t;

namespace {

int failures = 0;
int checks = 0;

/// Memory of both backends with the same numbers.
template <class Backend, class T>
struct array {
  typename Backend::template storage<T> storage;
  index_t size = 0;
  array(const Backend& b, const std::vector<double>& values)
      : storage(b.template allocate<T>(index_t(values.size()))), size(index_t(values.size())) {
    const std::vector<T> host(values.begin(), values.end());
    b.upload(host.data(), data(), size);
  }
  T* data() const {
    return Backend::pointer(storage);
  }
  std::vector<double> to_host(const Backend& b) const {
    std::vector<T> host(static_cast<std::size_t>(size));
    b.download(data(), host.data(), size);
    return {host.begin(), host.end()};
  }
};

std::vector<double> numbers(std::uint64_t seed, index_t n, double scale = 1) {
  std::vector<double> v;
  for (index_t i = 0; i < n; ++i)
    v.push_back(double(float(scale * ms::random_stream(seed).normal(std::uint64_t(i)))));
  return v;
}

/// |got - expected| / |expected| in the Euclidean norm must stay under `allowed`.
void compare(const std::string& what,
             const std::vector<double>& got,
             const std::vector<double>& expected,
             double allowed) {
  double error = 0;
  double norm = 0;
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double d = got[i] - expected[i];
    error += d * d;
    norm += expected[i] * expected[i];
    worst = std::max(worst, std::abs(d));
  }
  const double relative = std::sqrt(error / std::max(norm, 1e-300));
  const bool ok =
      got.size() == expected.size() && relative <= allowed && std::isfinite(relative);
  ++checks;
  if (!ok)
    ++failures;
  std::printf("%s %-64s %.2e of %.0e (largest difference %.2e)\n", ok ? "ok  " : "FAIL",
              what.c_str(), relative, allowed, worst);
}

struct conv_case {
  index_t rows;
  index_t height;
  index_t width;
  index_t channels;
  index_t channels2;
  index_t out;
  int kernel;
  int stride;
  int padding;
  bool extras;
  int kernel_width = kernel;
  int padding_width = padding;
};

template <class Backend, class T>
std::vector<std::vector<double>> run_conv(const Backend& b, const conv_case& c) {
  const index_t oh = (c.height + 2 * c.padding - c.kernel) / c.stride + 1;
  const index_t ow = (c.width + 2 * c.padding_width - c.kernel_width) / c.stride + 1;
  const index_t in = c.rows * c.height * c.width;
  const index_t out = c.rows * oh * ow * c.out;
  const index_t weights =
      index_t(c.kernel) * c.kernel_width * (c.channels + c.channels2) * c.out;
  array<Backend, T> x(b, numbers(1, in * c.channels)), x2(b, numbers(2, in * c.channels2)),
      w(b, numbers(3, weights, 0.1));
  array<Backend, T> bias(b, numbers(4, c.out)), row_bias(b, numbers(5, c.rows * c.out)),
      residual(b, numbers(6, out));
  array<Backend, T> y(b, numbers(7, out)), dy(b, numbers(8, out)),
      dx(b, numbers(9, in * c.channels)), dx2(b, numbers(10, in * c.channels2));
  array<Backend, T> dw(b, numbers(11, weights));
  ms::conv_problem<T> p{};
  p.rows = c.rows;
  p.height = c.height;
  p.width = c.width;
  p.channels = c.channels;
  p.channels2 = c.channels2;
  p.out_height = oh;
  p.out_width = ow;
  p.out_channels = c.out;
  p.kernel = c.kernel;
  p.stride = c.stride;
  p.padding = c.padding;
  p.kernel_width = c.kernel_width;
  p.stride_width = c.stride;
  p.padding_width = c.padding_width;
  p.x = x.data();
  p.x2 = c.channels2 ? x2.data() : nullptr;
  p.weight = w.data();
  p.scale = T(1);
  p.y = y.data();
  if (c.extras) {
    p.bias = bias.data();
    p.row_bias = row_bias.data();
    p.residual = residual.data();
    p.scale = T(0.7);
  }
  conv_forward(b, p);
  conv_backward_input(b, p, dy.data(), dx.data(), c.extras, c.channels2 ? dx2.data() : nullptr,
                      false);
  conv_backward_weight(b, p, dy.data(), dw.data());
  return {y.to_host(b), dx.to_host(b), dx2.to_host(b), dw.to_host(b)};
}

void check_conv(const ms::cuda& gpu, const conv_case& c) {
  const std::string name = "conv " + std::to_string(c.kernel) + "x" +
                           std::to_string(c.kernel_width) + "/" + std::to_string(c.stride) +
                           " " + std::to_string(c.rows) + "x" + std::to_string(c.height) + "x" +
                           std::to_string(c.width) + " " + std::to_string(c.channels) + "+" +
                           std::to_string(c.channels2) + "->" + std::to_string(c.out);
  const auto expected = run_conv<ms::thrust_cpp, double>(ms::thrust_cpp(), c);
  const char* const parts[] = {" y", " dx", " dx2", " dw"};
  for (const ms::product_precision precision :
       {ms::product_precision::full, ms::product_precision::tf32}) {
    set_precision(gpu, precision);
    const bool full = precision == ms::product_precision::full;
    const auto got = run_conv<ms::cuda, float>(gpu, c);
    // Rounding of float sums; tf32 keeps 11 bits of each factor.
    for (int part = 0; part < 4; ++part)
      if (!expected[part].empty())
        compare(name + parts[part] + (full ? "" : ", tf32"), got[part], expected[part],
                full ? 2e-6 : 1e-3);
  }
  set_precision(gpu, ms::product_precision::full);
}

struct norm_case {
  index_t rows;
  index_t pixels;
  index_t channels;
  index_t channels2;
  index_t groups;
  bool silu;
  bool modulation;
  double offset;
};

template <class Backend, class T>
std::vector<std::vector<double>> run_norm(const Backend& b, const norm_case& c) {
  const index_t all = c.channels + c.channels2;
  const index_t places = c.rows * c.pixels;
  std::vector<double> shifted = numbers(1, places * c.channels);
  for (double& v : shifted)
    v = double(float(v + c.offset));
  array<Backend, T> x(b, shifted), x2(b, numbers(2, places * c.channels2)),
      w(b, numbers(3, all)), bias(b, numbers(4, all));
  array<Backend, T> modulation(b, numbers(5, c.rows * 2 * all, 0.3)),
      statistics(b, numbers(6, c.rows * c.groups * 2));
  array<Backend, T> y(b, numbers(7, places * all)), dy(b, numbers(8, places * all)),
      dx(b, numbers(9, places * c.channels));
  array<Backend, T> dx2(b, numbers(10, places * c.channels2)), dw(b, numbers(11, all)),
      db(b, numbers(12, all));
  array<Backend, T> dm(b, numbers(13, c.rows * 2 * all)),
      partials(b, numbers(14, c.rows * 2 * all));
  ms::norm_problem<T> p{};
  p.rows = c.rows;
  p.pixels = c.pixels;
  p.channels = c.channels;
  p.channels2 = c.channels2;
  p.groups = c.groups;
  p.epsilon = T(1e-5);
  p.silu = c.silu;
  p.x = x.data();
  p.x2 = c.channels2 ? x2.data() : nullptr;
  p.weight = w.data();
  p.bias = bias.data();
  p.modulation = c.modulation ? modulation.data() : nullptr;
  p.statistics = statistics.data();
  p.y = y.data();
  norm_statistics(b, p);
  norm_apply(b, p);
  ms::norm_gradients<T> g{dy.data()};
  g.dx = dx.data();
  g.accumulate = true;
  g.dx2 = c.channels2 ? dx2.data() : nullptr;
  g.dweight = dw.data();
  g.dbias = db.data();
  g.dmodulation = c.modulation ? dm.data() : nullptr;
  g.partials = partials.data();
  norm_backward(b, p, g);
  return {statistics.to_host(b), y.to_host(b),  dx.to_host(b), dx2.to_host(b),
          dw.to_host(b),         db.to_host(b), dm.to_host(b)};
}

void check_norm(const ms::cuda& gpu, const norm_case& c, double allowed) {
  const std::string name = "norm " + std::to_string(c.rows) + "x" + std::to_string(c.pixels) +
                           " " + std::to_string(c.channels) + "+" +
                           std::to_string(c.channels2) + "/" + std::to_string(c.groups) +
                           (c.silu ? " silu" : "") + (c.modulation ? " modulated" : "");
  const auto expected = run_norm<ms::thrust_cpp, double>(ms::thrust_cpp(), c);
  const auto got = run_norm<ms::cuda, float>(gpu, c);
  const char* const parts[] = {" statistics", " y", " dx", " dx2", " dw", " db", " dm"};
  for (int part = 0; part < 7; ++part)
    if (!expected[part].empty())
      compare(name + parts[part], got[part], expected[part], allowed);
}

struct attention_case {
  index_t rows;
  index_t heads;
  index_t queries;
  index_t keys;
  index_t head_dim;
  bool self;
};

template <class Backend, class T>
std::vector<std::vector<double>> run_attention(const Backend& b, const attention_case& c) {
  const index_t channels = c.heads * c.head_dim;
  const index_t step = c.self ? 3 * channels : channels;
  const index_t q_size = c.rows * c.queries * step;
  const index_t k_size = c.rows * c.keys * channels;
  array<Backend, T> q(b, numbers(1, q_size)), k(b, numbers(2, k_size)),
      v(b, numbers(3, k_size));
  array<Backend, T> y(b, numbers(4, c.rows * c.queries * channels)),
      lse(b, numbers(5, c.rows * c.heads * c.queries));
  array<Backend, T> dy(b, numbers(6, c.rows * c.queries * channels)), dq(b, numbers(7, q_size)),
      dk(b, numbers(8, k_size)), dv(b, numbers(9, k_size));
  ms::attention_problem<T> p{};
  p.rows = c.rows;
  p.heads = c.heads;
  p.queries = c.queries;
  p.keys = c.keys;
  p.head_dim = c.head_dim;
  p.scale = T(1 / std::sqrt(double(c.head_dim)));
  p.q = q.data();
  p.k = c.self ? q.data() + channels : k.data();
  p.v = c.self ? q.data() + 2 * channels : v.data();
  p.q_row = c.queries * step;
  p.k_row = p.v_row = c.keys * step;
  p.q_token = p.k_token = p.v_token = step;
  p.y = y.data();
  p.log_sum_exp = lse.data();
  attention_forward(b, p);
  ms::attention_gradients<T> g{dy.data(), dq.data(), c.self ? dq.data() + channels : dk.data(),
                               c.self ? dq.data() + 2 * channels : dv.data()};
  attention_backward(b, p, g);
  return {y.to_host(b), lse.to_host(b), dq.to_host(b), dk.to_host(b), dv.to_host(b)};
}

void check_attention(const ms::cuda& gpu, const attention_case& c) {
  const std::string name = std::string(c.self ? "self" : "cross") + "-attention " +
                           std::to_string(c.rows) + " rows " + std::to_string(c.heads) +
                           " heads " + std::to_string(c.queries) + "x" +
                           std::to_string(c.keys) + "x" + std::to_string(c.head_dim);
  const auto expected = run_attention<ms::thrust_cpp, double>(ms::thrust_cpp(), c);
  const auto got = run_attention<ms::cuda, float>(gpu, c);
  const char* const parts[] = {" y", " lse", " dq", " dk", " dv"};
  for (int part = 0; part < 5; ++part)
    compare(name + parts[part], got[part], expected[part], 5e-6);
}

struct square_term {
  const float* x;
  index_t size;
  MULTISTAGE_HD double operator()(index_t row, index_t i) const {
    return double(x[row * size + i]) * double(x[row * size + i]);
  }
};

void check_sums(const ms::cuda& gpu, index_t rows, index_t pixels, index_t channels) {
  const ms::thrust_cpp host;
  const std::string name = "sums " + std::to_string(rows) + "x" + std::to_string(pixels) + "x" +
                           std::to_string(channels);
  const std::vector<double> values = numbers(1, rows * pixels * channels);
  array<ms::cuda, float> x(gpu, values), y(gpu, numbers(2, rows * channels)),
      columns(gpu, numbers(3, channels));
  array<ms::thrust_cpp, double> hx(host, values), hy(host, numbers(2, rows * channels)),
      hcolumns(host, numbers(3, channels));
  row_sums(gpu, rows, pixels, channels, static_cast<const float*>(x.data()), y.data(), true);
  row_sums(host, rows, pixels, channels, static_cast<const double*>(hx.data()), hy.data(),
           true);
  compare(name + " by row", y.to_host(gpu), hy.to_host(host), 2e-6);
  column_sums(gpu, rows * pixels, channels, static_cast<const float*>(x.data()), columns.data(),
              true);
  column_sums(host, rows * pixels, channels, static_cast<const double*>(hx.data()),
              hcolumns.data(), true);
  compare(name + " by column", columns.to_host(gpu), hcolumns.to_host(host), 2e-6);
  for (const bool squares : {false, true})
    compare(name + (squares ? " of squares" : " of all"),
            {reduce_sum(gpu, x.size, static_cast<const float*>(x.data()), squares)},
            {reduce_sum(host, hx.size, static_cast<const double*>(hx.data()), squares)}, 1e-12);
  array<ms::cuda, double> sums(gpu, numbers(4, rows));
  sum_by_row(gpu, rows, pixels * channels, square_term{x.data(), pixels * channels},
             sums.data());
  std::vector<double> expected(std::size_t(rows), 0.0);
  for (index_t i = 0; i < index_t(values.size()); ++i)
    expected[std::size_t(i / (pixels * channels))] +=
        values[std::size_t(i)] * values[std::size_t(i)];
  compare(name + " of a functor", sums.to_host(gpu), expected, 1e-12);
}

int run(bool all) {
  const ms::cuda gpu;
  for (const conv_case& c : {conv_case{2, 5, 7, 8, 0, 12, 3, 1, 1, true},
                             conv_case{3, 6, 6, 3, 0, 5, 3, 1, 1, false},
                             conv_case{2, 4, 4, 36, 20, 68, 1, 1, 0, true},
                             conv_case{2, 8, 6, 16, 0, 24, 3, 2, 1, true},
                             conv_case{5, 1, 1, 40, 0, 33, 1, 1, 0, true},
                             conv_case{1, 9, 9, 4, 0, 4, 5, 3, 2, false},
                             conv_case{2, 6, 9, 8, 0, 12, 1, 1, 0, true, 7, 3}})
    check_conv(gpu, c);
  check_norm(gpu, {2, 20, 12, 0, 3, true, true, 0}, 5e-6);
  check_norm(gpu, {2, 20, 12, 8, 5, true, false, 3}, 5e-6);
  check_norm(gpu, {9, 1, 70, 0, 1, false, false, 0}, 5e-6);
  check_norm(gpu, {3, 17, 7, 2, 3, false, true, 0}, 5e-6);
  check_attention(gpu, {2, 1, 9, 9, 8, true});
  check_attention(gpu, {1, 3, 10, 37, 4, false});
  check_sums(gpu, 3, 33, 37);
  if (all) {
    for (const conv_case& c : {conv_case{16, 32, 32, 64, 0, 128, 3, 1, 1, true},
                               conv_case{4, 16, 16, 256, 0, 256, 3, 1, 1, true},
                               conv_case{64, 8, 8, 256, 128, 192, 1, 1, 0, true},
                               conv_case{2, 32, 32, 3, 0, 128, 3, 1, 1, false},
                               conv_case{2, 32, 32, 128, 0, 3, 3, 1, 1, false},
                               conv_case{3, 17, 19, 130, 0, 131, 3, 1, 1, true},
                               conv_case{2, 32, 32, 96, 0, 96, 3, 2, 1, true}})
      check_conv(gpu, c);
    check_norm(gpu, {8, 1024, 128, 128, 16, true, true, 0}, 5e-6);
    // A mean a thousand times the deviation: what float keeps of x is all there is.
    check_norm(gpu, {4, 256, 64, 0, 16, true, false, 1000}, 2e-3);
    check_attention(gpu, {8, 1, 256, 256, 256, true});
    check_attention(gpu, {2, 14, 300, 300, 32, true});
    check_sums(gpu, 64, 1024, 200);
  }
  std::printf("%d passed, %d failed\n", checks - failures, failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU here");
    return 77;  // skipped, to ctest
  }
  try {
    return run(argc > 1 && std::strcmp(argv[1], "--all") == 0);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
