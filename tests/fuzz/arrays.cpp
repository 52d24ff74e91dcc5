// Any bytes as an npy array or an IDX file, and as images of either.
#include <multistage/io/idx.hpp>
#include <multistage/io/npy.hpp>

namespace ms = multistage;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::vector<unsigned char> bytes(data, data + size);
  try {
    ms::io::images_from(ms::io::parse_npy("fuzz", bytes), "fuzz");
  } catch (const ms::error&) {
  }
  try {
    ms::io::parse_idx("fuzz", bytes);
  } catch (const ms::error&) {
  }
  return 0;
}
