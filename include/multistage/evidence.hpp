// Experiments that compare ways to train, with intervals (docs/evidence.md). Needs what
// <multistage/io.hpp> needs; include <multistage/multistage.hpp> or another umbrella that
// chooses a backend first.
#pragma once
// The order matters: what stands between the first and the last.
// clang-format off
#include "core/warnings_begin.inc"
#include "evidence/page.hpp"
#include "evidence/work.hpp"
#include "core/warnings_end.inc"
// clang-format on
