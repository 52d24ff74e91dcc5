// The Thrust backend, all of it, for any system.
#pragma once
#include "attention.hpp"
#include "conv.hpp"
#include "gemm.hpp"
#include "norm.hpp"
#include "random.hpp"
#include "reduce.hpp"
#include "resample.hpp"
#include "thrust_backend.hpp"
