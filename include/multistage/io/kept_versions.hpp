// Versions of one file: before it is replaced, what is there keeps a name of its own, and the
// oldest of such names go.
//
//   keep_version("model.safetensors", 120);    // also "model-00000120.safetensors"
//   write_file("model.safetensors", newer);    // a failure here leaves both names as they are
//   drop_versions("model.safetensors", 1);     // one version stays beside the file itself
#pragma once
#include <cstdio>

#include "file.hpp"

namespace multistage::io {

/// Where a version of a file lies: "model-00000120.safetensors" of "model.safetensors" and 120.
inline std::string version_path(const std::string& path, index_t number) {
  const std::filesystem::path p(path);
  char digits[32];
  std::snprintf(digits, sizeof digits, "-%08lld", static_cast<long long>(number));
  return (p.parent_path() / (p.stem().string() + digits + p.extension().string())).string();
}

/// The versions of a file that are there, oldest first.
inline std::vector<std::pair<index_t, std::string>> versions_of(const std::string& path) {
  const std::filesystem::path p(path);
  const std::string before = p.stem().string() + "-";
  const std::string behind = p.extension().string();
  std::vector<std::pair<index_t, std::string>> found;
  std::error_code problem;
  const std::filesystem::path folder = p.has_parent_path() ? p.parent_path() : ".";
  for (const auto& entry : std::filesystem::directory_iterator(folder, problem)) {
    const std::string name = entry.path().filename().string();
    if (name.size() < before.size() + behind.size() || !name.starts_with(before) ||
        !name.ends_with(behind))
      continue;
    const std::string digits =
        name.substr(before.size(), name.size() - before.size() - behind.size());
    constexpr std::size_t most = 18;  // digits of a number that fits
    if (digits.size() < 8 || digits.size() > most ||
        digits.find_first_not_of("0123456789") != std::string::npos)
      continue;
    found.emplace_back(index_t(std::stoll(digits)), entry.path().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// Gives a file that is there a second name, under which it stays when the first is written
/// anew; a copy where the file system has no such names. @throws file_error
inline void keep_version(const std::string& path, index_t number) {
  const std::string kept = version_path(path, number);
  if (::linkat(AT_FDCWD, path.c_str(), AT_FDCWD, kept.c_str(), AT_SYMLINK_FOLLOW) == 0 ||
      errno == EEXIST || errno == ENOENT)
    return;
  const byte_source from(path);
  atomic_file to(kept);
  constexpr std::uint64_t block = std::uint64_t{1} << 22;
  for (std::uint64_t at = 0; at < from.size(); at += block) {
    const auto bytes = from.bytes(at, block);
    to.write(bytes.data(), bytes.size());
  }
  to.commit();
}

/// Removes the oldest versions, so that `left` of them stay.
inline void drop_versions(const std::string& path, std::size_t left) {
  const auto found = versions_of(path);
  for (std::size_t i = 0; i + left < found.size(); ++i)
    ::unlink(found[i].second.c_str());
}

}  // namespace multistage::io
