#include "named_sampler.hpp"

#include <multistage/io/npy.hpp>
#include <multistage/samplers/by_name.hpp>

namespace ms = multistage;

namespace {
/// What `sample` is told of by other means than numbers on the command line.
const std::set<std::string> not_numbers{"context", "weak_context", "from", "known", "mask"};
}  // namespace

std::vector<double> named_sampler::read(embeddings_file& file) {
  if (file.path.empty())
    return {};
  ms::io::npy_array array = ms::io::read_npy(file.path);
  ms::require<ms::value_error>(!array.values.empty() && array.extents.size() <= 3, file.path,
                               ": is no array of embeddings, [n, tokens, width] or [n, width]");
  file.extents = array.extents;
  return std::move(array.values);
}

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
  sampling_options_.add(app, ms::sampling_options{}, not_numbers);
  app.add_option("--context", context_.path,
                 "an .npy of embeddings [n, tokens, width], one picture after the other and "
                 "from the beginning again");
  app.add_option("--weak-context", weak_context_.path,
                 "likewise, of guidance's weak side: null_context.npy");
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

void named_sampler::set(ms::sampling_options& options, bool has_weak) {
  sampling_options_.set("sample", options);
  const std::vector<std::string> given = sampling_options_.given();
  const auto has = [&](const char* name) {
    return std::find(given.begin(), given.end(), name) != given.end();
  };
  const auto needs = [&](bool good, const std::string& flag, const char* why) {
    ms::require<ms::value_error>(good, program_, ": ", flag, " has no effect ", why,
                                 "; leave it out, or give both");
  };
  const bool guides = options.guide.acts();
  for (const char* name : {"guidance_low", "guidance_high", "negative_label"})
    needs(!has(name) || guides, command_line::flag_of(name),
          "without --guidance or --guidance-by-stage other than 1");
  needs(!has("negative_label") || !has_weak, "--negative-label",
        "with --weak-model, which is the weak side");
  needs(!has_weak || guides, "--weak-model",
        "without --guidance or --guidance-by-stage other than 1");
  ms::require<ms::value_error>(
      !(has("guidance") && has("guidance_by_stage")), program_,
      ": --guidance-by-stage takes the place of --guidance; give one of them");
  for (const char* name : {"encoder_low", "encoder_high"})
    needs(!has(name) || options.reuse.every > 1, command_line::flag_of(name),
          "without --encoder-every of 2 or more");
  needs(weak_context_.path.empty() || guides, "--weak-context",
        "without --guidance or --guidance-by-stage other than 1");
  options.context = read(context_);
  options.weak_context = read(weak_context_);
  ms::check(options);
}

void named_sampler::check_for(const ms::any_model& model) const {
  const ms::index_t size = model.label_dim(ms::input_slot::context);
  for (const embeddings_file& file : {context_, weak_context_}) {
    const std::vector<ms::index_t>& extents = file.extents;
    if (extents.empty() || size == 0)
      continue;  // sample says that there is none to take
    // [n, tokens, width], [n, width] of one token each, or a single one as the network has it
    const auto from = [&](std::size_t first) {
      ms::index_t product = 1;
      for (std::size_t k = first; k < extents.size(); ++k)
        product *= extents[k];
      return product;
    };
    const bool fits =
        extents.size() == 3 ? from(1) == size : from(0) == size || from(1) == size;
    std::string shape;
    for (const ms::index_t extent : extents)
      shape += (shape.empty() ? "" : ", ") + std::to_string(extent);
    ms::require<ms::value_error>(fits, file.path, ": embeddings [", shape,
                                 "] do not fit the model, which takes ", size,
                                 " numbers for a picture (tokens times width); make them as "
                                 "those that it was trained with");
  }
}

ms::io::json named_sampler::options(const ms::any_model& model,
                                    const ms::sampling_options& options) const {
  ms::io::json all{{"sampler", name_}};
  const auto add = [&](const ms::option& o, const auto& value) {
    if (o.name != std::string("batch") && !not_numbers.count(o.name))
      all[command_line::flag_of(o.name)] = ms::option_text(value);
  };
  with(&model, [&]<class Sampler>(const Sampler& sampler) {
    Sampler::fields(sampler, [&](const ms::option& o, const auto& value) {
      if (ms::sampling::no_effect(sampler, o.name) == nullptr)
        add(o, value);
    });
  });
  ms::sampling_options::fields(options, add);
  const auto hash_of = [](const std::vector<double>& embeddings) {
    return embeddings.empty() ? "" : ms::fingerprint_of(std::span<const double>(embeddings));
  };
  all["--context"] = hash_of(options.context);
  all["--weak-context"] = hash_of(options.weak_context);
  return all;
}

ms::sampling_result named_sampler::draw(const ms::cpu& walker,
                                        const ms::any_model& model,
                                        const ms::sampling_options& options,
                                        const ms::any_model* weak) const {
  ms::sampling_result result;
  with(&model, [&](const auto& sampler) {
    result = ms::sample(model, sampler, options, weak, walker);
  });
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
void named_sampler::with(const ms::any_model* model, F&& f) const {
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
