// Pictures one after the other as one file that browsers play: animated WebP by libwebp, where
// the macro MULTISTAGE_WEBP says that it is linked. Without loss, so that small pictures keep
// their pixels.
//
//   write_file("samples.webp", encode_animation(frames, 200));
#pragma once
#ifdef MULTISTAGE_WEBP
#include <webp/encode.h>
#include <webp/mux.h>

#include <memory>

#include "picture.hpp"

namespace multistage::io {

/// An animation that repeats for ever. @param frames of one size, grey or in colours.
/// @param milliseconds that each is shown; the last one eight times as long
/// @throws value_error without frames, or for frames of several sizes; error when libwebp
/// refuses
MULTISTAGE_COLD inline std::string encode_animation(const std::vector<picture>& frames,
                                                    int milliseconds) {
  require<value_error>(!frames.empty() && milliseconds > 0,
                       "animation: no frames, or none that is shown; give at least one");
  const int width = int(frames.front().width);
  const int height = int(frames.front().height);
  WebPAnimEncoderOptions options;
  require<error>(WebPAnimEncoderOptionsInit(&options),
                 "animation: libwebp is of another "
                 "version than its headers");
  const std::unique_ptr<WebPAnimEncoder, void (*)(WebPAnimEncoder*)> encoder(
      WebPAnimEncoderNew(width, height, &options), WebPAnimEncoderDelete);
  WebPConfig config;
  require<error>(encoder && WebPConfigInit(&config), "animation: libwebp cannot begin one of ",
                 width, " x ", height, " pixels");
  constexpr int effort = 2;  // of 9
  WebPConfigLosslessPreset(&config, effort);
  int at = 0;
  std::vector<unsigned char> colours;
  const auto add = [&](const picture* p) {
    WebPPicture frame;
    bool good = WebPPictureInit(&frame) != 0;
    frame.width = width;
    frame.height = height;
    frame.use_argb = 1;
    if (p) {
      colours.clear();
      for (std::size_t i = 0; i < p->bytes.size(); ++i)
        colours.insert(colours.end(), p->channels == 1 ? 3 : 1, p->bytes[i]);
      good = good && WebPPictureImportRGB(&frame, colours.data(), 3 * width);
    }
    good = good && WebPAnimEncoderAdd(encoder.get(), p ? &frame : nullptr, at, &config);
    WebPPictureFree(&frame);
    require<error>(
        good, "animation: libwebp refuses a frame: ", WebPAnimEncoderGetError(encoder.get()));
  };
  for (const picture& p : frames) {
    require<value_error>(
        p.width == width && p.height == height && (p.channels == 1 || p.channels == 3),
        "animation: a frame of ", p.width, " x ", p.height, " x ", p.channels,
        " among those of ", width, " x ", height);
    add(&p);
    at += milliseconds;
  }
  at += 7 * milliseconds;
  add(nullptr);  // the end
  WebPData data;
  WebPDataInit(&data);
  const bool whole = WebPAnimEncoderAssemble(encoder.get(), &data) != 0;
  const std::unique_ptr<WebPData, void (*)(WebPData*)> owner(&data, WebPDataClear);
  require<error>(whole,
                 "animation: libwebp cannot finish: ", WebPAnimEncoderGetError(encoder.get()));
  return {reinterpret_cast<const char*>(data.bytes), data.size};
}

}  // namespace multistage::io
#endif
