// Guidance: D_w = D_weak + w (D - D_weak), where D_weak is the model without its label or
// context (classifier-free, Ho and Salimans, arXiv 2207.12598) or a smaller or less
// trained model (autoguidance, Karras et al., arXiv 2406.02507). w = 1 is no guidance.
// It may act between two noise levels only (Kynkaanniemi et al., arXiv 2404.07724), and each
// stage may have its own w.
#pragma once
#include <cmath>
#include <memory>
#include <vector>

#include "../core/options.hpp"
#include "../core/tensor.hpp"
#include "../ops/elementwise.hpp"
#include "../stages/partition.hpp"
#include "denoiser.hpp"

namespace multistage {

namespace detail {
/// What every interval (low, high] of noise levels that something acts in must be. @param name
/// of the options, before _low and _high. @throws value_error for one that holds nothing
MULTISTAGE_COLD inline void check_interval(const char* owner,
                                           const char* name,
                                           double low,
                                           double high) {
  require<value_error>(low < high, owner, ": ", name, "_low = ", low, " is not below ", name,
                       "_high = ", high,
                       ": nothing lies between them; lower the one or raise the other");
}
}  // namespace detail

/// How strongly labels, contexts or a weak model guide, and where.
struct guidance {
  double scale = 1;                      ///< w, the weight of D; 1: no guidance
  std::vector<double> scale_by_stage{};  ///< in `scale`'s place where given, stage 0 (lowest
                                         ///< noise) first
  double sigma_low = 0;                  ///< acts for sigma in (sigma_low, sigma_high]
  double sigma_high = HUGE_VAL;          ///< the interval's upper end, inside it

  /// The list of options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"guidance", "scale of guidance; 1: none"}, s.scale);
    visit(option{"guidance_by_stage", "a scale for each stage, lowest noise first"},
          s.scale_by_stage);
    visit(option{"guidance_low", "no guidance at or below this noise level", at_least(0)},
          s.sigma_low);
    visit(option{"guidance_high", "no guidance above this noise level", or_infinite(0)},
          s.sigma_high);
  }
  /// Whether any w differs from 1.
  bool acts() const {
    if (scale_by_stage.empty())
      return scale != 1;
    for (const double w : scale_by_stage)
      if (w != 1)
        return true;
    return false;
  }
  /// @throws value_error where it acts and no noise level lies in its interval
  void check(const char* owner) const {
    if (acts())
      detail::check_interval(owner, "guidance", sigma_low, sigma_high);
  }
  /// w at a noise level. @throws value_error for a stage without a scale
  double at(double sigma, int stage) const {
    if (!(sigma > sigma_low && sigma <= sigma_high))
      return 1;
    if (scale_by_stage.empty())
      return scale;
    require<value_error>(stage >= 0 && stage < int(scale_by_stage.size()),
                         "guidance: ", scale_by_stage.size(), " scales, stage ", stage,
                         " has none");
    return scale_by_stage[std::size_t(stage)];
  }
};

/// A denoiser that another one guides: D_weak + w (D - D_weak). Where w = 1 the weak side is
/// not evaluated.
template <denoiser Strong, denoiser Weak, class Backend = cpu>
class guided {
 public:
  /// @param stages whose numbers choose w where it goes by stage
  guided(Strong strong,
         Weak weak,
         guidance guide,
         partition stages = {},
         Backend backend = Backend())
      : strong_(std::move(strong)),
        weak_(std::move(weak)),
        guide_(std::move(guide)),
        stages_(std::move(stages)),
        backend_(std::move(backend)) {
    guide_.check("guided");
  }

  /// @see denoiser. @throws value_error for a stage without a scale
  void operator()(view<const double> x, double sigma, view<double> denoised) {
    strong_(x, sigma, denoised);
    const double w = guide_.at(sigma, stages_.stage(sigma));
    if (w == 1)
      return;
    const index_t size = denoised.extents.size();
    if (!second_ || second_->size() < size) {
      second_ = nullptr;  // first, so that both are never there at once
      second_ = std::make_unique<tensor<double, Backend>>(backend_, denoised.extents);
    }
    const view<double> second(second_->data(), denoised.extents);
    weak_(x, sigma, second);
    ops::linear_combination<Backend, double>(backend_, size, denoised.data,
                                             {{w, denoised.data}, {1 - w, second.data}});
  }

 private:
  Strong strong_;
  Weak weak_;
  guidance guide_;
  partition stages_;
  Backend backend_;
  std::unique_ptr<tensor<double, Backend>> second_;  // D_weak
};

}  // namespace multistage
