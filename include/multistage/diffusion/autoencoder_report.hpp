// What a training step of an autoencoder finds on its way: the latent images, what the decoder
// makes of them, and the losses, for whoever adds losses of their own or shows progress.
//
//   const auto found = model.differentiate(pictures, noise, gradients.data());
//   found.loss;                     // all of it
#pragma once
#include <vector>

#include "../core/config.hpp"

namespace multistage {

/// What one differentiation of an autoencoder found; host memory, NHWC.
template <class T>
struct autoencoder_report {
  std::vector<T> moments;  ///< [rows, h, w, embed_dim] (VQ: z) or twice as many channels (KL)
  std::vector<T> latent;   ///< what is decoded: zq, or the sample
  std::vector<index_t> indices;  ///< VQ: code of each pixel
  std::vector<double> kl;        ///< KL: divergence of each row
  std::vector<T> decoded;        ///< what the decoder makes of them, like the images
  double latent_loss = 0;        ///< of the codes or of the divergences, weighted
  double loss = 0;               ///< all of it: latent_loss and the mean square of decoded - x
};

}  // namespace multistage
