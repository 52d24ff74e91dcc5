// Pictures as files and folders of them: what a file is, its first bytes say, never its name.
//
//   picture p = read_picture("cat.webp");
//   write_png("cat.png", p);
//   picture_folder all = open_folder("cats");       // files by name, and their common extents
#pragma once
#include <cctype>
#include <filesystem>
#include <fstream>

#include "file.hpp"
#include "images.hpp"
#include "jpeg.hpp"
#include "png.hpp"
#include "webp.hpp"

namespace multistage::io {

/// What files are by their first bytes. `none` for what no reader knows, e.g. CIFAR-10's
/// records.
enum class file_kind { none, png, jpeg, webp, npy, zip, gzip, idx, other };

/// A kind, and what people call it; `other` is a kind that is known, but not read.
struct known_kind {
  file_kind kind = file_kind::none;  ///< what reads it
  const char* name = "";             ///< for messages
};

namespace detail {

using namespace std::string_view_literals;

/// A kind that is known, but not read, by bytes at a place.
struct other_kind {
  std::size_t at;
  std::string_view magic;
  const char* name;
};
inline constexpr other_kind other_kinds[] = {
    {0, "GIF8"sv, "GIF"},
    {0, "II*\0"sv, "TIFF"},
    {0, "MM\0*"sv, "TIFF"},
    {0, "II+\0"sv, "TIFF"},
    {4, "ftypavif"sv, "AVIF picture"},
    {4, "ftyphei"sv, "HEIC picture"},
    {4, "ftypmif1"sv, "HEIF picture"},
    {4, "JXL "sv, "JPEG XL picture"},
    {0, "\xff\x0a"sv, "JPEG XL picture"},
    {4, "jP  "sv, "JPEG 2000 picture"},
    {0, "\xff\x4f\xff\x51"sv, "JPEG 2000 picture"},
    {0, "\x80\x02"sv, "Python pickle"},
    {0, "\x80\x03"sv, "Python pickle"},
    {0, "\x80\x04"sv, "Python pickle"},
    {0, "\x80\x05"sv, "Python pickle"},
    {0, "\x89HDF"sv, "HDF5 file"},
    {0, "MATLAB 5"sv, "MATLAB file"},
    {0, "PAR1"sv, "Parquet file"},
    {257, "ustar"sv, "tar archive"},
    {0, "BZh"sv, "bzip2 file"},
    {0,
     "\xfd"
     "7zXZ"sv,
     "xz file"},
    {0, "(\xb5/\xfd"sv, "zstd file"},
};

}  // namespace detail

/// @param start the file's first bytes, 16 or more where it has them
inline known_kind kind_of(std::span<const unsigned char> start) {
  const auto at = [&](std::size_t first, std::string_view magic) {
    if (start.size() < first + magic.size())
      return false;
    return std::memcmp(start.data() + first, magic.data(), magic.size()) == 0;
  };
  const auto within = [&](std::size_t place, int low, int high) {
    return start.size() > place && start[place] >= low && start[place] <= high;
  };
  using namespace std::string_view_literals;
  if (at(0, "\x89PNG\r\n\x1a\n"sv))
    return {file_kind::png, "PNG"};
  if (at(0, "\xff\xd8"sv))
    return {file_kind::jpeg, "JPEG"};
  if (at(0, "RIFF"sv) && at(8, "WEBP"sv))
    return {file_kind::webp, "WebP"};
  if (at(0, "\x93NUMPY"sv))
    return {file_kind::npy, "npy array"};
  if (at(0, "PK\x03\x04"sv) || at(0, "PK\x05\x06"sv))
    return {file_kind::zip, "npz archive"};
  if (at(0, "\x1f\x8b"sv))
    return {file_kind::gzip, "gzip file"};
  // Two zeros, a type and the number of dimensions.
  if (at(0, "\0\0"sv) && within(2, 8, 14) && within(3, 1, 4))
    return {file_kind::idx, "IDX file"};
  if (at(0, "BM"sv) && at(6, "\0\0\0\0"sv))
    return {file_kind::other, "BMP"};
  for (const detail::other_kind& o : detail::other_kinds)
    if (at(o.at, o.magic))
      return {file_kind::other, o.name};
  return {};
}
/// Whether one of the readers of pictures knows it.
inline bool is_picture(file_kind k) {
  return k == file_kind::png || k == file_kind::jpeg || k == file_kind::webp;
}

namespace detail {

/// At most `most` bytes of a file's beginning, and whether that is all of it. @throws
/// file_error
inline std::vector<unsigned char> read_start(const std::string& path,
                                             std::size_t most,
                                             bool& whole) {
  std::ifstream file(path, std::ios::binary);
  require<file_error>(file.good(), path, ": cannot be opened: ", std::strerror(errno));
  std::vector<unsigned char> bytes(most);
  file.read(reinterpret_cast<char*>(bytes.data()), std::streamsize(most));
  require<file_error>(!file.bad(), path, ": cannot be read");
  bytes.resize(std::size_t(file.gcount()));
  whole = bytes.size() < most;
  return bytes;
}

/// The files of a folder that are not hidden, in the order of their names; links that lead
/// nowhere are among them. @throws file_error
inline std::vector<std::string> files_of(const std::string& folder) {
  std::error_code why;
  std::vector<std::string> files;
  std::filesystem::directory_iterator entry(folder, why);
  const std::filesystem::directory_iterator end;
  for (; !why && entry != end; entry.increment(why)) {
    const bool hidden = entry->path().filename().native().front() == '.';
    if (!entry->is_directory() && !hidden)
      files.push_back(entry->path().string());
  }
  require<file_error>(!why, folder, ": the folder cannot be read: ", why.message());
  std::sort(files.begin(), files.end());
  return files;
}

/// An extension as people write it, in any case.
inline bool named_as_picture(const std::filesystem::path& path) {
  std::string end = path.extension().string();
  std::transform(end.begin(), end.end(), end.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char* known : {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp"})
    if (end == known)
      return true;
  return false;
}

/// @throws file_error saying what the file is instead
[[noreturn]] inline void no_picture(const std::string& path,
                                    std::span<const unsigned char> start) {
  const known_kind k = kind_of(start);
  if (k.kind != file_kind::none)
    fail<file_error>(path, ": is a ", k.name, ", not a PNG, JPEG or WebP picture; convert it");
  if (start.empty())
    fail<file_error>(path, ": is empty, not a picture");
  char first[16] = "";
  for (std::size_t i = 0; i < std::min<std::size_t>(4, start.size()); ++i)
    std::snprintf(first + 3 * i, 4, " %02x", start[i]);
  fail<file_error>(path, ": is not a sound PNG, JPEG or WebP picture: it begins with the bytes",
                   first);
}

#if !defined(MULTISTAGE_JPEG) || !defined(MULTISTAGE_WEBP)
/// @throws file_error saying what to link
[[noreturn]] inline void without_library(const std::string& path,
                                         const char* kind,
                                         const char* library,
                                         const char* package) {
  fail<file_error>(path, ": is a ", kind, ", which needs ", library, " (Debian: ", package,
                   ") when the program is built; or convert it to PNG");
}
#endif

}  // namespace detail

/// A PNG, JPEG or WebP, whatever its name. @throws file_error
inline picture decode_picture(const std::string& path,
                              std::span<const unsigned char> bytes,
                              const picture_options& options = {}) {
  switch (kind_of(bytes).kind) {
    case file_kind::png:
      return decode_png(path, bytes, options);
#ifdef MULTISTAGE_JPEG
    case file_kind::jpeg:
      return decode_jpeg(path, bytes, options);
#else
    case file_kind::jpeg:
      detail::without_library(path, "JPEG", "libjpeg", "libjpeg62-turbo-dev");
#endif
#ifdef MULTISTAGE_WEBP
    case file_kind::webp:
      return decode_webp(path, bytes, options);
#else
    case file_kind::webp:
      detail::without_library(path, "WebP", "libwebp", "libwebp-dev");
#endif
    default:
      detail::no_picture(path, bytes);
  }
}
/// @throws file_error
inline picture read_picture(const std::string& path, const picture_options& options = {}) {
  return decode_picture(path, read_file(path, std::uint64_t{1} << 32), options);
}
/// What a picture will be, from its header. @param bytes the file's, all of them for PNG, whose
/// orientation may stand behind the pixels. @throws file_error
inline picture_header decode_picture_header(const std::string& path,
                                            std::span<const unsigned char> bytes,
                                            const picture_options& options = {}) {
  switch (kind_of(bytes).kind) {
    case file_kind::png:
      return detail::png_reader(path, bytes, options).header();
#ifdef MULTISTAGE_JPEG
    case file_kind::jpeg:
      return detail::jpeg_reader(path, bytes, options).header();
#endif
#ifdef MULTISTAGE_WEBP
    case file_kind::webp:
      return detail::webp_header(path, bytes, options);
#endif
    default:
      decode_picture(path, bytes, options);  // says what it is
  }
  return {};
}
/// Reads no more of the file than its kind needs. @throws file_error
inline picture_header read_picture_header(const std::string& path,
                                          const picture_options& options = {}) {
  bool whole = false;
  const std::vector<unsigned char> start =
      detail::read_start(path, std::size_t{1} << 16, whole);
#ifdef MULTISTAGE_JPEG
  if (!whole && kind_of(start).kind == file_kind::jpeg) {
    try {
      return decode_picture_header(path, start, options);
    } catch (const file_error&) {
      // Its header goes on behind the start, or the whole file fails, too.
    }
  }
#endif
  if (whole || !is_picture(kind_of(start).kind))
    return decode_picture_header(path, start, options);
  return decode_picture_header(path, read_file(path, std::uint64_t{1} << 32), options);
}

/// Refuses a path that no file can be written to, before the work whose result goes there.
/// @throws file_error
inline void check_writable(const std::string& path) {
  require<file_error>(!std::filesystem::is_directory(path), path,
                      ": is a folder, not a file to be written");
  const atomic_file probe(path);
}
/// Writes a PNG atomically, grey or in colours as the picture is. @param texts what it says of
/// itself. @throws file_error, value_error
inline void write_png(const std::string& path,
                      const picture& p,
                      const picture_texts& texts = {}) {
  write_file(path, encode_png(p, texts));
}

/// The pictures of a folder, in the order of their names, and what they have in common.
struct picture_folder {
  std::vector<std::string> files;  ///< paths, in the order of their names
  shape extents{0, 0, 0, 0};       ///< 1 channel where all pictures are grey, else 3
};

/// Looks at every file of a folder: pictures are those whose first bytes say so; hidden files
/// and files that neither are nor are called pictures are left out. @throws file_error for a
/// file that is called a picture and is none, and where there are no pictures; shape_error
/// naming the picture whose size differs
inline picture_folder open_folder(const std::string& folder,
                                  const picture_options& options = {}) {
  picture_folder found;
  const std::vector<std::string> names = detail::files_of(folder);
  for (const std::string& name : names) {
    if (!std::filesystem::is_regular_file(name)) {
      require<file_error>(!detail::named_as_picture(name), name,
                          ": is no file, or a link to nothing");
      continue;
    }
    bool whole = false;
    // Half a kilobyte says what a file is; its header is read by whoever knows the kind.
    const std::vector<unsigned char> start = detail::read_start(name, 512, whole);
    const known_kind k = kind_of(start);
    if (!is_picture(k.kind) && !detail::named_as_picture(name)) {
      if (k.kind == file_kind::other)
        options.warn(name, std::string("is a ") + k.name + " and was left out; convert it");
      continue;
    }
    // The first picture decides the size, and one in colours makes all of them so.
    const picture_header h = read_picture_header(name, options);
    shape& e = found.extents;
    if (found.files.empty())
      e = {0, h.height, h.width, h.channels};
    require<shape_error>(h.height == e.height && h.width == e.width, name, ": is ", h.width,
                         " x ", h.height, ", the pictures before it are ", e.width, " x ",
                         e.height, "; make all one size (`prepare` does)");
    e.channels = std::max(e.channels, h.channels);
    found.files.push_back(name);
    e.rows = index_t(found.files.size());
  }
  require<file_error>(!found.files.empty(), folder, ": holds no PNG, JPEG or WebP files",
                      names.empty() ? "" : "; the files in it are of other kinds",
                      "; folders in it are not looked into (`prepare` makes a set of them)");
  return found;
}

/// Bytes of files' pictures. @param to [files, h, w, c] of these extents; grey fills all
/// channels
/// @throws file_error, shape_error naming the picture
inline void read_pictures(std::span<const std::string> files,
                          const shape& extents,
                          unsigned char* to,
                          const picture_options& options = {}) {
  for (const std::string& file : files) {
    const picture p = read_picture(file, options);
    const bool same_size = p.height == extents.height && p.width == extents.width;
    const bool fits = p.channels == extents.channels || p.channels == 1;
    require<shape_error>(same_size && fits, file, ": is ", p.width, " x ", p.height, " x ",
                         p.channels, ", not ", extents.width, " x ", extents.height, " x ",
                         extents.channels, " as when the folder was looked at");
    // A grey picture among coloured ones gives its value three times.
    const index_t repeats = extents.channels / p.channels;
    for (const unsigned char b : p.bytes)
      for (index_t i = 0; i < repeats; ++i)
        *to++ = b;
  }
}

}  // namespace multistage::io
