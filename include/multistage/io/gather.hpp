// The pictures that a place holds: a folder of any depth, an archive, archives in folders, one
// file. What a file is, its first bytes say.
//
//   picture_finds found = find_pictures("folder or archive");
//   visit_files("folder or archive", [&](const found_file& f) { ... });   // the same order
//
// Files of a folder come in the order of their names, those of an archive in the archive's. A
// folder that symbolic links lead to is looked into once. Hidden files are left out, files of
// other kinds counted, and what cannot be read is noted with its reason.
#pragma once
#include <map>

#include "archive.hpp"
#include "compressed.hpp"
#include "pictures.hpp"

namespace multistage::io {

/// A file that could not be used, and why.
struct failed_file {
  std::string name;  ///< as in found_file
  std::string why;   ///< for people
};

namespace detail {

/// Whether a part of a path is hidden: ".x", not "." or "..".
inline bool is_hidden(const std::filesystem::path& path) {
  for (const std::filesystem::path& part : path)
    if (part.native().size() > 1 && part.native()[0] == '.' && part != "..")
      return true;
  return false;
}

/// Whether the first bytes of a gzip file unpack to a tar archive's.
inline bool is_packed_tar(std::span<const unsigned char> start) {
  std::vector<unsigned char> first(512);
  inflater from(start, 15 + 16);
  first.resize(from.read(first));
  return kind_of(first).name == std::string_view("tar archive");
}
/// Whether a zip archive begins with an npy file, as npz archives do (APPNOTE.TXT, 4.3.7: the
/// length of the first file's name stands at 26, the name at 30).
inline bool is_npz(std::span<const unsigned char> start) {
  constexpr std::string_view ending = ".npy";
  const std::size_t end = start.size() < 30 ? 0 : 30 + start[26] + 256 * std::size_t(start[27]);
  return end >= 30 + ending.size() && end <= start.size() &&
         std::equal(ending.begin(), ending.end(),
                    start.begin() + std::ptrdiff_t(end - ending.size()));
}
/// Whether a file is an archive of files, by its first bytes. npz archives are arrays.
inline bool is_archive(std::span<const unsigned char> start) {
  const known_kind k = kind_of(start);
  const std::string_view name = k.name;
  return (k.kind == file_kind::zip && !is_npz(start)) || name == "tar archive" ||
         name == "bzip2 file" || name == "xz file" || name == "zstd file" ||
         (k.kind == file_kind::gzip && is_packed_tar(start));
}

/// Bytes at a file's start that tell what it is. @throws file_error
inline std::vector<unsigned char> start_of(const std::string& path) {
  return byte_source(path).bytes(0, 4096);
}

/// Goes over files and notes what it meets.
class file_walk {
 public:
  file_walk(const file_visitor& visit, std::vector<failed_file>* failed)
      : visit_(visit),
        failed_(failed) {}
  /// Hidden files and folders that were passed by.
  index_t hidden = 0;

  /// A folder's files and folders, in the order of their names. @param name "" or "sub/"
  void folder(const std::filesystem::path& path, const std::string& name) {
    struct stat here {};
    if (::stat(path.c_str(), &here) == 0 && !seen_.insert({here.st_dev, here.st_ino}).second)
      return;
    std::error_code why;
    std::vector<std::string> names;
    std::filesystem::directory_iterator entry(path, why), end;
    for (; !why && entry != end; entry.increment(why))
      names.push_back(entry->path().filename().string());
    if (why)
      note(name.empty() ? path.string() : name, "the folder cannot be read: " + why.message());
    std::sort(names.begin(), names.end());
    for (const std::string& one : names) {
      if (is_hidden(one)) {
        ++hidden;
        continue;
      }
      std::error_code problem;
      if (std::filesystem::is_directory(path / one, problem))
        folder(path / one, name + one + "/");
      else
        file((path / one).string(), name + one);
    }
  }
  /// A file, or the files of an archive.
  void file(const std::string& path, const std::string& name) {
    bool holds_files = false;
    try {
      holds_files = reads_archives && is_archive(start_of(path));
    } catch (const file_error& e) {
      return note(name, e.what());
    }
    if (holds_files)
      return archive(path, name);
    const auto first = [path](std::uint64_t most) {
      return byte_source(path).bytes(0, most);
    };
    visit_({name, first, true});
  }
  /// What an archive holds; its own faults are noted. @param name "" where it is all there is
  void archive(const std::string& path, const std::string& name) {
    bool visiting = false;
    const auto visit = [&](const found_file& inside) {
      if (is_hidden(inside.name)) {
        ++hidden;
        return;
      }
      visiting = true;
      visit_({name.empty() ? inside.name : name + "/" + inside.name, inside.first});
      visiting = false;
    };
    try {
      read_archive(path, visit);
    } catch (const file_error& e) {
      if (visiting)
        throw;  // of whoever is told
      note(name.empty() ? path : name, e.what());
    }
  }

