// JSON from text that somebody else wrote: how deep it may nest is bounded before anything
// recurses, and a key that is there twice, of which JSON libraries keep one in silence, is
// refused.
//
//   const json_document j = parse_json(text, "settings.json");     // or "settings.json:
//   line 3..." if (j->contains("steps"))
//     detail::take((*j)["steps"], steps);                          // false for 2.5 as an int
#pragma once
#include <algorithm>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "../core/utf8.hpp"

namespace multistage::io {

/// The JSON library's value.
using json = nlohmann::json;

namespace detail {

/// A value as errors show it: at most 60 characters, whatever it holds.
inline std::string excerpt(const json& j) {
  if (j.is_object() || j.size() > 16)
    return j.is_object() ? "an object" : "an array of " + std::to_string(j.size());
  for (const auto& e : j)
    if (e.is_structured())
      return "an array of arrays or objects";
  return printable(j.dump(-1, ' ', false, json::error_handler_t::replace), 60);
}

/// A value of JSON as T; false when it is of another kind or does not fit. (The JSON library
/// would convert 1e300 to int.)
template <class T>
bool take(const json& j, T& to) {
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if (!j.is_number_integer())
      return false;
    if (j.is_number_unsigned()
            ? j.get<std::uint64_t>() > std::uint64_t(std::numeric_limits<T>::max())
            : j.get<std::int64_t>() < std::int64_t(std::numeric_limits<T>::min()))
      return false;
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!j.is_number())
      return false;
  }
  try {
    j.get_to(to);
    return true;
  } catch (const json::exception&) {
    return false;
  }
}
/// A list of such values in the place of what is there; false unless each fits.
template <class T>
bool take(const json& j, std::vector<T>& to) {
  if (!j.is_array())
    return false;
  std::vector<T> taken;
  for (const json& e : j) {
    T v{};
    if (!take(e, v))
      return false;
    taken.push_back(v);
  }
  to = std::move(taken);
  return true;
}

/// Takes a value apart, so that what is left of it is empty. The JSON library's destructor
/// takes memory for each container that is not, and ends the program where there is none.
inline void take_apart(nlohmann::json& value) noexcept {
  if (auto* const array = value.get_ptr<nlohmann::json::array_t*>()) {
    for (nlohmann::json& element : *array)
      take_apart(element);
    array->clear();
  } else if (auto* const object = value.get_ptr<nlohmann::json::object_t*>()) {
    for (auto& member : *object)
      take_apart(member.second);
    object->clear();
  }
}

}  // namespace detail

/// Whether a value is this text. (The JSON library's own comparison copies the text, and ends
/// the program where there is no memory for it.)
inline bool is_text(const nlohmann::json& value, std::string_view text) {
  const auto* const held = value.get_ptr<const std::string*>();
  return held && *held == text;
}

/// Owns a JSON value and can be destroyed when there is no memory left, which the JSON
/// library's own values cannot. What this library reads and writes goes through it.
class json_document {
 public:
  json_document() = default;
  /// Takes a value over.
  explicit json_document(nlohmann::json value)
      : value_(std::move(value)) {}
  /// Leaves an empty document behind.
  json_document(json_document&& other) noexcept
      : value_(std::move(other.value_)) {}
  /// Exchanges the two documents, so that no value is destroyed where there may be no memory.
  json_document& operator=(json_document&& other) noexcept {
    value_.swap(other.value_);
    return *this;
  }
  ~json_document() {
    detail::take_apart(value_);
  }

  /// The value, to be read.
  const nlohmann::json& operator*() const {
    return value_;
  }
  /// A member of the value, to be read.
  const nlohmann::json* operator->() const {
    return &value_;
  }
  /// For functions of the JSON library.
  operator const nlohmann::json&() const {
    return value_;
  }
  /// The value, to be changed.
  nlohmann::json& edit() {
    return value_;
  }
  /// Sets a member of an object. (In that order: a value must not wait, whole, for memory for
  /// its key.)
  template <class T>
  void set(const std::string& key, T&& value) {
    nlohmann::json& at = value_[key];
    at = std::forward<T>(value);
  }

 private:
  nlohmann::json value_;
};

