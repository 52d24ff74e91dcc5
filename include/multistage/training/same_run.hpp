// What processes that train together must have in common: the build, the options, the network,
// its weights and the images. Bits would differ otherwise, or sizes, and nobody would know why.
#pragma once
#include <sstream>

#include "../core/fingerprint.hpp"
#include "../distributed/together.hpp"
#include "options.hpp"
#include "segments.hpp"

/// A name as text, as it is.
#define MULTISTAGE_QUOTED(name) #name
/// What a macro stands for, as text.
#define MULTISTAGE_NAME_OF(macro) MULTISTAGE_QUOTED(macro)

namespace multistage {

namespace detail {

/// The program, as far as results depend on it, a fact a line.
template <class Scalar, class Backend>
MULTISTAGE_COLD std::string facts_of_build() {
  std::ostringstream text;
  text << "library " << library_version << "\ncompiler " << __VERSION__ << "\ninstruction set "
       << MULTISTAGE_NAME_OF(MULTISTAGE_ISA) << "\nbackend " << Backend::name << ", "
       << sizeof(Scalar) << " bytes a number";
  return text.str();
}
/// Options that results depend on, one a line.
MULTISTAGE_COLD inline std::string facts_of_options(const trainer_options& o) {
  std::ostringstream text;
  text.precision(17);
  trainer_options::fields(o, [&](const option& named, const auto& value) {
    if (is_only_how(named.name))
      return;
    text << '\n' << named.name << " = ";
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(value)>>)
      text << value;
    else
      text << option_text(value);
  });
  return text.str();
}
/// A model: stages, parameters, and the weights' fingerprint.
template <class Scalar, class Backend>
MULTISTAGE_COLD std::string facts_of_model(dynamic_model<Scalar, Backend>& model) {
  std::ostringstream text;
  text.precision(17);
  text << "\nstages end at sigma";
  for (const double boundary : model.stages().boundaries())
    text << ' ' << boundary;
  for (std::size_t k = 0; k < model.network().parameters.size(); ++k)
    text << "\nparameter " << model.parameter_names()[k] << " of "
         << model.network().parameters[k].size() << " weights";
  const std::vector<Scalar> weights = model.weights().to_host();
  text << "\nweights " << fingerprint_of(std::span<const Scalar>(weights));
  return text.str();
}

}  // namespace detail

/// Refuses processes that would not compute the same training. @param images their fingerprint
/// @throws value_error naming what differs from rank 0's, its echo on other ranks
template <class Scalar, class Backend>
MULTISTAGE_COLD void require_same_run(process_group& processes,
                                      dynamic_model<Scalar, Backend>& model,
                                      const trainer_options& o,
                                      const std::string& images) {
  if (processes.size() > 1)
    require_same(processes, "trainer",
                 detail::facts_of_build<Scalar, Backend>() + detail::facts_of_options(o) +
                     detail::facts_of_model(model) + "\nimages " + images);
}

}  // namespace multistage
