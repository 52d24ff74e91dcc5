// Data compressed by deflate, through zlib: gzip files, and the streams inside of zip archives.
//
//   detail::inflater from(bytes, 15 + 16);      // gzip; -15 is zip's bare deflate
//   while (from.read(block) > 0) ...
//
// What data may unpack to is bounded by deflate's best ratio, 1,032 to 1, so that a small file
// cannot ask for all memory.
#pragma once
#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "../core/error.hpp"

namespace multistage::io {

namespace detail {

/// zlib's state for reading one stream after the other.
class inflater {
 public:
  /// @param window zlib's windowBits: -15 for bare streams, 15 + 16 for gzip
  inflater(std::span<const unsigned char> from, int window)
      : from_(from) {
    if (inflateInit2(&z_, window) != Z_OK)
      throw std::bad_alloc();
  }
  ~inflater() {
    inflateEnd(&z_);
  }
  inflater(const inflater&) = delete;
  inflater& operator=(const inflater&) = delete;

  /// Fills `to` as far as the stream goes and returns how far that is; see `status`.
  std::size_t read(std::span<unsigned char> to) {
    std::size_t have = 0;
    while (have < to.size() && status_ == Z_OK) {
      const std::size_t in = std::min(from_.size() - at_, piece);
      const std::size_t out = std::min(to.size() - have, piece);
      z_.next_in = const_cast<unsigned char*>(from_.data() + at_);
      z_.avail_in = uInt(in);
      z_.next_out = to.data() + have;
      z_.avail_out = uInt(out);
      status_ = inflate(&z_, Z_NO_FLUSH);
      at_ += in - z_.avail_in;
      have += out - z_.avail_out;
      if (status_ == Z_BUF_ERROR)
        break;  // the input is at its end, the stream is not
    }
    return have;
  }
  /// Z_OK while there is more, Z_STREAM_END behind the last byte, else what is wrong.
  int status() const {
    return status_;
  }
  /// What zlib says is wrong, for messages.
  std::string problem() const {
    return status_ == Z_BUF_ERROR || status_ == Z_OK ? "the data are cut"
           : z_.msg                                  ? z_.msg
                                                     : "broken data";
  }
  /// Bytes of the input that were taken.
  std::size_t consumed() const {
    return at_;
  }
  /// Goes on with another stream behind the one that ended.
  void next_stream() {
    inflateReset(&z_);
    status_ = Z_OK;
  }

 private:
  static constexpr std::size_t piece = std::size_t{1} << 30;  // zlib counts in 32 bits
  std::span<const unsigned char> from_;
  std::size_t at_ = 0;
  z_stream z_{};
  int status_ = Z_OK;
};

/// The checksum of zip and gzip.
inline std::uint32_t crc32(std::span<const unsigned char> bytes) {
  return std::uint32_t(::crc32_z(0, bytes.data(), bytes.size()));
}

/// What deflate makes of one byte at most, by its format.
inline constexpr std::uint64_t largest_expansion = 1032;

}  // namespace detail

/// The content of a gzip file, all of its members, checksums compared.
/// @param limit bytes that may come of it. @throws file_error
inline std::vector<unsigned char> gunzip(const std::string& path,
                                         std::span<const unsigned char> bytes,
                                         std::uint64_t limit = std::uint64_t{1} << 34) {
  detail::inflater from(bytes, 15 + 16);
  std::vector<unsigned char> out;
  for (;;) {
    const std::size_t have = out.size();
    out.resize(std::max<std::size_t>(have + (std::size_t{1} << 16), have + have / 2));
    out.resize(have + from.read(std::span(out).subspan(have)));
    require<file_error>(out.size() <= limit, path, ": unpacks to more than ", limit,
                        " bytes; unpack it (gunzip) and give the file that comes of it");
    if (from.status() == Z_OK)
      continue;
    require<file_error>(from.status() == Z_STREAM_END, path,
                        ": is not a sound gzip file: byte ", from.consumed(), ": ",
                        from.problem());
    // Another member may follow, or zeros that fill a tape's block.
    const auto rest = bytes.subspan(from.consumed());
    if (std::all_of(rest.begin(), rest.end(), [](unsigned char b) { return b == 0; }))
      return out;
    from.next_stream();
  }
}

}  // namespace multistage::io
