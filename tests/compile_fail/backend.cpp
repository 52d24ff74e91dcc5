// the template argument behind the schedule is the backend
// also: multistage::cpu, eigen, thrust_host, cuda
// lines: 15
#include <multistage/multistage.hpp>
namespace ms = multistage;
using model = ms::
    multi_decoder<ms::song_unet{.resolution = 8}, ms::decoders{128, 64}, ms::edm_schedule, int>;
int main() {
  model net(ms::partition({1.0}), ms::seed{1});
}
