// A hash that tells a file from others, of files that need not fit in memory.
//
//   fingerprint_of_file("codes/autoencoder.safetensors");    // sixteen hexadecimal digits
#pragma once
#include "../core/fingerprint.hpp"
#include "file.hpp"

namespace multistage::io {

/// The fingerprint of the fingerprints of a file's pieces of 16 MiB. @throws file_error
MULTISTAGE_COLD inline std::string fingerprint_of_file(const std::string& path) {
  const byte_source file(path);
  std::string pieces;
  constexpr std::uint64_t piece = std::uint64_t{1} << 24;
  for (std::uint64_t at = 0; at < file.size(); at += piece)
    pieces += fingerprint(file.bytes(at, piece));
  return fingerprint_of(std::span<const char>(pieces));
}

}  // namespace multistage::io
