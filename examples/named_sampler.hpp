// The sampler that a command line names, its options and those of `sample`: what generate and
// evaluate share.
// Compiled once (named_sampler.cpp), since it holds every sampler there is.
#pragma once
#include <multistage/io/json.hpp>
#include <multistage/multistage.hpp>

#include "command_line.hpp"

/// A sampler by name and the options that were given of it.
class named_sampler {
 public:
  /// @param program whose name messages begin with
  explicit named_sampler(std::string program)
      : program_(std::move(program)) {}

  /// Adds --sampler, the options of all samplers, those named in `without` aside, and those of
  /// `sample` that a command line can give.
  void add_options(CLI::App& app, const std::set<std::string>& without = {});
  /// What is wrong with the command line is said before a model is opened. @throws value_error
  void check();
  /// Sets what was given of the options of `sample`. @param has_weak whether guidance has a
  /// model as its weak side. @throws value_error, also for what has no effect
  void set(multistage::sampling_options& options, bool has_weak);
  /// A number of steps in the place of the sampler's own. @throws value_error for a sampler
  /// that has none
  void set_steps(int num_steps);
  /// Refuses embeddings that a model does not take. @throws value_error
  void check_for(const multistage::any_model& model) const;
  /// What is in force for a model, by flag, without `batch` and what has no effect. @throws
  /// value_error
  multistage::io::json options(const multistage::any_model& model,
                               const multistage::sampling_options& options) const;
  /// Draws. @param walker that the sampler's state is on. @see multistage::sample
  multistage::sampling_result draw(const multistage::cpu& walker,
                                   const multistage::any_model& model,
                                   const multistage::sampling_options& options,
                                   const multistage::any_model* weak = nullptr) const;
  /// Whether the command line said anything of it.
  bool given() const {
    return name_option_->count() > 0 || !options_.given().empty() ||
           !sampling_options_.given().empty() || !context_.path.empty() ||
           !weak_context_.path.empty();
  }
  /// Its name.
  const std::string& name() const {
    return name_;
  }

 private:
  template <class F>
  void with(const multistage::any_model* model, F&& f) const;
  template <class Sampler>
  void check_given(const Sampler& sampler) const;

  std::string program_;
  std::string name_ = "edm_heun";
  const CLI::Option* name_option_ = nullptr;
  command_line::named_options options_;
  command_line::named_options sampling_options_;
  /// A file of embeddings and its array's extents.
  struct embeddings_file {
    std::string path;
    std::vector<multistage::index_t> extents{};
  };
  /// Its embeddings, one after the other; none of none. @throws file_error, value_error
  static std::vector<double> read(embeddings_file& file);

  embeddings_file context_;
  embeddings_file weak_context_;
  std::vector<int> steps_by_stage_;
  int num_steps_ = 0;  // 0: the sampler's own
};
