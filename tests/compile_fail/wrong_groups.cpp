// norm groups do not divide a layer's channels
#include <multistage/multistage.hpp>
using model = multistage::multi_decoder<multistage::song_unet{.encoder_channels = 72, .norm_groups = 16}, multistage::decoders{{64}}>;
int main() { return int(model::parameters); }
