// Everything but the backends, which the umbrellas choose.
#pragma once
#include "diffusion/multi_decoder.hpp"
#include "ops/copy.hpp"
#include "ops/matmul.hpp"
#include "samplers/all.hpp"
#include "samplers/sample.hpp"
#include "schedule/noise_levels.hpp"
#include "stages/n_stage.hpp"
#include "stages/optimal_denoiser_clustering.hpp"
#include "training/run.hpp"
