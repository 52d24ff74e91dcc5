// Writes a data set as a folder of shards (shards.hpp), image by image.
//
//   shard_writer set("icons-32", {0, 32, 32, 3});        // a folder that holds no set yet
//   set.append(pixels, label, "animals/cat.png");        // bytes [32, 32, 3]; image by image
//   set.finish({"animals", "plants"}, {{"source", "icons"}});  // without it there is no set
//
// Label and name may be left out, of all images alike. Latents are floats:
//   shard_writer set("latents", {0, 8, 8, 8}, {.kind = image_values::moments});
#pragma once
#include <cmath>
#include <optional>

#include "../core/utf8.hpp"
#include "shards.hpp"

namespace multistage::io {

/// Settings of a data set that is written.
struct shard_options {
  image_values kind = image_values::pictures;  ///< pictures take bytes, others float32
  /// The most bytes of a file, an image at least. All files of a set are open while it is read.
  std::uint64_t shard_bytes = std::uint64_t{1} << 30;
};

/// Writes a data set image by image. Files appear whole, the index last; what is not finished
/// is no set, and the next writer in the folder starts anew.
class shard_writer {
 public:
  /// @param folder is made if need be. @param image extents of one; its rows do not matter.
  /// @throws file_error where a set is there already; shape_error for images without values
  MULTISTAGE_COLD shard_writer(std::string folder, shape image, shard_options o = {})
      : folder_(std::move(folder)) {
    image.rows = 1;
    require<shape_error>(countable(image) && image.row_size() > 0, folder_, ": images of ",
                         image, " cannot be written");
    make_directory(folder_);
    require<file_error>(!is_shards(folder_), folder_,
                        ": holds a data set already; name another folder, or remove it first");
    index_.extents = image;
    index_.kind = o.kind;
    index_.images_per_shard =
        index_t(std::max<std::uint64_t>(o.shard_bytes / index_.image_bytes(), 1));
    index_.extents.rows = 0;
  }
  /// Images so far.
  index_t count() const {
    return index_.extents.rows;
  }
  /// A picture's bytes [h, w, c]. @param label its class, -1 for none; @param name of its file,
  /// empty for none: all images have the one, or none has.
  /// @throws shape_error, value_error for what does not fit; file_error, e.g. when the disk is
  /// full
  void append(std::span<const unsigned char> pixels,
              int label = -1,
              std::string_view name = {}) {
    require<value_error>(index_.kind == image_values::pictures, folder_,
                         ": is a set of latents; they are floats, not bytes");
    write(pixels, pixels.size(), label, name);
  }
  /// Values of latents or their moments, finite, [h, w, c].
  void append(std::span<const float> values, int label = -1, std::string_view name = {}) {
    require<value_error>(index_.kind != image_values::pictures, folder_,
                         ": is a set of pictures; they are bytes, not floats");
    for (const float v : values)
      require<value_error>(std::isfinite(v), folder_, ": image ", count(), " holds ", v,
                           "; values must be finite");
    write(bytes_in_memory(values), values.size(), label, name);
  }
  /// Ends the set. @param class_names of all labels, in their order; empty: classes are called
  /// by their numbers. @param made how the set was made, for people and programs.
  /// @throws value_error for a set without images, or with labels beyond the names; file_error
  MULTISTAGE_COLD void finish(std::vector<std::string> class_names = {},
                              json made = json::object()) {
    require<state_error>(!broken_, folder_, ": writing failed before; make the set anew");
    require<value_error>(count() > 0, folder_,
                         ": no images were given; a set has one at least");
    const index_t named = index_t(class_names.size());
    require<value_error>(
        named == 0 || (labels_ && largest_label_ < named), folder_, ": ", named,
        " names of classes, ",
        labels_ ? "but labels up to " + std::to_string(largest_label_) : "but no labels");
    for (const std::string& name : class_names)
      require<value_error>(is_utf8(name), folder_, ": the name of a class is not UTF-8");
    index_.class_count = labels_ ? std::max<index_t>(named, largest_label_ + 1) : 0;
    for (index_t c = named; c < index_.class_count; ++c)
      class_names.push_back(std::to_string(c));
    index_.class_names = std::move(class_names);
    index_.named = names_.has_value();
    index_.made = json_document(std::move(made));
    end_shard();
    if (labels_)
      labels_->commit();
    if (names_)
      names_->commit();
    index_.fingerprint = detail::fingerprint_of_set(index_, label_hash_.text());
    write_file(folder_ + detail::index_name, detail::text_of(index_));
  }

 private:
  void write(std::span<const unsigned char> bytes,
             std::size_t values,
             int label,
             std::string_view name) {
    require<state_error>(!broken_, folder_, ": writing failed before; make the set anew");
    require<shape_error>(index_t(values) == index_.extents.row_size(), folder_, ": image ",
                         count(), " has ", values, " values, not the ",
                         index_.extents.row_size(), " of ", index_.extents.height, " x ",
                         index_.extents.width, " x ", index_.extents.channels);
    require<value_error>(label >= -1 && (count() == 0 || (label >= 0) == labels_.has_value()),
                         folder_, ": image ", count(), " has the label ", label,
                         "; give all images a label from 0 on, or none");
    require<value_error>(count() == 0 || name.empty() != names_.has_value(), folder_,
                         ": image ", count(), " has ", name.empty() ? "no" : "a",
                         " file name, unlike those before; give all one, or none");
    require<value_error>(name.find('\0') == name.npos, folder_, ": the file name of image ",
                         count(), " holds a NUL");
    broken_ = true;  // until all parts of the image are written
    if (!shard_)
      shard_.emplace(detail::shard_name(folder_, count() / index_.images_per_shard));
    shard_->write(bytes.data(), bytes.size());
    image_hash_.add(bytes);
    if (label >= 0) {
      if (!labels_)
        labels_.emplace(folder_ + detail::labels_name);
      labels_->write(&label, sizeof label);
      label_hash_.add(bytes_in_memory(std::span<const int>(&label, 1)));
      largest_label_ = std::max<index_t>(largest_label_, label);
    }
    if (!name.empty()) {
      if (!names_)
        names_.emplace(folder_ + detail::file_names_name);
      names_->write(name);
      names_->write("\0", 1);
    }
    if (++index_.extents.rows % index_.images_per_shard == 0)
      end_shard();
    broken_ = false;
  }
  void end_shard() {
    if (!shard_)
      return;
    shard_->commit();
    shard_.reset();
    index_.shard_fingerprints.push_back(image_hash_.text());
  }

  std::string folder_;
  shard_index index_;
  std::optional<atomic_file> shard_;
  std::optional<atomic_file> labels_;
  std::optional<atomic_file> names_;
  fingerprinter image_hash_;
  fingerprinter label_hash_;
  index_t largest_label_ = -1;
  bool broken_ = false;
};

}  // namespace multistage::io
