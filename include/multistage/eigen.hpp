// multistage on Eigen's expressions: the portable reference, for any compiler, processor and
// real scalar. The same lines with the backend argument multistage::eigen; may stand beside
// <multistage/multistage.hpp>.
#pragma once
// The order matters: what stands between the first and the last.
// clang-format off
#include "core/warnings_begin.inc"
#include "backend/eigen/backend.hpp"
#include "library.hpp"
#include "core/warnings_end.inc"
// clang-format on
