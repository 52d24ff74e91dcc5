// A drawing surface that becomes a picture: a thin layer over cairo, in pixels, with the
// library's few colours.
//
//   canvas c(320, 200);
//   c.line(20, 180, 300, 20, stage_colour(0), 2);
//   c.text(160, 100, "loss", 14, 0.5);
//   c.save("line.png");
#pragma once
#include <cairo/cairo.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "file.hpp"
#include "png.hpp"

namespace multistage::io {

/// Red, green and blue, each in [0, 1].
struct colour {
  double r;  ///< red
  double g;  ///< green
  double b;  ///< blue
};

/// Colours of stages, lowest noise first; they repeat after six.
inline colour stage_colour(int stage) {
  static constexpr colour colours[] = {{0.12, 0.47, 0.71}, {0.89, 0.47, 0.10},
                                       {0.20, 0.55, 0.24}, {0.58, 0.35, 0.71},
                                       {0.75, 0.22, 0.22}, {0.40, 0.40, 0.40}};
  return colours[stage % 6];
}
/// One of so many colours that differ in hue.
inline colour hue_colour(int place, int count) {
  const double turn = 6.0 * place / count;
  constexpr double light = 0.8;
  return {light * std::clamp(std::fabs(turn - 3) - 1, 0.0, 1.0),
          light * std::clamp(2 - std::fabs(turn - 2), 0.0, 1.0),
          light * std::clamp(2 - std::fabs(turn - 4), 0.0, 1.0)};
}
/// A sequential scale from dark blue over green to yellow for values in [0, 1], lighter for
/// more.
inline colour scale_colour(double v) {
  static constexpr colour stops[] = {{0.27, 0.00, 0.33}, {0.28, 0.20, 0.48}, {0.21, 0.36, 0.55},
                                     {0.15, 0.50, 0.56}, {0.12, 0.63, 0.53}, {0.36, 0.78, 0.38},
                                     {0.67, 0.86, 0.20}, {0.99, 0.91, 0.14}};
  const double at = std::clamp(v, 0.0, 1.0) * 7;
  const int i = std::min(int(at), 6);
  const double f = at - i;
  return {stops[i].r + f * (stops[i + 1].r - stops[i].r),
          stops[i].g + f * (stops[i + 1].g - stops[i].g),
          stops[i].b + f * (stops[i + 1].b - stops[i].b)};
}

/// A picture that is drawn on, measured in pixels from its upper left corner, y downwards.
/// Copies share the picture.
class canvas {
 public:
  static constexpr colour ink{0.13, 0.13, 0.13};    ///< of text
  static constexpr colour grey{0.55, 0.55, 0.55};   ///< of frames and what should recede
  static constexpr colour light{0.88, 0.88, 0.88};  ///< of lines behind what is shown
  static constexpr colour paper{1, 1, 1};           ///< of the background

