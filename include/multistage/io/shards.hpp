// Data sets of any size as a folder of shards: raw bytes of bounded files, and an index that
// says what they are. It opens at once, and each image is read where it lies.
//
//   image_source images = open_images("icons-32");       // or open_shards
//   for_each_file_name("icons-32", [](const std::string& name) { ... });
//
// The folder, which `shard_writer` (shard_writer.hpp) makes, holds
//   images-00000.bin, ...  images one behind the other, uint8 or float32 (latents) [h, w, c];
//                          images_per_shard of them, the last file what is left
//   labels.bin             int32, one an image, where there are labels
//   file_names.bin         names that end with a NUL, one an image, where there are names
//   context.npy            embeddings of one's own, [n, tokens, width] or [n, width], if wanted
//   null_context.npy       what stands for none of them, [tokens, width] or [width], if wanted
//   index.json             written last: a folder without it is no data set
// Numbers are little-endian. Fingerprints are of all images up to a file's end, so that they do
// not depend on how many a file holds. Reading looks at sizes; `check_shards` compares all.
#pragma once
#include "../data/image_source.hpp"
#include "file_series.hpp"
#include "json_text.hpp"
#include "npy.hpp"

namespace multistage::io {

/// What index.json says.
struct shard_index {
  shape extents{0, 0, 0, 0};                      ///< [n, h, w, c] of the set
  image_values kind = image_values::pictures;     ///< pictures are bytes, others float32
  index_t images_per_shard = 0;                   ///< of all files but the last
  index_t class_count = 0;                        ///< 0: there are no labels
  std::vector<std::string> class_names{};         ///< of all classes
  bool named = false;                             ///< whether there are file names
  std::vector<std::string> shard_fingerprints{};  ///< of all images up to each file's end
  std::string fingerprint{};                      ///< of images, labels and what is said here
  json_document made{};                           ///< how the set was made, as its maker says

