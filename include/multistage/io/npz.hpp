// NumPy's npz archives: zip files of npy arrays, stored as numpy.savez writes them or
// compressed as numpy.savez_compressed does, checksums compared. APPNOTE.TXT of PKWARE,
// sections 4.3 to 4.5.
//
// A zip archive is read from its end: the end record says where the directory is, the
// directory where each file's local header is, and the bytes follow that. Every one of these
// numbers is checked against the file's size, and what entries unpack to against what deflate
// can make of their bytes, before memory is asked for.
//
//   npy_array a = parse_npz("set.npz", read_file("set.npz"), "labels");
//   write_npz("pictures.npz", "samples", {4, 32, 32, 3}, bytes);
#pragma once
#include <optional>

#include "compressed.hpp"
#include "npy.hpp"

namespace multistage::io {

namespace detail {

/// A file of an archive, as the archive's directory at its end describes it.
struct zip_entry {
  std::string name;
  unsigned flags = 0;
  unsigned method = 0;  // 0 stored, 8 deflate
  std::uint32_t crc = 0;
  std::uint64_t compressed = 0;
  std::uint64_t size = 0;
  std::uint64_t header = 0;  // where its local header begins
};

/// The directory of a zip archive in memory, read from its end, and the files that it names.
class zip_archive {
 public:
  /// @throws file_error
  zip_archive(const std::string& path, std::span<const unsigned char> bytes)
      : path_(path),
        bytes_(bytes) {
    if (bytes.size() < 22)
      broken(0, "the file is cut");
    // The directory's end has a comment of up to 64 KiB behind it, and its signature in front.
    std::size_t end = bytes.size() - 22;
    const std::size_t last = end > 0xffff ? end - 0xffff : 0;
    while (number(end, 4) != 0x06054b50)
      if (end-- == last)
        broken(bytes.size(), "the archive's directory is missing: the file is cut");
    std::uint64_t count = number(end + 10, 2);
    std::uint64_t at = number(end + 16, 4);
    // zip64: the same, with eight bytes each, in a record that is found through one before
    // this.
    if (end >= 20 && number(end - 20, 4) == 0x07064b50) {
      const std::uint64_t wide = number(end - 12, 8);
      const bool fits = bytes.size() >= 56 && wide <= bytes.size() - 56;
      if (!fits || number(std::size_t(wide), 4) != 0x06064b50)
        broken(end - 20, "the zip64 directory's end is not where it should be");
      count = number(std::size_t(wide) + 32, 8);
      at = number(std::size_t(wide) + 48, 8);
    }
    if (at > end || count > (end - at) / 46)
      broken(end, "the directory does not fit into the file");
    // Each entry is checked against the bytes that are left.
    std::uint64_t taken = 0;  // entries that share their bytes could unpack to any size
    for (; entries_.size() < count; at += 46 + name_ + extra_ + comment_) {
      read_entry(std::size_t(at), end);
      const std::uint64_t left = bytes.size() - taken;
      if (entries_.back().compressed > left)
        broken(std::size_t(at), "its files take more bytes than there are");
      taken += entries_.back().compressed;
    }
  }
  /// The archive's files, in the directory's order.
  const std::vector<zip_entry>& entries() const {
    return entries_;
  }

