// norm groups do not divide a layer's channels
// also: choose encoder_channels and decoder widths that are multiples of norm_groups
// also: group_norm<false, multistage::detail::decoder_of_stage<1>
// also: multistage::detail::at_resolution<16, 16>
// also: multistage::detail::channels<16>, multistage::detail::groups<32>
// lines: 15
#include <multistage/multistage.hpp>
using net = multistage::ldm_unet;
using model = multistage::multi_decoder<net{.resolution = 16,
                                            .encoder_channels = 32,
                                            .channel_mult = {1},
                                            .num_blocks = 1,
                                            .attn_downsample = {}},
                                        multistage::decoders{32, 16}>;
int main() {
  return int(model::parameters);
}
