// Any bytes as a safetensors file, and as weights of a small network: an error of the library,
// or sound tensors.
#include <multistage/io/weights.hpp>
#include <multistage/networks/record.hpp>
#include <multistage/networks/song_unet.hpp>

namespace ms = multistage;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const ms::described_network net = ms::record(ms::song_unet{.resolution = 2,
                                                                    .channels = 1,
                                                                    .encoder_channels = 4,
                                                                    .channel_mult = {1},
                                                                    .num_blocks = 0,
                                                                    .attn_resolutions = {}},
                                                      {.widths = {4}});
  try {
    const ms::io::safetensors f("fuzz", std::vector<unsigned char>(data, data + size));
    for (const auto& [name, entry] : f.tensors()) {
      f.get<float>(name);
      f.get<double>(name);
    }
    ms::io::read_parameters<float>(f, "", net.structure, net.names,
                                   [](const std::string&) { return false; });
  } catch (const ms::error&) {
  }
  return 0;
}
