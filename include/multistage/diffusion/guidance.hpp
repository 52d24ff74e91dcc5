// Guidance: D_w = D_weak + w (D - D_weak), where D_weak is the model without its label or
// context (classifier-free, Ho and Salimans, arXiv 2207.12598) or a smaller or less trained
// model (autoguidance, Karras et al., arXiv 2406.02507). w = 1 is no guidance. It may act
// between two noise levels only (Kynkaanniemi et al., arXiv 2404.07724), and each stage may
// have its own w.
#pragma once
#include <cmath>
#include <vector>

#include "../core/options.hpp"

namespace multistage {

/// How strongly labels, contexts or a weak model guide, and where.
struct guidance {
  double scale = 1;
  std::vector<double>
      scale_by_stage{};  ///< in `scale`'s place where given, stage 0 (lowest noise) first
  double sigma_low = 0;  ///< acts for sigma in (sigma_low, sigma_high]
  double sigma_high = HUGE_VAL;

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
  /// Whether it changes anything anywhere.
  bool acts() const {
    if (!(sigma_low < sigma_high))
      return false;
    if (scale_by_stage.empty())
      return scale != 1;
    for (const double w : scale_by_stage)
      if (w != 1)
        return true;
    return false;
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

}  // namespace multistage
