// The probability-flow ODE with adaptive steps (Dormand and Prince 1980, orders 5 and 4; Song
// et al., arXiv 2011.13456, section 4.3). Over u = ln sigma it is dx/du = x - D(x; sigma), the
// same for every schedule. Downwards it draws pictures; upwards it carries a picture to noise
// and, with the trace of D's derivative, gives its likelihood,
//   ln p(x_0) = ln N(x_1; 0, sigma_max^2) + int (n - tr dD/dx) du,
// where the trace is estimated by v^T (dD/dx) v with v of random signs (Hutchinson 1989). Steps
// follow the worst row of a batch.
#pragma once
#include "../core/random.hpp"
#include "walk.hpp"

namespace multistage {

/// Tolerances of the adaptive steps.
struct rk45_options {
  double rtol = 1e-5;
  double atol = 1e-5;
  int most_steps = 100'000;

  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"rtol", "relative tolerance", above(0, 1e3)}, s.rtol);
    visit(option{"atol", "absolute tolerance", above(0, 1e3)}, s.atol);
    visit(option{"most_steps", "steps after which it gives up", between(1, 1e9)}, s.most_steps);
  }
};

namespace sampling {

/// Integrates y' = f(u, y) from u0 to u1 in place over `n` values on the backend. f(u, y, dy).
/// Returns how often f was called; `accepted(u)` is told each step's end and returns whether to
/// go on.
template <class Backend, class F, class Accepted>
int rk45(Backend& b,
         tensor<double, Backend>& y,
         index_t rows,
         double u0,
         double u1,
         const rk45_options& o,
         F&& f,
         Accepted&& accepted) {
  check_options("rk45", o);
  static constexpr double a[7][6] = {
      {0, 0, 0, 0, 0, 0},
      {1 / 5.0, 0, 0, 0, 0, 0},
      {3 / 40.0, 9 / 40.0, 0, 0, 0, 0},
      {44 / 45.0, -56 / 15.0, 32 / 9.0, 0, 0, 0},
      {19372 / 6561.0, -25360 / 2187.0, 64448 / 6561.0, -212 / 729.0, 0, 0},
      {9017 / 3168.0, -355 / 33.0, 46732 / 5247.0, 49 / 176.0, -5103 / 18656.0, 0},
      {35 / 384.0, 0, 500 / 1113.0, 125 / 192.0, -2187 / 6784.0, 11 / 84.0}};
  static constexpr double c[7] = {0, 1 / 5.0, 3 / 10.0, 4 / 5.0, 8 / 9.0, 1, 1};
  static constexpr double e[7] = {
      71 / 57600.0,      0,          -71 / 16695.0, 71 / 1920.0,
      -17253 / 339200.0, 22 / 525.0, -1 / 40.0};  // fifth minus fourth order
  const index_t n = y.size();
  const index_t size = n / std::max<index_t>(rows, 1);
  std::array<tensor<double, Backend>, 7> k;
  for (auto& t : k)
    t = tensor<double, Backend>(b, y.extents());
  tensor<double, Backend> next(b, y.extents()), error(b, y.extents());
  int calls = 0;
  const auto evaluate = [&](double u, const tensor<double, Backend>& at,
                            tensor<double, Backend>& to) {
    ++calls;
    f(u, at, to);
  };
  double u = u0;
  double h = (u1 - u0) / 50;
  evaluate(u, y, k[0]);
  for (int step = 0; (u1 - u) * (u1 - u0) > 0; ++step) {
    require<numeric_error>(step < o.most_steps, "rk45: ", o.most_steps,
                           " steps did not reach the end; at ", u, " with steps of ", h,
                           ", loosen rtol or atol");
    if ((u + h - u1) * (u1 - u0) > 0)
      h = u1 - u;
    for (int s = 1; s < 7; ++s) {
      ops::linear_combination<Backend, double>(b, n, next.data(),
                                               {{1, y.data()},
                                                {h * a[s][0], k[0].data()},
                                                {h * a[s][1], k[1].data()},
                                                {h * a[s][2], k[2].data()}});
      if (s > 3)
        ops::linear_combination<Backend, double>(b, n, next.data(),
                                                 {{1, next.data()},
                                                  {h * a[s][3], k[3].data()},
                                                  {h * a[s][4], k[4].data()},
                                                  {h * a[s][5], k[5].data()}});
      evaluate(u + c[s] * h, next, k[std::size_t(s)]);
    }
    ops::linear_combination<Backend, double>(b, n, error.data(),
                                             {{h * e[0], k[0].data()},
                                              {h * e[2], k[2].data()},
                                              {h * e[3], k[3].data()},
                                              {h * e[4], k[4].data()},
                                              {h * e[5], k[5].data()},
                                              {h * e[6], k[6].data()}});
    const std::vector<double> wrong = error.to_host();
    const std::vector<double> before = y.to_host();
    const std::vector<double> after = next.to_host();
    double worst = 0;
    for (index_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (index_t i = r * size; i < (r + 1) * size; ++i) {
        const double scaled = wrong[std::size_t(i)] /
                              (o.atol + o.rtol * std::max(std::fabs(before[std::size_t(i)]),
                                                          std::fabs(after[std::size_t(i)])));
        sum += scaled * scaled;
      }
      worst = std::max(worst, std::sqrt(sum / double(size)));
    }
    require<numeric_error>(std::isfinite(worst), "rk45: values stop being finite at ", u);
    if (worst <= 1) {
      u = std::fabs(u + h - u1) < 1e-14 * std::max(1.0, std::fabs(u1)) ? u1 : u + h;
      b.copy(next.data(), y.data(), n);
      std::swap(k[0], k[6]);  // the last evaluation is the next step's first
      if (!accepted(u))
        return calls;
    }
    h *= std::clamp(0.9 * std::pow(std::max(worst, 1e-10), -0.2), 0.2, 5.0);
  }
  return calls;
}

}  // namespace sampling

