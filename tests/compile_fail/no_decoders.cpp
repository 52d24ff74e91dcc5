// give at least one decoder width
#include <multistage/multistage.hpp>
using model = multistage::multi_decoder<multistage::song_unet{}, multistage::decoders{}>;
int main() { return int(model::parameters); }
