// Weights between a model and named tensors in upstream's layout: what a PyTorch user loads and
// saves.
//
// Parameters lie in one flat array in the library's layout, [kernel, kernel, in, out]; files
// hold them under upstream's names in upstream's, [out, in, kernel, kernel]. Every tensor is
// looked at before any is used, so that an error lists all that do not fit.
//
//   check_parameters(file, "", graph, names, ignored);                  // all that differs
//   std::vector<float> flat = read_parameters<float>(file, "", graph, names, ignored);
#pragma once
#include "../core/finite.hpp"
#include "../graph/parameters.hpp"
#include "safetensors.hpp"

namespace multistage::io {

/// Refuses weights that are not finite. @throws numeric_error when `saving`, file_error when
/// reading; `where` names the file and the tensor
template <class T>
void require_finite(std::span<const T> values, const std::string& where, bool saving) {
  const std::size_t i = first_not_finite(values);
  if (i == values.size())
    return;
  // Said in words: streams print infinities by flags that may not know of them.
  const std::string what = where + ": value " + std::to_string(i) + " of " +
                           std::to_string(values.size()) + " is not finite; ";
  if (saving)
    fail<numeric_error>(
        what,
        "nothing was written, and a file that was there is as it was; go on from "
        "that one, e.g. with a lower learning rate");
  fail<file_error>(what, "no sound checkpoint holds such a value; use an earlier one");
}

/// The values of a tensor of weights. @throws file_error for integers and types the library
/// does not compute in, and for values that are not finite
template <class T>
std::vector<T> read_weights(const safetensors& file, const std::string& name) {
  const dtype_info& type = file.entry(name).type;
  if (!type.is_weight())
    fail<file_error>(file.path(), ": tensor '", printable(name), "' is ", type.name,
                     "; weights are F16, BF16, F32 or F64");
  std::vector<T> values = file.get<T>(name);
  const std::string where = file.path() + ": tensor '" + printable(name) + "'";
  require_finite(std::span<const T>(values), where, false);
  return values;
}

/// Adds all parameters of a flat host memory under prefix + upstream's names. @throws
/// numeric_error for values that are not finite
template <class T>
void add_parameters(safetensors_writer& w,
                    const std::string& prefix,
                    const graph& g,
                    const std::vector<std::string>& names,
                    const std::vector<T>& flat) {
  for (std::size_t k = 0; k < g.parameters.size(); ++k) {
    const parameter& p = g.parameters[k];
    std::vector<T> values(static_cast<std::size_t>(p.size()));
    for_each_element(
        p, [&](index_t upstream, index_t own) { values[upstream] = flat[p.offset + own]; });
    require_finite(std::span<const T>(values), "checkpoint: tensor '" + prefix + names[k] + "'",
                   true);
    w.add(prefix + names[k], upstream_extents(p), values);
  }
}

/// Checks that a file holds all parameters as tensors called prefix + upstream's name. Tensors
/// in the file whose names begin with `prefix`, that could be weights and are no parameter are
/// unexpected, unless `ignored(name without prefix)`.
/// @throws file_error that lists missing, unexpected and misshapen tensors together.
template <class Ignored>
void check_parameters(const safetensors& file,
                      const std::string& prefix,
                      const graph& g,
                      const std::vector<std::string>& names,
                      Ignored&& ignored) {
  std::string missing;
  std::string unexpected;
  std::string misshapen;
  int problems = 0;
  const auto note = [&](std::string& list, const std::string& what) {
    if (++problems <= 40)
      list += "\n    " + what;
  };
  const auto extents = [](const std::vector<index_t>& e) {
    std::string s = "[";
    for (std::size_t i = 0; i < e.size(); ++i)
      s += (i ? ", " : "") + std::to_string(e[i]);
    return s + "]";
  };
  for (std::size_t k = 0; k < g.parameters.size(); ++k) {
    const std::string name = prefix + names[k];
    const std::vector<index_t> wanted = upstream_extents(g.parameters[k]);
    if (!file.contains(name))
      note(missing, name);
    else if (file.entry(name).extents != wanted)
      note(misshapen, name + " has " + extents(file.entry(name).extents) + ", the network " +
                          extents(wanted));
    else if (!file.entry(name).type.is_weight())
      note(misshapen,
           name + " is " + file.entry(name).type.name + ", weights are F16, BF16, F32 or F64");
  }
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  for (const auto& [name, entry] : file.tensors())
    if (entry.type.is_weight() && name.compare(0, prefix.size(), prefix) == 0) {
      const std::string rest = name.substr(prefix.size());
      if (!std::binary_search(sorted.begin(), sorted.end(), rest) && !ignored(rest))
        note(unexpected, printable(name));
    }
  if (problems > 0) {
    std::string text = file.path() + ": its tensors are not those of the network (" +
                       std::to_string(problems) + " differ):";
    if (!missing.empty())
      text += "\n  missing:" + missing;
    if (!unexpected.empty())
      text += "\n  unexpected:" + unexpected;
    if (!misshapen.empty())
      text += "\n  misshapen:" + misshapen;
    if (problems > 40)
      text += "\n  and " + std::to_string(problems - 40) + " more";
    fail<file_error>(text, "\nopen it with the configuration it was made with");
  }
}

/// Reads one parameter into flat[p.offset - origin ...]. @throws file_error as read_weights
/// does
template <class T>
void read_parameter(const safetensors& file,
                    const std::string& name,
                    const parameter& p,
                    T* flat,
                    index_t origin = 0) {
  const std::vector<T> values = read_weights<T>(file, name);
  T* const to = flat + p.offset - origin;
  for_each_element(
      p, [&](index_t upstream, index_t own) { to[own] = values[std::size_t(upstream)]; });
}

/// All parameters of a file that check_parameters accepts, as flat memory.
template <class T, class Ignored>
std::vector<T> read_parameters(const safetensors& file,
                               const std::string& prefix,
                               const graph& g,
                               const std::vector<std::string>& names,
                               Ignored&& ignored) {
  check_parameters(file, prefix, g, names, ignored);
  std::vector<T> flat(static_cast<std::size_t>(g.parameter_elements), T(0));
  for (std::size_t k = 0; k < g.parameters.size(); ++k)
    read_parameter(file, prefix + names[k], g.parameters[k], flat.data());
  return flat;
}

/// Upstream keeps resampling filters as buffers; here they are part of the configuration.
inline bool is_resample_filter(const std::string& name) {
  const std::string end = "resample_filter";
  return name.size() >= end.size() &&
         name.compare(name.size() - end.size(), end.size(), end) == 0;
}

}  // namespace multistage::io