  /// An entry's bytes where they lie in the archive, or unpacked into `memory`. @throws
  /// file_error
  std::span<const unsigned char> content(const zip_entry& e,
                                         std::vector<unsigned char>& memory) const {
    const std::string name = printable(e.name);
    const auto at = std::size_t(e.header);
    const bool fits = e.header <= bytes_.size() && bytes_.size() - at >= 30;
    if (!fits || number(at, 4) != 0x04034b50)
      broken(at, name + " does not begin here");
    if (e.flags & 1)
      broken(at, name + " is encrypted");
    // Its name and an extra field lie between the header's fixed part and the bytes.
    const std::uint64_t start = at + 30 + number(at + 26, 2) + number(at + 28, 2);
    if (start > bytes_.size() || e.compressed > bytes_.size() - start)
      broken(at, name + " takes " + std::to_string(e.compressed) +
                     " bytes, more than follow: the file is cut");
    std::span<const unsigned char> raw =
        bytes_.subspan(std::size_t(start), std::size_t(e.compressed));
    if (e.method == 8) {
      if (e.size / largest_expansion > e.compressed)
        broken(at, name + " cannot have " + std::to_string(e.size) + " bytes");
      inflate(e, raw, std::size_t(start), memory);
      raw = memory;
    } else if (e.method != 0 || e.size != e.compressed) {
      broken(at, name + " is packed by method " + std::to_string(e.method) +
                     "; save with numpy.savez or numpy.savez_compressed");
    }
    if (crc32(raw) != e.crc)
      broken(std::size_t(start), name + " differs from its checksum");
    return raw;
  }
  /// @throws file_error naming file, byte and reason
  [[noreturn]] void broken(std::size_t at, const std::string& why) const {
    fail<file_error>(path_, ": not a sound npz archive: byte ", at, ": ", why);
  }

 private:
  /// Unpacks an entry's bytes, which begin at byte `start` of the file, into `memory`. @throws
  /// file_error unless they are as many as the entry says
  void inflate(const zip_entry& e,
               std::span<const unsigned char> raw,
               std::size_t start,
               std::vector<unsigned char>& memory) const {
    memory.resize(std::size_t(e.size));
    inflater from(raw, -15);
    std::size_t have = from.read(memory);
    unsigned char beyond;
    if (from.status() == Z_OK)
      have += from.read({&beyond, 1});
    const bool ended = from.status() == Z_STREAM_END;
    if (ended && have == e.size)
      return;
    std::string why = ended ? "less data than its size" : from.problem();
    if (have > e.size)
      why = "more data than its size";
    broken(start + from.consumed(), printable(e.name) + ": " + why);
  }
  /// n bytes, the lowest first.
  std::uint64_t number(std::size_t at, std::size_t n) const {
    std::uint64_t v = 0;
    for (std::size_t i = n; i-- > 0;)
      v = v << 8 | bytes_[at + i];
    return v;
  }
  /// An entry of the directory, with the lengths of what follows its fixed part, by which the
  /// next one is found.
  void read_entry(std::size_t at, std::size_t end) {
    if (at > end || end - at < 46 || number(at, 4) != 0x02014b50)
      broken(at, "the directory's entry " + std::to_string(entries_.size()) + " is broken");
    name_ = std::size_t(number(at + 28, 2));
    extra_ = std::size_t(number(at + 30, 2));
    comment_ = std::size_t(number(at + 32, 2));
    if (name_ + extra_ + comment_ > end - at - 46)
      broken(at, "the directory is cut");
    const auto name = bytes_.subspan(at + 46, name_);
    zip_entry e;
    e.name.assign(name.begin(), name.end());
    e.flags = unsigned(number(at + 8, 2));
    e.method = unsigned(number(at + 10, 2));
    e.crc = std::uint32_t(number(at + 16, 4));
    e.compressed = number(at + 20, 4);
    e.size = number(at + 24, 4);
    e.header = number(at + 42, 4);
    read_wide_numbers(at + 46 + name_, at + 46 + name_ + extra_, e);
    entries_.push_back(std::move(e));
  }
  /// Numbers that do not fit into four bytes, all ones there, stand in one of the extra fields
  /// between two bytes of the file.
  void read_wide_numbers(std::size_t begin, std::size_t end, zip_entry& e) const {
    for (std::size_t field = begin; field + 4 <= end; field += 4 + number(field + 2, 2)) {
      const bool wide = number(field, 2) == 1;
      if (!wide)
        continue;
      std::size_t from = field + 4;
      std::size_t left = std::min(std::size_t(number(field + 2, 2)), end - from);
      for (std::uint64_t* v : {&e.size, &e.compressed, &e.header}) {
        if (*v != 0xffffffff || left < 8)
          continue;
        *v = number(from, 8);
        from += 8;
        left -= 8;
      }
    }
  }

