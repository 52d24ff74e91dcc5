// Shows a checkpoint, bare weights or a configuration: inspect FILE [--tensors] [--json]
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <multistage/io.hpp>
#include <multistage/io/file_fingerprint.hpp>
#include <multistage/library.hpp>
#include <set>

#include "command_line.hpp"

namespace ms = multistage;
using json = ms::io::json;

namespace {

std::string extents_text(const std::vector<ms::index_t>& e) {
  std::string s;
  for (const auto v : e)
    s += (s.empty() ? "" : "x") + std::to_string(v);
  return s.empty() ? "scalar" : s;
}

/// A text of a file as a terminal may have it: control characters, also those of two bytes
/// (U+0080 to U+009F), are written as \xNN.
std::string printable(const std::string& text) {
  std::string s;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool pair = byte == 0xc2 && next >= 0x80 && next < 0xa0;
    const bool control = byte < 0x20 || byte == 0x7f || pair;
    char code[8];
    std::snprintf(code, sizeof code, "\\x%02x", unsigned(pair ? next : byte));
    s += control ? std::string(code) : std::string(1, text[i]);
    i += pair ? 1 : 0;
  }
  return s;
}
/// A value in a line; what is not UTF-8 is replaced.
std::string dumped(const json& j) {
  return j.dump(-1, ' ', false, json::error_handler_t::replace);
}

/// The network of a configuration as JSON: segments with their tensors, and totals.
json describe_network(const ms::configuration& c) {
  const ms::described_network d = ms::record(c);
  json out{{"configuration", ms::io::to_json(c)},
           {"parameters", ms::parameters_of(d.structure)},
           {"segments", json::array()}};
  for (int s = 0; s < d.structure.segments; ++s) {
    const ms::cost cost = ms::cost_of_segment(d.structure, s);
    json tensors = json::array();
    for (std::size_t k = 0; k < d.structure.parameters.size(); ++k) {
      const ms::parameter& p = d.structure.parameters[k];
      if (p.segment != s)
        continue;
      ms::index_t macs = 0;
      for (const ms::node& n : d.structure.nodes)
        if (n.weight == int(k))
          macs += n.facts.macs;
      tensors.push_back({{"name", d.names[k]},
                         {"shape", ms::upstream_extents(p)},
                         {"parameters", p.size()},
                         {"macs", macs},
                         {"trainable", p.trainable}});
    }
    out["segments"].push_back({{"segment", s == 0 ? json("shared") : json(s - 1)},
                               {"parameters", cost.parameters},
                               {"macs", cost.macs},
                               {"tensors", tensors}});
  }
  const auto bytes = [&](bool training) {
    return ms::make_plan(d.structure, {.training = training}).arena_elements(ms::index_t{1}) *
           4;
  };
  out["activation_bytes_per_image"] = {{"sampling", bytes(false)}, {"training", bytes(true)}};
  out["weight_bytes"] = d.structure.parameter_elements * 4;
  return out;
}

/// A file's text as a line, the beginning of a long one.
std::string excerpt_of(const std::string& text) {
  constexpr std::size_t most = 100;
  if (text.size() <= most)
    return printable(text);
  return printable(text.substr(0, most)) + "... (" + std::to_string(text.size()) +
         " characters, --json prints them)";
}

/// A line for each key of an object.
void print_lines(const json& object, const char* before) {
  for (const auto& [key, value] : object.items())
    std::printf(
        "%s%-*s %s\n", before, int(28 - std::strlen(before)), printable(key).c_str(),
        excerpt_of(value.is_string() ? value.get<std::string>() : dumped(value)).c_str());
}

/// Tensors that are no network's of ours: all, or where there are many, how many.
void print_tensors(const json& list, bool all) {
  constexpr std::size_t few = 20;
  const bool listed = all || list.size() <= few;
  std::printf("tensors (%zu%s)\n", list.size(), listed ? "" : "; --tensors lists them");
  for (const json& t : listed ? list : json::array())
    std::printf("  %-64s %-18s %s\n", printable(t["name"].get<std::string>()).c_str(),
                extents_text(t["shape"]).c_str(), t["dtype"].get<std::string>().c_str());
}

