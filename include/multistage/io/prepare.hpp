// A data set made of pictures of any kind: gathered, labelled, cut, resized and written as
// images of one size, with labels where there are some.
//
//   thread_pool pool;
//   const prepared made = prepare("pictures.zip", "icons-32", {.size = {32, 32}}, pool);
//   image_source images = open_images("icons-32");
//
// Chains of steps that stand apart: find_pictures (gather.hpp), labels (labels.hpp), crop_box
// and resized (resize.hpp), image_maker (image_maker.hpp), shard_writer (shard_writer.hpp).
#pragma once
#include <optional>

#include "atomic_folder.hpp"
#include "dataset.hpp"
#include "image_maker.hpp"
#include "labels.hpp"
#include "shard_writer.hpp"

namespace multistage::io {

/// Told how many of how many pictures were taken, and before that how many files were looked
/// at, of 0 that are known; returns whether to go on.
using prepare_progress = std::function<bool(index_t done, index_t all)>;

namespace detail {

/// Labels of pictures as the options ask for them; empty where there are none.
inline label_list labels_for(const std::string& source,
                             const picture_finds& found,
                             const label_choice& choice) {
  switch (choice.from) {
    case label_origin::folder:
      return labels_by_folder(found.names);
    case label_origin::csv: {
      const std::vector<unsigned char> bytes = read_file(choice.table, std::uint64_t{1} << 32);
      const char* const text = reinterpret_cast<const char*>(bytes.data());
      return labels_by_table(choice.table, {text, bytes.size()}, found.names);
    }
    case label_origin::own:
      if (!found.dataset_json.empty())
        return labels_by_dataset_json(source + "/dataset.json", found.dataset_json,
                                      found.names);
      break;
    case label_origin::none:
      break;
  }
  return {};
}

/// Why a place gives no images, in words.
[[noreturn]] inline void no_pictures(const std::string& source, const picture_finds& found) {
  std::string holds;
  for (const auto& [kind, n] : found.other) {
    const std::string what = kind.empty() ? "of no kind that is known" : kind;
    holds += (holds.empty() ? "" : ", ") + std::to_string(n) + " " + what;
  }
  fail<file_error>(source, ": holds no pictures that can be read",
                   holds.empty() ? "" : "; of other files there are: ", holds,
                   found.failed.empty() ? "" : "; the first that fails: ",
                   found.failed.empty() ? "" : found.failed[0].why);
}

/// A picture of a file, to be decoded when its turn comes; the file's bytes are read at once
/// where they cannot be had later. @param held is told how many
inline pending_image pending_of(const found_file& f, std::uint64_t most, std::size_t& held) {
  pending_image one{f.name, -1, {}};
  const auto read = [most, first = f.first, name = f.name] {
    std::vector<unsigned char> bytes = first(most + 1);
    require<file_error>(bytes.size() <= most, name, ": has more than the ", most,
                        " bytes of a picture as large as may be");
    return bytes;
  };
  if (f.later) {
    one.decode = [read, name = f.name](const picture_options& o) {
      return decode_picture(name, read(), o);
    };
    return one;
  }
  try {
    const auto bytes = std::make_shared<const std::vector<unsigned char>>(read());
    held = bytes->size();
    one.decode = [bytes, name = f.name](const picture_options& o) {
      return decode_picture(name, *bytes, o);
    };
  } catch (const file_error& e) {
    one.failure = e.what();
  }
  return one;
}

/// How often people are told, in pictures.
inline constexpr index_t told_every = 64;

/// Tells how far it is. @throws state_error where the work is to end
inline void tell(const prepare_progress& told, index_t done, index_t all) {
  const bool silent = done % told_every != 0 || !told;
  require<state_error>(silent || told(done, all), "stopped");
}

/// Images of the pictures that were found in a folder or an archive.
inline prepared prepare_pictures(const std::string& source,
                                 picture_finds found,
                                 const prepare_options& options,
                                 thread_pool& pool,
                                 const image_sink& sink,
                                 const prepare_progress& told) {
  require<file_error>(!options.strict || found.failed.empty(),
                      found.failed.empty() ? "" : found.failed[0].why, strictly);
  if (found.names.empty())
    no_pictures(source, found);
  const label_list labels = labels_for(source, found, options.labels);
  for (const std::string& name : labels.classes)
    require<value_error>(is_utf8(name), source,
                         ": the name of a class is not UTF-8: ", printable(name));
  prepared made;
  made.classes = labels.classes;
  made.class_counts.resize(labels.classes.size());
  made.remarks = labels.remarks;
  made.hidden = found.hidden;
  made.other = std::move(found.other);
  made.failed = std::move(found.failed);
  image_maker maker(options, options.grey ? 1 : found.channels, pool, sink, made);
  const index_t all = index_t(found.names.size());
  const std::uint64_t most = 8 * options.most_pixels + (std::uint64_t{1} << 20);
  index_t visited = 0;
  index_t next = 0;
  const auto check = [&](bool unchanged) {
    require<file_error>(unchanged, source, ": was changed while it was read: ",
                        next < all ? found.names[std::size_t(next)] : "", " is gone");
  };
  // Files are come by in the same order again; those that were found to be pictures are taken.
  visit_files(source, [&](const found_file& f) {
    if (next == all || visited++ != found.places[std::size_t(next)])
      return;
    check(f.name == found.names[std::size_t(next)]);
    tell(told, next, all);
    std::size_t held = 0;
    pending_image one = pending_of(f, most, held);
    if (!labels.labels.empty())
      one.label = labels.labels[std::size_t(next)];
    if (!labels.labels.empty() && one.label < 0)
      one.failure = f.name + ": has no label";
    ++next;
    maker.add(std::move(one), held);
  });
  check(next == all);
  maker.finish(source);
  if (told)
    told(all, all);
  return made;
}

/// Images of another set's, which have its labels unless the options say otherwise.
inline prepared prepare_rows(const std::string& source,
                             const image_source& images,
                             const prepare_options& options,
                             thread_pool& pool,
                             const image_sink& sink,
                             const prepare_progress& told) {
  const shape e = images.extents;
  const bool shown = e.channels == 1 || e.channels == 3;
  require<shape_error>(shown && images.kind == image_values::pictures, source,
                       ": holds images of ", e.channels, " channels; pictures have 1 or 3");
  const label_origin origin = options.labels.from;
  require<value_error>(origin == label_origin::own || origin == label_origin::none, source,
                       ": is no folder or archive of files, whose labels could be of ",
                       "folders or of a table; they are its own or none");
  prepared made;
  std::vector<int> labels;
  if (origin == label_origin::own && images.read_labels) {
    labels = images.labels();
    made.classes = images.class_names;
    for (index_t c = index_t(made.classes.size()); c < images.class_count; ++c)
      made.classes.push_back(std::to_string(c));
    made.class_counts.resize(made.classes.size());
  }
  image_maker maker(options, options.grey ? 1 : e.channels, pool, sink, made);
  constexpr index_t block = 256;
  const std::size_t size = std::size_t(e.row_size());
  std::vector<float> values;
  for (index_t first = 0; first < e.rows; first += block) {
    tell(told, first, e.rows);
    std::vector<index_t> rows(static_cast<std::size_t>(std::min(block, e.rows - first)));
    std::iota(rows.begin(), rows.end(), first);
    std::vector<unsigned char> bytes(rows.size() * size);
    if (images.read_bytes) {
      images.read_bytes(rows, bytes.data());
    } else {
      values.resize(bytes.size());
      images.read(rows, values.data());
      std::transform(values.begin(), values.end(), bytes.begin(), to_byte);
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto from = bytes.begin() + std::ptrdiff_t(i * size);
      picture p{e.height, e.width, e.channels, {from, from + std::ptrdiff_t(size)}};
      pending_image one;
      one.name = std::to_string(rows[i]);
      one.label = labels.empty() ? -1 : labels[std::size_t(rows[i])];
      one.decode = [p = std::move(p)](const picture_options&) {
        return p;
      };
      maker.add(std::move(one), size);
    }
  }
  maker.finish(source);
  if (told)
    told(e.rows, e.rows);
  return made;
}

/// CIFAR's training files of an archive as it is published, held in memory; empty for others.
inline std::vector<named_source> cifar_files_in(const std::string& archive) {
  std::vector<named_source> found;
  visit_files(archive, [&](const found_file& f) {
    constexpr std::uint64_t most = std::uint64_t{1} << 28;  // CIFAR-100's has 154 MB
    if (is_cifar_name(f.name))
      add_cifar_file(found, {archive + "/" + f.name, byte_source(f.first(most))});
  });
  std::sort(found.begin(), found.end(),
            [](const named_source& a, const named_source& b) { return a.name < b.name; });
  return found;
}

/// Whether a path is a set of arrays or of images, which open_images reads, and not of files.
inline bool is_image_set(const std::string& path) {
  if (std::filesystem::is_directory(path))
    return is_shards(path) || !cifar_files_of(path).empty();
  if (is_shards(folder_of_index(path)))
    return true;
  const std::vector<unsigned char> start = start_of(path);
  return !is_archive(start) && !is_picture(kind_of(start).kind);
}

}  // namespace detail

/// Makes images of a folder of any depth, an archive, a picture, or whatever open_images reads.
/// @param rule what arrays mean. @param told is told how far it is. @throws file_error where
/// nothing can be read, what the labels are short of, and with `strict` the first file that
/// fails; value_error, shape_error
inline prepared prepare_images(const std::string& source,
                               const prepare_options& options,
                               thread_pool& pool,
                               const image_sink& sink,
                               const prepare_progress& told = {},
                               image_rule rule = {}) {
  check_options("prepare", options);
  require<file_error>(std::filesystem::exists(detail::checked(source)), source,
                      ": there is no such file or folder");
  rule.most_pixels = options.most_pixels;
  if (detail::is_image_set(source))
    return detail::prepare_rows(source, open_images(source, rule), options, pool, sink, told);
  const picture_options looking{options.most_pixels, nullptr, options.background.rgb};
  picture_finds found =
      find_pictures(source, looking, [&](index_t files) { detail::tell(told, files, 0); });
  // Archives without pictures may be CIFAR's as they are published.
  if (found.names.empty() && !std::filesystem::is_directory(source))
    if (const auto files = detail::cifar_files_in(source); !files.empty())
      return detail::prepare_rows(source, detail::cifar_source(files, rule.most_pixels),
                                  options, pool, sink, told);
  return detail::prepare_pictures(source, std::move(found), options, pool, sink, told);
}

namespace detail {
/// How a set was made, for people and programs.
inline json description_of(const std::string& source,
                           const prepare_options& options,
                           const prepared& made) {
  json how{{"source", source},
           {"mean", made.mean},
           {"deviation", made.deviation},
           {"failed", made.failed.size()},
           {"duplicates", made.duplicates}};
  prepare_options::fields(options, [&](const option& o, const auto& value) {
    how["options"][o.name] = option_text(value);
  });
  return how;
}
}  // namespace detail

/// Makes a data set in shards, which open_images opens. Nothing is there before all is.
/// @param out the folder of the set. @param told is told how far it is; where it returns false,
/// the work ends and nothing is made. @param rule what arrays mean
/// @throws as prepare_images does; file_error where `out` is there already, unless it is a set
/// in shards and may be overwritten; state_error when told to stop
MULTISTAGE_COLD inline prepared prepare(const std::string& source,
                                        const std::string& out,
                                        const prepare_options& options,
                                        thread_pool& pool,
                                        const prepare_progress& told = {},
                                        const image_rule& rule = {}) {
  const bool replaces = options.overwrite && is_shards(out);
  require<file_error>(!options.overwrite || replaces || !std::filesystem::exists(out), out,
                      ": is there and no data set in shards; remove it, or name another");
  atomic_folder folder(out, replaces);
  std::optional<shard_writer> writer;
  const image_sink sink{
      [&](const shape& extents) { writer.emplace(folder.inside(), extents); },
      [&](const std::string& name, int label, std::span<const unsigned char> image) {
        writer->append(image, label, name);
      }};
  prepared made = prepare_images(source, options, pool, sink, told, rule);
  writer->finish(made.classes, detail::description_of(source, options, made));
  made.checksum = read_shard_index(folder.inside()).fingerprint;
  folder.commit();
  return made;
}

}  // namespace multistage::io
