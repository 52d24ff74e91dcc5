// this backend does not compute networks in this scalar type: choose float or double
// lines: 15
#include <multistage/multistage.hpp>
namespace ms = multistage;
using model = ms::multi_decoder<ms::song_unet{.resolution = 8},
                                ms::decoders{128, 64},
                                ms::edm_schedule,
                                ms::cpu,
                                signed char>;
int main() {
  model net(ms::partition({1.0}), ms::seed{1});
}