 private:
  /// A file that failed, and why.
  void note(const std::string& name, const std::string& why) {
    if (failed_)
      failed_->push_back({name, why});
  }
  const file_visitor& visit_;
  std::vector<failed_file>* failed_;
  std::set<std::pair<dev_t, ino_t>> seen_;
};

}  // namespace detail

/// Calls `visit` for every file of a folder, of an archive, or for the file itself.
/// @param failed what could not be read, where it is wanted. @return hidden files that were
/// passed by. @throws file_error where there is no such path, and what `visit` throws
inline index_t visit_files(const std::string& path,
                           const file_visitor& visit,
                           std::vector<failed_file>* failed = nullptr) {
  std::error_code why;
  const bool is_folder = std::filesystem::is_directory(detail::checked(path), why);
  require<file_error>(std::filesystem::exists(path, why), path,
                      ": is not there: ", why ? why.message() : "no such file or folder");
  detail::file_walk walk(visit, failed);
  if (is_folder) {
    walk.folder(path, "");
  } else if (detail::is_archive(detail::start_of(path))) {
    walk.archive(path, "");
  } else {
    walk.file(path, std::filesystem::path(path).filename().string());
  }
  return walk.hidden;
}

/// What a place holds, looked at and not yet read.
struct picture_finds {
  std::vector<std::string> names;        ///< of the pictures, in order
  std::vector<index_t> places;           ///< of the pictures among all files, from 0
  index_t channels = 1;                  ///< 1 where all pictures are grey, else 3
  index_t hidden = 0;                    ///< hidden files and folders
  std::map<std::string, index_t> other;  ///< files that are no pictures, by what they are
  std::vector<failed_file> failed;  ///< what is called a picture, or should be, and is none
  std::string dataset_json;         ///< content of EDM's list of labels, where there is one
};

namespace detail {
/// Channels of a picture by the first bytes of its file; 3 where they do not say, 1 where the
/// file is broken and nothing will come of it.
inline index_t channels_by_start(const std::string& name,
                                 std::span<const unsigned char> start,
                                 bool whole,
                                 const picture_options& options) {
  try {
    return decode_picture_header(name, start, options).channels;
  } catch (const file_error&) {
    return whole ? 1 : 3;
  }
}
}  // namespace detail

/// Looks at every file of a place. Pictures are those whose first bytes say so; the header is
/// read as well until one is found in colours. @param told is told how many files were looked
/// at, and may throw. @throws file_error as visit_files does
inline picture_finds find_pictures(const std::string& path,
                                   const picture_options& options,
                                   const std::function<void(index_t)>& told = {}) {
  picture_finds found;
  index_t visited = 0;
  const auto look = [&](const found_file& f) {
    constexpr std::uint64_t kind_bytes = 512;
    constexpr std::uint64_t header_bytes = std::uint64_t{1} << 16;
    constexpr std::uint64_t longest_list = std::uint64_t{1} << 30;
    const auto start = f.first(found.channels == 1 ? header_bytes : kind_bytes);
    const known_kind k = kind_of(start);
    if (f.name == "dataset.json") {
      const auto list = f.first(longest_list);
      found.dataset_json.assign(list.begin(), list.end());
      return;
    }
    if (is_picture(k.kind)) {
      found.names.push_back(f.name);
      found.places.push_back(visited);
      if (found.channels == 1)
        found.channels =
            detail::channels_by_start(f.name, start, start.size() < header_bytes, options);
      return;
    }
    if (detail::named_as_picture(f.name) && k.kind != file_kind::other)
      detail::no_picture(f.name, start);
    ++found.other[k.kind == file_kind::none ? "" : k.name];
  };
  const auto visit = [&](const found_file& f) {
    if (told)
      told(visited);
    try {
      look(f);
    } catch (const file_error& e) {
      found.failed.push_back({f.name, e.what()});
    }
    ++visited;
  };
  found.hidden = visit_files(path, visit, &found.failed);
  return found;
}

}  // namespace multistage::io