  /// Bytes of an image.
  std::uint64_t image_bytes() const {
    const std::uint64_t width = kind == image_values::pictures ? 1 : sizeof(float);
    return std::uint64_t(extents.row_size()) * width;
  }
  /// How many files hold the images.
  index_t shard_count() const {
    return (extents.rows + images_per_shard - 1) / images_per_shard;
  }
  /// Images of a file.
  index_t images_of(index_t shard) const {
    return std::min(images_per_shard, extents.rows - shard * images_per_shard);
  }
};

namespace detail {

inline constexpr const char* index_name = "/index.json";
inline constexpr const char* labels_name = "/labels.bin";
inline constexpr const char* file_names_name = "/file_names.bin";
inline constexpr const char* context_name = "/context.npy";
inline constexpr const char* null_context_name = "/null_context.npy";
inline constexpr const char* shard_format = "multistage images";
inline constexpr const char* image_values_names[] = {"pictures", "latents", "moments"};

inline std::string shard_name(const std::string& folder, index_t shard) {
  std::string number = std::to_string(shard);
  number.insert(0, 5 - std::min<std::size_t>(number.size(), 5), '0');
  return folder + "/images-" + number + ".bin";
}

/// The hash of a whole set.
inline std::string fingerprint_of_set(const shard_index& index, const std::string& labels) {
  std::string all = index.shard_fingerprints.back() + labels;
  for (int axis = 0; axis < 4; ++axis)
    all += "," + std::to_string(index.extents[axis]);
  all += image_values_names[int(index.kind)];
  for (const std::string& name : index.class_names)
    all += name + '\0';
  return fingerprint_of(std::span<const char>(all));
}

/// The index as text.
MULTISTAGE_COLD inline std::string text_of(const shard_index& index) {
  json_document j(json::object());
  j.set("format", shard_format);
  j.set("version", 1);
  j.set("images", index.extents.rows);
  j.set("height", index.extents.height);
  j.set("width", index.extents.width);
  j.set("channels", index.extents.channels);
  j.set("values", image_values_names[int(index.kind)]);
  j.set("images_per_shard", index.images_per_shard);
  j.set("classes", index.class_count);
  j.set("class_names", index.class_names);
  j.set("file_names", index.named);
  j.set("shard_fingerprints", index.shard_fingerprints);
  j.set("fingerprint", index.fingerprint);
  j.set("made", *index.made);
  return j->dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

/// Reads the values of index.json, each of which must be there and fit.
class shard_index_reader {
 public:
  shard_index_reader(const std::string& path, const json& j) : path_(path), j_(j) {
    require<file_error>(
        j.is_object() && j.contains("format") && is_text(j.at("format"), shard_format), path,
        ": is not the index of a data set in shards");
    index_t version = 0;
    value("version", version, 1, 1);
  }
  template <class T>
  void value(const char* key, T& to) const {
    require<file_error>(j_.contains(key), path_, ": lacks '", key, "'; make the set anew");
    require<file_error>(take(j_.at(key), to), path_, ": '", key, "' is ", excerpt(j_.at(key)),
                        ", which does not fit; make the set anew");
  }
  void value(const char* key, index_t& to, index_t least, index_t most) const {
    value(key, to);
    require<file_error>(to >= least && to <= most, path_, ": '", key, "' is ", to,
                        "; it must be ", least, " to ", most);
  }
  void kind(image_values& to) const {
    std::string text;
    value("values", text);
    const auto* const end = std::end(image_values_names);
    const auto* const found = std::find(std::begin(image_values_names), end, text);
    require<file_error>(found != end, path_, ": 'values' is '", text.substr(0, 60),
                        "'; known are pictures, latents and moments");
    to = image_values(found - std::begin(image_values_names));
  }

 private:
  const std::string& path_;
  const json& j_;
};

}  // namespace detail

/// Whether a folder has the index of a data set in shards.
inline bool is_shards(const std::string& folder) {
  std::error_code problem;
  return std::filesystem::is_regular_file(folder + detail::index_name, problem);
}

/// The index that a text is, checked; files are not looked at. @param path in messages. @throws
/// file_error
MULTISTAGE_COLD inline shard_index parse_shard_index(std::string_view text,
                                                     const std::string& path) {
  constexpr index_t most_side = index_t{1} << 24;
  constexpr index_t most_images = index_t{1} << 40;
  const json_document document = parse_json(text, path);
  const detail::shard_index_reader read(path, *document);
  shard_index index;
  read.value("images", index.extents.rows, 1, most_images);
  read.value("height", index.extents.height, 1, most_side);
  read.value("width", index.extents.width, 1, most_side);
  read.value("channels", index.extents.channels, 1, most_side);
  read.kind(index.kind);
  read.value("images_per_shard", index.images_per_shard, 1, most_images);
  read.value("classes", index.class_count, 0, std::numeric_limits<int>::max());
  read.value("class_names", index.class_names);
  read.value("file_names", index.named);
  read.value("shard_fingerprints", index.shard_fingerprints);
  read.value("fingerprint", index.fingerprint);
  json made;
  read.value("made", made);
  index.made = json_document(std::move(made));
  constexpr std::uint64_t most_of_set = std::uint64_t{1} << 56;
  const shape& e = index.extents;
  require<file_error>(
      countable(e) && std::uint64_t(e.rows) <= most_of_set / index.image_bytes(), path,
      ": images ", e, " are too large");
  require<file_error>(
      index.class_names.empty() || index_t(index.class_names.size()) == index.class_count, path,
      ": names ", index.class_names.size(), " classes of ", index.class_count);
  require<file_error>(index_t(index.shard_fingerprints.size()) == index.shard_count(), path,
                      ": has ", index.shard_fingerprints.size(), " fingerprints for ",
                      index.shard_count(), " files of images");
  return index;
}

/// The index of a folder, likewise.
MULTISTAGE_COLD inline shard_index read_shard_index(const std::string& folder) {
  constexpr std::uint64_t most_bytes = std::uint64_t{1} << 28;
  const std::string path = folder + detail::index_name;
  const std::vector<unsigned char> bytes = read_file(path, most_bytes);
  return parse_shard_index({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

namespace detail {

/// A file of the set, which must have the size that the index says. @throws file_error
inline byte_source file_of_set(const std::string& path, std::uint64_t size) {
  const byte_source file(path);
  require<file_error>(file.size() == size, path, ": has ", file.size(),
                      " bytes, the index says ", size,
                      ": it was cut or belongs to another set; make the set anew");
  return file;
}

/// f(shard, offset, n, at) for the parts of images [first, first + n) that lie in one file: n
/// images from byte `offset` on, which stand at `at` of them.
template <class F>
void for_each_part(const shard_index& index, index_t first, index_t n, F&& f) {
  for (index_t at = 0; at < n;) {
    const index_t shard = (first + at) / index.images_per_shard;
    const index_t inside = (first + at) % index.images_per_shard;
    const index_t some = std::min(n - at, index.images_of(shard) - inside);
    f(std::size_t(shard), std::uint64_t(inside) * index.image_bytes(), some, at);
    at += some;
  }
}

/// The files of a set's images, which must have the sizes that the index says. @throws
/// file_error
MULTISTAGE_COLD inline std::shared_ptr<const file_series> files_of_images(
    const std::string& folder,
    const shard_index& index) {
  std::vector<std::string> paths;
  std::vector<std::uint64_t> sizes;
  for (index_t s = 0; s < index.shard_count(); ++s) {
    paths.push_back(shard_name(folder, s));
    sizes.push_back(std::uint64_t(index.images_of(s)) * index.image_bytes());
  }
  return std::make_shared<const file_series>(paths, sizes);
}

/// Images of the set, as T lies in the files.
template <class T>
row_reader<T> reader_of_shards(const std::shared_ptr<const shard_index>& index,
                               const std::shared_ptr<const file_series>& files) {
  const index_t size = index->extents.row_size();
  return by_blocks<T>(index->extents, size, [=](index_t first, index_t n, T* to) {
    for_each_part(*index, first, n,
                  [&](std::size_t shard, std::uint64_t offset, index_t some, index_t at) {
                    files->read(shard, offset, to + at * size,
                                std::size_t(some * size) * sizeof(T));
                  });
  });
}

/// Labels of a set, each held to the number of classes when it is read.
inline row_reader<int> reader_of_labels(const std::string& path, const shard_index& index) {
  static_assert(sizeof(int) == 4);
  const std::uint64_t size = std::uint64_t(index.extents.rows) * sizeof(int);
  return by_blocks<int>(
      index.extents, 1,
      [=, file = file_of_set(path, size), classes = index.class_count](index_t first, index_t n,
                                                                       int* to) {
        file.read(std::uint64_t(first) * sizeof(int), to, std::size_t(n) * sizeof(int));
        for (index_t i = 0; i < n; ++i)
          require<file_error>(to[i] >= 0 && to[i] < classes, path, ": image ", first + i,
                              " is of class ", to[i], "; the index knows ", classes);
      });
}

/// Embeddings [n, tokens, width] or [n, width] of floats that lie beside the images.
inline std::shared_ptr<const image_source> context_of(const std::string& path, index_t rows) {
  const byte_source file(path);
  const npy_layout layout =
      parse_npy_layout(path, file.bytes(0, npy_longest_start), file.size());
  const std::vector<index_t>& e = layout.extents;
  require<file_error>((e.size() == 2 || e.size() == 3) && e[0] == rows && layout.type[0] == 'f',
                      path, ": is no array of floats [", rows, ", tokens, width] or [", rows,
                      ", width]; save one row an image");
  const shape extents{rows, 1, e.size() == 3 ? e[1] : 1, e.back()};
  require<file_error>(extents.row_size() > 0, path, ": its rows are empty");
  const index_t size = extents.row_size();
  const auto block = [=](index_t first, index_t n, float* to) {
    const std::uint64_t row = std::uint64_t(size) * layout.width();
    const auto bytes =
        file.bytes(layout.data + std::uint64_t(first) * row, std::uint64_t(n) * row);
    layout.convert(bytes.data(), std::size_t(n * size), to);
  };
  return std::make_shared<const image_source>(
      image_source{extents, by_blocks<float>(extents, size, block)});
}

/// What stands for no context, [tokens, width]. @param context extents of the set's contexts
MULTISTAGE_COLD inline std::vector<float> null_context_of(const std::string& path,
                                                          const shape& context) {
  const npy_array array = read_npy(path);
  std::vector<index_t> extents{context.width, context.channels};
  if (array.extents.size() == 1 && context.width == 1)
    extents = {context.channels};
  require<file_error>(array.extents == extents, path, ": is no array of floats [",
                      context.width, ", ", context.channels,
                      "], as context.npy has them a row");
  return {array.values.begin(), array.values.end()};
}

/// Sets the embeddings that lie in a folder beside its images. @throws file_error
MULTISTAGE_COLD inline void take_context(image_source& images, const std::string& folder) {
  const bool none = std::filesystem::exists(folder + null_context_name);
  if (std::filesystem::exists(folder + context_name))
    images.context = context_of(folder + context_name, images.extents.rows);
  require<file_error>(!none || images.context, folder, null_context_name,
                      ": stands for no context, and there is no context.npy beside it");
  if (none)
    images.null_context = null_context_of(folder + null_context_name, images.context->extents);
}

}  // namespace detail

/// The data set of a folder, whose files are read when they are asked for. Opening looks at the
/// index and at the files' sizes. @throws file_error
MULTISTAGE_COLD inline image_source open_shards(const std::string& folder) {
  const auto index = std::make_shared<const shard_index>(read_shard_index(folder));
  const auto files = detail::files_of_images(folder, *index);
  image_source images;
  if (index->kind == image_values::pictures)
    images = image_source::of_bytes(index->extents,
                                    detail::reader_of_shards<unsigned char>(index, files));
  else
    images = {index->extents, detail::reader_of_shards<float>(index, files)};
  images.finite = true;  // the writer takes no other values
  images.kind = index->kind;
  images.fingerprint = index->fingerprint;
  images.class_count = index->class_count;
  images.class_names = index->class_names;
  if (index->class_count > 0)
    images.read_labels = detail::reader_of_labels(folder + detail::labels_name, *index);
  detail::take_context(images, folder);
  return images;
}

/// f(name) for the file name of each image, in order. @throws file_error, also where there are
/// no names
template <class F>
void for_each_file_name(const std::string& folder, F&& f) {
  const shard_index index = read_shard_index(folder);
  require<file_error>(index.named, folder, ": the set was made without file names");
  const byte_source file(folder + detail::file_names_name);
  constexpr std::uint64_t block = std::uint64_t{1} << 16;
  std::string name;
  index_t count = 0;
  for (std::uint64_t at = 0; at < file.size(); at += block)
    for (const unsigned char c : file.bytes(at, block))
      if (c != 0) {
        name += char(c);
      } else {
        f(std::as_const(name));
        name.clear();
        ++count;
      }
  require<file_error>(count == index.extents.rows && name.empty(), folder,
                      detail::file_names_name, ": holds ", count, " names for ",
                      index.extents.rows, " images; make the set anew");
}

/// Compares every file of a set with the fingerprints of its index. Reads all of it. @throws
/// file_error naming the first file that differs
MULTISTAGE_COLD inline void check_shards(const std::string& folder) {
  const shard_index index = read_shard_index(folder);
  constexpr std::uint64_t block = std::uint64_t{1} << 20;
  fingerprinter images;
  const auto add = [](const byte_source& file, fingerprinter& to) {
    for (std::uint64_t at = 0; at < file.size(); at += block)
      to.add(file.bytes(at, block));
  };
  for (index_t s = 0; s < index.shard_count(); ++s) {
    const std::string path = detail::shard_name(folder, s);
    add(detail::file_of_set(path, std::uint64_t(index.images_of(s)) * index.image_bytes()),
        images);
    require<file_error>(images.text() == index.shard_fingerprints[std::size_t(s)], path,
                        ": its bytes, or those of a file before it, are not those that were "
                        "written; make the set anew");
  }
  fingerprinter labels;
  if (index.class_count > 0)
    add(byte_source(folder + detail::labels_name), labels);
  require<file_error>(detail::fingerprint_of_set(index, labels.text()) == index.fingerprint,
                      folder,
                      ": labels or index are not those that were written; make the set anew");
}

}  // namespace multistage::io
