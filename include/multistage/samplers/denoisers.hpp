// Decorators of any denoiser: what is known of a picture stays, values are kept in [-1, 1], and
// a result that is not finite is an error. Guidance is in diffusion/guidance.hpp, the encoder's
// reuse in samplers/model_denoiser.hpp. `sample` stacks them as its options say, from the
// inside: model, reuse, guidance, inpainting, check, clipping.
//
//   clipped safe(denoise);           // a denoiser whose D(x; sigma) stays in [-1, 1]
//   verified sure(safe);             // and is finite, or the walk ends with an error
#pragma once
#include <cmath>

#include "../core/tensor.hpp"
#include "../diffusion/denoiser.hpp"
#include "../ops/reduce.hpp"
#include "../stages/partition.hpp"

namespace multistage {

namespace functor {
/// d = mask known + (1 - mask) d, where known and mask repeat every `size` elements
struct blend {
  const double* known;
  const double* mask;
  index_t size;
  double* d;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t k = i % size;
    d[i] = mask[k] * known[k] + (1 - mask[k]) * d[i];
  }
};
/// d into [-1, 1]
struct clip {
  double* d;
  MULTISTAGE_HD void operator()(index_t i) const {
    d[i] = d[i] < -1 ? -1 : d[i] > 1 ? 1 : d[i];
  }
};
}  // namespace functor

/// A denoiser that knows part of the picture (inpainting): D is replaced by mask known +
/// (1 - mask) D, so that x comes to what is known where it is known.
template <denoiser Denoise, class Backend = cpu>
class inpainted {
 public:
  /// @param known, mask [1, h, w, c], the same for all rows, or [rows, h, w, c]; the mask is 1
  /// where the picture is known, 0 where it is to be drawn, and blends between
  /// @throws shape_error when their extents differ
  inpainted(Denoise denoise,
            basic_tensor<double, shape, Backend> known,
            basic_tensor<double, shape, Backend> mask)
      : denoise_(std::move(denoise)),
        known_(std::move(known)),
        mask_(std::move(mask)) {
    require<shape_error>(known_.extents() == mask_.extents() && known_.size() > 0,
                         "inpainted: known is ", known_.extents(), ", mask is ",
                         mask_.extents(), "; both are a picture, or one for each row");
  }

  /// @see denoiser. @throws shape_error when x's rows are of another size
  void operator()(view<const double> x, double sigma, view<double> denoised) {
    const index_t rows = known_.extents().rows;
    require<shape_error>((rows == 1 || rows == x.extents.rows) &&
                             known_.extents().row_size() == x.extents.row_size(),
                         "inpainted: known is ", known_.extents(), ", x is ", x.extents);
    denoise_(x, sigma, denoised);
    known_.backend().for_each_index(
        denoised.extents.size(),
        functor::blend{std::as_const(known_).data(), std::as_const(mask_).data(), known_.size(),
                       denoised.data});
  }

 private:
  Denoise denoise_;
  tensor<double, Backend> known_;
  tensor<double, Backend> mask_;
};

/// A denoiser whose D is kept in [-1, 1], as DDPM does (Ho et al., arXiv 2006.11239). Latent
/// images leave that range; they are not clipped.
template <denoiser Denoise, class Backend = cpu>
class clipped {
 public:
  /// Takes the denoiser. @param backend where it computes
  explicit clipped(Denoise denoise, Backend backend = Backend())
      : denoise_(std::move(denoise)),
        backend_(std::move(backend)) {}

  /// @see denoiser
  void operator()(view<const double> x, double sigma, view<double> denoised) {
    denoise_(x, sigma, denoised);
    backend_.for_each_index(denoised.extents.size(), functor::clip{denoised.data});
  }

 private:
  Denoise denoise_;
  Backend backend_;
};

/// A denoiser whose results are looked at: the first that is not finite ends the walk.
template <denoiser Denoise, class Backend = cpu>
class verified {
 public:
  /// @param stages named in the error beside evaluation and noise level
  explicit verified(Denoise denoise, partition stages = {}, Backend backend = Backend())
      : denoise_(std::move(denoise)),
        stages_(std::move(stages)),
        backend_(std::move(backend)) {}

  /// @see denoiser. @throws numeric_error for a value that is infinite or NaN
  void operator()(view<const double> x, double sigma, view<double> denoised) {
    denoise_(x, sigma, denoised);
    ++evaluation_;
    const double sum = ops::sum<Backend, double>(backend_, view<const double>(denoised));
    require<numeric_error>(std::isfinite(sum),
                           "sample: the network's result is not finite at evaluation ",
                           evaluation_, ", sigma ", sigma, ", stage ", stages_.stage(sigma),
                           "; was the model trained, and on images in [-1, 1]?");
  }

 private:
  Denoise denoise_;
  partition stages_;
  Backend backend_;
  int evaluation_ = 0;
};

}  // namespace multistage
