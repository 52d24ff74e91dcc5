// PNG by libpng: grey stays grey, 16 bits are rounded to 8, transparency is drawn on the
// background, colours by another profile become sRGB's.
//
// libpng reports errors by longjmp. Calls into it that read run within `tried`, whose
// functions hold no objects that need destroying, so that a jump passes over none.
//
//   picture p = decode_png("cat.png", read_file("cat.png"));
//   write_file("copy.png", encode_png(p, {{"Title", "cat"}}));
#pragma once
#include <png.h>

#include <csetjmp>
#include <cstring>
#include <new>

#include "colour_profile.hpp"
#include "compressed.hpp"

namespace multistage::io {

namespace detail {

/// libpng's structures for reading from memory, with its errors as jumps to `guard`.
class png_reader {
 public:
  /// Looks at the header alone. @throws file_error for one that is broken or promises too many
  /// pixels
  png_reader(const std::string& path,
             std::span<const unsigned char> bytes,
             const picture_options& options)
      : path_(path),
        bytes_(bytes),
        options_(options) {
    // Signature, length, "IHDR", then width and height: looked at before libpng allocates.
    if (bytes.size() < 33 || std::memcmp(bytes.data() + 12, "IHDR", 4) != 0)
      fail<file_error>(path, ": is not a sound PNG: its header is ",
                       bytes.size() < 33 ? "cut" : "missing");
    const auto number = [&](std::size_t at) {
      std::uint64_t v = 0;
      for (std::size_t i = 0; i < 4; ++i)
        v = v << 8 | bytes[at + i];
      return v;
    };
    check_pixels(path, number(16), number(20), options.most_pixels);
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    info_ = png_ ? png_create_info_struct(png_) : nullptr;
    if (!info_) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw std::bad_alloc();
    }
  }
  ~png_reader() {
    png_destroy_read_struct(&png_, &info_, nullptr);
  }
  png_reader(const png_reader&) = delete;
  png_reader& operator=(const png_reader&) = delete;

  /// The pixels, the right way up. @throws file_error
  picture decode() {
    picture p;
    std::size_t stride = 0;
    bool alpha = false;
    int passes = 1;
    guarded([&] {
      start();
      p.channels = channels();
      png_set_scale_16(png_);
      png_set_expand(png_);
      if (p.channels == 3)
        png_set_gray_to_rgb(png_);
      passes = png_set_interlace_handling(png_);
      png_read_update_info(png_, info_);
      p.height = png_get_image_height(png_, info_);
      p.width = png_get_image_width(png_, info_);
      stride = png_get_rowbytes(png_, info_);
      alpha = index_t(png_get_channels(png_, info_)) > p.channels;
    });
    p.bytes.resize(stride * std::size_t(p.height));
    guarded([&] {
      for (int pass = 0; pass < passes; ++pass)
        for (index_t y = 0; y < p.height; ++y)
          png_read_row(png_, p.bytes.data() + std::size_t(y) * stride, nullptr);
    });
    // All pixels are there: what is wrong behind them is worth a word, but no error.
    if (!tried([&] { png_read_end(png_, info_); }))
      options_.warn(path_, text_);
    to_srgb(path_, profile(), p.bytes, p.channels, alpha, options_);
    if (alpha)
      draw_on(options_.background, p.bytes, std::size_t(p.channels));
    return upright(std::move(p), orientation());
  }
  /// Of a whole file, since EXIF data may stand behind the pixels.
  picture_header header() {
    guarded([&] { start(); });
    return turned(png_get_image_height(png_, info_), png_get_image_width(png_, info_),
                  channels(), orientation());
  }

