// Which class each picture is of: one for all, a list, or one by chance for each seed.
//
//   sample(net, edm_heun{}, {.seeds = "0-63", .class_label = 3});
//   sample(net, edm_heun{}, {.seeds = "0-63", .class_label = "0-9"});     // 0, 1, ... 9, 0,
//   ... sample(net, edm_heun{}, {.seeds = {7, 9}, .class_label = "cat,dog"}); sample(net,
//   edm_heun{}, {.seeds = "0-63", .class_label = "random"});
//
// A list goes along with the seeds and begins again where it is shorter. A label by chance is a
// function of the picture's seed, as the picture is.
#pragma once
#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../core/random.hpp"
#include "../core/seeds.hpp"

namespace multistage {

/// Labels of pictures: numbers of classes, their names, "none", "random".
class label_list {
 public:
  /// No picture has a label.
  label_list()
      : label_list(-1) {}
  /// All pictures are of one class; -1: of none.
  label_list(int label)
      : label_list({label}) {}
  /// Picture i is of class labels[i], from the beginning again where they are fewer.
  label_list(std::initializer_list<int> labels)
      : label_list(std::span<const int>(labels)) {}
  /// The same of any numbers that lie one behind the other. @throws value_error for none
  label_list(std::span<const int> labels) {
    require<value_error>(!labels.empty(),
                         "label: the list is empty; give at least one, or -1 for no label");
    for (const int label : labels)
      parts_.push_back({label, label, {}});
  }
  /// The same.
  label_list(const std::vector<int>& labels)
      : label_list(std::span<const int>(labels)) {}
  /// From text like "3", "0-9", "cat,dog,7", "none" or "random": what stands between commas.
  /// @throws value_error for an empty part or a range that descends
  MULTISTAGE_COLD label_list(std::string_view text) {
    const std::string_view all = text;
    for (bool more = true; more;) {
      const std::size_t end = std::min(text.find(','), text.size());
      const std::string_view one = text.substr(0, end);
      require<value_error>(!one.empty(), "label: '", all,
                           "' is not a list like 0-9, cat,dog, random or none");
      parts_.push_back(parse(one));
      more = end < text.size();
      text.remove_prefix(more ? end + 1 : end);
    }
  }
  /// The same.
  label_list(const std::string& text)
      : label_list(std::string_view(text)) {}
  /// The same.
  label_list(const char* text)
      : label_list(std::string_view(text)) {}

  /// As text, which makes the same list again.
  std::string name() const {
    std::string text;
    for (const part& p : parts_) {
      const std::string first = p.name.empty() ? std::to_string(p.first) : p.name;
      text += (text.empty() ? "" : ",") + first;
      if (p.last != p.first)
        text += "-" + std::to_string(p.last);
    }
    return text;
  }
  /// Whether any picture may have a label.
  bool any() const {
    return std::any_of(parts_.begin(), parts_.end(),
                       [](const part& p) { return p.last >= 0 || !p.name.empty(); });
  }
  /// Whether pictures may have different labels.
  bool is_list() const {
    const part& first = parts_[0];
    return parts_.size() > 1 || first.last > first.first || first.name == "random";
  }
  /// Of every picture of these seeds, -1 for none.
  /// @param classes how many the model knows. @param names theirs, or none
  /// @throws value_error for a class that the model does not know
  MULTISTAGE_COLD std::vector<int> of(const seed_list& seeds,
                                      index_t classes,
                                      std::span<const std::string> names = {}) const {
    const std::vector<int> list = listed(classes, names);
    std::vector<int> labels;
    for (std::size_t i = 0; i < seeds.size(); ++i) {
      const int label = list[i % list.size()];
      labels.push_back(label != by_chance ? label
                                          : int(random_stream(seeds[i], purpose::label, 0)
                                                    .below(0, std::uint32_t(classes))));
    }
    return labels;
  }
  /// The list itself, once. @see of
  MULTISTAGE_COLD std::vector<int> listed(index_t classes,
                                          std::span<const std::string> names = {}) const {
    std::vector<int> list;
    for (const part& p : parts_) {
      if (p.name == "random" && classes > 0) {
        list.push_back(by_chance);
        continue;
      }
      const part known = p.name.empty() ? p : number_of(p.name, classes, names);
      require<value_error>(known.first >= -1 && known.last < classes,
                           "sample: class_label = ", name(), ": class ",
                           known.first < -1 ? known.first : known.last,
                           ", but the model knows ", classes, " classes");
      for (int label = known.first; label <= known.last; ++label)
        list.push_back(label);
    }
    return list;
  }
  /// @throws value_error for a number below -1
  void check(const char* what) const {
    for (const part& p : parts_)
      require<value_error>(p.first >= -1 && p.last >= p.first, "sample: ", what, " = ", name(),
                           "; a class is a number from 0 on, or -1 for none");
  }

 private:
  struct part {
    int first = -1;
    int last = -1;
    std::string name;  // where it is no number
  };

  static constexpr int by_chance = -2;  // in the list
  /// Reads all of a text as a number.
  static bool whole_number(std::string_view text, int& value) {
    const char* const behind = text.data() + text.size();
    const auto [end, status] = std::from_chars(text.data(), behind, value);
    return status == std::errc() && end == text.data() + text.size();
  }
  /// What stands between two commas. @throws value_error
  static part parse(std::string_view text) {
    part p;
    if (text == "none")
      return p;
    if (whole_number(text, p.first)) {
      p.last = p.first;
      return p;
    }
    const std::size_t dash = text.find('-', 1);
    if (dash != text.npos && whole_number(text.substr(0, dash), p.first) &&
        whole_number(text.substr(dash + 1), p.last)) {
      require<value_error>(p.first <= p.last && p.last - p.first < 1'000'000, "label: '", text,
                           "' is a range that descends or holds more than a million classes");
      return p;
    }
    return {-1, -1, std::string(text)};
  }
  /// The class of a name. @throws value_error that lists some of those there are
  static part number_of(const std::string& name,
                        index_t classes,
                        std::span<const std::string> names) {
    const auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end()) {
      std::string known;
      for (std::size_t i = 0; i < std::min<std::size_t>(names.size(), 20); ++i)
        known += (i ? ", " : "") + names[i];
      if (names.size() > 20)
        known += ", ...";
      fail<value_error>("sample: class '", name, "' is unknown; the model knows ", classes,
                        " classes, ",
                        names.empty() ? "by number alone (0 is the first)" : known);
    }
    const int label = int(at - names.begin());
    return {label, label, {}};
  }

  std::vector<part> parts_;
};

}  // namespace multistage
