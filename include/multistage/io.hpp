// Files and pictures: safetensors, checkpoints, npy, IDX, JSON, figures and reports. Needs
// nlohmann-json, cairo, libpng and zlib (target multistage::io).
#pragma once
// The order matters: what stands between the first and the last.
// clang-format off
#include "core/warnings_begin.inc"
#include "core/program.hpp"
#include "core/progress.hpp"
#include "io/autoencoder_file.hpp"
#include "io/canvas.hpp"
#include "io/dataset.hpp"
#include "io/figures.hpp"
#include "io/idx.hpp"
#include "io/inception_file.hpp"
#include "io/json.hpp"
#include "io/json_lines.hpp"
#include "io/npy.hpp"
#include "io/report.hpp"
#include "io/run_lock.hpp"
#include "io/safetensors.hpp"
#include "io/shard_writer.hpp"
#include "io/weights.hpp"
#include "training/checkpoint.hpp"
#ifdef MULTISTAGE_COMPILED_IO
#include "multistage.hpp"
namespace multistage {
MULTISTAGE_JSON(extern template)
MULTISTAGE_FILES(extern template, float, cpu)
}  // namespace multistage
#endif
#include "core/warnings_end.inc"
// clang-format on
