// Data sets by their path: folders of shards (shards.hpp), npy and npz arrays, IDX files
// (MNIST), CIFAR's binary files or a folder of them, any of these gzipped, and folders of
// PNG, JPEG or WebP pictures. What a file is, its first bytes say. In memory, or as a source
// that is read block by block.
//
//   image_source images = open_images("train-images-idx3-ubyte.gz");
//   image_set all = read_images("folder", {.channels = 1});
//
// A source keeps its files open or their paths, and reads when it is asked: cutting or
// changing a file meanwhile is an error that names it. `image_rule` says what values mean
// where a file does not: which integer is white, whether floats are latents, which array of an
// archive.
#pragma once
#include "../data/image_source.hpp"
#include "cifar.hpp"
#include "idx.hpp"
#include "npz.hpp"
#include "pictures.hpp"
#include "shards.hpp"

namespace multistage::io {

namespace detail {

/// Refuses settings that have no effect on a kind of file. @throws value_error
inline void check_rule(const std::string& path, const image_rule& rule, file_kind kind) {
  const bool archive = kind == file_kind::zip;
  const bool array = kind == file_kind::npy || archive;
  const bool integers = array || kind == file_kind::idx;
  require<value_error>(rule.largest == 0 || integers, path,
                       ": is no array of integers; its white is 255, leave `largest` out");
  require<value_error>(rule.array.empty() || archive, path,
                       ": is no npz archive; leave `array` out");
  require<value_error>(!rule.latents || array, path,
                       ": is no array of floats, in which latent images come (npy or npz); the "
                       "program `encode` makes latents of pictures");
}

/// Bytes of images that lie one behind the other from `data` on.
inline row_reader<unsigned char> bytes_of(byte_source source,
                                          std::uint64_t data,
                                          const shape& e) {
  const index_t size = e.row_size();
  const auto block = [=](index_t first, index_t n, unsigned char* to) {
    const std::uint64_t at = data + std::uint64_t(first * size);
    source.read(at, to, std::size_t(n * size));
  };
  return by_blocks<unsigned char>(e, size, block);
}

/// Refuses extents that are none of images, or of images that no memory holds. @throws
/// file_error
inline void check_array(const std::string& path, const shape& e, const image_rule& rule) {
  const bool channels_first =
      e.channels > 4 && (e.height == 1 || e.height == 3 || e.height == 4);
  require<file_error>(!channels_first || rule.latents, path, ": is an array [", e.rows, ", ",
                      e.height, ", ", e.width, ", ", e.channels,
                      "]: its channels come first; save array.transpose(0, 2, 3, 1)");
  const auto width = std::uint64_t(e.width);
  const auto height = std::uint64_t(e.height);
  check_pixels(path, width, height, rule.most_pixels);
  require<file_error>(e.channels <= most_values / (e.width * e.height), path, ": images of ",
                      e.height, " x ", e.width, " x ", e.channels, " values are too large");
}

/// An array whose values lie in `source` as `layout` says.
inline image_source npy_source(const std::string& path,
                               byte_source source,
                               npy_layout layout,
                               const image_rule& rule) {
  const shape e = image_rule::extents(path, layout.extents);
  check_array(path, e, rule);
  const index_t size = e.row_size();
  const auto block = [=](index_t first, index_t n, float* to) {
    const std::size_t width = layout.width();
    const std::size_t before = std::size_t(first * size);
    const std::size_t values = std::size_t(n * size);
    const auto bytes = source.bytes(layout.data + before * width, values * width);
    layout.convert(bytes.data(), values, to);
    rule.apply(path, layout.type, before, values, to);
  };
  image_source images{e, by_blocks<float>(e, size, block)};
  require<value_error>(!rule.latents || layout.type[0] == 'f', path, ": is an array of '",
                       layout.type,
                       "', and latent images are floats; the program `encode` "
                       "makes latents of pictures");
  images.kind = rule.latents ? image_values::latents : image_values::pictures;
  const double white = rule.white(layout.type);
  if (layout.type == "u1" && white == 255)
    images.read_bytes = bytes_of(source, layout.data, e);
  if (!rule.judged(layout.type))
    return images;
  return watched(std::move(images), path, white);
}

/// The set with labels where there is one for each image, a whole number from 0.
inline image_source with_labels(image_source images, std::span<const double> labels) {
  constexpr double most = 65535;
  const auto is_label = [](double value) {
    return value >= 0 && value <= most && value == std::floor(value);
  };
  if (index_t(labels.size()) != images.extents.rows || labels.empty())
    return images;
  if (!std::all_of(labels.begin(), labels.end(), is_label))
    return images;
  const double last = *std::max_element(labels.begin(), labels.end());
  return images.labelled({labels.begin(), labels.end()}, index_t(last) + 1);
}

/// The array of labels that goes with one of images: "labels", "label" or "y", "y_train" with
/// "x_train"; empty where there is none.
inline std::string labels_beside(const std::string& images,
                                 const std::vector<zip_entry>& entries) {
  std::vector<std::string> names = {"labels", "label", "y"};
  const char first = images[0];
  if (first == 'x' || first == 'X')
    names.insert(names.begin(), char(first + 1) + images.substr(1));
  for (const std::string& name : names)
    for (const zip_entry& e : entries)
      if (e.name == name + ".npy" && name != images)
        return name;
  return {};
}

/// Archives are held in memory: their checksums are of all of an array.
inline image_source npz_source(const std::string& path,
                               const byte_source& source,
                               const image_rule& rule) {
  struct holder {
    std::vector<unsigned char> archive;
    npz_member member;
  };
  const auto held = std::make_shared<holder>();
  held->archive = source.bytes(0, source.size());
  held->member = open_npz(path, held->archive, rule.array);
  const npz_member& member = held->member;
  // The bytes stay as long as the source does, which holds their holder.
  image_source images = npy_source(path + ", array " + printable(member.name),
                                   byte_source(held, member.bytes), member.layout, rule);
  const zip_archive archive(path, held->archive);
  const std::string labels = labels_beside(member.name, archive.entries());
  if (labels.empty())
    return images;
  const npy_array values = parse_npz(path, held->archive, labels);
  return with_labels(std::move(images), values.values);
}

/// The file of labels that goes with one of images: "train-labels-idx1-ubyte" with
/// "train-images-idx3-ubyte", packed or not; empty where there is none.
inline std::string idx_labels_of(const std::string& path) {
  const std::filesystem::path images(path);
  std::string name = images.filename().string();
  const std::size_t what = name.find("images");
  if (what == std::string::npos)
    return {};
  name.replace(what, 6, "labels");
  // The digit behind "idx" is the number of axes: labels have one.
  const std::size_t at = name.find("idx");
  if (at != std::string::npos && at + 3 < name.size())
    name[at + 3] = '1';
  const bool packed = std::filesystem::path(name).extension() == ".gz";
  const std::string other = packed ? name.substr(0, name.size() - 3) : name + ".gz";
  for (const std::string& one : {name, other}) {
    const std::string labels = (images.parent_path() / one).string();
    if (std::filesystem::is_regular_file(labels))
      return labels;
  }
  return {};
}

/// IDX files lie one image behind the other, so a block is one read.
inline image_source idx_source(const std::string& path,
                               byte_source source,
                               const image_rule& rule) {
  const idx_layout layout = parse_idx_layout(path, source.bytes(0, 20), source.size());
  const shape e = layout.extents;
  const bool is_white_255 = rule.largest == 0 || rule.largest == 255;
  check_pixels(path, std::uint64_t(e.width), std::uint64_t(e.height), rule.most_pixels);
  const auto block = [=, largest = rule.largest](index_t first, index_t n, float* to) {
    const std::uint64_t at = layout.data + std::uint64_t(first * e.row_size());
    const auto bytes = source.bytes(at, std::uint64_t(n * e.row_size()));
    layout.convert(path, bytes.data(), first, n, largest, to);
  };
  image_source images{e, by_blocks<float>(e, e.row_size(), block)};
  images.finite = true;
  if (is_white_255)
    images.read_bytes = bytes_of(source, layout.data, e);
  images = watched(std::move(images), path, rule.largest > 0 ? rule.largest : 255);
  const std::string labels_path = idx_labels_of(path);
  if (labels_path.empty())
    return images;
  const byte_source labels = unpacked(labels_path);
  const std::vector<unsigned char> bytes = labels.bytes(0, labels.size());
  const auto values = parse_idx_labels(labels_path, bytes);
  require<file_error>(index_t(values.size()) == e.rows, labels_path, ": has ", values.size(),
                      " labels, ", path, " has ", e.rows, " images");
  const std::vector<double> numbers(values.begin(), values.end());
  return with_labels(std::move(images), numbers);
}

/// @param path a folder, or one picture
inline image_source picture_source(const std::string& path,
                                   bool is_folder,
                                   const image_rule& rule) {
  check_rule(path, rule, file_kind::png);
  const auto warnings = std::make_shared<picture_warnings>();
  const picture_options options{rule.most_pixels, warnings.get()};
  picture_folder found;
  if (is_folder) {
    found = open_folder(path, options);
  } else {
    const picture_header h = read_picture_header(path, options);
    found = {{path}, {1, h.height, h.width, h.channels}};
  }
  const shape e = found.extents;
  const auto block = [found, warnings, options](index_t first, index_t n, unsigned char* to) {
    const auto files = std::span(found.files).subspan(std::size_t(first), std::size_t(n));
    read_pictures(files, found.extents, to, options);
  };
  return image_source::of_bytes(e, by_blocks<unsigned char>(e, e.row_size(), block));
}

/// A file by what its first bytes say it is. @throws file_error with what it was taken for
inline image_source file_source(const std::string& path, const image_rule& rule) {
  const byte_source source = unpacked(path);
  known_kind k = kind_of(source.bytes(0, kind_start));
  // The first bytes of an IDX file may be those of a record of CIFAR, too; then the sizes
  // decide.
  if (k.kind == file_kind::idx && is_cifar_after_all(source))
    k = {};
  check_rule(path, rule, k.kind);
  if (k.kind == file_kind::npy) {
    const auto start = source.bytes(0, npy_longest_start);
    return npy_source(path, source, parse_npy_layout(path, start, source.size()), rule);
  }
  if (k.kind == file_kind::zip)
    return npz_source(path, source, rule);
  if (k.kind == file_kind::idx)
    return idx_source(path, source, rule);
  if (is_picture(k.kind))
    return picture_source(path, false, rule);
  if (k.kind == file_kind::none && cifar_format_of(source))
    return cifar_source({{path, source}}, rule.most_pixels);
  const std::string is = source.size() == 0          ? ": is empty"
                         : k.kind == file_kind::none ? ": is no data set that is known"
                                                     : std::string(": is a ") + k.name;
  fail<file_error>(
      path, is,
      "; data sets are npy and npz arrays, IDX files (MNIST), CIFAR's .bin, these "
      "gzipped, or a folder of .bin or of PNG, JPEG or WebP files; `prepare` makes one of "
      "archives and of folders of any depth");
}

}  // namespace detail

/// A source with so many channels: grey fills them all, and pictures whose channels agree
/// become grey.
/// @throws shape_error for other changes; when read, value_error naming a picture that has
/// colours
inline image_source with_channels(const std::string& path,
                                  image_source images,
                                  index_t channels) {
  const shape from = images.extents;
  if (channels == from.channels)
    return images;
  const bool possible = from.channels == 1 || (channels == 1 && from.channels > 1);
  require<shape_error>(possible, path, ": pictures of ", from.channels,
                       " channels cannot be made ones of ", channels);
  const auto change = [path, from, channels]<class T>(row_reader<T> read) -> row_reader<T> {
    if (!read)
      return {};
    return [=](std::span<const index_t> rows, T* to) {
      const std::size_t pixels = std::size_t(from.height * from.width);
      const std::size_t count = std::size_t(from.channels);
      std::vector<T> values(rows.size() * pixels * count);
      read(rows, values.data());
      for (std::size_t p = 0; p < rows.size() * pixels; ++p) {
        const T* const pixel = values.data() + p * count;
        const bool grey = std::all_of(pixel, pixel + count, [&](T v) { return v == *pixel; });
        require<value_error>(grey, path, ": picture ", rows[p / pixels],
                             " has colours and cannot be read as grey");
        // One value stands for all channels there are, and becomes all that are wanted.
        to = std::fill_n(to, channels, *pixel);
      }
    };
  };
  images.extents.channels = channels;
  images.read = change(std::move(images.read));
  images.read_bytes = change(std::move(images.read_bytes));
  images.fingerprint.clear();
  return images;
}

namespace detail {
/// The folder whose index.json a path names, or the path itself. @throws file_error for a set
/// that was not finished
inline std::string folder_of_index(const std::string& path) {
  const std::filesystem::path at(path);
  if (at.filename() == std::filesystem::path(index_name).filename())
    return at.has_parent_path() ? at.parent_path().string() : ".";
  std::error_code problem;
  const bool has_images = std::filesystem::exists(shard_name(path, 0), problem);
  require<file_error>(is_shards(path) || !has_images, path,
                      ": has images of a data set, but no index.json: the set was not "
                      "finished; make it anew");
  return path;
}
}  // namespace detail

/// Images of any kind of path, in [-1, 1] unless they are latents, NHWC, as a source: shards
/// (the folder or its index.json), arrays, CIFAR-10's files and pictures stay on the disk and
/// are read when they are asked for; npz archives and what is gzipped is held in memory.
/// Pictures are grey, one channel, where all of a folder are. What is odd about pictures is
/// said when the source is gone.
/// @throws file_error saying what the path is taken for and why that fails, shape_error
inline image_source open_images(const std::string& path, const image_rule& rule = {}) {
  image_source images;
  const std::string folder = detail::folder_of_index(path);
  if (is_shards(folder)) {
    images = open_shards(folder);
    image_rule asked = rule;
    asked.latents = rule.latents && images.kind == image_values::pictures;  // they say it
    detail::check_rule(path, asked, file_kind::none);
  } else if (!std::filesystem::is_directory(path)) {
    images = detail::file_source(path, rule);
  } else if (const auto batches = detail::cifar_files_of(path); !batches.empty()) {
    detail::check_rule(path, rule, file_kind::none);
    images = detail::cifar_source(batches, rule.most_pixels);
  } else {
    images = detail::picture_source(path, true, rule);
    detail::take_context(images, path);
  }
  return rule.channels > 0 ? with_channels(path, std::move(images), rule.channels) : images;
}

/// Copies the embeddings that lie beside the images of a path to another set of the same
/// images. Returns the names of the files. @throws file_error
MULTISTAGE_COLD inline std::vector<std::string> copy_context(const std::string& path,
                                                             const std::string& folder) {
  std::vector<std::string> copied;
  for (const char* name : {detail::context_name, detail::null_context_name}) {
    const std::string from = detail::folder_of_index(path) + name;
    if (!std::filesystem::is_regular_file(from))
      continue;
    const std::vector<unsigned char> bytes = read_file(from);
    write_file(folder + name, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    copied.emplace_back(name + 1);
  }
  return copied;
}

/// All images of a source, in memory. @param told is told the share that is there, again and
/// again
inline image_set read_all(const image_source& images,
                          const std::function<void(double)>& told = {}) {
  constexpr index_t block = 256;
  image_set all;
  all.extents = images.extents;
  all.values.resize(std::size_t(images.extents.size()));
  const index_t size = images.extents.row_size();
  const index_t count = all.count();
  for (index_t first = 0; first < count; first += block) {
    const index_t n = std::min(block, count - first);
    images.read_block(first, n, all.values.data() + first * size);
    if (told)
      told(double(first + n) / double(count));
  }
  return all;
}

/// What `open_images` opens, read whole into memory.
inline image_set read_images(const std::string& path, const image_rule& rule = {}) {
  return read_all(open_images(path, rule));
}

}  // namespace multistage::io
