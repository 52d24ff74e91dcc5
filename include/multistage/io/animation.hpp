// Pictures one after the other as one file that browsers play: animated WebP by libwebp, where
// the macro MULTISTAGE_WEBP says that it is linked. Without loss, so that small pictures keep
// their pixels. Frames are taken one at a time: how many there are costs no memory but that of
// the file.
//
//   animation film(width, height, 200);
//   for (const picture& p : pictures)
//     film.add(p);
//   write_file("samples.webp", film.finish());
#pragma once
#ifdef MULTISTAGE_WEBP
#include <webp/encode.h>
#include <webp/mux.h>

#include <memory>

#include "picture.hpp"

namespace multistage::io {

/// An animation that repeats for ever.
class animation {
 public:
  /// @param milliseconds that each frame is shown; the last one eight times as long. @throws
  /// value_error for a size or a time that is none; error when libwebp refuses
  MULTISTAGE_COLD animation(index_t width, index_t height, int milliseconds)
      : width_(int(width)),
        height_(int(height)),
        milliseconds_(milliseconds) {
    require<value_error>(width > 0 && height > 0 && milliseconds > 0, "animation: ", width,
                         " x ", height, " pixels, each for ", milliseconds,
                         " milliseconds; all must be above 0");
    WebPAnimEncoderOptions options;
    require<error>(WebPAnimEncoderOptionsInit(&options) && WebPConfigInit(&config_),
                   "animation: libwebp is of another version than its headers");
    constexpr int effort = 2;  // of 9
    WebPConfigLosslessPreset(&config_, effort);
    encoder_.reset(WebPAnimEncoderNew(width_, height_, &options));
    require<error>(encoder_ != nullptr, "animation: libwebp cannot begin one of ", width, " x ",
                   height, " pixels");
  }

  /// The next frame, grey or in colours. @throws value_error for one of another size; error
  /// when libwebp refuses it
  MULTISTAGE_COLD void add(const picture& p) {
    require<value_error>(
        p.width == width_ && p.height == height_ && (p.channels == 1 || p.channels == 3),
        "animation: a frame of ", p.width, " x ", p.height, " x ", p.channels,
        " among those of ", width_, " x ", height_);
    colours_.clear();
    for (const unsigned char byte : p.bytes)
      colours_.insert(colours_.end(), p.channels == 1 ? 3 : 1, byte);
    WebPPicture frame;
    bool good = WebPPictureInit(&frame) != 0;
    frame.width = width_;
    frame.height = height_;
    frame.use_argb = 1;
    good = good && WebPPictureImportRGB(&frame, colours_.data(), 3 * width_) &&
           WebPAnimEncoderAdd(encoder_.get(), &frame, at_, &config_);
    WebPPictureFree(&frame);
    check(good, "refuses a frame");
    at_ += milliseconds_;
  }

  /// The file; nothing is added afterwards. @throws value_error without frames; error when
  /// libwebp refuses
  MULTISTAGE_COLD std::string finish() {
    require<value_error>(at_ > 0, "animation: no frames; add one at least");
    at_ += 7 * milliseconds_;
    WebPData data;
    WebPDataInit(&data);
    const bool whole = WebPAnimEncoderAdd(encoder_.get(), nullptr, at_, &config_) &&  // the end
                       WebPAnimEncoderAssemble(encoder_.get(), &data);
    const std::unique_ptr<WebPData, void (*)(WebPData*)> owner(&data, WebPDataClear);
    check(whole, "cannot finish");
    return {reinterpret_cast<const char*>(data.bytes), data.size};
  }

 private:
  void check(bool good, const char* what) const {
    require<error>(good, "animation: libwebp ", what, ": ",
                   WebPAnimEncoderGetError(encoder_.get()));
  }

  int width_;
  int height_;
  int milliseconds_;
  int at_ = 0;  // when the next frame is shown
  WebPConfig config_;
  std::unique_ptr<WebPAnimEncoder, void (*)(WebPAnimEncoder*)> encoder_{nullptr,
                                                                        WebPAnimEncoderDelete};
  std::vector<unsigned char> colours_{};  // of a frame
};

}  // namespace multistage::io
#endif