  /// A white picture. @throws error for a size that cairo does not draw (above 32767)
  canvas(int width, int height)
      : width_(width),
        height_(height),
        surface_(cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height),
                 cairo_surface_destroy),
        c_(cairo_create(surface_.get()), cairo_destroy) {
    require<error>(cairo_status(c_.get()) == CAIRO_STATUS_SUCCESS, "canvas: ", width, " x ",
                   height, " pixels: ", cairo_status_to_string(cairo_status(c_.get())));
    cairo_select_font_face(c_.get(), "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                           CAIRO_FONT_WEIGHT_NORMAL);
    rectangle(0, 0, width, height, paper);
  }
  /// In pixels.
  int width() const {
    return width_;
  }
  /// In pixels.
  int height() const {
    return height_;
  }

  /// Filled, its edges on whole pixels.
  void rectangle(double x, double y, double w, double h, colour k) {
    set(k);
    cairo_set_antialias(c_.get(), CAIRO_ANTIALIAS_NONE);
    cairo_rectangle(c_.get(), x, y, w, h);
    cairo_fill(c_.get());
    cairo_set_antialias(c_.get(), CAIRO_ANTIALIAS_DEFAULT);
  }
  /// The outline alone.
  void frame(double x, double y, double w, double h, colour k, double thickness = 1) {
    set(k);
    cairo_set_line_width(c_.get(), thickness);
    cairo_rectangle(c_.get(), x, y, w, h);
    cairo_stroke(c_.get());
  }
  /// A straight line. @param dashed 5 pixels drawn, 4 left out
  void line(double x0,
            double y0,
            double x1,
            double y1,
            colour k,
            double thickness = 1,
            bool dashed = false) {
    set(k);
    cairo_set_line_width(c_.get(), thickness);
    const double dash[] = {5, 4};
    cairo_set_dash(c_.get(), dash, dashed ? 2 : 0, 0);
    cairo_move_to(c_.get(), x0, y0);
    cairo_line_to(c_.get(), x1, y1);
    cairo_stroke(c_.get());
    cairo_set_dash(c_.get(), nullptr, 0, 0);
  }
  /// @param align 0 left, 0.5 centred, 1 right of x; y is the text's vertical middle. @param
  /// turned by a quarter to the left
  void text(double x,
            double y,
            const std::string& s,
            double size = 13,
            double align = 0,
            colour k = ink,
            bool turned = false) {
    set(k);
    cairo_set_font_size(c_.get(), size);
    cairo_text_extents_t e;
    cairo_text_extents(c_.get(), s.c_str(), &e);
    cairo_save(c_.get());
    cairo_translate(c_.get(), x, y);
    if (turned)
      cairo_rotate(c_.get(), -1.5707963267948966);
    cairo_move_to(c_.get(), -align * e.x_advance, 0.36 * size);
    cairo_show_text(c_.get(), s.c_str());
    cairo_restore(c_.get());
  }
  /// An image of values in [-1, 1] (h, w, c; c = 1 grey, else the first three are RGB), each
  /// value a square of `zoom` pixels.
  template <class T>
  void image(double x, double y, const T* values, long h, long w, long c, int zoom) {
    for (long i = 0; i < h; ++i)
      for (long j = 0; j < w; ++j) {
        const auto level = [&](long k) {
          return std::clamp((double(values[(i * w + j) * c + (c >= 3 ? k : 0)]) + 1) / 2, 0.0,
                            1.0);
        };
        rectangle(x + double(j * zoom), y + double(i * zoom), zoom, zoom,
                  {level(0), level(1), level(2)});
      }
  }
  /// What has been drawn, in colours.
  picture pixels() const {
    cairo_surface_flush(surface_.get());
    const unsigned char* row = cairo_image_surface_get_data(surface_.get());
    const std::ptrdiff_t stride = cairo_image_surface_get_stride(surface_.get());
    picture p{height_, width_, 3,
              std::vector<unsigned char>(std::size_t(height_) * width_ * 3)};
    unsigned char* to = p.bytes.data();
    for (int i = 0; i < height_; ++i, row += stride)
      for (int j = 0; j < width_; ++j) {
        std::uint32_t colours;  // 0x00RRGGBB, whatever the machine's order of bytes
        std::memcpy(&colours, row + 4 * j, 4);
        for (const int shift : {16, 8, 0})
          *to++ = static_cast<unsigned char>(colours >> shift & 255);
      }
    return p;
  }
  /// The picture as PNG bytes, of one channel where nothing is coloured. @param texts what it
  /// says of itself
  std::string png(const picture_texts& texts = {}) const {
    return encode_png(detail::without_needless_colours(pixels()), texts);
  }
  /// Writes the same, atomically. @throws file_error
  void save(const std::string& path, const picture_texts& texts = {}) const {
    write_file(path, png(texts));
  }

 private:
  /// The colour of what is drawn next.
  void set(colour k) {
    cairo_set_source_rgb(c_.get(), k.r, k.g, k.b);
  }
  int width_;
  int height_;
  std::shared_ptr<cairo_surface_t> surface_;
  std::shared_ptr<cairo_t> c_;
};

}  // namespace multistage::io
