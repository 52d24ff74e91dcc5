// Poisson flow (Xu, Liu, Tegmark, Jaakkola, arXiv 2209.11178; with more augmented dimensions
// arXiv 2302.04265). Data of N values lie in the plane z = 0 of N + A dimensions as charges;
// pictures follow the field lines down to it. The field's direction is E_x / E_z = (x - D(x,
// z)) / z, with D the mean of the data under the kernel (|x - y|^2 + z^2)^(-(N + A) / 2), so
// with sigma = z / sqrt(A) the ODE is EDM's, dx/dsigma = (x - D) / sigma. What differs are the
// kernel that D was trained with (trainer_options::augmented) and the field's prior at
// sigma_max,
//   p(x) ~ (|x|^2 + A sigma_max^2)^(-(N + A) / 2):  x = sigma_max n / sqrt(chi^2_A / A),
// Student's t with A degrees of freedom. A = 1 is PFGM; as A grows both become EDM's. D is the
// same for A -> infinity as for Gaussian noise.
#pragma once
#include "edm_heun.hpp"

namespace multistage {

namespace functor {
/// sums[row] += the squares of `count` of the row's values.
struct add_squares {
  const double* z;
  index_t size;
  index_t count;
  double* sums;
  MULTISTAGE_HD void operator()(index_t row) const {
    for (index_t i = 0; i < count; ++i)
      sums[row] += z[row * size + i] * z[row * size + i];
  }
};
/// x[row, :] *= sqrt(degrees / chi2[row])
struct students_t {
  const double* chi2;
  double degrees;
  index_t size;
  double* x;
  MULTISTAGE_HD void operator()(index_t i) const {
    x[i] *= ::sqrt(degrees / chi2[i / size]);
  }
};
}  // namespace functor

/// Poisson flow by Heun's steps in sigma = z / sqrt(augmented). `augmented` must be what the
/// model was trained with: the heavy tails of few dimensions are static to a network that never
/// saw them. `sample` compares. For a model that was trained with Gaussian noise, thousands are
/// near enough.
struct pfgm {
  int num_steps = 18;            ///< steps down the noise levels
  double sigma_min = 0.002;      ///< lowest noise level above 0
  double sigma_max = 80;         ///< highest noise level
  double rho = 7;                ///< how the steps crowd towards low noise
  std::vector<double> levels{};  ///< the ends of the steps, in the place of all these
  int augmented = 2048;          ///< A

  /// What programs call it.
  static constexpr const char* name() {
    return "pfgm";
  }
  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    sampling::karras_fields(s, visit);
    visit(option{"augmented", "dimensions beside those of the picture, as in training",
                 between(1, 1'000'000)},
          s.augmented);
  }

  /// The ends of the steps. @throws value_error naming the option that is out of range
  std::vector<double> sigmas() const {
    return sampling::karras_levels_of(*this);
  }

  /// Moves x [rows, h, w, c] from the first level to the last. @see samplers/walk.hpp
  template <class Backend, denoiser Denoise, class Noise, class Observe>
  void operator()(Backend& b,
                  view<double> start,
                  Denoise&& denoise,
                  Noise&& noise,
                  Observe&& observe) const {
    const std::vector<double> all = sigmas();
    sampling::walk w(b, start, denoise, noise, observe);
    spread_to_prior(w);
    int step = 0;
    sampling::heun_method(w).steps(all, step);
  }

 private:
  /// x = sigma_max n becomes a draw of the prior, sigma_max n / sqrt(chi^2_A / A).
  template <class Walk>
  void spread_to_prior(Walk& w) const {
    const auto& b = w.backend();
    const shape& extents = w.x.extents();
    const index_t size = extents.row_size();
    auto z = w.make();
    tensor<double, std::remove_cvref_t<decltype(b)>> chi2(b, {extents.rows, 1, 1, 1});
    int draw = 0;
    for (index_t left = augmented; left > 0; left -= size) {
      w.noise(draw++, z);
      b.for_each_index(extents.rows, functor::add_squares{std::as_const(z).view().data, size,
                                                          std::min(size, left), chi2.data()});
    }
    b.for_each_index(extents.size(), functor::students_t{chi2.data(), double(augmented), size,
                                                         w.x.view().data});
  }
};

}  // namespace multistage
