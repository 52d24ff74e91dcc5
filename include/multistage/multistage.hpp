// multistage: multi-stage, multi-decoder diffusion models (arXiv 2312.09181) on the CPU. Needs
// Eigen and threads, nothing else. Metrics are in <multistage/metrics/...>, files, PNG and JSON
// in <multistage/io.hpp>; the GPU in <multistage/cuda.hpp>; any Thrust system in
// <multistage/thrust.hpp>; the portable reference, for any processor and real scalar, in
// <multistage/eigen.hpp>.
#pragma once
// The order matters: what stands between the first and the last.
// clang-format off
#include "core/warnings_begin.inc"
#include "backend/cpu/backend.hpp"
#include "library.hpp"
#ifdef MULTISTAGE_COMPILED
#include "compiled.hpp"
namespace multistage {
MULTISTAGE_RECORDINGS(extern template)
MULTISTAGE_NETWORKS(extern template, float, cpu)
MULTISTAGE_TRAINING(extern template, float, cpu)
MULTISTAGE_CLUSTERING(extern template, cpu)
MULTISTAGE_SAMPLERS(extern template, float, cpu)
}  // namespace multistage
#endif
#include "core/warnings_end.inc"
// clang-format on