/// Draws pictures along the probability-flow ODE; its last step is one evaluation at sigma_min,
/// whose D is the result.
struct probability_flow {
  double sigma_min = 0.002;
  double sigma_max = 80;
  rk45_options tolerance{};

  static constexpr const char* name() {
    return "probability_flow";
  }
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"sigma_min", "lowest noise level", above(0, 1e6)}, s.sigma_min);
    visit(option{"sigma_max", "highest noise level", above(0, 1e6)}, s.sigma_max);
    rk45_options::fields(s.tolerance, visit);
  }

  /// Both ends; where steps fall between them is its tolerance's matter. @throws value_error
  std::vector<double> sigmas() const {
    check_options(name(), *this);
    return sampling::check_levels(name(), {sigma_max, sigma_min});
  }

  template <class Backend, class Denoise, class Noise, class Observe>
  void operator()(Backend& b, view<double> x, Denoise&& denoise, Noise&&, Observe&& observe)
      const {
    sigmas();
    tensor<double, Backend> y(b, x.extents), d(b, x.extents);
    b.copy(x.data, y.data(), x.extents.size());
    int step = 0;
    sampling::rk45(
        b, y, x.extents.rows, std::log(sigma_max), std::log(sigma_min), tolerance,
        [&](double u, const tensor<double, Backend>& at, tensor<double, Backend>& slope) {
          denoise(at.view(), std::exp(u), d.view());
          ops::linear_combination<Backend, double>(b, at.size(), slope.data(),
                                                   {{1, at.data()}, {-1, d.data()}});
        },
        [&](double u) {
          return observe(step++, std::exp(u), std::as_const(y).view(), std::as_const(d).view());
        });
    denoise(std::as_const(y).view(), sigma_min, x);
  }
};

/// What a likelihood costs and gives, by row.
struct likelihood {
  std::vector<double> log_p;  ///< natural, of the row's values as a density over [-1, 1]^n
  std::vector<double>
      bits_per_value;  ///< of 8-bit images: -log2 p / n + 7, since a grey level is 2 / 256 wide
  int evaluations = 0;
};

/// Likelihoods of images x [rows, ...]. `denoise(x, sigma, d)` evaluates D, `transposed(x,
/// sigma, v, jv)` gives jv = (dD/dx)^T v, both for all rows.
/// @param seed of the random signs.
template <class Backend, class Denoise, class Transposed>
likelihood log_likelihood(Backend& b,
                          view<const double> x,
                          const probability_flow& p,
                          Denoise&& denoise,
                          Transposed&& transposed,
                          std::uint64_t seed) {
  p.sigmas();
  const index_t rows = x.extents.rows;
  const index_t size = x.extents.row_size();
  const index_t n = rows * size;
  tensor<double, Backend> signs(b, x.extents), jv(b, x.extents), d(b, x.extents);
  std::vector<double> host(std::size_t(n), 0.0);
  for (index_t i = 0; i < n; ++i)
    host[std::size_t(i)] =
        random_stream(seed, purpose::churn, 0).word(std::uint64_t(i)) & 1 ? 1 : -1;
  b.upload(host.data(), signs.data(), n);
  // The state is x and, behind each row, the integral of the divergence.
  const shape extended{rows, 1, 1, size + 1};
  tensor<double, Backend> y(b, extended), at(b, x.extents);
  const std::vector<double> start = [&] {
    std::vector<double> v(static_cast<std::size_t>(n)), out;
    b.download(x.data, v.data(), n);
    for (index_t r = 0; r < rows; ++r) {
      out.insert(out.end(), v.begin() + r * size, v.begin() + (r + 1) * size);
      out.push_back(0);
    }
    return out;
  }();
  b.upload(start.data(), y.data(), rows * (size + 1));
  likelihood result;
  result.evaluations = sampling::rk45(
      b, y, rows, std::log(p.sigma_min), std::log(p.sigma_max), p.tolerance,
      [&](double u, const tensor<double, Backend>& state, tensor<double, Backend>& slope) {
        const double sigma = std::exp(u);
        for (index_t r = 0; r < rows; ++r)
          b.copy(state.data() + r * (size + 1), at.data() + r * size, size);
        denoise(std::as_const(at).view(), sigma, d.view());
        transposed(std::as_const(at).view(), sigma, std::as_const(signs).view(), jv.view());
        const std::vector<double> product = jv.to_host();
        const std::vector<double> values = at.to_host();
        const std::vector<double> mean = d.to_host();
        std::vector<double> out;
        for (index_t r = 0; r < rows; ++r) {
          double trace = 0;
          for (index_t i = r * size; i < (r + 1) * size; ++i) {
            trace += host[std::size_t(i)] * product[std::size_t(i)];
            out.push_back(values[std::size_t(i)] - mean[std::size_t(i)]);
          }
          out.push_back(double(size) - trace);
        }
        b.upload(out.data(), slope.data(), rows * (size + 1));
      },
      [](double) { return true; });
  const std::vector<double> end = y.to_host();
  for (index_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (index_t i = 0; i < size; ++i)
      squares += std::pow(end[std::size_t(r * (size + 1) + i)] / p.sigma_max, 2);
    const double log_p = -0.5 * squares -
                         double(size) * (std::log(p.sigma_max) + 0.91893853320467274178) +
                         end[std::size_t(r * (size + 1) + size)];
    result.log_p.push_back(log_p);
    result.bits_per_value.push_back(-log_p / (double(size) * 0.69314718055994530942) + 7);
  }
  return result;
}

}  // namespace multistage
