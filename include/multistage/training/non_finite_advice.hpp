// What every trainer says to do when a value is not finite.
#pragma once

namespace multistage::detail {

/// The end of such a message.
inline constexpr const char* non_finite_advice =
    "; nothing was updated: lower the learning rate, set gradient_clip, or look at the images";

}  // namespace multistage::detail
