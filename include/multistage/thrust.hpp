// multistage on Thrust's host systems (CPP, and OMP where OpenMP is on): the GPU's code, run on
// the CPU. Compile with -DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP (or _OMP), as the
// target multistage::thrust does.
#pragma once
// The order matters: what stands between the first and the last.
// clang-format off
#include "core/warnings_begin.inc"
#include "backend/thrust/backend.hpp"
#include "backend/thrust/systems.hpp"
#include "library.hpp"
#include "core/warnings_end.inc"
// clang-format on
