// The probability-flow ODE with adaptive steps (Dormand and Prince 1980, orders 5 and 4; Song
// et al., arXiv 2011.13456, section 4.3). Over u = ln sigma it is dx/du = x - D(x; sigma), the
// same for every schedule. Downwards it draws pictures; upwards it carries a picture to noise
// and, with the trace of D's derivative, gives its likelihood,
//   ln p(x_0) = ln N(x_1; 0, sigma_max^2) + int (n - tr dD/dx) du,
// where the trace is estimated by v^T (dD/dx) v with v of random signs (Hutchinson 1989). Steps
// follow the worst row of a batch.
//
//   auto pictures = sample(model, probability_flow{.sigma_max = 80}, {.seeds = "0-15"});
#pragma once
#include "../core/options.hpp"
#include "../core/random.hpp"
#include "../diffusion/denoiser.hpp"
#include "levels.hpp"
#include "walk.hpp"

namespace multistage {

/// Tolerances of the adaptive steps.
struct rk45_options {
  double rtol = 1e-5;        ///< relative tolerance of a step's error
  double atol = 1e-5;        ///< absolute tolerance of it
  int most_steps = 100'000;  ///< steps after which it gives up

  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"rtol", "relative tolerance", above(0, 1e3)}, s.rtol);
    visit(option{"atol", "absolute tolerance", above(0, 1e3)}, s.atol);
    visit(option{"most_steps", "steps after which it gives up", between(1, 1e9)}, s.most_steps);
  }
};

namespace sampling {

/// Dormand and Prince's method, of order 5 with an error estimate of order 4, for y' = f(u, y).
/// Steps are as long as the worst row's error allows.
template <class Backend, class F>
class dormand_prince {
 public:
  /// @param y [rows, ...], moved in place. @param f called as f(u, y, dy) with views
  /// @throws value_error for tolerances out of range
  dormand_prince(Backend& b, state<Backend>& y, const rk45_options& options, F& f)
      : y_(&y),
        options_(options),
        f_(&f),
        next_(b, y.extents()),
        error_(b, y.extents()) {
    check_options("rk45", options);
    for (auto& slope : k_)
      slope = tensor<double, Backend>(b, y.extents());
  }

  /// Integrates from u0 to u1. `accepted(u)` is told each step's end and returns whether to go
  /// on. Returns how often f was called. @throws numeric_error for too many steps, or values
  /// that stop being finite
  template <class Accepted>
  int integrate(double u0, double u1, Accepted&& accepted) {
    double u = u0;
    double h = (u1 - u0) / 50;  // the first guess; below 0 downwards
    const auto before_end = [&](double at) {
      return (u1 - at) * (u1 - u0) > 0;
    };
    const auto past_end = [&](double at) {
      return (at - u1) * (u1 - u0) > 0;
    };
    evaluate(u, *y_, 0);
    for (int step = 0; before_end(u); ++step) {
      require<numeric_error>(step < options_.most_steps, "rk45: ", options_.most_steps,
                             " steps did not reach the end; at ", u, " with steps of ", h,
                             ", loosen rtol or atol");
      if (past_end(u + h))
        h = u1 - u;
      evaluate_stages(u, h);
      const double worst = worst_error(h);
      require<numeric_error>(std::isfinite(worst), "rk45: values stop being finite at ", u);
      if (worst <= 1) {
        const double rounding = 1e-14 * std::max(1.0, std::fabs(u1));
        const bool arrived = std::fabs(u + h - u1) < rounding;
        u = arrived ? u1 : u + h;
        *y_ = next_;
        std::swap(k_[0], k_[6]);  // the last evaluation is the next step's first
        if (!accepted(u))
          break;
      }
      // The error goes with the fifth power of the step; a tenth is kept in hand.
      const double wanted = 0.9 * std::pow(std::max(worst, 1e-10), -0.2);
      h *= std::clamp(wanted, 0.2, 5.0);
    }
    return calls_;
  }

