// norm groups do not divide a layer's channels
// also: choose encoder_channels and decoder widths that are multiples of norm_groups
// also: group_norm<false, multistage::detail::encoder, multistage::detail::at_resolution<32, 32>
// also: multistage::detail::channels<72>, multistage::detail::groups<16>
// lines: 15
#include <multistage/multistage.hpp>
using model =
    multistage::multi_decoder<multistage::song_unet{.encoder_channels = 72, .norm_groups = 16},
                              multistage::decoders{64}>;
int main() {
  return int(model::parameters);
}
