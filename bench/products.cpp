// Matrix products of all shapes on one thread, C [m, n] = A [m, k] B [k, n] in GFLOP/s: by
// cpu's own kernels, by Eigen as a user would write it, and by the Eigen backend (Eigen's, 32
// rows at a time). Time is the thread's own, the best of many runs.
#include <Eigen/Core>
#include <cstdio>
#include <ctime>
#include <multistage/backend/cpu/backend.hpp>
#include <multistage/backend/eigen/backend.hpp>
#include <vector>

namespace ms = multistage;

namespace {

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

/// The best of runs for half a second, each of some repetitions that take a millisecond
/// together.
template <class F>
double best_seconds(F&& f) {
  f();
  double begin = thread_seconds();
  int repetitions = 0;
  do {
    f();
    ++repetitions;
  } while (thread_seconds() - begin < 1e-3);
  double best = HUGE_VAL;
  for (const double stop = thread_seconds() + 0.5; thread_seconds() < stop;) {
    begin = thread_seconds();
    for (int i = 0; i < repetitions; ++i)
      f();
    best = std::min(best, (thread_seconds() - begin) / repetitions);
  }
  return best;
}

struct product {
  const char* what;
  ms::index_t m;
  ms::index_t n;
  ms::index_t k;
};
constexpr product products[] = {
    {"square", 64, 64, 64},
    {"square", 256, 256, 256},
    {"square", 1024, 1024, 1024},
    {"1x1 convolution", 4096, 384, 640},
    {"tall, few columns", 16384, 16, 64},
    {"tall, three columns", 16384, 3, 128},
    {"tall, short k", 16384, 128, 3},
    {"flat", 16, 4096, 256},
    {"long k", 32, 32, 16384},
    {"linear, a row", 1, 512, 512},
    {"linear, four rows", 4, 512, 512},
    {"linear, 64 rows", 64, 512, 512},
    {"matrix-vector", 4096, 1, 1024},
    {"vector-matrix", 1, 4096, 1024},
    {"tiny", 8, 8, 8},
};

}  // namespace

int main() {
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const ms::cpu cpu(1);
  const ms::eigen eigen(1);
  std::printf("%-20s %18s %8s %8s %8s\n", "", "m x n x k", "cpu", "Eigen", "eigen");
  for (const product& p : products) {
    const matrix a = matrix::Random(p.m, p.k);
    const matrix b = matrix::Random(p.k, p.n);
    matrix c = matrix::Zero(p.m, p.n);
    const ms::matrix_view<const float> left{a.data(), p.m, p.k};
    const ms::matrix_view<const float> right{b.data(), p.k, p.n};
    const ms::matrix_view<float> result{c.data(), p.m, p.n};
    const double flop = 2.0 * double(p.m * p.n * p.k);
    const double ours = best_seconds([&] { multiply(cpu, left, right, result); });
    const double plain = best_seconds([&] { c.noalias() = a * b; });
    const double backend = best_seconds([&] { multiply(eigen, left, right, result); });
    std::printf("%-20s %6lld x %4lld x %5lld %8.1f %8.1f %8.1f\n", p.what, (long long)p.m,
                (long long)p.n, (long long)p.k, flop / ours * 1e-9, flop / plain * 1e-9,
                flop / backend * 1e-9);
  }
}