  const std::string& path_;
  std::span<const unsigned char> bytes_;
  std::vector<zip_entry> entries_;
  std::size_t name_ = 0;
  std::size_t extra_ = 0;
  std::size_t comment_ = 0;
};

/// What an archive of one stored file has around the file's bytes (APPNOTE.TXT, sections 4.3.7
/// to 4.3.16). Numbers are little-endian; those that do not fit into four bytes stand in
/// zip64's fields, and all ones in their place.
class zip_frame {
 public:
  /// @param wide whether zip64's fields are written
  zip_frame(std::string name, std::uint64_t size, std::uint32_t crc, bool wide)
      : name_(std::move(name)),
        size_(size),
        crc_(crc),
        wide_(wide) {}

  /// Before the file's bytes.
  std::string local_header() const {
    std::string to;
    number(to, 0x04034b50, 4);
    describe(to);
    to += name_;
    wide_field(to);
    return to;
  }
  /// Behind them: the directory's only entry, and where the directory is.
  std::string directory() const {
    std::string to;
    number(to, 0x02014b50, 4);
    number(to, version(), 2);
    describe(to);
    number(to, 0, 6);  // no comment, first disk, binary
    number(to, 0, 4);
    number(to, 0, 4);  // its local header is the archive's first byte
    to += name_;
    wide_field(to);
    const std::uint64_t length = to.size();
    const std::uint64_t begin = local_header().size() + size_;
    if (wide_)
      wide_end(to, begin, length);
    number(to, 0x06054b50, 4);
    number(to, 0, 4);  // this disk, and the directory's
    number(to, 1, 2);  // entries on this disk, and in all
    number(to, 1, 2);
    number(to, length, 4);
    number(to, wide_ ? all_ones : begin, 4);
    number(to, 0, 2);  // no comment
    return to;
  }