namespace detail {

/// What the JSON library says of a text, without its own prefix and without bytes no terminal
/// likes.
inline std::string json_reason(const std::string& what) {
  const std::size_t start = what.find(": ", what.find("parse error"));
  return printable(start == std::string::npos ? what : what.substr(start + 2), 160);
}

/// Builds a document from a parser's events, until one is refused.
class json_builder : public nlohmann::json_sax<nlohmann::json> {
  using json = nlohmann::json;

 public:
  static constexpr std::size_t deepest = 127;  // serde_json's; configurations need 4

  json_document document;
  std::string reason;    // why it was refused
  std::size_t byte = 0;  // where in the text; 0: not known

  /// Values, each of which goes where the next one belongs. @return whether to go on
  bool null() override {
    return put(nullptr);
  }
  bool boolean(bool value) override {
    return put(value);
  }
  bool number_integer(json::number_integer_t value) override {
    return put(value);
  }
  bool number_unsigned(json::number_unsigned_t value) override {
    return put(value);
  }
  bool number_float(json::number_float_t value, const std::string&) override {
    return put(value);
  }
  bool string(std::string& value) override {
    return put(std::move(value));
  }
  bool binary(json::binary_t&) override {
    return refuse("it holds binary values");
  }
  /// Containers, which stay open until they end.
  bool start_object(std::size_t) override {
    return open(json::object());
  }
  bool start_array(std::size_t) override {
    return open(json::array());
  }
  bool end_object() override {
    return close();
  }
  bool end_array() override {
    return close();
  }
  /// The name of the next value.
  bool key(std::string& name) override {
    if (open_.back()->contains(name))
      return refuse("'" + printable(name) + "' is there twice");
    key_ = std::move(name);
    return true;
  }
  /// What the JSON library finds wrong.
  bool parse_error(std::size_t, const std::string&, const json::exception& e) override {
    const auto* const syntax = dynamic_cast<const json::parse_error*>(&e);
    byte = syntax ? syntax->byte : 0;
    return refuse((syntax ? "it is not JSON: " : "it is not JSON that can be read: ") +
                  json_reason(e.what()));
  }

 private:
  /// Ends the parse, with a reason.
  bool refuse(std::string why) {
    reason = std::move(why);
    return false;
  }
  /// A value in its place.
  template <class T>
  bool put(T&& value) {
    place() = std::forward<T>(value);
    return true;
  }
  /// A container in its place, to which values belong from now on.
  bool open(json container) {
    if (open_.size() == deepest)
      return refuse("it nests deeper than " + std::to_string(deepest) + " levels");
    json& at = place();
    at = std::move(container);
    open_.push_back(&at);
    return true;
  }
  /// What follows belongs to the container around it.
  bool close() {
    open_.pop_back();
    return true;
  }
  /// Where the next value goes.
  json& place() {
    if (open_.empty())
      return document.edit();
    json& parent = *open_.back();
    if (parent.is_object())
      return parent[key_];
    parent.push_back(nullptr);
    return parent.back();
  }

  // what is not yet at its end; a parent does not grow while a child is open
  std::vector<json*> open_;
  std::string key_;
};

}  // namespace detail

/// What is to be said of a text that is no JSON; it must throw. @param byte the place in the
/// text, 0 where it is not known
using broken_json = std::function<void(std::size_t byte, const std::string& reason)>;

/// The value of a JSON text. A template, so that units take it from the library that has it
/// compiled (compiled.hpp): the parser is large. @param broken is called for one that is none
template <class = void>
json_document parse_json(std::string_view text, const broken_json& broken) {
  // The JSON library takes a NUL for the end of the text, and skips a byte order mark.
  const std::size_t nul = text.find('\0');
  if (nul != std::string_view::npos)
    broken(nul + 1, "it holds a NUL");
  detail::json_builder builder;
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &builder))
    return std::move(builder.document);
  broken(builder.byte, builder.reason);
  fail<error>("parse_json: a refusal must throw");
}

/// The value of a JSON text. @param where names it in messages: a file, and a place in it.
/// @throws file_error saying where and why
inline json_document parse_json(std::string_view text, const std::string& where) {
  return parse_json(text, [&](std::size_t byte, const std::string& reason) {
    const std::size_t end = std::min(byte, text.size());
    std::size_t line = 1;
    for (std::size_t i = 0; i < end; ++i)
      line += text[i] == '\n' ? 1 : 0;
    fail<file_error>(where, byte > 0 ? ": line " + std::to_string(line) : std::string(), ": ",
                     reason);
  });
}

}  // namespace multistage::io
