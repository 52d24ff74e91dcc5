// attn_resolution
// lines: 50
#include <multistage/multistage.hpp>
namespace ms = multistage;
using model = ms::multi_decoder<ms::song_unet{.resolution = 8, .attn_resolution = {4}},
                                ms::decoders{128, 64}>;
int main() {
  model net(ms::partition({1.0}), ms::seed{1});
}
