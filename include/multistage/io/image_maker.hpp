// Images of one size made of pictures of any, by all threads of a pool, in blocks of bounded
// size; handed on in the order in which pictures came, so that the result does not depend on
// the number of threads. A picture that cannot be read is left out and noted with its reason.
#pragma once
#include <sstream>
#include <unordered_set>

#include "../core/thread_pool.hpp"
#include "../core/utf8.hpp"
#include "compressed.hpp"
#include "gather.hpp"
#include "prepare_options.hpp"

namespace multistage::io {

/// What became of pictures.
struct prepared {
  shape extents{0, 0, 0, 0};             ///< of the images that were made
  std::vector<std::string> classes;      ///< names by label; empty where there are no labels
  std::vector<index_t> class_counts;     ///< images by label
  double mean = 0;                       ///< of all values in [-1, 1]
  double deviation = 0;                  ///< standard deviation of all values: sigma_data
  index_t duplicates = 0;                ///< images that were left out as equal to others
  index_t enlarged = 0;                  ///< pictures smaller than the images made of them
  index_t hidden = 0;                    ///< hidden files and folders that were passed by
  std::map<std::string, index_t> other;  ///< files that are no pictures, by kind; "": unknown
  std::vector<failed_file> failed;       ///< what could not be read, and why
  std::vector<std::string> remarks;      ///< what else is odd
  std::string checksum;                  ///< of pixels and labels
};

/// Bytes of a reason or a remark that `summary` shows: whole paths fit in it.
inline constexpr std::size_t longest_line = 8192;

/// What was made, in some lines for people.
MULTISTAGE_COLD inline std::string summary(const prepared& made) {
  std::ostringstream s;
  const shape& e = made.extents;
  s << e.rows << (e.rows == 1 ? " image" : " images") << " of " << e.width << " x " << e.height
    << " x " << e.channels;
  if (!made.classes.empty())
    s << ", " << made.classes.size() << (made.classes.size() == 1 ? " class" : " classes");
  s.precision(4);
  s << "\nmean " << made.mean << ", deviation " << made.deviation << " (sigma_data), checksum "
    << made.checksum << "\n";
  constexpr std::size_t most_classes = 40;  // a screen
  for (std::size_t c = 0; c < std::min(made.classes.size(), most_classes); ++c)
    s << "  class " << c << " " << printable(made.classes[c]) << ": "
      << made.class_counts[c] << "\n";
  if (made.classes.size() > most_classes)
    s << "  ... and " << made.classes.size() - most_classes << " classes more\n";
  if (made.duplicates > 0)
    s << made.duplicates << " equal to others and left out\n";
  if (made.enlarged > 0)
    s << made.enlarged << " of pictures smaller than that, enlarged\n";
  return s.str();
}
/// What was left out and why, a line each; empty where all is well.
MULTISTAGE_COLD inline std::string complaints(const prepared& made) {
  std::ostringstream s;
  if (made.hidden > 0)
    s << "left out: " << made.hidden << " hidden files and folders\n";
  for (const auto& [kind, n] : made.other)
    s << "left out: " << n << (n == 1 ? " file: " : " files: ")
      << (kind.empty() ? "no picture" : kind) << "\n";
  for (const std::string& remark : made.remarks)
    s << "note: " << printable(remark, longest_line) << "\n";
  if (!made.failed.empty())
    s << made.failed.size() << " could not be used:\n";
  for (const failed_file& f : made.failed)
    s << "  " << printable(f.why, longest_line) << "\n";
  return s.str();
}

/// Where images go.
struct image_sink {
  /// Called once, before the first. @param extents of an image, rows 0
  std::function<void(const shape& extents)> begin;
  /// An image's bytes. @param label -1 where there are no labels
  std::function<void(const std::string& name, int label, std::span<const unsigned char>)> add;
};

namespace detail {

/// Behind what a strict run ends with.
inline constexpr const char* strictly = " (strict: nothing was made)";

/// A picture on its way from a file to an image.
struct pending_image {
  std::string name;
  int label = -1;
  std::function<picture(const picture_options&)> decode;
  picture image{};
  std::string failure{};  // why there is none
  bool enlarged = false;
};

/// Takes pictures one after the other, makes images of them in blocks, and hands these on.
class image_maker {
 public:
  /// @param channels of all images
  image_maker(const prepare_options& options,
              index_t channels,
              thread_pool& pool,
              const image_sink& sink,
              prepared& made)
      : options_(options),
        channels_(channels),
        pool_(pool),
        sink_(sink),
        made_(made) {
    reading_ = {options.most_pixels, &warnings_, options.background.rgb};
  }

