// Options of algorithms, named once. A struct of options has
//   template <class Self, class Visit> static void fields(Self& s, Visit&& visit)
// which calls visit(option{name, meaning, range}, s.member) for each of them. That list is what
// the library checks, what error texts say, and what programs take on their command lines.
//
//   struct blur_options {
//     double radius = 1;
//     template <class Self, class Visit>
//     static void fields(Self& s, Visit&& visit) {
//       visit(option{"radius", "pixels that are mixed", above(0)}, s.radius);
//     }
//   };
//
// `Self` is the struct, const or not, so that one list serves reading, checking and setting.
#pragma once
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "error.hpp"

namespace multistage {

/// The numbers that an option may be. NaN is in no range.
struct number_range {
  /// What stands for no bound.
  static constexpr double infinity = std::numeric_limits<double>::infinity();
  double low = -infinity;  ///< lower bound
  double high = infinity;  ///< upper bound
  bool has_low = false;    ///< whether `low` itself is in the range
  bool has_high = false;   ///< whether `high` itself is

  /// Whether a value is in the range; NaN never is.
  constexpr bool holds(double v) const {
    const bool high_enough = has_low ? v >= low : v > low;
    const bool low_enough = has_high ? v <= high : v < high;
    return high_enough && low_enough;
  }
  /// In words: "at least 0 and finite".
  std::string text() const {
    std::ostringstream s;
    s.precision(15);
    if (low > -infinity)
      s << (has_low ? "at least " : "above ") << low;
    if (has_high && high == infinity)
      return s.str();
    if (low > -infinity)
      s << " and ";
    if (high == infinity)
      s << "finite";
    if (high < infinity)
      s << (has_high ? "at most " : "below ") << high;
    return s.str();
  }
};
/// [low, high]
constexpr number_range between(double low, double high) {
  return {low, high, true, true};
}
/// (low, high)
constexpr number_range inside(double low, double high) {
  return {low, high, false, false};
}
/// (low, infinity)
constexpr number_range above(double low) {
  return {low, number_range::infinity, false, false};
}
/// (low, high]
constexpr number_range above(double low, double high) {
  return {low, high, false, true};
}
/// [low, infinity)
constexpr number_range at_least(double low) {
  return {low, number_range::infinity, true, false};
}
/// [low, infinity]: infinity says "no limit".
constexpr number_range or_infinite(double low) {
  return {low, number_range::infinity, true, true};
}

/// One option: its name, what it means, and the numbers it may be (any finite one by default).
struct option {
  const char* name;      ///< as it is spelt in code, files and on command lines
  const char* meaning;   ///< one line for error texts and `--help`
  number_range range{};  ///< what it may be, for numbers
  /// Names of the values, in order: for a bool that has names, and for an enumeration whose
  /// values are called otherwise here than elsewhere, or of which only the first are allowed.
  std::initializer_list<const char*> names{};
  /// Whether it counts bytes, which texts may give as 512M or 1.5G: K, M, G of 1024 each.
  bool bytes = false;
};

/// An enumeration whose values have names: `option_names(E)` lists them in order, found by its
/// argument.
template <class E>
concept named_choice = std::is_enum_v<E> && requires(E e) {
  option_names(e)[0];
};

/// The name of a value. @throws value_error for one that the enumeration does not have
template <named_choice E>
constexpr const char* to_string(E e) {
  constexpr auto names = option_names(E{});
  if (std::size_t(e) >= names.size())
    fail<value_error>("choice ", int(e), " is outside 0..", names.size() - 1);
  return names[std::size_t(e)];
}
/// What an option that is a choice may be called, in order; nothing for other options.
template <class T>
std::span<const char* const> names_of(const option& o, const T&) {
  if (o.names.size() > 0)
    return {o.names.begin(), o.names.size()};
  if constexpr (named_choice<T>) {
    static constexpr auto names = option_names(T{});
    return names;
  } else {
    return {};
  }
}

namespace detail {
/// Texts with commas between them.
MULTISTAGE_COLD inline std::string joined(std::span<const char* const> texts) {
  std::string all;
  for (const char* text : texts)
    all += std::string(all.empty() ? "" : ", ") + text;
  return all;
}
/// A choice's place among its names. @throws value_error that lists them
MULTISTAGE_COLD inline int choice_index(const std::string& what,
                                        const std::string& name,
                                        std::span<const char* const> names) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end())
    fail<value_error>(what, " '", name, "' is unknown; known: ", joined(names));
  return int(found - names.begin());
}
}  // namespace detail

