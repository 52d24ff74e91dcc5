// Autoencoders in safetensors files: tensors under upstream's names, the configuration and
// scale_factor in the metadata.
#pragma once
#include "../diffusion/latent.hpp"
#include "json.hpp"
#include "weights.hpp"

namespace multistage::io {

/// What the metadata's `format` says of such files.
inline constexpr const char* autoencoder_format = "multistage-autoencoder-1";

/// Writes an autoencoder atomically. @throws file_error
template <class Scalar, class Backend>
void save_autoencoder(const std::string& path, autoencoder_model<Scalar, Backend>& model) {
  safetensors_writer w;
  w.metadata = {{"format", autoencoder_format},
                {"config", to_json(model.config()).dump()},
                {"scale_factor", json(model.scale_factor()).dump()}};
  const std::vector<Scalar> flat = model.weights().to_host();
  model.for_each_parameter([&](const std::string& name, const parameter& p, index_t offset) {
    std::vector<Scalar> values(static_cast<std::size_t>(p.size()));
    for_each_element(
        p, [&](index_t upstream, index_t own) { values[upstream] = flat[offset + own]; });
    require_finite(std::span<const Scalar>(values), "autoencoder: tensor '" + name + "'", true);
    w.add(name, upstream_extents(p), values);
  });
  w.write(path);
}

/// Opens an autoencoder, its structure built from the file's configuration. @throws file_error
/// that lists all tensors that do not fit
template <class Scalar = float, class Backend>
autoencoder_model<Scalar, Backend> load_autoencoder(const std::string& path, Backend backend) {
  const safetensors f(path);
  require<file_error>(f.metadata().count("format") && f.meta("format") == autoencoder_format,
                      path, ": is not an autoencoder (metadata format is not '",
                      autoencoder_format, "')");
  autoencoder_model<Scalar, Backend> model(backend,
                                           autoencoder_from_json(f.meta_json("config")), 0);
  graph all;  // the tensors as one list, for one check
  std::vector<std::string> names;
  model.for_each_parameter([&](const std::string& name, const parameter& p, index_t offset) {
    all.parameters.push_back(p);
    all.parameters.back().offset = offset;
    names.push_back(name);
  });
  all.parameter_elements = model.weights().size();
  const auto flat =
      read_parameters<Scalar>(f, "", all, names, [](const std::string&) { return false; });
  backend.upload(flat.data(), model.weights().data(), index_t(flat.size()));
  if (f.metadata().count("scale_factor")) {
    const json scale = *f.meta_json("scale_factor");
    require<file_error>(scale.is_number(), path,
                        ": its metadata 'scale_factor' is not a number");
    model.set_scale_factor(scale.get<double>());
  }
  return model;
}

}  // namespace multistage::io
