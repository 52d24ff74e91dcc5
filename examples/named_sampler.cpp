#include "named_sampler.hpp"

#include <multistage/samplers/by_name.hpp>

namespace ms = multistage;

void named_sampler::add_options(CLI::App& app, const std::set<std::string>& without) {
  name_option_ = app.add_option("--sampler", name_, ms::sampler_names())->capture_default_str();
  app.add_flag_callback(
      "--list-samplers",
      [] {
        std::fputs(ms::sampler_table(command_line::flag_of).c_str(), stdout);
        throw CLI::Success();
      },
      "print every sampler with its options, their defaults and ranges");
  ms::for_each_sampler(
      [&](const char*, const auto& sampler) { options_.add(app, sampler, without); });
}

void named_sampler::check() {
  if (steps_by_stage_.empty())
    steps_by_stage_ = options_.take_list("num_steps");
  with(nullptr, [](const auto&) {});
}

void named_sampler::set_steps(int num_steps) {
  num_steps_ = num_steps;
  with(nullptr, [](const auto&) {});
}

ms::io::json named_sampler::options(const model_type& model) const {
  ms::io::json all{{"sampler", name_}};
  with(&model, [&]<class Sampler>(const Sampler& sampler) {
    Sampler::fields(sampler, [&](const ms::option& o, const auto& value) {
      all[command_line::flag_of(o.name)] = ms::option_text(value);
    });
  });
  return all;
}

ms::sampling_result named_sampler::draw(model_type& model,
                                        const ms::sampling_options& options,
                                        model_type* weak) const {
  ms::sampling_result result;
  with(&model,
       [&](const auto& sampler) { result = ms::sample(model, sampler, options, weak); });
  return result;
}

/// Refuses options that were given and have no effect on this sampler. @throws value_error
template <class Sampler>
void named_sampler::check_given(const Sampler& sampler) const {
  for (const std::string& one : options_.given()) {
    std::string own;
    bool has = false;
    Sampler::fields(sampler, [&](const ms::option& o, const auto&) {
      has = has || o.name == one;
      own += " " + command_line::flag_of(o.name);
    });
    ms::require<ms::value_error>(has, program_, ": ", command_line::flag_of(one),
                                 " is no option of the sampler ", name_, "; it takes", own);
    const char* why = ms::sampling::no_effect(sampler, one);
    ms::require<ms::value_error>(why == nullptr, program_, ": ", command_line::flag_of(one),
                                 " has no effect on ", name_, " ", why ? why : "",
                                 "; leave it out");
  }
}

/// Calls f with the sampler that was asked for and its options. @param model whose stages and
/// training it is told of; null: of none yet
template <class F>
void named_sampler::with(const model_type* model, F&& f) const {
  bool found = false;
  ms::for_each_sampler([&]<class Sampler>(const std::string& name, Sampler sampler) {
    if (name != name_)
      return;
    found = true;
    if constexpr (requires { sampler.augmented; })  // as it was trained
      if (model != nullptr && model->trained().augmented.value_or(0) > 0)
        sampler.augmented = *model->trained().augmented;
    options_.set(sampler.name(), sampler);
    check_given(sampler);
    if constexpr (requires { sampler.num_steps = 1; }) {
      if (num_steps_ > 0)
        sampler.num_steps = num_steps_;
    } else {
      ms::require<ms::value_error>(num_steps_ == 0, program_, ": the sampler ", name_,
                                   " chooses its steps itself; name another for --steps");
    }
    if constexpr (ms::walks_levels<Sampler>) {
      if (!steps_by_stage_.empty() && model != nullptr)
        sampler = ms::steps_by_stage(std::move(sampler), model->stages(), steps_by_stage_);
    } else {
      ms::require<ms::value_error>(steps_by_stage_.empty(), program_, ": the sampler ", name_,
                                   " takes no list of noise levels, so that its steps cannot "
                                   "be given by stage; give one number");
    }
    sampler.sigmas();  // whatever else is wrong is said before anything is drawn
    f(sampler);
  });
  ms::require<ms::value_error>(found, program_, ": sampler '", name_,
                               "' is unknown; known: ", ms::sampler_names());
}
