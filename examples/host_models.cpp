#include "host_models.hpp"

#include <multistage/io.hpp>
#include <multistage/io/file_fingerprint.hpp>

#include "backends.hpp"

namespace ms = multistage;

struct host_models::chosen {
  any_backend backend;
};

namespace {
/// What samplers walk on beside a backend.
ms::cpu walker_beside(const any_backend& backend, int threads) {
  const auto* const cpu = std::get_if<ms::cpu>(&backend);
  return cpu != nullptr ? *cpu : ms::cpu(threads);
}
}  // namespace

host_models::host_models(const std::string& backend, int threads)
    : backend_(new chosen{backend_of(backend, threads)}),
      walker_(walker_beside(backend_->backend, threads)) {}

ms::any_model host_models::load(const std::string& path) const {
  return std::visit(
      [&](const auto& b) { return ms::any_model(ms::load<float>(path, b, {.lazy = true})); },
      backend_->backend);
}

ms::latent_decoder host_models::load_decoder(const std::string& path,
                                             const ms::any_model& model) const {
  ms::latent_decoder decoder = std::visit(
      [&](const auto& b) {
        return ms::latent_decoder(ms::io::load_autoencoder<float>(path, b));
      },
      backend_->backend);
  const std::string learned = model.trained().images.value_or("latents");
  ms::require<ms::value_error>(learned != "pictures", path,
                               ": the model learned pictures, which nothing need decode; leave "
                               "--autoencoder out");
  constexpr const char* right_one =
      "; give the one that lies beside the latents it was trained on (autoencoder.safetensors)";
  ms::require<ms::shape_error>(decoder.fits(model.images(1)), path,
                               ": takes other latents than ", model.images(1),
                               ", which the model draws", right_one);
  const std::string own =
      "latents of " + ms::io::fingerprint_of_file(ms::io::checkpoint_of(path));
  if (learned != "latents" && learned != own)
    ms::warn(path,
             ": is another autoencoder than the one whose latents the model learned, so "
             "that pictures may come out wrong",
             right_one);
  return decoder;
}
