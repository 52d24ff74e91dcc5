// How the learning rate goes on after its warm-up, as a function of the images seen:
//   constant              rate
//   cosine                least + (rate - least) (1 + cos(pi n / N)) / 2, then least
//   (Loshchilov
//                         and Hutter, arXiv 1608.03983, eq. 5, without restarts)
//   inverse_square_root   rate / sqrt(max(n / N, 1)) (Karras et al., arXiv 2312.02696, eq. 67)
// each times min(n / warm-up, 1).
#pragma once
#include <algorithm>
#include <cmath>

#include "../core/options.hpp"

namespace multistage {

/// What becomes of the learning rate.
enum class rate_decay { constant, cosine, inverse_square_root };
/// As options call them.
constexpr auto option_names(rate_decay) {
  return std::array{"constant", "cosine", "inverse_square_root"};
}

/// The learning rate as a function of time.
struct learning_rate_schedule {
  rate_decay decay = rate_decay::constant;
  double decay_kimg = 0;
  double least = 0;

  /// Names the options (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"lr_decay", "what becomes of the learning rate after its warm-up"},
          self.decay);
    visit(option{"lr_decay_kimg",
                 "thousand images at which cosine arrives at lr_least, or from which on "
                 "inverse_square_root falls",
                 at_least(0)},
          self.decay_kimg);
    visit(option{"lr_least", "the learning rate at which cosine ends", at_least(0)},
          self.least);
  }

  /// The rate of a step. @param peak the rate without warm-up and decay. @param rampup_kimg
  /// thousand images of the warm-up, 0: none. @param images seen before the step
  double rate(double peak, double rampup_kimg, double images) const {
    const double warm = rampup_kimg > 0 ? std::min(images / (rampup_kimg * 1000), 1.0) : 1.0;
    return decayed(peak, images) * warm;
  }

 private:
  double decayed(double peak, double images) const {
    constexpr double pi = 3.14159265358979323846;
    const double end = decay_kimg * 1000;
    switch (decay) {
      case rate_decay::cosine:
        return least + (peak - least) * (1 + std::cos(pi * std::min(images / end, 1.0))) / 2;
      case rate_decay::inverse_square_root:
        return peak / std::sqrt(std::max(images / end, 1.0));
      default:
        return peak;
    }
  }
};

/// @throws value_error for options that do not go together
MULTISTAGE_COLD inline void check(const learning_rate_schedule& s, double peak) {
  require<value_error>(s.decay == rate_decay::constant || s.decay_kimg > 0,
                       "trainer: lr_decay = ", to_string(s.decay),
                       " needs lr_decay_kimg, the thousand images of the decay");
  require<value_error>(s.least <= peak, "trainer: lr_least = ", s.least,
                       " is above learning_rate = ", peak, "; it is where the rate ends");
}

}  // namespace multistage
