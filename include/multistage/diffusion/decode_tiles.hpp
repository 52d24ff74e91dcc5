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

/// Where tiles begin along an axis: the last ends where the axis ends.
inline std::vector<index_t> tile_starts(index_t extent, index_t tile, index_t overlap) {
  std::vector<index_t> starts;
  for (index_t at = 0; at + tile < extent; at += tile - overlap)
    starts.push_back(at);
  starts.push_back(extent - tile);
  return starts;
}

/// The weight of a tile's pixel along an axis. @param at its place in the tile. @param before,
/// after pixels shared with the neighbours, 0 at the picture's border
inline double tile_weight(index_t at, index_t tile, index_t before, index_t after) {
  const auto ramp = [](index_t from_border, index_t shared) {
    if (shared == 0)
      return 1.0;
    const double outside = double(shared) / 4;
    return std::clamp((double(from_border) + 0.5 - outside) / (double(shared) - 2 * outside),
                      0.0, 1.0);
  };
  return ramp(at, before) * ramp(tile - 1 - at, after);
}

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
  require<value_error>(overlap >= 1 && 2 * overlap <= std::min(tile.height, tile.width),
                       "decode_tiles: overlap = ", overlap,
                       "; it must be 1 to half of a tile's ",
                       std::min(tile.height, tile.width));
  const index_t factor = part.height / tile.height;
  const shape whole = decoded_extents(model, extents);
  std::vector<double> sum(static_cast<std::size_t>(whole.size()), 0.0);
  std::vector<double> weight(static_cast<std::size_t>(whole.pixels()), 0.0);
  const auto rows = detail::tile_starts(extents.height, tile.height, overlap);
  const auto columns = detail::tile_starts(extents.width, tile.width, overlap);
  const auto shared = [&](const std::vector<index_t>& starts, std::size_t k, index_t size) {
    return k + 1 < starts.size() ? factor * (starts[k] + size - starts[k + 1]) : 0;
  };
  for (std::size_t r = 0; r < rows.size(); ++r)
    for (std::size_t c = 0; c < columns.size(); ++c) {
      std::vector<Scalar> cut;  // [n, tile height, tile width, channels]
      for (index_t n = 0; n < extents.rows; ++n)
        for (index_t y = 0; y < tile.height; ++y) {
          const auto from =
              latents.begin() +
              ((n * extents.height + rows[r] + y) * extents.width + columns[c]) * tile.channels;
          cut.insert(cut.end(), from, from + tile.width * tile.channels);
        }
      const tensor<Scalar, Backend> z(model.backend(), model.latents(extents.rows), cut);
      tensor<Scalar, Backend> x(model.backend(), part);
      model.decode(z.view(), x.view());
      const std::vector<Scalar> decoded = x.to_host();
      const index_t above = r > 0 ? shared(rows, r - 1, tile.height) : 0;
      const index_t left = c > 0 ? shared(columns, c - 1, tile.width) : 0;
      for (index_t y = 0; y < part.height; ++y)
        for (index_t k = 0; k < part.width; ++k) {
          const double w =
              detail::tile_weight(y, part.height, above, shared(rows, r, tile.height)) *
              detail::tile_weight(k, part.width, left, shared(columns, c, tile.width));
          const index_t to = (factor * rows[r] + y) * whole.width + factor * columns[c] + k;
          weight[std::size_t(to)] += w;
          for (index_t n = 0; n < part.rows; ++n)
            for (index_t i = 0; i < part.channels; ++i)
              sum[std::size_t((n * whole.pixels() + to) * part.channels + i)] +=
                  w * double(decoded[std::size_t(
                          ((n * part.height + y) * part.width + k) * part.channels + i)]);
        }
    }
  std::vector<Scalar> pictures(sum.size());
  for (std::size_t i = 0; i < sum.size(); ++i) {
    const index_t pixel = index_t(i) / whole.channels % whole.pixels();
    pictures[i] = Scalar(sum[i] / weight[std::size_t(pixel)]);
  }
  return pictures;
}

}  // namespace multistage
