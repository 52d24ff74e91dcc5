// The options of how weights move that every trainer has. Its struct of options holds them with
// defaults of its own; what they are called and mean is said here, once.
#pragma once
#include "adam.hpp"

namespace multistage {

/// Visits learning_rate, adam, lr_rampup_kimg, ema_halflife_kimg, ema_rampup_ratio and
/// gradient_clip of a struct of options (core/options.hpp).
template <class Self, class Visit>
void visit_update_options(Self& self, Visit& visit) {
  visit(option{"learning_rate", "of Adam", above(0)}, self.learning_rate);
  adam_options::fields(self.adam, visit);
  visit(option{"lr_rampup_kimg", "thousand images over which the rate grows; 0: none",
               at_least(0)},
        self.lr_rampup_kimg);
  visit(option{"ema_halflife_kimg", "of the average of the weights, in thousand images",
               at_least(0)},
        self.ema_halflife_kimg);
  visit(option{"ema_rampup_ratio",
               "the half-life as a share of the images seen, at most; 0: no such limit",
               at_least(0)},
        self.ema_rampup_ratio);
  visit(option{"gradient_clip", "largest norm of the gradient; 0: no clipping", at_least(0)},
        self.gradient_clip);
}

}  // namespace multistage
