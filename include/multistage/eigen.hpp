// multistage on Eigen's expressions: the portable reference, for any compiler, processor and
// real scalar. The same lines with the backend argument multistage::eigen; may stand beside
// <multistage/multistage.hpp>.
#pragma once
#include "backend/eigen/backend.hpp"
#include "core/warnings_begin.inc"
#include "core/warnings_end.inc"
#include "library.hpp"
