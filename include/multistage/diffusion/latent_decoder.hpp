// The decoder of an autoencoder as a value, whatever it computes in and on: what turns the
// latents that a model draws into pictures, in a program that shows them.
//
//   latent_decoder decode(io::load_autoencoder<float>("codes.safetensors", cpu()));
//   decode(drawn.images, drawn.extents);              // doubles, decode.extents(drawn.extents)
#pragma once
#include <functional>
#include <memory>

#include "decode_tiles.hpp"

namespace multistage {

/// Pictures of latents of any size. Copies are the same autoencoder.
class latent_decoder {
 public:
  /// Takes the autoencoder.
  template <class Scalar, class Backend>
  explicit latent_decoder(autoencoder_model<Scalar, Backend>&& model) {
    const auto held = std::make_shared<autoencoder_model<Scalar, Backend>>(std::move(model));
    tile_ = held->latents(1);
    const shape pictures = held->images(at_once);
    bytes_ = held->decoding_bytes(at_once) + 2 * pictures.size() * index_t(sizeof(Scalar));
    extents_ = [held](const shape& latents) {
      return decoded_extents(*held, latents);
    };
    decode_ = [held](std::span<const double> latents, const shape& size) {
      const std::vector<Scalar> z(latents.begin(), latents.end());
      const shape tile = held->latents(1);
      const index_t overlap = std::max<index_t>(1, std::min(tile.height, tile.width) / 4);
      const std::vector<Scalar> x =
          decode_tiles(*held, std::span<const Scalar>(z), size, overlap);
      return std::vector<double>(x.begin(), x.end());
    };
  }

  /// Whether it can make pictures of latents of such extents.
  bool fits(const shape& latents) const {
    return latents.channels == tile_.channels && latents.height >= tile_.height &&
           latents.width >= tile_.width;
  }
  /// Extents of the pictures of latents.
  shape extents(const shape& latents) const {
    return extents_(latents);
  }
  /// Bytes that it takes at most beside what it reads and returns; of latents of the
  /// autoencoder's own size.
  index_t bytes() const {
    return bytes_;
  }
  /// Pictures of latents [n, h, w, c] in host memory, a few at a time; in tiles where they are
  /// larger than the autoencoder's. @throws shape_error for latents that are smaller or of
  /// other channels
  std::vector<double> operator()(std::span<const double> latents, const shape& size) const {
    require<shape_error>(index_t(latents.size()) == size.size(), "decode: ", latents.size(),
                         " values for latents ", size);
    std::vector<double> pictures;
    for (index_t first = 0; first < size.rows; first += at_once) {
      shape some = size;
      some.rows = std::min(at_once, size.rows - first);
      const std::vector<double> decoded = decode_(
          latents.subspan(std::size_t(first * size.row_size()), std::size_t(some.size())),
          some);
      pictures.insert(pictures.end(), decoded.begin(), decoded.end());
    }
    return pictures;
  }

 private:
  static constexpr index_t at_once = 8;  // latents

  shape tile_{1, 1, 1, 1};  // of latents, as the autoencoder was made for
  index_t bytes_ = 0;
  std::function<shape(const shape&)> extents_;
  std::function<std::vector<double>(std::span<const double>, const shape&)> decode_;
};

}  // namespace multistage
