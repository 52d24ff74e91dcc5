// Pictures as files: PNG (cairo) in and out, JPEG in where libjpeg is there, folders of them.
#pragma once
#include <cairo/cairo.h>

#include <cmath>
#include <memory>
#ifdef MULTISTAGE_JPEG
#include <csetjmp>
#include <cstdio>
// jpeglib.h needs stdio.h before it
#include <jpeglib.h>
#endif

#include "file.hpp"
#include "images.hpp"

namespace multistage::io {

/// Interleaved bytes of one picture, 1 or 3 channels.
struct picture {
  index_t height = 0, width = 0, channels = 3;
  std::vector<unsigned char> bytes;
};

/// A byte of a value in [-1, 1]; values outside are clipped.
inline unsigned char to_byte(double v) { return static_cast<unsigned char>(std::lround(std::clamp((v + 1) * 127.5, 0.0, 255.0))); }

/// Writes a PNG atomically. @throws file_error
inline void write_png(const std::string& path, const picture& p) {
  const std::unique_ptr<cairo_surface_t, void (*)(cairo_surface_t*)> s(cairo_image_surface_create(CAIRO_FORMAT_RGB24, int(p.width), int(p.height)),
                                                                       cairo_surface_destroy);
  require<file_error>(cairo_surface_status(s.get()) == CAIRO_STATUS_SUCCESS, path, ": a picture of ", p.width, " x ", p.height, " cannot be made");
  unsigned char* data = cairo_image_surface_get_data(s.get());
  const int stride = cairo_image_surface_get_stride(s.get());
  for (index_t y = 0; y < p.height; ++y)
    for (index_t x = 0; x < p.width; ++x) {
      const unsigned char* from = p.bytes.data() + (y * p.width + x) * p.channels;
      const std::uint32_t r = from[0], g = from[p.channels > 1 ? 1 : 0], b = from[p.channels > 2 ? 2 : 0], pixel = r << 16 | g << 8 | b;
      std::memcpy(data + y * stride + 4 * x, &pixel, 4);
    }
  cairo_surface_mark_dirty(s.get());
  std::string out;
  const cairo_status_t status = cairo_surface_write_to_png_stream(
      s.get(),
      [](void* to, const unsigned char* bytes, unsigned n) {
        static_cast<std::string*>(to)->append(reinterpret_cast<const char*>(bytes), n);
        return CAIRO_STATUS_SUCCESS;
      },
      &out);
  require<file_error>(status == CAIRO_STATUS_SUCCESS, path, ": cannot be encoded: ", cairo_status_to_string(status));
  write_file(path, out);
}

/// Reads a PNG as RGB; transparency is drawn on black. @throws file_error
inline picture read_png(const std::string& path) {
  const std::vector<unsigned char> bytes = read_file(path, std::uint64_t{1} << 30);
  struct cursor {
    const std::vector<unsigned char>& bytes;
    std::size_t at = 0;
  } from{bytes};
  const std::unique_ptr<cairo_surface_t, void (*)(cairo_surface_t*)> s(cairo_image_surface_create_from_png_stream(
                                                                           [](void* c, unsigned char* to, unsigned n) {
                                                                             cursor& k = *static_cast<cursor*>(c);
                                                                             if (n > k.bytes.size() - k.at) return CAIRO_STATUS_READ_ERROR;
                                                                             std::memcpy(to, k.bytes.data() + k.at, n);
                                                                             k.at += n;
                                                                             return CAIRO_STATUS_SUCCESS;
                                                                           },
                                                                           &from),
                                                                       cairo_surface_destroy);
  require<file_error>(cairo_surface_status(s.get()) == CAIRO_STATUS_SUCCESS, path,
                      ": is not a sound PNG: ", cairo_status_to_string(cairo_surface_status(s.get())));
  const cairo_format_t format = cairo_image_surface_get_format(s.get());
  require<file_error>(format == CAIRO_FORMAT_RGB24 || format == CAIRO_FORMAT_ARGB32, path,
                      ": is a PNG of a kind that is not read; save it with 8 bits a channel");
  picture p{cairo_image_surface_get_height(s.get()), cairo_image_surface_get_width(s.get()), 3, {}};
  const unsigned char* data = cairo_image_surface_get_data(s.get());
  const int stride = cairo_image_surface_get_stride(s.get());
  p.bytes.reserve(std::size_t(p.height * p.width * 3));
  for (index_t y = 0; y < p.height; ++y)
    for (index_t x = 0; x < p.width; ++x) {
      std::uint32_t pixel;
      std::memcpy(&pixel, data + y * stride + 4 * x, 4);
      for (const int shift : {16, 8, 0}) p.bytes.push_back(static_cast<unsigned char>(pixel >> shift & 255));
    }
  return p;
}

#ifdef MULTISTAGE_JPEG
/// Reads a JPEG as RGB. @throws file_error
inline picture read_jpeg(const std::string& path) {
  const std::vector<unsigned char> bytes = read_file(path, std::uint64_t{1} << 30);
  struct handler {
    jpeg_error_mgr base;
    std::jmp_buf jump;
    char text[JMSG_LENGTH_MAX];
  } errors{};
  jpeg_decompress_struct d{};
  picture p;
  d.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = [](j_common_ptr c) {
    handler* h = reinterpret_cast<handler*>(c->err);
    c->err->format_message(c, h->text);
    std::longjmp(h->jump, 1);
  };
  errors.base.emit_message = [](j_common_ptr c, int level) {  // warnings: data that are cut or corrupt
    if (level < 0) c->err->error_exit(c);
  };
  if (setjmp(errors.jump)) {
    jpeg_destroy_decompress(&d);
    fail<file_error>(path, ": is not a sound JPEG: ", errors.text);
  }
  jpeg_create_decompress(&d);
  jpeg_mem_src(&d, bytes.data(), static_cast<unsigned long>(bytes.size()));
  jpeg_read_header(&d, TRUE);
  if (std::uint64_t{d.image_width} * d.image_height > std::uint64_t{1} << 28) {
    jpeg_destroy_decompress(&d);
    fail<file_error>(path, ": is a picture of ", d.image_width, " x ", d.image_height, "; the largest that is read has 2^28 pixels");
  }
  d.out_color_space = JCS_RGB;
  jpeg_start_decompress(&d);
  p.height = d.output_height;
  p.width = d.output_width;
  p.bytes.resize(std::size_t(p.height * p.width * 3));
  while (d.output_scanline < d.output_height) {
    JSAMPROW row = p.bytes.data() + std::size_t(d.output_scanline) * std::size_t(p.width) * 3;
    jpeg_read_scanlines(&d, &row, 1);
  }
  jpeg_finish_decompress(&d);
  jpeg_destroy_decompress(&d);
  return p;
}
#endif

/// A PNG or JPEG as RGB. @throws file_error
inline picture read_picture(const std::string& path) {
  const std::string end = path.size() > 4 ? path.substr(path.size() - 4) : path;
  if (end == ".png" || end == ".PNG") return read_png(path);
#ifdef MULTISTAGE_JPEG
  return read_jpeg(path);
#else
  fail<file_error>(path, ": JPEG files need libjpeg (Debian: libjpeg62-turbo-dev) when the program is built; or convert them to PNG");
#endif
}

/// A folder's .png, .jpg and .jpeg files in the order of their names. @throws file_error when there are none
inline std::vector<std::string> picture_files(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& e : std::filesystem::directory_iterator(folder)) {
    std::string end = e.path().extension().string();
    std::transform(end.begin(), end.end(), end.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (end == ".png" || end == ".jpg" || end == ".jpeg") files.push_back(e.path().string());
  }
  std::sort(files.begin(), files.end());
  require<file_error>(!files.empty(), folder, ": holds no .png or .jpg files");
  return files;
}

/// Pictures of files, all of one size, in [-1, 1]. @param to [files, h, w, 3] of these extents. @throws file_error, shape_error naming the picture
inline void read_pictures(std::span<const std::string> files, const shape& extents, float* to) {
  for (const std::string& f : files) {
    const picture p = read_picture(f);
    require<shape_error>(p.height == extents.height && p.width == extents.width, f, ": is ", p.width, " x ", p.height, ", the pictures before it are ",
                         extents.width, " x ", extents.height, "; make all one size");
    for (const unsigned char b : p.bytes) *to++ = float(b) / 127.5f - 1;
  }
}
/// The extents that a folder's pictures must have: those of the first. @throws file_error
inline shape picture_extents(const std::vector<std::string>& files) {
  const picture p = read_picture(files.front());
  return {index_t(files.size()), p.height, p.width, 3};
}

/// All pictures of a folder in the order of their names. @throws file_error, shape_error naming the picture
inline image_set read_folder(const std::string& path) {
  const std::vector<std::string> files = picture_files(path);
  image_set s;
  s.extents = picture_extents(files);
  s.values.resize(std::size_t(s.extents.size()));
  read_pictures(files, s.extents, s.values.data());
  return s;
}

}  // namespace multistage::io
