// How a data set is made of pictures: the options of `prepare`, each named once.
//
//   prepare_options o{.size = {32, 32}, .crop = crop_rule::centre, .grey = true};
//   o.labels = label_choice("folder");
#pragma once
#include "resize.hpp"

namespace multistage::io {

/// What stands behind transparent pixels, as an option: black, white, grey, or a number sign
/// and six hexadecimal digits, two a channel.
struct background_colour {
  std::array<unsigned char, 3> rgb{};  ///< red, green, blue

  /// Black.
  background_colour() = default;
  /// Of text. @throws value_error for what is no colour
  MULTISTAGE_COLD explicit background_colour(const std::string& text) {
    unsigned value = 0;
    if (text == "white")
      value = 0xffffff;
    else if (text == "grey")
      value = 0x808080;
    else if (text != "black") {
      const char* const end = text.data() + text.size();
      const bool hexadecimal = text.size() == 7 && text[0] == '#';
      const auto [at, status] =
          hexadecimal ? std::from_chars(text.data() + 1, end, value, 16)
                      : std::from_chars_result{text.data(), std::errc::invalid_argument};
      require<value_error>(status == std::errc() && at == end, "background '", text,
                           "' is neither black, white, grey nor red, green and blue in "
                           "hexadecimal digits like #ff8000");
    }
    for (std::size_t c = 0; c < 3; ++c)
      rgb[c] = static_cast<unsigned char>(value >> (16 - 8 * c) & 255);
  }
  /// As it is read.
  std::string name() const {
    char text[8];
    std::snprintf(text, sizeof text, "#%02x%02x%02x", rgb[0], rgb[1], rgb[2]);
    return text;
  }
};

/// Where labels come from.
enum class label_origin { own, folder, csv, none };

/// Where labels come from, as an option: "own" are those that a set brings along (MNIST, CIFAR,
/// EDM's dataset.json), "folder", "none", "csv FILE".
struct label_choice {
  label_origin from = label_origin::own;  ///< which of these
  std::string table;                      ///< the file of "csv FILE"

  /// Labels that the set brings along.
  label_choice() = default;
  /// Of text. @throws value_error for what is none of these
  MULTISTAGE_COLD explicit label_choice(const std::string& text) {
    if (text == "folder") {
      from = label_origin::folder;
    } else if (text == "none") {
      from = label_origin::none;
    } else if (text.starts_with("csv ") && text.size() > 4) {
      from = label_origin::csv;
      table = text.substr(4);
    } else {
      require<value_error>(text == "own", "labels '", text,
                           "' are unknown; known: own, folder, none, csv FILE");
    }
  }
  /// As it is read.
  std::string name() const {
    constexpr const char* names[] = {"own", "folder", "csv ", "none"};
    return names[int(from)] + table;
  }
};

/// How a data set is made of pictures.
struct prepare_options {
  picture_size size{};                              ///< none: all pictures must have one size
  crop_rule crop = crop_rule::centre;               ///< what of a picture is taken
  resize_filter filter = resize_filter::lanczos;    ///< how pixels are averaged
  bool grey = false;                                ///< one channel, whatever the pictures have
  background_colour background{};                   ///< behind what is transparent
  label_choice labels{};                            ///< where labels come from
  bool deduplicate = false;                         ///< whether equal images are taken once
  bool strict = false;                              ///< whether a file that fails ends the run
  bool overwrite = false;                           ///< whether a data set that is there goes
  std::uint64_t seed = 0;                           ///< of places that are drawn
  std::uint64_t most_pixels = default_most_pixels;  ///< of one picture

  /// Calls visit(option, member) for every option.
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"size", "of the images: a side like 32, or width x height like 48x64"},
          s.size);
    visit(option{"crop",
                 "what of a picture is taken: the middle, a place drawn by seed and "
                 "name, or all of it, squeezed"},
          s.crop);
    visit(option{"filter", "how pixels are averaged; area does not ring at edges"}, s.filter);
    visit(option{"grey", "one channel: colours become their luma"}, s.grey);
    visit(option{"background", "behind what is transparent: black, white, grey or #rrggbb"},
          s.background);
    visit(option{"labels",
                 "own (those of MNIST, CIFAR, EDM's dataset.json), folder, csv FILE "
                 "(file,label) or none"},
          s.labels);
    visit(option{"deduplicate", "images whose pixels are equal are taken once"}, s.deduplicate);
    visit(option{"strict", "a file that cannot be read ends the run"}, s.strict);
    visit(option{"overwrite", "a data set of that name is replaced"}, s.overwrite);
    visit(option{"seed", "of places that are drawn (crop random-fixed)", at_least(0)}, s.seed);
    visit(option{"most_pixels", "pixels of the largest picture that is read", between(1, 1e12)},
          s.most_pixels);
  }
};

}  // namespace multistage::io