/// The value of a name. @throws value_error that lists the names there are
template <named_choice E>
E choice_from(const std::string& what, const std::string& name) {
  return E(detail::choice_index(what, name, names_of(option{}, E{})));
}

/// A value of the one of several types that is called so; each has a static name().
/// @param what they are, for the message. @throws value_error that lists the names there are
template <class Made, class... Types>
Made made_from_name(const std::string& what, const std::string& name) {
  static constexpr std::array<const char*, sizeof...(Types)> names{Types::name()...};
  const int found = detail::choice_index(what, name, names);
  Made made;
  int index = 0;
  ((index++ == found ? void(made = Made(Types{})) : void()), ...);
  return made;
}

namespace detail {
/// @throws value_error for a value without a name
MULTISTAGE_COLD inline void check_choice(const char* owner,
                                         const option& o,
                                         int value,
                                         std::span<const char* const> names) {
  const bool known = value >= 0 && std::size_t(value) < names.size();
  require<value_error>(known, owner, ": ", o.name, " = ", value, " is no choice of ",
                       names.size(), " (", joined(names), ")");
}
/// @throws value_error naming option, value, range and meaning
MULTISTAGE_COLD inline void check_number(const char* owner, const option& o, double v) {
  require<value_error>(o.range.holds(v), owner, ": ", o.name, " = ", v, "; it must be ",
                       o.range.text(), " (", o.meaning, ")");
}
/// Lists of a fixed capacity, ended by their first zero.
template <class T>
inline constexpr bool is_list = false;
template <std::size_t N>
inline constexpr bool is_list<std::array<int, N>> = true;

/// A value of any type that options have: numbers by their range, choices by their count.
template <class T>
void check_option(const char* owner, const option& o, const T& v) {
  if constexpr (std::is_same_v<T, bool>) {
  } else if constexpr (std::is_arithmetic_v<T>) {
    check_number(owner, o, double(v));
  } else if constexpr (std::is_enum_v<T>) {
    check_choice(owner, o, int(v), names_of(o, v));
  } else if constexpr (std::is_same_v<T, std::vector<double>>) {
    for (const double one : v)
      check_number(owner, o, one);
  } else if constexpr (is_list<T>) {
    for (std::size_t i = 0; i < v.size() && v[i] != 0; ++i)
      check_number(owner, o, v[i]);
  }
}
}  // namespace detail

/// Checks every option of a struct. @throws value_error naming owner, option, value, range and
/// meaning
template <class Options>
void check_options(const char* owner, const Options& options) {
  Options::fields(options, [&](const option& o, const auto& value) {
    detail::check_option(owner, o, value);
  });
}