 private:
  /// Reads up to the pixels.
  void start() {
    png_set_user_limits(png_, 0x7fffffff, 0x7fffffff);
    // Colour profiles, texts and the like are skipped unread: their faults do no harm to
    // pixels.
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_set_read_fn(png_, this, [](png_structp png, png_bytep to, std::size_t n) {
      png_reader& r = *static_cast<png_reader*>(png_get_io_ptr(png));
      if (n > r.bytes_.size() - r.at_)
        png_error(png, "the file is cut");
      std::memcpy(to, r.bytes_.data() + r.at_, n);
      r.at_ += n;
    });
    png_read_info(png_, info_);
  }
  /// 1 or 3: grey with transparency is coloured where it is drawn on a colour.
  index_t channels() const {
    const int type = png_get_color_type(png_, info_);
    const bool alpha = type & PNG_COLOR_MASK_ALPHA || png_get_valid(png_, info_, PNG_INFO_tRNS);
    return type & PNG_COLOR_MASK_COLOR || (alpha && options_.on_colour()) ? 3 : 1;
  }
  /// The data of a chunk, wherever it stands; nothing where there is none.
  std::span<const unsigned char> chunk_of(const char* kind) const {
    for (std::size_t at = 8; at + 12 <= bytes_.size();) {
      const unsigned char* chunk = bytes_.data() + at;
      const std::size_t size = png_get_uint_32(chunk);
      if (size > bytes_.size() - at - 12)
        break;
      if (std::memcmp(chunk + 4, kind, 4) == 0)
        return {chunk + 8, size};
      at += size + 12;
    }
    return {};
  }
  /// EXIF data may stand before the pixels or behind them.
  int orientation() const {
    return exif_orientation(chunk_of("eXIf"));
  }
  /// The colour profile: in iCCP, behind a name, a zero and the number of a method, deflated.
  std::vector<unsigned char> profile() const {
    const auto chunk = chunk_of("iCCP");
    const auto name = std::find(chunk.begin(), chunk.end(), 0);
    if (chunk.end() - name < 2)
      return {};
    inflater from(chunk.subspan(std::size_t(name - chunk.begin()) + 2), 15);
    const std::size_t most = chunk.size() * largest_expansion;
    std::vector<unsigned char> to(std::min<std::size_t>(most, largest_profile));
    to.resize(from.read(to));
    return to;
  }
  /// Runs f, which may have no objects that need a destructor; false when libpng refused.
  template <class F>
  bool tried(const F& f) {
    if (setjmp(guard_))
      return false;
    f();
    return true;
  }
  /// The same; a refusal is an error.
  template <class F>
  void guarded(const F& f) {
    if (!tried(f))
      fail<file_error>(path_, ": is not a sound PNG: ", text_);
  }
  /// libpng's way out: notes the text and jumps back.
  static void on_error(png_structp png, png_const_charp text) {
    png_reader& r = *static_cast<png_reader*>(png_get_error_ptr(png));
    std::snprintf(r.text_, sizeof r.text_, "%s, at byte %zu of %zu", text, r.at_,
                  r.bytes_.size());
    std::longjmp(r.guard_, 1);
  }
  /// Oddities go where the caller wants them.
  static void on_warning(png_structp png, png_const_charp text) {
    png_reader& r = *static_cast<png_reader*>(png_get_error_ptr(png));
    r.options_.warn(r.path_, text);
  }

  const std::string& path_;
  std::span<const unsigned char> bytes_;
  const picture_options& options_;
  std::size_t at_ = 0;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::jmp_buf guard_;
  char text_[256] = "";
};

}  // namespace detail

/// A PNG's picture. @throws file_error saying what is wrong with it and where
inline picture decode_png(const std::string& path,
                          std::span<const unsigned char> bytes,
                          const picture_options& options = {}) {
  return detail::png_reader(path, bytes, options).decode();
}

/// What a PNG says of itself, as pairs of a keyword (1 to 79 characters) and a text, both
/// ASCII; `identify -verbose` and `exiftool` show them.
using picture_texts = std::vector<std::pair<std::string, std::string>>;

/// A PNG of a grey picture or one in colours. @throws value_error for other numbers of channels
inline std::string encode_png(const picture& p, const picture_texts& texts = {}) {
  require<value_error>(
      p.channels == 1 || p.channels == 3, "a picture of ", p.channels,
      " channels is no PNG; pictures have 1 or 3 (latents need their decoder)");
  require<value_error>(
      p.height > 0 && p.width > 0 && p.height <= 0x7fffffff && p.width <= 0x7fffffff,
      "a picture of ", p.width, " x ", p.height, " is no PNG");
  require<value_error>(index_t(p.bytes.size()) == p.height * p.width * p.channels,
                       "a picture of ", p.width, " x ", p.height, " x ", p.channels, " has ",
                       p.bytes.size(), " bytes");
  std::vector<png_text> chunks;  // libpng copies them; nothing of theirs is written to
  for (const auto& [keyword, text] : texts) {
    require<value_error>(!keyword.empty() && keyword.size() < 80, "a PNG's keyword '", keyword,
                         "' has not 1 to 79 characters");
    chunks.push_back({});
    chunks.back().compression = PNG_TEXT_COMPRESSION_NONE;  // tEXt
    chunks.back().key = const_cast<char*>(keyword.c_str());
    chunks.back().text = const_cast<char*>(text.c_str());
    chunks.back().text_length = text.size();
  }
  std::string out;
  struct writer {
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
    png_infop info = png ? png_create_info_struct(png) : nullptr;
    ~writer() {
      png_destroy_write_struct(&png, &info);
    }
  } owner;
  const png_structp png = owner.png;
  const png_infop info = owner.info;
  if (!info)
    throw std::bad_alloc();
  png_set_user_limits(png, 0x7fffffff, 0x7fffffff);
  // Memory is all that can fail here; the callback keeps C++'s exceptions out of C.
  png_set_write_fn(
      png, &out,
      [](png_structp to, png_bytep from, std::size_t n) {
        bool kept = true;
        try {
          static_cast<std::string*>(png_get_io_ptr(to))
              ->append(reinterpret_cast<const char*>(from), n);
        } catch (const std::bad_alloc&) {
          kept = false;
        }
        if (!kept)
          png_error(to, "out of memory");
      },
      nullptr);
  if (setjmp(png_jmpbuf(png)))
    throw std::bad_alloc();
  png_set_IHDR(png, info, png_uint_32(p.width), png_uint_32(p.height), 8,
               p.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!chunks.empty())
    png_set_text(png, info, chunks.data(), int(chunks.size()));
  png_write_info(png, info);
  for (index_t y = 0; y < p.height; ++y)
    png_write_row(png, p.bytes.data() + y * p.width * p.channels);
  png_write_end(png, info);
  return out;
}

}  // namespace multistage::io