 private:
  /// The slope at a stage, as a term of sums.
  combination k(std::size_t stage) const {
    return {1, k_[stage].data()};
  }
  /// k[stage] = f(u, at).
  void evaluate(double u, const state<Backend>& at, std::size_t stage) {
    ++calls_;
    (*f_)(u, at.view(), k_[stage].view());
  }
  /// k_1 to k_6, and next: the step's end of order 5.
  void evaluate_stages(double u, double h) {
    static constexpr double a[7][6] = {
        {0, 0, 0, 0, 0, 0},
        {1 / 5.0, 0, 0, 0, 0, 0},
        {3 / 40.0, 9 / 40.0, 0, 0, 0, 0},
        {44 / 45.0, -56 / 15.0, 32 / 9.0, 0, 0, 0},
        {19372 / 6561.0, -25360 / 2187.0, 64448 / 6561.0, -212 / 729.0, 0, 0},
        {9017 / 3168.0, -355 / 33.0, 46732 / 5247.0, 49 / 176.0, -5103 / 18656.0, 0},
        {35 / 384.0, 0, 500 / 1113.0, 125 / 192.0, -2187 / 6784.0, 11 / 84.0}};
    static constexpr double c[7] = {0, 1 / 5.0, 3 / 10.0, 4 / 5.0, 8 / 9.0, 1, 1};
    for (std::size_t s = 1; s < 7; ++s) {
      const double* const w = a[s];
      next_ = *y_ + h * (w[0] * k(0) + w[1] * k(1) + w[2] * k(2));
      if (s > 3)
        next_ = next_ + h * (w[3] * k(3) + w[4] * k(4) + w[5] * k(5));
      evaluate(u + c[s] * h, next_, s);
    }
  }
  /// The largest root mean square over a row of the error as a share of what is tolerated.
  double worst_error(double h) {
    static constexpr double e[7] = {
        71 / 57600.0,      0,          -71 / 16695.0, 71 / 1920.0,
        -17253 / 339200.0, 22 / 525.0, -1 / 40.0};  // fifth minus fourth order
    error_ =
        h * (e[0] * k(0) + e[2] * k(2) + e[3] * k(3) + e[4] * k(4) + e[5] * k(5) + e[6] * k(6));
    const std::vector<double> wrong = error_.to_host();
    const std::vector<double> before = y_->to_host();
    const std::vector<double> after = next_.to_host();
    const std::size_t rows = std::size_t(y_->extents().rows);
    const std::size_t size = std::size_t(y_->extents().row_size());
    double worst = 0;
    for (std::size_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (std::size_t i = r * size; i < (r + 1) * size; ++i) {
        const double largest = std::max(std::fabs(before[i]), std::fabs(after[i]));
        const double tolerated = options_.atol + options_.rtol * largest;
        const double scaled = wrong[i] / tolerated;
        sum += scaled * scaled;
      }
      worst = std::max(worst, std::sqrt(sum / double(size)));
    }
    return worst;
  }

  state<Backend>* y_;
  rk45_options options_;
  F* f_;
  std::array<tensor<double, Backend>, 7> k_;  // slopes at the stages
  state<Backend> next_;
  state<Backend> error_;
  int calls_ = 0;
};

}  // namespace sampling

/// Draws pictures along the probability-flow ODE; its last step is one evaluation at sigma_min,
/// whose D is the result.
struct probability_flow {
  double sigma_min = 0.002;  ///< lowest noise level
  double sigma_max = 80;     ///< highest noise level
  rk45_options tolerance{};  ///< of the adaptive steps

  /// What programs call it.
  static constexpr const char* name() {
    return "probability_flow";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::ends_fields(s, visit, "lowest noise level");
    rk45_options::fields(s.tolerance, visit);
  }

  /// Both ends; where steps fall between them is its tolerance's matter. @throws value_error
  std::vector<double> sigmas() const {
    check_options(name(), *this);
    return sampling::check_levels(name(), {sigma_max, sigma_min});
  }

  /// Moves x [rows, h, w, c] from the first level to the last. @see samplers/walk.hpp
  template <class Backend, denoiser Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> start,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    sigmas();
    sampling::walk w(b, start, denoise, noise, observe);
    auto y = w.make();
    auto denoised = w.make();
    y = w.x;
    // dx/du = x - D(x; sigma)
    const auto slope = [&](double u, view<const double> at, view<double> dy) {
      denoise(at, std::exp(u), denoised.view());
      const double* const d = std::as_const(denoised).view().data;
      ops::linear_combination<Backend, double>(b, dy.extents.size(), dy.data,
                                               {{1, at.data}, {-1, d}});
    };
    int step = 0;
    const auto accepted = [&](double u) {
      return w.observe(step++, std::exp(u), y, denoised);
    };
    sampling::dormand_prince solver(b, y, tolerance, slope);
    solver.integrate(std::log(sigma_max), std::log(sigma_min), accepted);
    w.denoise(y, sigma_min, w.x);
  }
};

/// What a likelihood costs and gives, by row.
struct likelihood {
  std::vector<double> log_p;  ///< natural, of the row's values as a density over [-1, 1]^n
  /// Of 8-bit images: -log2 p / n + 7, since a grey level is 2 / 256 wide.
  std::vector<double> bits_per_value;
  int evaluations = 0;  ///< of D and of its derivative each
};

