// this type is no schedule of a model
// also: ddpm_schedule (for discrete_schedule)
// also: preconditioning_for
#include <multistage/multistage.hpp>
#include <multistage/schedule/any_schedule.hpp>
namespace ms = multistage;

int main() {
  constexpr ms::song_unet network{.resolution = 8,
                                  .channels = 1,
                                  .encoder_channels = 8,
                                  .channel_mult = {1},
                                  .num_blocks = 1,
                                  .attn_resolutions = {}};
  ms::multi_decoder<network, ms::decoders{8, 8}, ms::any_schedule> model(ms::partition({1.0}));
}