/// @param tensors whether each is listed. Summaries come last, where a reader's eyes are.
void print(const json& j, bool tensors) {
  if (j.contains("file"))
    std::printf("%s\n", printable(j["file"].get<std::string>()).c_str());
  if (j.contains("network")) {
    const json& n = j["network"];
    for (const json& segment : n["segments"]) {
      if (segment["tensors"].empty())
        continue;
      const std::string name = segment["segment"].is_string()
                                   ? "shared by all stages"
                                   : "stage " + segment["segment"].dump();
      std::printf("\n%s: %.3f M parameters, %.4f GMACs an image\n", name.c_str(),
                  segment["parameters"].get<double>() / 1e6,
                  segment["macs"].get<double>() / 1e9);
      for (const json& t : tensors ? segment["tensors"] : json::array())
        std::printf("  %-64s %-18s %10lld %14lld\n",
                    printable(t["name"].get<std::string>()).c_str(),
                    extents_text(t["shape"]).c_str(), t["parameters"].get<long long>(),
                    t["macs"].get<long long>());
    }
    std::printf("\n%-28s %.3f M (%.1f MB in float32)\n", "parameters",
                n["parameters"].get<double>() / 1e6, n["weight_bytes"].get<double>() / 1e6);
    std::printf("%-28s %.2f MB sampling, %.2f MB training, for each image of a batch\n",
                "activations", n["activation_bytes_per_image"]["sampling"].get<double>() / 1e6,
                n["activation_bytes_per_image"]["training"].get<double>() / 1e6);
  }
  const json configuration =
      j.contains("network") ? j["network"]["configuration"] : j.value("configuration", json());
  if (!configuration.is_null()) {
    std::printf("%-28s\n", "configuration");
    print_lines(configuration, "  ");
  }
  if (j.contains("stage_boundaries")) {
    std::string s;
    double before = 0;
    for (const double b : j["stage_boundaries"]) {
      char text[64];
      std::snprintf(text, sizeof text, "(%g, %g] ", before, b);
      s += text;
      before = b;
    }
    char text[64];
    std::snprintf(text, sizeof text, "(%g, inf)", before);
    std::printf("%-28s %s\n", "stages in sigma", (s + text).c_str());
  }
  if (j.contains("training"))
    print_lines(j["training"], "training  ");
  if (j.contains("tensors"))
    print_tensors(j["tensors"], tensors);
  if (j.contains("metadata"))
    print_lines(j["metadata"], "metadata  ");
  if (j.contains("fingerprint"))
    std::printf("%-28s %s\n", "fingerprint", j["fingerprint"].get<std::string>().c_str());
}

/// A text of the metadata as JSON; null where it is none, which in files of this library is an
/// error.
json meta_json(const ms::io::safetensors& f, const std::string& key) {
  try {
    return *f.meta_json(key);
  } catch (const ms::file_error&) {
    if (f.metadata().count("format") && f.meta("format").rfind("multistage-", 0) == 0)
      throw;
    return json();
  }
}

json inspect(const std::string& path) {
  json out{{"file", path}};
  const bool configuration_file = path.size() > 5 && path.substr(path.size() - 5) == ".json";
  if (configuration_file) {
    const auto bytes = ms::io::read_file(path, 1 << 20);
    json c =
        *ms::io::parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
    if (c.is_object() && c.contains("model") && !c.contains("network"))
      c = json(c["model"]);  // of a run
    if (c.is_object() && ms::io::is_text(c.value("network", json()), "autoencoder")) {
      out["configuration"] = c;
      return out;
    }
    out["network"] = describe_network(ms::io::configuration_from_json(c));
    if (c.contains("stage_boundaries"))
      out["stage_boundaries"] = ms::io::partition_from_json(c["stage_boundaries"]).boundaries();
    return out;
  }
  const ms::io::safetensors f(path);
  out["fingerprint"] = ms::io::fingerprint_of_file(f.path());
  json rest = json::object();
  for (const auto& [key, value] : f.metadata()) {
    const bool ours = key == "config" || key == "training";
    const json v = ours ? meta_json(f, key) : json();
    const bool other = v.is_object() && (v.value("network", json()) == "autoencoder" ||
                                         v.value("network", json()) == "custom");
    if (key == "config" && v.is_object() && !other) {
      out["network"] = describe_network(ms::io::configuration_from_json(v));
      if (v.contains("stage_boundaries"))
        out["stage_boundaries"] =
            ms::io::partition_from_json(v["stage_boundaries"]).boundaries();
    } else if (key == "config" && other)
      out["configuration"] = v;
    else if (key == "training" && v.is_object())
      out["training"] = v;
    else
      rest[key] = value;
  }
  if (!rest.empty())
    out["metadata"] = rest;
  // What stands in the file beside the network's own tensors, of whatever type.
  std::set<std::string> shown;
  if (out.contains("network"))
    for (const json& segment : out["network"]["segments"])
      for (const json& t : segment["tensors"])
        shown.insert(t["name"].get<std::string>());
  json others = json::array();
  for (const auto& [name, t] : f.tensors())
    if (!shown.count(name) && !(out.contains("training") && name.rfind("training.", 0) == 0))
      others.push_back({{"name", name}, {"shape", t.extents}, {"dtype", t.type.name}});
  if (!others.empty())
    out["tensors"] = others;
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Shows what a checkpoint (.safetensors) or a configuration (.json) holds"};
  std::string path;
  bool as_json = false;
  bool tensors = false;
  app.add_option("FILE", path, "a checkpoint, safetensors weights, or a configuration")
      ->required();
  app.add_flag("--tensors", tensors, "list the network's tensors, with what each costs");
  app.add_flag("--json", as_json, "print JSON for programs");
  return command_line::run(app, argc, argv, [&] {
    const json j = inspect(path);
    if (as_json)
      std::cout << j.dump(1, ' ', false, json::error_handler_t::replace)
                << '\n';  // a path may be any bytes
    else
      print(j, tensors);
    return 0;
  });
}