namespace sampling {

/// Random signs, 1 or -1, in the place of every value of a batch.
inline std::vector<double> random_signs(std::uint64_t seed, index_t count) {
  const random_stream bits(seed, purpose::churn, 0);
  std::vector<double> signs(std::size_t(count), 0.0);
  for (index_t i = 0; i < count; ++i)
    signs[std::size_t(i)] = bits.word(std::uint64_t(i)) & 1 ? 1 : -1;
  return signs;
}

/// The ODE of a likelihood: the state is a row of x and, behind it, the integral of the
/// divergence n - tr dD/dx, whose slope is estimated by v^T (dD/dx) v.
template <class Backend, class Denoise, class Transposed>
class likelihood_flow {
 public:
  /// @param images extents of the batch. @param seed of v, the random signs
  likelihood_flow(Backend& b,
                  const shape& images,
                  Denoise& denoise,
                  Transposed& transposed,
                  std::uint64_t seed)
      : b_(&b),
        denoise_(&denoise),
        transposed_(&transposed),
        host_signs_(random_signs(seed, images.size())),
        signs_(b, images, host_signs_),
        at_(b, images),
        denoised_(b, images),
        product_(b, images) {}

  /// y [rows, 1, 1, size + 1] = the images, with integrals of 0.
  void start(view<const double> x, state<Backend>& y) const {
    const index_t size = x.extents.row_size();
    double* const to = y.view().data;  // [rows, size + 1]
    for (index_t r = 0; r < x.extents.rows; ++r)
      b_->copy(x.data + r * size, to + r * (size + 1), size);
  }
  /// dy = the slope of y by u = ln sigma.
  void operator()(double u, view<const double> y, view<double> dy) {
    const double sigma = std::exp(u);
    const index_t rows = at_.extents().rows;
    const index_t size = at_.extents().row_size();
    for (index_t r = 0; r < rows; ++r)
      b_->copy(y.data + r * (size + 1), at_.data() + r * size, size);
    (*denoise_)(at_.cview(), sigma, denoised_.view());
    (*transposed_)(at_.cview(), sigma, signs_.cview(), product_.view());
    const std::vector<double> product = product_.to_host();
    const std::vector<double> values = at_.to_host();
    const std::vector<double> mean = denoised_.to_host();
    std::vector<double> slope;  // [rows, size + 1]
    std::size_t i = 0;          // over [rows, size]
    for (index_t r = 0; r < rows; ++r) {
      double trace = 0;
      for (index_t k = 0; k < size; ++k, ++i) {
        trace += host_signs_[i] * product[i];
        slope.push_back(values[i] - mean[i]);
      }
      slope.push_back(double(size) - trace);
    }
    b_->upload(slope.data(), dy.data, index_t(slope.size()));
  }

 private:
  Backend* b_;
  Denoise* denoise_;
  Transposed* transposed_;
  std::vector<double> host_signs_;
  tensor<double, Backend> signs_;     // v
  tensor<double, Backend> at_;        // x
  tensor<double, Backend> denoised_;  // D(x; sigma)
  tensor<double, Backend> product_;   // (dD/dx)^T v
};

}  // namespace sampling

/// Likelihoods of images along the probability-flow ODE (Song et al., arXiv 2011.13456,
/// section 4.3).
/// @param x [rows, h, w, c]
/// @param p its ends and tolerances
/// @param denoise evaluates D into d: denoise(x, sigma, d)
/// @param transposed gives jv = (dD/dx)^T v for all rows: transposed(x, sigma, v, jv)
/// @param seed of the random signs
/// @throws value_error, numeric_error as probability_flow does
template <class Backend, denoiser Denoise, class Transposed>
likelihood log_likelihood(Backend& b,
                          view<const double> x,
                          const probability_flow& p,
                          Denoise&& denoise,
                          Transposed&& transposed,
                          std::uint64_t seed) {
  p.sigmas();
  const std::size_t rows = std::size_t(x.extents.rows);
  const std::size_t size = std::size_t(x.extents.row_size());
  sampling::likelihood_flow flow(b, x.extents, denoise, transposed, seed);
  const shape with_integrals{x.extents.rows, 1, 1, x.extents.row_size() + 1};
  sampling::state<Backend> y(b, with_integrals);
  flow.start(x, y);
  likelihood result;
  const auto to_the_end = [](double) {
    return true;
  };
  sampling::dormand_prince solver(b, y, p.tolerance, flow);
  result.evaluations =
      solver.integrate(std::log(p.sigma_min), std::log(p.sigma_max), to_the_end);
  constexpr double half_log_two_pi = 0.91893853320467274178;
  constexpr double log_two = 0.69314718055994530942;
  const std::vector<double> end = y.to_host();  // [rows, size + 1]
  for (std::size_t r = 0; r < rows; ++r) {
    const double* row = end.data() + r * (size + 1);
    const double integral = row[size];
    double squares = 0;
    for (std::size_t i = 0; i < size; ++i)
      squares += std::pow(row[i] / p.sigma_max, 2);
    // The density of the noise that the row has become, and what the way there changed.
    const double log_p =
        -0.5 * squares - double(size) * (std::log(p.sigma_max) + half_log_two_pi) + integral;
    result.log_p.push_back(log_p);
    result.bits_per_value.push_back(-log_p / (double(size) * log_two) + 7);
  }
  return result;
}

}  // namespace multistage
