// Run configurations as JSON: an object a section, {"data": ..., "augment": ..., "stages": ...,
// "model": ..., "training": ..., "run": ...}, whose keys are the names in `fields`. A text need
// not name everything: it is laid over what is there, and each value that it sets remembers
// where it came from.
//
//   run_configuration c = preset("small-32");
//   lay_over(c, read_configuration("mine.json"), "mine.json");
//   print(table_of(c));                       // every option, its value, where it came from
#pragma once
#include <cstdio>

#include "../io/file.hpp"
#include "../io/json.hpp"
#include "run_configuration.hpp"

namespace multistage {

namespace detail {

/// What a section of a configuration's JSON says; an empty object where it is not there.
inline const io::json& section_of(const io::json& j, const char* name) {
  static const io::json nothing = io::json::object();
  return j.contains(name) ? j.at(name) : nothing;
}

/// A model's settings with others laid over them. Those of another network begin anew.
inline configuration model_over(const configuration& before, const io::json& patch) {
  io::json_document merged(io::to_json(before));
  io::json& j = merged.edit();
  const bool anew = patch.contains("network") && patch["network"] != j["network"];
  if (anew)
    j = io::json::object();
  if (patch.contains("decoder_channels") && !anew) {
    const bool counts_differ =
        !patch["decoder_channels"].is_array() ||
        patch["decoder_channels"].size() != std::size_t(before.stages.stage_count());
    if (before.stages.shared_encoder)
      j.erase("architecture");
    if (counts_differ) {  // what was said of each of the decoders before
      j.erase("decoder_attention");
      const io::json blocks = j.value("decoder_blocks", io::json::array());
      if (!blocks.empty() && patch["decoder_channels"].is_array())
        j["decoder_blocks"] = io::json(patch["decoder_channels"].size(), blocks[0]);
    }
  }
  j.update(patch);
  return io::configuration_from_json(j);
}

}  // namespace detail

/// A configuration as JSON, whole, with the origins of its values.
MULTISTAGE_COLD inline io::json to_json(const run_configuration& c) {
  io::json_document document(io::json::object());
  io::json& j = document.edit();
  run_configuration::sections(c, [&](const char* section, const auto& options) {
    io::detail::writer w;
    io::detail::visit_fields(w, options);
    j[section].update(*w.document);
  });
  j["model"] = io::to_json(c.model);
  j["origins"] = c.origins;
  return std::move(j);
}

namespace detail {

/// Notes where the values of a JSON object came from: `origin`, but for those of a whole
/// configuration, which says itself that they are defaults, a preset's or the data's.
MULTISTAGE_COLD inline void note_origins(std::map<std::string, std::string>& origins,
                                         const io::json& j,
                                         const std::string& origin) {
  const io::json& own = section_of(j, "origins");
  for (const auto& [section, settings] : j.items())
    if (section != "origins")
      for (const auto& setting : settings.items()) {
        const std::string name = section + "." + setting.key();
        std::string said = own.contains(name) && own[name].is_string()
                               ? own[name].get<std::string>()
                               : std::string();
        if (own.empty() || (!said.empty() && !said.starts_with("preset ") && said != "data"))
          said = origin;
        if (said.empty())
          origins.erase(name);
        else
          origins[name] = said;
      }
}

/// @throws value_error unless it is an object of sections that there are, each an object
MULTISTAGE_COLD inline void check_sections(const io::json& j, const std::string& where) {
  require<value_error>(j.is_object(), where, ": is not a JSON object of sections");
  for (const auto& [section, settings] : j.items()) {
    bool known = section == "origins";
    for (const char* name : run_configuration::section_names)
      known = known || section == name;
    require<value_error>(
        known, where, ": '", section,
        "' is no section; there are data, augment, stages, model, training, run");
    require<value_error>(settings.is_object(), where, ": section '", section,
                         "' is not a JSON object");
  }
  const io::json& model = section_of(j, "model");
  require<value_error>(!model.contains("network") || model["network"] != "autoencoder", where,
                       ": is a configuration of an autoencoder; give it as --autoencoder");
}

}  // namespace detail

/// Sets what a JSON object names, and notes `origin` for each such value. Nothing is changed
/// when something is wrong. @param where the JSON is from, for messages
/// @throws value_error naming the section and the key
MULTISTAGE_COLD inline void lay_over(run_configuration& c,
                                     const io::json& j,
                                     const std::string& origin,
                                     const std::string& where = "configuration") {
  detail::check_sections(j, where);
  run_configuration changed = c;
  detail::note_origins(changed.origins, j, origin);
  // A section may be of several structs: a key must be one of theirs.
  std::map<std::string, io::detail::reader> readers;
  run_configuration::sections(changed, [&](const char* section, auto& options) {
    auto& reader =
        readers.try_emplace(section, detail::section_of(j, section), where + ": " + section)
            .first->second;
    io::detail::visit_fields(reader, options);
  });
  for (const auto& [section, reader] : readers)
    reader.finish();
  run_configuration::sections(changed, [&](const char* section, auto& options) {
    check_options((where + ": " + section).c_str(), options);
  });
  try {
    if (j.contains("model"))
      changed.model = detail::model_over(c.model, j["model"]);
  } catch (const value_error& e) {
    fail<value_error>(where, ": model: ", e.what());
  }
  // What was said of settings that the model has no more.
  const io::json_document model(io::to_json(changed.model));
  std::erase_if(changed.origins, [&](const auto& entry) {
    const std::string& name = entry.first;
    return name.starts_with("model.") && !model->contains(name.substr(6));
  });
  c = std::move(changed);
}

namespace detail {
/// Adds to a section of a configuration's JSON.
MULTISTAGE_COLD inline void put_into(io::json& j, const char* section, const io::json& more) {
  j[section].update(more);
}
}  // namespace detail

/// JSON of what somebody set, to be laid over a configuration: `set(options, f)` is called with
/// a copy of each struct of options and calls f(option, value) for those that it sets.
template <class Set>
io::json_document settings_by(run_configuration c, Set&& set) {
  io::json_document document(io::json::object());
  const auto note = [&](const char* section, auto& options) {
    set(options, [&](const option& o, const auto& value) {
      io::detail::writer w;
      w(o, value);
      detail::put_into(document.edit(), section, *w.document);
    });
  };
  run_configuration::sections(c, note);
  run_configuration::model_parts(c, [&](auto& options) { note("model", options); });
  return document;
}

/// The JSON of a file. @throws file_error naming the line of what is no JSON
inline io::json_document read_configuration(const std::string& path) {
  constexpr std::uint64_t most = 1 << 20;
  const auto bytes = io::read_file(path, most);
  return io::parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

/// The configuration that a whole one's JSON describes, with its origins, as `to_json` wrote
/// it. @throws value_error
template <class Configuration = run_configuration>
MULTISTAGE_COLD Configuration configuration_of_run(const io::json& j,
                                                   const std::string& where) {
  Configuration c;
  lay_over(c, j, "", where);
  c.origins.clear();
  const io::json& origins = detail::section_of(j, "origins");
  for (const auto& entry : origins.items()) {
    const io::json& origin = entry.value();
    if (const auto* text = origin.get_ptr<const std::string*>())
      c.origins[entry.key()] = *text;
  }
  return c;
}

/// Every option with its value and where it came from, a line each, for people.
template <class Configuration>
MULTISTAGE_COLD std::string table_of(const Configuration& c) {
  const io::json_document document(to_json(c));
  std::string text;
  for (const char* section : Configuration::section_names) {
    text += std::string(section) + "\n";
    for (const auto& [key, value] : (*document)[section].items()) {
      const auto origin = c.origins.find(std::string(section) + "." + key);
      char line[512];
      std::snprintf(line, sizeof line, "  %-26s %-34s %s\n", key.c_str(),
                    value.dump(-1, ' ', false, io::json::error_handler_t::replace).c_str(),
                    origin == c.origins.end() ? "default" : origin->second.c_str());
      text += line;
    }
  }
  return text;
}

}  // namespace multistage
