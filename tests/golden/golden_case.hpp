// A golden file and how outputs are held against it (the rule stands in the golden README: |got
// - want| <= atol scale + rtol |want|).
#pragma once
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <multistage/io/safetensors.hpp>
#include <string>

namespace golden {

using json = nlohmann::json;
using outputs = std::map<std::string, std::vector<double>>;

struct golden_case {
  multistage::io::safetensors file;
  std::string family;
  std::string name;
  json config;

  explicit golden_case(const std::string& path) : file(path) {
    if (file.meta("format") != "multistage-golden-1")
      multistage::fail<multistage::file_error>(path, ": format is '", file.meta("format"),
                                               "', expected multistage-golden-1");
    family = file.meta("family");
    name = file.meta("case");
    config = json::parse(file.meta("config"), nullptr, false);
    if (config.is_discarded())
      multistage::fail<multistage::file_error>(path, ": config is not JSON");
  }
  template <class T = double>
  std::vector<T> input(const std::string& name_) const {
    return file.get<T>("input." + name_);
  }
  bool has_input(const std::string& name_) const {
    return file.contains("input." + name_);
  }
};

struct verdict {
  int compared = 0;
  int failed = 0;
  int missing = 0;
  double worst = 0;  // error as a share of what is allowed
  std::string worst_name;
};

/// Compares `got` with every output and gradient of the file that a check covers.
inline verdict compare(const golden_case& c, const outputs& got, bool print_failures) {
  const json checks = json::parse(c.file.meta("checks"));
  // Gradients are scaled by the largest of their tensor, or a thousandth of the largest of
  // their stage.
  const auto stage_of = [](const std::string& k) {
    const std::size_t dot = k.find('.', 5);
    return k.compare(0, 10, "grad.stage") == 0 && dot != std::string::npos
               ? k.substr(0, dot)
               : std::string("grad");
  };
  std::map<std::string, double> top;
  for (const auto& [k, e] : c.file.tensors())
    if (k.rfind("grad.", 0) == 0)
      for (double v : c.file.get<double>(k))
        top[stage_of(k)] = std::max(top[stage_of(k)], std::fabs(v));
  verdict v;
  for (const auto& [k, e] : c.file.tensors()) {
    if (k.rfind("output.", 0) != 0 && k.rfind("grad.", 0) != 0)
      continue;
    const json* rule = nullptr;
    for (const json& r : checks) {
      const std::string o = r.at("output");
      if (o == k || (!o.empty() && o.back() == '*' &&
                     k.compare(0, o.size() - 1, o, 0, o.size() - 1) == 0)) {
        rule = &r;
        break;
      }
    }
    if (!rule)
      continue;
    const auto it = got.find(k);
    if (it == got.end()) {
      ++v.missing;
      if (print_failures)
        std::printf("  %s: not computed\n", k.c_str());
      continue;
    }
    const std::vector<double> want = c.file.get<double>(k);
    ++v.compared;
    if (it->second.size() != want.size()) {
      ++v.failed;
      if (print_failures)
        std::printf("  %s: %zu values, expected %zu\n", k.c_str(), it->second.size(),
                    want.size());
      continue;
    }
    double scale = 1;
    if (k.rfind("grad.", 0) == 0) {
      scale = 1e-3 * top[stage_of(k)];
      for (double w : want)
        scale = std::max(scale, std::fabs(w));
    }
    const double atol = rule->at("atol");
    const double rtol = rule->at("rtol");
    double worst = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double room = atol * scale + rtol * std::fabs(want[i]);
      const double error = std::fabs(it->second[i] - want[i]);
      const double share = error == 0 ? 0 : room > 0 ? error / room : HUGE_VAL;
      worst = std::isnan(share) ? HUGE_VAL : std::max(worst, share);
    }
    if (worst > v.worst || v.worst_name.empty())
      v.worst = worst, v.worst_name = k;
    if (worst > 1) {
      ++v.failed;
      if (print_failures)
        std::printf("  %s: worst error is %.3g times what is allowed\n", k.c_str(), worst);
    }
  }
  return v;
}

}  // namespace golden
