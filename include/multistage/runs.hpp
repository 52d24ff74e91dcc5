// Training runs from a configuration: presets, run folders, snapshots and reports
// (docs/training.md). Needs what <multistage/io.hpp> needs; include <multistage/multistage.hpp>
// or another umbrella that chooses a backend first.
#pragma once
// The order matters: what stands between the first and the last.
// clang-format off
#include "core/warnings_begin.inc"
#include "runs/autoencoder_run.hpp"
#include "runs/training_run.hpp"
#ifdef MULTISTAGE_COMPILED_IO
#include "multistage.hpp"
namespace multistage {
MULTISTAGE_RUNS(extern template, cpu)
MULTISTAGE_AUTOENCODERS(extern template, float, cpu)
}  // namespace multistage
#endif
#include "core/warnings_end.inc"
// clang-format on
