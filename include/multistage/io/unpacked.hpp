// Files that may be gzipped, as bytes.
//
//   byte_source bytes = detail::unpacked("train-images-idx3-ubyte.gz");   // as if it were not
#pragma once
#include "compressed.hpp"
#include "pictures.hpp"

namespace multistage::io::detail {

/// Bytes by which kind_of tells kinds: those of tar archives stand at 257.
inline constexpr std::uint64_t kind_start = 512;

/// Bytes of a file, unpacked where they are gzipped. @throws file_error
inline byte_source unpacked(const std::string& path) {
  byte_source file(path);
  if (kind_of(file.bytes(0, kind_start)).kind != file_kind::gzip)
    return file;
  return byte_source(gunzip(path, file.bytes(0, file.size())));
}

}  // namespace multistage::io::detail