  /// A picture. @param held bytes of memory that it keeps until it is decoded
  void add(pending_image picture, std::size_t held) {
    constexpr std::size_t most_images = 256;
    constexpr std::size_t most_held = std::size_t{1} << 26;
    waiting_.push_back(std::move(picture));
    const picture_size size = wanted();
    held_ += held + std::size_t(size.width * size.height * channels_);
    // The first picture may decide the size, and then how many are held at once.
    if (!size || waiting_.size() == most_images || held_ > most_held)
      flush();
  }
  /// Makes images of all that wait. @throws file_error where a file fails and that is not to be
  void flush() {
    pool_.parallel_for(index_t(waiting_.size()), [&](index_t i) {
      pending_image& one = waiting_[std::size_t(i)];
      try {
        if (one.failure.empty())
          make(one);
      } catch (const error& e) {
        one.failure = e.what();
        if (one.failure.find(one.name) == std::string::npos)
          one.failure = one.name + ": " + one.failure;
      }
      one.decode = nullptr;  // and what it holds
    });
    for (pending_image& one : waiting_)
      hand_on(one);
    waiting_.clear();
    held_ = 0;
  }
  /// Mean and deviation of all that was handed on. @throws file_error where that is nothing
  void finish(const std::string& source) {
    flush();
    require<file_error>(made_.extents.rows > 0, source,
                        ": no picture could be read; the first ",
                        made_.failed.empty() ? "of none" : "fails: " + made_.failed[0].why);
    double sum = 0;
    double squares = 0;
    double n = 0;
    for (std::size_t b = 0; b < 256; ++b) {
      const double value = double(b) / 127.5 - 1;
      n += double(counts_[b]);
      sum += double(counts_[b]) * value;
      squares += double(counts_[b]) * value * value;
    }
    made_.mean = sum / std::max(n, 1.0);
    made_.deviation =
        std::sqrt(std::max(squares / std::max(n, 1.0) - made_.mean * made_.mean, 0.0));
  }

 private:
  /// The size of all images, once it is known.
  picture_size wanted() const {
    return options_.size ? options_.size
                         : picture_size(made_.extents.width, made_.extents.height);
  }
  /// A picture becomes an image, or fails.
  void make(pending_image& one) const {
    picture p = one.decode(reading_);
    if (p.channels > channels_)
      p = recoloured(std::move(p), channels_);
    if (const picture_size to = options_.size) {
      const picture_box box =
          crop_box(p.width, p.height, to, options_.crop, options_.seed, one.name);
      one.enlarged = box.width < to.width || box.height < to.height;
      p = resized(cropped(std::move(p), box), to, options_.filter);
    }
    if (const picture_size all = wanted(); all && !(all == picture_size{p.width, p.height}))
      p.bytes.clear();  // it will be refused, and may be large
    else
      p = recoloured(std::move(p), channels_);
    one.image = std::move(p);
  }
  /// An image goes to the sink, in its turn.
  void hand_on(pending_image& one) {
    if (!one.failure.empty()) {
      require<file_error>(!options_.strict, one.failure, strictly);
      made_.failed.push_back({one.name, one.failure});
      return;
    }
    const picture& p = one.image;
    shape& e = made_.extents;
    if (e.height == 0) {
      e = {0, p.height, p.width, channels_};
      sink_.begin(e);
    }
    require<shape_error>(p.height == e.height && p.width == e.width, one.name, ": is ", p.width,
                         " x ", p.height, ", the pictures before it are ", e.width, " x ",
                         e.height, "; say which size all shall have (size, --size)");
    if (options_.deduplicate && !is_new(p.bytes)) {
      ++made_.duplicates;
      return;
    }
    for (const unsigned char b : p.bytes)
      ++counts_[b];
    made_.enlarged += one.enlarged;
    if (one.label >= 0)
      ++made_.class_counts[std::size_t(one.label)];
    ++e.rows;
    sink_.add(one.name, one.label, p.bytes);
  }
  /// Two hashes of 64 and 32 bits that have nothing in common: among 10 million images two
  /// different ones agree by chance once in 10^15 runs.
  bool is_new(std::span<const unsigned char> bytes) {
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (const unsigned char b : bytes)
      hash = (hash ^ b) * 0x100000001b3u;
    return seen_.insert({hash, crc32(bytes)}).second;
  }

  struct hash_of_pair {
    std::size_t operator()(const std::pair<std::uint64_t, std::uint32_t>& p) const {
      return std::size_t(p.first);
    }
  };
  const prepare_options& options_;
  index_t channels_;
  thread_pool& pool_;
  const image_sink& sink_;
  prepared& made_;
  picture_warnings warnings_;
  picture_options reading_;
  std::vector<pending_image> waiting_;
  std::size_t held_ = 0;
  std::array<std::uint64_t, 256> counts_{};
  std::unordered_set<std::pair<std::uint64_t, std::uint32_t>, hash_of_pair> seen_;
};

}  // namespace detail
}  // namespace multistage::io
