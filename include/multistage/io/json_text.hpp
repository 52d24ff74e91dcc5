// JSON from text that somebody else wrote: how deep it may nest is bounded before anything recurses,
// and a key that is there twice, of which JSON libraries keep one in silence, is refused.
#pragma once
#include <algorithm>
#include <concepts>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "../core/error.hpp"

namespace multistage::io {

namespace detail {

/// Thrown out of the JSON library's parser and caught by parse_json.
struct json_refusal {
  std::string reason;
};

/// Watches a parser's events.
class json_watch {
 public:
  static constexpr std::size_t deepest = 127;  // serde_json's; configurations need 4

  bool operator()(int, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using kind = nlohmann::json::parse_event_t;
    if (event == kind::object_start || event == kind::array_start) {
      if (keys_.size() == deepest)
        throw json_refusal{"it nests deeper than " + std::to_string(deepest) + " levels"};
      keys_.emplace_back();
    } else if (event == kind::object_end || event == kind::array_end) {
      keys_.pop_back();
    } else if (event == kind::key) {
      const std::string& key = value.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second)
        throw json_refusal{"'" + key.substr(0, 80) + "' is there twice"};
    }
    return true;
  }

 private:
  std::vector<std::set<std::string>> keys_;  // of what is open
};

/// What the JSON library says of a text, without its own prefix and without bytes no terminal likes.
inline std::string json_reason(const std::string& what) {
  const std::size_t start = what.find(": ", what.find("parse error"));
  std::string text = start == std::string::npos ? what : what.substr(start + 2);
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  return text.substr(0, 160);
}

}  // namespace detail

/// The value of a JSON text. For one that is none, `broken(byte, reason)` is called, which must throw;
/// `byte` is the place in the text, 0 where it is not known.
template <std::invocable<std::size_t, const std::string&> Broken>
nlohmann::json parse_json(std::string_view text, Broken&& broken) {
  // The JSON library takes a NUL for the end of the text, and skips a byte order mark.
  const std::size_t nul = text.find('\0');
  if (nul != std::string_view::npos) broken(nul + 1, "it holds a NUL");
  try {
    return nlohmann::json::parse(text.begin(), text.end(), detail::json_watch());
  } catch (const detail::json_refusal& r) {
    broken(std::size_t{0}, r.reason);
  } catch (const nlohmann::json::parse_error& e) {
    broken(e.byte, "it is not JSON: " + detail::json_reason(e.what()));
  } catch (const nlohmann::json::exception& e) {
    broken(std::size_t{0}, "it is not JSON that can be read: " + detail::json_reason(e.what()));
  }
  fail<error>("parse_json: a refusal must throw");
}

/// The value of a JSON text. @param where names it in messages: a file, and a place in it.
/// @throws file_error saying where and why
inline nlohmann::json parse_json(std::string_view text, const std::string& where) {
  return parse_json(text, [&](std::size_t byte, const std::string& reason) {
    const std::size_t end = std::min(byte, text.size());
    std::size_t line = 1;
    for (std::size_t i = 0; i < end; ++i) line += text[i] == '\n' ? 1 : 0;
    fail<file_error>(where, byte > 0 ? ": line " + std::to_string(line) : std::string(), ": ",
                     reason);
  });
}

}  // namespace multistage::io
