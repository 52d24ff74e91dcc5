// Autoencoders in safetensors files: tensors under upstream's names, the configuration and
// scale_factor in the metadata.
#pragma once
#include "../diffusion/latent.hpp"
#include "json.hpp"
#include "weights.hpp"

namespace multistage::io {

/// What the metadata's `format` says of such files.
inline constexpr const char* autoencoder_format = "multistage-autoencoder-1";

/// Of tensors that belong to a training run, not to the autoencoder
/// (training/checkpoint_autoencoder.hpp).
inline bool of_training(const std::string& name) {
  return name.rfind("training.", 0) == 0;
}

/// A file of an autoencoder with these weights, to be written or added to. @throws
/// numeric_error for weights that are not finite
template <class Scalar, class Backend>
safetensors_writer autoencoder_writer(const autoencoder_model<Scalar, Backend>& model,
                                      const std::vector<Scalar>& weights) {
  safetensors_writer w;
  w.metadata = {{"format", autoencoder_format},
                {"config", to_json(model.config()).dump()},
                {"scale_factor", json(model.scale_factor()).dump()}};
  const described_network all = model.tensors();
  add_parameters(w, "", all.structure, all.names, weights);
  return w;
}

/// Writes an autoencoder atomically. @throws file_error
template <class Scalar, class Backend>
void save_autoencoder(const std::string& path, autoencoder_model<Scalar, Backend>& model) {
  autoencoder_writer(model, model.weights().to_host()).write(path);
}

/// An open file that holds an autoencoder. @throws file_error for another
inline const safetensors& opened_autoencoder(const safetensors& f) {
  require<file_error>(f.metadata().count("format") && f.meta("format") == autoencoder_format,
                      f.path(), ": is not an autoencoder (metadata format is not '",
                      autoencoder_format, "')");
  return f;
}

/// Opens an autoencoder, its structure built from the file's configuration. @throws file_error
/// that lists all tensors that do not fit
template <class Scalar = float, class Backend>
autoencoder_model<Scalar, Backend> load_autoencoder(const std::string& path, Backend backend) {
  const safetensors f(path);
  const json_document config = opened_autoencoder(f).meta_json("config");
  autoencoder_model<Scalar, Backend> model(backend, autoencoder_from_json(*config), 0);
  const described_network all = model.tensors();
  const auto flat = read_parameters<Scalar>(f, "", all.structure, all.names, of_training);
  backend.upload(flat.data(), model.weights().data(), index_t(flat.size()));
  if (f.metadata().count("scale_factor")) {
    const json scale = *f.meta_json("scale_factor");
    require<file_error>(scale.is_number(), path,
                        ": its metadata 'scale_factor' is not a number");
    model.set_scale_factor(scale.get<double>());
  }
  return model;
}

/// The autoencoder that `encode` leaves beside a data set of latents, which a path names as
/// open_images takes it; empty where there is none.
inline std::string autoencoder_beside(const std::string& path) {
  const std::filesystem::path at(path);
  const std::filesystem::path folder =
      std::filesystem::is_directory(at) ? at : at.parent_path();
  const std::string file = (folder / "autoencoder.safetensors").string();
  return std::filesystem::exists(file) ? file : "";
}

}  // namespace multistage::io
