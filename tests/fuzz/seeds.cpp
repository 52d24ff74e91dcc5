// Any text as a list of seeds: an error of the library, or seeds that are the same when they
// are written out one by one. Texts are kept short, so that lists stay within the fuzzer's
// memory.
#include <cstdlib>
#include <multistage/core/seeds.hpp>
#include <string>

namespace ms = multistage;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::size_t digits = 0;
  for (const char c : text) {
    digits = c >= '0' && c <= '9' ? digits + 1 : 0;
    if (digits == 5 && text.find('-') != std::string::npos)
      return 0;  // a range of many
  }
  if (size > 60)
    return 0;
  try {
    const ms::seed_list seeds(text);
    std::string written;
    for (const std::uint64_t seed : seeds) {
      written += written.empty() ? "" : ",";
      written += std::to_string(seed);
    }
    if (!(ms::seed_list(written) == seeds))
      std::abort();
  } catch (const ms::value_error&) {
  }
  return 0;
}
