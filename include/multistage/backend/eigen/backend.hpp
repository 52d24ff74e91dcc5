// The Eigen backend, all of it.
#pragma once
#include "attention.hpp"
#include "conv.hpp"
#include "eigen.hpp"
#include "gemm.hpp"
#include "norm.hpp"
#include "reduce.hpp"
#include "resample.hpp"
