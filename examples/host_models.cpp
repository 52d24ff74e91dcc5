#include "host_models.hpp"

#include <multistage/io.hpp>

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

ms::latent_decoder host_models::load_decoder(const std::string& path) const {
  return std::visit(
      [&](const auto& b) {
        return ms::latent_decoder(ms::io::load_autoencoder<float>(path, b));
      },
      backend_->backend);
}
