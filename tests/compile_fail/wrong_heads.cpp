// attention heads do not divide the channels: choose widths that are multiples of a head's channels
// also: multistage::detail::channels<32>, multistage::detail::heads<3>
// lines: 15
#include <multistage/multistage.hpp>
using net = multistage::ldm_unet;
using model = multistage::multi_decoder<net{.resolution = 16,
                                            .encoder_channels = 32,
                                            .channel_mult = {1},
                                            .num_blocks = 1,
                                            .attn_downsample = {1},
                                            .num_head_channels = 0,
                                            .num_heads = 3},
                                        multistage::decoders{32}>;
int main() {
  return int(model::parameters);
}