 private:
  static constexpr std::uint64_t all_ones = 0xffffffff;
  /// Appends a number, the lowest byte first.
  static void number(std::string& to, std::uint64_t v, int bytes) {
    for (int i = 0; i < bytes; ++i)
      to += char(v >> (8 * i) & 255);
  }
  /// Of the format, that a reader needs: 4.5 has zip64.
  int version() const {
    return wide_ ? 45 : 20;
  }
  /// What the local header and the directory's entry share.
  void describe(std::string& to) const {
    number(to, std::uint64_t(version()), 2);
    number(to, 0, 2);            // flags
    number(to, 0, 2);            // stored
    number(to, 0x0021'0000, 4);  // 1 January 1980
    number(to, crc_, 4);
    number(to, wide_ ? all_ones : size_, 4);  // stored and unpacked
    number(to, wide_ ? all_ones : size_, 4);
    number(to, name_.size(), 2);
    number(to, wide_ ? 20 : 0, 2);  // length of the field below
  }
  /// zip64's extra field: both sizes in eight bytes.
  void wide_field(std::string& to) const {
    if (!wide_)
      return;
    number(to, 1, 2);
    number(to, 16, 2);
    number(to, size_, 8);
    number(to, size_, 8);
  }
  /// zip64's end of the directory, and where that is.
  static void wide_end(std::string& to, std::uint64_t begin, std::uint64_t length) {
    number(to, 0x06064b50, 4);
    number(to, 44, 8);  // bytes of this record behind here
    number(to, 45, 2);  // versions that wrote it and that read it
    number(to, 45, 2);
    number(to, 0, 8);  // this disk, and the directory's
    number(to, 1, 8);  // entries on this disk, and in all
    number(to, 1, 8);
    number(to, length, 8);
    number(to, begin, 8);
    number(to, 0x07064b50, 4);
    number(to, 0, 4);
    number(to, begin + length, 8);
    number(to, 1, 4);  // disks
  }

  std::string name_;
  std::uint64_t size_;
  std::uint32_t crc_;
  bool wide_;
};

}  // namespace detail

/// Writes one array of unsigned bytes, e.g. pictures [n, h, w, c], as NAME.npy inside an
/// archive, atomically. @param wide size from which zip64's fields are written. @throws
/// shape_error, before anything is written, unless the extents hold as many values as there
/// are; file_error
inline void write_npz(const std::string& path,
                      const std::string& name,
                      const std::vector<index_t>& extents,
                      std::span<const unsigned char> values,
                      std::uint64_t wide = 0xffffffff) {
  const std::string start = detail::npy_start(path, "|u1", extents, values.size());
  const std::uint64_t size = start.size() + values.size();
  const auto* const start_bytes = reinterpret_cast<const unsigned char*>(start.data());
  const auto of_start = detail::crc32({start_bytes, start.size()});
  const auto crc = std::uint32_t(::crc32_z(of_start, values.data(), values.size()));
  const detail::zip_frame frame(name + ".npy", size, crc, size >= wide);
  atomic_file f(path);
  f.write(frame.local_header());
  f.write(start);
  f.write(values.data(), values.size());
  f.write(frame.directory());
  f.commit();
}

/// An array of an archive: its bytes, which are an npy file's, and where its values lie in
/// them.
struct npz_member {
  std::string name;                      ///< without .npy
  std::vector<unsigned char> memory;     ///< unpacked bytes, where the archive's are compressed
  std::span<const unsigned char> bytes;  ///< of the archive, or of `memory`
  npy_layout layout;                     ///< where the values lie in `bytes`
};

/// The array of that name, or the only one that can be images, which have 3 or 4 dimensions,
/// where `name` is empty. @throws file_error naming the arrays where there is no such or more
/// than one
inline npz_member open_npz(const std::string& path,
                           std::span<const unsigned char> bytes,
                           const std::string& name = {}) {
  const detail::zip_archive archive(path, bytes);
  std::optional<npz_member> found;
  std::string names;
  std::string last_problem;
  bool several = false;
  for (const detail::zip_entry& e : archive.entries()) {
    if (!e.name.ends_with(".npy"))
      continue;
    npz_member m{e.name.substr(0, e.name.size() - 4), {}, {}, {}};
    const std::string shown = printable(m.name);
    if (!name.empty() && m.name != name) {
      names += (names.empty() ? "" : ", ") + shown;
      continue;
    }
    m.bytes = archive.content(e, m.memory);
    try {
      m.layout = parse_npy_layout(path + ", array " + shown, m.bytes);
    } catch (const file_error& why) {
      // of text or objects: no images, unless it is all there is
      last_problem = why.what();
      continue;
    }
    std::string extents;
    for (const index_t n : m.layout.extents)
      extents += (extents.empty() ? "" : ", ") + std::to_string(n);
    names += (names.empty() ? "" : ", ") + shown + " [" + extents + "]";
    const std::size_t dimensions = m.layout.extents.size();
    if (name.empty() && dimensions != 3 && dimensions != 4)
      continue;
    several = several || found;
    if (!found) {
      found = std::move(m);
      if (!found->memory.empty())
        found->bytes = found->memory;
    }
  }
  if (several)
    fail<file_error>(path, ": holds several arrays that can be images: ", names,
                     "; name the one that is meant (array, --array)");
  if (!found && !last_problem.empty())
    fail<file_error>(last_problem);
  const std::string wanted =
      name.empty() ? "of images, which have 3 or 4 dimensions" : "named " + name;
  require<file_error>(found.has_value(), path, ": holds no array ", wanted, "; it holds ",
                      names.empty() ? "no arrays" : names);
  return std::move(*found);
}
/// The same with values. @throws file_error
inline npy_array parse_npz(const std::string& path,
                           std::span<const unsigned char> bytes,
                           const std::string& name = {}) {
  const npz_member m = open_npz(path, bytes, name);
  const npy_layout& layout = m.layout;
  npy_array a{layout.type, layout.extents, std::vector<double>(layout.count)};
  layout.convert(m.bytes.data() + layout.data, layout.count, a.values.data());
  return a;
}

}  // namespace multistage::io
