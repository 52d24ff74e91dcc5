// JPEG by libjpeg, where the macro MULTISTAGE_JPEG says that it is linked: grey stays grey,
// CMYK and YCCK become RGB, EXIF's orientation and colour profiles of RGB and grey are applied,
// libjpeg's warnings are warnings.
//
// libjpeg reports errors by longjmp, too, and is kept apart in the same way.
//
//   picture p = decode_jpeg("cat.jpg", read_file("cat.jpg"));
#pragma once
#ifdef MULTISTAGE_JPEG
#include <csetjmp>
#include <cstdio>
#include <cstring>
// jpeglib.h needs stdio.h before it
#include <jpeglib.h>

#include "colour_profile.hpp"

namespace multistage::io {

namespace detail {

/// libjpeg's structures for reading from memory, with its errors as jumps back.
class jpeg_reader {
 public:
  jpeg_reader(const std::string& path,
              std::span<const unsigned char> bytes,
              const picture_options& options)
      : jpeg_reader(path, options) {
    guarded([&] {
      jpeg_create_decompress(&d_);
      jpeg_mem_src(&d_, bytes.data(), static_cast<unsigned long>(bytes.size()));
      jpeg_save_markers(&d_, JPEG_APP0 + 1, 0xffff);
      jpeg_save_markers(&d_, JPEG_APP0 + 2, 0xffff);
      jpeg_read_header(&d_, TRUE);
    });
    // libjpeg forgets its markers when it is done with the pixels.
    orientation_ = find_orientation();
    profile_ = find_profile();
    check_pixels(path_, d_.image_width, d_.image_height, options_.most_pixels);
  }
  ~jpeg_reader() {
    jpeg_destroy_decompress(&d_);
  }
  jpeg_reader(const jpeg_reader&) = delete;
  jpeg_reader& operator=(const jpeg_reader&) = delete;

  /// What the picture will be, the right way up.
  picture_header header() const {
    return turned(d_.image_height, d_.image_width, grey() ? 1 : 3, orientation_);
  }
  /// The pixels. Inks (CMYK, YCCK) become red, green and blue. @throws file_error
  picture decode() {
    d_.progress = &passes_;
    const bool inks = d_.jpeg_color_space == JCS_CMYK || d_.jpeg_color_space == JCS_YCCK;
    picture p;
    guarded([&] {
      d_.out_color_space = inks ? JCS_CMYK : grey() ? JCS_GRAYSCALE : JCS_RGB;
      jpeg_start_decompress(&d_);
    });
    p.height = d_.output_height;
    p.width = d_.output_width;
    p.channels = d_.output_components;
    p.bytes.resize(std::size_t(p.height * p.width * p.channels));
    guarded([&] {
      while (d_.output_scanline < d_.output_height) {
        JSAMPROW row = p.bytes.data() + std::size_t(d_.output_scanline) * std::size_t(p.width) *
                                            std::size_t(p.channels);
        jpeg_read_scanlines(&d_, &row, 1);
      }
      jpeg_finish_decompress(&d_);
    });
    if (warned_)
      options_.warn(path_, warning_);
    if (inks)
      to_colours(p);
    else
      to_srgb(path_, profile_, p.bytes, p.channels, false, options_);
    return upright(std::move(p), orientation_);
  }

 private:
  jpeg_reader(const std::string& path, const picture_options& options)
      : path_(path),
        options_(options) {
    d_.err = jpeg_std_error(&errors_);
    d_.client_data = this;
    errors_.error_exit = [](j_common_ptr c) {
      jpeg_reader& r = *static_cast<jpeg_reader*>(c->client_data);
      c->err->format_message(c, r.text_);
      std::longjmp(r.guard_, 1);
    };
    errors_.emit_message = [](j_common_ptr c, int level) {
      jpeg_reader& r = *static_cast<jpeg_reader*>(c->client_data);
      if (level >= 0 || r.warned_)
        return;  // traces; the first warning stands for all
      r.warned_ = true;
      c->err->format_message(c, r.warning_);
    };
    // A progressive file may ask for any number of passes over a large picture; no encoder
    // makes 500.
    passes_.progress_monitor = [](j_common_ptr c) {
      jpeg_reader& r = *static_cast<jpeg_reader*>(c->client_data);
      if (reinterpret_cast<j_decompress_ptr>(c)->input_scan_number <= 500)
        return;
      std::snprintf(r.text_, sizeof r.text_, "it has more than 500 scans");
      std::longjmp(r.guard_, 1);
    };
  }
  /// Whether its only component is brightness.
  bool grey() const {
    return d_.jpeg_color_space == JCS_GRAYSCALE;
  }
  /// Light that inks leave. Adobe's programs store inks inverted, and say that they wrote the
  /// file.
  void to_colours(picture& p) const {
    const unsigned inverted = d_.saw_Adobe_marker ? 0 : 255;
    unsigned char* to = p.bytes.data();
    for (index_t i = 0; i < p.height * p.width; ++i) {
      const unsigned char* from = p.bytes.data() + 4 * i;
      const unsigned black = from[3] ^ inverted;
      for (std::size_t c = 0; c < 3; ++c)
        *to++ = static_cast<unsigned char>(((from[c] ^ inverted) * black + 127) / 255);
    }
    p.channels = 3;
    p.bytes.resize(std::size_t(p.height * p.width * 3));
  }
  int find_orientation() const {
    for (jpeg_saved_marker_ptr m = d_.marker_list; m; m = m->next)
      if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 &&
          std::memcmp(m->data, "Exif\0\0", 6) == 0)
        return exif_orientation({m->data + 6, m->data_length - 6});
    return 1;
  }
  /// The colour profile, which may be cut into parts: "ICC_PROFILE", a zero, the part's number
  /// from 1 and how many there are, bytes (ICC.1, annex B.4).
  std::vector<unsigned char> find_profile() const {
    std::vector<unsigned char> whole;
    unsigned part = 1;
    for (jpeg_saved_marker_ptr m = d_.marker_list; m; m = m->next) {
      if (m->marker != JPEG_APP0 + 2 || m->data_length < 14 ||
          std::memcmp(m->data, "ICC_PROFILE", 12) != 0)
        continue;
      if (m->data[12] != part++)
        return {};  // parts are missing, or in no order that encoders write
      whole.insert(whole.end(), m->data + 14, m->data + m->data_length);
    }
    return whole;
  }
  /// Runs f, which may have no objects that need a destructor. @throws file_error when libjpeg
  /// refuses
  template <class F>
  void guarded(const F& f) {
    if (setjmp(guard_)) {
      const std::string text = text_;
      const std::string before = warned_ ? std::string(" (before that: ") + warning_ + ")" : "";
      fail<file_error>(path_, ": is not a sound JPEG: ", text, before);
    }
    f();
  }

  const std::string& path_;
  const picture_options& options_;
  jpeg_error_mgr errors_{};
  jpeg_decompress_struct d_{};
  jpeg_progress_mgr passes_{};
  std::jmp_buf guard_;
  char text_[JMSG_LENGTH_MAX] = "";
  char warning_[JMSG_LENGTH_MAX] = "";
  bool warned_ = false;
  int orientation_ = 1;
  std::vector<unsigned char> profile_;
};

}  // namespace detail

/// A JPEG's picture. @throws file_error saying what is wrong with it
inline picture decode_jpeg(const std::string& path,
                           std::span<const unsigned char> bytes,
                           const picture_options& options = {}) {
  return detail::jpeg_reader(path, bytes, options).decode();
}

}  // namespace multistage::io
#endif
