// multistage: multi-stage, multi-decoder diffusion models (arXiv 2312.09181) on the CPU. Needs Eigen and threads, nothing else.
// Files, PNG and JSON are in <multistage/io.hpp>; the GPU in <multistage/cuda.hpp>; any Thrust system in <multistage/thrust.hpp>.
#pragma once
#include "backend/cpu/backend.hpp"
#include "diffusion/model.hpp"
#include "networks/multi_decoder.hpp"
#include "stages/n_stage.hpp"
#include "stages/optimal_denoiser_clustering.hpp"
#include "training/trainer.hpp"
