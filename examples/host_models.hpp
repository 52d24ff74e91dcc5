// Models and autoencoders from files, on the host backend that a command line names: what
// generate and evaluate draw with. Compiled once (host_models.cpp), since it holds every
// backend.
#pragma once
#include <multistage/diffusion/latent_decoder.hpp>
#include <multistage/multistage.hpp>

/// Opens files on one backend.
class host_models {
 public:
  /// @param backend its name. @param threads 0: one a processor that may be used
  host_models(const std::string& backend, int threads);

  /// A checkpoint, whose weights are read when they are used. @throws file_error
  multistage::any_model load(const std::string& path) const;
  /// The decoder of an autoencoder, for what a model draws. Warns of another autoencoder than
  /// the one whose latents the model learned. @throws file_error, value_error for a model that
  /// learned pictures, shape_error for one of other latents
  multistage::latent_decoder load_decoder(const std::string& path,
                                          const multistage::any_model& model) const;
  /// What samplers walk on: the backend itself, or the cpu beside it.
  const multistage::cpu& walker() const {
    return walker_;
  }

 private:
  struct chosen;
  std::shared_ptr<const chosen> backend_;
  multistage::cpu walker_;
};
