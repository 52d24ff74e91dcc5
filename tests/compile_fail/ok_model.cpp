// the neighbours of these mistakes compile
#include <multistage/multistage.hpp>
using model = multistage::multi_decoder<multistage::song_unet{.resolution = 28,
                                                              .channel_mult = {1, 2, 2},
                                                              .attn_resolutions = {14}},
                                        multistage::decoders{64, 32}>;
static_assert(model::stage_count == 2 && model::macs(0) > model::macs(1));
int main() {
  return 0;
}
