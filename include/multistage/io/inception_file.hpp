// Inception's weights in safetensors files, as examples/convert_checkpoint.py writes them:
// NAME.weight and NAME.bias with batch norms folded in, and "pooling" in the metadata, "fid" or
// "torchvision".
#pragma once
#include "../metrics/inception.hpp"
#include "weights.hpp"

namespace multistage::io {

/// What the metadata's `format` says of such files.
inline constexpr const char* inception_format = "multistage-inception-1";

/// @throws file_error naming the first tensor that is missing or misshapen
template <class Backend>
inception<Backend> load_inception(const std::string& path, Backend backend) {
  const safetensors f(path);
  require<file_error>(f.metadata().count("format") && f.meta("format") == inception_format,
                      path, ": is not an Inception network (metadata format is not '",
                      inception_format,
                      "'); make one with examples/convert_checkpoint.py inception");
  const std::string pooling = f.metadata().count("pooling") ? f.meta("pooling") : "fid";
  require<file_error>(pooling == "fid" || pooling == "torchvision", path,
                      ": its metadata 'pooling' is '", pooling,
                      "'; it must be fid or torchvision");
  index_t classes = 0;
  if (f.contains("fc.weight"))
    classes = f.entry("fc.weight").extents.empty() ? 0 : f.entry("fc.weight").extents[0];
  require<file_error>(classes <= 100'000, path, ": its classifier has ", classes, " classes");
  return inception<Backend>(
      std::move(backend),
      [&](const std::string& name, const std::vector<index_t>& extents) {
        require<file_error>(f.contains(name), path, ": lacks ", name,
                            "; it is not Inception-v3");
        require<file_error>(f.entry(name).extents == extents, path, ": ", name,
                            " has other extents than Inception-v3's");
        return read_weights<float>(f, name);
      },
      pooling == "fid" ? inception_pooling::fid : inception_pooling::torchvision, classes);
}

}  // namespace multistage::io
