// Networks of the perceptual distance in safetensors files, as examples/convert_checkpoint.py
// writes them: torchvision's features.N.weight and features.N.bias, LPIPS's lin0.weight ...
// lin4.weight, and "network" in the metadata, "vgg16" or "alexnet".
#pragma once
#include "../metrics/perceptual_networks.hpp"
#include "weights.hpp"

namespace multistage::io {

/// What the metadata's `format` says of such files.
inline constexpr const char* perceptual_format = "multistage-perceptual-1";

/// The network of a file, for pictures of an extent. @throws file_error naming the first tensor
/// that is missing or misshapen, value_error for pictures that are too small
template <class Scalar = float>
MULTISTAGE_COLD perceptual_network<Scalar> load_perceptual_network(const std::string& path,
                                                                   const shape& image) {
  const safetensors f(path);
  require<file_error>(
      f.metadata().count("format") && f.meta("format") == perceptual_format, path,
      ": is not a network of the perceptual distance (metadata format is "
      "not '",
      perceptual_format, "'); make one with examples/convert_checkpoint.py perceptual");
  require<file_error>(f.metadata().count("network") > 0, path,
                      ": its metadata lack 'network', vgg16 or alexnet");
  const auto kind =
      choice_from<perceptual_kind>(path + ": its metadata's network", f.meta("network"));
  return make_perceptual_network<Scalar>(
      kind, image, [&](const std::string& name, const std::vector<index_t>& extents) {
        require<file_error>(f.contains(name), path, ": lacks ", name, "; it is not ",
                            to_string(kind));
        require<file_error>(f.entry(name).extents == extents, path, ": ", name,
                            " has other extents than ", to_string(kind), "'s");
        return read_weights<double>(f, name);
      });
}

}  // namespace multistage::io
