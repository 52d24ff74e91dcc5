// Every sampler.
#pragma once
#include "ddim.hpp"
#include "deis.hpp"
#include "dpm_solver.hpp"
#include "dpm_solver_sde.hpp"
#include "edm_ablation.hpp"
#include "edm_heun.hpp"
#include "pndm.hpp"
#include "probability_flow.hpp"
#include "restart.hpp"
#include "score_sde.hpp"
#include "unipc.hpp"
