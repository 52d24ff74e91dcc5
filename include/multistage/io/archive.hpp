// Archives of files, zip and tar, compressed or not (gzip, bzip2, xz, zstd), by libarchive
// where the macro MULTISTAGE_ARCHIVE says that it is linked. Nothing is ever written: names are
// names, wherever they would lead.
//
//   read_archive("pictures.tar.gz", [&](const found_file& f) { use(f.name, f.first(512)); });
//
// Archives are read from front to back, in pieces; what is not asked for is passed over.
#pragma once
#ifdef MULTISTAGE_ARCHIVE
#include <archive.h>
#include <archive_entry.h>
#endif

#include <exception>
#include <functional>
#include <new>

#include "file.hpp"

namespace multistage::io {

#ifdef MULTISTAGE_ARCHIVE
/// Whether this program reads archives.
inline constexpr bool reads_archives = true;
#else
/// Whether this program reads archives.
inline constexpr bool reads_archives = false;
#endif

/// A file that was come by: its name, and how its bytes are had.
struct found_file {
  std::string name;  ///< from where the search began, or in its archive
  /// Its first bytes, as many as are asked for or as it has. @throws file_error
  std::function<std::vector<unsigned char>(std::uint64_t most)> first;
  /// Whether `first` may be called later and by another thread; else while the file is visited.
  bool later = false;
};
/// What is called for a file.
using file_visitor = std::function<void(const found_file&)>;

#ifdef MULTISTAGE_ARCHIVE

namespace detail {

/// libarchive's state for one archive.
class archive_reader {
 public:
  /// @throws file_error for what is no archive
  explicit archive_reader(const std::string& path)
      : path_(path),
        file_(path) {
    ::archive* const a = from_.get();
    if (a == nullptr)
      throw std::bad_alloc();
    // Those that libarchive does itself; for others it would start programs.
    ::archive_read_support_filter_gzip(a);
    ::archive_read_support_filter_bzip2(a);
    ::archive_read_support_filter_xz(a);
    ::archive_read_support_filter_zstd(a);
    ::archive_read_support_format_tar(a);
    ::archive_read_support_format_zip(a);
    ::archive_read_set_callback_data(a, this);
    ::archive_read_set_read_callback(a, read);
    ::archive_read_set_seek_callback(a, seek);
    ::archive_read_set_skip_callback(a, skip);
    if (::archive_read_open1(a) < ARCHIVE_WARN)
      fail<file_error>(path_, ": is no archive that can be read: ", reason());
  }

  /// Calls `visit` for every regular file, in the archive's order. @throws file_error where the
  /// archive is cut or broken
  void each(const file_visitor& visit) {
    ::archive_entry* entry = nullptr;
    for (std::size_t number = 0;; ++number) {
      const int status = ::archive_read_next_header(from_.get(), &entry);
      if (status == ARCHIVE_EOF)
        return;
      if (status < ARCHIVE_WARN)
        fail<file_error>(path_, ": cannot be read beyond its file ", number, ": ", reason());
      if (::archive_entry_filetype(entry) != AE_IFREG || ::archive_entry_hardlink(entry))
        continue;
      std::vector<unsigned char> have;
      const std::string name = name_of(entry, number);
      visit({name, [&](std::uint64_t most) {
               return first(name, have, most);
             }});
    }
  }

 private:
  /// Bytes of the file at hand until there are `most` or no more. @param have those so far
  std::vector<unsigned char> first(const std::string& name,
                                   std::vector<unsigned char>& have,
                                   std::uint64_t most) {
    constexpr std::uint64_t piece = std::uint64_t{1} << 16;
    while (have.size() < most) {
      const std::size_t before = have.size();
      have.resize(before + std::size_t(std::min(piece, most - before)));
      const la_ssize_t got =
          ::archive_read_data(from_.get(), have.data() + before, have.size() - before);
      have.resize(before + std::size_t(std::max<la_ssize_t>(got, 0)));
      if (got < 0)
        fail<file_error>(path_, ": ", name, ": cannot be read: ", reason());
      if (got == 0)
        break;
    }
    const std::size_t n = std::size_t(std::min<std::uint64_t>(most, have.size()));
    return {have.begin(), have.begin() + std::ptrdiff_t(n)};
  }
  /// What libarchive says of the last call.
  std::string reason() const {
    const char* const text = ::archive_error_string(from_.get());
    return text ? text : "the archive is cut or broken";
  }
  /// Without "./" in front, which tar likes to write.
  static std::string name_of(::archive_entry* entry, std::size_t number) {
    const char* name = ::archive_entry_pathname(entry);
    if (name == nullptr)  // not in the locale's encoding
      name = ::archive_entry_pathname_utf8(entry);
    std::string text = name ? name : "file " + std::to_string(number);
    while (text.size() > 2 && text.compare(0, 2, "./") == 0)
      text.erase(0, 2);
    return text;
  }
  /// libarchive asks for the next piece of the file. No exception may pass through C.
  static la_ssize_t read(::archive* a, void* self, const void** to) {
    archive_reader& r = *static_cast<archive_reader*>(self);
    try {
      const std::size_t n =
          std::size_t(std::min<std::uint64_t>(r.piece_.size(), r.file_.size() - r.at_));
      r.file_.read(r.at_, r.piece_.data(), n);
      r.at_ += n;
      *to = r.piece_.data();
      return la_ssize_t(n);
    } catch (const std::exception& e) {
      ::archive_set_error(a, EIO, "%s", e.what());
      return ARCHIVE_FATAL;
    }
  }
  static la_int64_t seek(::archive*, void* self, la_int64_t offset, int whence) {
    archive_reader& r = *static_cast<archive_reader*>(self);
    const la_int64_t size = la_int64_t(r.file_.size());
    const la_int64_t base = whence == SEEK_SET   ? 0
                            : whence == SEEK_END ? size
                                                 : la_int64_t(r.at_);
    if (offset < -base || offset > size - base)
      return ARCHIVE_FATAL;
    r.at_ = std::uint64_t(base + offset);
    return base + offset;
  }
  static la_int64_t skip(::archive*, void* self, la_int64_t n) {
    archive_reader& r = *static_cast<archive_reader*>(self);
    const la_int64_t skipped = std::clamp<la_int64_t>(n, 0, la_int64_t(r.file_.size() - r.at_));
    r.at_ += std::uint64_t(skipped);
    return skipped;
  }

  const std::string& path_;
  input_file file_;
  std::uint64_t at_ = 0;
  std::vector<unsigned char> piece_ = std::vector<unsigned char>(std::size_t{1} << 18);
  std::unique_ptr<::archive, int (*)(::archive*)> from_{::archive_read_new(),
                                                        ::archive_read_free};
};

}  // namespace detail

#endif

/// Calls `visit` for every regular file of an archive, in its order. @throws file_error for
/// what is no archive or is cut, after what stands before the cut was visited; where libarchive
/// is not linked
inline void read_archive(const std::string& path, [[maybe_unused]] const file_visitor& visit) {
#ifdef MULTISTAGE_ARCHIVE
  detail::archive_reader(path).each(visit);
#else
  fail<file_error>(path,
                   ": is an archive, which needs libarchive (Debian: libarchive-dev) when the "
                   "program is built; or unpack it");
#endif
}

}  // namespace multistage::io
