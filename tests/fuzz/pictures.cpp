// Any bytes as a PNG, JPEG or WebP: an error of the library, or a picture as large as its
// header says.
#include <multistage/io/pictures.hpp>

namespace ms = multistage;

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const auto quiet = ms::set_warning_handler([](const std::string&) {});
  ms::io::picture_warnings warnings;
  const ms::io::picture_options options{std::uint64_t{1} << 16, &warnings};
  const std::span<const unsigned char> bytes(data, size);
  try {
    const ms::io::picture p = ms::io::decode_picture("fuzz", bytes, options);
    const ms::io::picture_header h = ms::io::decode_picture_header("fuzz", bytes, options);
    if (h.height != p.height || h.width != p.width || h.channels != p.channels)
      __builtin_trap();
    if (std::uint64_t(p.height * p.width) > options.most_pixels)
      __builtin_trap();
    if (ms::index_t(p.bytes.size()) != p.height * p.width * p.channels)
      __builtin_trap();
    // What was read survives being written.
    const std::string png = ms::io::encode_png(p);
    const std::span<const unsigned char> written(
        reinterpret_cast<const unsigned char*>(png.data()), png.size());
    if (ms::io::decode_png("fuzz", written, options).bytes != p.bytes)
      __builtin_trap();
  } catch (const ms::error&) {
  }
  return 0;
}
