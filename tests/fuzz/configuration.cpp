// Any text as a configuration: an error of the library that names the key, or a network that
// can be recorded (small ones are).
#include <multistage/io/json.hpp>

namespace ms = multistage;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto j = ms::io::json::parse(data, data + size, nullptr, false);
  if (j.is_discarded())
    return 0;
  try {
    const ms::configuration c = ms::io::configuration_from_json(j);
    ms::io::configuration_from_json(ms::io::to_json(c));  // what was accepted survives
    const bool small = std::visit([](const auto& n) { return n.num_blocks < 4; }, c.network) &&
                       c.stages.blocks[0] < 4;
    if (small)
      ms::record(c);
  } catch (const ms::error&) {
  }
  try {
    ms::check_settings(ms::io::autoencoder_from_json(j));
  } catch (const ms::error&) {
  }
  try {
    ms::io::partition_from_json(
        j.is_object() && j.contains("stage_boundaries") ? j["stage_boundaries"] : j);
  } catch (const ms::error&) {
  }
  return 0;
}