namespace detail {
/// A type whose values are made from their names.
template <class T>
concept has_name = std::is_class_v<T> && requires(const T& value, const std::string& name) {
  { value.name() } -> std::convertible_to<std::string>;
  T(name);
};

/// A number in six digits where those say all of it, else in as many as it takes.
MULTISTAGE_COLD inline std::string number_text(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%g", value);
  if (std::strtod(text, nullptr) == value)
    return text;
  const auto [end, status] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
}
/// Whether a text begins with a blank, which strtod would pass over.
inline bool begins_with_space(const std::string& text) {
  return !text.empty() && std::isspace(static_cast<unsigned char>(text[0]));
}

/// A text as a number of bytes: 4294967296, 4096M or 4G. @throws value_error
MULTISTAGE_COLD inline index_t bytes_from(const option& o, const std::string& text) {
  const char* const begin = text.c_str();
  const char* const end = begin + text.size();
  char* at = nullptr;
  double v = std::strtod(begin, &at);
  const bool a_number = at != begin && !begins_with_space(text);
  const std::string_view units = "KMG";
  const std::size_t unit = at != end ? units.find(*at) : std::string_view::npos;
  if (unit != std::string_view::npos) {
    v = std::ldexp(v, 10 * (int(unit) + 1));
    ++at;
  }
  const bool whole = v >= 0 && v < 0x1p62 && v == std::floor(v);
  require<value_error>(a_number && at == end && whole, o.name, ": '", text,
                       "' is no number of bytes; give one like 4294967296, 4096M or 4G (",
                       o.meaning, ")");
  return index_t(v);
}

/// A whole text as a number. @throws value_error
template <class T>
T number_from(const option& o, const std::string& text) {
  T v{};
  const char* end = text.c_str() + text.size();
  bool read;
  if constexpr (std::is_integral_v<T>) {
    const auto [at, status] = std::from_chars(text.c_str(), end, v);
    read = status == std::errc() && at == end;
  } else {
    char* at = nullptr;
    v = T(std::strtod(text.c_str(), &at));
    read = !text.empty() && at == end && !begins_with_space(text);
  }
  require<value_error>(read, o.name, ": '", text, "' is not a ",
                       std::is_integral_v<T> ? "whole number" : "number", " that it can hold (",
                       o.meaning, ")");
  return v;
}
}  // namespace detail

/// An option's value as set_option reads it.
template <class T>
std::string option_text(const T& value) {
  std::string list;  // of several values
  [[maybe_unused]] const auto append = [&](const auto& one) {
    list += (list.empty() ? "" : ",") + option_text(one);
  };
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_floating_point_v<T>) {
    return detail::number_text(double(value));
  } else if constexpr (std::is_arithmetic_v<T>) {
    std::ostringstream s;
    s << value;
    return s.str();
  } else if constexpr (named_choice<T>) {
    return to_string(value);
  } else if constexpr (std::is_same_v<T, std::vector<double>>) {
    for (const double v : value)
      append(v);
    return list;
  } else if constexpr (detail::is_list<T>) {
    for (std::size_t i = 0; i < value.size() && value[i] != 0; ++i)
      append(value[i]);
    return list;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else {
    return value.name();
  }
}

/// Sets an option from text: a number, true or false, a name, or numbers with commas between
/// them. Its range is check_options' matter. @throws value_error
template <class T>
void set_option(const option& o, T& value, const std::string& text) {
  if constexpr (std::is_same_v<T, bool>) {
    if (o.names.size() > 0) {
      value = detail::choice_index(o.name, text, names_of(o, value)) == 1;
      return;
    }
    require<value_error>(text == "true" || text == "false", o.name, ": '", text,
                         "' is neither true nor false (", o.meaning, ")");
    value = text == "true";
  } else if constexpr (std::is_arithmetic_v<T>) {
    if constexpr (std::is_same_v<T, index_t>)
      if (o.bytes) {
        value = detail::bytes_from(o, text);
        return;
      }
    value = detail::number_from<T>(o, text);
  } else if constexpr (std::is_enum_v<T>) {
    value = T(detail::choice_index(o.name, text, names_of(o, value)));
  } else if constexpr (std::is_same_v<T, std::vector<double>>) {
    value.clear();
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t end = std::min(text.find(',', at), text.size());
      const std::string one = text.substr(at, end - at);
      value.push_back(detail::number_from<double>(o, one));
      at = end + 1;
    }
  } else if constexpr (detail::is_list<T>) {
    std::vector<double> entries;
    set_option(o, entries, text);
    require<value_error>(entries.size() <= value.size(), o.name, ": '", text, "' has ",
                         entries.size(), " entries, at most ", value.size(), " are taken (",
                         o.meaning, ")");
    value = {};
    for (std::size_t i = 0; i < entries.size(); ++i)
      value[i] = detail::number_from<int>(o, option_text(entries[i]));
  } else {
    value = T(text);  // a type that is made from its name
  }
}

}  // namespace multistage
