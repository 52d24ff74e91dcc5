// What golden network cases share: orders of values, weights from a file, parameters and
// gradients to named outputs.
#pragma once
#include <multistage/io/json.hpp>
#include <multistage/io/weights.hpp>
#include <multistage/library.hpp>

#include "golden_case.hpp"

namespace golden {

namespace ms = multistage;

/// NCHW file order to NHWC and back.
template <class T>
std::vector<T> reorder(const std::vector<T>& v, const ms::shape& s, bool to_nhwc) {
  std::vector<T> out(v.size());
  for (ms::index_t r = 0; r < s.rows; ++r)
    for (ms::index_t p = 0; p < s.pixels(); ++p)
      for (ms::index_t c = 0; c < s.channels; ++c) {
        const auto nhwc = (r * s.pixels() + p) * s.channels + c;
        const auto nchw = (r * s.channels + c) * s.pixels() + p;
        to_nhwc ? out[nhwc] = v[nchw] : out[nchw] = v[nhwc];
      }
  return out;
}

/// Reads one parameter of a file, param.<name> or buffer.<name>, into flat memory at `offset`.
template <class T>
void load_parameter(const golden_case& g,
                    const std::string& name,
                    const ms::parameter& p,
                    std::vector<T>& flat,
                    ms::index_t offset) {
  // Upstream keeps fixed tensors (Fourier frequencies) as buffers or as parameters.
  const std::string where =
      p.trainable || g.file.contains("param." + name) ? "param." + name : "buffer." + name;
  const auto values = g.file.get<T>(where);
  if (g.file.entry(where).extents != ms::upstream_extents(p))
    ms::fail<ms::shape_error>(where, " has other extents than the network");
  ms::for_each_element(
      p, [&](ms::index_t up, ms::index_t own) { flat[offset + own] = values[up]; });
}

/// Every param.* of the file must be one of `names`.
inline void refuse_unknown(const golden_case& g, const std::vector<std::string>& names) {
  for (const auto& [name, entry] : g.file.tensors())
    if (name.rfind("param.", 0) == 0 &&
        std::find(names.begin(), names.end(), name.substr(6)) == names.end() &&
        !ms::io::is_resample_filter(name))
      ms::fail<ms::file_error>("the file's ", name, " is no parameter of the network");
}

template <class T>
std::vector<T> load_weights(const golden_case& g,
                            const ms::graph& net,
                            const std::vector<std::string>& names) {
  std::vector<T> weights(std::size_t(net.parameter_elements), T(0));
  for (std::size_t k = 0; k < net.parameters.size(); ++k)
    load_parameter(g, names[k], net.parameters[k], weights, net.parameters[k].offset);
  refuse_unknown(g, names);
  return weights;
}

/// Trainable tensors of a flat memory as outputs in upstream's order; of one stage and the
/// shared part, or (-1) of all.
template <class T>
void add_parameters(outputs& got,
                    const std::string& prefix,
                    const ms::graph& net,
                    const std::vector<std::string>& names,
                    const std::vector<T>& flat,
                    int only_stage) {
  for (std::size_t k = 0; k < net.parameters.size(); ++k) {
    const ms::parameter& p = net.parameters[k];
    if (!p.trainable || (only_stage >= 0 && p.segment != 0 && p.segment != 1 + only_stage))
      continue;
    std::vector<double> v(std::size_t(p.size()), 0.0);
    ms::for_each_element(
        p, [&](ms::index_t up, ms::index_t own) { v[up] = flat[p.offset + own]; });
    got[prefix + names[k]] = std::move(v);
  }
}

}  // namespace golden
