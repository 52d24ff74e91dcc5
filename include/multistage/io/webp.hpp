// WebP by libwebp, where the macro MULTISTAGE_WEBP says that it is linked: transparency is
// drawn on the background, EXIF's orientation and colour profiles are applied.
#pragma once
#ifdef MULTISTAGE_WEBP
#include <webp/decode.h>
#include <webp/demux.h>

#include "colour_profile.hpp"

namespace multistage::io {

namespace detail {

/// What the header promises. @throws file_error for one that is broken, an animation, or too
/// many pixels
inline WebPBitstreamFeatures webp_features(const std::string& path,
                                           std::span<const unsigned char> bytes,
                                           const picture_options& options) {
  WebPBitstreamFeatures f;
  const VP8StatusCode status = WebPGetFeatures(bytes.data(), bytes.size(), &f);
  require<file_error>(status == VP8_STATUS_OK, path, ": is not a sound WebP: its header is ",
                      status == VP8_STATUS_NOT_ENOUGH_DATA ? "cut" : "broken");
  require<file_error>(!f.has_animation, path,
                      ": is an animation; pictures that stand still are read");
  check_pixels(path, std::uint64_t(f.width), std::uint64_t(f.height), options.most_pixels);
  return f;
}

/// A chunk of a whole file: some stand behind the pixels. Nothing where there is none.
inline std::vector<unsigned char> webp_chunk(std::span<const unsigned char> bytes,
                                             const char* kind) {
  const WebPData data{bytes.data(), bytes.size()};
  WebPDemuxState state;
  const std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer(
      WebPDemuxPartial(&data, &state), WebPDemuxDelete);
  WebPChunkIterator chunk;
  if (!demuxer || !WebPDemuxGetChunk(demuxer.get(), kind, 1, &chunk))
    return {};
  const std::vector<unsigned char> found(chunk.chunk.bytes,
                                         chunk.chunk.bytes + chunk.chunk.size);
  WebPDemuxReleaseChunkIterator(&chunk);
  return found;
}

/// How the picture is to be turned.
inline int webp_orientation(std::span<const unsigned char> bytes) {
  const std::vector<unsigned char> chunk = webp_chunk(bytes, "EXIF");
  std::span<const unsigned char> exif(chunk);
  constexpr char prefix[] = "Exif\0";  // six bytes that some programs leave there from JPEG
  if (exif.size() > 6 && std::equal(prefix, prefix + 6, exif.begin()))
    exif = exif.subspan(6);
  return exif_orientation(exif);
}

/// What the picture will be, the right way up. @throws file_error
inline picture_header webp_header(const std::string& path,
                                  std::span<const unsigned char> bytes,
                                  const picture_options& options) {
  const WebPBitstreamFeatures f = webp_features(path, bytes, options);
  return turned(f.height, f.width, 3, webp_orientation(bytes));
}

}  // namespace detail

/// A WebP's picture. @throws file_error saying what is wrong with it
inline picture decode_webp(const std::string& path,
                           std::span<const unsigned char> bytes,
                           const picture_options& options = {}) {
  const WebPBitstreamFeatures f = detail::webp_features(path, bytes, options);
  // libwebp writes into memory of ours, with an opacity behind each pixel where the file has
  // one.
  const std::size_t channels = f.has_alpha ? 4 : 3;
  picture p{f.height, f.width, 3, {}};
  p.bytes.resize(std::size_t(p.height * p.width) * channels);
  const int stride = int(channels) * f.width;
  const bool read = f.has_alpha ? WebPDecodeRGBAInto(bytes.data(), bytes.size(), p.bytes.data(),
                                                     p.bytes.size(), stride)
                                : WebPDecodeRGBInto(bytes.data(), bytes.size(), p.bytes.data(),
                                                    p.bytes.size(), stride);
  require<file_error>(read, path, ": is not a sound WebP: its pixels are cut or broken");
  detail::to_srgb(path, detail::webp_chunk(bytes, "ICCP"), p.bytes, 3, f.has_alpha, options);
  if (f.has_alpha)
    detail::draw_on(options.background, p.bytes, 3);
  return detail::upright(std::move(p), detail::webp_orientation(bytes));
}

}  // namespace multistage::io
#endif
