// resolution must be divisible by 2 for every level
#include <multistage/multistage.hpp>
using model = multistage::multi_decoder<multistage::song_unet{.resolution = 30,
                                                              .channel_mult = {1, 2, 2}},
                                        multistage::decoders{{16, 8}}>;
int main() {
  return int(model::parameters);
}
