// Lists of seeds: values, from text like "0-63,100" or from numbers.
//
//   sample(net, edm_heun{}, {.seeds = "0-63"});
//   sample(net, edm_heun{}, {.seeds = {7, 8, 9}});
#pragma once
#include <charconv>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "error.hpp"

namespace multistage {

/// Seeds from text like "0-63,70": single numbers and ranges, in that order. @throws
/// value_error for anything else, or more than 10^7.
MULTISTAGE_COLD inline std::vector<std::uint64_t> parse_seeds(std::string_view text) {
  constexpr std::uint64_t most = 10'000'000;
  std::vector<std::uint64_t> seeds;
  const std::string_view all = text;
  const auto number = [&] {
    std::uint64_t v = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), v);
    require<value_error>(status == std::errc(), "seeds: '", all,
                         "' is not a list like 0-63,70 of numbers from 0 to 2^64 - 1");
    text.remove_prefix(std::size_t(end - text.data()));
    return v;
  };
  while (!text.empty()) {
    const std::uint64_t first = number();
    std::uint64_t last = first;
    if (!text.empty() && text.front() == '-') {
      text.remove_prefix(1);
      last = number();
    }
    require<value_error>(
        last >= first && last - first < most && seeds.size() + (last - first) < most,
        "seeds: '", all, "' holds a range that descends or more than ", most, " seeds");
    for (std::uint64_t s = first;; ++s) {
      seeds.push_back(s);
      if (s == last)
        break;
    }
    if (text.empty())
      break;
    require<value_error>(text.front() == ',' && text.size() > 1, "seeds: '", all,
                         "' is not a list like 0-63,70");
    text.remove_prefix(1);
  }
  require<value_error>(!seeds.empty(),
                       "seeds: the list is empty; give at least one, e.g. 0-63");
  return seeds;
}

/// Whole numbers that may be seeds; no truth values and no characters.
template <class T>
concept seed_number = std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char>;
/// Anything with a begin and an end between which they lie.
template <class Range>
concept seed_range = requires(const Range& r) {
  requires seed_number<std::remove_cvref_t<decltype(*r.begin())>>;
  r.end();
};

/// A list of seeds, which owns what it was made from. @throws value_error for text that is
/// none, for a negative number, and for an empty list
class seed_list {
 public:
  /// The seed 0 alone.
  seed_list()
      : seeds_{0} {}
  /// From text like "0-63,100".
  seed_list(const char* text)
      : seeds_(parse_seeds(text)) {}
  /// The same from text of another kind.
  seed_list(std::string_view text)
      : seeds_(parse_seeds(text)) {}
  /// The same from text of another kind.
  seed_list(const std::string& text)
      : seeds_(parse_seeds(text)) {}
  /// From one number, several, or any range of them.
  template <seed_number T>
  seed_list(T seed)
      : seed_list(std::initializer_list<T>{seed}) {}
  /// Several numbers, in this order: seed_list{3, 1, 4}.
  template <seed_number T>
  seed_list(std::initializer_list<T> seeds) {
    take(seeds);
  }
  /// All of a range, in its order: a std::vector of them, a std::span, another list.
  template <class Range>
  requires(!std::same_as<Range, seed_list> && seed_range<Range>) seed_list(const Range& seeds) {
    take(seeds);
  }

  /// How many there are; at least one.
  std::size_t size() const {
    return seeds_.size();
  }
  /// The seed of picture i, counted from 0 and not checked.
  std::uint64_t operator[](std::size_t i) const {
    return seeds_[i];
  }
  /// In the order they were given in.
  auto begin() const {
    return seeds_.begin();
  }
  /// Behind the last seed.
  auto end() const {
    return seeds_.end();
  }
  /// The same seeds in the same order.
  friend bool operator==(const seed_list&, const seed_list&) = default;

 private:
  /// Appends numbers. @throws value_error for one below 0
  template <class Range>
  void take(const Range& seeds) {
    for (const auto s : seeds) {
      if constexpr (std::is_signed_v<std::remove_cvref_t<decltype(s)>>)
        require<value_error>(s >= 0, "seeds: ", s,
                             " is negative; seeds are numbers from 0 to 2^64 - 1");
      seeds_.push_back(std::uint64_t(s));
    }
    require<value_error>(!seeds_.empty(),
                         "seeds: the list is empty; give at least one, e.g. 0-63");
  }
  std::vector<std::uint64_t> seeds_;
};

}  // namespace multistage
