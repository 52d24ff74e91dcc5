// What samplers walk with: a denoiser, D(x; sigma), which estimates the clean images y behind
// x = y + sigma n (Karras et al., arXiv 2206.00364, eq. 2). A model is one (samplers/
// model_denoiser.hpp), as is any function of these three arguments. Decorators are denoisers
// around a denoiser: guidance, inpainting, clipping, a check, the encoder's reuse. Each is a
// struct with one call, so one of a user's own stands in a stack as well as ours.
//
//   struct halved {                                   // a denoiser of one's own
//     void operator()(view<const double> x, double sigma, view<double> d) const;
//   };
#pragma once
#include <memory>
#include <type_traits>
#include <utility>

#include "../core/view.hpp"

namespace multistage {

inline namespace MULTISTAGE_ISA {
class cpu;  // what decorators compute on unless they are told
}

/// Callable as `denoise(x, sigma, d)`: writes the estimate of the clean images behind x
/// [rows, h, w, c] at the noise level sigma > 0 (the same for all rows) into d, which has x's
/// extents and is not x's memory. Both lie one element after the other in memory of the
/// sampler's backend.
template <class D>
concept denoiser =
    requires(D& denoise, view<const double> x, double sigma, view<double> denoised) {
  denoise(x, sigma, denoised);
};

/// A denoiser as a value, whatever its type: what stacks are made of whose parts are known at
/// run time. It moves; what it was moved from can only be destroyed or assigned to.
class any_denoiser {
 public:
  /// Takes the denoiser; one that is to be seen from outside is given as std::ref.
  template <denoiser Denoise>
  requires(!std::is_same_v<Denoise, any_denoiser>) any_denoiser(Denoise denoise)
      : held_(new of<Denoise>(std::move(denoise))) {}

  /// @see denoiser
  void operator()(view<const double> x, double sigma, view<double> denoised) {
    held_->evaluate(x, sigma, denoised);
  }

 private:
  struct any {
    virtual ~any() = default;
    virtual void evaluate(view<const double> x, double sigma, view<double> denoised) = 0;
  };
  template <class Denoise>
  struct of final : any {
    Denoise denoise;
    explicit of(Denoise&& d)
        : denoise(std::move(d)) {}
    void evaluate(view<const double> x, double sigma, view<double> denoised) override {
      denoise(x, sigma, denoised);
    }
  };
  std::unique_ptr<any> held_;
};

}  // namespace multistage
