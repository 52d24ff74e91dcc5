// Samplers by the names that programs know them by, with the defaults that fit the name.
//
//   for_each_sampler([&](const char* name, const auto& sampler) {
//     if (name == wanted)
//       sample(model, sampler, {.seeds = "0-15"});
//   });
#pragma once
#include <cstdio>
#include <string>

#include "all.hpp"

namespace multistage {

/// Calls f(name, sampler) for every sampler that has a name, with its defaults.
template <class F>
void for_each_sampler(F&& f) {
  f("edm_heun", edm_heun{});
  f("edm_ablation", edm_ablation{});
  f("ddim", ddim{});
  f("ddpm", ddim{.eta = 1});
  f("gddim", gddim{});
  f("flow_euler", flow_ode{});
  f("flow_heun", flow_ode{.heun = true});
  f("pfgm", pfgm{});
  f("pndm", pndm{});
  f("dpm_solver", dpm_solver{.predict_data = false, .denoise_to_zero = true});
  f("dpm_solver++", dpm_solver{.denoise_to_zero = true});
  f("dpm_solver++_singlestep",
    dpm_solver{.method = dpm_method::singlestep, .denoise_to_zero = true});
  f("dpm_solver_sde", dpm_solver_sde{});
  f("deis", deis{.order = 2});
  f("unipc", unipc{});
  f("score_sde", score_sde{});
  f("probability_flow", probability_flow{});
  f("restart", restart{});
}

/// Their names, with commas between.
MULTISTAGE_COLD inline std::string sampler_names() {
  std::string names;
  for_each_sampler([&](const char* name, const auto&) {
    names += std::string(names.empty() ? "" : ", ") + name;
  });
  return names;
}

/// A table of all samplers: name, then a line for each option with its default, what it may be
/// and what it means. @param spelling of an option's name, as "--num-steps" of num_steps
template <class Spelling>
std::string sampler_table(Spelling&& spelling) {
  std::string table;
  const auto row = [&](const std::string& name, const std::string& value,
                       const std::string& range, const char* meaning) {
    char text[512];
    std::snprintf(text, sizeof text, "  %-20s %-14s %-34s %s\n", name.c_str(), value.c_str(),
                  range.c_str(), meaning);
    table += text;
  };
  for_each_sampler([&]<class Sampler>(const char* name, const Sampler& sampler) {
    table += std::string(name) + "\n";
    Sampler::fields(sampler, [&]<class T>(const option& o, const T& value) {
      std::string range;
      if constexpr (std::is_same_v<T, bool>)
        range = "true, false";
      else if constexpr (std::is_arithmetic_v<T>)
        range = o.range.text();
      else if constexpr (named_choice<T>)
        for (const char* one : names_of(o, value))
          range += std::string(range.empty() ? "" : ", ") + one;
      const std::string text = option_text(value);
      row(spelling(o.name), text.empty() ? "-" : text, range, o.meaning);
    });
  });
  return table;
}

}  // namespace multistage
