// The sampler that a command line names, with its options: what generate and evaluate share.
// Compiled once (named_sampler.cpp), since it holds every sampler there is.
#pragma once
#include <multistage/io/json.hpp>
#include <multistage/multistage.hpp>

#include "command_line.hpp"

using model_type = multistage::dynamic_model<float, multistage::cpu>;

/// A sampler by name and the options that were given of it.
class named_sampler {
 public:
  /// @param program whose name messages begin with
  explicit named_sampler(std::string program) : program_(std::move(program)) {}

  /// Adds --sampler and the options of all samplers, those named in `without` aside.
  void add_options(CLI::App& app, const std::set<std::string>& without = {});
  /// What is wrong with the command line is said before a model is opened. @throws value_error
  void check();
  /// A number of steps in the place of the sampler's own. @throws value_error for a sampler
  /// that has none
  void set_steps(int num_steps);
  /// What is in force for a model, by flag. @throws value_error
  multistage::io::json options(const model_type& model) const;
  /// Draws. @see multistage::sample
  multistage::sampling_result draw(model_type& model,
                                   const multistage::sampling_options& options,
                                   model_type* weak = nullptr) const;
  /// Whether the command line said anything of it.
  bool given() const {
    return name_option_->count() > 0 || !options_.given().empty();
  }
  /// Its name.
  const std::string& name() const {
    return name_;
  }

 private:
  template <class F>
  void with(const model_type* model, F&& f) const;
  template <class Sampler>
  void check_given(const Sampler& sampler) const;

  std::string program_;
  std::string name_ = "edm_heun";
  const CLI::Option* name_option_ = nullptr;
  command_line::named_options options_;
  std::vector<int> steps_by_stage_;
  int num_steps_ = 0;  // 0: the sampler's own
};
