// Latents larger than an autoencoder's, decoded in tiles of its own size that overlap and are
// blended: memory and attention stay those of one tile.
//   picture = sum over tiles of w decode(tile) / sum of w,
// where w of a pixel is a product of ramps across the overlaps. In the outer quarter of an
// overlap it is 0: what a tile says there sees zeros beyond its border. Farther inside, tiles
// say what the whole would say as far as receptive fields reach; norms over groups of channels
// take their means over the tile, so that tiles agree as well as their contents are alike.
#pragma once
#include <algorithm>

#include "latent.hpp"

namespace multistage {

namespace detail {

/// One of the tiles along an axis, in latent pixels.
struct axis_tile {
  index_t start;
  index_t before;  // shared with the tile before it
  index_t after;   // and with the one behind it
};

/// The tiles along an axis: the last ends where the axis ends.
inline std::vector<axis_tile> tiles_of_axis(index_t extent, index_t tile, index_t overlap) {
  std::vector<axis_tile> tiles;
  for (index_t at = 0; at + tile < extent; at += tile - overlap)
    tiles.push_back({at, 0, 0});
  tiles.push_back({extent - tile, 0, 0});
  for (std::size_t k = 1; k < tiles.size(); ++k)
    tiles[k].before = tiles[k - 1].after = tiles[k - 1].start + tile - tiles[k].start;
  return tiles;
}

/// The weights of a tile's pixels along an axis. @param factor pixels of a latent pixel
inline std::vector<double> tile_weights(const axis_tile& of, index_t tile, index_t factor) {
  const auto ramp = [](index_t from_border, index_t shared) {
    if (shared == 0)
      return 1.0;
    const double outside = double(shared) / 4;
    return std::clamp((double(from_border) + 0.5 - outside) / (double(shared) - 2 * outside),
                      0.0, 1.0);
  };
  const index_t pixels = factor * tile;
  std::vector<double> weights;
  for (index_t at = 0; at < pixels; ++at)
    weights.push_back(ramp(at, factor * of.before) * ramp(pixels - 1 - at, factor * of.after));
  return weights;
}

/// A tile [n, tile height, tile width, channels] of latents.
template <class Scalar>
std::vector<Scalar> cut_tile(std::span<const Scalar> latents,
                             const shape& extents,
                             const shape& tile,
                             index_t row,
                             index_t column) {
  std::vector<Scalar> cut;
  for (index_t n = 0; n < extents.rows; ++n)
    for (index_t y = 0; y < tile.height; ++y) {
      const auto from =
          latents.begin() +
          ((n * extents.height + row + y) * extents.width + column) * tile.channels;
      cut.insert(cut.end(), from, from + tile.width * tile.channels);
    }
  return cut;
}

/// Pictures that tiles are put together to: their sums, and those of their weights.
class blended_tiles {
 public:
  /// @param whole extents of the pictures
  explicit blended_tiles(const shape& whole)
      : whole_(whole),
        sum_(static_cast<std::size_t>(whole.size()), 0.0),
        weight_(static_cast<std::size_t>(whole.pixels()), 0.0) {}

  /// Adds tiles [n, h, w, c], a picture each, whose first pixel is at (row, column). @param
  /// down, across weights of their rows and columns
  template <class Scalar>
  void add(const std::vector<Scalar>& tiles,
           index_t row,
           index_t column,
           const std::vector<double>& down,
           const std::vector<double>& across) {
    const index_t line = index_t(across.size());
    const index_t pixels = index_t(down.size()) * line;
    for (index_t i = 0; i < pixels; ++i) {
      const double w = down[std::size_t(i / line)] * across[std::size_t(i % line)];
      const index_t to = (row + i / line) * whole_.width + column + i % line;
      weight_[std::size_t(to)] += w;
      for (index_t n = 0; n < whole_.rows; ++n)
        add_pixel(tiles.data() + (n * pixels + i) * whole_.channels, w,
                  n * whole_.pixels() + to);
    }
  }
  /// The pictures.
  template <class Scalar>
  std::vector<Scalar> pictures() const {
    std::vector<Scalar> all(sum_.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      const index_t pixel = index_t(i) / whole_.channels % whole_.pixels();
      all[i] = Scalar(sum_[i] / weight_[std::size_t(pixel)]);
    }
    return all;
  }

 private:
  /// @param to which pixel of all pictures
  template <class Scalar>
  void add_pixel(const Scalar* from, double weight, index_t to) {
    for (index_t c = 0; c < whole_.channels; ++c)
      sum_[std::size_t(to * whole_.channels + c)] += weight * double(from[c]);
  }

  shape whole_;
  std::vector<double> sum_;
  std::vector<double> weight_;  // of each pixel, the same for all pictures
};

}  // namespace detail

/// Extents of the pictures of latents of any size.
template <class Scalar, class Backend>
shape decoded_extents(const autoencoder_model<Scalar, Backend>& model, const shape& latents) {
  shape pictures = model.images(latents.rows);
  const index_t factor = pictures.height / model.latents(1).height;
  pictures.height = factor * latents.height;
  pictures.width = factor * latents.width;
  return pictures;
}

/// Pictures of latents [n, h, w, c] of at least the model's height and width, host memory.
/// Latents of the model's own size are decoded as `decode` does.
/// @param overlap of tiles, in latent pixels, at most half a tile. @throws shape_error for
/// latents that are smaller or of other channels, value_error for the overlap
template <class Scalar, class Backend>
MULTISTAGE_COLD std::vector<Scalar> decode_tiles(autoencoder_model<Scalar, Backend>& model,
                                                 std::span<const Scalar> latents,
                                                 const shape& extents,
                                                 index_t overlap) {
  const shape tile = model.latents(1);
  const shape part = model.images(extents.rows);
  require<shape_error>(extents.channels == tile.channels && extents.height >= tile.height &&
                           extents.width >= tile.width &&
                           index_t(latents.size()) == extents.size(),
                       "decode_tiles: latents ", extents, " of ", latents.size(),
                       " values; the autoencoder takes ", tile, " or larger ones");
  const bool whole_tile = extents.height == tile.height && extents.width == tile.width;
  require<value_error>(
      whole_tile || (overlap >= 1 && 2 * overlap <= std::min(tile.height, tile.width)),
      "decode_tiles: overlap = ", overlap, "; it must be 1 to half of a tile's ",
      std::min(tile.height, tile.width));
  const index_t factor = part.height / tile.height;
  detail::blended_tiles all(decoded_extents(model, extents));
  for (const auto& r : detail::tiles_of_axis(extents.height, tile.height, overlap))
    for (const auto& c : detail::tiles_of_axis(extents.width, tile.width, overlap)) {
      const tensor<Scalar, Backend> z(
          model.backend(), model.latents(extents.rows),
          detail::cut_tile(latents, extents, tile, r.start, c.start));  // [n, tile]
      tensor<Scalar, Backend> x(model.backend(), part);                 // [n, tile's picture]
      model.decode(z.view(), x.view());
      all.add(x.to_host(), factor * r.start, factor * c.start,
              detail::tile_weights(r, tile.height, factor),
              detail::tile_weights(c, tile.width, factor));
    }
  return all.template pictures<Scalar>();
}

}  // namespace multistage
